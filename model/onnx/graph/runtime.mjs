// Runs one model in ONNX Runtime: a JSON request on standard input, a JSON answer on standard output.
import ort from 'onnxruntime-node';
import { readFileSync } from 'node:fs';

const arrays = { float32: Float32Array, int64: BigInt64Array, int32: Int32Array, bool: Uint8Array };
const request = JSON.parse(readFileSync(0, 'utf8'));
const session = await ort.InferenceSession.create(request.path || Buffer.from(request.model, 'base64'), { intraOpNumThreads: 1, logSeverityLevel: 3, graphOptimizationLevel: request.level });
const feeds = {};
for (const v of request.inputs) {
  const bytes = Uint8Array.from(Buffer.from(v.data, 'base64')); // a copy, so that it is aligned
  feeds[v.name] = new ort.Tensor(v.type, new arrays[v.type](bytes.buffer), v.dims);
}
const results = await session.run(feeds);
const answer = session.outputNames.map((name) => {
  const t = results[name];
  const data = Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength).toString('base64');
  return { name, type: t.type, dims: t.dims, data };
});
process.stdout.write(JSON.stringify(answer));
