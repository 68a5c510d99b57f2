"""Files of Keras 3 in its forms, and what is in them, for the reader's tests.

    KERAS_BACKEND=numpy python3 internal/golden/gen/keras_files.py

writes model/keras/testdata/*.keras, *.weights.h5 and expected.safetensors, whose
tensors are file:path for the arrays as h5py reads them, file:in, file:out for a
model's input and output, layer:in, layer:out for those of each layer of cells.
Needs keras, h5py, and what the backend needs (jax even for numpy).
"""
import io
import json
import os
import struct
import zipfile

import h5py
import keras
import ml_dtypes
import numpy as np
from keras import layers as kl

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.normpath(os.path.join(HERE, *[os.pardir] * 3, "model", "keras", "testdata"))


def write_safetensors(path, tensors, meta):
    header, data = {"__metadata__": meta}, b""
    for name, x in tensors.items():
        x = np.asarray(x)
        x = x.astype(np.int64) if x.dtype.kind in "iu" else x.astype(np.float32)
        raw = np.ascontiguousarray(x).tobytes()
        header[name] = {"dtype": "I64" if x.dtype == np.int64 else "F32", "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def classifier():
    """The usual one, in Sequential form."""
    return keras.Sequential([
        keras.Input((None,)),
        kl.Embedding(11, 4, mask_zero=False, name="words"),
        kl.Bidirectional(kl.LSTM(5, return_sequences=True), name="reader"),
        kl.Dropout(0.3),
        kl.GRU(6, return_sequences=True, name="gru"),
        kl.LayerNormalization(name="norm"),
        kl.SimpleRNN(4, name="simple_rnn"),
        kl.Dense(3, activation="softmax", name="dense"),
    ], name="classifier")


def cells():
    """Every recurrent layer and option that is known, and layers that are not."""
    x = keras.Input((None, 4))
    y = kl.GRU(3, reset_after=False, return_sequences=True, name="before")(x)
    y = kl.Bidirectional(kl.GRU(3, return_sequences=True), name="both")(y)
    y = kl.LSTM(5, activation="softsign", recurrent_activation="hard_tanh", use_bias=False, return_sequences=True, name="other_activations")(y)
    y = kl.SimpleRNN(4, activation="relu", return_sequences=True, name="relu")(y)
    y = kl.SimpleRNN(4, activation="elu", use_bias=False, return_sequences=True, name="elu")(y)
    y = kl.RNN(kl.LSTMCell(3), return_sequences=True, name="cell")(y)
    y = kl.RNN([kl.GRUCell(3), kl.GRUCell(2)], return_sequences=True, name="cells")(y)
    y = kl.LSTM(3, recurrent_activation="hard_sigmoid", return_sequences=True, name="unknown_gate")(y)
    y = kl.BatchNormalization(name="batch")(y)
    inner = keras.Sequential([keras.Input((None, 3)), kl.GRU(4, return_sequences=True, use_bias=False, name="gru"), kl.Dense(2, use_bias=False, name="dense")], name="inner")
    y = inner(y)
    y = kl.LayerNormalization(epsilon=1e-6, center=False, name="scaled")(y)
    y = kl.LayerNormalization(scale=False, name="centred")(y)
    y = kl.TimeDistributed(kl.Dense(3), name="each")(y)
    return keras.Model(x, y, name="cells")


class Tagger(keras.Model):
    """A class of one's own: layers are attributes, in no configuration."""

    def __init__(self):
        super().__init__()
        self.a_table = kl.Embedding(9, 3)
        self.encoder = kl.LSTM(4, return_sequences=True)
        self.around = kl.Bidirectional(kl.GRU(3, return_sequences=True, reset_after=False))
        self.gain = kl.LayerNormalization()
        self.head = kl.Dense(2)

    def call(self, x):
        return self.head(self.gain(self.around(self.encoder(self.a_table(x)))))


@keras.saving.register_keras_serializable("golden")
class SineCell(kl.Layer):
    """A cell of a user's own, with three blocks of gates like a GRU's."""

    def __init__(self, units, **more):
        super().__init__(**more)
        self.units = self.state_size = self.output_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3 * self.units))
        self.recurrent = self.add_weight(shape=(self.units, 3 * self.units))

    def call(self, x, states):
        h = keras.ops.sin(x @ self.kernel + states[0] @ self.recurrent)[:, : self.units]
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def refused():
    """Layers that have the arrays of known ones and compute something else; the last is known."""
    x = keras.Input((4, 3))
    two = kl.Bidirectional(kl.LSTM(2, return_sequences=True), backward_layer=kl.LSTM(2, return_sequences=True, go_backwards=True, activation="relu"), name="unlike")
    swapped = kl.Bidirectional(kl.LSTM(2, return_sequences=True, go_backwards=True), backward_layer=kl.LSTM(2, return_sequences=True), name="swapped")
    own = kl.RNN(SineCell(5), return_sequences=True, name="own")
    y = kl.Dense(3, name="known")(own(swapped(two(x))))
    return keras.Model(x, y)


def precise(dtype):
    keras.config.set_dtype_policy(dtype)
    m = keras.Sequential([keras.Input((None, 2)), kl.LSTM(3, recurrent_initializer="zeros"), kl.Dense(2)], name=dtype)
    keras.config.set_dtype_policy("float32")
    return m


def main():
    os.makedirs(OUT, exist_ok=True)
    rng = np.random.default_rng(14)
    expected = {}

    def save(name, model, x, suffixes, out=True, train=False, each=False):
        if not model.built:
            model(x)
        for v in model.weights:
            w = rng.normal(0, 0.5, v.shape)
            v.assign(np.abs(w) if v.name == "moving_variance" else w)
        if train:
            model.compile("adam", "mse")
            model.optimizer.build(model.trainable_variables)
        for suffix in suffixes:
            path = os.path.join(OUT, name + suffix)
            model.save(path) if suffix == ".keras" else model.save_weights(path)
            raw = zipfile.ZipFile(path).read("model.weights.h5") if suffix == ".keras" else open(path, "rb").read()

            def note(place, item):
                if isinstance(item, h5py.Dataset) and item.dtype.kind not in "iu":
                    x = np.array(item)  # bfloat16 comes as opaque pairs of bytes
                    expected[f"{name}{suffix}:{place}"] = x.view(ml_dtypes.bfloat16).astype(np.float32) if x.dtype.kind == "V" else x

            h5py.File(io.BytesIO(raw)).visititems(note)
            for layer in model.layers if each else []:
                if not isinstance(layer, kl.InputLayer):
                    features = (layer.input[0] if isinstance(layer.input, list) else layer.input).shape[-1]
                    own = rng.normal(size=(2, 6, features)).astype(np.float32)
                    expected[f"{layer.name}:in"], expected[f"{layer.name}:out"] = own, keras.ops.convert_to_numpy(layer(own))
            if out:
                expected[f"{name}{suffix}:in"] = x
                expected[f"{name}{suffix}:out"] = keras.ops.convert_to_numpy(model(x))

    ids = rng.integers(0, 9, (2, 6))
    both = [".keras", ".weights.h5"]
    save("classifier", classifier(), ids, both, train=True)
    save("cells", cells(), rng.normal(size=(2, 6, 4)).astype(np.float32), [".keras"], each=True)
    save("tagger", Tagger(), ids, [".weights.h5"])
    for dtype in ("float16", "bfloat16", "float64"):
        save(dtype, precise(dtype), rng.normal(size=(1, 3, 2)).astype(np.float32), [".keras"], out=False)
    save("refused", refused(), rng.normal(size=(2, 4, 3)).astype(np.float32), [".keras"], out=False)
    write_safetensors(os.path.join(OUT, "expected.safetensors"), expected, {"keras": keras.__version__})


main()
