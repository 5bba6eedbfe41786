"""Models with categories that are numbers or text, rows, and what each library makes of them.

    python -m venv v    # Python 3.13
    v/bin/pip install xgboost==3.4.1 lightgbm==4.6.0 catboost==1.2.10 numpy==2.4.6 pandas==2.3.3 pyarrow==26.0.1
    v/bin/python make_models.py [FOLDER]

Categories of `shop` are numbers, some of which are codes of others; those of `colour` text. The
libraries are given what a user has: a frame of pandas with categories (CatBoost: integers and text).
XGBoost refuses a category that it has not seen: for those it is given the code after the last, as
what compares with sets takes anything that is in none.
"""
import json
import os
import sys

import catboost as cb
import lightgbm as lgb
import numpy as np
import pandas as pd
import xgboost as xgb

DIR = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
SHOPS = [-7, -1, 0, 3, 5, 100, 101, 102, 103, 104, 105, 107]
COLOURS = ["red", "green", "blue", "grün", "7", "black"]
rng = np.random.default_rng(11)
N = 400
size = rng.normal(size=N).round(3)
shop = rng.choice(SHOPS, N)
colour = rng.choice(COLOURS, N)
plain = rng.integers(0, 9, N)
y = size + rng.normal(size=len(SHOPS))[np.searchsorted(SHOPS, shop)] * 3 + rng.normal(size=len(COLOURS))[[COLOURS.index(c) for c in colour]] * 2 + plain * 0.1
FRAMES = {
    "mixed": pd.DataFrame({"size": size, "shop": shop, "colour": colour, "plain": plain}),
    "ints": pd.DataFrame({"size": size, "shop": shop}),
}
UNSEEN = {"shop": [7, 11, -3, 99999], "colour": ["violet"]}


def rows(frame):
    """Every category, some that were not seen, and missing ones."""
    shops = [*SHOPS, *UNSEEN["shop"], None]
    colours = [*COLOURS, *UNSEEN["colour"], None]
    out = []
    for i, s in enumerate(shops):
        row = [float(np.float32(round(-1 + 0.13 * i, 2))), s]
        if "colour" in frame:
            row += [colours[i % len(colours)], i % 9]
        out.append(row)
    return out


def kinds(frame):
    return {"shop": SHOPS, "colour": sorted(COLOURS)} if "colour" in frame else {"shop": SHOPS}


def typed(frame):
    return frame.assign(**{k: pd.Categorical(frame[k], categories=c) for k, c in kinds(frame).items()})


def codes(frame, given, unseen):
    """A matrix as the model has it."""
    out = np.empty((len(given), frame.shape[1]))
    for i, row in enumerate(given):
        for j, (name, v) in enumerate(zip(frame.columns, row)):
            known = kinds(frame).get(name)
            out[i, j] = np.nan if v is None else v if known is None else known.index(v) if v in known else unseen(known)
    return out


def write(library, frame, name, prediction):
    given = rows(frame)
    with open(os.path.join(DIR, f"{library}.{name}.rows.json"), "w", encoding="utf-8") as f:
        json.dump({"columns": list(frame.columns), "rows": given, "want": [float(v) for v in prediction]}, f, ensure_ascii=False)
        f.write("\n")


def seen(frame, row):
    return all(v is None or v in kinds(frame).get(n, [v]) for n, v in zip(frame.columns, row))


for name, frame in FRAMES.items():
    given = rows(frame)
    pd.DataFrame(given, columns=frame.columns).astype({"shop": "Int64"}).to_parquet(os.path.join(DIR, f"rows.{name}.parquet"))
    # A matrix has codes, as in both libraries.
    np.save(os.path.join(DIR, f"codes.{name}.npy"), codes(frame, given, len))
    typed_rows = typed(pd.DataFrame(given, columns=frame.columns))
    categorical = list(kinds(frame))

    booster = xgb.train({"max_depth": 3, "eta": 0.5, "max_cat_to_onehot": 1, "min_child_weight": 0, "nthread": 1}, xgb.DMatrix(typed(frame), y, enable_categorical=True), 4)
    booster.save_model(os.path.join(DIR, f"xgboost.{name}.json"))
    by_code = booster.predict(xgb.DMatrix(codes(frame, given, len), feature_names=booster.feature_names, feature_types=booster.feature_types))
    known = [i for i, row in enumerate(given) if seen(frame, row)]
    own = booster.predict(xgb.DMatrix(typed_rows.iloc[known], enable_categorical=True))
    assert (own == by_code[known]).all()
    write("xgboost", frame, name, by_code)

    data = lgb.Dataset(typed(frame), y, free_raw_data=False)
    model = lgb.train({"num_leaves": 8, "min_data_in_leaf": 2, "min_data_per_group": 1, "cat_smooth": 0, "cat_l2": 0, "max_cat_to_onehot": 1, "num_threads": 1, "deterministic": True, "verbose": -1}, data, 4)
    model.save_model(os.path.join(DIR, f"lightgbm.{name}.txt"))
    write("lightgbm", frame, name, model.predict(typed_rows))
    assert (model.predict(typed_rows) == model.predict(codes(frame, given, len))).all()

    at = [frame.columns.get_loc(c) for c in categorical]
    pool = cb.Pool(frame, y, cat_features=at)
    cat = cb.CatBoostRegressor(iterations=4, depth=3, learning_rate=0.5, one_hot_max_size=3, thread_count=1, random_seed=1, verbose=0, allow_writing_files=False)
    cat.fit(pool)
    cat.save_model(os.path.join(DIR, f"catboost.{name}.json"), format="json", pool=pool)
    # CatBoost has no missing category: pandas' would be refused, and users write it as text.
    text = [["" if v is None and j in at else v for j, v in enumerate(row)] for row in given]
    write("catboost", frame, name, cat.predict(cb.Pool(pd.DataFrame(text, columns=frame.columns).astype({c: object for c in categorical}), cat_features=at)))
