"""Steps under torch.amp.GradScaler: growth, backoff, infinities and NaN, clipping, one optimizer or two.

Some gradients are made infinite or NaN by the loss; the file cannot hold such numbers, so the settings name
them. In float64 no other number overflows."""
import torch
from torch import nn

from golden import Cases, rand
from optimizers import build

# Options of the scaler, steps, and what is not finite: (step, parameter, element, value).
CASES = {
    "growth": ({"growth_interval": 3}, 10, []),
    "backoff": ({"growth_interval": 3}, 14, [(1, "a", 3, "inf"), (6, "b", 0, "nan"), (7, "b", 18, "-inf"), (13, "a", 34, "nan")]),
    "tracker": ({"growth_interval": 4}, 16, [(3, "a", 0, "inf"), (7, "a", 0, "inf"), (11, "a", 0, "nan")]),
    "start": ({}, 6, [(0, "a", 1, "inf"), (1, "b", 2, "inf"), (2, "a", 0, "nan"), (2, "b", 0, "inf")]),
    "factors": ({"init_scale": 1000.0, "growth_factor": 1.5, "backoff_factor": 0.3, "growth_interval": 2}, 12, [(5, "a", 7, "inf")]),
    "large": ({"init_scale": 2.0 ** 120, "growth_interval": 2}, 12, [(9, "b", 7, "inf")]),
    "small": ({"init_scale": 2.0 ** -20, "growth_interval": 100}, 9, [(k, "b", k, "nan") for k in range(6)]),
}
TRAININGS = {
    "sgd": ("sgd", {"momentum": 0.9, "weight_decay": 0.1}, None, 1),
    "adamw,clip": ("adamw", {"weight_decay": 0.1}, 0.5, 1),
    "adam,two": ("adam", {}, None, 2),
    "rmsprop,clip,two": ("rmsprop", {"momentum": 0.5}, 2.0, 2),
}


def main():
    cases = Cases("scaler", 1000)
    for name, (options, steps, bad) in CASES.items():
        for training, (rule, rule_options, clip, optimizers) in TRAININGS.items():
            lr = 0.05
            params = {"a": nn.Parameter(rand(5, 7).detach()), "b": nn.Parameter(rand(19).detach())}
            groups = [params.values()] if optimizers == 1 else [[p] for p in params.values()]
            opts = [build(rule, rule_options, list(g), lr) for g in groups]
            scaler = torch.amp.GradScaler("cpu", **options)
            tensors = {"w0." + k: p.detach().clone() for k, p in params.items()}
            seen = {k: [] for k in ("scale", "tracker", "norm")}
            for k in params:
                seen["g." + k], seen["w." + k] = [], []
            for step in range(steps):
                loss = 0
                for k, p in params.items():
                    g = rand(*p.shape).detach()
                    seen["g." + k].append(g.clone())
                    for at, param, i, value in bad:
                        if (at, param) == (step, k):
                            g.flatten()[i] = float(value)
                    loss = loss + (p * g).sum()
                scaler.scale(loss).backward()
                for opt in opts:
                    if clip is None:
                        continue
                    scaler.unscale_(opt)
                    norm = nn.utils.clip_grad_norm_(opt.param_groups[0]["params"], clip)
                    seen["norm"].append(norm.nan_to_num(0, 0, 0))
                for opt in opts:
                    scaler.step(opt)
                    opt.zero_grad()
                scaler.update()
                seen["scale"].append(torch.tensor(scaler.get_scale()))
                seen["tracker"].append(torch.tensor(scaler._get_growth_tracker()))
                for k, p in params.items():
                    seen["w." + k].append(p.detach().clone())
            case = name + "," + training
            cases.add(case, {
                "rule": rule, "lr": lr, "clip": clip or 0, "optimizers": optimizers, "steps": steps,
                "scaler": {k.replace("_", ""): v for k, v in options.items()},
                "bad": [{"step": s, "param": p, "element": i, "value": v} for s, p, i, v in bad], **rule_options})
            cases.add_named(case, "", tensors.items())
            cases.add_named(case, "", ((k, torch.stack(v)) for k, v in seen.items() if v))
    cases.write()


if __name__ == "__main__":
    main()
