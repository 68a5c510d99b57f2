"""Prints regular expressions and what Hugging Face's tokenizers, which match them with Oniguruma, make of texts with them.

    pip install tokenizers sentencepiece
    python3 internal/golden/gen/text_regex.py SEED COUNT

One JSON object for each: the expression; the texts; their pieces by the pre-tokenizer Split, with a behavior; and the texts with each match replaced by <>,
in which empty matches show. The expressions of FIXED come first, and then COUNT random ones. text/regex_test.go reads the output:
`text_regex.py 1 600 | gzip -9n > text/testdata/regex.jsonl.gz` writes the stored one, and `make peers` asks for more.
"""
import json
import random
import sys

from tokenizers import Regex, normalizers, pre_tokenizers

import text_tokens as gen

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TIKTOKEN = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

FIXED = [
    GPT2, gen.CL100K, QWEN, TIKTOKEN, O200K, DEEPSEEK, gen.BLOOM, gen.CLIP,
    r"\b", r"\B", r"\b\w", r"\w\b", r"\B\w", r"\b\d+\b", r"(?<!\w)\b.", r"[^\b]\b ", r"\bthe\b|\Bn\B", r"(?i)\bthe\b",
    r"(?=\w)", r"(?=\w)\w{2}", r"(?!\s).", r"(?<=\s)\S+", r"(?<!\S)\S", r"(?<=a+)b", r"(?<=an|[0-9]{2})\w", r"(?<=^|,)\w", r"(?<=(?<=a)n)a", r"(?<!^)\p{Lu}",
    r"(?<=(?:a|bc)*n)a", r"(?<=\b)\w", r"\w(?=\w*\d)", r"\w+(?=\b)", r"(?=.*fox)\w+", r"(?<![a-z])a(?![a-z])", r"(?=(?!\d)\w)\w+",
    r"a++", r"a++n", r"(?:an)++a", r"(?:an)*+", r"\w*+", r"\w?+\w", r"(?>an|ana)n", r"(?>a|an)n", r"(?>\w+) ", r"(?>a?)*b", r"\d{1,3}+", r"a{2}+", r"a{3,1}", r"a{3,1}a",
    r"a+?", r"a*?", r"a??", r"a+?n", r"\w{2,3}?", r"\w{2}?", r"\w{2,}?\b", r"(?:a|n)*?a", r"a{,2}", r"a{2,}", r"a{0}b", r"a{", r"a{,}", r"{", r"a{1,b}", r"x{ 1}",
    r"(a+)+", r"(?:\w+\s?)*", r"(?:a*)*", r"(?:a|)+", r"(?:|a)+", r"(?:|a)*n", r"(?:a*|b)*", r"(?:a*?)*n", r"(?:a??|n)*", r"(?:(?:a|)*n?)*", r"(|a){2}n", r"(?:a?){3}n",
    r"(?:a+)?", r"(?:a+?)*", r"(?:a*)+?", r"(?:a??)+", r"a**", r"a+*", r"a*??", r"(?:a{2}){2}", r"a{2}{2}", r"(?:a{1,2}){2,3}",
    r"", r"()", r"a|", r"|a", r"^", r"$", r"^.", r".$", r"\A.", r".\z", r".\Z", r"\A", r"\z", r"\Z", r".", r"(?m).", r"(?m:.+)", r"^\s+|\s+$",
    r"(?i)the", r"(?i:T)he", r"(?i)[^a-m]+", r"a(?i)N|T", r"(?i)a(?-i)n", r"(?x) a n # a comment", r"(?mix-x:A .)", r"(?i)k", r"(?i)\u03c3", r"(?#a comment)an", r"a(?#x)*n",
    r"[a-n&&[^aeiou]]+", r"[[^a]b]+", r"[^a[n]]+", r"[]a]", r"[a-]+", r"[-a]+", r"[a-c-e]+", r"[a&&]", r"[^a&&n]", r"[ab&&bc]", r"[a-z&&b-n&&n]", r"[\w&&\W]", r"[\w&&[^\d]]+", r"[[:alpha:]&&[^a]]+",
    r"\p{Letter}+", r"\p{^L}+", r"\P{L}+", r"\P{^L}+", r"\p{lower case-letter}", r"\p{Han}+", r"\p{Latin}+", r"\p{Punct}", r"\p{Any}", r"\p{Alpha}+", r"\p{White_Space}", r"[\p{Lu}\P{L}]+", r"\p{Hiragana}|\p{Katakana}",
    r"\x41|\x{6c}|\u0065|\101", r"\t|\n|\e|\a|\f|\v", r"\R", r"\N+", r"\O+", r"\h+", r"\H+", r"\-|\_|\q|\'", r"(?<name>a)n", r"(?:(a)|(n))+",
]

ALPHABET = ["a", "b", "a", "b", "c", " ", " ", "\n", "1", "_", "\u00e9", "\u00b2", "\u6211", ".", "K", "\u0301"]


def text(rnd):
    return "".join(rnd.choice(ALPHABET) for _ in range(rnd.randint(0, 14)))


CHARS = ["a", "b", "a", "b", "c", " ", r"\n", "1", "_", "\u00e9", "\u00b2", "\u6211", r"\.", "K", "\u0301", r"\w", r"\W", r"\d", r"\s", r"\S", ".", r"\p{L}", r"\p{M}", r"\P{L}",
         "[ab]", "[^a]", "[^ab\\n]", "[a-c]", r"[\w&&[^a]]", r"[^\w]", "[[:upper:]_]", r"[\s\d]", r"\h", r"\p{Lu}", "[a[^b]]", r"[^\S ]", r"\R"]
PLACES = [r"\b", r"\B", r"\b", r"\B", "^", "$", r"\A", r"\z", r"\Z"]


def quantifier(rnd, behind):
    a, b = sorted((rnd.randint(0, 3), rnd.randint(0, 3)))
    q = rnd.choice(["*", "+", "?", "*", "+", "?", "{%d}" % a, "{%d,}" % a, "{,%d}" % b, "{%d,%d}" % (a, b), "{%d,%d}" % (a if behind else b, b if behind else a)])
    return q + rnd.choice(["", "", "", "?", "" if behind else "+"])  # possessive ones are not supported in look-behinds


def expression(rnd, depth, behind=False):
    kind = rnd.random()
    if depth == 0 or kind < 0.3:
        if rnd.random() < 0.12 and not behind:  # in one of varying length, Oniguruma takes its end for that of the text
            return rnd.choice(PLACES)
        atom = rnd.choice(CHARS if not behind else CHARS[:-1])
        return atom + (quantifier(rnd, behind) if rnd.random() < 0.4 else "")
    inner = lambda: expression(rnd, depth - 1, behind)
    if kind < 0.55:
        return inner() + inner()
    if kind < 0.65:
        return "(?:" + "|".join(inner() for _ in range(rnd.randint(1, 3))) + ")"
    if kind < 0.8:
        return rnd.choice(("(?:", "(")) + "|".join(inner() for _ in range(rnd.randint(1, 2))) + ")" + quantifier(rnd, behind)
    if kind < 0.84:
        return rnd.choice(("(?i:", "(?m:", "(?i-m:", "(?x:")) + inner() + ")"
    if kind < 0.86:
        return "(?:" + inner() + rnd.choice(("(?i)", "(?m)")) + inner() + "|" + inner() + ")"
    if kind < 0.89 and not behind:
        return "(?>" + inner() + "|" + inner() + ")"
    if kind < 0.94 and not behind:
        return rnd.choice(("(?=", "(?!")) + inner() + ")"
    if behind:  # where Oniguruma misjudges (?<!(?<!a?))
        return "(?<=" + inner() + ")"
    return rnd.choice(("(?<=", "(?<!")) + expression(rnd, min(depth - 1, 2), True) + ")"


def answers(expr, texts, behavior, invert):
    """None if the library refuses the expression, or gives up on a text."""
    try:
        split = pre_tokenizers.Split(Regex(expr), behavior, invert)
        replace = normalizers.Replace(Regex(expr), "<>")
        return {
            "pieces": [[p for p, _ in split.pre_tokenize_str(s)] for s in texts],
            "replaced": [replace.normalize_str(s) for s in texts],
        }
    except BaseException:  # a panic of the library is not an Exception
        return None


BEHAVIORS = {"removed": "Removed", "isolated": "Isolated", "merged_with_previous": "MergedWithPrevious", "merged_with_next": "MergedWithNext", "contiguous": "Contiguous"}


def show(expr, texts, behavior, invert):
    got = answers(expr, texts, behavior, invert)
    if got is None:
        return False
    print(json.dumps({"expr": expr, "behavior": BEHAVIORS[behavior], "invert": invert, "texts": texts, **got}, separators=(",", ":")))
    return True


def main(seed, count):
    for expr in FIXED:
        if not show(expr, [*gen.TEXTS, "anna banana naan", "\u00b2x x\u00b2 \u00bd", "a\nan\n\nana\n"], "isolated", False):
            raise SystemExit("refused: " + expr)
    rnd = random.Random(seed)
    made = 0
    while made < count:
        expr = "|".join(expression(rnd, rnd.randint(1, 4)) for _ in range(rnd.choice((1, 1, 2, 3))))
        made += show(expr, [text(rnd) for _ in range(12)], rnd.choice(list(BEHAVIORS)), rnd.random() < 0.3)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
