"""Ten steps of each update rule on given gradients, and both kinds of clipping."""
import torch
from torch import nn

from golden import Cases, rand

RULES = {
    "sgd": ("sgd", {}),
    "sgd,momentum": ("sgd", {"momentum": 0.9}),
    "sgd,momentum,decay": ("sgd", {"momentum": 0.9, "weight_decay": 0.1}),
    "sgd,dampening": ("sgd", {"momentum": 0.8, "dampening": 0.3}),
    "sgd,nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}),
    "sgd,nesterov,decay": ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "adam": ("adam", {}),
    "adam,l2": ("adam", {"weight_decay": 0.1}),
    "adam,betas": ("adam", {"beta1": 0.5, "beta2": 0.9, "eps": 1e-3}),
    "adamw": ("adamw", {"weight_decay": 0.1}),
    "adamw,betas": ("adamw", {"beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.5}),
    "rmsprop": ("rmsprop", {}),
    "rmsprop,momentum": ("rmsprop", {"alpha": 0.9, "momentum": 0.9}),
    "rmsprop,momentum,decay": ("rmsprop", {"alpha": 0.9, "momentum": 0.5, "weight_decay": 0.1, "eps": 1e-4}),
}


def build(rule, options, params, lr):
    """PyTorch's optimizer for a rule and our names of its options."""
    o = dict(options)
    if rule in ("adam", "adamw"):
        o["betas"] = (o.pop("beta1", 0.9), o.pop("beta2", 0.999))
        o.setdefault("weight_decay", 0)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
    return kind[rule](params, lr=lr, **o)


def main():
    cases = Cases("optimizers", 300)
    for name, (rule, options) in RULES.items():
        lr = 0.05
        params = [nn.Parameter(rand(5, 7).detach()), nn.Parameter(rand(19).detach())]
        opt = build(rule, options, params, lr)
        tensors = {"w0.a": params[0].detach().clone(), "w0.b": params[1].detach().clone()}
        grads, values = ([], []), ([], [])
        for step in range(10):
            for i, p in enumerate(params):
                g = rand(*p.shape).detach()
                g.flatten()[step] = 0  # an element without a gradient this time
                grads[i].append(g)
                p.grad = g.clone()
            opt.step()
            for i, p in enumerate(params):
                values[i].append(p.detach().clone())
        for i, k in enumerate("ab"):
            tensors["grads." + k] = torch.stack(grads[i])
            tensors["w." + k] = torch.stack(values[i])
        cases.add(name, {"rule": rule, "lr": lr, **options})
        cases.add_named(name, "", tensors.items())

    for kind, bounds in (("norm", (0.1, 1.0, 1e6)), ("value", (0.01, 0.5, 1e6))):
        for bound in bounds:
            params = [nn.Parameter(torch.zeros(5, 7)), nn.Parameter(torch.zeros(19))]
            for p in params:
                p.grad = rand(*p.shape).detach()
            before = {"g." + k: p.grad.clone() for k, p in zip("ab", params)}
            if kind == "norm":
                before["norm"] = nn.utils.clip_grad_norm_(params, bound).reshape(1)
            else:
                nn.utils.clip_grad_value_(params, bound)
            name = f"clip_{kind}={bound:g}"
            cases.add(name, {"clip": kind, "bound": bound})
            cases.add_named(name, "", before.items())
            cases.add_named(name, "clipped.", ((k, p.grad) for k, p in zip("ab", params)))
    cases.write()


if __name__ == "__main__":
    main()
