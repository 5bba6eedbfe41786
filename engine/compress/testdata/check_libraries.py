"""Loads what `pellucid model compress` makes in the libraries the models came from.

    go build -o pellucid ./cmd/pellucid
    python engine/compress/testdata/check_libraries.py ./pellucid

Every model of the readers' test data is compressed in every way; what is not refused has
to load in its library and to predict there what `pellucid predict` says of it, within
1e-5. Models whose original the library at hand refuses or predicts otherwise (written by a later
version) are skipped by name. Versions: xgboost 3.2.0 (files of 3.4 with 3.4.1, where the others need not be
installed), lightgbm 4.6.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.
"""

import io
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import xgboost

try:
    import lightgbm
    import onnx
    import onnxruntime
except ImportError:
    lightgbm = onnx = onnxruntime = None

ENGINE = pathlib.Path(__file__).resolve().parent.parent.parent
BINARY = sys.argv[1]
WORK = pathlib.Path(tempfile.mkdtemp())
TREES = ["trees:1", "trees:2", "least:0.5", "leaves:0.05", "leaves:1e9"]
NETWORKS = ["fp16", "int8", "int8,fp16", "prune:0.5", "structured:0.3", "structured:0.3,fp16"]
if onnxruntime:
    onnxruntime.set_default_logger_severity(3)


def run(*args):
    return subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True)


def ours(model, rows):
    done = run("predict", "--model", model, "--input", rows)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return np.genfromtxt(io.StringIO(done.stdout), delimiter=",", skip_header=1)


def header(names, rows, path):
    text = "\n".join(",".join("" if np.isnan(v) else repr(float(v)) for v in r) for r in rows)
    path.write_text(",".join(names) + "\n" + text + "\n")
    return path


def theirs_xgboost(model, rows):
    booster = xgboost.Booster(model_file=str(model))
    types = booster.feature_types
    data = xgboost.DMatrix(rows.astype(np.float32), feature_names=booster.feature_names, feature_types=types, enable_categorical=True)
    booster.get_dump()
    return booster.predict(data)


def theirs_lightgbm(model, rows):
    return lightgbm.Booster(model_file=str(model)).predict(rows)


def names_of(model):
    import json
    done = run("model", "inspect", model, "--format", "json")
    return [f["Name"] for f in json.loads(done.stdout)["features"]]


def compare(what, a, b):
    a, b = np.asarray(a, float).reshape(len(a), -1), np.asarray(b, float).reshape(len(b), -1)
    worst = np.max(np.abs(a - b) / np.maximum(1, np.abs(b)))
    if a.shape != b.shape or not worst <= 1e-5:
        print("DIFFERS", what, worst)
        return 1
    return 0


def native():
    bad = done = refused = 0
    files = [*ENGINE.glob("xgboost/testdata/*.json"), *ENGINE.glob("xgboost/testdata/*.ubj")]
    if lightgbm:
        files += ENGINE.glob("lightgbm/testdata/*.txt")
    for model in sorted(f for f in files if not f.name.endswith(".expect.json")):
        given = pathlib.Path(str(model.with_suffix("")) + ".rows.csv")
        if not given.exists():
            continue
        rows = np.genfromtxt(given, delimiter=",", ndmin=2)
        matrix = WORK / "rows.npy"
        np.save(matrix, rows)
        theirs = theirs_lightgbm if model.suffix == ".txt" else theirs_xgboost
        try:
            if compare("the original of " + model.name, ours(model, matrix), theirs(model, rows)):
                continue
        except Exception as e:  # the library itself does not take the original
            print("skipped", model.name, str(e).splitlines()[0][:100])
            continue
        for how in TREES:
            out = WORK / ("out" + model.suffix)
            made = run("model", "compress", model, "--to", how, "--out", out, "--input", matrix, "--explain-rows", "0", "--rounds", "0")
            if made.returncode:
                refused += 1
                continue
            done += 1
            try:
                bad += compare(f"{model.name} {how}", ours(out, matrix), theirs(out, rows))
            except Exception as e:
                print("FAILS", model.name, how, str(e).splitlines()[0][:300])
                bad += 1
    print(f"native: {done} compressed, {refused} refused, {bad} bad")
    return bad


def well_formed(model):
    """Whether shapes can be inferred of the original: scikit-learn declares some wrongly."""
    try:
        onnx.checker.check_model(onnx.load(model), full_check=True)
        return True
    except Exception:
        return False


def networks():
    bad = done = refused = 0
    for archive in ("sklearn.zip", "torch.zip"):
        z = zipfile.ZipFile(ENGINE / "onnx/testdata" / archive)
        for name in sorted(n for n in z.namelist() if n.endswith("model.onnx")):
            model = WORK / "model.onnx"
            model.write_bytes(z.read(name))
            try:
                original = onnxruntime.InferenceSession(str(model))
            except Exception as e:
                print("skipped", name, str(e).splitlines()[0][:100])
                continue
            whole = well_formed(model)
            inputs = {}
            rng = np.random.default_rng(1)
            for i in original.get_inputs():
                dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64}.get(i.type)
                if dtype is not None:
                    inputs[i.name] = rng.normal(size=[d if isinstance(d, int) else 5 for d in i.shape]).astype(dtype)
            if len(inputs) != len(original.get_inputs()):
                continue
            rows = None
            first = next(iter(inputs.values()))
            if len(inputs) == 1 and first.ndim == 2 and first.shape[0] == 5:
                rows = header(names_of(model) or [f"f{i}" for i in range(first.shape[1])], first.astype(float), WORK / "rows.csv")
            for how in NETWORKS + TREES:
                out = WORK / "out.onnx"
                extra = ["--input", rows, "--explain-rows", "0", "--rounds", "0"] if rows else []
                made = run("model", "compress", model, "--to", how, "--out", out, *extra)
                if made.returncode:
                    refused += 1
                    continue
                done += 1
                try:
                    onnx.checker.check_model(onnx.load(out), full_check=whole)
                    # Left to itself onnxruntime fuses INT8 weights with their product and
                    # rounds the other side to 8 bits too: up to 2e-3 on kernel_pca.
                    plain = onnxruntime.SessionOptions()
                    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
                    session = onnxruntime.InferenceSession(str(out), plain)
                    got = session.run(None, inputs)
                    if rows:
                        floats = [np.asarray(g, float).reshape(5, -1) for g in got if getattr(g, "dtype", None) in (np.float32, np.float64)]
                        said = ours(out, rows).reshape(5, -1)
                        width = sum(f.shape[1] for f in floats)
                        bad += compare(f"{name} {how}", said[:, -width:] if width else said[:, :0], np.hstack(floats) if width else said[:, :0]) if width else 0
                except Exception as e:
                    print("FAILS", name, how, str(e)[:300])
                    bad += 1
    print(f"onnx: {done} compressed, {refused} refused, {bad} bad")
    return bad


sys.exit(1 if native() + (networks() if onnx else 0) else 0)
