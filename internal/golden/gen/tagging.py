"""Ten training steps of small taggers, of the shapes that package task/tag builds.

Writes task/tag/testdata/steps.safetensors.
"""
import os

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from crf import negative_log_likelihood
from golden import HERE, Cases, exact
from training import STEPS, train

OUT = os.path.join(HERE, os.pardir, os.pardir, os.pardir, "text", "tag", "testdata")
SIZES = {"words": 13, "n_affixes": 17, "n_pairs": 11, "n_chars": 9, "batch": 4, "window": 6, "distinct": 10, "letters": 5}
TAGS = ["O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "S-B"]
SPELLINGS = 8


class Conv(nn.Module):
    """Three vectors a character, by its place in a window, added up; the maximum over a word."""

    def __init__(self, size, out):
        super().__init__()
        self.before, self.at, self.after = (nn.Embedding(size, out, padding_idx=0) for _ in range(3))
        self.bias = nn.Parameter(torch.randn(out) * 0.1)

    def forward(self, chars, letters):
        y = self.before(chars[0]) + self.at(chars[1]) + self.after(chars[2])
        outside = torch.arange(y.shape[1]) >= letters[:, None]
        return torch.tanh(y.masked_fill(outside[..., None], -torch.inf).amax(1) + self.bias)


class Ends(nn.Module):
    """The final states of an LSTM from either end of a word."""

    def __init__(self, size, out):
        super().__init__()
        self.at = nn.Embedding(size, 32, padding_idx=0)
        self.rnn = nn.LSTM(32, out // 2, bidirectional=True, batch_first=True)

    def forward(self, chars, letters):
        packed = pack_padded_sequence(self.at(chars[1]), letters, batch_first=True, enforce_sorted=False)
        return self.rnn(packed)[1][0].transpose(0, 1).flatten(1)


class CRF(nn.Module):
    def __init__(self, tags):
        super().__init__()
        n = len(tags)
        self.transitions = nn.Parameter(torch.rand(n, n) - 0.5)
        self.start, self.end = nn.Parameter(torch.rand(n) - 0.5), nn.Parameter(torch.rand(n) - 0.5)

        def may(a, b):
            opened, goes = a[0] in "BI", b[0] in "IE"
            return opened == goes and (not opened or a[1:] == b[1:])

        cost = [[0.0 if may(a, b) else -torch.inf for b in tags + ["O"]] for a in tags + ["O"]]
        self.cost = torch.tensor(cost)

    def forward(self, scores, tags, lengths):
        n = len(self.start)
        return negative_log_likelihood(scores, self.transitions + self.cost[:n, :n], self.start + self.cost[n, :n], self.end + self.cost[:n, n], tags, lengths)


class Tagger(nn.Module):
    def __init__(self, chars, affixes, pairs, crf, dim=6, hidden=5, char_hidden=4):
        super().__init__()
        self.words = nn.Embedding(SIZES["words"], dim, padding_idx=0)
        width = dim
        self.pairs = nn.Embedding(SIZES["n_pairs"], dim // 2, padding_idx=0) if pairs else None
        width += 2 * (dim // 2) if pairs else 0
        self.affixes = nn.Embedding(SIZES["n_affixes"], affixes, padding_idx=0) if affixes else None
        width += SPELLINGS * affixes
        self.chars = {"cnn": Conv, "lstm": Ends}[chars](SIZES["n_chars"], char_hidden) if chars != "none" else None
        width += char_hidden if self.chars else 0
        self.rnn = nn.LSTM(width, hidden, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, len(TAGS))
        self.crf = CRF(TAGS) if crf else None

    def forward(self, b):
        x = [self.words(b["ids"])]
        if self.pairs is not None:
            x.append(self.pairs(b["pairs"]).flatten(2))
        spelled = []
        if self.affixes is not None:
            spelled.append(self.affixes(b["affixes"]).flatten(1))
        if self.chars is not None:
            spelled.append(self.chars(b["chars"], b["letters"]))
        if spelled:
            x.append(torch.cat(spelled, 1)[b["gather"]])
        packed = pack_padded_sequence(torch.cat(x, 2), b["lengths"], batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=b["ids"].shape[1])
        scores = self.head(y)
        if self.crf is not None:
            return self.crf(scores, b["tags"], b["lengths"])
        inside = torch.arange(y.shape[1]) < b["lengths"][:, None]
        return cross_entropy(scores[inside], b["tags"][inside])


def spans(lengths, window):
    """Random tags that keep to BIOES."""
    tags = torch.zeros(len(lengths), window, dtype=torch.long)
    for row, n in zip(tags, lengths):
        t = 0
        while t < n:
            size = min(int(torch.randint(0, 4, ())), int(n) - t)
            label = 1 + 4 * int(torch.randint(0, 2, ()))
            if size == 1:
                row[t] = label + 3
            elif size > 1:
                row[t:t + size] = label + 1
                row[t], row[t + size - 1] = label, label + 2
            t += max(size, 1)
    return tags


def batches():
    """Random batches, with zeros wherever padding is."""
    s = SIZES
    lengths = torch.randint(1, s["window"] + 1, (STEPS, s["batch"]))
    inside = torch.arange(s["window"]) < lengths[..., None]
    letters = torch.randint(1, s["letters"] + 1, (STEPS, s["distinct"]))
    known = torch.arange(s["letters"]) < letters[..., None]
    shape, word = (STEPS, s["batch"], s["window"]), (STEPS, s["distinct"])
    return {
        "ids": torch.randint(0, s["words"], shape) * inside, "gather": torch.randint(0, s["distinct"], shape) * inside,
        "pairs": torch.randint(0, s["n_pairs"], (*shape, 2)) * inside[..., None], "lengths": lengths,
        "tags": torch.stack([spans(n, s["window"]) for n in lengths]),
        "affixes": torch.randint(0, s["n_affixes"], (*word, SPELLINGS)), "letters": letters,
        "chars": torch.randint(0, s["n_chars"], (STEPS, 3, s["distinct"], s["letters"])) * known[:, None],
    }


def main():
    cases = Cases("steps", 800)
    for name, o in {
        "words": {"chars": "cnn", "affixes": 3, "pairs": False, "crf": True},
        "words,lstm": {"chars": "lstm", "affixes": 0, "pairs": False, "crf": True},
        "characters": {"chars": "none", "affixes": 0, "pairs": True, "crf": True},
        "softmax": {"chars": "cnn", "affixes": 3, "pairs": True, "crf": False},
    }.items():
        model, b = exact(Tagger(**o).double()), batches()
        train(cases, name, {**o, **SIZES}, model, lambda m, step: m({k: v[step] for k, v in b.items()}), "adamw", {}, 1e-2, 1e-4, 0.5, b)
    cases.write(OUT)


if __name__ == "__main__":
    main()
