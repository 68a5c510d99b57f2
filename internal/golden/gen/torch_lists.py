"""Checkpoints with tensors and arrays in lists, and what is in them, for the reader's tests.

    python3 internal/golden/gen/torch_lists.py

writes model/torch/testdata/lists/*.pt, *.pth and expected.safetensors, whose tensors are
named file/tensor. The committed files are by PyTorch 2.15 with NumPy 2.4.
"""
import os
import sys

sys.dont_write_bytecode = True

import golden
import numpy as np
import torch
from torch import nn

torch.set_default_dtype(torch.float32)
torch.manual_seed(29)

out = os.path.normpath(os.path.join(golden.HERE, *[os.pardir] * 3, "model", "torch", "testdata", "lists"))
os.makedirs(out, exist_ok=True)
expected = golden.Cases("expected", 29)
expected.settings = {"torch": torch.__version__, "numpy": np.__version__}


def save(file, value, want, **options):
    torch.save(value, os.path.join(out, file), **options)
    expected.add_named(file, "", [(k, torch.as_tensor(v)) for k, v in want.items()])


a, b, c, d = (torch.randn(2, 3) for _ in range(4))
layers = {"layers": [a, b.t()], "epoch": 3}
for file, options in {"layers.pt": {}, "layers4.pt": {"pickle_protocol": 4}, "layers.pth": {"_use_new_zipfile_serialization": False}}.items():
    save(file, layers, {"layers.0": a, "layers.1": b.t()}, **options)
save("mixed.pt", {"w": a, "rest": (b, 0.5, [c, None, a], {}), "names": ["x", "y"], "none": []}, {"w": a, "rest.0": b, "rest.2.0": c, "rest.2.2": a})
save("list.pt", [a, (b, c)], {"0": a, "1.0": b, "1.1": c})
save("arrays.pt", {"w": a, "scales": [np.arange(3.0), np.array([[1, 2]])]}, {"w": a, "scales.0": np.arange(3.0), "scales.1": np.array([[1, 2]])})

model = nn.ModuleDict({"lstm": nn.LSTM(2, 2), "head": nn.Linear(2, 1)})
optimizer = torch.optim.Adam(model.parameters())
sum(p.sum() for p in model.parameters()).backward()
optimizer.step()
modules = [m.state_dict() for m in model.values()]
save("modules.pt", {"modules": modules, "epoch": 3}, {f"modules.{i}.{k}": v for i, m in enumerate(modules) for k, v in m.items()})
state = model.state_dict()
losses = {"train": [torch.tensor(0.5), torch.tensor(0.25)], "scores": [np.zeros(2), np.array(["a"])]}
save("trainer.pt", {"state_dict": state, "optimizer_states": [optimizer.state_dict()], "losses": losses}, state)
expected.write(out)
