"""Files of whole models and weights in the .h5 layout of Keras 2, for the reader's tests.

    python3 internal/golden/gen/keras_h5_files.py NAME

writes model/keras/testdata/NAME/*.h5 and expected.safetensors, which holds for each
layer of each file an input and the layer's output, FILE:LAYER:in and FILE:LAYER:out.
The committed directories are keras3, written by Keras 3.15 (with its backend jax),
keras2, by tensorflow-cpu 2.10, and keras1, by Keras 2.2.4 on tensorflow 1.15
(with KERAS_BACKEND=tensorflow).
"""
import os
import struct
import json
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from keras import layers as kl

NAME = sys.argv[1]
HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.normpath(os.path.join(HERE, *[os.pardir] * 3, "model", "keras", "testdata", NAME))
rng = np.random.RandomState(17)
expected = {}


def write_safetensors(path, tensors, meta):
    header, data = {"__metadata__": meta}, b""
    for name, x in tensors.items():
        raw = np.ascontiguousarray(x, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(np.shape(x)), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def fill(model):
    model.set_weights([rng.uniform(0.01, 0.5, w.shape) * rng.choice([-1, 1], w.shape) if w.ndim > 1 else rng.uniform(0.01, 0.5, w.shape) for w in model.get_weights()])


def note(file, layers):
    """What each layer computes alone: NAME, LAYER, FEATURES."""
    for name, layer, features in layers:
        x = rng.normal(size=(2, 4, features)).astype(np.float32)
        i = kl.Input((4, features))
        y = keras.models.Model(i, layer(i)).predict(x)
        expected[file + ":" + name + ":in"], expected[file + ":" + name + ":out"] = x, y


def save(file, model, layers, weights=True):
    fill(model)
    model.save(os.path.join(OUT, file + ".h5"))
    note(file, layers)
    if weights and not keras.__version__.startswith("3."):
        model.save_weights(os.path.join(OUT, file + "_weights.h5"))


def stack():
    """Recurrent layers in every form, a model in the model with layers trained and not, and unknown ones."""
    x = kl.Input((None, 3))
    y = kl.Bidirectional(kl.LSTM(2, return_sequences=True), name="both")(x)
    y = kl.GRU(3, return_sequences=True, reset_after=False, name="before")(y)
    y = kl.GRU(2, return_sequences=True, reset_after=True, name="after")(y)
    y = kl.LSTM(2, return_sequences=True, recurrent_activation="hard_sigmoid", name="hard")(y)
    y = kl.RNN([kl.LSTMCell(2), kl.LSTMCell(3)], return_sequences=True, name="cells")(y)
    inner = keras.models.Sequential([kl.TimeDistributed(kl.Dense(3), input_shape=(None, 3), name="d1"), kl.TimeDistributed(kl.Dense(3), name="d2")], name="frozen_inner")
    inner.layers[0].trainable = False
    y = inner(y)
    mixed = keras.models.Sequential([kl.SimpleRNN(3, return_sequences=True, input_shape=(None, 3), name="simple"), kl.BatchNormalization(name="bn"), kl.Dense(2, name="head")], name="mixed")
    y = mixed(y)
    m = keras.models.Model(x, y, name="stack")
    parts = [(name, m.get_layer(name), n) for name, n in (("both", 3), ("before", 4), ("after", 3), ("hard", 2), ("cells", 2))]
    parts += [("frozen_inner.d1", inner.get_layer("d1"), 3), ("frozen_inner.d2", inner.get_layer("d2"), 3), ("mixed.simple", mixed.get_layer("simple"), 3), ("mixed.head", mixed.get_layer("head"), 3)]
    return m, parts


def cudnn():
    """Layers of cuDNN, and the ordinary ones that Keras makes of their arrays."""
    import tensorflow as tf

    lstm, gru = tf.compat.v1.keras.layers.CuDNNLSTM, tf.compat.v1.keras.layers.CuDNNGRU

    def build(lstm, gru):
        return keras.models.Sequential([lstm(3, return_sequences=True, name="lstm", input_shape=(None, 4)), gru(2, return_sequences=True, name="gru"),
                                        kl.Bidirectional(gru(2, return_sequences=True), name="both")], name="cudnn")

    plain = build(kl.LSTM, kl.GRU)
    save("cudnn", build(lstm, gru), [])
    plain.load_weights(os.path.join(OUT, "cudnn_weights.h5"))
    note("cudnn", [("lstm", plain.get_layer("lstm"), 4), ("gru", plain.get_layer("gru"), 3), ("both", plain.get_layer("both"), 2)])


def norm():
    m = keras.models.Sequential([kl.Input((None, 3)), kl.LayerNormalization(name="last"), kl.SimpleRNN(2, return_sequences=True, name="rnn")], name="norm")
    save("norm", m, [("last", m.get_layer("last"), 3)], weights=False)


os.makedirs(OUT, exist_ok=True)
save("stack", *stack())
if NAME != "keras1":
    norm()
if NAME == "keras2":
    cudnn()
write_safetensors(os.path.join(OUT, "expected.safetensors"), expected, {"keras": keras.__version__})
