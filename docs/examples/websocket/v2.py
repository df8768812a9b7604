"""Sends V2 requests for the digits model over one WebSocket: python3 v2.py URL TOKEN. Needs the package websockets."""
import asyncio
import json
import ssl
import struct
import sys

import websockets

url, token = sys.argv[1:3]
PIXELS = 64


def as_text(name):
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.0] * PIXELS}
    return json.dumps({"id": name, "inputs": [tensor]})


def as_binary(name):
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "parameters": {"binary_data_size": 4 * PIXELS}}
    head = json.dumps({"id": name, "inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return struct.pack("<I", len(head)) + head + struct.pack(f"<{PIXELS}f", *[0.0] * PIXELS)


def read(message):
    """Returns the answer and, from a binary message, the bytes of its tensors."""
    if isinstance(message, str):
        return json.loads(message), b""
    (length,) = struct.unpack_from("<I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


async def main():
    context = ssl.create_default_context() if url.startswith("wss:") else None
    headers = {"X-Auth-Token": token}
    async with websockets.connect(url, additional_headers=headers, subprotocols=["v2.inference"], ssl=context) as ws:
        # All at once; answers come as they are ready, told apart by their ids.
        for i in range(10):
            await ws.send(as_text(f"text-{i}"))
            await ws.send(as_binary(f"binary-{i}"))
        await ws.send(json.dumps({"id": "wrong", "inputs": []}))

        answers = {}
        for _ in range(21):
            answer, tensors = read(await ws.recv())
            answers[answer["id"]] = (answer, tensors)

    assert "error" in answers["wrong"][0], answers["wrong"]
    scores = answers["text-0"][0]["outputs"][0]["data"]
    packed = struct.unpack(f"<{len(scores)}f", answers["binary-0"][1][: 4 * len(scores)])
    assert all(abs(a - b) < 1e-4 for a, b in zip(scores, packed)), (scores, packed)
    print("answers", len(answers))


asyncio.run(asyncio.wait_for(main(), 30))
