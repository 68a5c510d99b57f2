"""Runs the layers of a file of weights in PyTorch and prints how far the results
lie from those it is given: parity.py WEIGHTS KEY LAYERS.json SAMPLES.pt
"""
import json
import struct
import sys

import torch
from torch import nn


def members(obj):
    """The values of a dict by their keys, or those of a list by their indices."""
    if isinstance(obj, dict):
        return list(obj.items())
    return list(enumerate(obj)) if isinstance(obj, (list, tuple)) else []


def tensors_of(obj, inner=False):
    """The tensors in a dict and in its lists, by dotted names."""
    out = {}
    for k, v in members(obj):
        if isinstance(v, torch.Tensor):
            out[str(k)] = v
        elif inner or not isinstance(obj, dict) or not isinstance(v, dict):
            out.update({f"{k}.{name}": t for name, t in tensors_of(v, True).items()})
    return out


def find(obj, key, path=""):
    """The dict of tensors at a path of keys joined by dots."""
    if path == key:
        return tensors_of(obj)
    for k, v in members(obj):
        got = find(v, key, f"{path}.{k}" if path else str(k))
        if got:
            return got
    return None


def safetensors(path):
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64,
             "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(n))
        data = bytearray(f.read())
    header.pop("__metadata__", None)
    out = {}
    for name, t in header.items():
        begin, end = t["data_offsets"]
        if end > begin:
            out[name] = torch.frombuffer(data[begin:end], dtype=types[t["dtype"]]).reshape(t["shape"])
    return out


def load(path, key):
    if path.endswith(".safetensors"):
        return safetensors(path)
    try:
        return find(torch.load(path, map_location="cpu", weights_only=True), key)
    except Exception:  # its own advice is to run what is in the file
        sys.exit(f"PyTorch {torch.__version__} does not load {path} with weights_only=True")


def module(layer):
    kind, bias = layer["kind"], layer["bias"]
    if kind == "linear":
        return nn.Linear(layer["input"], layer["output"], bias=bias)
    if kind == "embedding":
        return nn.Embedding(layer["input"], layer["output"])
    if kind == "layer_norm":
        return nn.LayerNorm(layer["input"], eps=layer.get("eps", 1e-5))
    options = dict(num_layers=layer["layers"], bidirectional=layer.get("bidirectional", False), bias=bias, batch_first=True)
    if kind == "lstm":
        return nn.LSTM(layer["input"], layer["hidden"], proj_size=layer.get("proj_size", 0), **options)
    if kind == "gru":
        return nn.GRU(layer["input"], layer["hidden"], **options)
    return nn.RNN(layer["input"], layer["hidden"], nonlinearity=kind[len("rnn_"):], **options)


def norm_dim(lengths):
    """The dimension for whose indices weight normalisation has lengths of their own."""
    return next((i for i, n in enumerate(lengths.shape) if n > 1), 0 if lengths.dim() else None)


def difference(layer, state, samples, i):
    prefix = layer["name"] + "." if layer["name"] else ""
    m = module(layer)
    own, suffix = {}, "_l0" if layer.get("cell") else ""
    for name, t in state.items():
        base = name[len(prefix):]
        parts = base.split(".")
        if not name.startswith(prefix):
            continue
        if len(parts) == 1:
            old = base[-2:] in ("_g", "_v") and f"{prefix}{base[:-2]}_v" in state
            own[base[:-2] + suffix + base[-2:] if old else base + suffix] = t.float()
            if old and base.endswith("_g"):
                nn.utils.weight_norm(m, base[:-2] + suffix, norm_dim(t))
        elif parts[0] == "parametrizations" and len(parts) == 3:
            own[f"parametrizations.{parts[1]}{suffix}.{parts[2]}"] = t.float()
            if parts[2] == "original0":
                nn.utils.parametrizations.weight_norm(m, parts[1] + suffix, norm_dim(t))
    m.load_state_dict(own, strict=True)
    m.eval()
    get = lambda part: samples.get(f"{i}.{part}")
    if layer["kind"] == "lstm":
        y, (h, c) = m(get("x"), (get("h0"), get("c0")))
    elif layer.get("hidden"):
        (y, h), c = m(get("x"), get("h0")), None
    else:
        y, h, c = m(get("ids") if get("ids") is not None else get("x")), None, None
    return max((got - want.reshape(got.shape)).abs().max().item() for got, want in ((y, get("y")), (h, get("hn")), (c, get("cn"))) if got is not None)


def main():
    weights, key, layers, samples = sys.argv[1:]
    with open(layers) as f:
        layers = json.load(f)["layers"]
    state = load(weights, key)
    samples = torch.load(samples, weights_only=True)
    with torch.no_grad():
        print(json.dumps({"torch": torch.__version__, "differences": [difference(l, state, samples, i) for i, l in enumerate(layers)]}))


main()
