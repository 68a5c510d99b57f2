"""Runs the layers of a file of weights in Keras and prints how far the results lie
from those it is given: parity.py WEIGHTS LAYERS.json SAMPLES.safetensors
"""
import json
import struct
import sys
import zipfile

import keras
import numpy as np
from keras import layers as kl


def safetensors(path):
    types = {"F32": np.float32, "I64": np.int64}
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(n))
        data = f.read()
    header.pop("__metadata__", None)
    return {k: np.frombuffer(data[slice(*t["data_offsets"])], types[t["dtype"]]).reshape(t["shape"]) for k, t in header.items()}


def from_model(path):
    """Weights by layer name, as Keras loads them."""
    found = {}

    def walk(layer, name):
        children = list(getattr(layer, "layers", None) or [])
        for child in children:
            walk(child, f"{name}.{child.name}" if name else child.name)
        cells = getattr(getattr(layer, "cell", None), "cells", None)
        for i, cell in enumerate(cells or []):
            found[f"{name}.{i}"] = cell.get_weights()
        if not children and name:
            found[name] = layer.get_weights()

    walk(keras.saving.load_model(path, compile=False, safe_mode=True), "")
    return lambda layer: found[layer["name"]]


def from_arrays(path):
    import h5py

    f = h5py.File(path, "r")
    def get(layer):
        out = []
        for p in layer["paths"]:
            group = f[p + "/vars" if p else "vars"]
            out += [np.array(group[str(i)]) for i in range(len(group))]
        return out
    return get


def module(layer):
    bias, act = layer["bias"], {"identity": "linear"}
    if layer["class"] == "Dense":
        return kl.Dense(layer["output"], use_bias=bias)
    if layer["class"] == "Embedding":
        return kl.Embedding(layer["input"], layer["output"])
    if layer["class"] == "LayerNormalization":
        return kl.LayerNormalization(epsilon=layer["eps"], scale=layer["scale"], center=layer["center"])
    inner = layer.get("activation") or ("relu" if layer["kind"] == "rnn_relu" else "tanh")
    options = dict(activation=act.get(inner, inner), use_bias=bias, return_sequences=True, return_state=True)
    if layer["class"] != "SimpleRNN":
        gate = layer.get("gate_activation") or "sigmoid"
        options["recurrent_activation"] = act.get(gate, gate)
    if layer["class"] == "GRU":
        options["reset_after"] = not layer.get("reset_before", False)
    m = getattr(kl, layer["class"])(layer["hidden"], **options)
    return kl.Bidirectional(m) if layer.get("bidirectional") else m


def run(layer, weights, get):
    m = module(layer)
    x = get("ids") if get("ids") is not None else get("x")
    m.build(x.shape)
    m.set_weights(weights)
    if not layer.get("hidden"):
        return [(m(x), get("y"))]
    directions = 2 if layer.get("bidirectional") else 1
    lstm = layer["class"] == "LSTM"
    initial = [s[d] for d in range(directions) for s in ([get("h0"), get("c0")] if lstm else [get("h0")])]
    y, *states = m(x, initial_state=initial)
    want = [s[d] for d in range(directions) for s in ([get("hn"), get("cn")] if lstm else [get("hn")])]
    return [(y, get("y"))] + list(zip(states, want))


def main():
    path, layers, samples = sys.argv[1:]
    with open(layers) as f:
        layers = json.load(f)
    samples = safetensors(samples)
    weights = from_model(path) if zipfile.is_zipfile(path) else from_arrays(path)
    differences = []
    for i, layer in enumerate(layers):
        pairs = run(layer, weights(layer), lambda part: samples.get(f"{i}.{part}"))
        differences.append(max(float(np.abs(keras.ops.convert_to_numpy(got) - want.reshape(got.shape)).max()) for got, want in pairs))
    print(json.dumps({"keras": keras.__version__, "differences": differences}))


main()
