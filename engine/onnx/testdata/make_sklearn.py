"""Makes sklearn.zip: scikit-learn, XGBoost and LightGBM models as ONNX, with expected outputs.

pip install scikit-learn==1.7.2 skl2onnx==1.20.0 onnxmltools==1.16.0 onnxruntime==1.32.0 xgboost==3.2.0 lightgbm==4.6.0
See README.md for the layout.
"""
import io, json, zipfile
import numpy as np
import onnxruntime as ort
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, DoubleTensorType, StringTensorType
from sklearn import linear_model as lm, ensemble as en, tree as tr, neural_network as nn
from sklearn.pipeline import make_pipeline, Pipeline
from sklearn.preprocessing import StandardScaler, MinMaxScaler, OneHotEncoder, Normalizer
from sklearn.impute import SimpleImputer
from sklearn.compose import ColumnTransformer
from sklearn import calibration, decomposition, gaussian_process, multiclass, naive_bayes, neighbors, preprocessing, svm
import pandas as pd

# skl2onnx 1.20 hands NumPy's integers and booleans to onnx, which takes Python's integers only.
import skl2onnx.common._container as container

_make = container.make_node


def plain(v):
    if isinstance(v, (bool, np.bool_)):
        return int(v)
    return v.item() if isinstance(v, np.generic) else v


def make_node(*a, **k):
    for key, v in k.items():
        if isinstance(v, (list, tuple, np.ndarray)):
            k[key] = [plain(e) for e in v]
    return _make(*a, **k)


container.make_node = make_node

rng = np.random.default_rng(7)
N, M = 400, 5
X = rng.normal(size=(N, M)).astype(np.float32)
yr = (X[:, 0] * 2 - X[:, 1] ** 2 + 0.3 * X[:, 2]).astype(np.float64)
yb = (yr > 0).astype(int)
ym = np.digitize(yr, [-1, 0.5])
ys = np.array(["low", "mid", "high"])[ym]
XN = X.copy()
XN[rng.random(X.shape) < 0.15] = np.nan
T = X[:16]
TN = XN[:16]

out = zipfile.ZipFile("sklearn.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9)


def put(path, data):
    info = zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    out.writestr(info, data)


def npy(a):
    a = np.asarray(a)
    if a.dtype.kind in "OU":
        return json.dumps([str(v) for v in a.ravel()]).encode(), "json"
    b = io.BytesIO()
    np.save(b, np.ascontiguousarray(a))
    return b.getvalue(), "npy"


def save(name, onx, inputs, library, tree=False):
    data = onx.SerializeToString() if hasattr(onx, "SerializeToString") else onx
    s = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    res = s.run(None, inputs)
    put(f"{name}/model.onnx", data)
    meta = {"inputs": [], "outputs": [], "library": {}}
    for k, v in inputs.items():
        b, e = npy(v)
        put(f"{name}/in_{len(meta['inputs'])}.{e}", b)
        meta["inputs"].append({"name": k, "file": f"in_{len(meta['inputs'])}.{e}", "shape": list(v.shape)})
    for o, v in zip(s.get_outputs(), res):
        if isinstance(v, list):  # ZipMap
            v = np.array([[r[k] for k in r] for r in v], np.float32)
        b, e = npy(v)
        put(f"{name}/out_{len(meta['outputs'])}.{e}", b)
        meta["outputs"].append({"name": o.name, "file": f"out_{len(meta['outputs'])}.{e}", "shape": list(np.shape(v))})
    for k, v in library.items():  # output name -> the library's own numbers
        b, e = npy(v)
        put(f"{name}/lib_{k}.{e}", b)
        meta["library"][k] = f"lib_{k}.{e}"
    meta["tree"] = tree
    put(f"{name}/case.json", json.dumps(meta))
    print(name, [n.op_type for n in s._model_meta and __import__('onnx').load_from_string(data).graph.node][:12])


F = [("X", FloatTensorType([None, M]))]


def skl(name, model, y, test=T, train=X, initial=F, options=None, tree=False, zipmap=False, opset=18, library=True, **kw):
    """A case that cannot be made ends the script: none may silently be missing."""
    model.fit(train, y)
    opt = options
    if opt is None and hasattr(model, "predict_proba") and not zipmap:
        opt = {"zipmap": False}
    onx = convert_sklearn(model, initial_types=initial, target_opset={"": opset, "ai.onnx.ml": 3}, options={id(model): opt} if opt else None, **kw)
    lib = {}
    outs = [o.name for o in onx.graph.output]
    if library and hasattr(model, "predict_proba") and len(outs) > 1:
        lib[outs[1]] = model.predict_proba(test)
    elif library and hasattr(model, "predict"):
        lib[outs[0]] = np.asarray(model.predict(test))
    save(name, onx, {"X": np.asarray(test)}, lib, tree)


skl("logistic_binary", lm.LogisticRegression(), yb)
skl("logistic_binary_zipmap", lm.LogisticRegression(), yb, zipmap=True)
skl("logistic_multi", lm.LogisticRegression(), ys)
skl("linear", lm.LinearRegression(), yr)
skl("ridge_multi_output", lm.Ridge(), np.stack([yr, -yr, yr * 2], 1))
skl("linear_double", lm.LinearRegression(), yr, initial=[("X", DoubleTensorType([None, M]))], test=T.astype(np.float64))
skl("mlp_classifier", nn.MLPClassifier((8,), max_iter=60, random_state=0), ym)
skl("mlp_binary", nn.MLPClassifier((8,), activation="tanh", max_iter=60, random_state=0), yb)
skl("mlp_regressor", nn.MLPRegressor(hidden_layer_sizes=(8, 4), max_iter=60, random_state=0), yr)
skl("scaled_logistic", make_pipeline(StandardScaler(), MinMaxScaler(), lm.LogisticRegression()), ys)
skl("imputed_linear", make_pipeline(SimpleImputer(), Normalizer(), lm.LinearRegression()), yr, test=TN, train=XN)
skl("tree_classifier", tr.DecisionTreeClassifier(max_depth=4), ys, tree=True)
skl("tree_regressor", tr.DecisionTreeRegressor(max_depth=4), yr, tree=True)
skl("forest_binary", en.RandomForestClassifier(10, max_depth=4, random_state=0), yb, tree=True)
skl("forest_multi", en.RandomForestClassifier(10, max_depth=4, random_state=0), ys, tree=True)
skl("forest_regressor", en.RandomForestRegressor(10, max_depth=4, random_state=0), yr, tree=True)
skl("extra_trees", en.ExtraTreesRegressor(10, max_depth=4, random_state=0), yr, tree=True)
skl("boosting_binary", en.GradientBoostingClassifier(n_estimators=10, random_state=0), yb, tree=True)
skl("boosting_multi", en.GradientBoostingClassifier(n_estimators=5, random_state=0), ys, tree=True)
skl("boosting_regressor", en.GradientBoostingRegressor(n_estimators=10, random_state=0), yr, tree=True)
skl("forest_double", en.RandomForestClassifier(5, max_depth=3, random_state=0), ys, test=T.astype(np.float64), train=X.astype(np.float64), initial=[("X", DoubleTensorType([None, M]))], tree=True)
skl("forest_three_targets", en.RandomForestRegressor(5, max_depth=3, random_state=0), np.stack([yr, -yr, yr + 1], 1), tree=True)
# A graph whose operators are all as old as ONNX is stamped with operator set 1.
skl("boosting_opset_1", en.GradientBoostingRegressor(n_estimators=5, random_state=0), yr, opset=12, tree=True)
skl("hist_binary_nan", en.HistGradientBoostingClassifier(max_iter=8, max_depth=4), yb, test=TN, train=XN, tree=True)
skl("hist_multi_nan", en.HistGradientBoostingClassifier(max_iter=5, max_depth=3), ys, test=TN, train=XN, tree=True)
skl("hist_regressor_nan", en.HistGradientBoostingRegressor(max_iter=8, max_depth=4), yr, test=TN, train=XN, tree=True)
# skl2onnx writes splits by sets of categories as splits by their thresholds, so the file does not predict
# what scikit-learn does (here by up to 1.7). The file is what is to be computed.
own = np.random.default_rng(5)
XC = np.column_stack([own.normal(size=N), own.integers(0, 7, N), own.normal(size=N)]).astype(np.float32)
yc = (XC[:, 1] % 2) * 2 + XC[:, 0] + 0.1 * own.normal(size=N)
skl("hist_categories", en.HistGradientBoostingRegressor(max_iter=5, max_depth=3, categorical_features=[1]), yc, test=XC[:16], train=XC, initial=[("X", FloatTensorType([None, 3]))], tree=True, library=False)
skl("isolation_forest", en.IsolationForest(n_estimators=10, random_state=0), None)
skl("ada_regressor", en.AdaBoostRegressor(n_estimators=5, random_state=0), yr)
skl("ada_classifier", en.AdaBoostClassifier(n_estimators=5, random_state=0), ys)
skl("bagging", en.BaggingClassifier(lm.LogisticRegression(), n_estimators=3, max_features=0.6, random_state=0), ys)
skl("stacking", en.StackingClassifier([("a", lm.LogisticRegression()), ("b", tr.DecisionTreeClassifier(max_depth=3))]), ys)
skl("voting_regressor", en.VotingRegressor([("a", lm.LinearRegression()), ("b", tr.DecisionTreeRegressor(max_depth=3))]), yr)
# Trees of one target that write a leaf for each class: what a leaf says is the first of its numbers.
forest = en.RandomForestClassifier(4, max_depth=3, random_state=0).fit(X, ys)
onx = convert_sklearn(forest, initial_types=F, target_opset={"": 18, "ai.onnx.ml": 3}, options={id(forest): {"zipmap": False, "decision_leaf": True, "decision_path": True}})
nodes, ends = forest.decision_path(T)
paths = np.array([["".join(map(str, row[a:b])) for a, b in zip(ends, ends[1:])] for row in nodes.toarray().astype(int)], object)
names = [o.name for o in onx.graph.output]
assert names[1:] == ["probabilities", "decision_path", "decision_leaf"]
save("forest_decisions", onx, {"X": T}, dict(zip(names, [forest.predict(T), forest.predict_proba(T), paths, forest.apply(T)])))
# Fewer rows, so that support vectors and neighbours stay small.
S, R = slice(0, 80), X[200:216]
skl("svc_binary", svm.SVC(), yb[S], train=X[S], test=R)
skl("svc_multi", svm.SVC(kernel="poly"), ys[S], train=X[S], test=R, library=False)
skl("svc_multi_ovo", svm.SVC(kernel="sigmoid", decision_function_shape="ovo"), ys[S], train=X[S], test=R, library=False)
skl("svc_binary_probability", svm.SVC(probability=True, random_state=0), yb[S], train=X[S], test=R)
skl("svc_multi_probability", svm.SVC(probability=True, random_state=0), ys[S], train=X[S], test=R)
skl("svr", svm.SVR(), yr[S], train=X[S], test=R)
skl("forest_scaled", make_pipeline(SimpleImputer(), StandardScaler(), en.RandomForestRegressor(5, max_depth=3, random_state=0)), yr, test=TN, train=XN, tree=True)
skl("boosting_scaled", make_pipeline(MinMaxScaler(), en.GradientBoostingClassifier(n_estimators=5, random_state=0)), yb, tree=True)
skl("forest_normalised", make_pipeline(Normalizer(), en.RandomForestRegressor(5, max_depth=3, random_state=0)), yr)
skl("svr_scaled_linear", make_pipeline(StandardScaler(), svm.SVR(kernel="linear")), yr[S], train=X[S], test=R)
skl("one_class_svm", svm.OneClassSVM(), None, train=X[S], test=R)
skl("neighbours", neighbors.KNeighborsClassifier(), ys[S], train=X[S], test=R)
# The converter weighs by something else than the distance, so only onnxruntime agrees.
skl("neighbours_distance", neighbors.KNeighborsRegressor(weights="distance"), yr[S], train=X[S], test=R, library=False)
skl("neighbours_manhattan", neighbors.KNeighborsClassifier(metric="manhattan"), yb[S], train=X[S], test=R)
skl("gaussian_process", gaussian_process.GaussianProcessRegressor(alpha=0.1), yr[S], train=X[S], test=R)
skl("kernel_pca", make_pipeline(decomposition.KernelPCA(3, kernel="rbf"), lm.Ridge()), yr[S], train=X[S], test=R)
skl("naive_bayes", naive_bayes.GaussianNB(), ys)
skl("calibrated", calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=3), ys)
skl("one_vs_rest_labels", multiclass.OneVsRestClassifier(lm.LogisticRegression()), np.stack([yb, 1 - yb, yb], 1))
skl("mlp_labels", nn.MLPClassifier((6,), max_iter=40, random_state=0), np.stack([yb, 1 - yb, yb], 1))
skl("bins", make_pipeline(preprocessing.KBinsDiscretizer(4, encode="onehot-dense"), lm.LogisticRegression()), ys)
skl("power_poly", make_pipeline(preprocessing.PowerTransformer(), preprocessing.PolynomialFeatures(2), lm.Ridge()), yr)
skl("pca_robust", make_pipeline(preprocessing.RobustScaler(), decomposition.PCA(3, whiten=True), lm.LogisticRegression()), ys)
skl("scores_raw", lm.LogisticRegression(), ys, options={"zipmap": False, "raw_scores": True}, library=False)
skl("zipmap_columns", lm.LogisticRegression(), ym, options={"zipmap": "columns"}, library=False)

# Columns with strings.
df = pd.DataFrame({"age": X[:, 0], "income": X[:, 1], "city": rng.choice(["Oslo", "Rome", "Lima"], N), "job": rng.choice(["a", "b"], N)})
pre = ColumnTransformer([("num", StandardScaler(), ["age", "income"]), ("cat", OneHotEncoder(handle_unknown="ignore"), ["city", "job"])])
pipe = Pipeline([("pre", pre), ("clf", lm.LogisticRegression())]).fit(df, ys)
types = [(c, FloatTensorType([None, 1]) if c in ("age", "income") else StringTensorType([None, 1])) for c in df.columns]
onx = convert_sklearn(pipe, initial_types=types, target_opset={"": 18, "ai.onnx.ml": 3}, options={"zipmap": False})
t = df[:16].copy()
t.loc[3, "city"] = "Nowhere"
save("columns", onx, {c: t[[c]].to_numpy(np.float32 if c in ("age", "income") else object) for c in df.columns}, {"probabilities": pipe.predict_proba(t)})

# Other libraries' trees.
import xgboost as xgb, lightgbm as lgb
from onnxmltools import convert_xgboost, convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as FT

for name, m, y in [("xgb_binary", xgb.XGBClassifier(n_estimators=10, max_depth=3), yb), ("xgb_multi", xgb.XGBClassifier(n_estimators=5, max_depth=3), ym), ("xgb_regressor", xgb.XGBRegressor(n_estimators=10, max_depth=3), yr)]:
    m.fit(XN, y)
    onx = convert_xgboost(m, initial_types=[("input", FT([None, M]))], target_opset=15)
    o = [v.name for v in onx.graph.output]
    save(name, onx, {"input": TN}, {o[-1]: m.predict_proba(TN) if len(o) > 1 else m.predict(TN)}, True)
for name, m, y in [("lgb_binary", lgb.LGBMClassifier(n_estimators=10, num_leaves=8, verbose=-1), yb), ("lgb_multi", lgb.LGBMClassifier(n_estimators=5, num_leaves=8, verbose=-1), ym), ("lgb_regressor", lgb.LGBMRegressor(n_estimators=10, num_leaves=8, verbose=-1), yr)]:
    m.fit(XN, y)
    for zm in ([False, True] if name == "lgb_binary" else [False]):
        onx = convert_lightgbm(m, initial_types=[("input", FT([None, M]))], target_opset=15, zipmap=zm)
        o = [v.name for v in onx.graph.output]
        save(name + ("_zipmap" if zm else ""), onx, {"input": TN}, {o[-1]: m.predict_proba(TN) if len(o) > 1 else m.predict(TN)}, True)
out.close()
