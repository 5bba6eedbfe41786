"""Trains the demo's two models on January and February and writes them, their
references (March) and the network's background to ../data/models.

flights_gbm: XGBoost, native categories whose names are in the file, missing
weather as XGBoost treats it. flights_mlp: a small scikit-learn network as ONNX;
imputation and scaling are inside the graph, one named input [-1, 1] a feature.

Run: python models.py  (versions in requirements.txt; a few seconds)
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from demo import CATEGORICAL, GBM, GBM_FEATURES, MLP, MLP_FEATURES, flights, reference, train

SEED = 2013
BACKGROUND_ROWS = 100


def write_rows(rows: pd.DataFrame, columns: list[str], path) -> None:
    """Rows as Parquet with no nullable column; NaN is a missing number."""
    fields, arrays = [], []
    for name in columns:
        typ = pa.string() if name in CATEGORICAL else pa.from_numpy_dtype(rows[name].dtype)
        fields.append(pa.field(name, typ, nullable=False))
        values = rows[name].astype(object) if name in CATEGORICAL else rows[name].to_numpy()
        arrays.append(pa.array(values, type=typ, from_pandas=False))
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    pq.write_table(
        table, path, compression="zstd", compression_level=19, row_group_size=max(len(rows), 1),
        write_statistics=False, store_schema=False,
    )
    print(f"{path.relative_to(path.parents[3])}: {len(rows)} rows, {path.stat().st_size} bytes")


def train_gbm(rows: pd.DataFrame) -> None:
    data = xgboost.DMatrix(rows[GBM_FEATURES], label=rows.late, enable_categorical=True)
    params = {
        "objective": "binary:logistic", "tree_method": "hist", "max_depth": 4, "eta": 0.1,
        "min_child_weight": 20, "subsample": 0.8, "colsample_bytree": 0.8, "reg_lambda": 5,
        "seed": SEED, "nthread": 1,
    }
    booster = xgboost.train(params, data, num_boost_round=100)
    path = GBM / "model.ubj"
    booster.save_model(path)
    print(f"flights_gbm: {path.stat().st_size} bytes")


def train_mlp(rows: pd.DataFrame) -> None:
    model = make_pipeline(
        ColumnTransformer([("inputs", "passthrough", MLP_FEATURES)]),
        SimpleImputer(strategy="median"),
        StandardScaler(),
        MLPClassifier((32, 16), alpha=1e-3, batch_size=256, early_stopping=True, random_state=SEED),
    )
    model.fit(rows[MLP_FEATURES].astype(np.float32), rows.late.to_numpy(np.int64))
    onnx = convert_sklearn(
        model, "flights_mlp", [(n, FloatTensorType([None, 1])) for n in MLP_FEATURES],
        target_opset={"": 17, "ai.onnx.ml": 3}, options={MLPClassifier: {"zipmap": False}},
    )
    path = MLP / "model.onnx"
    path.write_bytes(onnx.SerializeToString())
    print(f"flights_mlp: {path.stat().st_size} bytes; operators {[n.op_type for n in onnx.graph.node]}")


GBM_YAML = """\
# Will this flight arrive 15 or more minutes late? Trained by make/models.py on
# January and February 2013; March is the reference.
task: binary
classes: [on_time, late]
reference: reference.parquet
"""

MLP_YAML = """\
# The same question to a small network. Its background, for Shapley values, is
# 100 flights of its training months.
task: binary
classes: [on_time, late]
reference: reference.parquet
background: background.parquet
"""


def main() -> None:
    for folder in (GBM, MLP):
        folder.mkdir(parents=True, exist_ok=True)
    f = flights()
    rows = train(f)
    train_gbm(rows)
    train_mlp(rows)
    (GBM / "model.yaml").write_text(GBM_YAML)
    (MLP / "model.yaml").write_text(MLP_YAML)
    write_rows(reference(f), GBM_FEATURES, GBM / "reference.parquet")
    write_rows(reference(f), MLP_FEATURES, MLP / "reference.parquet")
    complete = rows.dropna(subset=MLP_FEATURES)
    write_rows(complete.sample(BACKGROUND_ROWS, random_state=SEED).sort_index(), MLP_FEATURES, MLP / "background.parquet")


if __name__ == "__main__":
    main()
