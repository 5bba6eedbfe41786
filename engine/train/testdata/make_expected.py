"""Makes expected.json: what scikit-learn and PyTorch make of rows.csv, and what
onnxruntime answers for the models in this folder, which TestWrittenModels writes:

    go test ./engine/train -run TestWrittenModels -update
    python engine/train/testdata/make_expected.py

Versions: numpy 2.4, scikit-learn 1.7.2, torch 2.15, onnx 1.23.2, onnxruntime 1.32.0.
"""

import csv
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
import sklearn
import torch
from sklearn.linear_model import LogisticRegression, PoissonRegressor, QuantileRegressor, Ridge

HERE = pathlib.Path(__file__).resolve().parent
NUMBERS = ["age", "income", "visits", "score"]
ROWS = 160


def make_rows():
    """Rows of different units, one column with gaps, two of categories."""
    r = np.random.default_rng(7)
    age = r.uniform(18, 80, ROWS).round(1)
    income = np.exp(r.normal(10, 0.7, ROWS)).round(2)
    visits = r.poisson(3, ROWS)
    score = r.normal(0, 0.01, ROWS).round(5)
    city = r.choice(["Brno", "Lagos", "Lima", "München"], ROWS)
    plan = r.choice(["", "free", "pro"], ROWS, p=[0.1, 0.6, 0.3])
    z = 0.04 * (age - 50) + 0.6 * (np.log(income) - 10) + 40 * score + (city == "Lima") - 0.7 * (plan == "pro")
    value = (200 + 30 * z + r.normal(0, 8, ROWS)).round(3)
    count = r.poisson(np.exp(0.3 * z + 0.5))
    label = np.where(r.uniform(size=ROWS) < 1 / (1 + np.exp(-1.5 * z)), "yes", "no")
    group = np.clip(np.floor(z + 1.5 + r.normal(0, 0.5, ROWS)), 0, 2).astype(int)
    gaps = [("" if g else v) for g, v in zip(r.uniform(size=ROWS) < 0.1, income)]
    with open(HERE / "rows.csv", "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(NUMBERS + ["gaps", "city", "plan", "value", "count", "label", "group", "weight"])
        weight = r.uniform(0.5, 2, ROWS).round(3)
        w.writerows(zip(age, income, visits, score, gaps, city, plan, value, count, label, group, weight))


def read_rows():
    with open(HERE / "rows.csv", newline="") as f:
        return list(csv.DictReader(f))


def column(rows, name):
    return np.array([float(r[name]) if r[name] else np.nan for r in rows])


def standardised(rows):
    x = np.stack([column(rows, n) for n in NUMBERS], 1).astype(np.float32).astype(np.float64)
    mean = x.mean(0).astype(np.float32).astype(np.float64)
    std = x.std(0).astype(np.float32).astype(np.float64)
    return (x - mean) / std


def linear(rows):
    """Coefficients on standardised columns, with the L2 that means the same here."""
    x, n, w = standardised(rows), len(rows), column(rows, "weight")
    out = []

    def add(name, loss, l2, model, y, weights=None, **more):
        model.fit(x, y, sample_weight=weights)
        out.append({"name": name, "loss": loss, "l2": l2, "weighted": weights is not None,
                    "coef": np.atleast_2d(model.coef_).T.tolist(), "intercept": np.atleast_1d(model.intercept_).tolist(), **more})

    value, count = column(rows, "value"), column(rows, "count")
    label = np.array([r["label"] for r in rows])
    group = column(rows, "group").astype(int)
    add("ridge", "squared", 5 / n, Ridge(alpha=5, tol=1e-12), value, label="value")
    add("ridge weighted", "squared", 5 / w.sum(), Ridge(alpha=5, tol=1e-12), value, w, label="value")
    exact = {"solver": "lbfgs", "tol": 1e-12, "max_iter": 100000}
    add("logistic", "logistic", 1 / (2 * n), LogisticRegression(C=2, **exact), label, label="label")
    add("logistic weighted", "logistic", 1 / (2 * w.sum()), LogisticRegression(C=2, **exact), label, w, label="label")
    add("multinomial", "cross_entropy", 1 / (2 * n), LogisticRegression(C=2, **exact), group, label="group")
    add("poisson", "poisson", 0.1, PoissonRegressor(alpha=0.1, tol=1e-12, max_iter=100000), count, label="count")
    # The quantile loss has no gradient at its minimum: what is compared is its value.
    q = QuantileRegressor(quantile=0.8, alpha=0, solver="highs").fit(x, value)
    r = value - q.predict(x)
    out.append({"name": "quantile", "loss": "quantile", "label": "value", "l2": 0, "minimum": float(np.maximum(0.8 * r, -0.2 * r).mean())})
    return out


def network(rows):
    """Losses of 50 steps over all rows, from the weights given."""
    x = torch.tensor(standardised(rows), dtype=torch.float32)
    group = torch.tensor(column(rows, "group"), dtype=torch.int64)
    count = torch.tensor(column(rows, "count"), dtype=torch.float32)[:, None]
    label = torch.tensor([[float(r["label"] == "yes")] for r in rows])
    mse = lambda z, y: ((z - y) ** 2 / 2).mean()  # noqa: E731
    cases = [
        ("adam", "cross_entropy", 3, group, torch.nn.functional.cross_entropy, "tanh", torch.nn.Tanh, "adam", {"lr": 0.01}),
        ("adamw", "logistic", 1, label, torch.nn.functional.binary_cross_entropy_with_logits, "gelu", torch.nn.GELU, "adam", {"lr": 0.02, "weight_decay": 0.1}),
        ("sgd", "cross_entropy", 3, group, torch.nn.functional.cross_entropy, "relu", torch.nn.ReLU, "sgd", {"lr": 0.1}),
        ("momentum", "poisson", 1, count, torch.nn.PoissonNLLLoss(), "tanh", torch.nn.Tanh, "sgd", {"lr": 0.02, "momentum": 0.9}),
        ("nesterov", "logistic", 1, label, torch.nn.functional.binary_cross_entropy_with_logits, "elu", torch.nn.ELU, "sgd", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
        ("l2", "cross_entropy", 3, group, torch.nn.functional.cross_entropy, "softplus", torch.nn.Softplus, "sgd", {"lr": 0.1, "weight_decay": 0.05}),
        ("huber", "huber", 1, count, torch.nn.HuberLoss(delta=0.7), "selu", torch.nn.SELU, "adam", {"lr": 0.01}),
        ("squared", "squared", 1, count, mse, "leaky_relu", torch.nn.LeakyReLU, "adam", {"lr": 0.01}),
        ("sigmoid", "cross_entropy", 3, group, torch.nn.functional.cross_entropy, "sigmoid", torch.nn.Sigmoid, "adam", {"lr": 0.01, "betas": (0.8, 0.99)}),
    ]
    out = []
    for name, loss, k, y, f, activation, layer, optimiser, options in cases:
        torch.manual_seed(3)
        net = torch.nn.Sequential(torch.nn.Linear(4, 8), layer(), torch.nn.Linear(8, 5), layer(), torch.nn.Linear(5, k))
        start = [p.detach().numpy().T.flatten().tolist() for p in net.parameters()]
        decay = options.pop("weight_decay", 0)
        groups = [{"params": [p for p in net.parameters() if p.dim() == 2], "weight_decay": decay},
                  {"params": [p for p in net.parameters() if p.dim() == 1], "weight_decay": 0}]
        make = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimiser]
        opt = make(groups, **options)
        losses = []
        for _ in range(50):
            opt.zero_grad()
            l = f(net(x), y)
            l.backward()
            opt.step()
            losses.append(l.item())
        out.append({"name": name, "loss": loss, "label": {3: "group"}.get(k, "label" if loss == "logistic" else "count"), "activation": activation,
                    "optimizer": optimiser, "decay": decay, "start": start, "losses": losses, **{k: v for k, v in options.items()}})
    return out


def written(rows):
    out = {}
    for path in sorted(HERE.glob("*.onnx")):
        onnx.checker.check_model(onnx.load(path), full_check=True)
        s = onnxruntime.InferenceSession(str(path))
        feed, names = {}, onnx.load(path).metadata_props
        features = next((json.loads(p.value) for p in names if p.key == "feature_names"), None)
        for i in s.get_inputs():
            if features and len(s.get_inputs()) == 1:
                feed[i.name] = np.stack([column(rows, n) for n in features], 1).astype(np.float32)
            elif i.type == "tensor(string)":
                feed[i.name] = np.array([[r[i.name]] for r in rows])
            else:
                feed[i.name] = column(rows, i.name).astype(np.float32)[:, None]
        out[path.stem] = {o.name: v.flatten().tolist() for o, v in zip(s.get_outputs(), s.run(None, feed))}
    return out


if __name__ == "__main__":
    if not (HERE / "rows.csv").exists():
        make_rows()
    rows = read_rows()
    made = {"versions": {m.__name__: m.__version__ for m in (np, sklearn, torch, onnx, onnxruntime)},
            "linear": linear(rows), "network": network(rows), "written": written(rows)}
    (HERE / "expected.json").write_text(json.dumps(made, separators=(",", ":")).replace("},", "},\n") + "\n")
