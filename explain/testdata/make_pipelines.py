"""Makes pipeline_*.onnx and pipeline_*.json: forests behind scalers, with shap's interventional values of the forest on the
scaled columns, which are the pipeline's on its own; and forests over named columns behind encoders, with the values of the
whole pipeline by enumeration of all coalitions of its columns.

pip install scikit-learn==1.7.2 skl2onnx==1.20.0 shap==0.49.1 numpy==2.*
"""
import itertools, json, math
import numpy as np
import pandas as pd
import shap
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType

rng = np.random.default_rng(5)
X = rng.normal(size=(200, 4)).astype(np.float32)
y = X[:, 0] * 2 - X[:, 1] ** 2 + X[:, 2] * X[:, 3]
holes = X.copy()
holes[rng.random(X.shape) < 0.15] = np.nan
for name, x, pipe in [
    ("forest", holes, make_pipeline(SimpleImputer(), StandardScaler(), RandomForestRegressor(5, max_depth=3, random_state=0))),
    ("boosting", X, make_pipeline(MinMaxScaler(), GradientBoostingRegressor(n_estimators=5, random_state=0))),
]:
    pipe.fit(x, y)
    onx = convert_sklearn(pipe, initial_types=[("X", FloatTensorType([None, 4]))], target_opset={"": 18, "ai.onnx.ml": 3})
    open(f"pipeline_{name}.onnx", "wb").write(onx.SerializeToString())
    prepare = pipe[:-1].transform
    explainer = shap.TreeExplainer(pipe[-1], prepare(x[:30]), feature_perturbation="interventional")
    values = explainer.shap_values(prepare(x[30:40]))
    clean = lambda a: [[None if np.isnan(v) else float(v) for v in r] for r in a]
    json.dump({"background": clean(x[:30]), "rows": clean(x[30:40]), "base": float(np.ravel(explainer.expected_value)[0]), "phi": values.tolist()}, open(f"pipeline_{name}.json", "w"))

N = 200
frame = pd.DataFrame({
    "age": X[:, 0], "city": rng.choice(["Oslo", "Rome", "Lima", "Bonn"], N), "income": X[:, 1], "job": rng.choice(["a", "b"], N),
}).astype({"city": object, "job": object})
target = y + 2 * (frame.city == "Oslo") - 3 * ((frame.job == "b") & (frame.city != "Lima"))
for name, encoder in [("onehot", OneHotEncoder(handle_unknown="ignore")), ("ordinal", OrdinalEncoder())]:
    prepare = ColumnTransformer([("n", StandardScaler(), ["age", "income"]), ("c", encoder, ["city", "job"])])
    pipe = make_pipeline(prepare, RandomForestRegressor(6, max_depth=5, random_state=0)).fit(frame, target)
    types = [(c, FloatTensorType([None, 1]) if c in ("age", "income") else StringTensorType([None, 1])) for c in frame.columns]
    onx = convert_sklearn(pipe, initial_types=types, target_opset={"": 18, "ai.onnx.ml": 3})
    open(f"pipeline_{name}.onnx", "wb").write(onx.SerializeToString())
    background, rows, columns = frame[:30], frame[30:36], list(frame.columns)

    def game(row, coalition):
        mixed = background.copy()
        for c in coalition:
            mixed[c] = row[c]
        return pipe.predict(mixed).mean()

    phi = []
    for _, row in rows.iterrows():
        worth = {s: game(row, s) for k in range(5) for s in itertools.combinations(columns, k)}
        values = []
        for c in columns:
            total = 0.0
            for s in worth:
                if c not in s:
                    joined = tuple(x for x in columns if x in s or x == c)
                    total += math.factorial(len(s)) * math.factorial(3 - len(s)) / math.factorial(4) * (worth[joined] - worth[s])
            values.append(total)
        phi.append(values)
    dump = lambda d: {c: [v if isinstance(v, str) else float(v) for v in d[c]] for c in columns}
    json.dump({"background": dump(background), "rows": dump(rows), "base": float(pipe.predict(background).mean()), "phi": phi}, open(f"pipeline_{name}.json", "w"))
