"""Writes text/testdata: tokenizers and what they make of hard texts.

    python3 internal/golden/gen/text_tokens.py

Needs Hugging Face's tokenizers (0.23) and sentencepiece (0.2), and no PyTorch. Two files hold the answers:

components.json: single normalizers, pre-tokenizers and decoders with what each makes of the texts.
tokenizers.json: whole tokenizers; the tokenizer itself lies beside it, as NAME.json or NAME.model. Some of the
trainers are not deterministic, so a second run may write other tokenizers, with the answers that fit them. Spans count bytes;
they are left out for unigram_bytes, where the library gives bytes the span of all unknown characters around them, and
several spaces that become one the span of the last.
"""
import base64
import io
import json
import os
import re

import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, os.pardir, os.pardir, os.pardir, "text", "testdata")

TEXTS = [
    "", " ", "  ", "\n", "a", " a", "a ", "Hello, world!",
    "  two  spaces\tand\na line\r\n\r\n  end  ",
    "don't stop: it's 3.14, 1,000.5 and o\u2019clock' I'LL we'Ve",
    "\u6211\u7231\u81ea\u7136\u8bed\u8a00\u5904\u7406\u3002\u4f60\u5462\uff1f abc\u4e2d\u6587",
    "\u6771\u4eac\u30bf\u30ef\u30fc\u306b\u884c\u304d\u307e\u3057\u305f\u3002\uff76\uff9e\uff11\uff21",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22\u0e44\u0e21\u0e48\u0e21\u0e35\u0e0a\u0e48\u0e2d\u0e07\u0e27\u0e48\u0e32\u0e07",
    "na\u00efve caf\u00e9 \u0130stanbul \u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3 stra\u00dfe \u01c5",
    "e\u0301 \u00e9 \ufb01 \u2460 \uff21 \u212b \u1e9b\u0323 \uac00\u1100\u1161\u11a8",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea 1\ufe0f\u20e3 \U00010400",
    "\x00\x01a\u200bb\u00a0c\u3000d\ufeffe\x7ff\x85g\u2028h\u00adi\ue000j\u0378",
    "<s>special</s> <mask> x<mask>y  <mask>  z <sep>word<sep> wordy word Word <unk><pad>",
    "snake_case x=y+z http://a.b/c?d=e&f=%20#g \u20ac5 $3 a^b `c` ~ \u00ab q \u00bb \u2014 \u2026 \u00a7 \u00b2 \u2167 \u00bd",
    "the quick brown fox jumps over the lazy dog. The dog barks; the fox runs away!",
    "banananananana bananas ababababa aaaaaaaaaaaaaaa mississippi",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0643\u062a\u0627\u0628 \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u0663\u0664",
    "\u2581under\u2581bar \u2581 \u2581\u2581x",
    "0123456789 12a34 a1b2 1.2.3 -5 +7",
    "      six\n\n\nlines\t\ttabs \n mixed \t\n",
]

CORPUS = [t for t in TEXTS if "<s>" not in t for _ in range(2)] + [
    "the quick brown fox jumps over the lazy dog", "the dog and the fox are friends of the lazy cat",
    "banana bananas and an anagram", "mississippi is missing a missive", "it's what it's not, isn't it?",
    "\u6211\u7231\u4f60 \u4f60\u7231\u6211 \u8bed\u8a00\u5904\u7406", "numbers 1234 5678 12 34 and 1,000",
] * 3

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def split(pattern, behavior, invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def seq(key, *parts):
    return {"type": "Sequence", key: list(parts)}


NORMALIZERS = [{"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel")] + [
    {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
    {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": False, "strip_accents": True, "lowercase": False},
    {"type": "BertNormalizer", "clean_text": False, "handle_chinese_chars": True, "strip_accents": False, "lowercase": True},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Strip", "strip_left": True, "strip_right": False},
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"},
    {"type": "Replace", "pattern": {"String": "``"}, "content": "\""},
    {"type": "Prepend", "prepend": "\u2581"},
    {"type": "Precompiled", "precompiled_charsmap": "CHARSMAP"},
    seq("normalizers", {"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}),
]

PRE_TOKENIZERS = [
    {"type": "ByteLevel", "add_prefix_space": p, "trim_offsets": True, "use_regex": r} for p in (True, False) for r in (True, False)
] + [{"type": t} for t in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")] + [
    {"type": "CharDelimiterSplit", "delimiter": "a"},
    {"type": "Digits", "individual_digits": True}, {"type": "Digits", "individual_digits": False},
    seq("pretokenizers", split(CL100K, "Isolated"), {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}),
    split(CLIP, "Removed", True), split(r"[\s\S]", "Isolated"), split(BLOOM, "Isolated"),
    split("an", "Isolated", kind="String"),
    seq("pretokenizers", {"type": "Whitespace"}, {"type": "Digits", "individual_digits": True}),
    seq("pretokenizers", {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}),
] + [
    {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": p, "split": s} for p in ("always", "first", "never") for s in (True, False)
] + [
    {"type": "Punctuation", "behavior": b} for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
] + [
    split(r"\s", b, i) for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous") for i in (False, True)
]

DECODERS = [{"type": t} for t in ("ByteFallback", "Fuse")] + [
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "WordPiece", "prefix": "##", "cleanup": False},
    {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
    {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": True},
    {"type": "BPEDecoder", "suffix": "</w>"},
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "Strip", "content": "a", "start": 2, "stop": 0},
    seq("decoders", {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}),
]

TOKEN_LISTS = [
    [], ["a"], ["\u2581Hello", "\u2581wor", "ld", "\u2581\u2581", "!"], ["un", "##aff", "##able", ".", "do", "not", "n't", "'", "s"],
    ["<0xE4>", "<0xBD>", "<0xA0>", "x", "<0xE4>", "<0xBD>", "y", "<0xFF>"], ["hel", "lo</w>", "world</w>", "</w>"],
    ["\u0120Hello", "\u00e4\u00bd", "\u0142", "\u00e4", "x\u4f60", "\u010a"], [" a", "  aab aa", "", "a a"],
]


def build(**parts):
    """A tokenizer of the given components."""
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": None, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}}
    base.update(parts)
    return Tokenizer.from_str(json.dumps(base))


def components(charsmap):
    cases = []
    for c in NORMALIZERS:
        t = build(normalizer=json.loads(json.dumps(c).replace("CHARSMAP", charsmap)))
        cases.append({"kind": "normalizer", "json": c, "out": [t.normalizer.normalize_str(s) for s in TEXTS]})
    for c in PRE_TOKENIZERS:
        t = build(pre_tokenizer=c)
        cases.append({"kind": "pre_tokenizer", "json": c, "out": [[p for p, _ in t.pre_tokenizer.pre_tokenize_str(s)] for s in TEXTS]})
    for c in DECODERS:
        t = build(decoder=c)
        cases.append({"kind": "decoder", "json": c, "out": [t.decoder.decode(list(l)) for l in TOKEN_LISTS]})
    return cases


def added(content, **flags):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **flags}


ADDED = [added("<pad>"), added("<unk>"), added("<s>"), added("</s>"), added("<mask>", lstrip=True),
         added("<sep>", rstrip=True), added("word", single_word=True, special=False, normalized=True)]


def number(j):
    """Gives the added tokens their ids: those in the vocabulary, or the next free ones."""
    vocab = j["model"]["vocab"]
    known = dict(vocab) if isinstance(vocab, dict) else {w: i for i, (w, _) in enumerate(vocab)}
    free = len(vocab)
    for a in j["added_tokens"]:
        a["id"] = known.get(a["content"], free)
        free += a["id"] == free
    j["added_tokens"].sort(key=lambda a: a["id"])


def trained(model, trainer, **parts):
    """Trains a model on the corpus and gives the whole tokenizer, with the added tokens, as JSON."""
    t = build(**parts)
    t.model = model
    t.train_from_iterator(CORPUS, trainer)
    j = json.loads(t.to_str())
    j["added_tokens"] = [{"id": 0, **a} for a in ADDED]
    number(j)
    return j


def hugging_face(charsmap):
    """The whole tokenizers, by name."""
    names = ["<pad>", "<unk>", "<s>", "</s>"]
    bpe = dict(vocab_size=420, special_tokens=names, show_progress=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    meta = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    byte_tokens = ["<0x%02X>" % b for b in range(256)]
    all_tokens = {}
    all_tokens["bpe_gpt2"] = trained(models.BPE(), trainers.BpeTrainer(initial_alphabet=alphabet, **bpe), pre_tokenizer=level, decoder=level)
    all_tokens["bpe_roberta"] = trained(
        models.BPE(), trainers.BpeTrainer(initial_alphabet=alphabet, **bpe), pre_tokenizer={**level, "add_prefix_space": True}, decoder=level)
    j = trained(models.BPE(), trainers.BpeTrainer(initial_alphabet=alphabet, **bpe), decoder=level, pre_tokenizer=PRE_TOKENIZERS[10])
    j["model"]["ignore_merges"] = True
    all_tokens["bpe_llama3"] = j
    all_tokens["bpe_clip"] = trained(
        models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), trainers.BpeTrainer(end_of_word_suffix="</w>", **bpe),
        normalizer=seq("normalizers", {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}, {"type": "Lowercase"}),
        pre_tokenizer=split(CLIP, "Removed", True), decoder={"type": "BPEDecoder", "suffix": "</w>"})
    all_tokens["bpe_prefix"] = trained(
        models.BPE(unk_token="<unk>", continuing_subword_prefix="##"), trainers.BpeTrainer(continuing_subword_prefix="##", limit_alphabet=60, **bpe),
        pre_tokenizer={"type": "Whitespace"}, decoder={"type": "WordPiece", "prefix": "##", "cleanup": False})
    j = trained(models.BPE(unk_token="<unk>", fuse_unk=True), trainers.BpeTrainer(
        **{**bpe, "vocab_size": 600, "special_tokens": names + byte_tokens, "limit_alphabet": 70}), pre_tokenizer=meta)
    j["model"]["byte_fallback"] = True
    j["normalizer"] = seq("normalizers", {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})
    j["pre_tokenizer"] = None
    j["decoder"] = DECODERS[-1]
    j["added_tokens"][-1]["normalized"] = False  # this version decodes a normalized one in its normalized form
    all_tokens["bpe_llama2"] = j
    j = json.loads(json.dumps(j))
    j["model"]["byte_fallback"] = False
    kept = sorted((i, w) for w, i in j["model"]["vocab"].items() if w not in byte_tokens)
    j["model"]["vocab"] = {w: i for i, (_, w) in enumerate(kept)}
    number(j)
    all_tokens["bpe_fused"] = j
    all_tokens["wordpiece"] = trained(
        models.WordPiece(unk_token="<unk>", max_input_chars_per_word=12), trainers.WordPieceTrainer(vocab_size=300, special_tokens=names, show_progress=False),
        normalizer=NORMALIZERS[8], pre_tokenizer={"type": "BertPreTokenizer"}, decoder=DECODERS[3])
    uni = trainers.UnigramTrainer(vocab_size=300, special_tokens=names, unk_token="<unk>", show_progress=False)
    all_tokens["unigram"] = trained(models.Unigram(), uni, normalizer={"type": "NFKC"}, pre_tokenizer=meta, decoder=meta)
    j = trained(models.Unigram(), uni, normalizer=seq("normalizers", {"type": "Nmt"}, {"type": "NFKC"}, NORMALIZERS[16]),
                pre_tokenizer={**meta, "prepend_scheme": "first"}, decoder=meta)
    j["model"]["vocab"] = [p for p in j["model"]["vocab"] if len(p[0]) != 1 or ord(p[0]) < 0x500] + [[t, -12.0] for t in byte_tokens]
    j["model"]["byte_fallback"] = True
    number(j)
    all_tokens["unigram_bytes"] = j
    all_tokens["wordlevel"] = trained(
        models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(vocab_size=150, special_tokens=names, show_progress=False),
        normalizer=NORMALIZERS[-1], pre_tokenizer={"type": "Whitespace"})
    return all_tokens


def byte_spans(text, offsets):
    at = [0]
    for c in text:
        at.append(at[-1] + len(c.encode()))
    return [[at[a], at[b]] for a, b in offsets]


SENTENCEPIECE = {
    "sp_unigram": dict(model_type="unigram", normalization_rule_name="nmt_nfkc", vocab_size=300, user_defined_symbols=["<sep>", "word"]),
    "sp_bpe": dict(model_type="bpe", normalization_rule_name="identity", vocab_size=300),
    "sp_bpe_bytes": dict(model_type="bpe", normalization_rule_name="identity", vocab_size=560, byte_fallback=True, remove_extra_whitespaces=False,
                         allow_whitespace_only_pieces=True, user_defined_symbols=["<sep>", "  "]),
    "sp_unigram_bytes": dict(model_type="unigram", normalization_rule_name="identity", vocab_size=520, byte_fallback=True,
                             add_dummy_prefix=False),
    "sp_suffix": dict(model_type="unigram", normalization_rule_name="identity", vocab_size=260, treat_whitespace_as_suffix=True),
    "sp_word": dict(model_type="word", normalization_rule_name="identity", vocab_size=100),
    "sp_char": dict(model_type="char", normalization_rule_name="identity", vocab_size=100),
}


def sentence_pieces():
    """The SentencePiece models as bytes, by name."""
    made = {}
    sentences = [re.sub(r"[\x00\n]", " ", t) for t in CORPUS if t.strip()]
    for name, options in SENTENCEPIECE.items():
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences), model_writer=out, minloglevel=2, hard_vocab_limit=False, num_threads=1,
            pad_id=3, **{"character_coverage": 0.98, **options})
        made[name] = out.getvalue()
    return made


def field(message, number):
    """The bytes of a field of a protobuf message."""
    def varint(i):
        value, shift = 0, 0
        while True:
            value |= (message[i] & 127) << shift
            if message[i] < 128:
                return value, i + 1
            i, shift = i + 1, shift + 7

    i = 0
    while i < len(message):
        tag, i = varint(i)
        if tag & 7 == 2:
            n, i = varint(i)
            if tag >> 3 == number:
                return message[i:i + n]
            i += n
        elif tag & 7 == 0:
            _, i = varint(i)
        else:
            i += {1: 8, 5: 4}[tag & 7]
    return b""


def charsmap_of(model):
    """The normalization rules of a SentencePiece model, in base64."""
    return base64.b64encode(field(field(model, 3), 2)).decode()


def answers(t, texts, spans):
    out = []
    for s in texts:
        e = t.encode(s, add_special_tokens=False)
        out.append({"ids": e.ids, "text": t.decode(e.ids)})
        if spans:
            out[-1]["spans"] = byte_spans(s, e.offsets)
    return out


def sp_answers(model, texts):
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    out = []
    for s in texts:
        ids = sp.encode(s)
        known = [i for i in ids if not sp.is_unknown(i)]
        out.append({"ids": ids, "text": sp.decode(known)})
    return out


def write(name, value):
    with open(os.path.join(OUT, name), "w") as f:
        json.dump(value, f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")


def main():
    os.makedirs(OUT, exist_ok=True)
    sps = sentence_pieces()
    charsmap = charsmap_of(sps["sp_unigram"])
    write("components.json", {"texts": TEXTS, "tokens": TOKEN_LISTS, "cases": components(charsmap)})
    golden = {"corpus": CORPUS, "texts": TEXTS, "answers": {}}
    for name, j in hugging_face(charsmap).items():
        write(name + ".json", j)
        golden["answers"][name + ".json"] = answers(Tokenizer.from_str(json.dumps(j)), TEXTS, name != "unigram_bytes")
    for name, model in sps.items():
        with open(os.path.join(OUT, name + ".model"), "wb") as f:
            f.write(model)
        golden["answers"][name + ".model"] = sp_answers(model, TEXTS)
    write("tokenizers.json", golden)


if __name__ == "__main__":
    main()
