"""Times PyTorch on the contests of main.go, with the same numbers, and compares.

usage: pytorch.py OURS.jsonl SECONDS STOP < CONTESTS.jsonl

Each line on stdout is one contest. LSTMs are torch.nn.LSTM, so cuDNN; of the variants, which
cuDNN lacks, there is a loop over the steps: as it is, with a compiled step, and captured as a
CUDA graph. The fastest counts, and all are written.
"""
import json
import statistics
import sys
import time

import numpy as np
import torch
from torch import nn

ours_path, seconds, stop = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
begun = time.time()
dev = "cuda" if torch.cuda.is_available() else "cpu"
VOCABULARY = 1000


def sync():
    if dev == "cuda":
        torch.cuda.synchronize()


def hashes(seed, n):
    with np.errstate(over="ignore"):
        x = np.arange(n, dtype=np.uint32) * np.uint32(2654435761) + np.uint32((seed * 40503 + 12345) & 0xFFFFFFFF)
        x ^= x >> np.uint32(16)
        x *= np.uint32(2246822519)
        x ^= x >> np.uint32(13)
        x *= np.uint32(3266489917)
    return x ^ (x >> np.uint32(16))


def fill(p, seed, scale):
    v = (hashes(seed, p.numel()).astype(np.float64) / 2**31 - 1) * scale
    with torch.no_grad():
        p.copy_(torch.from_numpy(v.astype(np.float32)).reshape(p.shape))


def ids(seed, n, below):
    return torch.from_numpy((hashes(1000 + seed, n) % np.uint32(below)).astype(np.int64))


def some(t):
    v = t.detach().float().flatten().cpu()
    return [float(v[i * v.numel() // 64]) for i in range(64)]


class Step(nn.Module):
    """One step of an LSTM that cuDNN lacks; W·x comes computed."""

    def __init__(self, kind, I, H):
        super().__init__()
        self.kind, self.H = kind, H
        self.w, self.r = nn.Linear(I, 4 * H), nn.Linear(H, 4 * H)
        if kind == "peephole":
            self.pi, self.pf, self.po = (nn.Parameter(torch.zeros(H)) for _ in range(3))
        if kind == "layernorm":
            self.nx, self.nr, self.nc = nn.LayerNorm(4 * H), nn.LayerNorm(4 * H), nn.LayerNorm(H)

    def forward(self, wx, h, c, keep):
        if self.kind == "layernorm":
            a = wx + self.nr(self.r(h))
        else:
            a = wx + self.r(h)
        i, f, g, o = a.chunk(4, -1)
        if self.kind == "peephole":
            i, f = i + self.pi * c, f + self.pf * c
        d = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        if self.kind == "peephole":
            o = o + self.po * d
        e = torch.sigmoid(o) * torch.tanh(self.nc(d) if self.kind == "layernorm" else d)
        if self.kind == "zoneout":
            e = torch.where(keep, h, e)
        return e, d


class Loop(nn.Module):
    def __init__(self, kind, I, H, compiled):
        super().__init__()
        self.step = Step(kind, I, H)
        self.call = torch.compile(self.step) if compiled else self.step

    def forward(self, x):
        s = self.step
        wx = s.w(x)
        if s.kind == "layernorm":
            wx = s.nx(wx)
        h = c = x.new_zeros(x.shape[1], s.H)
        keep = torch.rand(x.shape[0], x.shape[1], s.H, device=x.device) < 0.1 if s.kind == "zoneout" else wx
        ys = []
        for t in range(x.shape[0]):
            h, c = self.call(wx[t], h, c, keep[t])
            ys.append(h)
        return torch.stack(ys), (h[None], c[None])


class Model(nn.Module):
    def __init__(self, c, way):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, c["I"])
        self.rnn = nn.LSTM(c["I"], c["H"], c["L"]) if c["cell"] == "lstm" else Loop(c["cell"], c["I"], c["H"], way == "compiled")
        self.out = nn.Linear(c["H"], c["V"]) if c["V"] else None
        scale = c["H"] ** -0.5
        fill(self.embed.weight, 100, 1)
        if c["cell"] == "lstm":
            for i, p in enumerate(self.rnn.parameters()):
                fill(p, i, scale)
        if self.out is not None:
            fill(self.out.weight, 101, scale)
            fill(self.out.bias, 102, scale)


def run(c, way):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = c["precision"] == "tf32"
    m = Model(c, way).to(dev)
    n = c["T"] * c["B"]
    x = ids(1, n, VOCABULARY).reshape(c["T"], c["B"])
    words = ids(2, n, max(c["V"], 1)) if c["V"] else None
    if dev == "cuda":
        x = x.pin_memory()
        words = words.pin_memory() if words is not None else None
    on_x = torch.empty_like(x, device=dev)
    on_words = torch.empty_like(words, device=dev) if words is not None else None
    cast = torch.autocast(dev, dtype=torch.bfloat16, enabled=c["precision"] == "bf16")

    def loss():
        with cast:
            y, _ = m.rnn(m.embed(on_x))
            if m.out is not None:
                return nn.functional.cross_entropy(m.out(y).float().reshape(n, -1), on_words)
        return y.float().square().mean()

    def upload():
        on_x.copy_(x, non_blocking=True)
        if words is not None:
            on_words.copy_(words, non_blocking=True)

    upload()
    if c["pass"] == "infer":
        def call():
            upload()
            with torch.no_grad(), cast:
                return m.rnn(m.embed(on_x))[1][0].float().cpu()
        out = some(call())
    else:
        loss().backward()
        weight = m.rnn.weight_hh_l0 if c["cell"] == "lstm" else m.rnn.step.r.weight
        out = some(weight.grad)
        opt = torch.optim.AdamW(m.parameters(), lr=1e-5, weight_decay=0.01, **({"fused": True, "capturable": True} if dev == "cuda" else {}))

        def step():
            opt.zero_grad(set_to_none=way != "graph")
            loss().backward()
            nn.utils.clip_grad_norm_(m.parameters(), 1.0, foreach=True)
            opt.step()
        if way == "graph":
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    step()
            torch.cuda.current_stream().wait_stream(side)
            g = torch.cuda.CUDAGraph()
            with torch.cuda.graph(g):
                step()

            def call():
                upload()
                g.replay()
        else:
            def call():
                upload()
                step()
    timed = lambda k: [call() for _ in range(k)] and None

    def each(k):
        sync()
        t = time.time()
        timed(k)
        sync()
        return (time.time() - t) / k
    each(4)
    k = 1 + int(0.05 / each(2))
    samples, t = [], time.time()
    while len(samples) < 3 or time.time() - t < seconds:
        samples.append(1e3 * each(k))
    return statistics.median(samples), out


ours = {}
with open(ours_path) as f:
    for line in f:
        o = json.loads(line)
        ours[o["name"]] = o
for line in sys.stdin:
    c = json.loads(line)
    if time.time() - begun > stop:
        print("time is up before " + c["name"], file=sys.stderr)
        break
    ways = ["eager"]
    if dev == "cuda" and c["pass"] == "train":
        ways.append("graph")
        if c["cell"] != "lstm":
            ways.append("compiled")
    r = {"name": c["name"], "torch": torch.__version__, "device": torch.cuda.get_device_name() if dev == "cuda" else "cpu", "ms": {}}
    out = None
    for way in ways:
        if time.time() - begun > stop:
            break
        try:
            ms, one = run(c, way)
            r["ms"][way], out = ms, out or one
        except Exception as e:  # a way that this PyTorch lacks is none
            r["ms"][way] = None
            r["error"] = " ".join(str(e).split())[:200]
    o = ours.get(c["name"])
    times = [x for x in r["ms"].values() if x]
    if o and o.get("ms") and times:
        r["ours_ms"], r["ours_to_torch"] = o["ms"], o["ms"] / min(times)
    if o and o.get("outputs") and out and c["cell"] == "lstm":
        scale = max(abs(x) for x in out) or 1
        r["difference"] = max(abs(a - b) for a, b in zip(o["outputs"], out)) / scale
    print(json.dumps(r), flush=True)
