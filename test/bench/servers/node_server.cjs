// A plain Node server in front of onnxruntime-node: V2 JSON requests of one FP32 tensor.
"use strict";

const http = require("node:http");
const path = require("node:path");
const ort = require(path.join(process.env.MODULES, "onnxruntime-node"));

async function main() {
  const session = await ort.InferenceSession.create(process.argv[2], { intraOpNumThreads: 1 });

  const infer = async (body) => {
    const tensor = JSON.parse(body).inputs[0];
    const feeds = { [tensor.name]: new ort.Tensor("float32", Float32Array.from(tensor.data), tensor.shape) };
    const results = await session.run(feeds);
    const outputs = Object.entries(results).map(([name, o]) => ({
      name, shape: o.dims, datatype: o.type, data: Array.from(o.data, Number),
    }));

    return JSON.stringify({ outputs });
  };

  http.createServer((req, res) => {
    if (req.method === "GET") {
      res.end("ok");

      return;
    }

    const parts = [];
    req.on("data", (part) => parts.push(part));
    req.on("end", () => {
      infer(Buffer.concat(parts)).then(
        (answer) => res.writeHead(200, { "Content-Type": "application/json" }).end(answer),
        (err) => res.writeHead(500).end(String(err)),
      );
    });
  }).listen(Number(process.env.PORT), "127.0.0.1");
}

main();
