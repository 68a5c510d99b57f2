"""Writes text/g2p/testdata/g2p_en.txt.gz: the phonemes of g2p-en 2.1.0 for 2,000 words.

    pip install --no-deps g2p-en==2.1.0 && pip install numpy
    python3 internal/golden/gen/g2p.py TEXT

The words are the rarest ones of an English text, such as Shakespeare's plays, and fifty made of
random characters. Only the network is asked, not the dictionary, so nltk is replaced by nothing.
"""
import collections
import gzip
import os
import random
import re
import sys
import types

for name in "nltk", "nltk.corpus", "nltk.tokenize":
    sys.modules[name] = types.ModuleType(name)
sys.modules["nltk"].pos_tag = None
sys.modules["nltk"].data = types.SimpleNamespace(find=lambda path: None)
sys.modules["nltk.corpus"].cmudict = types.SimpleNamespace(dict=dict)
sys.modules["nltk.tokenize"].TweetTokenizer = type("TweetTokenizer", (), {"tokenize": None})
sys.modules["g2p_en.expand"] = types.ModuleType("g2p_en.expand")
sys.modules["g2p_en.expand"].normalize_numbers = None
from g2p_en import G2p


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        counts = collections.Counter(re.findall("[a-z]+", f.read().lower()))
    words = sorted(counts, key=lambda w: (counts[w], w))
    random.seed(1)
    words = random.sample(words[:5000], 1900) + words[-50:]
    words += ["".join(random.choice("abcdefghijklmnopqrstuvwxyz'-7") for _ in range(random.randint(1, 30))) for _ in range(50)]
    g2p = G2p()
    lines = [word + " " + " ".join(g2p.predict(word)) for word in words]
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.path.join(here, "../../../text/g2p/testdata/g2p_en.txt.gz")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(gzip.compress(("\n".join(lines) + "\n").encode(), 9, mtime=0))


main()
