"""ONNX graphs whose weights are rounded to 8 bits: python3 internal/golden/gen/onnx_weights.py

Each graph of model/onnx/graph/testdata/weights is random and reads every kind of matrix. A case has
its inputs, the integers and scales of the matrices, and the outputs of ONNX Runtime for the graph
whose initializers are integers times scales, as float32. A row is an output of the product that
reads the matrix; its scale is the greatest magnitude divided by 127, rounded up to 16 significant
bits. qdq.onnx and others.onnx are the first graph with DequantizeLinear in place of its matrices, with these
scales and with such of 24 bits.

Needs the onnx package 1.16 or later and onnxruntime 1.20 or later, and PyTorch for the file of cases.
"""
import os
import sys

sys.dont_write_bytecode = True

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

import golden

TESTDATA = os.path.join(golden.HERE, os.pardir, os.pardir, os.pardir, "model", "onnx", "graph", "testdata")
T, B, I, H = 6, 3, 8, 5


class Graph:
    """Nodes and initializers; rows has the axes of each matrix whose indices have a scale each."""

    def __init__(self, seed):
        self.r = np.random.default_rng(seed)
        self.nodes, self.weights, self.rows = [], {}, {}

    def matrix(self, name, rows, *dims):
        self.rows[name] = rows
        return self.floats(name, *dims)

    def floats(self, name, *dims):
        w = self.r.standard_normal(dims) * np.exp(self.r.standard_normal((dims[0],) + (1,) * (len(dims) - 1))) / 2
        self.weights[name] = w.astype(np.float32)
        return name

    def ints(self, name, *values):
        self.weights[name] = np.array(values, np.int64)
        return name

    def node(self, op, inputs, outputs, **attrs):
        self.nodes.append(helper.make_node(op, inputs, outputs, **attrs))
        return outputs[0]

    def model(self, opset, ir, weights, extra=()):
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, "batch", I]), helper.make_tensor_value_info("ids", TensorProto.INT64, [T, "batch"])]
        if ir < 4:
            inputs += [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(w.dtype), w.shape) for k, w in weights.items()]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("y", ["batch", I]), ("hn", [None, "batch", H]), ("table", ["batch", 4]))]
        g = helper.make_graph([*extra, *self.nodes], "weights", inputs, outputs, [numpy_helper.from_array(w, k) for k, w in weights.items()])
        m = helper.make_model(g, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir, producer_name="onnx_weights")
        m.metadata_props.add(key="note", value="kept")
        onnx.checker.check_model(m)
        return m


def build(seed, opset, single):
    g = Graph(seed)
    D = 1 if single else 2
    way = {} if single else {"direction": "bidirectional"}
    e = g.node("Gather", [g.matrix("embedding", (0,), 11, I), "ids"], ["e"])
    x = g.node("Add", ["x", e], ["sum"])
    g.matrix("lstm.W", (0, 1), D, 4 * H, I), g.matrix("lstm.R", (0, 1), D, 4 * H, H), g.floats("lstm.B", D, 8 * H)
    x = g.node("LSTM", [x, "lstm.W", "lstm.R", "lstm.B"], ["lstm.Y", "hn", "lstm.c"], hidden_size=H, **way)
    x = g.node("Transpose", [x], ["t1"], perm=[0, 2, 1, 3])
    x = g.node("Reshape", [x, g.ints("flat", 0, 0, D * H)], ["r1"])
    g.matrix("gru.W", (0, 1), D, 3 * H, D * H), g.matrix("gru.R", (0, 1), D, 3 * H, H), g.floats("gru.B", D, 6 * H)
    x = g.node("GRU", [x, "gru.W", "gru.R", "gru.B"], ["gru.Y", "gru.h"], hidden_size=H, linear_before_reset=1, **way)
    x = g.node("Transpose", [x], ["t2"], perm=[0, 2, 1, 3])
    x = g.node("Reshape", [x, "flat"], ["r2"])
    # The weights of this RNN are parts of a matrix that lies on its side.
    g.matrix("rnn.kernel", (1,), D * H, 2 * H)
    k = g.node("Transpose", ["rnn.kernel"], ["rnn.turned"], perm=[1, 0])
    if opset < 13:
        k = g.node("Unsqueeze", [g.node("Slice", [k, g.ints("from", 0), g.ints("to", H), g.ints("axis", 0)], ["rnn.part"])], ["rnn.W"], axes=[0])
    else:
        k = g.node("Unsqueeze", [g.node("Slice", [k, g.ints("from", 0), g.ints("to", H), g.ints("axis", 0)], ["rnn.part"]), g.ints("front", 0)], ["rnn.W"])
    x = g.node("RNN", [x, k, g.matrix("rnn.R", (0, 1), 1, H, H)], ["rnn.Y", "rnn.h"], hidden_size=H)
    x = g.node("Reshape", [x, g.ints("steps", T, -1, H)], ["r3"])
    x = g.node("MatMul", [x, g.matrix("dense", (1,), H, 12)], ["m1"])
    x = g.node("Tanh", [g.node("Add", [x, g.floats("dense.bias", 12)], ["m2"])], ["m3"])
    x = g.node("Transpose", [x], ["t3"], perm=[1, 2, 0])
    x = g.node("Conv", [x, g.matrix("conv", (0,), 8, 12, 3), g.floats("conv.bias", 8)], ["c1"], pads=[1, 1])
    x = g.node("BatchNormalization", [x, *(g.floats("norm." + s, 8) for s in ("scale", "bias", "mean", "var"))], ["c2"])
    g.weights["norm.var"] = np.abs(g.weights["norm.var"]) + np.float32(4)  # so that sums stay small
    x = g.node("Relu", [x], ["c3"])
    x = g.node("Conv", [x, g.matrix("grouped", (0,), 6, 4, 2)], ["c4"], group=2)
    x = g.node("Flatten", [x], ["f1"])
    x = g.node("Gemm", [x, g.matrix("gemm", (0,), 9, 6 * (T - 1)), g.floats("gemm.bias", 9)], ["g1"], transB=1)
    x = g.node("Sigmoid", [x], ["g2"])
    g.node("Gemm", [x, g.matrix("gemm2", (1,), 9, 11)], ["logits"])
    g.node("MatMul", ["logits", "embedding"], ["y"])  # its rows are not those of the table
    g.node("ReduceSum" if opset < 13 else "ReduceMax", [g.matrix("zeros", (0,), 4, 3)], ["z"], axes=[0], keepdims=0)
    g.weights["zeros"][1:3] = 0
    g.node("MatMul", [g.node("Slice", ["g2", g.ints("zero", 0), g.ints("three", 3), g.ints("one", 1)], ["g3"]), g.node("Transpose", ["zeros"], ["zeros.turned"], perm=[1, 0])], ["z1"])
    g.node("Add", ["z1", g.node("Identity", [g.floats("shift", 1, 4)], ["shifted"])], ["table"])
    return g


def quantized(w, axes):
    """Returns integers and scales, of the shape of w with 1 for the dimensions of a row."""
    others = tuple(i for i in range(w.ndim) if i not in axes)
    greatest = np.abs(w).max(axis=others, keepdims=True)
    bits = ((greatest / np.float32(127)).view(np.uint32) + np.uint32(255)) & ~np.uint32(255)
    scale = bits.view(np.float32)
    q = np.rint(w.astype(np.float64) / np.where(scale == 0, 1, scale).astype(np.float64))
    return q.astype(np.int64), scale


def run(m, inputs):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    s = onnxruntime.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip((o.name for o in s.get_outputs()), s.run(None, inputs)))


def dequantizing(g, scales):
    """The graph with DequantizeLinear, and a Reshape where two axes have scales."""
    weights, extra = dict(g.weights), []
    for name, axes in g.rows.items():
        if name == "embedding":
            continue
        w = weights.pop(name)
        q, scale = scales(w, axes)
        shape = w.shape
        if len(axes) == 2:
            q = q.reshape(-1, shape[-1])
        weights[name + ".q"], weights[name + ".s"] = q.astype(np.int8), scale.reshape(-1)
        made = name + ".rows" if len(axes) == 2 else name
        zero = []
        if len(extra) % 2 == 0:  # with zero points as other tools write them
            weights[name + ".z"], zero = np.zeros(scale.size, np.int8), [name + ".z"]
        extra.append(helper.make_node("DequantizeLinear", [name + ".q", name + ".s", *zero], [made], axis=0 if len(axes) == 2 else axes[0]))
        if len(axes) == 2:
            weights[name + ".shape"] = np.array(shape, np.int64)
            extra.append(helper.make_node("Reshape", [made, name + ".shape"], [name]))
    return weights, extra


def fine(w, axes):
    others = tuple(i for i in range(w.ndim) if i not in axes)
    scale = np.maximum(np.abs(w).max(axis=others, keepdims=True), np.float32(1e-3)) / np.float32(127)
    return np.rint(w / scale).astype(np.int64), scale


def main():
    cases = golden.Cases("weights", 300)
    folder = os.path.join(TESTDATA, "weights")
    os.makedirs(folder, exist_ok=True)

    def save(name, m):
        with open(os.path.join(folder, name + ".onnx"), "wb") as f:
            f.write(m.SerializeToString())

    for k, (name, opset, ir, single) in enumerate([("both", 17, 8, False), ("single", 13, 7, True), ("old", 11, 6, False), ("inputs", 11, 3, False)]):
        g = build(300 + k, opset, single)
        inputs = {"x": g.r.standard_normal((T, B, I)).astype(np.float32), "ids": g.r.integers(0, 11, (T, B))}
        rounded = dict(g.weights)
        cases.add(name, {})
        for weight, axes in g.rows.items():
            if weight == "embedding":
                continue
            q, scale = quantized(g.weights[weight], axes)
            rounded[weight] = q.astype(np.float32) * scale
            cases.add_named(name, "q.", [(weight, torch.from_numpy(q))])
            cases.add_named(name, "scale.", [(weight, torch.from_numpy(scale.reshape(-1).copy()))])
        save(name, g.model(opset, ir, g.weights))
        out = run(g.model(opset, ir, rounded), inputs)
        cases.add_named(name, "in.", ((k, torch.from_numpy(v)) for k, v in inputs.items()))
        cases.add_named(name, "out.", ((k, torch.from_numpy(v)) for k, v in out.items()))
        if k == 0:
            for kind, scales in (("qdq", quantized), ("others", fine)):
                m = g.model(opset, ir, *dequantizing(g, scales))
                save(kind, m)
                cases.add(kind, {})
                cases.add_named(kind, "in.", ((k, torch.from_numpy(v)) for k, v in inputs.items()))
                cases.add_named(kind, "out.", ((k, torch.from_numpy(v)) for k, v in run(m, inputs).items()))
    cases.write(TESTDATA)


if __name__ == "__main__":
    main()
