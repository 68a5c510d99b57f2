"""Single operations and layers: result and the gradient of every input."""
import torch
from torch import nn
from torch.nn import functional as F

from golden import Cases, exact, project, rand

LENGTHS = [3, 5, 0, 1]


def steps(lengths, T):
    """True inside each row: [B,T,1]."""
    return (torch.arange(T) < torch.tensor(lengths)[:, None])[..., None]


def pool_mean(x):
    m = steps(LENGTHS, x.shape[1])
    return (x * m).sum(1) / m.sum(1).clamp(min=1)


def pool_max(x):
    m = steps(LENGTHS, x.shape[1])
    return torch.where(m.any(1), x.masked_fill(~m, -1e30).max(1).values, torch.zeros(()))


def pool_last(x):
    at = (torch.tensor(LENGTHS) - 1).clamp(min=0)
    return x[torch.arange(x.shape[0]), at] * (torch.tensor(LENGTHS) > 0)[:, None]


def positive(*shape):
    return (rand(*shape).detach().abs() + 0.1).float().double().requires_grad_()


def wide(*shape):
    """Values from tiny to saturating, both signs and zero."""
    x = rand(*shape).detach()
    x *= 10 ** torch.linspace(-4, 1.3, x.numel()).reshape(x.shape)
    x.flatten()[0] = 0
    return x.float().double().requires_grad_()


OPS = {
    "linear": (F.linear, lambda: (rand(3, 4, 7), rand(5, 7), rand(5))),
    "linear,wide": (F.linear, lambda: (rand(19, 33), rand(37, 33), rand(37))),
    "linear,nobias": (F.linear, lambda: (rand(6, 7), rand(5, 7))),
    "matmul": (torch.matmul, lambda: (rand(3, 4, 5), rand(3, 5, 6))),
    "matmul,trans": (lambda a, b: a @ b.transpose(-1, -2), lambda: (rand(3, 4, 5), rand(3, 6, 5))),
    "add": (torch.add, lambda: (rand(3, 4, 5), rand(3, 4, 5))),
    "add,broadcast": (torch.add, lambda: (rand(3, 4, 5), rand(5))),
    "sub": (torch.sub, lambda: (rand(3, 4, 5), rand(3, 4, 5))),
    "sub,broadcast": (torch.sub, lambda: (rand(3, 4, 5), rand(4, 5))),
    "mul": (torch.mul, lambda: (rand(3, 4, 5), rand(3, 4, 5))),
    "mul,broadcast": (torch.mul, lambda: (rand(3, 4, 5), rand(5))),
    "div": (torch.div, lambda: (rand(3, 4, 5), positive(3, 4, 5))),
    "div,broadcast": (torch.div, lambda: (rand(3, 4, 5), positive(4, 5))),
    "sigmoid": (torch.sigmoid, lambda: (wide(11, 9),)),
    "tanh": (torch.tanh, lambda: (wide(11, 9),)),
    "relu": (torch.relu, lambda: (wide(11, 9),)),
    "exp": (torch.exp, lambda: (rand(11, 9, scale=3),)),
    "log": (torch.log, lambda: (positive(11, 9),)),
    "softplus": (lambda x: F.softplus(x, threshold=1e9), lambda: (wide(11, 9),)),
    "square": (torch.square, lambda: (rand(11, 9),)),
    "softmax": (lambda x: torch.softmax(x, -1), lambda: (rand(3, 4, 9, scale=3),)),
    "log_softmax": (lambda x: torch.log_softmax(x, -1), lambda: (rand(3, 4, 9, scale=3),)),
    "layer_norm": (lambda x, g, b: F.layer_norm(x, (13,), g, b), lambda: (rand(3, 4, 13), rand(13), rand(13))),
    "layer_norm,wide": (lambda x, g, b: F.layer_norm(x, (67,), g, b), lambda: (rand(9, 67, scale=30), rand(67), rand(67))),
    "transpose": (lambda x: x.transpose(0, 2), lambda: (rand(3, 4, 5),)),
    "concat": (lambda a, b: torch.cat([a, b], 1), lambda: (rand(3, 4, 5), rand(3, 2, 5))),
    "slice": (lambda x: x[:, 1:3], lambda: (rand(3, 4, 5),)),
    "repeat": (lambda x: x[:, None].expand(-1, 6, -1), lambda: (rand(3, 5),)),
    "pool_last": (pool_last, lambda: (rand(4, 5, 6),)),
    "pool_mean": (pool_mean, lambda: (rand(4, 5, 6),)),
    "pool_max": (pool_max, lambda: (rand(4, 5, 6),)),
}


def attend(scores, k):
    """Softmax over each row's true steps; a row without steps has weight zero everywhere."""
    m = steps(LENGTHS, k.shape[1]).transpose(1, 2)
    w = torch.where(m, torch.softmax(scores.masked_fill(~m, -1e30), -1), torch.zeros(()))
    return w @ k, w


def attention(cases):
    B, Q, T, units = 4, 3, 5, 6
    for kind, query, key in (("dot", 7, 7), ("general", 5, 7), ("additive", 5, 7)):
        q, k = rand(B, Q, query), rand(B, T, key)
        layers = {}
        if kind == "dot":
            scores = q @ k.transpose(1, 2) / query ** 0.5
        elif kind == "general":
            layers = {"key": nn.Linear(key, query, bias=False)}
        else:
            layers = {"key": nn.Linear(key, units, bias=False), "query": nn.Linear(query, units), "score": nn.Linear(units, 1, bias=False)}
        layers = exact(nn.ModuleDict(layers).double())
        if kind == "general":
            scores = q @ layers["key"](k).transpose(1, 2)
        elif kind == "additive":
            scores = layers["score"](torch.tanh(layers["query"](q)[:, :, None] + layers["key"](k)[:, None]))[..., 0]
        y, w = attend(scores, k)
        loss, (py, pw) = project(y, w)
        loss.backward()
        name = "attention," + kind
        cases.add(name, {"kind": kind, "query": query, "key": key, "units": units, "lengths": LENGTHS},
                  q=q, k=k, y=y, weights=w, py=py, pw=pw, dq=q.grad, dk=k.grad)
        cases.add_named(name, "w.", layers.named_parameters())
        cases.add_named(name, "d.", ((n, p.grad) for n, p in layers.named_parameters()))


def embedding(cases):
    for name, padding in (("embedding", None), ("embedding,padding", 2)):
        table = rand(6, 5)
        ids = torch.tensor([[0, 2, 5, 2], [2, 1, 1, 0], [4, 4, 4, 2]])
        y = F.embedding(ids, table, padding_idx=padding)
        loss, (py,) = project(y)
        loss.backward()
        cases.add(name, {"padding": -1 if padding is None else padding}, ids=ids, table=table, y=y, py=py, dtable=table.grad)


def main():
    cases = Cases("layers", 500)
    for name, (f, make) in OPS.items():
        inputs = make()
        y = f(*inputs)
        loss, (py,) = project(y)
        loss.backward()
        lengths = LENGTHS if name.startswith("pool") else None
        cases.add(name, {"op": name.split(",")[0], "trans": name.endswith("trans"), "lengths": lengths}, y=y, py=py)
        cases.add_named(name, "in.", ((str(i), x) for i, x in enumerate(inputs)))
        cases.add_named(name, "d.", ((str(i), x.grad) for i, x in enumerate(inputs)))
    attention(cases)
    embedding(cases)
    cases.write()


if __name__ == "__main__":
    main()
