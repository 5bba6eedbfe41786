"""Makes the oracle models of this folder: see README.md.

catboost==1.2.10 numpy==2.4.6, Python 3.11:
    python -m venv v && v/bin/pip install catboost==1.2.10 numpy==2.4.6 && v/bin/python make_models.py [FOLDER]
"""

import csv
import json
import math
import os
import sys
import tempfile

import catboost as cb
import numpy as np

rng = np.random.default_rng(20261126)
N = 400
COLOURS = ["red", "grün", "blue", "", " red", "чёрный"]
SHOPS = ["s%d" % i for i in range(30)] + ["x" * 100, "日本" * 20, "a,b", 'say "hi"']
DIR = "."

# A model's prediction is what the library's own predict answers by default, or the
# probabilities of a classifier: of the second class where there are two.
PROBABILITY = {"Logloss", "CrossEntropy", "Focal", "MultiClass", "MultiClassOneVsAll", "MultiLogloss", "MultiCrossEntropy"}
DEFAULT = {"Poisson": "Exponent", "Tweedie": "Exponent", "RMSEWithUncertainty": "RMSEWithUncertainty"}


def lists(a):
    a = np.asarray(a, dtype=float)
    return a.reshape(len(a), -1).tolist()


def expect(model, loss, pool):
    margin = lists(model.predict(pool, prediction_type="RawFormulaVal"))
    kind = "Probability" if loss in PROBABILITY else DEFAULT.get(loss, "RawFormulaVal")
    prediction = lists(model.predict(pool, prediction_type=kind))
    if loss in ("Logloss", "CrossEntropy", "Focal"):
        prediction = [p[1:] for p in prediction]
    out = {"library": "catboost", "version": cb.__version__, "prediction": prediction, "margin": margin}
    try:
        phi = np.asarray(model.get_feature_importance(pool, type="ShapValues"), dtype=float)
        out["contribs"] = phi.reshape(len(phi), -1, phi.shape[-1]).tolist()
    except cb.CatBoostError as e:
        print("no contributions:", e)
    return out


def cell(v):
    return v if isinstance(v, str) else str(v) if isinstance(v, int) else "" if v != v else repr(float(v))


def by_definition(path, rows, contribs):
    """Shapley values of trees that are not symmetric, over all sets of features.

    CatBoost's own do not add up to its predictions there (as of 1.2.10: see
    add_up), so that they are no expectation for anybody.
    """
    with open(path, encoding="utf-8") as f:
        doc = json.load(f)
    if "trees" not in doc:
        return contribs
    info = doc["features_info"]
    flat = {("f", f["feature_index"]): f["flat_feature_index"] for f in info["float_features"]}
    nan = {f["feature_index"]: {"AsTrue": np.inf, "AsFalse": -np.inf}.get(f["nan_value_treatment"], np.nan) for f in info["float_features"]}
    flat.update({("c", f["feature_index"]): f["flat_feature_index"] for f in info.get("categorical_features", [])})
    hashes = {e["value"]: e["hash"] for e in info.get("cat_features_hash", [])}
    m, bias = len(flat), np.array(doc["scale_and_bias"][1], dtype=float)

    def goes_right(split, row):
        if split["split_type"] == "OneHotFeature":
            return hashes.get(str(row[flat["c", split["cat_feature_index"]]])) == split["value"] % 2**32
        v = row[flat["f", split["float_feature_index"]]]
        with np.errstate(over="ignore"):
            return bool((nan[split["float_feature_index"]] if v != v else np.float32(v)) > np.float32(split["border"]))

    def prepare(n):
        if "value" in n:
            return n["weight"], np.array(n["value"], dtype=float).reshape(-1), None, None, None
        left, right, split = prepare(n["left"]), prepare(n["right"]), n["split"]
        feature = flat["c", split["cat_feature_index"]] if split["split_type"] == "OneHotFeature" else flat["f", split["float_feature_index"]]
        return left[0] + right[0], split, feature, left, right

    def value(n, row, known):
        weight, what, feature, left, right = n
        if left is None:
            return what
        if known >> feature & 1:
            return value(right if goes_right(what, row) else left, row, known)
        share = left[0] / weight if weight else 0.5
        return share * value(left, row, known) + (1 - share) * value(right, row, known)

    trees, out = [prepare(t) for t in doc["trees"]], []
    for row in rows:
        v = [sum(value(t, row, known) for t in trees) for known in range(1 << m)]
        phi = []
        for f in range(m):
            phi.append(sum((v[s | 1 << f] - v[s]) / (m * math.comb(m - 1, s.bit_count())) for s in range(1 << m) if not s >> f & 1))
        out.append(np.array(phi + [v[0] + bias]).T.tolist())
    return out


def add_up(expected):
    """Reports whether contributions make the margins."""
    return all(abs(sum(c) - g) < 1e-9 for row, margin in zip(expected["contribs"], expected["margin"]) for c, g in zip(row, margin) if abs(g) < 1e300)


def compact(path):
    """Takes white space out of a file, and the run's log, which is of no model."""
    with open(path, encoding="utf-8") as f:
        doc = json.load(f)
    doc["model_info"].pop("training", None)
    doc["model_info"].pop("output_options", None)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(doc, f, separators=(",", ":"), ensure_ascii=False)


def save(name, model, loss, rows, cat=(), pool=None):
    path = os.path.join(DIR, name)
    model.save_model(path + ".json", format="json", pool=pool)
    compact(path + ".json")
    rows_pool = cb.Pool(rows, cat_features=list(cat)) if cat else cb.Pool(np.array(rows, dtype=float))
    if pool is not None:
        rows_pool.set_feature_names(pool.get_feature_names())
    expected = expect(model, loss, rows_pool)
    if "contribs" in expected:
        own = add_up(expected)
        expected["contribs"] = by_definition(path + ".json", rows, expected["contribs"])
        if not own or not add_up(expected):
            print(name, "adds up: the library's own %s, by definition %s" % (own, add_up(expected)))
    with open(path + ".expect.json", "w") as f:
        # JSON has no infinity: it is a number out of range.
        text = json.dumps(expected, separators=(",", ":"))
        f.write(text.replace("-Infinity", "-1e999"))
    with open(path + ".rows.csv", "w", newline="", encoding="utf-8") as f:
        csv.writer(f, lineterminator="\n").writerows([[cell(v) for v in row] for row in rows])
    print(name, os.path.getsize(path + ".json"))
    return model


def train(loss, X, y, cat=(), names=None, group=None, weight=None, pairs=None, **params):
    p = {"iterations": 4, "depth": 3, "learning_rate": 0.4, "random_seed": 7, "thread_count": 1, "verbose": 0,
         "allow_writing_files": False, "train_dir": tempfile.gettempdir(), "loss_function": loss, "border_count": 20}
    p.update(params)
    if p.get("depth") is None:
        del p["depth"]
    data = X if cat else np.array(X, dtype=float)
    pool = cb.Pool(data, label=y, cat_features=list(cat) or None, feature_names=names, group_id=group, weight=weight, pairs=pairs)
    return cb.CatBoost(p).fit(pool), pool


def numbers(missing=0.1):
    X = rng.normal(size=(N, 4)) * [1, 10, 0.01, 1]
    X[:, 3] = np.round(X[:, 3])
    X[rng.random(X.shape) < missing] = np.nan
    return X


def score(X):
    Z = np.nan_to_num(X, nan=-1.0)
    return Z[:, 0] * 2 + (Z[:, 1] > 2) * 3 - Z[:, 2] * 50 * (Z[:, 0] > 0) + np.isnan(X[:, 3])


def edges(model, rows):
    """Adds rows at and beside the borders of the model, in float32 and in between."""
    path = os.path.join(tempfile.gettempdir(), "edges.json")
    model.save_model(path, format="json")
    with open(path) as f:
        features = json.load(f)["features_info"]["float_features"]
    out = [list(r) for r in rows]
    base = [0.5, 1.5, 0.01, 1.0]
    for feature in features:
        for b in feature["borders"][:3]:
            f = np.float32(b)
            with np.errstate(over="ignore"):
                up, down = float(np.nextafter(f, np.float32(np.inf))), float(np.nextafter(f, np.float32(-np.inf)))
            middle, low = (float(f) + up) / 2, (float(f) + down) / 2
            for v in [b, up, down, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf), low, np.nextafter(low, np.inf), np.nextafter(low, -np.inf)]:
                row = list(base)
                row[feature["flat_feature_index"]] = float(v)
                out.append(row)
    for v in [0.0, -0.0, np.nan, 1e-45, 1e-46, 7e-46, -1e-45, 1e300, -1e300, 3.4028235e38, 3.4028236e38, -3.4028235e38, np.inf, -np.inf, 16777217.0]:
        out.append([v] * 4)
    return out


def losses():
    X = numbers()
    y = score(X) + rng.normal(size=N) * 0.1
    rows = X[:12].tolist()
    for loss in ["RMSE", "MAE", "Quantile:alpha=0.3", "LogLinQuantile", "MAPE", "Lq:q=3", "Huber:delta=1", "Expectile:alpha=0.3", "LogCosh"]:
        m, _ = train(loss, X, y if loss != "LogLinQuantile" else np.exp(y / 5), leaf_estimation_iterations=1)
        save("loss_" + loss.split(":")[0].lower(), m, loss.split(":")[0], rows)
    for loss in ["Poisson", "Tweedie:variance_power=1.4"]:
        m, _ = train(loss, X, np.round(np.exp(np.clip(y, -3, 3))))
        save("loss_" + loss.split(":")[0].lower(), m, loss.split(":")[0], rows)
    m, _ = train("RMSEWithUncertainty", X, y)
    save("loss_uncertainty", m, "RMSEWithUncertainty", rows)
    m, _ = train("MultiRMSE", X, np.column_stack([y, -y, y * y]))
    save("loss_multirmse", m, "MultiRMSE", rows)
    m, _ = train("MultiQuantile:alpha=0.1,0.5,0.9", X, y)
    save("loss_multiquantile", m, "MultiQuantile", rows)
    group = np.repeat(np.arange(N // 10), 10)
    relevance = np.clip(np.round(y), 0, 4)
    for loss in ["YetiRank", "QueryRMSE", "QuerySoftMax"]:
        m, _ = train(loss, X, relevance, group=group)
        save("loss_" + loss.lower(), m, loss, rows)
    binary = (y > np.median(y)).astype(int)
    for loss in ["Logloss", "CrossEntropy", "Focal:focal_alpha=0.4;focal_gamma=1.5"]:
        m, _ = train(loss, X, binary)
        save("loss_" + loss.split(":")[0].lower(), m, loss.split(":")[0], rows)
    kinds = np.digitize(y, np.quantile(y, [0.3, 0.6]))
    for loss in ["MultiClass", "MultiClassOneVsAll"]:
        m, _ = train(loss, X, kinds)
        save("loss_" + loss.lower(), m, loss, rows)
    m, _ = train("MultiLogloss", X, np.column_stack([binary, kinds == 1]).astype(int))
    save("loss_multilogloss", m, "MultiLogloss", rows)
    m, _ = train("Logloss", X, np.array(["no", "yes"])[binary])
    save("classes_text", m, "Logloss", rows[:4])
    m, _ = train("MultiClass", X, np.array(["low", "mid", "high"])[kinds], class_names=["high", "low", "mid"])
    save("classes_order", m, "MultiClass", rows[:4])
    m, _ = train("MultiClass", X, kinds * 2, classes_count=5)
    save("classes_unseen", m, "MultiClass", rows[:4])
    m, _ = train("Logloss", X, binary > 0)
    save("classes_bool", m, "Logloss", rows[:4])


def shapes():
    X = numbers()
    y = score(X) + rng.normal(size=N) * 0.1
    for mode in ["Min", "Max"]:
        m, _ = train("RMSE", X, y, nan_mode=mode, depth=5)
        save("nan_" + mode.lower(), m, "RMSE", edges(m, X[:10].tolist()))
    Z = np.nan_to_num(X)
    m, _ = train("RMSE", Z, y, depth=5)
    save("nan_none", m, "RMSE", edges(m, X[:10].tolist()))
    huge = Z * [1e38, 1e-40, 1, 1]
    m, _ = train("RMSE", huge, y, depth=4)
    save("range", m, "RMSE", edges(m, huge[:10].tolist()))
    for policy in ["Lossguide", "Depthwise"]:
        m, _ = train("RMSE", X, y, grow_policy=policy, depth=4)
        save(policy.lower(), m, "RMSE", edges(m, X[:10].tolist()))
    m, _ = train("MultiClass", X, np.digitize(y, [0, 2]), grow_policy="Lossguide", max_leaves=9)
    save("lossguide_multiclass", m, "MultiClass", X[:12].tolist())
    m, _ = train("RMSE", X, y, weight=rng.random(N) * 3, names=["size", "weight", "größe", "a b"])
    save("weights", m, "RMSE", X[:12].tolist())
    m, _ = train("RMSE", X, np.full(N, 2.5), iterations=2, allow_const_label=True, bootstrap_type="No")
    save("constant", m, "RMSE", X[:4].tolist())
    a, _ = train("RMSE", X, y)
    a.set_scale_and_bias(-2.5, 3.25)
    save("scale", a, "RMSE", X[:12].tolist())
    a, _ = train("Logloss", X, (y > 0).astype(int))
    b, _ = train("Logloss", X, (y > 1).astype(int), depth=2)
    save("sum", cb.sum_models([a, b], weights=[0.5, 2]), "none", X[:12].tolist())


def categories():
    base = numbers(0.05)
    shop = rng.choice(SHOPS, N)
    colour = rng.choice(COLOURS, N)
    code = rng.integers(-2, 6, N)
    X = [[float(base[i, 0]), str(colour[i]), float(base[i, 1]), str(shop[i]), int(code[i])] for i in range(N)]
    y = np.nan_to_num(base[:, 0]) + (colour == "grün") * 2 + np.array([len(s) + int.from_bytes(s.encode(), "big") % 5 for s in shop]) % 4 + (code == 2) * 3 + (code == -1) * (colour == "red") * 2
    cat, names = [1, 3, 4], ["x", "colour", "y", "shop", "code"]
    rows = [list(r) for r in X[:16]]
    rows[0][1], rows[1][3], rows[2][4] = "never seen", "neither", 99
    rows[3][1], rows[3][3], rows[3][4] = "", "", -2147483648
    rows[4][0], rows[4][2] = float("nan"), float("nan")
    rows[5][4], rows[6][1] = 9007199254740993, "RED"
    few = {"iterations": 3, "depth": 3}
    m, pool = train("RMSE", X, y, cat, names, one_hot_max_size=255, **few)
    save("onehot", m, "RMSE", rows, cat, pool)
    for policy in ["Lossguide", "Depthwise"]:
        m, pool = train("RMSE", X, y, cat, names, one_hot_max_size=255, grow_policy=policy, **few)
        save("onehot_" + policy.lower(), m, "RMSE", rows, cat, pool)
    kinds = np.digitize(y, np.quantile(y, [0.3, 0.6]))
    few["max_ctr_complexity"] = 1
    for ctr in ["Borders", "Buckets", "BinarizedTargetMeanValue", "Counter"]:
        m, pool = train("RMSE", X, y, cat, names, one_hot_max_size=2, simple_ctr=[ctr + (":TargetBorderCount=3" if ctr in ("Borders", "Buckets") else "")], **few)
        save("ctr_" + ctr.lower(), m, "RMSE", rows, cat, pool)
    m, pool = train("MultiClass", X, np.array(["a", "b", "c"])[kinds], cat, names, one_hot_max_size=2, simple_ctr=["Borders", "Buckets", "Counter:Prior=0.3/1"], **few)
    save("ctr_multiclass", m, "MultiClass", rows, cat, pool)
    m, pool = train("Logloss", X, kinds > 1, cat, names, one_hot_max_size=6, **few)
    save("ctr_onehot", m, "Logloss", rows, cat, pool)
    few.update(max_ctr_complexity=4, depth=6, iterations=4)
    joint = np.array([COLOURS.index(c) for c in colour]) * 2 + code
    y, kinds = y + joint % 5 * 3.0, joint % 5 // 2
    m, pool = train("Logloss", X, kinds > 1, cat, names, one_hot_max_size=7, per_feature_ctr=["3:Counter:Prior=0.5"], **few)
    save("combination", m, "Logloss", rows, cat, pool)
    few.update(iterations=2, depth=5)
    m, pool = train("RMSE", X, y, cat, names, one_hot_max_size=2, combinations_ctr=["Borders", "Counter"], **few)
    save("combination_counter", m, "RMSE", rows, cat, pool)


def main():
    global DIR
    DIR = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    losses()
    shapes()
    categories()


if __name__ == "__main__":
    main()
