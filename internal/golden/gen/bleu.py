"""Scores of translations as sacreBLEU gives them: BLEU and chrF, and how it cuts words.

Apart from the others: it needs the package sacrebleu (2.6.0) and no PyTorch, and writes
task/translate/testdata/bleu.json.
"""
import json
import os
import random

from sacrebleu.metrics import BLEU, CHRF

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 3, "text", "translate", "testdata", "bleu.json")

TRICKY = [
    "", " ", "Hello, world!", "It's 3.14 or 1,000.5 (about) -- isn't it?", "1990-2000, A-1, 5-", "a.b,c .d ,e", "x&quot;y&quot; &amp;lt; &lt;b&gt;",
    "<skipped>word", "\"quoted\" `back` {curly} [square] ~tilde ^hat $5 #1 50% a/b c\\d e_f @home", "İstanbul ΣΊΣΥΦΟΣ ΟΔΟΣ Straße ÄÖÜ",
    "我爱你。 東京タワー", "non\u00a0breaking\u2009thin\u3000wide\x1cfile", "trailing space  ", "...", ",", "3.", ".5", "a,1", "1,a", "’s “curly” – dash…",
    "line-\nbroken line\nend", "tab\tbed", "👍🏽 ok", "2-3 2.-3 2.5-3", "A.B.C. U.S.A.",
]


def main():
    rng = random.Random(5)
    words = "the a cat dog sat on mat , . small Green house runs over it's 3.5 1,000 Äpfel".split()

    def sentence(n):
        return " ".join(rng.choice(words) for _ in range(n))

    def near(s):
        w = [rng.choice(words) if rng.random() < 0.25 else x for x in s.split() if rng.random() > 0.1]
        if len(w) > 3 and rng.random() < 0.3:
            i = rng.randrange(len(w) - 1)
            w[i], w[i + 1] = w[i + 1], w[i]
        return " ".join(w)

    cases = []

    def case(name, hyps, refs):
        """refs has a list of references for each sentence."""
        streams = [[r[k] if k < len(r) else None for r in refs] for k in range(max(map(len, refs)))]
        for lower in (False, True):
            b = BLEU(lowercase=lower).corpus_score(hyps, streams)
            c = CHRF(lowercase=lower).corpus_score(hyps, streams)
            cases.append({"name": name, "lower": lower, "translations": hyps, "references": refs, "bleu": b.score, "matches": b.counts,
                          "totals": b.totals, "precisions": b.precisions, "brevity": b.bp, "length": b.sys_len,
                          "reference_length": b.ref_len, "text": b.format(width=2), "chrf": c.score})

    long = [sentence(rng.randint(3, 20)) for _ in range(40)]
    case("corpus", [near(s) for s in long], [[s] for s in long])
    case("references", [near(s) for s in long], [[near(s) for _ in range(rng.randint(1, 3))] for s in long])
    case("short", [" ".join(near(s).split()[:4]) for s in long], [[s] for s in long])
    case("nothing right", ["x y z w v"], [["a b c d e"]])
    case("no run of four", ["a b c", "d"], [["a b c d", "d"]] + [["d e"]])
    case("one word", ["cat"], [["cat"]])
    case("no match of four", ["the cat sat on a mat today"], [["the cat sat under a mat yesterday"]])
    case("empty translations", ["", ""], [["a b"], ["c d e"]])
    case("tricky", TRICKY, [[s.swapcase()] for s in TRICKY])
    case("tricky, exact", TRICKY, [[s] for s in TRICKY])

    tokens = BLEU()._preprocess_segment
    lowered = BLEU(lowercase=True)._preprocess_segment
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "w") as f:
        json.dump({"cases": cases, "tokens": [{"text": s, "tokens": tokens(s), "lower": lowered(s)} for s in TRICKY]}, f, indent=0, ensure_ascii=False)
        f.write("\n")


if __name__ == "__main__":
    main()
