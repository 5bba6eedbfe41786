"""Writes trees.json.gz: what XGBoost and scikit-learn make of data that the tests make too.

xgboost-cpu==3.2.0 scikit-learn==1.7.2 numpy==2.4.6 pyarrow (any), Python 3.11

    python make_trees.py            writes trees.json.gz beside itself
    python make_trees.py check DIR  reads the files the tests write with PELLUCID_TREES_OUT=DIR (NAME.json by XGBoost, NAME.onnx by
                                    onnxruntime 1.32) and compares their predictions with NAME.expect.csv

"exact" are trees over few distinct values, which have to be the same, split by split; a tree is a list, [feature, threshold,
default left, left, right] or [value]. "quality" are losses on rows held out.
"""

import gzip
import json
import math
import pathlib
import sys

import numpy as np
import xgboost

HERE = pathlib.Path(__file__).resolve().parent
FLIGHTS = HERE.parents[3] / "cmd/pellucid/demo/data/flights.parquet"


def uniform(seed, n):
    """SplitMix64, as in the tests."""
    with np.errstate(over="ignore"):
        v = np.uint64(seed) * np.uint64(0x2545F4914F6CDD1D) + np.arange(n, dtype=np.uint64)
        v = v + np.uint64(0x9E3779B97F4A7C15)
        v = (v ^ v >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        v = (v ^ v >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        v = v ^ v >> np.uint64(31)
    return (v >> np.uint64(11)).astype(float) / 2**53


def grid(n):
    """Rows of few distinct values: five numbers, some missing, and a category."""
    u = uniform(1, n * 6).reshape(n, 6)
    x = np.floor(u * [40, 7, 200, 3, 90, 9]).astype(np.float32)
    x[:, :5] = x[:, :5] / 8 - 1
    x[uniform(2, n * 6).reshape(n, 6) < 0.06] = np.nan
    f = np.nan_to_num(x, nan=2.0).astype(float)
    y = f[:, 0] * f[:, 1] + f[:, 2] / 16 + (f[:, 5] % 3) + 4 * uniform(3, n)
    return x, y


NUMBERS = {"max_bin": 256, "tree_method": "hist", "nthread": 1, "seed": 0}
EXACT = {
    # name: (objective, what is fitted, parameters, rounds, columns, weighted)
    "squared": ("reg:squarederror", {"max_depth": 6, "eta": 1.0, "lambda": 0, "min_child_weight": 0}, 1, 5, False),
    "rounds": ("reg:squarederror", {"max_depth": 4, "eta": 0.3, "lambda": 1, "min_child_weight": 5}, 5, 5, False),
    "weighted": ("reg:squarederror", {"max_depth": 5, "eta": 0.5, "lambda": 2, "gamma": 3, "min_child_weight": 2}, 3, 5, True),
    "leafwise": ("reg:squarederror", {"max_depth": 0, "max_leaves": 17, "grow_policy": "lossguide", "eta": 0.5, "lambda": 1, "min_child_weight": 1}, 3, 5, False),
    "logistic": ("binary:logistic", {"max_depth": 4, "eta": 0.3, "lambda": 1, "min_child_weight": 1}, 5, 5, True),
    "softmax": ("multi:softprob", {"max_depth": 3, "eta": 0.3, "lambda": 1, "min_child_weight": 1}, 3, 5, False),
    "poisson": ("count:poisson", {"max_depth": 3, "eta": 0.3, "lambda": 1, "min_child_weight": 1}, 4, 5, False),
    "monotone": ("reg:squarederror", {"max_depth": 4, "eta": 0.5, "lambda": 1, "min_child_weight": 1, "monotone_constraints": "(1,-1,1,0,0)"}, 4, 5, False),
    "onehot": ("reg:squarederror", {"max_depth": 4, "eta": 0.5, "lambda": 1, "min_child_weight": 1, "max_cat_to_onehot": 100}, 3, 6, False),
    "sets": ("reg:squarederror", {"max_depth": 4, "eta": 0.5, "lambda": 1, "min_child_weight": 1, "max_cat_to_onehot": 1}, 3, 6, False),
}


def labels_of(objective, y):
    if objective == "binary:logistic":
        return (y > 4).astype(float)
    if objective == "multi:softprob":
        return np.clip(np.floor(y / 3), 0, 2)
    if objective == "count:poisson":
        return np.floor(np.abs(y))
    return y


def base_of(objective, y, w):
    w = np.ones(len(y)) if w is None else w
    m = float(np.float32((y * w).sum() / w.sum()))
    if objective == "binary:logistic":
        m = float(np.float32(-math.log(float(np.float32(1) / np.float32(m) - np.float32(1)))))
    if objective == "count:poisson":
        m = float(np.float32(math.log(m)))
    if objective != "multi:softprob":
        return np.full(len(y), m, np.float32)
    p = np.log([w[y == k].sum() / w.sum() for k in range(3)])
    return np.tile((p - p.mean()).astype(np.float32), (len(y), 1))


def nested(tree, at=0):
    if tree["left_children"][at] == -1:
        return [tree["split_conditions"][at]]
    threshold = tree["split_conditions"][at]
    if tree["split_type"][at]:
        i = tree["categories_nodes"].index(at)
        begin = tree["categories_segments"][i]
        threshold = tree["categories"][begin : begin + tree["categories_sizes"][i]]
    sides = [nested(tree, tree[side + "_children"][at]) for side in ("left", "right")]
    return [tree["split_indices"][at], threshold, tree["default_left"][at], *sides]


def exact(name):
    objective, params, rounds, columns, weighted = EXACT[name]
    x, y = grid(600)
    y = labels_of(objective, y)
    w = np.floor(uniform(4, len(y)) * 3) / 2 + 0.25 if weighted else None
    kinds = ["q"] * 5 + ["c"]
    d = xgboost.DMatrix(x[:, :columns], y, weight=w, base_margin=base_of(objective, y, w), feature_types=kinds[:columns], enable_categorical=True)
    if objective.startswith("multi"):
        params = params | {"num_class": 3}
    booster = xgboost.train(NUMBERS | params | {"objective": objective}, d, rounds)
    model = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]
    return {"rounds": rounds, "trees": [nested(t) for t in model["trees"]]}


def friedman(n):
    x = uniform(11, n * 10).reshape(n, 10).astype(np.float32)
    f = x.astype(float)
    y = 10 * np.sin(np.pi * f[:, 0] * f[:, 1]) + 20 * (f[:, 2] - 0.5) ** 2 + 10 * f[:, 3] + 5 * f[:, 4]
    return x, y + 2 * uniform(12, n * 12).reshape(n, 12).sum(1) - 12


def mixed(n):
    x = uniform(21, n * 20).reshape(n, 20).astype(np.float32) * np.float32(2) - np.float32(1)
    f = x.astype(float)
    score = 3 * f[:, 0] * f[:, 1] + np.sin(4 * f[:, 2]) + 1.5 * f[:, 3:8].sum(1) * f[:, 9] + f[:, 10] * f[:, 11] * f[:, 12]
    x[uniform(22, n * 20).reshape(n, 20) < 0.03] = np.nan
    return x, score + uniform(23, n * 4).reshape(n, 4).sum(1) * 2 - 4


def flights():
    import pyarrow.parquet

    t = pyarrow.parquet.read_table(FLIGHTS).to_pandas()
    t = t[t.late >= 0]
    numbers = "month day hour minute day_of_week distance temp dewp humid wind_dir wind_speed wind_gust precip pressure visib".split()
    x = t[numbers].to_numpy(np.float32)
    codes = [np.unique(t[c].to_numpy(str), return_inverse=True)[1] for c in ("carrier", "origin", "dest")]
    return np.column_stack([x, *codes]).astype(np.float32), t.late.to_numpy(float)


def data_of(name):
    if name in ("friedman", "quantile"):
        return friedman(20000)
    if name == "flights":
        return flights()
    x, s = mixed(20000)
    if name == "binary":
        return x, (s > 0).astype(float)
    if name == "classes":
        return x, np.clip(np.floor(s / 1.5 + 2), 0, 3)
    return x, np.floor(np.exp(s / 3) * 2 * uniform(24, len(s)))  # counts


QUALITY = {
    "friedman": ("reg:squarederror", "squared_error", "rmse"),
    "binary": ("binary:logistic", "log_loss", "logloss"),
    "classes": ("multi:softprob", "log_loss", "mlogloss"),
    "counts": ("count:poisson", "poisson", "poisson-nloglik"),
    "quantile": ("reg:quantileerror", "quantile", "quantile"),
    "flights": ("binary:logistic", "log_loss", "logloss"),
}


def loss_of(kind, y, p):
    """Of predictions, not margins."""
    if kind == "squared_error":
        return ((y - p) ** 2).mean()
    if kind == "quantile":
        return np.maximum(0.9 * (y - p), -0.1 * (y - p)).mean()
    if kind == "poisson":
        return (p - y * np.log(p) + [math.lgamma(v + 1) for v in y]).mean()
    if p.ndim == 2:
        return -np.log(p[np.arange(len(y)), y.astype(int)]).mean()
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()


def quality(name):
    import sklearn.ensemble as e

    objective, sk, _ = QUALITY[name]
    x, y = data_of(name)
    held = np.arange(len(y)) % 4 == 3
    params = NUMBERS | {"objective": objective, "eta": 0.1, "max_depth": 6, "lambda": 1, "min_child_weight": 5, "max_bin": 255}
    if name == "classes":
        params |= {"num_class": 4}
    if name == "quantile":
        params |= {"quantile_alpha": 0.9}
    kinds = ["q"] * x.shape[1]
    if name == "flights":
        kinds[-3:] = "ccc"
        params |= {"max_cat_to_onehot": 1}
    make = lambda rows: xgboost.DMatrix(x[rows], y[rows], feature_types=kinds, enable_categorical=True)
    booster = xgboost.train(params, make(~held), 100)
    out = {"xgboost": loss_of(sk, y[held], booster.predict(make(held)).astype(float))}
    # min_samples_leaf is of rows, min_child_weight of hessians: the same for the squared loss only.
    common = dict(learning_rate=0.1, max_iter=100, max_depth=6, max_leaf_nodes=None, l2_regularization=1, min_samples_leaf=5, early_stopping=False)
    if sk == "log_loss":
        m = e.HistGradientBoostingClassifier(**common, categorical_features=[k == "c" for k in kinds])
        p = m.fit(x[~held], y[~held]).predict_proba(x[held])
        p = p[:, 1] if p.shape[1] == 2 else p
    else:
        m = e.HistGradientBoostingRegressor(**common, loss=sk, quantile=0.9 if sk == "quantile" else None)
        p = m.fit(x[~held], y[~held]).predict(x[held])
    out["sklearn"] = loss_of(sk, y[held], p)
    return out


def check(folder):
    import onnxruntime

    for path in sorted(pathlib.Path(folder).glob("*.expect.csv")):
        name = path.name.removesuffix(".expect.csv")
        want = np.loadtxt(path, delimiter=",", ndmin=2)
        x = np.genfromtxt(path.with_name(name + ".rows.csv"), delimiter=",").astype(np.float32)
        booster = xgboost.Booster(model_file=path.with_name(name + ".json"))
        got = booster.predict(xgboost.DMatrix(x, feature_names=booster.feature_names, feature_types=booster.feature_types, enable_categorical=True))
        print(name, "xgboost", float(np.abs(got.reshape(want.shape) - want).max()))
        onnx = path.with_name(name + ".onnx")
        if onnx.exists():
            s = onnxruntime.InferenceSession(onnx)
            got = s.run(None, {s.get_inputs()[0].name: x})[-1]
            if got.ndim == 2 and got.shape[1] > want.shape[1]:
                got = got[:, 1]
            print(name, "onnxruntime", float(np.abs(got.reshape(want.shape) - want).max()))


def main():
    out = {"exact": {n: exact(n) for n in EXACT}, "quality": {n: quality(n) for n in QUALITY}}
    for n, q in out["quality"].items():
        print(n, q)
    with gzip.GzipFile(HERE / "trees.json.gz", "wb", mtime=0) as f:
        f.write(json.dumps(out, separators=(",", ":")).encode())


if __name__ == "__main__":
    check(sys.argv[2]) if sys.argv[1:2] == ["check"] else main()
