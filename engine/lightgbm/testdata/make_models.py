# Makes the oracle models of this folder; see README.md.
# Needs: python 3.11, lightgbm==4.6.0, numpy==2.*, pandas<3.
# python make_models.py --suffix v2_2 makes the few models of another version; 2.x needs numpy==1.23.5,
# scipy==1.10.1, scikit-learn==1.2.2 and pandas==1.5.3 beside it.
import argparse
import json

import lightgbm as lgb
import numpy as np
import pandas as pd

parser = argparse.ArgumentParser()
parser.add_argument("--suffix", default="")
ARGS = parser.parse_args()
rng = np.random.default_rng(11)
N, M, ROWS = 400, 5, 24
X = rng.normal(size=(N, M))
score = X[:, 0] * 1.5 - X[:, 1] + X[:, 2] * X[:, 3]
noise = rng.normal(size=N)
HOLES = X.copy()
HOLES[rng.random(X.shape) < 0.15] = np.nan
ZEROS = np.where(rng.random(X.shape) < 0.3, 0.0, X)
reg = score + noise * 0.2
positive = np.exp(score * 0.3 + noise * 0.1)
counts = rng.poisson(np.exp(np.clip(score * 0.3, -3, 3))).astype(float)
binary = (score + noise > 0).astype(float)
classes = np.digitize(score + noise, [-1, 1])
PARAMS = {"num_leaves": 7, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1, "seed": 5, "deterministic": True, "learning_rate": 0.3}


def cell(v):
    return "" if np.isnan(v) else repr(float(v))


def save(name, booster, rows, encoded=None, contribs=True):
    if ARGS.suffix:
        name += "." + ARGS.suffix
    booster.save_model(f"{name}.txt")
    n = len(rows)
    prediction = np.asarray(booster.predict(rows)).reshape(n, -1)
    margin = np.asarray(booster.predict(rows, raw_score=True)).reshape(n, -1)
    k = margin.shape[1]
    # A forest's raw score and contributions are sums over its trees, its prediction is their mean.
    share = booster.num_trees() // k if name.startswith("rf") else 1
    out = {"library": "lightgbm", "version": lgb.__version__, "prediction": prediction.tolist(), "margin": (margin / share).tolist()}
    if contribs and ARGS.suffix != "v2_0":  # which has none of several classes
        phi = np.asarray(booster.predict(rows, pred_contrib=True)).reshape(n, k, -1)
        out["contribs"] = (phi / share).tolist()
    with open(f"{name}.expect.json", "w") as f:
        json.dump(out, f, separators=(",", ":"))
    with open(f"{name}.rows.csv", "w") as f:
        for r in np.asarray(rows if encoded is None else encoded, dtype=float):
            f.write(",".join(cell(v) for v in r) + "\n")


def train(params, y, x=HOLES, rounds=6, **kw):
    return lgb.train({**PARAMS, **params}, lgb.Dataset(x, y, free_raw_data=False, **kw), rounds)


def objectives():
    for name, y in [
        ("regression", reg), ("regression_l1", reg), ("huber", reg), ("fair", reg), ("quantile", reg), ("mape", positive),
        ("poisson", counts), ("gamma", positive), ("tweedie", counts), ("binary", binary), ("cross_entropy", binary * 0.8 + 0.1),
        ("cross_entropy_lambda", binary * 0.8 + 0.1),
    ]:
        save("objective_" + name, train({"objective": name}, y), HOLES[:ROWS])
    save("regression_sqrt", train({"objective": "regression", "reg_sqrt": True}, reg), HOLES[:ROWS])
    save("l1_sqrt", train({"objective": "regression_l1", "reg_sqrt": True}, reg), HOLES[:ROWS])
    save("binary_sigmoid", train({"objective": "binary", "sigmoid": 0.4}, binary), HOLES[:ROWS])
    for name in ("multiclass", "multiclassova"):
        save("objective_" + name, train({"objective": name, "num_class": 3, "sigmoid": 0.7}, classes, rounds=3), HOLES[:ROWS])
    for name in ("lambdarank", "rank_xendcg"):
        save("objective_" + name, train({"objective": name}, classes, rounds=4, group=[40] * 10), HOLES[:ROWS])
    custom = lambda pred, data: (pred - data.get_label(), np.ones_like(pred))
    save("objective_custom", train({"objective": custom}, reg), HOLES[:ROWS])


def missing():
    """All three missing types, each with NaN, zeros, values around the zero threshold and infinities."""
    odd = np.vstack([HOLES[:12], ZEROS[:12]])
    odd[0], odd[1], odd[2], odd[3] = np.nan, 0.0, 1e-35, -1e-35
    odd[4], odd[5], odd[6] = 1.0000000180025095e-35, np.nextafter(1.0000000180025095e-35, 1), -1.1e-35
    odd[7], odd[8], odd[9] = np.inf, -np.inf, -0.0
    save("missing_nan", train({}, reg), odd)
    save("missing_none", train({}, reg, x=ZEROS), odd)
    save("missing_zero", train({"zero_as_missing": True}, reg, x=ZEROS), odd)
    save("missing_off", train({"use_missing": False}, reg), odd)
    wide = ZEROS.copy()
    wide[rng.random(wide.shape) < 0.1] = np.nan
    save("missing_zero_nan", train({"zero_as_missing": True}, reg, x=wide, rounds=10), odd)


def boosting():
    save("dart", train({"objective": "binary", "boosting": "dart", "drop_rate": 0.5}, binary, rounds=10), HOLES[:ROWS])
    bag = {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.7}
    save("rf", train({**bag}, reg), HOLES[:ROWS])
    save("rf_binary", train({**bag, "objective": "binary"}, binary), HOLES[:ROWS])
    save("rf_multiclass", train({**bag, "objective": "multiclass", "num_class": 3}, classes, rounds=4), HOLES[:ROWS])
    save("goss", train({"data_sample_strategy": "goss"}, reg), HOLES[:ROWS])
    save("linear_tree", train({"linear_tree": True}, reg, rounds=5), HOLES[:ROWS], contribs=False)
    save("linear_tree_multi", train({"linear_tree": True, "objective": "multiclass", "num_class": 3}, classes, x=X, rounds=3), HOLES[:ROWS], contribs=False)
    save("stump", train({"min_data_in_leaf": 1000}, reg), HOLES[:ROWS])
    save("stump_some", train({"objective": "multiclass", "num_class": 3, "min_data_in_leaf": 5, "min_gain_to_split": 18}, classes, rounds=5), HOLES[:ROWS])
    save("deep", train({"num_leaves": 60, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0}, reg, rounds=5), HOLES[:ROWS])
    save("nomissing", train({"num_leaves": 31}, reg, x=X, rounds=30), X[:41])
    save("init_score", train({}, reg, init_score=np.full(N, 5.0)), HOLES[:ROWS])
    b = lgb.train({**PARAMS, "objective": "binary"}, lgb.Dataset(HOLES, binary), 60, valid_sets=[lgb.Dataset(X, 1 - binary)],
                  callbacks=[lgb.early_stopping(3, verbose=False)])
    save("early", b, HOLES[:ROWS])


def categorical():
    colours = ["red", "green", "blue", "grün", "yellow", "black", "white", "pink"]
    shops = list(range(100, 390))
    df = pd.DataFrame({
        "size": X[:, 0],
        "colour": pd.Categorical(rng.choice(colours, N), categories=colours),
        "shop": pd.Categorical(rng.choice(shops, N), categories=shops),
        "few": pd.Categorical(rng.choice(["a", "b", "c"], N)),
    })
    df.loc[rng.random(N) < 0.1, "colour"] = np.nan
    y = score + 2 * df.colour.isin(["red", "grün"]) + (df.shop.cat.codes % 3) + (df.few == "b")
    p = {"min_data_per_group": 1, "cat_smooth": 0.1, "cat_l2": 0.1, "max_cat_threshold": 200}
    b = train(p, y, x=df)
    coded = lambda d: pd.DataFrame({c: (d[c].cat.codes.replace(-1, np.nan) if c != "size" else d[c]) for c in d}).astype(float)
    save("categorical", b, df[:40], encoded=coded(df)[:40])
    codes = coded(df).to_numpy()
    b = lgb.train({**PARAMS, **p, "objective": "binary"}, lgb.Dataset(codes, binary, categorical_feature=[1, 2, 3]), 8)
    odd = codes[:24].copy()
    odd[0:3, 1:] = 5000
    odd[3:6, 1:] = -3
    odd[6:8, 2] = 63.7
    odd[8:10, 1:] = np.nan
    odd[10:13, 1:] = -0.5
    odd[13, 2] = 1e10
    save("categorical_codes", b, odd)
    # Ordered categories are numeric to LightGBM, but their names are in the file too.
    df["few"] = pd.Categorical(df["few"], categories=["a", "b", "c"], ordered=True)
    save("categorical_ordered", train(p, y, x=df), df[:40], encoded=coded(df)[:40])


def old():
    """The forms of the grammar that version 2 of the format has."""
    missing()
    save("objective_poisson", train({"objective": "poisson"}, counts, rounds=3), HOLES[:ROWS])
    save("objective_multiclass", train({"objective": "multiclass", "num_class": 3}, classes, rounds=2), HOLES[:ROWS])
    save("rf_binary", train({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.7, "objective": "binary"}, binary, rounds=3), HOLES[:ROWS], contribs=False)
    save("dart", train({"objective": "binary", "boosting": "dart", "drop_rate": 0.5}, binary, rounds=5), HOLES[:ROWS])
    save("stump", train({"min_data_in_leaf": 1000}, reg), HOLES[:ROWS])
    categorical()


if ARGS.suffix:
    old()
else:
    objectives()
    missing()
    boosting()
    categorical()
