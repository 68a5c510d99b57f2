"""Writes the ONNX models of the comparison of servers, with seeded random weights.

    python make_models.py DIR

step256.onnx     one step of an LSTM of 256 units: x [N,256], h and c [1,N,256]
step1024x2.onnx  one step of two layers of 1,024 units: x [N,1024], h and c [2,N,1024]
sequence256.onnx an LSTM of 256 units over a whole sequence: x [N,T,8], y [N,256], the last output

The states of a step are pairs of an input and an output: h and hn, c and cn.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def lstm(rng, layer, inputs, units):
    """The initializers of a layer, uniform as PyTorch's."""
    k = 1 / np.sqrt(units)

    def draw(*shape):
        return rng.uniform(-k, k, shape).astype(np.float32)

    return [numpy_helper.from_array(a, f"{name}{layer}") for name, a in
            (("W", draw(1, 4 * units, inputs)), ("R", draw(1, 4 * units, units)), ("B", draw(1, 8 * units)))]


def floats(name, *dims):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims))


def write(path, nodes, inputs, outputs, weights):
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def integers(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def step(path, units, layers):
    rng = np.random.default_rng(units + layers)
    weights = [integers("zero", 0), integers("one", 1)]
    nodes = [helper.make_node("Unsqueeze", ["x", "zero"], ["in0"])]
    for i in range(layers):
        weights += lstm(rng, i, units, units)
        h, c = f"h{i}", f"c{i}"
        if layers == 1:
            h, c = "h", "c"
        nodes.append(helper.make_node("LSTM", [f"in{i}", f"W{i}", f"R{i}", f"B{i}", "", h, c], [f"all{i}", f"hn{i}", f"cn{i}"], hidden_size=units))
        nodes.append(helper.make_node("Squeeze", [f"all{i}", "one"], [f"in{i + 1}"]))
    if layers > 1:
        parts = lambda s: [f"{s}{i}" for i in range(layers)]
        nodes = [helper.make_node("Split", ["h"], parts("h"), axis=0), helper.make_node("Split", ["c"], parts("c"), axis=0)] + nodes
        nodes += [helper.make_node("Concat", parts("hn"), ["hn"], axis=0), helper.make_node("Concat", parts("cn"), ["cn"], axis=0)]
    else:
        nodes += [helper.make_node("Identity", ["hn0"], ["hn"]), helper.make_node("Identity", ["cn0"], ["cn"])]
    nodes.append(helper.make_node("Squeeze", [f"in{layers}", "zero"], ["y"]))
    states = lambda *names: [floats(n, layers, "N", units) for n in names]
    write(path, nodes, [floats("x", "N", units), *states("h", "c")], [floats("y", "N", units), *states("hn", "cn")], weights)


def sequence(path, units, features):
    rng = np.random.default_rng(units)
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "W0", "R0", "B0"], ["", "last", ""], hidden_size=units),
        helper.make_node("Squeeze", ["last", "zero"], ["y"]),
    ]
    write(path, nodes, [floats("x", "N", "T", features)], [floats("y", "N", units)], [integers("zero", 0), *lstm(rng, 0, features, units)])


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    step(out / "step256.onnx", 256, 1)
    step(out / "step1024x2.onnx", 1024, 2)
    sequence(out / "sequence256.onnx", 256, 8)
