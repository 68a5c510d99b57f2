"""ONNX files with inputs and outputs: python3 internal/golden/gen/onnx_cases.py

node: the ONNX project's own tests of LSTM, GRU and RNN, from its Python package.
torch: recurrent networks as PyTorch exports them, with PyTorch's outputs.

Needs PyTorch 1.13 or later and the onnx package 1.12 or later (Debian:
python3-torch, python3-onnx). The files go to model/onnx/graph/testdata.
"""
import importlib
import os
import sys
import warnings

sys.dont_write_bytecode = True

import numpy as np
import torch
from onnx.backend.test.case import node
from torch import nn

import golden

TESTDATA = os.path.join(golden.HERE, os.pardir, os.pardir, os.pardir, "model", "onnx", "graph", "testdata")
golden.OUT = TESTDATA


def save(kind, name, data):
    folder = os.path.join(TESTDATA, kind)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name + ".onnx"), "wb") as f:
        f.write(data)


def node_cases():
    cases = golden.Cases("node", 200)
    np.random.seed(200)
    for op in ("lstm", "gru", "rnn"):  # importing a module makes its cases
        importlib.import_module("onnx.backend.test.case.node." + op)
    found = node._NodeTestCases
    assert len(found) == 12, len(found)
    for case in sorted(found, key=lambda c: c.name):
        graph = case.model.graph
        assert {n.op_type for n in graph.node} <= {"LSTM", "GRU", "RNN"}, case.name
        (inputs, outputs), = case.data_sets
        cases.add(case.name, {})
        cases.add_named(case.name, "in.", ((v.name, torch.from_numpy(np.array(x))) for v, x in zip(graph.input, inputs)))
        cases.add_named(case.name, "out.", ((v.name, torch.from_numpy(np.array(x))) for v, x in zip(graph.output, outputs)))
        save("node", case.name, case.model.SerializeToString())
    cases.write()


class Classifier(nn.Module):
    """Token ids to classes: the usual embedding, two-way LSTM and linear layer on both final states."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(13, 6, padding_idx=0)
        self.rnn = nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(10, 3)

    def forward(self, ids):
        _, (h, _) = self.rnn(self.embedding(ids))
        return self.fc(self.drop(torch.cat([h[-2], h[-1]], dim=1)))


class Last(nn.Module):
    def __init__(self, cell, layers=1, **options):
        super().__init__()
        self.rnn = cell(4, 6, num_layers=layers, batch_first=True, **options)
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.fc(y[:, -1])


class Tagger(nn.Module):
    """Time-major features to log-probabilities at every step."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 5, bidirectional=True)
        self.fc = nn.Linear(10, 3)

    def forward(self, x):
        return torch.log_softmax(self.fc(self.rnn(x)[0]), dim=-1)


class Steps(nn.Module):
    """Time-major features to numbers at every step, without biases."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 5, num_layers=2, bias=False)
        self.fc = nn.Linear(5, 3, bias=False)

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


class States(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 5, num_layers=2, batch_first=True)

    def forward(self, x, h, c):
        y, (h, c) = self.rnn(x, (h, c))
        return y, h, c


class Packed(nn.Module):
    """Rows of their own length, pooled."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 5, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(10, 3)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        y, (h, _) = self.rnn(packed)
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
        mask = torch.arange(y.shape[1]).unsqueeze(0) < lengths.unsqueeze(1)
        mean = (y * mask.unsqueeze(2)).sum(1) / lengths.unsqueeze(1)
        return self.fc(mean), h


class Attention(nn.Module):
    """An encoder, dot-product attention of the last step over all, normalised, with residuals and pools."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(4, 8, batch_first=True, nonlinearity="relu")
        self.query = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 2), nn.Sigmoid())

    def forward(self, x):
        y, _ = self.rnn(x)
        q = torch.tanh(self.query(y[:, -1:])) / 8 ** 0.5
        weights = torch.softmax(q @ y.transpose(1, 2), dim=-1)
        context = self.norm((weights @ y).squeeze(1) + y[:, -1])
        z = self.out(torch.cat([context, y.mean(dim=1), y.max(dim=1)[0]], dim=-1))
        return z, z.argmax(dim=-1), weights


class Decoder(nn.Module):
    """Two steps unrolled over a cell's last output, as forecasters feed themselves."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(3, 5, batch_first=True)
        self.decoder = nn.LSTM(1, 5, batch_first=True)
        self.out = nn.Linear(5, 1)

    def forward(self, x):
        _, state = self.encoder(x)
        step, steps = x[:, -1:, :1], []
        for _ in range(2):
            y, state = self.decoder(step, state)
            step = step + self.out(y)
            steps.append(step)
        return torch.cat(steps, dim=1).squeeze(-1)


def export(cases, name, net, args, inputs, outputs, dynamic, **options):
    net = net.float().eval()
    path = os.path.join(TESTDATA, "torch", name + ".onnx")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The trace sees other sizes than the case, so that a size it fixed would be noticed.
        small = tuple(a[:, :3] if a.dim() > 1 and dynamic.get(n, {}).get(1) == "time" else a for a, n in zip(args, inputs))
        torch.onnx.export(net, small, path, input_names=inputs, output_names=outputs, dynamic_axes=dynamic, **options)
    with torch.no_grad():
        results = net(*args)
    results = results if isinstance(results, tuple) else (results,)
    cases.add(name, {})
    cases.add_named(name, "in.", zip(inputs, args))
    cases.add_named(name, "out.", zip(outputs, results))


def torch_cases():
    cases = golden.Cases("torch", 201)
    torch.set_default_dtype(torch.float32)
    bt, tb = {0: "batch", 1: "time"}, {0: "time", 1: "batch"}
    x, xt = torch.randn(3, 5, 4), torch.randn(5, 3, 4)
    ids = torch.randint(0, 13, (3, 5))
    one = (["x"], ["y"])
    export(cases, "classifier", Classifier(), (ids,), ["ids"], ["y"], {"ids": bt, "y": {0: "batch"}}, opset_version=13)
    export(cases, "forecaster", Last(nn.LSTM, 2), (x,), *one, {"x": bt}, opset_version=16)
    export(cases, "forecaster_gru", Last(nn.GRU), (x,), *one, {"x": bt}, opset_version=11)
    export(cases, "forecaster_elman", Last(nn.RNN, 2, nonlinearity="relu"), (x,), *one, {"x": bt}, opset_version=9)
    export(cases, "unfolded", Last(nn.LSTM, 2), (x,), *one, {"x": bt}, opset_version=14, do_constant_folding=False)
    export(cases, "fixed", Last(nn.LSTM), (x,), *one, {}, opset_version=13)
    export(cases, "tagger", Tagger(), (xt,), *one, {"x": tb}, opset_version=13)
    export(cases, "steps", Steps(), (xt,), *one, {"x": tb}, opset_version=13)
    h, c = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    state = {1: "batch"}
    export(cases, "states", States(), (x, h, c), ["x", "h0", "c0"], ["y", "hn", "cn"], {"x": bt, "h0": state, "c0": state}, opset_version=13)
    export(cases, "packed", Packed(), (x, torch.tensor([5, 3, 1])), ["x", "lengths"], ["y", "hn"], {"x": {0: "batch"}}, opset_version=13)
    export(cases, "attention", Attention(), (x,), ["x"], ["y", "best", "weights"], {"x": bt}, opset_version=13)
    export(cases, "decoder", Decoder(), (torch.randn(3, 5, 3),), *one, {"x": bt}, opset_version=13)
    cases.write()


if __name__ == "__main__":
    node_cases()
    torch_cases()
