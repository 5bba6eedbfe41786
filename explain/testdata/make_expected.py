"""Writes what the field's libraries say of models in engine/*/testdata, for explain's tests.

Made with: xgboost==3.2.0 lightgbm==4.6.0 shap==0.51.0 numpy==2.3.5
Run from the repository's root: python explain/testdata/make_expected.py

interactions_<model>.json: XGBoost's pred_interactions on the margin, [row][output][feature + 1][feature + 1].
background_<model>.json:   shap's interventional values of LightGBM models (rows, background = other rows of the same file),
                           {"rows": count, "background": count, "values": [row][output][feature], "base": [output]}.
"""

import json
import pathlib

import lightgbm
import numpy
import shap
import xgboost

here = pathlib.Path(__file__).parent
xgb = here.parent.parent / "engine/xgboost/testdata"
lgb = here.parent.parent / "engine/lightgbm/testdata"


def rows_of(folder, name):
    return numpy.genfromtxt(folder / f"{name}.rows.csv", delimiter=",")


def write(name, value):
    (here / f"{name}.json").write_text(json.dumps(value, separators=(",", ":")) + "\n")


for name, file, count in [("deep", "deep.ubj", 4), ("dart", "dart.ubj", 4), ("objective_multi_softprob", "objective_multi_softprob.json", 3), ("objective_count_poisson", "objective_count_poisson.json", 4)]:
    booster = xgboost.Booster(model_file=xgb / file)
    rows = rows_of(xgb, name)[:count]
    got = booster.predict(xgboost.DMatrix(rows, feature_names=booster.feature_names), pred_interactions=True).astype(float)
    if got.ndim == 3:
        got = got[:, None]
    write(f"interactions_{name}", {"model": file, "values": numpy.round(got, 9).tolist()})

for name in ["objective_binary", "deep", "objective_regression", "nomissing", "missing_nan"]:
    booster = lightgbm.Booster(model_file=lgb / f"{name}.txt")
    rows = rows_of(lgb, name)
    half = min(len(rows) // 2, 20)
    x, background = rows[:half], rows[half:]
    # shap's C++ walk knows neither LightGBM's missing types nor float64 thresholds; rows without NaN and zeros agree.
    keep = numpy.isfinite(background).all(axis=1)
    x, background = x[numpy.isfinite(x).all(axis=1)], background[keep]
    explainer = shap.TreeExplainer(booster, data=background, feature_perturbation="interventional", model_output="raw")
    values = explainer.shap_values(x, check_additivity=False)
    assert values.ndim == 2, values.shape
    write(
        f"background_{name}",
        {"model": f"{name}.txt", "x": x.tolist(), "background": background.tolist(), "values": values.tolist(), "base": float(numpy.ravel(explainer.expected_value)[0])},
    )
