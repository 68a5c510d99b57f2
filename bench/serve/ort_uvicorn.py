"""ONNX Runtime behind uvicorn: a small server of the Open Inference Protocol, as fast as
Python allows. A raw ASGI application without a framework, httptools and uvloop, tensors in
binary form only, and inference in the event loop's thread: handing it to another costs more
than a step takes. States of sequences are arrays in a dict.

    SERVE_MODELS=a.onnx,b.onnx SERVE_PORT=8101 python ort_uvicorn.py

SERVE_THREADS  threads of ONNX Runtime (1)
SERVE_WORKERS  processes (1); states live in one of them, so sequences need 1
SERVE_BATCH    1: requests for a model that wait in the event loop at a time are one batch
"""

import asyncio
import os
import pathlib

import numpy as np
import onnxruntime
import orjson

BATCH = os.environ.get("SERVE_BATCH") == "1"
HEADER = b"inference-header-content-length"
ALL = [(b"content-type", b"application/octet-stream")]


class Model:
    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("SERVE_THREADS", "1"))
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = self.session.get_inputs()
        self.names = [o.name for o in self.session.get_outputs()]
        self.states = [i for i in self.inputs if i.name + "n" in self.names]
        self.outputs = [n for n in self.names if n not in [i.name + "n" for i in self.states]]
        self.live = {}  # states by sequence
        self.waiting = []
        self.rows = self.runs = 0
        self.metadata = orjson.dumps({
            "name": pathlib.Path(path).stem, "versions": ["1"], "platform": "onnxruntime",
            "inputs": [self.describe(i) for i in self.inputs if i not in self.states],
            "outputs": [self.describe(o) for o in self.session.get_outputs() if o.name in self.outputs]})

    def describe(self, v):
        return {"name": v.name, "datatype": "FP32", "shape": [d if isinstance(d, int) else -1 for d in v.shape]}

    def run(self, feeds):
        """Runs one request, or in a batch."""
        self.rows += 1
        if not BATCH:
            self.runs += 1
            return self.session.run(None, feeds)
        done = asyncio.get_running_loop().create_future()
        if not self.waiting:
            # Two turns of the loop: one reads all sockets that have a request, the next starts their tasks.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self.flush)
        self.waiting.append((feeds, done))
        return done

    def flush(self):
        """Computes what waits, those of equal lengths together."""
        alike = {}
        for feeds, done in self.waiting:
            alike.setdefault(feeds["x"].shape[1:], []).append((feeds, done))
        self.waiting = []
        states = {i.name for i in self.states}
        for group in alike.values():
            self.runs += 1
            if len(group) == 1:
                group[0][1].set_result(self.session.run(None, group[0][0]))
                continue
            feeds = {n: np.concatenate([f[n] for f, _ in group], axis=1 if n in states else 0) for n in group[0][0]}
            results = self.session.run(None, feeds)
            at = 0
            for f, done in group:
                n = len(f["x"])
                # Of states, copies: a view would keep the whole batch in memory.
                done.set_result([r[at:at + n] if name in self.outputs else r[:, at:at + n].copy() for name, r in zip(self.names, results)])
                at += n

    async def infer(self, size, body):
        request = orjson.loads(body[:size])
        feeds, at = {}, size
        for tensor in request["inputs"]:
            n = tensor["parameters"]["binary_data_size"]
            feeds[tensor["name"]] = np.frombuffer(body, np.float32, n // 4, at).reshape(tensor["shape"])
            at += n
        parameters = request.get("parameters") or {}
        sequence = parameters.get("sequence_id", 0)
        if self.states:
            if not sequence or parameters.get("sequence_start"):
                rows = len(feeds["x"])
                for i in self.states:
                    feeds.setdefault(i.name, np.zeros((i.shape[0], rows, i.shape[2]), np.float32))
            elif sequence not in self.live:
                raise ValueError(f"sequence {sequence} must specify the START flag on its first request")
            else:
                feeds.update(self.live[sequence])
        results = self.run(feeds)
        if BATCH:
            results = await results
        results = dict(zip(self.names, results))
        if sequence:
            if parameters.get("sequence_end"):
                self.live.pop(sequence, None)
            else:
                self.live[sequence] = {i.name: results[i.name + "n"] for i in self.states}
        names = self.outputs if sequence or not self.states else self.names
        head = orjson.dumps({"model_name": "", "model_version": "1", "outputs": [
            {"name": n, "datatype": "FP32", "shape": results[n].shape, "parameters": {"binary_data_size": results[n].nbytes}} for n in names]})
        return head, b"".join([head, *[results[n].tobytes() for n in names]])


models = {pathlib.Path(p).stem: Model(p) for p in os.environ["SERVE_MODELS"].split(",")}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return
    parts = scope["path"].split("/")  # "", v2, models, NAME, WHAT
    status, headers, body = 200, ALL, b""
    try:
        if parts[1:3] == ["v2", "models"]:
            model = models[parts[3]]
            what = parts[4] if len(parts) > 4 else ""
            if what == "infer":
                message = await receive()
                data = message["body"]
                while message.get("more_body"):
                    message = await receive()
                    data += message["body"]
                size = next(int(v) for k, v in scope["headers"] if k == HEADER)
                head, body = await model.infer(size, data)
                headers = [*ALL, (HEADER, b"%d" % len(head))]
            elif what == "stats":
                body = orjson.dumps({"model_stats": [{"name": parts[3], "version": "1", "inference_count": model.rows, "execution_count": model.runs}]})
            else:
                body = model.metadata
    except Exception as e:  # every error is the client's to know
        status, body = 400, orjson.dumps({"error": f"{type(e).__name__}: {e}"})
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    import uvicorn

    uvicorn.run("ort_uvicorn:app", host="127.0.0.1", port=int(os.environ["SERVE_PORT"]), loop="uvloop", http="httptools", workers=int(os.environ.get("SERVE_WORKERS", "1")),
                access_log=False, log_level="warning", server_header=False, date_header=False)
