"""Writes ONNX graphs with inputs and expected outputs for the optional test of model/onnx/graph.

    pip install onnx onnxruntime
    python3 internal/golden/gen/onnx_suite.py DIR [GRAPHS [SEED [OPERATOR...]]]
    CAROUSEL_ONNX_SUITE=DIR go test ./model/onnx/graph -run TestSuite -v

DIR/backend holds the node cases of the onnx package, with the outputs of its reference;
DIR/operators, GRAPHS random graphs of one operator, a fifth as many of each operator that
has a method of its name, and DIR/recurrent, a tenth as many random LSTM, GRU and RNN nodes,
all with ONNX Runtime's outputs. With OPERATORs it is their random graphs alone. A case is a folder of
model.onnx, inputs N.in.pb and outputs N.out.pb.
"""
import os
import shutil
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

warnings.simplefilter("ignore")  # the cases divide by zero on purpose
OPSET, IR = 21, 10


def write(folder, model, inputs, outputs):
    os.makedirs(folder)
    with open(os.path.join(folder, "model.onnx"), "wb") as f:
        f.write(model.SerializeToString())
    for kind, values, infos in (("in", inputs, model.graph.input), ("out", outputs, model.graph.output)):
        for i, v in enumerate(values):
            if not isinstance(v, TensorProto):
                v = numpy_helper.from_array(np.asarray(v), infos[i].name)
            with open(os.path.join(folder, f"{i}.{kind}.pb"), "wb") as f:
                f.write(v.SerializeToString())


def backend(out):
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases(None):
        infos = list(case.model.graph.input) + list(case.model.graph.output)
        if all(v.type.HasField("tensor_type") for v in infos):
            inputs, outputs = case.data_sets[0]
            write(os.path.join(out, "backend", case.name), case.model, inputs, outputs)


class Graphs:
    """Random graphs of one operator."""

    def __init__(self, seed):
        self.r = np.random.default_rng(seed)

    def dims(self, most=4, least=0):
        return [int(d) for d in self.r.integers(1, 5, self.r.integers(least, most + 1))]

    def floats(self, dims, positive=False):
        x = np.asarray(self.r.normal(size=dims), np.float32) * 2
        return np.abs(x) + np.float32(0.1) if positive else x

    def ints(self, dims, low=-9, high=9):
        return np.asarray(self.r.integers(low, high, dims), np.int64)

    def like(self, dims):
        """A shape that broadcasts with dims."""
        d = [1 if self.r.random() < 0.3 else n for n in dims]
        return d[self.r.integers(0, len(d) + 1):]

    def binary(self):
        op = self.r.choice(["Add", "Sub", "Mul", "Div", "Mod", "Pow", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Min", "Max"])
        a = self.dims()
        b = self.like(a)
        attrs = {}
        if self.r.random() < 0.4 and op != "Pow":
            x, y = self.ints(a), self.ints(b, 1, 9) * self.r.choice([-1, 1])
            if op == "Mod":
                attrs["fmod"] = int(self.r.integers(0, 2))
            if op == "Div":  # ONNX Runtime and the standard differ on negative quotients of integers
                x, y = np.abs(x), np.abs(y)
        else:
            x, y = self.floats(a, op == "Pow"), self.floats(b, op == "Div")
            if op == "Mod":
                attrs["fmod"] = 1
        return op, [x, y], attrs

    def unary(self):
        op = self.r.choice(["Relu", "Sigmoid", "Tanh", "Exp", "Softplus", "Neg", "Abs", "Floor", "Ceil", "Erf", "Softsign", "Elu", "LeakyRelu", "HardSigmoid", "Reciprocal", "Sqrt", "Log"])
        return op, [self.floats(self.dims(), op in ("Sqrt", "Log", "Reciprocal"))], {}

    def shape(self):
        d = self.dims(least=1)
        x = self.floats(d) if self.r.random() < 0.7 else self.ints(d)
        axis = int(self.r.integers(-len(d), len(d)))
        match self.r.choice(["Transpose", "Slice", "Concat", "Flatten", "Unsqueeze", "Tile", "Expand", "Gather", "GatherElements", "Split", "Squeeze"]):
            case "Transpose":
                return "Transpose", [x], {"perm": [int(i) for i in self.r.permutation(len(d))]}
            case "Slice":
                n = int(self.r.integers(1, len(d) + 1))
                axes = self.r.permutation(len(d))[:n].astype(np.int64)
                step = self.r.choice([-3, -2, -1, 1, 2, 3], n).astype(np.int64)
                return "Slice", [x, self.ints([n], -8, 8), self.ints([n], -8, 8), axes, step], {}
            case "Concat":
                return "Concat", [x] * int(self.r.integers(1, 4)), {"axis": axis}
            case "Flatten":
                return "Flatten", [x], {"axis": int(self.r.integers(-len(d), len(d) + 1))}
            case "Unsqueeze":
                return "Unsqueeze", [x, np.array([int(self.r.integers(-len(d) - 1, len(d) + 1))], np.int64)], {}
            case "Tile":
                return "Tile", [x, self.ints([len(d)], 1, 3)], {}
            case "Expand":
                return "Expand", [self.floats(self.like(d)), np.array(d, np.int64)], {}
            case "Gather":
                return "Gather", [x, self.ints(self.dims(2), -d[axis], d[axis])], {"axis": axis}
            case "GatherElements":
                return "GatherElements", [x, self.ints(d, -d[axis], d[axis])], {"axis": axis}
            case "Split":
                x = np.concatenate([x, x], axis)
                return "Split", [x], {"axis": axis, "num_outputs": 2}
            case "Squeeze":
                return "Squeeze", [np.expand_dims(x, axis), np.array([axis if axis >= 0 else axis], np.int64)], {}

    def reduce(self):
        d = self.dims(least=1)
        op = self.r.choice(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ArgMax", "ArgMin", "Softmax", "LogSoftmax"])
        axis = int(self.r.integers(-len(d), len(d)))
        keep = {"keepdims": int(self.r.integers(0, 2))}
        if op in ("Softmax", "LogSoftmax"):
            return op, [self.floats(d)], {"axis": axis}
        if op.startswith("Arg"):
            return op, [self.floats(d)], {"axis": axis, **keep}
        return op, [self.floats(d), np.array([axis], np.int64)] if self.r.random() < 0.8 else [self.floats(d)], keep

    def product(self):
        m, k, n = (int(v) for v in self.r.integers(1, 6, 3))
        if self.r.random() < 0.5:
            batch = self.dims(2)
            return "MatMul", [self.floats(batch + [m, k]), self.floats(self.like(batch) + [k, n])], {}
        ta, tb = (int(v) for v in self.r.integers(0, 2, 2))
        a, b = self.floats([k, m] if ta else [m, k]), self.floats([n, k] if tb else [k, n])
        c = [self.floats(self.r.choice([0, 1]) * [m] + [n])] if self.r.random() < 0.7 else []
        return "Gemm", [a, b, *c], {"transA": ta, "transB": tb, "alpha": 0.5, "beta": 1.5}

    def window(self, axes, dilated):
        """Attributes of a window over axes, and a shape that it fits."""
        k, s = (self.r.integers(1, 4, axes) for _ in range(2))
        d = self.r.integers(1, 3, axes) if dilated else np.ones(axes, np.int64)
        attrs = {"kernel_shape": k.tolist(), "strides": s.tolist()}
        if dilated:
            attrs["dilations"] = d.tolist()
        match self.r.integers(0, 4):
            case 0:
                attrs["auto_pad"] = str(self.r.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
                if max(d) > 1:  # ONNX Runtime pads dilated windows in its own way
                    attrs["auto_pad"] = "VALID"
            case 1 | 2:
                attrs["pads"] = [int(self.r.integers(0, n)) for n in [*k, *k]]
        return attrs, [int(n) for n in (k - 1) * d + 1 + self.r.integers(0, 6, axes)]

    def Conv(self):
        axes, groups = int(self.r.integers(1, 3)), int(self.r.choice([1, 1, 2, 3]))
        attrs, size = self.window(axes, True)
        ci, co, batch = (int(v) for v in self.r.integers(1, 6, 3))
        if self.r.random() < 0.2:
            ci, co, groups = 1, int(self.r.integers(1, 3)), int(self.r.integers(1, 20))
        attrs["group"] = groups
        w = self.floats([co * groups, ci, *attrs["kernel_shape"]])
        bias = [self.floats([co * groups])] if self.r.random() < 0.6 else []
        return [self.floats([batch, ci * groups, *size]), w, *bias], attrs

    def ConvTranspose(self):
        axes, groups = int(self.r.integers(1, 3)), int(self.r.choice([1, 1, 2, 3]))
        attrs, _ = self.window(axes, True)
        ci, co, batch = (int(v) for v in self.r.integers(1, 6, 3))
        attrs["group"] = groups
        if "auto_pad" not in attrs:
            attrs["output_padding"] = [int(self.r.integers(0, s)) for s in attrs["strides"]]
        bias = [self.floats([co * groups])] if self.r.random() < 0.6 else []
        x = self.floats([batch, ci * groups, *(int(v) for v in self.r.integers(1, 6, axes))])
        return [x, self.floats([ci * groups, co, *attrs["kernel_shape"]]), *bias], attrs

    def MaxPool(self, dilated=True):
        attrs, size = self.window(int(self.r.integers(1, 3)), dilated)
        attrs["ceil_mode"] = int(self.r.integers(0, 2))
        return [self.floats([*(int(v) for v in self.r.integers(1, 4, 2)), *size])], attrs

    def AveragePool(self):
        inputs, attrs = self.MaxPool(False)
        if any(k < s for k, s in zip(attrs["kernel_shape"], attrs["strides"])):
            attrs.pop("auto_pad", None)  # ONNX Runtime begins such windows at padding below 0
        return inputs, {"count_include_pad": int(self.r.integers(0, 2)), **attrs}

    def GlobalAveragePool(self):
        return [self.floats([int(v) for v in self.r.integers(1, 6, self.r.integers(3, 6))])], {}

    GlobalMaxPool = GlobalAveragePool

    def BatchNormalization(self):
        x, *vectors = self.channels()
        return [x, *vectors, np.abs(vectors[0]) + np.float32(0.1)], {"epsilon": 1e-2}

    def InstanceNormalization(self):
        return self.channels()[:3], {"epsilon": 1e-2}

    def GroupNormalization(self):
        groups = int(self.r.integers(1, 4))
        return self.channels(groups)[:3], {"num_groups": groups, "epsilon": 1e-2}

    def channels(self, groups=1):
        """Floats [N,C,...] and three vectors for their channels."""
        n, c, *rest = (int(v) for v in self.r.integers(1, 5, self.r.integers(3, 5)))
        return [self.floats([n, c * groups, *rest]), *(self.floats([c * groups]) for _ in range(3))]

    def LayerNormalization(self):
        d = self.dims(least=1)
        axis = int(self.r.integers(-len(d), len(d)))
        return [self.floats(d), self.floats(d[axis:]), self.floats(d[axis:])][: int(self.r.integers(2, 4))], {"axis": axis}

    def recurrent(self):
        op = self.r.choice(["LSTM", "GRU", "RNN"])
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
        direction = self.r.choice(["forward", "reverse", "bidirectional"])
        d = 2 if direction == "bidirectional" else 1
        t, b, i, h = (int(v) for v in self.r.integers(1, 7, 4))
        x, w, r = self.floats([t, b, i]), self.floats([d, gates * h, i]), self.floats([d, gates * h, h])
        inputs = [x, w, r, self.floats([d, 2 * gates * h]) if self.r.random() < 0.7 else None,
                  np.array(self.r.integers(1, t + 1, b), np.int32) if self.r.random() < 0.5 else None,
                  self.floats([d, b, h]) if self.r.random() < 0.5 else None]
        if op == "LSTM":
            inputs += [self.floats([d, b, h]) if self.r.random() < 0.5 else None, self.floats([d, 3 * h]) if self.r.random() < 0.3 else None]
        attrs = {"hidden_size": h, "direction": str(direction)}
        if self.r.random() < 0.3:
            attrs["clip"] = 1.5
        if op == "GRU":
            attrs["linear_before_reset"] = int(self.r.integers(0, 2))
        if op == "LSTM" and self.r.random() < 0.3:
            attrs["input_forget"] = 1
        return op, inputs, attrs

    # Methods with an operator's name return its inputs and attributes.

    def some(self, *values):
        return values[self.r.integers(0, len(values))]

    def flag(self):
        return int(self.r.integers(0, 2))

    def axis(self, dims):
        return int(self.r.integers(-len(dims), len(dims)))

    def Pad(self):
        d = self.dims(least=1)
        mode = self.some("constant", "reflect", "edge", "wrap")
        least = [-1 if n > 2 else 0 for n in d] if mode == "constant" else [0] * len(d)
        most = [3 if mode != "reflect" else n for n in d]
        axes = self.r.permutation(len(d))[:self.r.integers(1, len(d) + 1)]
        pads = np.array([self.r.integers(least[a], most[a]) if most[a] > least[a] else 0 for a in [*axes, *axes]], np.int64)
        x = self.floats(d) if self.r.random() < 0.7 else self.ints(d)
        value = x.ravel()[0] if mode == "constant" and self.flag() else None
        return [x, pads, None if value is None else np.asarray(value), axes.astype(np.int64)], {"mode": mode}

    def elementwise(self, scale=1.0, low=None, high=None, **attrs):
        x = self.floats(self.dims()) * np.float32(scale)
        return [x if low is None else np.asarray(self.r.uniform(low, high, x.shape), np.float32)], attrs

    Sign = Round = Sin = Cos = Tan = Atan = Sinh = Cosh = Asinh = HardSwish = Mish = Erf = elementwise

    def Asin(self):
        return self.elementwise(low=-1, high=1)

    Acos = Atanh = Asin

    def Acosh(self):
        return self.elementwise(low=1, high=9)

    def Gelu(self):
        return self.elementwise(approximate=self.some("none", "tanh"))

    def Selu(self):
        return self.elementwise(alpha=1.5, gamma=2.0) if self.flag() else self.elementwise()

    def Celu(self):
        return self.elementwise(alpha=self.some(0.5, 2.0, 3.0))

    def Swish(self):
        return self.elementwise(alpha=self.some(0.5, 1.0, 2.0))

    def ThresholdedRelu(self):
        return self.elementwise(alpha=self.some(0.5, 1.0, 2.0))

    def Shrink(self):
        return self.elementwise(bias=self.some(0.0, 0.5, 2.0), lambd=self.some(0.5, 1.5))

    def com_microsoft_QuickGelu(self):
        return self.elementwise(alpha=self.some(1.0, 1.702))

    com_microsoft_Gelu = elementwise

    def com_microsoft_BiasGelu(self):
        d = self.dims(least=1)
        return [self.floats(d), self.floats(d[-1:])], {}

    com_microsoft_FastGelu = com_microsoft_BiasGelu

    def com_microsoft_FusedMatMul(self):
        m, k, n = (int(v) for v in self.r.integers(1, 6, 3))
        batch, ta, tb = self.dims(1), self.flag(), self.flag()
        return [self.floats(batch + ([k, m] if ta else [m, k])), self.floats(batch + ([n, k] if tb else [k, n]))], {"transA": ta, "transB": tb, "alpha": self.some(0.5, 1.0)}

    def com_microsoft_SkipLayerNormalization(self):
        d = self.dims(3, 3)
        return [self.floats(d), self.floats(d), self.floats(d[-1:]), self.floats(d[-1:]) if self.flag() else None, self.floats(d[-1:]) if self.flag() else None], {"epsilon": 0.001}

    def IsNaN(self):
        x = self.floats(self.dims())
        return [np.where(x > 1, np.float32(np.nan), np.where(x < -1, np.float32(self.some(-np.inf, np.inf)), x))], {}

    def IsInf(self):
        return self.IsNaN()[0], {"detect_positive": self.flag(), "detect_negative": self.flag()}

    def PRelu(self):
        d = self.dims()
        return [self.floats(d), self.floats(self.like(d))], {}

    def Sum(self):
        d = self.dims()
        return [self.floats(self.like(d)) for _ in range(self.r.integers(1, 4))], {}

    Mean = Sum

    def BitwiseAnd(self):
        d, t = self.dims(), self.some(np.int8, np.uint8, np.int32, np.int64)
        return [self.r.integers(0, 100, d).astype(t), self.r.integers(0, 100, self.like(d)).astype(t)], {}

    BitwiseOr = BitwiseXor = BitwiseAnd

    def BitwiseNot(self):
        return self.BitwiseAnd()[0][:1], {}

    def BitShift(self):
        d, t = self.dims(), self.some(np.uint8, np.uint32, np.uint64)
        return [self.r.integers(0, 200, d).astype(t), self.r.integers(0, 8, self.like(d)).astype(t)], {"direction": self.some("LEFT", "RIGHT")}

    def Clip(self):
        d, t = self.dims(), self.some(np.float32, np.int8, np.uint8, np.int32, np.int64)
        x = (self.r.normal(size=d) * 5).astype(t) if t == np.float32 else self.r.integers(0, 20, d).astype(t)
        return [x, np.asarray(3, t) if self.flag() else None, np.asarray(self.some(9, 2), t) if self.flag() else None], {}

    def CumSum(self):
        d = self.dims(least=1)
        x = self.floats(d) if self.flag() else self.ints(d)
        return [x, np.asarray(self.axis(d), np.int64)], {"exclusive": self.flag(), "reverse": self.flag()}

    def Hardmax(self):
        d = self.dims(least=1)
        return [self.floats(d)], {"axis": self.axis(d)}

    def ScatterElements(self):
        d = self.dims(least=1)
        axis = self.axis(d)
        part = [int(self.r.integers(1, n + 1)) for n in d]
        index = self.ints(part, -d[axis], d[axis])
        reduction = self.some("none", "add", "mul", "max", "min")
        if reduction == "none":  # what several updates of one element leave is not defined
            index = np.argsort(self.r.random(part), axis=axis).astype(np.int64)
        make = self.some(self.floats, self.ints)
        return [make(d), index, make(part)], {"axis": axis, "reduction": reduction}

    def ScatterND(self):
        d = self.dims(least=1)
        k = int(self.r.integers(1, len(d) + 1))
        reduction = self.some("none", "add", "mul", "max", "min")
        count = int(self.r.integers(1, 4))
        index = np.stack([self.r.integers(-n, n, count) for n in d[:k]], -1).astype(np.int64)
        if reduction == "none":
            index = index[:1]
        make = self.some(self.floats, self.ints)
        return [make(d), index, make([len(index)] + d[k:])], {"reduction": reduction}

    def GatherND(self):
        d = self.dims(least=1)
        b = int(self.r.integers(0, len(d)))
        k = int(self.r.integers(1, len(d) - b + 1))
        lead = d[:b] + self.dims(2)
        index = np.stack([self.r.integers(-n, n, lead) for n in d[b:b + k]], -1).astype(np.int64)
        return [self.some(self.floats, self.ints)(d), index], {"batch_dims": b}

    def OneHot(self):
        d, depth = self.dims(3), int(self.r.integers(1, 6))
        index = self.ints(d, -depth - 1, depth + 2)
        if self.flag():
            index = index.astype(np.float32)
        return [index, np.asarray(depth, np.int64), self.some(np.array([0, 1], np.int64), np.array([-1, 2.5], np.float32))], {"axis": int(self.r.integers(-len(d) - 1, len(d) + 1))}

    def Trilu(self):
        d = self.dims(least=2)
        return [self.some(self.floats, self.ints)(d)] + ([np.asarray(self.r.integers(-4, 5), np.int64)] if self.flag() else []), {"upper": self.flag()}

    def EyeLike(self):
        return [self.floats(self.dims(2, 2))], {"k": int(self.r.integers(-4, 5)), "dtype": self.some(1, 7)}

    def NonZero(self):
        d = self.dims(least=1)
        return [self.ints(d, -1, 2) if self.flag() else self.ints(d, -1, 2).astype(np.float32)], {}

    def Compress(self):
        d = self.dims(least=1)
        axis = self.axis(d)
        if self.flag():
            return [self.floats(d), self.r.random(d[axis]) < 0.5], {"axis": axis}
        return [self.ints(d), self.r.random(int(np.prod(d))) < 0.5], {}

    def TopK(self):
        d = self.dims(least=1)
        axis = self.axis(d)
        x = self.floats(d) if self.flag() else self.ints(d, -3, 3)
        return [x, np.array([self.r.integers(0, d[axis] + 1)], np.int64)], {"axis": axis, "largest": self.flag(), "sorted": 1}

    def Unique(self):
        d = self.dims(3, least=1)
        attrs = {"sorted": self.flag()}
        if self.flag():
            attrs["axis"] = self.axis(d)
        return [self.ints(d, 0, 3).astype(np.float32)], attrs

    def ReverseSequence(self):
        d, time = self.dims(least=2), self.flag()
        return [self.floats(d), self.ints([d[1 - time]], 1, d[time] + 1)], {"time_axis": time, "batch_axis": 1 - time}

    def SpaceToDepth(self):
        n, c, h, w, k = (int(v) for v in self.r.integers(1, 4, 5))
        return [self.floats([n, c, h * k, w * k])], {"blocksize": k}

    def DepthToSpace(self):
        n, c, h, w, k = (int(v) for v in self.r.integers(1, 4, 5))
        return [self.floats([n, c * k * k, h, w])], {"blocksize": k, "mode": self.some("DCR", "CRD")}

    def Resize(self):
        mode = self.some("nearest", "linear", "cubic")
        d = [int(v) for v in self.r.integers(1, 3, 2)] + [int(v) for v in self.r.integers(1, 6, 2)]
        attrs = {"mode": mode, "coordinate_transformation_mode": self.some("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric", "tf_crop_and_resize")}
        if mode == "nearest":
            attrs["nearest_mode"] = self.some("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        if mode == "cubic":
            attrs["exclude_outside"] = self.flag()
            attrs["cubic_coeff_a"] = self.some(-0.5, -0.75)
        roi, scales, sizes = None, [0.5, 0.6, 1, 1.5, 2, 2.7], self.r.integers(1, 9, 2)
        if attrs["coordinate_transformation_mode"] == "tf_crop_and_resize":
            roi = np.array([0, 0, 0.1, -0.2, 1, 1, 0.8, 1.1], np.float32)
            attrs["extrapolation_value"] = 5.0
            attrs["exclude_outside"] = 0
            scales.remove(1)  # ONNX Runtime then takes the whole axis
            sizes += np.asarray(d[2:]) == sizes
        x = self.floats(d)
        if self.flag():
            return [x, roi, np.array([1, 1, *self.r.choice(scales, 2)], np.float32)], attrs
        return [x, roi, None, np.array(d[:2] + sizes.tolist(), np.int64)], attrs

    def bytes(self, dims, t=None):
        t = t or self.some(np.uint8, np.int8)
        info = np.iinfo(t)
        return self.r.integers(info.min, info.max + 1, dims).astype(t)

    def weights(self, dims, t=None):
        """Without the values of int8 with which ONNX Runtime's sums overflow on processors without VNNI."""
        w = self.bytes(dims, t)
        return w if w.dtype == np.uint8 else np.asarray(w // 2, np.int8)

    def scale(self, dims=()):
        return np.asarray(self.r.uniform(0.01, 0.2, dims), np.float32)

    def QuantizeLinear(self):
        d, t = self.dims(least=1), self.some(np.uint8, np.int8, np.uint16, np.int16)
        axis = self.axis(d)
        by = self.some([], [d[axis]])
        return [self.floats(d), self.scale(by), self.bytes(by, t) if self.flag() else None], {"axis": axis}

    def DequantizeLinear(self):
        d, t = self.dims(least=1), self.some(np.uint8, np.int8, np.uint16, np.int16, np.int32)
        axis = self.axis(d)
        by = self.some([], [d[axis]])
        return [self.bytes(d, t), self.scale(by), self.bytes(by, t) if self.flag() and t != np.int32 else None], {"axis": axis}

    def DynamicQuantizeLinear(self):
        return [self.floats(self.dims()) + np.float32(self.r.normal() * 3)], {}

    def MatMulInteger(self):
        m, k, n = (int(v) for v in self.r.integers(1, 6, 3))
        k *= self.some(1, 1, 150)
        a, b = self.bytes([*self.dims(1), m, k], np.uint8), self.weights([k, n])
        return [a, b, self.bytes([], a.dtype.type) if self.flag() else None, self.bytes(self.some([], [n]), b.dtype.type) if self.flag() else None], {}

    def ConvInteger(self):
        g, c, m, k = (int(v) for v in self.r.integers(1, 4, 4))
        c *= self.some(1, 1, 40)
        x, w = self.bytes([2, g * c, 6, 7], np.uint8), self.weights([g * m, c, k, k])
        attrs = {"group": g, "pads": [int(v) for v in self.r.integers(0, 2, 4)], "strides": [int(v) for v in self.r.integers(1, 3, 2)]}
        return [x, w, self.bytes([], x.dtype.type) if self.flag() else None, self.bytes([], w.dtype.type) if self.flag() else None], attrs

    def QLinearMatMul(self):
        m, k, n = (int(v) for v in self.r.integers(1, 6, 3))
        a, b, y = self.bytes([m, k], np.uint8), self.weights([k, n]), self.bytes([], np.uint8)
        by = self.some([], [n])
        return [a, self.scale(), self.bytes([], np.uint8), b, self.scale(by), self.bytes(by, b.dtype.type), self.scale(), y], {}

    def QLinearConv(self):
        g, c, m, k = (int(v) for v in self.r.integers(1, 4, 4))
        x, w = self.bytes([2, g * c, 6, 7], np.uint8), self.weights([g * m, c, k, k])
        bias = np.asarray(self.ints([g * m], -500, 500), np.int32) if self.flag() else None
        zero = np.zeros([], w.dtype) if w.dtype == np.int8 else self.bytes([], np.uint8)
        return [x, self.scale(), self.bytes([], np.uint8), w, self.scale(self.some([], [g * m])) if w.dtype == np.int8 else self.scale(), zero, self.scale() * 20, self.bytes([], np.uint8), bias], {"group": g}

    def com_microsoft_DynamicQuantizeLSTM(self):
        direction = self.some("forward", "reverse", "bidirectional")
        d = 2 if direction == "bidirectional" else 1
        t, b, i, h = (int(v) for v in self.r.integers(1, 7, 4))
        kind = self.some(np.uint8, np.int8)
        by = self.some([d], [d, 4 * h])

        def zero():
            return np.zeros(by, kind) if kind == np.int8 else np.full(by, self.r.integers(100, 150), np.uint8)

        inputs = [self.floats([t, b, i]), self.weights([d, i, 4 * h], kind), self.weights([d, h, 4 * h], kind), self.floats([d, 8 * h]) if self.flag() else None,
                  np.array(self.r.integers(1, t + 1, b), np.int32) if self.r.random() < 0.3 else None]
        inputs += [self.floats([d, b, h]) if self.flag() else None, self.floats([d, b, h]) if self.flag() else None, self.floats([d, 3 * h]) if self.r.random() < 0.3 else None]
        inputs += [self.scale(by) * np.float32(0.1), zero(), self.scale(by) * np.float32(0.1), zero()]
        attrs = {"hidden_size": h, "direction": direction}
        if self.r.random() < 0.3:
            attrs["clip"] = 1.5
        if self.r.random() < 0.3:
            attrs["input_forget"] = 1
        return inputs, attrs

    def HannWindow(self):
        return [np.asarray(self.r.integers(2, 40), np.int64)], {"periodic": self.flag()}

    HammingWindow = BlackmanWindow = HannWindow

    def DFT(self):
        d = self.dims(3, least=1)
        axis = self.axis(d)
        inverse = self.flag()
        onesided = 0 if inverse else self.flag()
        d[axis] = int(self.r.integers(1, 20))  # errors of ONNX Runtime's float32 grow with the length
        length = np.asarray(self.r.integers(1, 20), np.int64) if self.flag() else None
        return [self.floats([*d, 1 if onesided else self.some(1, 2)]), length, np.asarray(axis % len(d), np.int64)], {"inverse": inverse, "onesided": onesided}

    def STFT(self):
        size = int(self.r.integers(2, 10))
        x = self.floats([int(self.r.integers(1, 3)), size + int(self.r.integers(0, 40)), 1])
        window = self.floats([size]) if self.flag() else None
        return [x, np.asarray(self.r.integers(1, 9), np.int64), window, np.asarray(size, np.int64)], {"onesided": self.flag()}

    def MelWeightMatrix(self):
        numbers = [int(self.r.integers(1, 20)), int(self.r.integers(16, 200)), 8000]
        return [np.asarray(v, np.int64) for v in numbers] + [np.asarray(v, np.float32) for v in (self.r.uniform(0, 300), self.r.uniform(1000, 4000))], {}

    def Einsum(self):
        sizes = dict(zip("abcde", (int(v) for v in self.r.integers(1, 5, 5))))
        lead = self.dims(2) if self.flag() else None
        terms, inputs = [], []
        for _ in range(self.r.integers(1, 4)):
            labels = [str(v) for v in self.r.choice(list(sizes), self.r.integers(0 if lead else 1, 4), replace=bool(self.flag()))]
            dims = [sizes[v] for v in labels]
            if lead is not None and self.flag():
                at = int(self.r.integers(0, len(labels) + 1))
                labels.insert(at, "...")
                dims[at:at] = self.like(lead)
            terms.append("".join(labels))
            inputs.append(self.floats(dims))
        used = sorted({v for t in terms for v in t if v != "."})
        out = [str(v) for v in self.r.permutation(used)[:self.r.integers(0, len(used) + 1)]]
        if any("..." in t for t in terms):
            out.insert(int(self.r.integers(0, len(out) + 1)), "...")
        equation = ",".join(terms) + ("" if self.r.random() < 0.2 else "->" + "".join(out))
        return inputs, {"equation": equation}

    def Loop(self):
        d, most, limit = self.dims(2), int(self.r.integers(1, 6)), float(self.r.normal() * 10)
        tensor = helper.make_tensor_value_info
        body = helper.make_graph([
            helper.make_node("Add", ["s", "i2"], ["next"]),
            helper.make_node("ReduceSum", ["next"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["k"], ["k1"], to=1),
            helper.make_node("Mul", ["next", "k1"], ["seen"]),
            helper.make_node("Constant", [], ["limit"], value_float=limit),
            helper.make_node("Less", ["sum", "limit"], ["go"]),
        ], "body", [tensor("k", 7, []), tensor("c", 9, []), tensor("s", 1, d)], [tensor("go", 9, []), tensor("next", 1, d), tensor("seen", 1, d)])
        return [np.asarray(most, np.int64), np.asarray(True), self.floats(d)], {"body": body}

    def ReduceL1(self, positive=False):
        d = self.dims(least=1)
        axes = self.r.permutation(len(d))[:self.r.integers(0, len(d) + 1)].astype(np.int64)
        x = self.floats(d, positive) if self.r.random() < 0.8 else self.ints(d, 1, 4).astype(np.int32)
        return [x, axes] if self.flag() else [x], {"keepdims": self.flag(), "noop_with_empty_axes": self.flag()}

    ReduceL2 = ReduceSumSquare = ReduceSum = ReduceMean = ReduceMax = ReduceMin = ReduceL1

    def ReduceLogSum(self):
        inputs, attrs = self.ReduceL1(True)
        return [inputs[0].astype(np.float32), *inputs[1:]], attrs

    ReduceProd = ReduceLogSumExp = ReduceLogSum

    def model(self, op, inputs, attrs):
        """The model of one node; None stands for an input left out."""
        names = ["" if v is None else f"i{k}" for k, v in enumerate(inputs)]
        while names and not names[-1]:
            names.pop()
        outs = {"LSTM": 3, "GRU": 2, "RNN": 2, "Split": 2, "TopK": 2, "Unique": 4, "Loop": 2, "DynamicQuantizeLinear": 3, "com.microsoft.DynamicQuantizeLSTM": 3}.get(op, 1)
        infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in zip(names, inputs) if n]
        domain, _, name = op.rpartition(".")
        node = helper.make_node(name, names, [f"o{k}" for k in range(outs)], domain=domain, **attrs)
        graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name=f"o{k}") for k in range(outs)])
        opset = 24 if op == "Swish" else OPSET
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)], ir_version=IR)
        return onnx.shape_inference.infer_shapes(model), [v for v in inputs if v is not None]


def random(out, graphs, seed, only):
    g = Graphs(seed)
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # DynamicQuantizeLSTM quantizes the rows of each thread together
    named = [name for name in vars(Graphs) if name[0].isupper() or name.startswith("com_")]
    cases = [("operators", make) for make in [g.binary, g.unary, g.shape, g.reduce, g.product] for _ in range(graphs // 5)]
    cases += [("operators", lambda name=name: (name.replace("_", "."), *getattr(g, name)())) for name in named for _ in range(graphs // 5)]
    cases += [("recurrent", g.recurrent)] * (graphs // 10)
    if only:
        cases = [("operators", lambda name=name: (name.replace("_", "."), *getattr(g, name)())) for name in only for _ in range(graphs)]
    for i, (kind, make) in enumerate(cases):
        op, inputs, attrs = make()
        inputs = [None if v is None else np.asarray(v) for v in inputs]
        model, given = g.model(op, inputs, attrs)
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            outputs = session.run(None, {v.name: x for v, x in zip(model.graph.input, given)})
        except Exception as e:  # what ONNX Runtime refuses is no case
            if os.environ.get("REFUSED"):
                print(op, e)
            continue
        write(os.path.join(out, kind, f"{i:06d}-{op}"), model, given, outputs)


def main(out, graphs=2000, seed=1, *only):
    shutil.rmtree(out, ignore_errors=True)
    for kind in ("backend", "operators", "recurrent"):
        os.makedirs(os.path.join(out, kind))
    if not only:
        backend(out)
    random(out, int(graphs), int(seed), only)


main(*sys.argv[1:])
