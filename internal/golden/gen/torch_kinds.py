"""Files with weights outside a plain state_dict, and what is in them, for the reader's tests.

    python3 internal/golden/gen/torch_kinds.py

writes model/torch/testdata/kinds/*.pt, *.npz and expected.safetensors, whose tensors are
named file/tensor: programs of torch.jit.save, NumPy arrays in checkpoints and archives,
and one tensor of each kind that is refused. The committed files are by PyTorch 1.12 with
NumPy 1.26.
"""
import os
import sys

sys.dont_write_bytecode = True

import golden
import numpy as np
import torch
from torch import nn

torch.set_default_dtype(torch.float32)
torch.manual_seed(23)
rng = np.random.RandomState(23)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 2)
        self.stack = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2, bias=False)])
        self.register_buffer("scale", torch.rand(2))
        self.sizes = [2, 3]
        self.also = self.stack[0]

    def forward(self, x):
        y, _ = self.lstm(x)
        for layer in self.stack:
            y = layer(y)
        return self.also(y) * self.scale


out = os.path.normpath(os.path.join(golden.HERE, *[os.pardir] * 3, "model", "torch", "testdata", "kinds"))
os.makedirs(out, exist_ok=True)
expected = golden.Cases("expected", 23)
expected.settings = {"torch": torch.__version__, "numpy": np.__version__}


def save(file, value, want=None, **options):
    torch.save(value, os.path.join(out, file), **options)
    note(file, want or {})


def note(file, want):
    expected.add_named(file, "", [(k, torch.as_tensor(v.astype(v.dtype.newbyteorder("=")).copy(order="C") if isinstance(v, np.ndarray) else v)) for k, v in want.items()])


net = Net()
torch.jit.save(torch.jit.script(net), os.path.join(out, "script.pt"))
note("script.pt", net.state_dict())
torch.jit.save(torch.jit.trace(net, torch.zeros(3, 1, 2)), os.path.join(out, "trace.pt"))
note("trace.pt", net.state_dict())

arrays = {
    "weight": rng.normal(size=(2, 3)).astype("f4"), "fortran": np.asfortranarray(rng.normal(size=(2, 3, 2))), "big": rng.normal(size=3).astype(">f4"), "half": np.array([1.5, -2], "f2"),
    "ints": np.array([[-3, 250]]), "bytes": np.array([200, 3], "u1"), "flags": np.array([True, False]), "scalar": np.array(2.5), "none": np.zeros((0, 2), "f4"), "big_ints": np.array([258, -2], ">i2"),
}
others = {"names": np.array(["a", "b"]), "objects": np.array([None, 1], dtype=object)}
save("numpy.pt", {**arrays, **others}, arrays)
save("numpy5.pt", {**arrays, **others}, arrays, pickle_protocol=5)
save("numpy.pth", {**arrays, **others}, arrays, _use_new_zipfile_serialization=False)
weights = {"a.weight": torch.rand(2, 2)}
save("beside.pt", {"model": weights, "mean": rng.normal(size=3), "best": np.float32(2.5), "epoch": np.int64(3)}, weights)
np.savez(os.path.join(out, "arrays.npz"), **arrays, **others)
note("arrays.npz", arrays)
np.savez_compressed(os.path.join(out, "compressed.npz"), **arrays)
note("compressed.npz", arrays)

same = {"w": torch.ones(2)}
save("same.pt", {"model": same, "ema": same, "all": {"last": same}})
for kind, tensor in {
    "sparse": torch.eye(2).to_sparse(), "csr": torch.eye(2).to_sparse_csr(), "complex": torch.ones(2, dtype=torch.complex64), "meta": torch.empty(2, 2, device="meta"),
    "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "channels": torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.qint8),
}.items():
    save(kind + ".pt", {"b": torch.ones(1), "w": tensor})
packed = torch.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(2, 2)), {nn.LSTM}, dtype=torch.qint8)
save("packed.pt", packed.state_dict())
expected.write(out)
