"""A rank of PyTorch's DistributedDataParallel over gloo: one JSON request a line on stdin, one JSON answer a line on stdout; see rank.go.

Arguments: rank, ranks, address of rank 0, port, folder of the weights and tokens, sizes as JSON.
"""
import contextlib
import json
import sys
import time

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

rank, ranks, address, port, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
size = json.loads(sys.argv[6])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://{address}:{port}", rank=rank, world_size=ranks)

shape = (size["Batches"], size["Length"], size["Rows"])
tokens = torch.from_numpy(np.fromfile(f"{folder}/tokens.i32", dtype=np.int32).reshape(2, *shape)).long()


def until(begun, seconds):
    rest = begun + seconds - time.perf_counter()
    if rest > 0:
        time.sleep(rest)


class Wait(torch.autograd.Function):
    """A layer that waits for as long as it takes alone. Its gradients are as large as the layer's."""

    @staticmethod
    def forward(ctx, x, width, forward, backward, *weights):
        begun = time.perf_counter()
        ctx.save_for_backward(x, *weights)
        ctx.backward_time = backward
        y = torch.zeros(*x.shape[:-1], width) if width else x.new_ones(())
        until(begun, forward)
        return y

    @staticmethod
    def backward(ctx, dy):
        begun = time.perf_counter()
        grads = [torch.full_like(t, 1e-3) for t in ctx.saved_tensors]
        until(begun, ctx.backward_time)
        return grads[0], None, None, None, *grads[1:]


class Net(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        self.embedding = nn.Embedding(size["Vocabulary"], size["Embedded"], sparse=sparse)
        self.lstm = nn.LSTM(size["Embedded"], size["Hidden"], size["Layers"])
        self.softmax = nn.Linear(size["Hidden"], size["Classes"])
        flat = torch.from_numpy(np.fromfile(f"{folder}/weights.f32", dtype=np.float32))
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(flat[: p.numel()].reshape(p.shape))
                flat = flat[p.numel() :]
        assert len(flat) == 0

    def forward(self, ids, targets, times):
        x = self.embedding(ids)
        if not times:
            return nn.functional.cross_entropy(self.softmax(self.lstm(x)[0]).flatten(0, 1), targets.flatten())
        n = size["Layers"]
        for k in range(n):
            x = Wait.apply(x, size["Hidden"], times["Forward"][k], times["Backward"][k], *self.lstm._flat_weights[4 * k : 4 * k + 4])
        return Wait.apply(x, 0, times["Forward"][n], times["Backward"][n], self.softmax.weight, self.softmax.bias)


def sent():
    with open("/sys/class/net/eth0/statistics/tx_bytes") as f:
        return int(f.read())


nets = {}


def make(sparse):
    net = Net(sparse)
    return DistributedDataParallel(net), torch.optim.SGD(net.parameters(), lr=size["Rate"])


def answer(q):
    sparse, times = q["Sparse"], q["Layers"]
    if q["Do"] == "losses":
        net, optimizer = make(sparse)
    else:
        if sparse not in nets:
            nets[sparse] = make(sparse)
        net, optimizer = nets[sparse]
    dist.barrier()
    losses, seconds, last, before = [], [], 0, 0
    for step in range(q["Steps"]):
        k = (step * (1 if q["Alone"] else ranks) + rank) % size["Batches"]
        with net.no_sync() if q["Alone"] else contextlib.nullcontext():
            loss = net(tokens[0, k], tokens[1, k], times)
            loss.backward()
        if times:
            begun = time.perf_counter()
            optimizer.zero_grad()
            until(begun, times["Step"])
        else:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        now = time.perf_counter()
        if step + 1 == size["Warm"]:
            before = sent()
        elif step + 1 > size["Warm"]:
            seconds.append(now - last)
        last = now
    return {"Version": "torch " + torch.__version__, "Losses": losses, "Seconds": seconds, "Sent": (sent() - before) / max(1, len(seconds))}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
dist.destroy_process_group()
