"""Prints random tokenizers and what Hugging Face's tokenizers or SentencePiece make of hard texts with them.

    python3 internal/golden/gen/text_random.py SEED COUNT TEXTS [tokenizers|sentencepiece]

One JSON object for each: its file (for a SentencePiece model in base64), the texts, their ids, and the text that the ids decode to.
text/random_test.go asks it for new ones with CAROUSEL_TOKENIZERS_PYTHON; text/testdata/random.jsonl.gz holds a few.
"""
import base64
import io
import json
import random
import re
import sys
import unicodedata

import sentencepiece
from tokenizers import Tokenizer, models, trainers

import text_tokens as gen

# Characters that all versions of Unicode in use agree on, from all planes.
OLD = unicodedata.ucd_3_2_0
SAMPLES = [chr(c) for c in range(1, 0x30000) if OLD.category(chr(c)) not in ("Cn", "Cs") and not 0xE000 <= c <= 0xF8FF]
LATIN = [chr(c) for c in range(1, 0x250)]
WORDS = ["the", " the", "The", "dog", "word", "Word", "<s>", "<mask>", "<sep>", "``", "''", "\u2581", " ", "  ", "\n", "\r\n", "\t", "\u0301", "e\u0301",
         "\u4e16\u754c", "\u3002", "x\u00b2", "\u00bd", "\u0130", "\ufb01", "\u03a3", "1234", "3.14", "don't", "\U0001f469\u200d\U0001f469", "<0xE4>", "##", "</w>", "ab", "\u30bf\u30fc", "\u3042"]


def texts(rnd, n):
    out = list(gen.TEXTS)
    while len(out) < n:
        parts = []
        for _ in range(rnd.randint(1, 14)):
            pool = rnd.choice([SAMPLES, LATIN, WORDS, WORDS, WORDS])
            parts.append(rnd.choice(pool))
            if rnd.random() < 0.3:
                parts.append(" ")
        out.append("".join(parts))
    rnd.shuffle(out)
    return out[:n]


PATTERNS = [r"\w+", r"\d", r"\s", r"\W+", r"\D+", r"\S+", r"[\w]+", r"[^\w]+", r"[^\W]", r"[\s\d]", r"\p{L}+", r"\p{N}", r"[[:punct:]]", r"[[:alpha:]]+",
            r"[[:alnum:]]+", r"[[:space:]]+", r"[[:^upper:]]+", r"[^[:lower:]]", r"[[:graph:]]+", r"[[:print:]]", r"[[:word:]]+", r"[[:digit:]]", r"[[:blank:]]",
            r"[[:cntrl:]]", r"[[:xdigit:]]+", r"\h", r"\w|\d+", r" ?\p{L}+| ?[^\s\p{L}]+", r"a+?", r"\u00e9", r"[\s\S]", r"[^\S]+"]
BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")


def normalizer(rnd):
    more = [{"type": "Replace", "pattern": {"Regex": rnd.choice(PATTERNS)}, "content": rnd.choice(["", " ", "x"])},
            {"type": "Prepend", "prepend": rnd.choice(["\u2581", " ", "x"])}, {"type": "Replace", "pattern": {"String": "''"}, "content": "\""},
            {"type": "StripAccents"}, {"type": "NFKD"}]
    simple = [c for c in gen.NORMALIZERS if c["type"] not in ("Precompiled", "ByteLevel")]
    parts = [rnd.choice(simple + more) for _ in range(rnd.choice((0, 1, 1, 2, 3)))]
    return gen.seq("normalizers", *parts) if parts else None


def pre_tokenizer(rnd):
    more = [gen.split(rnd.choice(PATTERNS), rnd.choice(BEHAVIORS), rnd.random() < 0.5) for _ in range(10)] + [
        {"type": "UnicodeScripts"}] * 3 + [{"type": "FixedLength", "length": rnd.randint(1, 7)}] * 2 + [
        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": rnd.random() < 0.5}] * 3
    parts = [rnd.choice(gen.PRE_TOKENIZERS + more) for _ in range(rnd.choice((0, 1, 1, 1, 2, 3)))]
    return gen.seq("pretokenizers", *parts) if parts else None


def hugging_face(rnd):
    names = ["<pad>", "<unk>", "<s>", "</s>"]
    common = dict(special_tokens=names, show_progress=False)
    kind = rnd.choice(("bpe", "unigram", "wordpiece", "wordlevel"))
    parts = dict(normalizer=normalizer(rnd), pre_tokenizer=pre_tokenizer(rnd), decoder=rnd.choice(gen.DECODERS + [None]))
    if kind == "bpe":
        suffix, prefix = rnd.choice((None, None, "</w>")), rnd.choice((None, None, "##"))
        options = {k: v for k, v in (("end_of_word_suffix", suffix), ("continuing_subword_prefix", prefix)) if v}
        model = models.BPE(unk_token=rnd.choice(("<unk>", None)), fuse_unk=rnd.random() < 0.5, **options)
        trainer = trainers.BpeTrainer(vocab_size=rnd.randint(80, 400), limit_alphabet=rnd.randint(30, 200), **options, **common)
    elif kind == "unigram":
        model, trainer = models.Unigram(), trainers.UnigramTrainer(vocab_size=rnd.randint(150, 300), unk_token="<unk>", **common)
    elif kind == "wordpiece":
        model, trainer = models.WordPiece(unk_token="<unk>"), trainers.WordPieceTrainer(vocab_size=rnd.randint(120, 300), **common)
    else:
        model, trainer = models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(vocab_size=rnd.randint(50, 200), **common)
    j = gen.trained(model, trainer, **parts)
    for a in j["added_tokens"]:
        if a["content"] in ("<mask>", "<sep>", "word"):
            for flag in ("lstrip", "rstrip", "single_word", "normalized", "special"):
                a[flag] = rnd.random() < 0.4
    the = gen.added(rnd.choice(("The", "\u00c9", "x Y")), special=rnd.random() < 0.3, normalized=rnd.random() < 0.7)
    j["added_tokens"].append({"id": 0, **the})
    gen.number(j)
    if kind == "bpe" and rnd.random() < 0.3:
        j["model"]["ignore_merges"] = True
    return j


def sentence_piece(rnd, kind):
    out = io.BytesIO()
    defined = rnd.sample(["<sep>", "word", "  ", "\u4e16\u754c", "x", "\u3002\u3002", "a b", "e\u0301", "\u2581the"], rnd.randint(0, 4))
    control = rnd.sample(["<cls>", "<mask>"], rnd.randint(0, 2))
    sentences = [re.sub(r"[\x00\n]", " ", t) for t in gen.CORPUS if t.strip()]
    options = dict(
        byte_fallback=rnd.random() < 0.5, treat_whitespace_as_suffix=rnd.random() < 0.4, add_dummy_prefix=rnd.random() < 0.7,
        remove_extra_whitespaces=rnd.random() < 0.6, character_coverage=rnd.choice((0.9, 0.98, 1.0)), split_by_whitespace=rnd.random() < 0.8)
    if kind == "bpe":
        options["allow_whitespace_only_pieces"] = rnd.random() < 0.5
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=out, minloglevel=2, hard_vocab_limit=False, num_threads=1, model_type=kind, pad_id=3,
        normalization_rule_name="identity", user_defined_symbols=defined, control_symbols=control,
        vocab_size=rnd.randint(150, 300) + 256 * options["byte_fallback"], **options)
    return out.getvalue(), {"kind": kind, "defined": defined, **options}


def main(seed, count, n, which="both"):
    made = 0
    for k in range(20 * count):
        if made == count:
            break
        rnd = random.Random("%s/%d" % (seed, k))
        inputs = texts(rnd, n)
        if which == "tokenizers" or which == "both" and k % 2:
            try:
                file = json.dumps(hugging_face(rnd), separators=(",", ":"))
                answers = gen.answers(Tokenizer.from_str(file), inputs, False)
            except BaseException:  # a combination that the library refuses, or fails at
                continue
            row = {"file": file}
        else:
            try:
                model, about = sentence_piece(rnd, ("char", "word", "unigram", "bpe")[made // 2 % 4 if which == "both" else made % 4])
            except RuntimeError:
                continue
            answers = gen.sp_answers(model, inputs)
            row = {"model": base64.b64encode(model).decode(), "about": json.dumps(about, ensure_ascii=False)}
        row.update(texts=inputs, ids=[a["ids"] for a in answers], decoded=[a["text"] for a in answers])
        print(json.dumps(row, separators=(",", ":")))
        made += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
