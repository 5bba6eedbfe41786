"""The rivals of bench/trees: makes the models and rows, then times what it is asked to, one thread.

xgboost-cpu==3.4.1 lightgbm==4.6.0 lleaves==1.3.0 llvmlite==0.44.0 onnxruntime onnxmltools onnx numpy scipy
(see main.go; a newer llvmlite lacks what lleaves calls)

    rival.py make DIR       writes xgboost.json, deep.json, forest.json, lightgbm.txt, lightgbm.onnx and rows.f32
    rival.py serve DIR      answers lines "LIBRARY WORK ROWS REPEATS" with seconds a call, the least of the repeats, or of one row
                            the mean of so many calls, each with another row; less what the same call takes over one
                            row of a model of one tree: that is Python's and the call's own
"""

import importlib.metadata
import os
import sys
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import lightgbm
import lleaves
import numpy as np
import onnxruntime
import xgboost

FEATURES, ROWS, TREES = 30, 100_000, 500


def make(folder):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    y = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + 0.3 * x[:, 3:8].sum(1) + x[:, 9] * x[:, 10] * x[:, 11]
    y = (y + rng.normal(size=ROWS) > 0).astype(int)
    x[rng.random(x.shape) < 0.02] = np.nan
    x.tofile(os.path.join(folder, "rows.f32"))
    few = slice(0, 50_000)
    data = xgboost.DMatrix(x[few], y[few])
    common = {"objective": "binary:logistic", "eta": 0.05, "tree_method": "hist", "nthread": 2}
    xgboost.train(common | {"max_depth": 6}, data, TREES).save_model(os.path.join(folder, "xgboost.json"))
    xgboost.train(common | {"max_depth": 9}, data, 100).save_model(os.path.join(folder, "deep.json"))
    forest = {"max_depth": 14, "eta": 1, "num_parallel_tree": 50, "subsample": 0.6, "colsample_bynode": 0.3, "lambda": 0, "min_child_weight": 0}
    xgboost.train(common | forest, data, 1).save_model(os.path.join(folder, "forest.json"))
    from onnxmltools.convert import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    params = {"objective": "binary", "max_depth": 6, "num_leaves": 64, "learning_rate": 0.05, "verbose": -1, "num_threads": 2, "seed": 1}
    xgboost.train(common | {"max_depth": 1}, data, 1).save_model(os.path.join(folder, "one.json"))
    for name, trees, leaves in ("lightgbm", TREES, 64), ("one", 1, 2):
        model = lightgbm.train(params | {"num_leaves": leaves}, lightgbm.Dataset(x[few], y[few]), trees)
        model.save_model(os.path.join(folder, name + ".txt"))
        if os.path.exists(compiled := os.path.join(folder, name + ".txt.lleaves")):
            os.remove(compiled)
        made = convert_lightgbm(model, initial_types=[("x", FloatTensorType([None, FEATURES]))], zipmap=False, target_opset=15)
        with open(os.path.join(folder, name + ".onnx"), "wb") as f:
            f.write(made.SerializeToString())


class XGBoost:
    def __init__(self, path):
        self.model = xgboost.Booster(model_file=path)
        self.model.set_param({"nthread": 1})

    def inplace(self, x):
        return self.model.inplace_predict(x)

    def predict(self, x):
        return self.model.predict(xgboost.DMatrix(x, nthread=1))

    def contribs(self, x):
        return self.model.predict(xgboost.DMatrix(x, nthread=1), pred_contribs=True)

    def interactions(self, x):
        return self.model.predict(xgboost.DMatrix(x, nthread=1), pred_interactions=True)


class LightGBM:
    def __init__(self, path):
        self.model = lightgbm.Booster(model_file=path)
        self.compiled = lleaves.Model(model_file=path)
        self.compiled.compile(cache=path + ".lleaves")

    def lleaves(self, x):
        return self.compiled.predict(x, n_jobs=1)

    def predict(self, x):
        return self.model.predict(x, num_threads=1)

    def contribs(self, x):
        return self.model.predict(x, num_threads=1, pred_contrib=True)


class ONNX:
    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.bound, self.row = None, None

    def predict(self, x):
        if len(x) > 1:  # the file says that its label is one
            return self.session.run(None, {"x": x})
        if self.bound is None:
            self.bound, self.row = self.session.io_binding(), x.copy()
            self.bound.bind_cpu_input("x", self.row)
            for o in self.session.get_outputs():
                self.bound.bind_output(o.name, "cpu")
        self.row[:] = x
        return self.session.run_with_iobinding(self.bound)


def seconds(call, x, rows, repeats):
    if rows == 1:
        each = [x[i : i + 1] for i in range(repeats)]
        start = time.perf_counter()
        for row in each:
            call(row)
        return (time.perf_counter() - start) / repeats
    least, rows = float("inf"), x[:rows]
    for _ in range(repeats):
        start = time.perf_counter()
        call(rows)
        least = min(least, time.perf_counter() - start)
    return least


def serve(folder):
    x = np.fromfile(os.path.join(folder, "rows.f32"), dtype=np.float32).reshape(-1, FEATURES)
    rivals = {
        "xgboost": XGBoost(os.path.join(folder, "xgboost.json")),
        "deep": XGBoost(os.path.join(folder, "deep.json")),
        "forest": XGBoost(os.path.join(folder, "forest.json")),
        "onnx": ONNX(os.path.join(folder, "lightgbm.onnx")),
        "lightgbm": LightGBM(os.path.join(folder, "lightgbm.txt")),
    }
    ones = {"xgboost": XGBoost(os.path.join(folder, "one.json")), "onnx": ONNX(os.path.join(folder, "one.onnx")), "lightgbm": LightGBM(os.path.join(folder, "one.txt"))}
    ones["deep"] = ones["forest"] = ones["xgboost"]
    own = {}
    print("ready", xgboost.__version__, lightgbm.__version__, importlib.metadata.version("lleaves"), onnxruntime.__version__, flush=True)
    for line in sys.stdin:
        library, work, rows, repeats = line.split()
        if (library, work) not in own:
            own[library, work] = min(seconds(getattr(ones[library], work), x, 1, 500) for _ in range(5))
        print(max(seconds(getattr(rivals[library], work), x, int(rows), int(repeats)) - own[library, work], 1e-9), flush=True)


if __name__ == "__main__":
    {"make": make, "serve": serve}[sys.argv[1]](sys.argv[2])
