"""Writes ../data/expected.json: what the demo must find again.

AUCs by scikit-learn on the very predictions that XGBoost and onnxruntime give
from the files in ../data/models, by period; unlabelled flights (cancelled,
diverted) are left out of AUC. Months are windows of event time in UTC over the
replayed flights (local dates from April 1), as the server's windows are. `rows` are
single predictions for comparison, by the flight's external id.

Run: python expected.py  (after flights.py and models.py)
"""

import json

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from demo import DATA, GBM_FEATURES, MLP_FEATURES, PREDICT, flights, reference, replayed, train

EXAMPLES = 40


def external_id(r) -> str:
    return f"{r.year:04d}-{r.month:02d}-{r.day:02d}/{r.carrier}{r.flight}/{r.origin}"


def auc(rows: pd.DataFrame, score: str) -> float:
    labelled = rows[rows.late >= 0]
    return float(roc_auc_score(labelled.late, labelled[score]))


def period(rows: pd.DataFrame) -> dict:
    labelled = rows[rows.late >= 0]
    return {
        "rows": len(rows), "labelled": len(labelled), "share_late": float(labelled.late.mean()),
        "auc": {m: auc(rows, m) for m in PREDICT},
        "mean_score": {m: float(rows[m].astype(np.float64).mean()) for m in PREDICT},
    }


def example(r) -> dict:
    def value(name):
        v = getattr(r, name)
        if isinstance(v, str):
            return v
        return None if np.isnan(v) else float(np.format_float_positional(np.float32(v), unique=True))

    return {
        "external_id": external_id(r),
        "features": {n: value(n) for n in GBM_FEATURES},
        "predictions": {m: float(getattr(r, m)) for m in PREDICT},
    }


def main() -> None:
    f = flights()
    for name, predict in PREDICT.items():
        f[name] = predict(f)
    live = replayed(f)
    months = []
    for start in pd.date_range("2013-04-01", "2013-12-01", freq="MS", tz="UTC"):
        end = start + pd.DateOffset(months=1)
        rows = live[(live.sched_dep >= start) & (live.sched_dep < end)]
        months.append({"from": start.strftime("%FT%TZ"), "to": end.strftime("%FT%TZ")} | period(rows))
    picked = live.sample(EXAMPLES, random_state=1).sort_index()
    out = {
        "features": {"flights_gbm": GBM_FEATURES, "flights_mlp": MLP_FEATURES},
        "train": period(train(f)), "reference": period(reference(f)), "replayed": period(live),
        "months": months, "rows": [example(r) for r in picked.itertuples()],
    }
    (DATA / "expected.json").write_text(json.dumps(out, indent=1) + "\n")
    for name in ("train", "reference", "replayed"):
        print(name, out[name])
    for m in months:
        print(m["from"][:7], m["rows"], m["labelled"], round(m["share_late"], 4), m["auc"])


if __name__ == "__main__":
    main()
