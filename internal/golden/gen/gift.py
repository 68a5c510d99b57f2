"""Scores of forecasts by GIFT-Eval's metrics, as GluonTS computes them: writes
task/forecast/testdata/gift.json. Needs gluonts (0.17.0 was used) and pandas.

    python3 internal/golden/gen/gift.py
"""

import json
import pathlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
from gluonts.dataset.common import ListDataset
from gluonts.dataset.split import split
from gluonts.ev import metrics as ev
from gluonts.model.evaluation import evaluate_forecasts
from gluonts.model.forecast import QuantileForecast

HORIZON, SEASON, NAN = 3, 2, np.nan
LEVELS = [0.025, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975]
# The second lacks a value; the third is constant before the horizon, so its errors
# have no scale; the last has zeros, of which one is forecast exactly.
SERIES = [
    [3, 5, 4, 6, 2, 7, 5, 8, 3, 6, 4, 9, 5],
    [100, 130, 90, 160, NAN, 150, 80, 170, 110, 140, 95, 180, 0],
    [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 6.5],
    [1, 2, 4, 3, 5, 6, NAN, 8, 2, 4, NAN, 1, 0],
]


def listed(x):
    return [None if np.isnan(v) else float(v) for v in x]


def main():
    table = ListDataset([{"start": pd.Period("2020-01-01 00:00", freq="h"), "target": s, "item_id": str(i)} for i, s in enumerate(SERIES)], freq="h")
    _, template = split(table, offset=-2 * HORIZON)
    test = template.generate_instances(prediction_length=HORIZON, windows=2, distance=HORIZON)
    random = np.random.default_rng(1)
    inputs, labels, forecasts, windows = list(test.input), list(test.label), [], []
    for given, label in zip(inputs, labels):
        mean = np.round(np.nanmean(given["target"]) + random.normal(0, 2, HORIZON), 2)
        quantiles = np.round(np.sort(mean + random.normal(0, 3, (len(LEVELS), HORIZON)), axis=0), 2)
        if given["item_id"] == "3":
            quantiles -= quantiles[5] - np.nan_to_num(label["target"], nan=1.0)
        forecasts.append(QuantileForecast(forecast_arrays=np.vstack([quantiles, mean]), forecast_keys=[str(q) for q in LEVELS] + ["mean"],
                                          start_date=label["start"], item_id=given["item_id"]))
        windows.append({"past": listed(given["target"]), "y": listed(label["target"]), "mean": mean.tolist(), "quantiles": quantiles.tolist()})
    metrics = [ev.MSE("mean"), ev.MSE("0.5"), ev.MAE("0.5"), ev.MASE("0.5"), ev.MAPE("0.5"), ev.SMAPE("0.5"), ev.MSIS(), ev.RMSE("mean"),
               ev.NRMSE("mean"), ev.ND("0.5"), ev.MeanWeightedSumQuantileLoss(LEVELS[1:-1])]
    cases = []
    for series in ([0], [0, 1], [0, 1, 2, 3]):
        chosen = [i for i, given in enumerate(inputs) if int(given["item_id"]) in series]
        part = SimpleNamespace(input=[inputs[i] for i in chosen], label=[labels[i] for i in chosen])
        scores = evaluate_forecasts([forecasts[i] for i in chosen], test_data=part, metrics=metrics, axis=None, seasonality=SEASON)
        cases.append({"windows": [windows[i] for i in chosen], "want": {name: float(v.iloc[0]) for name, v in scores.items()}})
    path = pathlib.Path(__file__).parents[3] / "task" / "forecast" / "testdata" / "gift.json"
    path.write_text(json.dumps({"season": SEASON, "cases": cases}, indent=1) + "\n")


main()
