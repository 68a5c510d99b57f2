"""Losses: value and gradient with respect to the prediction."""
import torch
from torch import nn
from torch.distributions import NegativeBinomial, Normal, StudentT
from torch.nn.functional import softplus

from golden import Cases, rand

N = 23


def mean(items, weight):
    return items.mean() if weight is None else (items * weight).sum() / weight.sum()


def pinball(p, y, quantiles):
    q = torch.tensor(quantiles)
    e = y[..., None] - p
    return torch.maximum(q * e, (q - 1) * e).mean(-1)


def positive(x):
    """The library keeps scales and dispersions this far from zero."""
    return softplus(x) + 1e-6


def gaussian(p, y):
    return -Normal(p[..., 0], positive(p[..., 1])).log_prob(y)


def student_t(p, y):
    return -StudentT(2 + softplus(p[..., 2]), p[..., 0], positive(p[..., 1])).log_prob(y)


def neg_binomial(p, y):
    m, alpha = positive(p[..., 0]), positive(p[..., 1])
    # mean m and variance m + alpha m²
    return -NegativeBinomial(1 / alpha, logits=(m * alpha).log()).log_prob(y)


def main():
    cases = Cases("losses", 200)

    def add(name, settings, p, y, items):
        """items gives one loss an item; each case is also written with weights, some of them zero."""
        w = torch.rand(*y.shape).float().double()
        w.flatten()[::5] = 0
        for suffix, weight in (("", None), (",weighted", w)):
            p.grad = None
            loss = mean(items(p, y), weight)
            loss.backward()
            cases.add(name + suffix, settings, pred=p, target=y, weight=weight, loss=loss.reshape(1), dpred=p.grad)

    def pair(*shape):
        return rand(*shape), rand(*shape).detach()

    p, y = pair(4, 6)
    with torch.no_grad():
        p[0, 0] = y[0, 0]  # no error at all: the gradient there is zero
    add("mse", {"loss": "mse"}, p, y, nn.MSELoss(reduction="none"))
    add("mae", {"loss": "mae"}, p, y, nn.L1Loss(reduction="none"))
    for delta in (0.25, 1.0, 3.0):
        add(f"huber,delta={delta}", {"loss": "huber", "delta": delta}, p, y, nn.HuberLoss(reduction="none", delta=delta))
    big, far = rand(N, scale=1e3), rand(N, scale=1e3).detach()
    add("mse,large", {"loss": "mse"}, big, far, nn.MSELoss(reduction="none"))
    for quantiles in ([0.5], [0.1, 0.5, 0.9], [0.01, 0.025, 0.25, 0.75, 0.975]):
        add(f"pinball,q={len(quantiles)}", {"loss": "pinball", "quantiles": quantiles},
            rand(5, 4, len(quantiles)), rand(5, 4).detach(), lambda p, y: pinball(p, y, quantiles))

    # Raw scales from very small to large, targets near and far.
    ramp = torch.linspace(-8, 8, N).float().double()
    for spread in (1.0, 20.0):
        raw = torch.stack([rand(N), ramp], -1).detach().requires_grad_()
        y = (raw[:, 0] + softplus(ramp) * rand(N, scale=spread)).detach().float().double()
        add(f"gaussian,spread={spread:g}", {"loss": "gaussian"}, raw, y, gaussian)
        raw = torch.stack([rand(N), ramp, rand(N, scale=3)], -1).detach().requires_grad_()
        y = (raw[:, 0] + softplus(ramp) * rand(N, scale=spread)).detach().float().double()
        add(f"student_t,spread={spread:g}", {"loss": "student_t"}, raw, y, student_t)
    for name, mean_raw, alpha_raw, top in (
        ("small", rand(N), rand(N), 6),
        ("large", rand(N) * 30 + 100, rand(N), 400),
        ("near_poisson", rand(N) + 3, torch.linspace(-6, -1, N).float().double(), 12),
        ("overdispersed", rand(N), torch.linspace(0, 6, N).float().double(), 30),
    ):
        raw = torch.stack([mean_raw, alpha_raw], -1).detach().float().double().requires_grad_()
        y = torch.randint(0, top, (N,)).double()
        add(f"neg_binomial,{name}", {"loss": "neg_binomial"}, raw, y, neg_binomial)

    # Logits far out on both sides: the plain formula overflows there.
    logits = (rand(N) * 4).detach()
    logits[:4] = torch.tensor([60.0, -60.0, 120.0, -120.0])
    targets = torch.rand(N).float().double()
    targets[:6] = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    add("bce", {"loss": "bce"}, logits.float().double().requires_grad_(), targets, nn.BCEWithLogitsLoss(reduction="none"))

    cross_entropy(cases)
    ctc(cases)
    cases.write()


def cross_entropy(cases):
    V = 7
    for shape in ((N,), (4, 5)):
        for ignore in (None, -100, -1):
            for smoothing in (0.0, 0.1):
                for weighted in (False, True):
                    logits = (rand(*shape, V) * 3).detach()
                    logits.reshape(-1, V)[0] += 90
                    logits.reshape(-1, V)[1, 2] -= 90
                    logits = logits.float().double().requires_grad_()
                    classes = torch.randint(0, V, shape)
                    if ignore is not None:
                        classes.flatten()[::4] = ignore
                    weight = torch.rand(V).float().double() + 0.5 if weighted else None
                    if weighted:
                        weight = weight.float().double()
                        weight[3] = 0
                    loss = nn.CrossEntropyLoss(weight=weight, ignore_index=-100 if ignore is None else ignore,
                                               label_smoothing=smoothing)(logits.reshape(-1, V), classes.flatten())
                    loss.backward()
                    name = f"cross_entropy,{'x'.join(map(str, shape))},ignore={ignore},smoothing={smoothing},weighted={int(weighted)}"
                    cases.add(name, {"loss": "cross_entropy", "ignore": ignore or 0, "smoothing": smoothing},
                              pred=logits, classes=classes, class_weight=weight, loss=loss.reshape(1), dpred=logits.grad)


def ctc(cases):
    for name, B, T, V, L, blank, lengths, label_lengths, settings in (
        ("plain", 3, 20, 6, 5, 0, None, None, {}),
        ("ragged", 4, 30, 8, 7, 0, [30, 17, 9, 22], [7, 4, 1, 0], {}),
        ("sum", 4, 30, 8, 7, 0, [30, 17, 9, 22], [7, 4, 1, 0], {"sum": True}),
        ("last_is_blank", 2, 15, 5, 4, 4, [15, 12], [4, 3], {}),
        ("repeats", 2, 12, 3, 5, 0, [12, 9], [5, 5], {"repeats": True}),
        ("too_short", 3, 10, 5, 6, 0, [10, 5, 7], [6, 6, 3], {"short": [1]}),
        ("long", 2, 300, 30, 60, 0, [300, 250], [60, 48], {}),
    ):
        classes = [c for c in range(V) if c != blank]
        labels = torch.tensor(classes)[torch.randint(0, V - 1, (B, L))]
        if settings.get("repeats"):
            labels[:] = classes[0]
        lengths = lengths or [T] * B
        label_lengths = label_lengths or [L] * B
        logits = rand(B, T, V, scale=2)
        loss = torch.nn.functional.ctc_loss(logits.log_softmax(-1).transpose(0, 1), labels, torch.tensor(lengths), torch.tensor(label_lengths),
                                            blank=blank, reduction="none", zero_infinity=True)
        if settings.get("sum"):
            loss = loss.mean()
        else:
            loss = (loss / torch.tensor(label_lengths).clamp(min=1)).mean()  # what reduction="mean" computes
        loss.backward()
        with torch.no_grad():
            for b, n in enumerate(lengths):
                assert not logits.grad[b, n:].any()
        cases.add(f"ctc,{name}", {"loss": "ctc", "blank": blank, "sum": settings.get("sum", False), "short": settings.get("short", []),
                                  "lengths": lengths, "label_lengths": label_lengths},
                  pred=logits, classes=labels, loss=loss.reshape(1), dpred=logits.grad)


if __name__ == "__main__":
    main()
