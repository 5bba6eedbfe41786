"""Writes ../data/evidently_weekly.json: Evidently's PSI of every feature and of
both predictions, for each ISO week of event time (UTC) of the replayed flights,
against March, and whether Evidently calls it drift.

Column kinds are declared, not inferred. Numbers are handed over as float64: newer
numpy gives integer columns other histogram bins, and Evidently's PSI follows it.
The values are those the models see (float32, widened).

Run: DO_NOT_TRACK=1 python evidently_run.py  (after flights.py and models.py)
"""

import importlib.metadata
import json

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift

from demo import CATEGORICAL, DATA, GBM_FEATURES, PREDICT, flights, reference, replayed

THRESHOLD = 0.1
COLUMNS = GBM_FEATURES + list(PREDICT)


def plain(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns Evidently sees: text for categories, float64 for numbers."""
    types = {c: str if c in CATEGORICAL else np.float64 for c in COLUMNS}
    return rows[COLUMNS].astype(types)


def weeks(live: pd.DataFrame):
    """ISO weeks, Monday 00:00 UTC to the next; the last one ends with the data."""
    start = pd.Timestamp("2013-04-01", tz="UTC")
    while start <= live.sched_dep.max():
        end = start + pd.Timedelta(days=7)
        yield start, end, live[(live.sched_dep >= start) & (live.sched_dep < end)]
        start = end


def main() -> None:
    f = flights()
    for name, predict in PREDICT.items():
        f[name] = predict(f)
    numeric = [c for c in COLUMNS if c not in CATEGORICAL]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=CATEGORICAL)
    march = Dataset.from_pandas(plain(reference(f)), data_definition=definition)
    report = Report([ValueDrift(column=c, method="psi", threshold=THRESHOLD) for c in COLUMNS])
    out = []
    for start, end, rows in weeks(replayed(f)):
        current = Dataset.from_pandas(plain(rows), data_definition=definition)
        result = report.run(current, march).dict()
        psi = dict(zip(COLUMNS, (float(m["value"]) for m in result["metrics"]), strict=True))
        iso = start.isocalendar()
        out.append({
            "week": f"{iso.year}-W{iso.week:02d}",
            "from": start.strftime("%FT%TZ"), "to": end.strftime("%FT%TZ"), "rows": len(rows),
            "psi": psi, "drifted": {c: v >= THRESHOLD for c, v in psi.items()},
        })
    versions = {p: importlib.metadata.version(p) for p in ("evidently", "numpy", "pandas", "scipy")}
    doc = {
        "stattest": "psi", "threshold": THRESHOLD, "versions": versions, "reference": "March 2013, local dates",
        "kinds": {c: "categorical" if c in CATEGORICAL else "numeric" for c in COLUMNS}, "weeks": out,
    }
    (DATA / "evidently_weekly.json").write_text(json.dumps(doc, indent=1) + "\n")
    drifted = pd.DataFrame([w["drifted"] for w in out], index=[w["week"] for w in out])
    print(f"{len(out)} weeks; weeks drifted by column:\n{drifted.sum().to_string()}")


if __name__ == "__main__":
    main()
