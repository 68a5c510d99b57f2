"""Optuna's and PyTorch's side of `--pass trials`: a request in JSON on stdin, the answer on stdout.

The classifier of task classify with the same settings: embedding, LSTM in both directions, max pooling, dropout,
AdamW, a cosine of the learning rate, clipping. The data are read before the clock starts.
"""

import collections
import json
import math
import os
import resource
import sys
import tempfile
import time

import optuna
import torch
from optuna.storages.journal import JournalFileBackend
from torch import nn


class Texts:
    """Texts as lists of ids, sorted by length, so that batches of neighbours have little padding."""

    def __init__(self, path, ids=None):
        with open(path) as f:
            rows = [line.lower().split() for line in f]
        if ids is None:
            counts = collections.Counter(w for row in rows for w in row[1:])
            ids = {w: 2 + i for i, w in enumerate(w for w, n in counts.items() if n > 1)}
        self.ids = ids
        rows.sort(key=len)
        self.labels = torch.tensor([int(row[0]) for row in rows])
        self.lengths = torch.tensor([len(row) - 1 for row in rows])
        self.table = torch.zeros(len(rows), int(self.lengths.max()), dtype=torch.long)  # 0 is padding, 1 an unknown word
        for row, words in zip(self.table, rows):
            row[: len(words) - 1] = torch.tensor([ids.get(w, 1) for w in words[1:]])

    def batches(self, size, generator=None):
        order = torch.arange(len(self.labels))
        if generator is not None:  # equal lengths in another order
            order = torch.randperm(len(order), generator=generator)
            order = order[torch.argsort(self.lengths[order], stable=True)]
        parts = list(order.split(size))
        if generator is not None:
            parts = [parts[i] for i in torch.randperm(len(parts), generator=generator)]
        for part in parts:
            lengths = self.lengths[part]
            yield self.table[part, : int(lengths.max())], lengths, self.labels[part]


class Classifier(nn.Module):
    def __init__(self, words, embedding, hidden, dropout, token_dropout):
        super().__init__()
        self.token_dropout = token_dropout
        self.embedding = nn.Embedding(words, embedding, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.rnn = nn.LSTM(embedding, hidden, bidirectional=True, batch_first=True)
        with torch.no_grad():
            for name, p in self.rnn.named_parameters():
                if name.startswith("bias"):  # the gates' order is input, forget, cell, output
                    p[hidden : 2 * hidden] = 0.5
        self.head = nn.Linear(2 * hidden, 2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids, lengths):
        x = self.embedding(ids)
        if self.training:
            keep = 1 - self.token_dropout
            x = x * (torch.empty(*ids.shape, 1).bernoulli_(keep) / keep)
        x = self.dropout(x)
        y, _ = self.rnn(x)  # packed rows, with their kernels for each step, take 14 % more processor time than the little padding
        if int(lengths.min()) < ids.shape[1]:
            padding = torch.arange(ids.shape[1]) >= lengths[:, None]
            y = y.masked_fill(padding[:, :, None], -math.inf)
        return self.head(self.dropout(y.amax(1)))


def train(v, q, learn, valid):
    """Returns the best validation accuracy of the epochs."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    net = Classifier(2 + len(learn.ids), q["embedding"], v["hidden"], v["dropout"], q["token_dropout"])
    optimizer = torch.optim.AdamW(net.parameters(), lr=v["lr"], weight_decay=v["weight_decay"], fused=True)
    steps = q["epochs"] * math.ceil(len(learn.labels) / v["batch"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=q["min_lr"])
    best = 0.0
    for _ in range(q["epochs"]):
        net.train()
        for ids, lengths, labels in learn.batches(v["batch"], generator):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(ids, lengths), labels).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1)
            optimizer.step()
            schedule.step()
        net.eval()
        with torch.no_grad():
            right = sum(int((net(ids, lengths).argmax(1) == labels).sum()) for ids, lengths, labels in valid.batches(256))
        best = max(best, right / len(valid.labels))
    return best


def work(storage, q, learn, valid):
    """Computes trials until none of those that were enqueued is left."""
    torch.set_num_threads(q["threads"])
    study = optuna.load_study(study_name="trials", storage=storage(), sampler=optuna.samplers.RandomSampler(seed=1))
    while study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)):
        trial = study.ask()
        if trial.number >= len(q["trials"]):  # another worker was faster
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        v = {}
        for p in q["space"]:
            if p["int"]:
                v[p["name"]] = trial.suggest_int(p["name"], int(p["low"]), int(p["high"]), step=int(p["step"]))
            else:
                v[p["name"]] = trial.suggest_float(p["name"], p["low"], p["high"], log=p["log"])
        study.tell(trial, train(v, q, learn, valid))


def main():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    q = json.load(sys.stdin)
    torch.set_num_threads(1)  # threads of OpenMP would not survive a fork
    learn = Texts(os.path.join(q["data"], "sst2.train.txt"))
    valid = Texts(os.path.join(q["data"], "sst2.dev.txt"), learn.ids)
    with tempfile.TemporaryDirectory() as folder:

        def storage():
            return optuna.storages.JournalStorage(JournalFileBackend(os.path.join(folder, "journal")))

        begun = time.perf_counter()
        study = optuna.create_study(study_name="trials", storage=storage(), direction="maximize")
        for v in q["trials"]:
            study.enqueue_trial(v)
        for _ in range(q["workers"]):
            if os.fork() == 0:
                try:
                    work(storage, q, learn, valid)
                except BaseException:
                    sys.excepthook(*sys.exc_info())
                    os._exit(1)
                os._exit(0)
        failed = any([os.wait()[1] != 0 for _ in range(q["workers"])])
        wall = time.perf_counter() - begun
        if failed:
            sys.exit(1)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        values = [t.value for t in study.get_trials()[: len(q["trials"])]]
    json.dump({"version": f"Optuna {optuna.__version__}, PyTorch {torch.__version__}", "seconds": wall, "cpu": used.ru_utime + used.ru_stime, "values": values}, sys.stdout)


main()
