"""Writes precisions.json.gz: one network over inputs of every float type and over integers, with its attributions.

onnx==1.23.2 torch==2.15.0 (any newer works)

    make_precisions.py OUT.json.gz

The attributions are those of the network in float64, with the weights and rows that each precision has: what a run in half
precision differs by is its own rounding.
"""

import base64
import gzip
import json
import sys

import numpy as np
import torch
from onnx import TensorProto, helper

rng = np.random.default_rng(5)
N, M, H, K = 4, 5, 8, 3
W1, B1, W2, B2 = rng.normal(size=(M, H)) / 2, rng.normal(size=H) / 4, rng.normal(size=(H, K)) / 2, rng.normal(size=K) / 4
TYPES = {
    "FP16": (TensorProto.FLOAT16, torch.float16), "BF16": (TensorProto.BFLOAT16, torch.bfloat16),
    "FP32": (TensorProto.FLOAT, torch.float32), "FP64": (TensorProto.DOUBLE, torch.float64),
}


def case(name, compute, given, x, scale=1.0):
    """The network in one type, over an input of another that is cast to it, and scaled."""
    kind, t = TYPES[compute]
    of = {"INT64": TensorProto.INT64, "UINT8": TensorProto.UINT8}.get(given) or TYPES[given][0]
    weights = [torch.tensor(w).to(t) for w in (W1, B1, W2, B2)]
    nodes, at = [], "x"
    if of != kind:
        nodes.append(helper.make_node("Cast", [at], ["cast"], name="cast", to=kind))
        at = "cast"
    inits = [helper.make_tensor(n, kind, list(w.shape), w.double().flatten().tolist()) for n, w in zip(("w1", "b1", "w2", "b2"), weights)]
    if scale != 1:
        nodes.append(helper.make_node("Mul", [at, "scale"], ["scaled"]))
        inits.append(helper.make_tensor("scale", kind, [], [scale]))
        at = "scaled"
    nodes += [
        helper.make_node("MatMul", [at, "w1"], ["h0"]), helper.make_node("Add", ["h0", "b1"], ["h1"]), helper.make_node("Tanh", ["h1"], ["h2"]),
        helper.make_node("MatMul", ["h2", "w2"], ["h3"]), helper.make_node("Add", ["h3", "b2"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", of, ["N", M])], [helper.make_tensor_value_info("y", kind, ["N", K])], inits)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10).SerializeToString()

    rows = torch.tensor(x)
    rows = rows.double() if given in ("INT64", "UINT8") else rows.to(TYPES[given][1]).double()
    w = [v.double() for v in weights]
    f = lambda v: (torch.tanh(v * scale @ w[0] + w[1]) @ w[2] + w[3])[..., 1]

    def grad(v):
        v = v.clone().requires_grad_(True)
        return torch.autograd.grad(f(v).sum(), v)[0]

    at, weight = np.polynomial.legendre.leggauss(64)
    integrated = sum(0.5 * b * grad(rows * (0.5 + 0.5 * a)) for a, b in zip(at, weight)) * rows
    return {
        "name": name, "model": base64.b64encode(model).decode(), "type": given, "compute": compute, "rows": rows.tolist(), "prediction": f(rows).tolist(),
        "phi": {"saliency": grad(rows).abs().tolist(), "input_x_gradient": (grad(rows) * rows).tolist(), "integrated_gradients": integrated.tolist()},
    }


x, whole = rng.normal(size=(N, M)), rng.integers(0, 255, (N, M))
cases = [case(t, t, t, x) for t in TYPES]
cases += [case(f"{g} in FP32", "FP32", g, x) for g in ("FP16", "BF16", "FP64")]
cases += [case("INT64", "FP32", "INT64", rng.integers(-4, 5, (N, M))), case("UINT8 scaled", "FP32", "UINT8", whole, 1 / 256), case("UINT8 in FP16", "FP16", "UINT8", whole, 1 / 256)]
with open(sys.argv[1], "wb") as out, gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0, filename="") as f:
    f.write(json.dumps(cases).encode())
print(len(cases), "cases")
