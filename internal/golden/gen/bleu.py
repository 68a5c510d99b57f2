"""Scores of translations as sacreBLEU gives them: BLEU with each tokenizer, chrF and chrF++, and how it cuts words.

Apart from the others: it needs the package sacrebleu (2.6.0) and no PyTorch, and writes
task/translate/testdata/bleu.json.
"""
import json
import os
import random

from sacrebleu.metrics import BLEU, CHRF

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 3, "task", "translate", "testdata", "bleu.json")

TRICKY = [
    "", " ", "Hello, world!", "It's 3.14 or 1,000.5 (about) -- isn't it?", "1990-2000, A-1, 5-", "a.b,c .d ,e", "x&quot;y&quot; &amp;lt; &lt;b&gt;",
    "<skipped>word", "\"quoted\" `back` {curly} [square] ~tilde ^hat $5 #1 50% a/b c\\d e_f @home", "İstanbul ΣΊΣΥΦΟΣ ΟΔΟΣ Straße ÄÖÜ",
    "我爱你。 東京タワー", "non\u00a0breaking\u2009thin\u3000wide\x1cfile", "trailing space  ", "...", ",", "3.", ".5", "a,1", "1,a", "’s “curly” – dash…",
    "line-\nbroken line\nend", "tab\tbed", "👍🏽 ok", "2-3 2.-3 2.5-3", "A.B.C. U.S.A.",
]

TOKENIZERS = ["13a", "intl", "zh", "char", "none"]

SCRIPTS = [
    "我爱你中国人民北京大学自然语言处理龦龽㐀𠀀豈⺀⼀", "、。，！？「」『』《》〈〉（）：；…—～％", "東京タワーは高いです。ひらがなカタカナｶﾅー々", "ไทยภาษาเขียนติดกันไม่มีช่องว่าง", "ພາສາລາວ", "ភាសាខ្មែរ", "မြန်မာစာ",
    "abcXYZ éÄßñİı", "ДжжЩ ", "العربية،؟", "한국어말 ", "०१२٣۴๓３½²Ⅷ0123456789", "-.,'\"!?&<>()[]{}/\\|@#$%^*_+=~`", "“”‘’–—«»¿¡†‡•‰′″‹›⁄₤€№™←↑∑√∞≠☀★✓➔❤", "👍🏽🇩🇪👨‍👩‍👧", "  \u00a0\u3000\u2009\u200b\u2028\x1c\t", "⠀⠁⣿⩀⩭⩮⪀⾁⾡⿠⿰",
]


def hostile(rng, n):
    """A sentence of a few scripts, from words of their characters."""
    some = rng.sample(SCRIPTS, rng.randint(1, 4))
    return "".join("".join(rng.choice(rng.choice(some) if rng.random() < 0.2 else some[0]) for _ in range(rng.randint(1, 6))) + rng.choice(["", " ", " "]) for _ in range(n))


def damaged(rng, s):
    """A sentence with some characters left out, changed or exchanged."""
    out = [c if rng.random() > 0.1 else rng.choice(rng.choice(SCRIPTS)) for c in s if rng.random() > 0.1]
    if len(out) > 4 and rng.random() < 0.4:
        i = rng.randrange(len(out) - 2)
        out[i:i + 2] = reversed(out[i:i + 2])
    return "".join(out)


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

    def case(name, hyps, refs, tokenizers=("13a",)):
        """refs has a list of references for each sentence."""
        streams = [[r[k] if k < len(r) else None for r in refs] for k in range(max(map(len, refs)))]
        for tokenizer in tokenizers:
            for lower in (False, True):
                b = BLEU(lowercase=lower, tokenize=tokenizer).corpus_score(hyps, streams)
                c = CHRF(lowercase=lower).corpus_score(hyps, streams)
                cpp = CHRF(lowercase=lower, word_order=2).corpus_score(hyps, streams)
                cases.append({"name": name, "lower": lower, "tokenizer": tokenizer, "translations": hyps, "references": refs, "bleu": b.score,
                              "matches": b.counts, "totals": b.totals, "precisions": b.precisions, "brevity": b.bp, "length": b.sys_len,
                              "reference_length": b.ref_len, "text": b.format(width=2), "chrf": c.score, "chrf_plus_plus": cpp.score})

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

    case("words and signs", ["(hi) 'a' b. c, d d e!", "x"], [["(hi) a b c, d e!", "x y"]] + [["x."]])
    for i in range(6):
        corpus = [hostile(rng, rng.randint(1, 12)) for _ in range(6)]
        case("scripts %d" % i, [damaged(rng, s) for s in corpus], [[s] + [damaged(rng, s)] * (i % 2) for s in corpus], TOKENIZERS)

    def tokens(text):
        return {t: {case: BLEU(tokenize=t, lowercase=case == "lower")._preprocess_segment(text).split() for case in ("mixed", "lower")} for t in TOKENIZERS}

    hard = TRICKY + [hostile(rng, 6) for _ in range(12)]
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "w") as f:
        json.dump({"cases": cases, "tokens": [{"text": s, "tokens": tokens(s)} for s in hard]}, f, indent=0, ensure_ascii=False)
        f.write("\n")


if __name__ == "__main__":
    main()
