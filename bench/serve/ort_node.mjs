// ONNX Runtime behind Node's http: a small server of the Open Inference Protocol with
// tensors in binary form only; the states of sequences are tensors in a map.
//
//   SERVE_MODELS=a.onnx,b.onnx SERVE_PORT=8102 node ort_node.mjs
//
// SERVE_THREADS  threads of ONNX Runtime (1)
import http from 'node:http';
import path from 'node:path';
import { createRequire } from 'node:module';

// Installed for the comparison of kernels already: npm install --ignore-scripts --prefix bench/peers
const ort = createRequire(new URL('../peers/', import.meta.url))('onnxruntime-node');

const models = new Map();
for (const file of process.env.SERVE_MODELS.split(',')) {
  const session = await ort.InferenceSession.create(file, { intraOpNumThreads: Number(process.env.SERVE_THREADS ?? 1), interOpNumThreads: 1 });
  const states = session.inputNames.filter((n) => session.outputNames.includes(n + 'n'));
  const shapes = Object.fromEntries(session.inputMetadata.map((m) => [m.name, m.shape.map((d) => (typeof d === 'number' ? d : -1))]));
  const outputs = session.outputNames.filter((n) => !states.includes(n.slice(0, -1)));
  models.set(path.basename(file, '.onnx'), { session, states, shapes, outputs, live: new Map(), rows: 0 });
}

async function infer(model, size, body) {
  const request = JSON.parse(body.toString('utf8', 0, size));
  const feeds = {};
  let at = size;
  for (const t of request.inputs) {
    const n = t.parameters.binary_data_size;
    const data = new Float32Array(n / 4);
    Buffer.from(data.buffer).set(body.subarray(at, at + n)); // a copy, so that it is aligned
    feeds[t.name] = new ort.Tensor('float32', data, t.shape);
    at += n;
  }
  const { sequence_id: sequence, sequence_start: start, sequence_end: end } = request.parameters ?? {};
  if (model.states.length > 0) {
    const live = model.live.get(sequence);
    if (!sequence || start) {
      const rows = feeds.x.dims[0];
      for (const n of model.states) {
        const [layers, , units] = model.shapes[n];
        feeds[n] ??= new ort.Tensor('float32', new Float32Array(layers * rows * units), [layers, rows, units]);
      }
    } else if (live) {
      Object.assign(feeds, live);
    } else {
      throw new Error(`sequence ${sequence} must specify the START flag on its first request`);
    }
  }
  model.rows++;
  const results = await model.session.run(feeds);
  if (sequence) {
    if (end) model.live.delete(sequence);
    else model.live.set(sequence, Object.fromEntries(model.states.map((n) => [n, results[n + 'n']])));
  }
  const names = sequence || model.states.length === 0 ? model.outputs : model.session.outputNames;
  const outputs = names.map((name) => ({ name, datatype: 'FP32', shape: results[name].dims, parameters: { binary_data_size: results[name].data.byteLength } }));
  const head = Buffer.from(JSON.stringify({ model_name: '', model_version: '1', outputs }));
  return [head, ...names.map((n) => Buffer.from(results[n].data.buffer, results[n].data.byteOffset, results[n].data.byteLength))];
}

const server = http.createServer(async (request, response) => {
  const [, , , name, what] = request.url.split('/'); // "", v2, models, NAME, WHAT
  const say = (value) => {
    const text = Buffer.from(JSON.stringify(value));
    response.writeHead(value.error ? 400 : 200, { 'content-type': 'application/json', 'content-length': text.length });
    response.end(text);
  };
  try {
    if (!name) return say({}); // health
    const model = models.get(decodeURIComponent(name));
    if (!model) throw new Error(`no model ${name}`);
    if (what === 'stats') return say({ model_stats: [{ name, version: '1', inference_count: model.rows, execution_count: model.rows }] });
    if (what !== 'infer') {
      const inputs = Object.entries(model.shapes).filter(([n]) => !model.states.includes(n));
      return say({ name, versions: ['1'], platform: 'onnxruntime', inputs: inputs.map(([n, shape]) => ({ name: n, datatype: 'FP32', shape })), outputs: [] });
    }
    const parts = [];
    for await (const part of request) parts.push(part);
    const body = parts.length === 1 ? parts[0] : Buffer.concat(parts);
    const answer = await infer(model, Number(request.headers['inference-header-content-length']), body);
    const all = Buffer.concat(answer);
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'inference-header-content-length': answer[0].length, 'content-length': all.length });
    response.end(all);
  } catch (e) {
    say({ error: String(e) });
  }
});
server.keepAliveTimeout = 60_000;
server.listen(Number(process.env.SERVE_PORT), '127.0.0.1');
