// Runs models with onnxruntime-node: one request a line on the standard input, as
// {"model": path, "inputs": [{"name", "datatype", "shape", "data"}]}, one answer a line, as
// {"outputs": [...]} or {"error": text}. Data is base64 of the little-endian values; strings are a
// list of base64.
import { createInterface } from 'node:readline';
import { InferenceSession, Tensor } from 'onnxruntime-node';

const kinds = {
  FP32: ['float32', Float32Array], FP64: ['float64', Float64Array], FP16: ['float16', Uint16Array],
  INT8: ['int8', Int8Array], INT16: ['int16', Int16Array], INT32: ['int32', Int32Array], INT64: ['int64', BigInt64Array],
  UINT8: ['uint8', Uint8Array], UINT16: ['uint16', Uint16Array], UINT32: ['uint32', Uint32Array], UINT64: ['uint64', BigUint64Array],
  BOOL: ['bool', Uint8Array],
};
const names = Object.fromEntries(Object.entries(kinds).map(([v2, [ort]]) => [ort, v2]));

function tensor({ datatype, shape, data }) {
  if (datatype === 'BYTES') return new Tensor('string', data.map((s) => Buffer.from(s, 'base64').toString()), shape);
  if (!kinds[datatype]) throw new Error(`no ${datatype} in onnxruntime-node`);

  const [type, View] = kinds[datatype];
  const bytes = Uint8Array.from(Buffer.from(data, 'base64')); // aligned
  return new Tensor(type, new View(bytes.buffer), shape);
}

function plain(name, t) {
  const shape = Array.from(t.dims, Number);
  if (t.type === 'string') return { name, datatype: 'BYTES', shape, data: t.data.map((s) => Buffer.from(s).toString('base64')) };

  const d = t.data;
  return { name, datatype: names[t.type] ?? t.type, shape, data: Buffer.from(d.buffer, d.byteOffset, d.byteLength).toString('base64') };
}

async function run({ model, inputs }) {
  const session = await InferenceSession.create(model, { executionProviders: ['cpu'], intraOpNumThreads: 1, logSeverityLevel: 4 });
  try {
    const outputs = await session.run(Object.fromEntries(inputs.map((i) => [i.name, tensor(i)])));
    return { outputs: Object.entries(outputs).filter(([, t]) => t?.dims).map(([name, t]) => plain(name, t)) };
  } finally {
    await session.release();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = await run(JSON.parse(line));
  } catch (e) {
    answer = { error: String(e?.message ?? e) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
