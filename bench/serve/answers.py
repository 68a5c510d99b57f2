"""Checks a server's answers against ONNX Runtime's in this process: equal to 1e-5.

    python answers.py http://127.0.0.1:8101 MODEL DIR
"""

import json
import sys
import urllib.request

import numpy as np
import onnxruntime

address, name, directory = sys.argv[1:]
session = onnxruntime.InferenceSession(f"{directory}/{name}.onnx", providers=["CPUExecutionProvider"])
rng = np.random.default_rng(7)
names = [o.name for o in session.get_outputs()]
states = {i.name: np.zeros([i.shape[0], 1, i.shape[2]], np.float32) for i in session.get_inputs() if i.name + "n" in names}
features = session.get_inputs()[0].shape[-1]
steps = 20 if states else 3


def infer(x, parameters):
    request = {"parameters": {**parameters, "binary_data_output": True},
               "inputs": [{"name": "x", "shape": x.shape, "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}]}
    head = json.dumps(request).encode()
    call = urllib.request.Request(f"{address}/v2/models/{name}/infer", head + x.tobytes(), {
        "Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"})
    with urllib.request.urlopen(call) as answer:
        size, body = int(answer.headers["Inference-Header-Content-Length"]), answer.read()
    at, outputs = size, {}
    for o in json.loads(body[:size])["outputs"]:
        n = o["parameters"]["binary_data_size"]
        outputs[o["name"]] = np.frombuffer(body, np.float32, n // 4, at).reshape(o["shape"])
        at += n
    return outputs


worst = 0.0
for i in range(steps):
    x = rng.standard_normal((1, features) if states else (1, 100, features)).astype(np.float32)
    got = infer(x, {"sequence_id": 77, "sequence_start": i == 0, "sequence_end": i == steps - 1} if states else {})
    want = dict(zip(names, session.run(None, {"x": x, **states})))
    states = {s: want[s + "n"] for s in states}
    worst = max(worst, float(np.abs(got["y"] - want["y"]).max()))
if not worst <= 1e-5:
    sys.exit(f"{address}: answers of {name} differ by {worst:g} from ONNX Runtime's; want at most 1e-5")
