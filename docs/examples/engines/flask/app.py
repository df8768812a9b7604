"""The Flask sample of the platform's manual: four paths, the port from $PORT."""

import os

from flask import Flask, jsonify, request

app = Flask(__name__)


@app.route("/health", methods=["GET"])
def health():
    return jsonify({"health": "true"})


@app.route("/", methods=["POST"])
def echo():
    return jsonify({"received": request.get_json(force=True)})


@app.route("/greet", methods=["POST"])
def greet():
    name = request.get_json(force=True).get("name", "world")
    return jsonify({"message": "Hello " + name})


@app.route("/goodbye", methods=["GET"])
def goodbye():
    return jsonify({"message": "Goodbye"})


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]), threaded=True)
