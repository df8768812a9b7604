// Sends V2 requests for the digits model over one WebSocket: node v2.cjs URL TOKEN. Needs the package ws.
const WebSocket = require("ws");

const [url, token] = process.argv.slice(2);
const pixels = 64;

function asText(id) {
  const tensor = { name: "image", datatype: "FP32", shape: [1, 1, 8, 8], data: Array(pixels).fill(0) };
  return JSON.stringify({ id, inputs: [tensor] });
}

function asBinary(id) {
  const tensor = { name: "image", datatype: "FP32", shape: [1, 1, 8, 8], parameters: { binary_data_size: 4 * pixels } };
  const head = Buffer.from(JSON.stringify({ id, inputs: [tensor], parameters: { binary_data_output: true } }));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(head.length);
  return Buffer.concat([length, head, Buffer.from(new Float32Array(pixels).buffer)]);
}

function read(data, isBinary) {
  if (!isBinary) return JSON.parse(data.toString());
  const length = data.readUInt32LE(0);
  return { ...JSON.parse(data.subarray(4, 4 + length)), tensors: data.subarray(4 + length) };
}

const ws = new WebSocket(url, ["v2.inference"], { headers: { "X-Auth-Token": token } });
const answers = new Map();

ws.on("open", () => {
  // All at once; answers come as they are ready, told apart by their ids.
  for (let i = 0; i < 10; i++) {
    ws.send(asText(`text-${i}`));
    ws.send(asBinary(`binary-${i}`));
  }
  ws.send(JSON.stringify({ id: "wrong", inputs: [] }));
});

ws.on("message", (data, isBinary) => {
  const answer = read(data, isBinary);
  answers.set(answer.id, answer);
  if (answers.size === 21) ws.close(1000);
});

ws.on("close", (code, reason) => {
  if (code !== 1000 || !answers.get("wrong")?.error || !answers.get("binary-9")?.tensors?.length) {
    console.error(`closed with ${code} ${reason} after ${answers.size} answers`);
    process.exit(1);
  }
  console.log("answers", answers.size);
});

ws.on("unexpected-response", (_, res) => {
  console.error("refused:", res.statusCode);
  process.exit(1);
});
ws.on("error", (err) => {
  console.error(err.message);
  process.exit(1);
});
