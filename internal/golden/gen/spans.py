"""Spans in tags, and scores of spans, as seqeval 1.2.2 counts them in its default mode, which is conlleval's.

Needs the package seqeval; writes task/tag/testdata/seqeval.json, which the tests of that package read.
"""
import json
import os
import random

from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, os.pardir, os.pardir, os.pardir, "text", "tag", "testdata", "seqeval.json")


def sentence(rng, letters, labels, n):
    tags = []
    for _ in range(n):
        if rng.random() < 0.35:
            tags.append("O")
        elif tags and tags[-1] != "O" and rng.random() < 0.6:
            tags.append(rng.choice(letters) + tags[-1][1:])
        else:
            tags.append(rng.choice(letters) + "-" + rng.choice(labels))
    return tags


def main():
    rng = random.Random(5)
    spans, scores = [], []
    for letters in ("BI", "I", "BIES", "ES", "BE"):
        for _ in range(12):
            tags = sentence(rng, letters, ["PER", "LOC", "my-label"], rng.randint(1, 14))
            spans.append({"tags": tags, "spans": [[a, b + 1, label] for label, a, b in get_entities(tags)]})
        gold = [sentence(rng, letters, ["PER", "LOC"], rng.randint(1, 14)) for _ in range(8)]
        found = [[t if rng.random() < 0.7 else rng.choice(["O", rng.choice(letters) + "-PER"]) for t in s] for s in gold]
        scores.append({"gold": gold, "found": found, "precision": precision_score(gold, found), "recall": recall_score(gold, found),
                       "f1": f1_score(gold, found), "accuracy": accuracy_score(gold, found)})
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "w") as f:
        f.write(json.dumps({"spans": spans, "scores": scores}, separators=(",", ":"), sort_keys=True).replace('{"', '\n{"') + "\n")


if __name__ == "__main__":
    main()
