"""Learning rates of torch.optim.lr_scheduler, one for each step."""
import torch
from torch import nn
from torch.optim import lr_scheduler as S

from golden import Cases


def rates(lr, steps, make, metrics=None):
    """The rate used at each step; with metrics, the rate after each of them."""
    opt = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = make(opt)
    out = []
    for i in range(steps):
        if metrics is None:
            out.append(opt.param_groups[0]["lr"])
            opt.step()
            if i + 1 < steps:  # OneCycleLR counts its own and refuses one more
                schedule.step()
        else:
            opt.step()
            schedule.step(metrics[i])
            out.append(opt.param_groups[0]["lr"])
    return torch.tensor(out)


def main():
    cases = Cases("schedules", 400)

    def add(name, settings, values, **more):
        cases.add(name, settings, rates=values, **more)

    for lr, low, steps in ((1e-3, 1e-5, 50), (0.1, 0.0, 7), (1.0, 0.25, 1)):
        # Up to and including T_max, where the rate is the minimum.
        add(f"cosine,steps={steps}", {"schedule": "cosine", "lr": lr, "min": low, "steps": steps},
            rates(lr, steps + 1, lambda o: S.CosineAnnealingLR(o, T_max=steps, eta_min=low)))
    lr, low, warmup, steps = 1e-3, 1e-5, 5, 40
    rise = rates(lr, warmup, lambda o: S.LinearLR(o, start_factor=1 / (warmup + 1), total_iters=warmup))
    fall = rates(lr, steps - warmup + 1, lambda o: S.CosineAnnealingLR(o, T_max=steps - warmup, eta_min=low))
    add("warmup_cosine", {"schedule": "warmup_cosine", "lr": lr, "min": low, "warmup": warmup, "steps": steps}, torch.cat([rise, fall]))
    add("step", {"schedule": "step", "lr": 0.1, "gamma": 0.3, "every": 4}, rates(0.1, 25, lambda o: S.StepLR(o, 4, gamma=0.3)))
    add("exponential", {"schedule": "exponential", "lr": 0.1, "gamma": 0.93}, rates(0.1, 60, lambda o: S.ExponentialLR(o, 0.93)))
    for steps, o in ((40, {}), (10, {"pct_start": 0.5, "div_factor": 10.0, "final_div_factor": 100.0}), (33, {"pct_start": 0.2})):
        add(f"one_cycle,steps={steps}", {"schedule": "one_cycle", "lr": 0.1, "steps": steps, **o},
            rates(0.1, steps, lambda opt: S.OneCycleLR(opt, max_lr=0.1, total_steps=steps, **o)))

    metrics = [1.0, 0.9, 0.95, 0.91, 0.9, 0.89995, 0.9, 0.9, 0.8, 0.85, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9,
               0.7, 0.71, 0.72, 0.73, 0.74, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75]
    for name, o in {
        "default": {},
        "patience": {"factor": 0.5, "patience": 2},
        "cooldown": {"factor": 0.5, "patience": 1, "cooldown": 3, "min_lr": 0.004},
        "absolute": {"factor": 0.5, "patience": 2, "threshold": 0.05, "threshold_mode": "abs"},
        "max": {"factor": 0.5, "patience": 3, "mode": "max"},
        "impatient": {"factor": 0.9, "patience": 0},
    }.items():
        add("plateau," + name, {"schedule": "plateau", "lr": 0.1, **o},
            rates(0.1, len(metrics), lambda opt: S.ReduceLROnPlateau(opt, **o), metrics), metrics=torch.tensor(metrics))
    cases.write()


if __name__ == "__main__":
    main()
