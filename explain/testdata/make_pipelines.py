"""Makes pipeline_*.onnx and pipeline_*.json: forests behind scalers, with shap's interventional values of the forest on the
scaled columns, which are the pipeline's on its own.

pip install scikit-learn==1.7.2 skl2onnx==1.20.0 shap==0.49.1 numpy==2.*
"""
import json
import numpy as np
import shap
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType

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
