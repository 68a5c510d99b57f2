"""Cases and their files: what every generator shares.

References are computed in float64 from inputs that float32 holds exactly, so
that a reference carries no rounding of its own but the last.
"""
import json
import os

import torch

import tensors

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, os.pardir, "testdata")


def rand(*shape, scale=1.0):
    """Normal numbers that float32 holds exactly, ready to collect a gradient."""
    return (torch.randn(*shape) * scale).float().double().requires_grad_()


def exact(module):
    """Rounds a module's parameters to float32 values, kept as float64."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(p.float().double())
    return module


class Cases:
    """The cases of one file. Tensors are named case/tensor; a case's settings are JSON in the metadata."""

    def __init__(self, name, seed):
        self.name = name
        self.settings = {}
        self.tensors = {}
        torch.manual_seed(seed)

    def add(self, case, settings, **tensors):
        assert case not in self.settings, case
        self.settings[case] = json.dumps(settings, sort_keys=True)
        for key, value in tensors.items():
            if value is not None:
                self.tensors[case + "/" + key] = value.detach()

    def add_named(self, case, prefix, tensors):
        """Adds tensors whose names are not Python identifiers, such as a module's parameters."""
        for key, value in tensors:
            self.tensors[case + "/" + prefix + key] = value.detach()

    def write(self, out=OUT):
        arrays = {}
        for name, t in self.tensors.items():
            floats = t.is_floating_point()
            if floats and not torch.isfinite(t).all():
                raise ValueError(f"{self.name}: {name} is not finite")
            arrays[name] = t.to(torch.float32 if floats else torch.int64).contiguous().numpy()
        tensors.write(os.path.join(out, self.name + ".safetensors"), self.settings, arrays)


def project(*outputs):
    """A scalar loss that weighs every element of the outputs differently, and its weights."""
    weights = [rand(*y.shape).detach() if y is not None else None for y in outputs]
    loss = sum((y * w).sum() for y, w in zip(outputs, weights) if y is not None)
    return loss, weights
