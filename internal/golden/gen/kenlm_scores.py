"""Random n-gram models in ARPA format and KenLM's scores of sentences with unknown words.

    pip install kenlm
    python3 internal/golden/gen/kenlm_scores.py [MODELS [SEED [FILE]]]

writes task/transcribe/testdata/kenlm.json. With CAROUSEL_KENLM=FILE the test there
reads another file, such as one of 1,000 models.
"""
import json
import os
import random
import sys
import tempfile

import kenlm

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir, os.pardir)


def grams(rng, order, words):
    """The n-grams of each order: a random share of those whose ends are there."""
    vocabulary = ["<s>", "</s>", *words]
    levels = [[(w,) for w in vocabulary]]
    for _ in range(order - 1):
        there = set(levels[-1])
        longer = [
            g + (w,)
            for g in levels[-1]
            for w in vocabulary
            if g[-1] != "</s>" and w != "<s>" and g[1:] + (w,) in there and rng.random() < 0.45
        ]
        if not longer:
            break
        levels.append(longer)
    return levels


def arpa(rng, levels):
    lines = ["\\data\\", *(f"ngram {n}={len(g)}" for n, g in enumerate(levels, 1)), ""]
    for n, level in enumerate(levels, 1):
        lines.append(f"\\{n}-grams:")
        for g in level:
            line = f"{-99 if g == ('<s>',) else -round(rng.uniform(0.05, 3), 4)}\t{' '.join(g)}"
            if n < len(levels) and g[-1] != "</s>" and rng.random() < 0.9:
                line += f"\t{round(rng.uniform(-1.5, 0), 4)}"
            lines.append(line)
        lines.append("")
    return "\n".join([*lines, "\\end\\", ""])


def main(models=40, seed=1, path=os.path.join(ROOT, "task/transcribe/testdata/kenlm.json")):
    rng = random.Random(int(seed))
    cases = []
    while len(cases) < int(models):
        words = [chr(97 + i) for i in range(rng.randint(1, 6))]
        known = words + (["<unk>"] if rng.random() < 0.7 else [])
        levels = grams(rng, rng.randint(2, 5), known)
        if len(levels) < 2:  # KenLM reads bigrams and longer
            continue
        text = arpa(rng, levels)
        with tempfile.NamedTemporaryFile("w", suffix=".arpa") as f:
            f.write(text)
            f.flush()
            model = kenlm.Model(f.name)
        sentences = []
        for _ in range(5):
            s = " ".join(rng.choice(words + ["unseen", "new"]) for _ in range(rng.randint(0, 6)))
            sentences.append({"text": s, "scores": [round(p, 6) for p, _, _ in model.full_scores(s)]})
        cases.append({"arpa": text, "sentences": sentences})
    with open(path, "w") as f:
        json.dump(cases, f, indent=0)
        f.write("\n")


main(*sys.argv[1:])
