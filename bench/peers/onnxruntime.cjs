// ONNX Runtime as a peer: one JSON request a line on stdin, one JSON answer a
// line on stdout; see child.go. Ends when stdin does.
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const ort = require('onnxruntime-node');

const threads = Number(process.argv[2]);
const mode = process.argv[3]; // f32, or what the files' weights are
let session, feeds, output;

const requests = {
  async open({ shape: { T, B, I }, dir, model, inputs }) {
    const options = { intraOpNumThreads: threads, interOpNumThreads: 1 };
    session = await ort.InferenceSession.create(model ?? path.join(dir, mode === 'f32' ? 'model.onnx' : `model_${mode}.onnx`), options);
    const floats = (file, dims) => {
      const bytes = fs.readFileSync(path.join(dir, file));
      const x = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4).slice();
      return new ort.Tensor('float32', x, dims);
    };
    feeds = inputs ? {} : { x: floats('x.f32', [T, B, I]) };
    (inputs ?? []).forEach(({ name, dims, whole, value }, i) => {
      feeds[name] = whole ? new ort.Tensor('int64', [BigInt(value)], dims) : floats(`in${i}.f32`, dims);
    });
    output = session.outputNames[0];
    return {};
  },
  async run({ warm, calls }) {
    for (let i = 0; i < warm; i++) await session.run(feeds);
    const ms = [];
    for (let i = 0; i < calls; i++) {
      const start = process.hrtime.bigint();
      await session.run(feeds);
      ms.push(Number(process.hrtime.bigint() - start) / 1e6);
    }
    return { ms };
  },
  async save({ file }) {
    const y = (await session.run(feeds))[output].data;
    fs.writeFileSync(file, Buffer.from(y.buffer, y.byteOffset, y.byteLength));
    return {};
  },
  async close() {
    await session.release();
    session = feeds = undefined;
    return {};
  },
};

async function main() {
  process.on('SIGINT', () => {}); // Ctrl-C is for the program that started this one
  const say = (answer) => process.stdout.write(JSON.stringify(answer) + '\n');
  const name = 'onnxruntime ' + (ort.env.versions?.common ?? '');
  say(mode === 'f32' ? { name, passes: ['forward', 'ready'] } : { name: name + ' ' + mode, passes: ['forward'] });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      const request = JSON.parse(line);
      say(await requests[request.op](request));
    } catch (e) {
      say({ error: String(e) });
    }
  }
  process.exit(0);
}
main();
