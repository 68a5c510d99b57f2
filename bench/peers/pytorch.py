"""PyTorch as a peer: one JSON request a line on stdin, one JSON answer a line on stdout; see child.go.

Ends when stdin does.
"""
import contextlib
import copy
import json
import os
import signal
import sys
import tempfile
import time
import warnings

import torch
from torch import nn

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started this one
torch.set_num_threads(int(sys.argv[1]))
mode = sys.argv[2]  # f32, bf16, fp16, int8 or flushing
sixteen = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mode)
torch.set_flush_denormal(mode == "flushing")  # holds for this thread alone, not for those that help it


def read(path, *dims):
    n = 1
    for d in dims:
        n *= d
    return torch.from_file(path, size=n, dtype=torch.float32).clone().reshape(dims)


def write(path, tensors):
    flat = torch.cat([t.detach().flatten() for t in tensors])
    torch.from_file(path, shared=True, size=flat.numel(), dtype=torch.float32).copy_(flat)


def status(key):
    """A number of bytes from Linux's account of this process."""
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    raise KeyError(key)


def precision():
    """Networks compute in it; losses, backward passes and optimizers are outside."""
    return torch.autocast("cpu", dtype=sixteen or torch.bfloat16, enabled=sixteen is not None)


@contextlib.contextmanager
def kernels(names):
    """Adds to names what oneDNN says that it computes with, as "rnn brgemm:avx512_core"."""
    backend = torch.backends.mkldnn
    if not backend.is_available() or not hasattr(backend, "verbose"):
        yield
        return
    own = os.dup(1)  # stdout carries answers; oneDNN writes to it
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            with backend.verbose(backend.VERBOSE_ON):
                yield
        finally:
            os.dup2(own, 1)
            os.close(own)
        file.seek(0)
        for line in file.read().decode().splitlines():
            f = line.split(",")
            for primitive in ("rnn", "matmul", "inner_product"):
                if "exec" in f and primitive in f:  # onednn_verbose,v1,primitive,exec,cpu,rnn,IMPLEMENTATION,...
                    name = primitive + " " + f[f.index(primitive) + 1]
                    if name not in names:
                        names.append(name)


class Peer:
    def open(self, shape, dir, **_):
        T, B, I, H, L = (shape[k] for k in "TBIHL")
        self.dir, self.lesson = dir, None
        self.x = read(os.path.join(dir, "x.f32"), T, B, I)
        self.p = read(os.path.join(dir, "p.f32"), T, B, H)
        self.build(I, H, L)
        with torch.no_grad():
            w = read(os.path.join(dir, "weights.f32"), sum(p.numel() for p in self.net.parameters()))
            for p in self.net.parameters():
                p.copy_(w[: p.numel()].reshape(p.shape))
                w = w[p.numel():]
        if mode == "int8":  # a root that is an LSTM itself would stay as it is
            with warnings.catch_warnings(action="ignore"):  # it is deprecated, and there is nothing else for an LSTM
                self.net = torch.ao.quantization.quantize_dynamic(nn.ModuleDict({"net": self.net}), {nn.LSTM}, dtype=torch.qint8)["net"]
        return {}

    def build(self, I, H, L):
        self.net = nn.LSTM(I, H, L)

    def forward(self):
        with torch.no_grad(), precision():
            return [self.net(self.x)[0]]

    def train(self, size=1):
        self.net.zero_grad()
        with precision():
            y, _ = self.net(self.x)
        ((y.float() * self.p).sum() * size).backward()
        return [p.grad for p in self.net.parameters()]

    def vanish(self):
        return self.train()

    def faint(self):
        return self.train(1e-8)

    # Training steps of the stack and of models around it; see lesson.go.

    def step(self):
        if self.begin("step"):
            self.model = self.stack = copy.deepcopy(self.net)
            self.optimize()
        self.model.zero_grad()
        with precision():
            y, _ = self.stack(self.x)
        return self.learn(nn.functional.mse_loss(y.float(), self.p))

    def language(self):
        if self.begin("language"):
            T, B, I = self.x.shape
            tokens = self.tokens(2, T * B)
            self.ids, self.targets, self.state = tokens[0].reshape(T, B), tokens[1], None
            self.stack = copy.deepcopy(self.net)
            self.surround(I)
        self.model.zero_grad()
        with precision():
            y, state = self.stack(self.embedding(self.ids), self.state)
            logits = self.softmax(y).flatten(0, 1)
        self.state = tuple(s.detach() for s in state)
        return self.learn(nn.functional.cross_entropy(logits.float(), self.targets))

    def speech(self):
        if self.begin("speech"):
            T, B, I = self.x.shape
            tokens = self.tokens(-1)
            self.steps, self.targets = tokens[:B], tokens[B:].reshape(B, -1)
            self.lengths = torch.full((B,), self.targets.shape[1])
            self.sound = self.x.reshape(B, T, I)
            self.stack = nn.LSTM(I, self.net.hidden_size, self.net.num_layers, bidirectional=True, batch_first=True)
            self.surround(0)
        self.model.zero_grad()
        # Without packing the backward direction would begin in the padding.
        packed = nn.utils.rnn.pack_padded_sequence(self.sound, self.steps, batch_first=True, enforce_sorted=False)
        with precision():
            y, _ = nn.utils.rnn.pad_packed_sequence(self.stack(packed)[0])
            logits = self.softmax(y)
        return self.learn(nn.functional.ctc_loss(logits.float().log_softmax(-1), self.targets, self.steps, self.lengths))

    def begin(self, lesson):
        """Reports whether the lesson is another than the last, so that its model is still to be made."""
        new, self.lesson = lesson != self.lesson, lesson
        return new

    def learn(self, loss):
        if self.scaler:
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
        else:
            loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        return [loss.detach()]

    def tokens(self, *dims):
        file = os.path.join(self.dir, "tokens.f32")
        return read(file, os.path.getsize(file) // 4).reshape(dims).long()

    def surround(self, embedding):
        """Puts an embedding of so many numbers, or none for 0, before the stack and a softmax after it."""
        H, file = self.net.hidden_size, os.path.join(self.dir, "lesson.f32")
        n = os.path.getsize(file) // 4
        if embedding:
            classes = n // (embedding + H + 1)
            parts, stack = [nn.Embedding(classes, embedding), nn.Linear(H, classes)], [self.stack]
        else:
            classes = (n - sum(p.numel() for p in self.stack.parameters())) // (2 * H + 1)
            parts, stack = [self.stack, nn.Linear(2 * H, classes)], []
        w = read(file, n)
        with torch.no_grad():
            for part in parts:
                for p in part.parameters():
                    p.copy_(w[: p.numel()].reshape(p.shape))
                    w = w[p.numel():]
        self.embedding, self.softmax = parts[0], parts[-1]
        self.model = nn.ModuleList(parts + stack)
        self.optimize()

    def optimize(self):
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0)
        self.scaler = torch.amp.GradScaler("cpu") if mode == "fp16" else None  # PyTorch 1 has none for the CPU

    def run(self, which, warm, calls, **_):
        f = getattr(self, which)
        for _ in range(warm):
            f()
        ms = []
        for _ in range(calls):
            start = time.perf_counter()
            f()
            ms.append((time.perf_counter() - start) * 1e3)
        return {"ms": ms}

    def save(self, which, file, **_):
        f, uses = getattr(self, which), []
        with kernels(uses):
            values = [x for _ in range(3) for x in f()] if which in ("step", "language", "speech") else f()
        write(file, [v.float() for v in values])
        if mode == "int8":
            uses += ["quantized.dynamic.LSTM", torch.backends.quantized.engine]
        return {"uses": ", ".join(uses)}

    def memory(self, shape, dir, **_):
        """How much more than before a network exists is in use at the most over three training steps."""
        self.open({"T": 2, "B": 2, "I": 2, "H": 2, "L": 1}, dir)  # what the libraries set up once
        self.train()
        self.open(shape, dir)
        del self.net
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")  # the peak begins anew
        before = status("VmRSS")
        self.build(*(shape[k] for k in "IHL"))
        for _ in range(3):
            self.train()
        return {"bytes": status("VmHWM") - before}

    def close(self, **_):
        self.net = self.x = self.p = self.lesson = self.stack = self.model = self.embedding = self.softmax = self.optimizer = self.state = None
        return {}


def main():
    def say(answer):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    all, ends = ["forward", "train", "step", "language", "speech"], ["vanish", "faint"]
    suffix, passes = {"f32": ("", all + ends), "bf16": (" bf16", all), "fp16": (" fp16", all), "int8": (" int8", ["forward"]), "flushing": (" flushing", ends)}[mode]
    say({"name": "torch " + torch.__version__ + suffix, "passes": passes})
    peer = Peer()
    for line in sys.stdin:
        try:
            request = json.loads(line)
            say(getattr(peer, request.pop("op"))(**request))
        except Exception as e:
            say({"error": repr(e)})


main()
