"""References for speech: features from librosa, sound files from libsndfile, error counts from jiwer.

    pip install librosa jiwer      (librosa 0.11 with soundfile 0.14, jiwer 4.0)
    python3 internal/golden/gen/speech.py
"""
import json
import os
import sys

sys.dont_write_bytecode = True  # leave nothing beside the scripts

import jiwer
import librosa
import numpy as np
import soundfile

import tensors

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir, os.pardir)


def signal(rate, n, rng):
    """A rising tone in noise with a click and some silence, in steps of 16 bits."""
    t = np.arange(n) / rate
    x = 0.3 * np.sin(2 * np.pi * (200 * t + 0.2 * rate * t * t / (n / rate))) + 0.02 * rng.standard_normal(n)
    x[n // 3] = 0.9
    x[n // 2 : n // 2 + n // 10] = 0
    return (np.round(x * 32768) / 32768).astype(np.float32)


def features():
    rng = np.random.default_rng(1)
    settings, arrays = {}, {}
    for name, rate, window, hop, bands, mfcc, pre in (
        ("logmel", 16000, 400, 160, 80, 0, 0.0),
        ("logmel,8kHz", 8000, 200, 80, 40, 0, 0.0),
        ("mfcc", 16000, 400, 160, 40, 13, 0.0),
        ("mfcc,22kHz,preemphasis", 22050, 551, 220, 26, 20, 0.97),
        ("long window", 8000, 700, 350, 80, 0, 0.0),
    ):
        x = signal(rate, int(rate * 0.3) + 77, rng)
        y = x.astype(np.float64)
        if pre:
            y = np.append(y[:1], y[1:] - pre * y[:-1])
        size = 512
        while size < window:
            size *= 2
        mel = librosa.feature.melspectrogram(y=y, sr=rate, n_fft=size, win_length=window, hop_length=hop, n_mels=bands,
                                             center=True, pad_mode="constant", power=2.0, dtype=np.float64)
        out = np.log(np.maximum(mel, 1e-10))
        if mfcc:
            out = librosa.feature.mfcc(S=out, n_mfcc=mfcc)
        out = out[:, : 1 + (len(x) - 1) // hop]
        settings[name] = json.dumps({"Rate": rate, "Window": window, "Hop": hop, "Bands": bands, "MFCC": mfcc, "Preemphasis": pre})
        arrays[name + "/x"] = x
        arrays[name + "/y"] = np.ascontiguousarray(out.T.astype(np.float32))
    tensors.write(os.path.join(ROOT, "audio", "testdata", "features.safetensors"), settings, arrays)


def files():
    """Sound files written by libsndfile, and what it reads back, averaged over channels."""
    rng = np.random.default_rng(4)
    folder = os.path.join(ROOT, "audio", "testdata")
    settings, arrays = {}, {}
    for name, kind, subtype, channels, rate in (
        ("u8.wav", "WAV", "PCM_U8", 1, 8000), ("s16.wav", "WAV", "PCM_16", 2, 16000), ("s24.wav", "WAV", "PCM_24", 1, 44100),
        ("s32.wav", "WAV", "PCM_32", 1, 48000), ("float.wav", "WAV", "FLOAT", 2, 16000), ("double.wav", "WAV", "DOUBLE", 1, 11025),
        ("ulaw.wav", "WAV", "ULAW", 1, 8000), ("alaw.wav", "WAV", "ALAW", 2, 8000), ("extensible.wav", "WAVEX", "PCM_24", 3, 96000),
        ("extensible_float.wav", "WAVEX", "FLOAT", 1, 22050), ("rf64.wav", "RF64", "PCM_16", 1, 16000),
        ("s16.flac", "FLAC", "PCM_16", 2, 16000), ("s24.flac", "FLAC", "PCM_24", 1, 44100), ("s8.flac", "FLAC", "PCM_S8", 1, 8000),
    ):
        x = np.clip(rng.standard_normal((120, channels)) * 0.4, -1, 1)
        path = os.path.join(folder, name)
        soundfile.write(path, x, rate, format=kind, subtype=subtype)
        y, got = soundfile.read(path, always_2d=True)
        assert got == rate
        settings[name] = json.dumps({"Rate": rate, "Channels": channels})
        arrays[name + "/y"] = y.mean(1).astype(np.float32)
    tensors.write(os.path.join(folder, "files.safetensors"), settings, arrays)


def deltas():
    rng = np.random.default_rng(2)
    settings, arrays = {}, {}
    for name, frames, width in (("plain", 30, 13), ("short", 3, 4), ("one", 1, 2)):
        x = rng.standard_normal((frames, width)).astype(np.float32)

        def slope(a):
            return librosa.feature.delta(np.pad(a.astype(np.float64), ((8, 8), (0, 0)), "edge"), width=5, axis=0, mode="nearest")

        padded = slope(x)
        # The second order is taken of the first one's own frames, its ends repeated.
        first = padded[8:-8]
        settings[name] = "{}"
        arrays[name + "/x"] = x
        arrays[name + "/y"] = np.concatenate([x, first, slope(first)[8:-8]], 1).astype(np.float32)
    tensors.write(os.path.join(ROOT, "speech", "testdata", "deltas.safetensors"), settings, arrays)


def errors():
    rng = np.random.default_rng(3)
    cases = []
    words = ["a", "b", "c", "dd", "e"]
    pairs = [("the cat sat", "the cat sat"), ("the cat sat", "cat sat down"), ("a b c d", ""), ("a", "b c d e"), ("one two three", "one too three four")]
    for _ in range(60):
        ref = rng.choice(words, rng.integers(1, 9))
        hyp = rng.choice(words, rng.integers(0, 9))
        if rng.random() < 0.5:
            hyp = [w for w in ref if rng.random() < 0.8]
        pairs.append((" ".join(ref), " ".join(hyp)))
    for ref, hyp in pairs:
        w, c = jiwer.process_words(ref, hyp), jiwer.process_characters(ref, hyp)
        cases.append({"reference": ref, "hypothesis": hyp,
                      "words": [w.hits, w.substitutions, w.deletions, w.insertions],
                      "characters": [c.hits, c.substitutions, c.deletions, c.insertions],
                      "wer": w.wer, "cer": c.cer})
    total = jiwer.process_words([r for r, _ in pairs], [h for _, h in pairs])
    path = os.path.join(ROOT, "task", "transcribe", "testdata", "errors.json")
    with open(path, "w") as f:
        json.dump({"cases": cases, "wer": total.wer, "cer": jiwer.cer([r for r, _ in pairs], [h for _, h in pairs])}, f, indent=0)
    print(f"errors.json: {len(cases)} cases")


features()
files()
deltas()
errors()
