"""Ten training steps of small classifiers of text, of the shapes that package task/classify builds.

Writes task/classify/testdata/steps.safetensors.
"""
import os

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from golden import HERE, Cases, exact
from training import STEPS, train

OUT = os.path.join(HERE, os.pardir, os.pardir, os.pardir, "text", "classify", "testdata")
SIZES = {"words": 13, "classes": 3, "batch": 5, "window": 7}
WEIGHT = [0.5, 1.0, 2.0]  # of the classes, where they are balanced


class Classifier(nn.Module):
    def __init__(self, pool, dim=6, hidden=5, layers=2):
        super().__init__()
        self.embedding = nn.Embedding(SIZES["words"], dim, padding_idx=0)
        self.rnn = nn.LSTM(dim, hidden, layers, bidirectional=True, batch_first=True)
        self.query = nn.Linear(2 * hidden, 1, bias=False) if pool == "attention" else None
        self.head = nn.Linear(2 * hidden, SIZES["classes"])
        self.pool = pool

    def forward(self, ids, lengths):
        packed = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        y, (h, _) = self.rnn(packed)
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=ids.shape[1])
        outside = (torch.arange(ids.shape[1]) >= lengths[:, None])[..., None]
        if self.pool == "max":
            pooled = y.masked_fill(outside, -torch.inf).amax(1)
        elif self.pool == "mean":
            pooled = y.sum(1) / lengths[:, None]
        elif self.pool == "last":
            pooled = torch.cat([h[-2], h[-1]], 1)
        else:
            share = self.query(y.tanh()).masked_fill(outside, -torch.inf).softmax(1)
            pooled = (share * y).sum(1)
        return self.head(pooled)


def batches():
    """Random batches, with zeros wherever padding is."""
    s = SIZES
    lengths = torch.randint(1, s["window"] + 1, (STEPS, s["batch"]))
    inside = torch.arange(s["window"]) < lengths[..., None]
    return {
        "ids": torch.randint(1, s["words"], (STEPS, s["batch"], s["window"])) * inside, "lengths": lengths,
        "class": torch.randint(0, s["classes"], (STEPS, s["batch"])),
        "target": torch.randint(0, 2, (STEPS, s["batch"], s["classes"])),
    }


def main():
    cases = Cases("steps", 810)
    for name, o in {
        "max": {"pool": "max"}, "mean": {"pool": "mean"}, "last": {"pool": "last"}, "attention": {"pool": "attention"},
        "smoothed,balanced": {"pool": "max", "smoothing": 0.1, "balanced": True},
        "several labels": {"pool": "max", "several": True},
    }.items():
        o = {"smoothing": 0.0, "balanced": False, "several": False, **o}
        weight = torch.tensor(WEIGHT, dtype=torch.float64) if o["balanced"] else None

        def loss(m, step):
            logits = m(b["ids"][step], b["lengths"][step])
            if o["several"]:
                return binary_cross_entropy_with_logits(logits, b["target"][step].double())
            return cross_entropy(logits, b["class"][step], weight=weight, label_smoothing=o["smoothing"])

        model, b = exact(Classifier(o["pool"]).double()), batches()
        train(cases, name, {**o, **SIZES}, model, loss, "adamw", {}, 1e-2, 1e-4, 0.5, b)
    cases.write(OUT)


if __name__ == "__main__":
    main()
