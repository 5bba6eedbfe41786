# Makes the oracle models of this folder; see README.md.
# Needs: python 3.11, xgboost==3.2.0, numpy==2.*, pandas<3.
# With another version of XGBoost: python make_models.py --suffix v1_7 makes the few models of that version.
# Versions before 1.6 need numpy==1.23.5, scipy==1.10.1 and pandas==1.5.3 beside them.
import argparse
import json

import numpy as np
import pandas as pd
import xgboost as xgb

parser = argparse.ArgumentParser()
parser.add_argument("--suffix", default="")
ARGS = parser.parse_args()
rng = np.random.default_rng(7)
N, M, ROWS, CATEGORICAL_ROWS = 400, 6, 24, 30
X = rng.normal(size=(N, M)).astype(np.float32)
X[rng.random(X.shape) < 0.1] = np.nan
Z = np.nan_to_num(X)
score = Z[:, 0] * 1.5 - Z[:, 1] + Z[:, 2] * Z[:, 3]
noise = rng.normal(size=N)
reg = score + noise * 0.2
binary = (score + noise > 0).astype(float)
classes = np.digitize(score + noise, [-1, 1]).astype(float)
counts = rng.poisson(np.exp(np.clip(score * 0.3, -3, 3))).astype(float)
positive = np.exp(score * 0.3 + noise * 0.2)
PARAMS = {"max_depth": 4, "eta": 0.4, "nthread": 1, "seed": 3}


def cell(v):
    if np.isnan(v):
        return ""
    return repr(v.item()) if isinstance(v, np.generic) else repr(v)


def shortest(values):
    """float32 as the shortest text that reads back as float32."""
    a = np.asarray(values, dtype=np.float32)
    return [[float(np.format_float_scientific(v, unique=True, trim="-")) if np.isfinite(v) else v for v in r] for r in a]


def save(name, booster, rows, ext="json", encoded=None, contribs=True, **kw):
    if ARGS.suffix:
        name += "." + ARGS.suffix
    booster.save_model(f"{name}.{ext}")
    d = xgb.DMatrix(rows, **kw)
    n = d.num_row()
    prediction = booster.predict(d).reshape(n, -1)
    margin = booster.predict(d, output_margin=True).reshape(n, -1)
    out = {
        "library": "xgboost",
        "version": xgb.__version__,
        "prediction": shortest(prediction),
        "margin": shortest(margin),
    }
    if contribs:
        phi = booster.predict(d, pred_contribs=True)
        out["contribs"] = [shortest(r) for r in phi.reshape(n, margin.shape[1], -1)]
    with open(f"{name}.expect.json", "w") as f:
        json.dump(out, f, separators=(",", ":"))
    matrix = np.asarray(rows if encoded is None else encoded)
    with open(f"{name}.rows.csv", "w") as f:
        for r in matrix:
            f.write(",".join(cell(v) for v in r) + "\n")


def train(params, y, rounds=8, x=X, **kw):
    return xgb.train({**PARAMS, **params}, xgb.DMatrix(x, y, **kw), rounds)


def objectives():
    for name, y in [
        ("reg:squarederror", reg), ("reg:squaredlogerror", positive), ("reg:pseudohubererror", reg),
        ("reg:absoluteerror", reg), ("reg:logistic", binary), ("reg:gamma", positive), ("reg:tweedie", counts),
        ("count:poisson", counts), ("binary:logistic", binary), ("binary:logitraw", binary), ("binary:hinge", binary),
        ("survival:cox", np.where(binary > 0, positive, -positive)),
    ]:
        save("objective_" + name.replace(":", "_"), train({"objective": name}, y), X[:ROWS])
    for name in ("multi:softprob", "multi:softmax"):
        save("objective_" + name.replace(":", "_"), train({"objective": name, "num_class": 3}, classes, 4), X[:ROWS])
    for name in ("rank:ndcg", "rank:pairwise", "rank:map"):
        d = xgb.DMatrix(X, binary if name == "rank:map" else classes)
        d.set_group([40] * 10)
        save("objective_" + name.replace(":", "_"), xgb.train({**PARAMS, "objective": name}, d, 4), X[:ROWS])
    d = xgb.DMatrix(X)
    d.set_float_info("label_lower_bound", positive)
    d.set_float_info("label_upper_bound", np.where(binary > 0, positive, np.inf))
    save("objective_survival_aft", xgb.train({**PARAMS, "objective": "survival:aft"}, d, 4), X[:ROWS])
    q = {"objective": "reg:quantileerror", "quantile_alpha": np.array([0.1, 0.5, 0.9])}
    save("objective_reg_quantileerror", train(q, reg, 3), X[:ROWS])


def base_scores():
    for name, y in [("binary:logistic", binary), ("binary:logitraw", binary), ("count:poisson", counts), ("reg:squarederror", reg)]:
        save("base_" + name.replace(":", "_"), train({"objective": name, "base_score": 0.3}, y, 3), X[:ROWS])
    save("base_multi", train({"objective": "multi:softprob", "num_class": 3, "base_score": 0.3}, classes, 2), X[:ROWS])


def boosters():
    p = {"objective": "binary:logistic"}
    save("dart", train({**p, "booster": "dart", "rate_drop": 0.5, "one_drop": 1}, binary, 12), X[:ROWS], "ubj")
    save("dart_multi", train({"objective": "multi:softprob", "num_class": 3, "booster": "dart", "rate_drop": 0.4}, classes, 6), X[:ROWS])
    save("parallel", train({**p, "num_parallel_tree": 4, "subsample": 0.6, "colsample_bynode": 0.6}, binary, 3), X[:ROWS], "ubj")
    save("parallel_multi", train({"objective": "multi:softprob", "num_class": 3, "num_parallel_tree": 2, "subsample": 0.6}, classes, 3), X[:ROWS], "ubj")
    save("linear", train({**p, "booster": "gblinear"}, binary, 6), X[:ROWS])
    save("linear_multi", train({"objective": "multi:softprob", "num_class": 3, "booster": "gblinear"}, classes, 6), X[:ROWS], "ubj")
    save("deep", train({"max_depth": 0, "grow_policy": "lossguide", "max_leaves": 60, "min_child_weight": 0, "lambda": 0}, reg, 4), X[:ROWS], "ubj")
    save("pruned", train({"gamma": 3.0, "tree_method": "exact", "max_depth": 6}, reg, 6), X[:ROWS])
    save("stump", train({"max_depth": 1, "gamma": 1e9}, reg, 3), X[:ROWS])
    many = rng.normal(size=(N, M)).astype(np.float32)
    y = many @ rng.normal(size=M) + many[:, 0] * many[:, 1]
    save("nomissing", train({"max_depth": 6}, y, 30, x=many), np.vstack([many[:40], many[:1]]), "ubj")
    d = xgb.DMatrix(X, binary)
    b = xgb.train({**PARAMS, **p}, d, 40, evals=[(xgb.DMatrix(X, 1 - binary), "v")], early_stopping_rounds=3, verbose_eval=False)
    save("early", b, X[:ROWS])


def multi_output():
    y = np.stack([reg, positive, counts], 1)
    save("targets", train({}, y, 3), X[:ROWS])
    save("vector_leaf", train({"multi_strategy": "multi_output_tree"}, y, 3), X[:ROWS], contribs=False)
    labels = np.stack([binary, (Z[:, 4] > 0).astype(float)], 1)
    save("labels", train({"objective": "binary:logistic"}, labels, 3), X[:ROWS])


def degenerate():
    """All labels alike, of the one output or of one of several: base_score is 0 or 1, and XGBoost bounds it."""
    p = {"objective": "binary:logistic", "max_depth": 2}
    save("same_zero", train(p, np.zeros(N), 2), X[:ROWS])
    save("same_one", train(p, np.ones(N), 2), X[:ROWS], "ubj")
    labels = np.stack([binary, np.ones(N), np.zeros(N)], 1)
    save("same_labels", train(p, labels, 2), X[:ROWS])
    save("same_vector", train({**p, "multi_strategy": "multi_output_tree"}, labels, 2), X[:ROWS], contribs=False)


def rounding():
    """Rows between a threshold and its float32 neighbours, in float64: they must be rounded first."""
    b = train({"max_depth": 3}, reg, 4)
    rows = X[:1].astype(np.float64).repeat(0, axis=0)
    b.save_model("rounding.json")
    model = json.load(open("rounding.json"))
    for t in model["learner"]["gradient_booster"]["model"]["trees"]:
        for left, feature, at in zip(t["left_children"], t["split_indices"], t["split_conditions"]):
            if left < 0:
                continue
            c = np.float32(at)
            below, above = np.nextafter(c, np.float32(-np.inf)), np.nextafter(c, np.float32(np.inf))
            half = (float(c) + float(below)) / 2
            for v in (float(c), float(below), float(above), half, np.nextafter(half, 1e9), np.nextafter(half, -1e9), (float(c) + float(above)) / 2):
                row = X[len(rows) % N].astype(np.float64)
                row[feature] = v
                rows = np.vstack([rows, row])
    save("rounding", b, rows[:64], "json")


def categorical():
    colours = ["red", "green", "blue", "grey", "yellow", "black", "white", "pink"]
    shops = list(range(100, 100 + 90))
    df = pd.DataFrame({
        "size": Z[:, 0],
        "colour": pd.Categorical(rng.choice(colours, N), categories=colours),
        # XGBoost before 3.4 writes offsets in characters and cuts such names; two that begin with the same byte would even be confused.
        "accent": pd.Categorical(rng.choice(["a", "o", "é"], N), categories=["a", "o", "é"]),
        "shop": pd.Categorical(rng.choice(shops, N), categories=shops),
        "few": pd.Categorical(rng.choice(["a", "b", "c"], N)),
    })
    df.loc[rng.random(N) < 0.1, "colour"] = np.nan
    y = score + 2 * df.colour.isin(["red", "grey"]) + (df.shop.cat.codes % 3) + (df.few == "b") + 2 * (df.accent == "é")
    b = xgb.train({**PARAMS, "max_cat_to_onehot": 4, "max_depth": 5}, xgb.DMatrix(df, y, enable_categorical=True), 6)
    codes = pd.DataFrame({c: (df[c].cat.codes.replace(-1, np.nan) if c != "size" else df[c]) for c in df}).astype(float)
    save("categorical", b, df[:CATEGORICAL_ROWS], "json", encoded=codes[:CATEGORICAL_ROWS], enable_categorical=True)
    save("categorical_ubj", b, df[:CATEGORICAL_ROWS], "ubj", encoded=codes[:CATEGORICAL_ROWS], enable_categorical=True)
    # Codes no set holds: beyond, negative, fractional; and NaN. Predicted from a bare matrix, so nothing is recoded.
    odd = codes[:12].to_numpy(dtype=np.float32)
    odd[0:3, 1:] = 500
    odd[3:5, 3] = 63.7
    odd[5:7, 1:] = np.nan
    odd[7, 1] = 16777215
    raw = xgb.DMatrix(codes.to_numpy(), y, feature_types=["q", "c", "c", "c", "c"], enable_categorical=True)
    b = xgb.train({**PARAMS, "max_cat_to_onehot": 4, "max_depth": 5}, raw, 6)
    save("categorical_codes", b, odd, "json", feature_types=["q", "c", "c", "c", "c"], enable_categorical=True)


if ARGS.suffix:
    for obj, y in [("binary:logistic", binary), ("binary:logitraw", binary), ("count:poisson", counts), ("reg:squarederror", reg)]:
        save("base_" + obj.replace(":", "_"), train({"objective": obj, "base_score": 0.3}, y, 3), X[:ROWS])
        save("default_" + obj.replace(":", "_"), train({"objective": obj}, y, 3), X[:ROWS], "ubj" if ARGS.suffix >= "v1_6" else "json")
    save("multi", train({"objective": "multi:softprob", "num_class": 3}, classes, 3), X[:ROWS])
    save("dart", train({"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.5}, binary, 6), X[:ROWS])
    if ARGS.suffix >= "v3_3":
        categorical()
        # Two rounds with large steps on few rows, so that quantiles cross.
        several = {"max_depth": 6, "eta": 1.0, "min_child_weight": 0}
        few = xgb.DMatrix(X[:60], reg[:60])
        save("quantiles", xgb.train({**PARAMS, **several, "objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, few, 4), X[-ROWS:])
        save("expectiles", xgb.train({**PARAMS, **several, "objective": "reg:expectileerror", "expectile_alpha": [0.1, 0.5, 0.9]}, few, 4), X[-ROWS:], "ubj")
        equal = {"objective": "reg:expectileerror", "expectile_alpha": [0.1, 0.5, 0.9], "base_score": 0.5}
        save("expectiles_equal", train({**equal, "max_depth": 2}, reg, 1), X[:ROWS])
        save("untrained", train({"objective": "count:poisson"}, counts, 0), X[:ROWS])
else:
    objectives()
    base_scores()
    boosters()
    multi_output()
    rounding()
    categorical()
    degenerate()
