"""Writes calibrate.json.gz: what scikit-learn fits to scores.

scikit-learn==1.7.2 numpy==2.4.6 scipy==1.17.1, Python 3.11

    python make_calibrate.py            writes calibrate.json.gz beside itself
    python make_calibrate.py check DIR  runs the files the tests write with PELLUCID_CALIBRATE_OUT=DIR in onnxruntime 1.32
"""

import gzip
import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent


def cases():
    rng = np.random.default_rng(3)
    for name, n, ties, weighted, scale in (
        ("plain", 400, 0, False, 1), ("ties", 400, 30, False, 1), ("weighted", 300, 25, True, 1),
        ("large", 300, 0, False, 500), ("few", 5, 0, False, 1), ("one", 1, 0, False, 1), ("constant", 20, 1, False, 1),
    ):
        s = rng.normal(size=n)
        y = (rng.random(n) < 1 / (1 + np.exp(-2 * s + 1))).astype(float)
        if ties:
            s = np.floor(s * ties / 6)
        w = np.floor(rng.random(n) * 4) if weighted else None
        yield name, s * scale, y, w


def single(name, s, y, w):
    from sklearn.calibration import _SigmoidCalibration
    from sklearn.isotonic import IsotonicRegression

    at = np.concatenate([s[:50], np.linspace(s.min() - 1, s.max() + 1, 101)])
    iso = IsotonicRegression(out_of_bounds="clip").fit(s, y, w)
    platt = _SigmoidCalibration().fit(s, y, w)
    listed = lambda v: None if v is None else v.tolist()
    return {
        "name": name, "scores": listed(s), "labels": listed(y), "weights": listed(w), "at": listed(at), "x": listed(iso.X_thresholds_),
        "y": listed(iso.y_thresholds_), "isotonic": listed(iso.predict(at)), "a": platt.a_, "b": platt.b_, "platt": listed(platt.predict(at)),
    }


def several():
    """Three classes, one against the rest, and a temperature."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax, softmax
    from sklearn.calibration import _SigmoidCalibration
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(5)
    logits = rng.normal(size=(300, 3)) * 2
    y = np.array([rng.choice(3, p=p) for p in softmax(logits * 0.6, axis=1)])
    out = {"logits": logits.ravel().tolist(), "labels": y.tolist()}
    for key, make in (("isotonic", lambda: IsotonicRegression(out_of_bounds="clip")), ("platt", _SigmoidCalibration)):
        p = np.column_stack([make().fit(logits[:, k], (y == k).astype(float)).predict(logits[:, k]) for k in range(3)])
        total = p.sum(1, keepdims=True)
        out[key] = np.where(total == 0, 1 / 3, p / np.where(total == 0, 1, total)).ravel().tolist()
    loss = lambda b: -log_softmax(logits * b, axis=1)[np.arange(300), y].sum()
    out["temperature"] = 1 / minimize_scalar(loss, bounds=(0.01, 10), method="bounded", options={"xatol": 1e-12}).x
    return out


def check(folder):
    import onnxruntime

    for path in sorted(pathlib.Path(folder).glob("*.onnx")):
        case = json.loads(path.with_suffix(".json").read_text())
        s = onnxruntime.InferenceSession(path)
        x = np.array(case["scores"], np.float32).reshape([-1, *s.get_inputs()[0].shape[1:]])
        got = s.run([case["output"]], {s.get_inputs()[0].name: x})[0].ravel()
        print(path.stem, float(np.abs(got - case["want"]).max()))


def main():
    out = {"single": [single(*c) for c in cases()], "several": several()}
    with gzip.GzipFile(HERE / "calibrate.json.gz", "wb", mtime=0) as f:
        f.write(json.dumps(out, separators=(",", ":")).encode())


if __name__ == "__main__":
    check(sys.argv[2]) if sys.argv[1:2] == ["check"] else main()
