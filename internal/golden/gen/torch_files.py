"""Files of torch.save in every form, and what is in them, for the reader's tests.

    python3 internal/golden/gen/torch_files.py NAME

writes model/torch/testdata/NAME/*.pt, *.pth and expected.safetensors, whose
tensors are named file/tensor. The committed directories are torch1, written by
PyTorch 1.13, and torch2, by 2.15; a name in the format's history is worth
keeping a file of, so this is not part of all.py.
"""
import os
import sys
import zipfile

sys.dont_write_bytecode = True

import golden
import torch
from torch import nn

torch.set_default_dtype(torch.float32)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.lstm = nn.LSTM(4, 3, num_layers=2, bidirectional=True)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 5)


def tagger():
    return Tagger().state_dict()


def swapped(source, target):
    """The same archive as a big-endian system writes it."""
    with zipfile.ZipFile(source) as a, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as b:
        for item in a.namelist():
            data = a.read(item)
            if "/data/" in item:
                data = b"".join(data[i:i + 4][::-1] for i in range(0, len(data), 4))
            if not item.endswith("/byteorder"):
                b.writestr(item, data)
        b.writestr(a.namelist()[0].split("/")[0] + "/byteorder", "big")


def main(name):
    torch.manual_seed(13)
    out = os.path.normpath(os.path.join(golden.HERE, *[os.pardir] * 3, "model", "torch", "testdata", name))
    os.makedirs(out, exist_ok=True)
    golden.OUT = out
    expected = golden.Cases("expected", 13)
    expected.settings = {"torch": torch.__version__}

    def save(file, obj, want=None, **options):
        torch.save(obj, os.path.join(out, file), **options)
        if want is not None:
            expected.add_named(file, "", want.items())

    legacy = dict(_use_new_zipfile_serialization=False)
    weights = tagger()
    save("tagger.pt", weights, weights)
    save("tagger.pth", weights, weights, **legacy)
    for protocol in (3, 4, 5):
        save(f"protocol{protocol}.pt", weights, weights, pickle_protocol=protocol)
    save("protocol4.pth", weights, weights, pickle_protocol=4, **legacy)

    base = torch.randn(4, 6)
    views = {
        "whole": base, "transposed": base.t(), "column": base[:, 2], "corner": base[1:3, 2:5], "every_other": base[::2, ::3],
        "expanded": torch.randn(3, 1).expand(3, 5), "scalar": base[2, 3], "empty": base[:0], "tied": base, "flipped_dims": torch.randn(2, 3, 4).permute(2, 0, 1),
        "channels_last": torch.randn(2, 3, 2, 2).to(memory_format=torch.channels_last),
    }
    save("views.pt", views, views)
    save("views.pth", views, views, **legacy)

    types = {
        "float64": torch.randn(5).double(), "half": torch.tensor([1.5, -0.0, 6e-8, 65504.0, 2**-14]).half(), "bfloat16": torch.randn(5).bfloat16(),
        "int64": torch.tensor([1, -2, 2**62]), "int32": torch.tensor([-2**31, 5], dtype=torch.int32), "int16": torch.tensor([-300, 5], dtype=torch.int16),
        "int8": torch.tensor([-128, 5], dtype=torch.int8), "uint8": torch.tensor([255, 5], dtype=torch.uint8), "bool": torch.tensor([True, False]),
    }
    if hasattr(torch, "uint16"):
        types["uint16"] = torch.tensor([65535, 1], dtype=torch.uint16)
        types["uint32"] = torch.tensor([2**32 - 1, 1], dtype=torch.uint32)
    save("types.pt", types, types)
    types.pop("uint16", None), types.pop("uint32", None)
    save("types.pth", types, types, **legacy)

    model = Tagger()
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    checkpoint = {
        "epoch": 7, "best": 0.25, "args": {"hidden": 3, "cells": ["lstm"], "size": torch.Size([4, 3]), "device": torch.device("cpu"), "dtype": torch.float32},
        "loss": torch.tensor(0.5), "rng": torch.get_rng_state(), "tags": {"a", "b"}, "raw": b"\x00\xff", "big": 2**80, "none": None, "flag": True,
        "model": model.state_dict(), "optimizer": optimizer.state_dict(),
    }
    save("checkpoint.pt", checkpoint, model.state_dict())
    save("checkpoint.pth", checkpoint, model.state_dict(), **legacy)
    save("parameters.pt", dict(model.named_parameters()), dict(model.named_parameters()))
    two = {"nets": {"model": {"w": torch.ones(2)}, "ema": {"w": torch.zeros(2)}}}
    save("two.pt", two)
    save("mixed.pt", {"w": torch.ones(2, 2), "epoch": 3}, {"w": torch.ones(2, 2)})
    save("none.pt", {"epoch": 3})

    save("bare.pt", nn.LSTM(3, 2, batch_first=True, bias=False).state_dict())
    save("module.pt", nn.Linear(2, 1))
    torch.jit.save(torch.jit.script(nn.Linear(2, 1)), os.path.join(out, "script.pt"))
    swapped(os.path.join(out, "tagger.pt"), os.path.join(out, "bigendian.pt"))
    if hasattr(torch.serialization, "set_default_load_endianness"):  # 2.x: what PyTorch makes of it
        got = torch.load(os.path.join(out, "bigendian.pt"), weights_only=True)
        assert all(torch.equal(got[k], weights[k]) for k in weights)
    expected.add_named("bigendian.pt", "", weights.items())
    expected.write()


main(*sys.argv[1:])
