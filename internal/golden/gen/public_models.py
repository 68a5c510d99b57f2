"""What ONNX Runtime makes of models that others publish.

    make models
    pip install numpy onnxruntime
    python3 internal/golden/gen/public_models.py .peers/models > model/onnx/graph/testdata/public.json

runs each model several times on a formula's numbers, with the states of the call before,
and writes the shapes of the inputs and some elements of the outputs.
"""
import glob
import json
import os
import sys

import numpy as np
import onnxruntime

CALLS, KEPT = 4, 16


def wave(n, call):
    """n numbers, the same ones that the test makes."""
    i = np.arange(n, dtype=np.float64) + 1000 * call
    return (0.5 * np.sin(0.37 * i) * np.cos(0.011 * i)).astype(np.float32)


SHAPES = {  # of inputs whose declared shapes leave dimensions open
    "melspectrogram.onnx": {"input": [1, 12400]},
    "embedding_model.onnx": {"input_1": [1, 76, 32, 1]},
    "silero_vad_16k_sequence.onnx": {"input": [4, 576]},
}
NEXT = {"state": "stateN", "h": "hn", "c": "cn"}


def run(path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    known = SHAPES.get(os.path.basename(path), {})
    inputs, states, calls = {}, {}, []
    for v in session.get_inputs():
        given = [d if isinstance(d, int) and d > 0 else 0 for d in v.shape]
        usual = {"state": [2, 1, 128], "input": [1, 576], "sr": []}.get(v.name) or [1] * len(given)
        inputs[v.name] = known.get(v.name) or [d or u for d, u in zip(given, usual)]
    for call in range(CALLS):
        feed = {}
        for k, dims in inputs.items():
            if k == "sr":
                feed[k] = np.array(16000, np.int64)
            elif k in NEXT:
                feed[k] = states.get(k, np.zeros(dims, np.float32))
            else:
                feed[k] = wave(int(np.prod(dims)), call).reshape(dims)
        outs = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed)))
        for k, out in NEXT.items():
            if k in inputs and out in outs:
                states[k] = outs[out]
        calls.append({k: {"dims": list(v.shape), "some": [float(x) for x in v.ravel()[:: max(1, v.size // KEPT)]]} for k, v in outs.items()})
    return {"inputs": inputs, "calls": calls}


def main(folder):
    found = {os.path.relpath(p, folder): run(p) for p in sorted(glob.glob(os.path.join(folder, "*", "*.onnx")))}
    json.dump(found, sys.stdout, indent=0)


main(*sys.argv[1:])
