"""Expected values of onnxruntime's own operators (domain com.microsoft).

onnx==1.23.0 onnxruntime==1.32.0 numpy (any newer works)

    make_contrib.py OUT.json.gz
"""

import base64
import gzip
import json
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

rng = np.random.default_rng(11)


def case(name, op, shapes, outputs=("y",), **attrs):
    """An input of each shape; None is an input that is not given."""
    names = ["" if s is None else f"x{i}" for i, s in enumerate(shapes)]
    arrays = {n: rng.normal(size=s).astype(np.float32) * 2 for n, s in zip(names, shapes) if n}
    node = helper.make_node(op, names, list(outputs), domain="com.microsoft", **attrs)
    ins = [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in arrays.items()]
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs if n]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    data = helper.make_model(helper.make_graph([node], "g", ins, outs), opset_imports=opsets, ir_version=8).SerializeToString()
    got = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, arrays)
    flat = lambda n, a: {"name": n, "shape": list(a.shape), "data": [float(v) for v in a.ravel()]}
    return {
        "name": name,
        "model": base64.b64encode(data).decode(),
        "inputs": [flat(n, a) for n, a in arrays.items()],
        "outputs": [flat(o.name, a) for o, a in zip(outs, got)],
    }


def main(path):
    out = [
        case("Gelu", "Gelu", [(3, 5)]),
        case("BiasGelu", "BiasGelu", [(2, 3, 5), (5,)]),
        case("FastGelu", "FastGelu", [(3, 5)]),
        case("FastGelu bias", "FastGelu", [(2, 3, 5), (5,)]),
        case("QuickGelu", "QuickGelu", [(3, 5)]),
        case("QuickGelu alpha", "QuickGelu", [(3, 5)], alpha=0.7),
        case("FusedMatMul", "FusedMatMul", [(3, 4), (4, 2)]),
        case("FusedMatMul alpha", "FusedMatMul", [(2, 3, 4), (2, 4, 5)], alpha=0.25),
        case("FusedMatMul transA", "FusedMatMul", [(2, 4, 3), (4, 5)], transA=1),
        case("FusedMatMul transB", "FusedMatMul", [(2, 3, 4), (2, 5, 4)], transB=1, alpha=2.0),
        case("FusedMatMul both", "FusedMatMul", [(4, 3), (5, 4)], transA=1, transB=1),
        case("SkipLayerNormalization", "SkipLayerNormalization", [(2, 3, 8), (2, 3, 8), (8,)]),
        case("SkipLayerNormalization beta", "SkipLayerNormalization", [(2, 3, 8), (2, 3, 8), (8,), (8,)], epsilon=0.5),
        case("SkipLayerNormalization bias", "SkipLayerNormalization", [(2, 3, 8), (2, 3, 8), (8,), (8,), (8,)]),
        case("SkipLayerNormalization sum", "SkipLayerNormalization", [(2, 3, 8), (2, 3, 8), (8,), None, (8,)], outputs=("y", "", "", "sum")),
        case("SkipLayerNormalization broadcast", "SkipLayerNormalization", [(2, 3, 8), (1, 3, 8), (8,), (8,)]),
    ]
    with open(path, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as z:
        z.write(json.dumps(out).encode())
    print(len(out), "cases of onnxruntime", onnxruntime.__version__)


if __name__ == "__main__":
    main(sys.argv[1])
