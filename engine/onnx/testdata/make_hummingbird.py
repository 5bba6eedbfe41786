"""Trees and pipelines that Hummingbird made tensors of, written by PyTorch's first exporter, and what their library gives.

hummingbird-ml==0.4.12 (installed without what it asks for) torch==2.15.0 scikit-learn==1.9.1 xgboost==3.2.0 lightgbm==4.7.0
onnxmltools==1.16.0 onnx==1.23.2 onnxruntime==1.32.0

    make_hummingbird.py hummingbird.json.gz

Hummingbird reads no base score of an XGBoost as new as this: its classifiers give other scores than the library, the file's are held.
"""

import logging
import sys
import warnings

warnings.filterwarnings("ignore")
import lightgbm
import numpy as np
import torch
import xgboost

logging.disable(logging.WARNING)
export = torch.onnx.export
torch.onnx.export = lambda *a, **k: export(*a, **{**k, "dynamo": False})
from hummingbird.ml import constants, convert
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (ExtraTreesClassifier, GradientBoostingClassifier, HistGradientBoostingRegressor, IsolationForest, RandomForestClassifier,
                              RandomForestRegressor)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC

from exporters import Archive

rng = np.random.default_rng(0)
archive = Archive()
X = rng.normal(size=(200, 6)).astype(np.float32)
two = (X[:, 0] + X[:, 1] ** 2 > 1).astype(int)
three = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.3)
number = X @ np.arange(6) + rng.normal(size=200)


def case(name, model, y, x=X, exact=True, **extra):
    model.fit(x, y)
    rows = x[:9]
    made = convert(model, "onnx", rows, extra_config=extra).model
    library = None
    outputs = len(made.graph.output)
    if hasattr(model, "predict_proba") and outputs == 2:
        library = [model.predict(rows), model.predict_proba(rows)]
    elif hasattr(model, "predict") and outputs == 1:
        library = [model.predict(rows)]
    elif hasattr(model, "transform") and outputs == 1:
        library = [model.transform(rows)]
    archive.add(name, made, [rows], library, exact=exact)


for way in ("gemm", "tree_trav", "perf_tree_trav"):
    kw = {constants.TREE_IMPLEMENTATION: way}
    case(f"forest {way}", RandomForestClassifier(8, max_depth=5, random_state=0), three, **kw)
    case(f"forest of a number {way}", RandomForestRegressor(8, max_depth=5, random_state=0), number, **kw)
    case(f"extra trees {way}", ExtraTreesClassifier(8, max_depth=5, random_state=0), two, **kw)
    case(f"boosting {way}", GradientBoostingClassifier(n_estimators=8, random_state=0), three, **kw)
    case(f"boosting by histograms {way}", HistGradientBoostingRegressor(max_iter=8, random_state=0), number, **kw)
    case(f"isolation forest {way}", IsolationForest(n_estimators=8, random_state=0), None, **kw)
    case(f"XGBoost {way}", xgboost.XGBClassifier(n_estimators=8, max_depth=4), three, exact=False, **kw)
    case(f"LightGBM {way}", lightgbm.LGBMClassifier(n_estimators=8, verbose=-1), three, **kw)
    case(f"LightGBM of a number {way}", lightgbm.LGBMRegressor(n_estimators=8, verbose=-1), number, **kw)
case("SVC", SVC(random_state=0), three)
case("naive Bayes", GaussianNB(), three)
case("MLP", MLPClassifier((9,), max_iter=50, random_state=0), three)
case("k-means", KMeans(3, n_init=1, random_state=0), None)
case("bins", KBinsDiscretizer(4, encode="onehot-dense"), None)
case("one hot", OneHotEncoder(sparse_output=False), None, x=rng.integers(0, 4, (200, 3)))
case("forest behind", make_pipeline(StandardScaler(), PCA(4), RandomForestClassifier(5, max_depth=3, random_state=0)), three)
case("polynomial", make_pipeline(SimpleImputer(), PolynomialFeatures(2), LogisticRegression(max_iter=500)), two)
archive.write(sys.argv[1])
