"""Talks to an echo engine through the gateway with the package websockets: ws_client.py URL TOKEN"""
import asyncio
import ssl
import sys

import websockets

url, token = sys.argv[1:3]


async def main():
    context = None
    if url.startswith("wss:"):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE

    headers = {"X-Auth-Token": token}
    async with websockets.connect(url, subprotocols=["other", "echo"], additional_headers=headers, ssl=context, max_size=None) as ws:
        assert ws.subprotocol == "echo", ws.subprotocol
        for message in ["héllo €", b"\x00\xff" * 40000, "", "x" * 300000, ["in ", "three ", "parts"]]:
            await ws.send(message)
            want = "".join(message) if isinstance(message, list) else message
            got = await ws.recv()
            assert got == want, (type(got), len(got))
        await (await ws.ping(b"are you there"))
        await ws.close(4321, "done")
        assert ws.close_code == 4321, ws.close_code

    # The engine ends this one.
    async with websockets.connect(url + "/chat?name=py", additional_headers=headers, ssl=context) as ws:
        assert await ws.recv() == "hello py"
        await ws.send("bye")
        try:
            await ws.recv()
            raise AssertionError("not closed")
        except websockets.ConnectionClosed as e:
            assert e.rcvd.code == 4000 and e.rcvd.reason == "bye py", e

    try:
        await websockets.connect(url, ssl=context)
        raise AssertionError("let in without credentials")
    except websockets.InvalidStatus as e:
        assert e.response.status_code == 401, e.response.status_code


asyncio.run(asyncio.wait_for(main(), 30))
print("ok")
