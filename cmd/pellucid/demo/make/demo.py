"""What the demo's scripts share: the flights, the features, the periods.

Nothing here is run by itself.
"""

import pathlib

import numpy as np
import pandas as pd

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
MODELS = DATA / "models"
GBM = MODELS / "flights_gbm" / "1"
MLP = MODELS / "flights_mlp" / "1"

CATEGORICAL = ["carrier", "origin"]
NUMERIC = [
    "day_of_week", "hour", "minute", "distance",
    "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib",
]
# The month is no feature: two months of training would teach only "January or
# February", and it would drift every week of the year to no purpose. Nor is the
# destination: 105 airports let the trees learn the two months by heart (higher AUC
# there, no higher in March); the distance says most of what it says.
GBM_FEATURES = CATEGORICAL + NUMERIC
# The network takes numbers, so that every input has a gradient. It leaves out what
# is often missing: gusts on most hours, pressure on one in nine, the direction of
# light and variable winds.
MLP_FEATURES = [n for n in NUMERIC if n not in ("wind_dir", "wind_gust", "pressure")]


def flights() -> pd.DataFrame:
    """Every flight; categories are all the carriers and airports of the year's
    schedule (names only: a timetable is known in advance)."""
    f = pd.read_parquet(DATA / "flights.parquet")
    for c in CATEGORICAL:
        f[c] = f[c].astype(pd.CategoricalDtype(sorted(f[c].unique())))
    return f


def train(f: pd.DataFrame) -> pd.DataFrame:
    """January and February, local dates, the flights that got a label."""
    return f[(f.month <= 2) & (f.late >= 0)]


def reference(f: pd.DataFrame) -> pd.DataFrame:
    """March, local dates, labelled or not: what drift is measured against."""
    return f[f.month == 3]


def replayed(f: pd.DataFrame) -> pd.DataFrame:
    """April to December, local dates, in order of event time."""
    return f[f.month >= 4]


def gbm_predict(rows: pd.DataFrame) -> np.ndarray:
    """What XGBoost's predict gives: P(late), float32."""
    import xgboost

    booster = xgboost.Booster(model_file=GBM / "model.ubj")
    return booster.predict(xgboost.DMatrix(rows[GBM_FEATURES], enable_categorical=True))


def mlp_predict(rows: pd.DataFrame) -> np.ndarray:
    """What onnxruntime gives: P(late), float32."""
    import onnxruntime

    session = onnxruntime.InferenceSession(MLP / "model.onnx", providers=["CPUExecutionProvider"])
    feed = {n: rows[n].to_numpy(np.float32).reshape(-1, 1) for n in MLP_FEATURES}
    return session.run(["probabilities"], feed)[0][:, 1]


PREDICT = {"flights_gbm": gbm_predict, "flights_mlp": mlp_predict}
