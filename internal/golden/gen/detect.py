"""What silero-vad and openWakeWord find in sounds.

    pip install --no-deps silero-vad openwakeword
    pip install numpy onnxruntime scikit-learn scipy tqdm requests packaging

    python3 internal/golden/gen/detect.py segments > audio/detect/testdata/segments.json

writes segments that silero-vad makes of random probabilities. It needs no model.

    python3 internal/golden/gen/detect.py answers MODELS DIR SPEECH.wav [MORE.wav...]

writes sounds made of SPEECH.wav, and MORE.wav such as words for the models, into DIR, and
what the ONNX models in the folder MODELS find in them. The files have 16 kHz, 16 bits and
one channel. With CAROUSEL_DETECT=DIR the tests of audio/detect
compare with that. PyTorch is not needed: silero-vad's rules work on plain numbers.
"""
import contextlib
import glob
import json
import os
import random
import sys
import types
import warnings
import wave

import numpy as np

try:
    import torch  # noqa: F401
except ImportError:
    fake = types.ModuleType("torch")
    fake.Tensor = object
    fake.device = lambda name: name
    fake.set_num_threads = lambda n: None

    class no_grad(contextlib.ContextDecorator):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

    fake.no_grad = no_grad
    sys.modules["torch"] = fake

from silero_vad.utils_vad import get_speech_timestamps_from_probs  # noqa: E402

WINDOW = {16000: 512, 8000: 256}


def segments(cases=240, seed=1):
    """Random probabilities, as runs of n windows with k/1024, and their segments."""
    rng = random.Random(seed)
    out = []
    for i in range(cases):
        rate = rng.choice([16000, 8000])
        runs = []
        for _ in range(rng.randint(0, 24)):
            level = rng.choice([0, 5, 200, 358, 359, 400, 511, 512, 700, 1024, rng.randint(0, 1024)])
            runs.append([rng.choice([1, 1, 2, 3, 4, 5, 8, 20, 60]), level])
        probabilities = [k / 1024 for n, k in runs for _ in range(n)]
        window = WINDOW[rate]
        length = max(0, len(probabilities) * window - rng.choice([0, 1, window // 2, window - 1]))
        options = {}
        if i % 3:
            options["threshold"] = rng.choice([0.5, 0.3, 0.7, 0.1, 1.0, 0.0])
            options["min_speech_duration_ms"] = rng.choice([250, 0, 32, 96, 1000])
            options["min_silence_duration_ms"] = rng.choice([100, 0, 32, 64, 200, 1000])
            options["speech_pad_ms"] = rng.choice([30, 0, 7, 48, 200, 600])
        if i % 3 == 2:
            options["max_speech_duration_s"] = rng.choice([0.5, 1, 2, 3, 5])
            options["min_silence_at_max_speech"] = rng.choice([98, 0, 40, 300])
            options["use_max_poss_sil_at_max_speech"] = rng.random() < 0.5
        if i % 5 == 4:
            options["neg_threshold"] = rng.choice([0.2, 0.35, 0.5])
        got = get_speech_timestamps_from_probs(probabilities, sampling_rate=rate, audio_length_samples=length, **options)
        out.append({"rate": rate, "length": length, "runs": runs, "options": options, "speech": [[s["start"], s["end"]] for s in got]})
    return out


def probabilities(path, samples, rate):
    """The probabilities of a model, as silero-vad's wrapper for ONNX computes them, or
    those of faster-whisper and, for version 4, of silero-vad 4."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {i.name: i.shape for i in session.get_inputs()}
    window = WINDOW[rate]
    old = "h" in inputs and inputs["h"][2] == 64
    context = np.zeros((1, 0 if old else window // 8), np.float32)
    feed = {}
    if "sr" in inputs:
        feed["sr"] = np.array(rate, np.int64)
    if "state" in inputs:
        feed["state"] = np.zeros((2, 1, 128), np.float32)
    for name in "hc":
        if name in inputs:
            feed[name] = np.zeros((2, 1, 64) if old else (1, 1, 128), np.float32)
    found = []
    for at in range(0, len(samples), window):
        piece = samples[at:at + window]
        piece = np.pad(piece, (0, window - len(piece)))[None]
        feed["input"] = np.concatenate([context, piece], 1)
        if not old:
            context = feed["input"][:, -context.shape[1]:]
        names = [o.name for o in session.get_outputs()]
        values = dict(zip(names, session.run(None, feed)))
        for state, after in (("state", "stateN"), ("h", "hn"), ("c", "cn")):
            if after in values:
                feed[state] = values[after]
        found.append(float(values[names[0]].reshape(-1)[0]))
    return found


def write(path, samples, rate):
    with wave.open(path, "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(rate)
        f.writeframes(samples.astype("<i2").tobytes())


def sounds(speech):
    """Sounds of 16 bits, by name, with their rates."""
    rng = np.random.default_rng(1)

    def noisy(x, level):
        return np.clip(x + rng.normal(0, level, len(x)), -32768, 32767).astype(np.int16)

    silence = np.zeros(16000, np.int16)
    tone = (8000 * np.sin(np.arange(40000) * 2 * np.pi * 440 / 16000)).astype(np.int16)
    half = ((speech[0::2].astype(np.int32) + speech[1::2]) // 2).astype(np.int16)
    yield "speech", speech, 16000
    yield "noisy", noisy(speech[:320000], 300), 16000
    yield "loud noise", noisy(speech[320000:560000], 3000), 16000
    yield "pauses", np.concatenate([np.concatenate([speech[i:i + 14321], silence[:i % 9000]]) for i in range(0, 300000, 14321)]), 16000
    yield "tone", tone, 16000
    yield "noise", noisy(np.zeros(50000), 5000), 16000
    yield "silence", silence, 16000
    yield "one window", speech[100000:100512], 16000
    yield "short", speech[100000:100300], 16000
    yield "in speech", speech[350000:400000], 16000
    yield "8 kHz", half, 8000
    yield "8 kHz noisy", noisy(half[:160000], 400), 8000


def scores(models, samples, patched):
    """openWakeWord's scores of each frame, with the silence of predict_clip around."""
    from openwakeword.model import Model

    np.random.randint, real = patched, np.random.randint
    try:
        words = [f for f in sorted(glob.glob(os.path.join(models, "*_v0.1.onnx")))]
        m = Model(
            wakeword_models=words, inference_framework="onnx",
            melspec_model_path=os.path.join(models, "melspectrogram.onnx"), embedding_model_path=os.path.join(models, "embedding_model.onnx"),
        )
        for name, session in m.models.items():
            # openWakeWord has the words of its model of several by the name "timer"; the file has them too.
            label = session.get_outputs()[0].name
            if label.startswith("{"):
                m.class_mapping[name] = json.loads(label)
        return [{k: float(v) for k, v in one.items()} for one in m.predict_clip(samples)]
    finally:
        np.random.randint = real


def noise(low, high, n):
    """The noise before a sound that audio/detect has, in place of a random one."""
    seed, out = 1, np.empty(n, np.int64)
    for i in range(n):
        seed = (seed * 1664525 + 1013904223) % 2**32
        out[i] = (seed >> 16) % (high - low) + low
    return out


def read(file):
    with wave.open(file) as f:
        if (f.getframerate(), f.getsampwidth(), f.getnchannels()) != (16000, 2, 1):
            sys.exit(f"{file}: want 16 kHz, 16 bits, one channel")
        return np.frombuffer(f.readframes(f.getnframes()), np.int16)


def answers(models, out, speech, *more):
    os.makedirs(out, exist_ok=True)
    list_ = []
    silero = sorted(glob.glob(os.path.join(models, "silero*.onnx")))
    if len(read(speech)) < 560000:
        sys.exit(f"{speech}: want at least 35 s of speech")
    all_sounds = [*sounds(read(speech)), *((os.path.basename(file), read(file), 16000) for file in more)]
    for number, (name, samples, rate) in enumerate(all_sounds):
        wav = f"{number}.wav"
        write(os.path.join(out, wav), samples, rate)
        one = {"name": name, "file": wav, "models": []}
        for path in silero:
            # Models for 16 kHz alone, by their names, are not asked at 8 kHz, nor all of them about each sound.
            narrow = not any(k in path for k in ("16k", "half"))
            if rate == 8000 and not narrow or number > 3 and "silero_vad.onnx" not in path:
                continue
            x = samples.astype(np.float32) / 32768
            p = probabilities(path, x, rate)
            got = get_speech_timestamps_from_probs(p, sampling_rate=rate, audio_length_samples=len(x))
            one["models"].append({"model": path, "probabilities": p, "speech": [[s["start"], s["end"]] for s in got]})
        if rate == 16000 and os.path.exists(os.path.join(models, "melspectrogram.onnx")):
            one["words"] = scores(models, samples, noise)
            one["folder"] = models
        list_.append(one)
        print(name, len(one["models"]), len(one.get("words", [])), file=sys.stderr)
    with open(os.path.join(out, "answers.json"), "w") as f:
        json.dump(list_, f)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["segments"]:
        print("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in segments()) + "\n]")
    elif sys.argv[1:2] == ["answers"] and len(sys.argv) >= 5:
        answers(*sys.argv[2:])
    else:
        sys.exit(__doc__)
