"""Runs the layers of a file in Keras and prints how far the results lie from those
it is given: parity.py WEIGHTS LAYERS.json SAMPLES.safetensors

The layers of a whole model are those of the model that Keras loads from it. Of a
file of weights alone, which has no configuration, they are built as LAYERS.json
describes. Keras 2 runs this as well, for its own .h5 files.
"""
import json
import struct
import sys
import zipfile

import h5py
import keras
import numpy as np
from keras import layers as kl

KERAS3 = int(keras.__version__.split(".")[0]) >= 3


def safetensors(path):
    types = {"F32": np.float32, "I64": np.int64}
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(n))
        data = f.read()
    header.pop("__metadata__", None)
    return {k: np.frombuffer(data[slice(*t["data_offsets"])], types[t["dtype"]]).reshape(t["shape"]) for k, t in header.items()}


def from_model(path):
    """The layers of the file's own model by name, as Keras loads them."""
    found = {}

    def cells(cell, name):
        if isinstance(cell, kl.StackedRNNCells):
            for i, c in enumerate(cell.cells):
                cells(c, f"{name}.{i}")
        else:
            found[name] = kl.RNN(cell, return_sequences=True, return_state=True)

    def walk(layer, name):
        if isinstance(layer, keras.Model):
            for child in layer.layers:
                walk(child, f"{name}.{child.name}" if name else child.name)
        elif isinstance(layer, kl.TimeDistributed):
            walk(layer.layer, name)
        elif type(layer) is kl.RNN:
            backwards = layer.go_backwards
            cells(layer.cell, name)
            if name in found:
                found[name].go_backwards = backwards
        else:
            found[name] = layer

    walk(keras.models.load_model(path, compile=False, **({"safe_mode": True} if KERAS3 else {})), "")
    return found


def sequences(layer):
    """Lets a layer of the model return everything, without changing what it computes."""
    if isinstance(layer, kl.Bidirectional):
        layer.merge_mode = "concat"  # as its note says
        for one in (layer.forward_layer, layer.backward_layer, layer):
            one.return_sequences = one.return_state = True
    elif isinstance(layer, kl.RNN):
        layer.return_sequences = layer.return_state = True
        layer.stateful = False
    elif isinstance(layer, kl.Dense):
        layer.activation = keras.activations.linear  # it follows the layer, as its note says
    return layer


def from_arrays(path):
    """A layer with the arrays of a file of weights, built from what is known of it."""
    f = h5py.File(path, "r")

    def get(layer, x):
        m = module(layer)
        m.build(x.shape)
        weights = [np.array(f[p]) for p in layer["arrays"]]
        if layer["cudnn"]:
            weights = [w for i in range(0, len(weights), 3) for w in from_cudnn(*weights[i:i + 3])]
        m.set_weights(weights)
        return m

    return get


def from_cudnn(kernel, recurrent, bias):
    """The arrays of an LSTM or GRU, of those of a CuDNNLSTM or CuDNNGRU."""
    gates = kernel.shape[1] // recurrent.shape[0]
    bias = bias.reshape(2, -1)
    return (
        np.hstack([k.T.reshape(k.shape, order="F") for k in np.hsplit(kernel, gates)]),
        np.hstack([r.T for r in np.hsplit(recurrent, gates)]),
        bias.sum(axis=0) if gates == 4 else bias,
    )


def module(layer):
    bias, act = layer["bias"], {"identity": "linear"}
    if layer["class"] == "Dense":
        return kl.Dense(layer["output"], use_bias=bias)
    if layer["class"] == "Embedding":
        return kl.Embedding(layer["input"], layer["output"])
    if layer["class"] == "LayerNormalization":
        return kl.LayerNormalization(epsilon=layer["eps"], scale=layer["scale"], center=layer["center"])
    inner = layer.get("activation") or ("relu" if layer["kind"] == "rnn_relu" else "tanh")
    options = dict(activation=act.get(inner, inner), use_bias=bias)
    if layer["class"] != "SimpleRNN":
        gate = layer.get("gate_activation") or "sigmoid"
        options["recurrent_activation"] = act.get(gate, gate)
    if layer["class"] == "GRU":
        options["reset_after"] = not layer.get("reset_before", False)
    m = getattr(kl, layer["class"])(layer["hidden"], **options)
    return kl.Bidirectional(m) if layer.get("bidirectional") else m


def old_hard_sigmoid(m):
    """Gives a layer of Keras 3 the hard_sigmoid of Keras 2, whose model it is."""
    for one in (m.forward_layer, m.backward_layer) if isinstance(m, kl.Bidirectional) else (m,):
        one.cell.recurrent_activation = lambda x: keras.ops.clip(0.2 * x + 0.5, 0, 1)


def run(m, layer, part):
    get = part if KERAS3 else lambda name: None if part(name) is None else keras.backend.constant(part(name), dtype=str(part(name).dtype))
    x = get("ids") if get("ids") is not None else get("x")
    m = sequences(m(layer, x))
    if KERAS3 and layer.get("gate_activation") == "hard_sigmoid":
        old_hard_sigmoid(m)
    if not layer.get("hidden"):
        return [(m(x), part("y"))]
    directions = 2 if layer.get("bidirectional") else 1
    lstm = layer["class"] == "LSTM"
    initial = [s[d] for d in range(directions) for s in ([get("h0"), get("c0")] if lstm else [get("h0")])]
    if getattr(m, "go_backwards", False):
        x = x[:, ::-1]  # as its note says
    y, *states = m(x, initial_state=initial)
    want = [s[d] for d in range(directions) for s in ([part("hn"), part("cn")] if lstm else [part("hn")])]
    return [(y, part("y"))] + list(zip(states, want))


def main():
    path, layers, samples = sys.argv[1:]
    with open(layers) as f:
        layers = json.load(f)
    samples = safetensors(samples)
    if zipfile.is_zipfile(path) or "model_config" in h5py.File(path, "r").attrs:
        own = from_model(path)
        find = lambda layer, _: own[layer["name"]]
    else:
        find = from_arrays(path)
    differences, array = [], keras.ops.convert_to_numpy if KERAS3 else np.asarray
    for i, layer in enumerate(layers):
        pairs = run(find, layer, lambda part: samples.get(f"{i}.{part}"))
        differences.append(max(float(np.abs(array(got) - want.reshape(got.shape)).max()) for got, want in pairs))
    print(json.dumps({"keras": keras.__version__, "differences": differences}))


main()
