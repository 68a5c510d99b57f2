"""Exponential smoothing as statsmodels computes it: forecasts and their variances of ETS models with given parameters, the
likelihood that its own fit finds, and forecasts of the theta method.

Apart from the others: it needs statsmodels (0.15) and no PyTorch, and writes internal/smoothing/testdata/statsmodels.json. With the
argument DIR it writes small.json beside it instead: mean absolute errors on the series of DIR/small/*.csv and DIR/cif_2016_dataset.tsf.
"""
import json
import os
import sys
import warnings

import numpy as np
import pandas as pd
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from statsmodels.tsa.forecasting.theta import ThetaModel

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 3, "internal", "smoothing", "testdata", "statsmodels.json")
WORDS = {"A": "add", "M": "mul", "N": None}
FORMS = ["ANN", "AAN", "AAdN", "ANA", "AAA", "AAdA", "MNM", "MAM", "MAdM"]


def series(rng, n, period, positive, trend):
    """A line with a season and changes of both."""
    t = np.arange(n)
    level = 50 + trend * t + np.cumsum(rng.normal(0, 0.8, n))
    season = np.sin(2 * np.pi * t / max(period, 2)) if period > 1 else 0 * t
    y = level * (1 + 0.2 * season) + rng.normal(0, 1, n) if positive else level - 50 + 5 * season + rng.normal(0, 1, n)
    return [float(f"{v:.4f}") for v in y]


def model(y, form, period):
    return ETSModel(pd.Series(y), error=WORDS[form[0]], trend=WORDS[form[1]], damped_trend="d" in form, seasonal=WORDS[form[-1]],
                    seasonal_periods=period if form[-1] != "N" else None)


def fixed(rng, form, y, period, horizon):
    """A form with given parameters."""
    alpha = rng.uniform(0.1, 0.7)
    given = {"smoothing_level": alpha}
    if form[1] == "A":
        given["smoothing_trend"] = alpha * rng.uniform(0.05, 0.5)
    if form[-1] != "N":
        given["smoothing_seasonal"] = (1 - alpha) * rng.uniform(0.1, 0.6)
    if "d" in form:
        given["damping_trend"] = rng.uniform(0.8, 0.98)
    given["initial_level"] = y[0]
    if form[1] == "A":
        given["initial_trend"] = rng.normal(0, 0.5)
    season = []
    if form[-1] == "A":
        season = list(rng.normal(0, 3, period))
    if form[-1] == "M":
        season = list(rng.uniform(0.7, 1.3, period))
    for i, s in enumerate(reversed(season)):  # statsmodels begins with the last
        given[f"initial_seasonal.{i}"] = s
    m = model(y, form, period)
    result = m.smooth([given[name] for name in m.param_names])
    forecast = list(result.forecast(horizon))
    if form[-1] == "M":
        # Its smoothing corrects factors by the new level, as Holt and Winters did, and its simulation by the old one, as the
        # book does. So the series is a simulated one, whose last errors are 0.
        errors = np.concatenate([rng.normal(0, 0.03, len(y)), np.zeros(horizon)])
        simulated = list(result.simulate(len(errors), anchor="start", random_errors=errors[:, None]))
        y, forecast = simulated[:-horizon], simulated[-horizon:]
    parameters = {"form": form, "alpha": alpha, "beta": given.get("smoothing_trend", 0), "gamma": given.get("smoothing_seasonal", 0),
                  "phi": given.get("damping_trend", 1), "level": given["initial_level"], "trend": given.get("initial_trend", 0), "season": season,
                  "sigma": float(np.sqrt(np.mean(result.resid ** 2)))}
    case = {"model": parameters, "y": y, "forecast": forecast}
    if form[0] == "A":
        case["variance"] = list(result.get_prediction(start=len(y), end=len(y) + horizon - 1).forecast_variance)
    return case


def theta(y, period, seasonal, horizon):
    r = ThetaModel(np.array(y), period=period, deseasonalize=seasonal, use_test=False).fit()
    return {"y": y, "period": period, "alpha": float(r.params.iloc[1]), "forecast": list(r.forecast(horizon))}


def fitted(y, form, period):
    r = model(y, form, period).fit(disp=0, maxiter=1000)
    return {"y": y, "form": form, "period": period, "loglikelihood": r.llf}


# Period and horizon of the series of DIR, and every how many rows of the last fifth a forecast begins.
SMALL = {"airpassengers": (12, 12), "ausbeer": (4, 8), "consumption": (4, 8), "cpi": (4, 8), "elnino": (12, 12), "heartrate": (1, 10), "iowa": (1, 3),
         "lynx": (1, 8), "nile": (1, 6), "ohlc": (5, 5), "shampoo": (12, 6), "tmax": (7, 14), "wineind": (12, 12)}
CANDIDATES = ["ANN", "AAN", "AAdN", "ANA", "AAdA", "MAdM"]


def best(y, period, horizon):
    """The forecast of the ETS form with the least AICc, of a few common ones."""
    chosen = None
    for form in CANDIDATES:
        if form[-1] != "N" and (period < 2 or len(y) < 3 * period) or "M" in form and min(y) <= 0:
            continue
        try:
            r = model(y, form, period).fit(disp=0, maxiter=200)
        except Exception:
            continue
        if np.isfinite(r.aicc) and (chosen is None or r.aicc < chosen.aicc):
            chosen = r
    return np.full(horizon, y[-1]) if chosen is None else np.array(chosen.forecast(horizon))


def score(name, y, period, horizon, origins):
    """The mean absolute errors of both methods, each fitted anew at each origin."""
    errors = {"ets": [], "theta": []}
    for o in origins:
        seasonal = period > 1 and o >= 3 * period
        forecasts = {"ets": best(y[:o], period, horizon),
                     "theta": ThetaModel(np.array(y[:o]), period=period, deseasonalize=seasonal).fit().forecast(horizon).values}
        for method, f in forecasts.items():
            errors[method].append(np.mean(np.abs(f - y[o:o + horizon])))
    return {"name": name, "period": period, "horizon": horizon, "origins": origins,
            **{method: float(np.mean(e)) for method, e in errors.items()}}


def small(directory):
    out = []
    for name, (period, horizon) in SMALL.items():
        y = list(pd.read_csv(os.path.join(directory, "small", name + ".csv"))["y"].astype(float))
        first = len(y) - max(len(y) // 5, horizon)
        out.append(score(name, y, period, horizon, list(range(first, len(y) - horizon + 1))[::max(1, len(y) // 60)]))
        print(out[-1], flush=True)
    with open(os.path.join(directory, "cif_2016_dataset.tsf"), encoding="latin-1") as f:
        for line in f:
            if line.startswith("T"):
                name, horizon, values = line.strip().split(":")
                y, horizon = [float(v) for v in values.split(",")], int(horizon)
                out.append(score("cif " + name, y, 12, horizon, [len(y) - horizon]))
    with open(os.path.join(os.path.dirname(OUT), "small.json"), "w") as f:
        f.write("[\n" + ",\n".join(map(json.dumps, out)) + "\n]\n")


def main():
    warnings.simplefilter("ignore")
    if len(sys.argv) > 1:
        return small(sys.argv[1])
    rng = np.random.default_rng(3)
    out = {"fixed": [], "theta": [], "fitted": []}
    for form in FORMS:
        out["fixed"].append(fixed(rng, form, series(rng, 40, 4, "M" in form, 0.3), 4, 11))
    for period, positive, n in [(1, True, 30), (1, False, 60), (4, True, 60), (4, False, 50), (7, True, 63), (12, True, 72)]:
        out["theta"].append(theta(series(rng, n, period, positive, 0.3), period, period > 1, 2 * period + 3))
    for form in FORMS:
        out["fitted"].append(fitted(series(rng, 72, 6, "M" in form, 0.2), form, 6))
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "w") as f:
        json.dump(out, f)
        f.write("\n")


if __name__ == "__main__":
    main()
