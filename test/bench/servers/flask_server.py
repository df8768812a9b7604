"""A plain Flask server in front of onnxruntime: V2 JSON requests of one FP32 tensor, one process, threads for callers."""

import os
import sys

import numpy as np
import onnxruntime as ort
from flask import Flask, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
names = [o.name for o in session.get_outputs()]
app = Flask(__name__)


@app.get("/")
def health():
    return "ok"


@app.post("/")
def infer():
    tensor = request.get_json(force=True)["inputs"][0]
    data = np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    outputs = session.run(None, {tensor["name"]: data})
    return jsonify(
        outputs=[
            {"name": n, "shape": list(o.shape), "datatype": str(o.dtype), "data": o.ravel().tolist()}
            for n, o in zip(names, outputs)
        ]
    )


class KeepAlive(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


make_server("127.0.0.1", int(os.environ["PORT"]), app, threaded=True, request_handler=KeepAlive).serve_forever()
