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
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(11)


def of(v, dtype):
    return np.array(v, dtype=dtype)


def quantized(shape, dtype):
    """Numbers of 8 bits with a scale and a zero point."""
    i = np.iinfo(dtype)
    return [rng.integers(i.min, i.max, shape, dtype=dtype, endpoint=True), of(rng.uniform(0.01, 0.05), np.float32), of(rng.integers(i.min, i.max) // 4, dtype)]


def case(name, op, shapes, outputs=("y",), result=TensorProto.FLOAT, weights=(), **attrs):
    """An input of each shape, or the array itself; None is an input that is not given.

    Those of the places in weights are initialisers; result may be a type for each output.
    """
    names = ["" if s is None else f"x{i}" for i, s in enumerate(shapes)]
    arrays = {n: s if isinstance(s, np.ndarray) else rng.normal(size=s).astype(np.float32) * 2 for n, s in zip(names, shapes) if n}
    node = helper.make_node(op, names, list(outputs), domain="com.microsoft", **attrs)
    initialisers = [numpy_helper.from_array(arrays.pop(names[i]), names[i]) for i in weights]
    ins = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in arrays.items()]
    results = result if isinstance(result, tuple) else (result,) * len(outputs)
    outs = [helper.make_tensor_value_info(n, r, None) for n, r in zip(outputs, results) if n]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    data = helper.make_model(helper.make_graph([node], "g", ins, outs, initialisers), opset_imports=opsets, ir_version=8).SerializeToString()
    got = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, arrays)
    flat = lambda n, a: {"name": n, "type": str(a.dtype), "shape": list(a.shape), "data": [float(v) for v in a.ravel()]}
    return {
        "name": name,
        "model": base64.b64encode(data).decode(),
        "inputs": [flat(n, a) for n, a in arrays.items()],
        "outputs": [flat(o.name, a) for o, a in zip(outs, got)],
    }


def attentions():
    i32 = lambda v: of(v, np.int32)
    padding = i32([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    cube = rng.integers(0, 2, (2, 5, 5)).astype(np.int32)
    x, w, b = (2, 5, 8), (8, 24), (24,)
    past = (2, 2, 4, 3, 2)
    q, k, v = (2, 5, 8), (2, 7, 8), (2, 7, 12)
    both = ("y", "present")
    attention = lambda name, shapes, **kw: case("Attention " + name, "Attention", shapes, num_heads=kw.pop("num_heads", 4), weights=(1,) if len(shapes) < 3 else (1, 2), **kw)
    heads = lambda name, shapes, **kw: case("MultiHeadAttention " + name, "MultiHeadAttention", shapes, num_heads=4, **kw)
    return [
        attention("plain", [x, w, b]),
        attention("scale", [x, w, b], scale=0.3),
        attention("mask", [x, w, b, padding]),
        attention("mask filter", [x, w, b, padding], mask_filter_value=-3.0),
        attention("lengths", [x, w, b, i32([3, 5])]),
        attention("lengths and starts", [x, w, b, i32([4, 5, 1, 2])]),
        attention("mask of each query", [x, w, b, cube]),
        attention("unidirectional", [x, w, b], unidirectional=1),
        attention("unidirectional mask", [x, w, b, padding], unidirectional=1),
        attention("bias of scores", [x, w, b, padding, None, (2, 4, 5, 5)]),
        attention("bias of scores for all", [x, w, b, None, None, (1, 1, 5, 5)], unidirectional=1),
        attention("other sizes", [x, (8, 8 + 8 + 12), (28,)], qkv_hidden_sizes=[8, 8, 12]),
        attention("past", [x, w, b, None, past], outputs=both),
        attention("past unidirectional mask", [x, w, b, rng.integers(0, 2, (2, 8)).astype(np.int32), past], outputs=both, unidirectional=1),
        attention("one step", [(2, 1, 8), w, b, None, past], outputs=both, unidirectional=1),
        attention("present", [x, w, b], outputs=both),
        heads("plain", [q, q, q]),
        heads("other keys", [q, k, v]),
        heads("bias", [q, k, v, (8 + 8 + 12,)]),
        heads("scale", [q, k, v], scale=0.2),
        heads("mask", [q, k, v, None, rng.integers(0, 2, (2, 7)).astype(np.int32)]),
        heads("lengths", [q, k, v, None, i32([3, 7])]),
        heads("mask of each query", [q, k, v, None, rng.integers(0, 2, (2, 5, 7)).astype(np.int32)]),
        heads("bias of scores", [q, k, v, None, None, (1, 4, 5, 7)]),
        heads("unidirectional", [q, q, q], unidirectional=1),
        heads("keys in heads", [q, (2, 4, 7, 2), (2, 4, 7, 2)]),
        heads("past", [q, q, q, (24,), None, None, (2, 4, 3, 2), (2, 4, 3, 2)], outputs=("y", "present_key", "present_value"), unidirectional=1),
        heads("scores", [q, k, v, None, rng.integers(0, 2, (2, 7)).astype(np.int32)], outputs=("y", "pk", "pv", "qk")),
    ]


def embeddings():
    ids = lambda n: rng.integers(0, n, (2, 5)).astype(np.int32)
    words, places, kinds, d = (20, 8), (7, 8), (2, 8), (8,)
    embed = lambda name, shapes, **kw: case("EmbedLayerNormalization " + name, "EmbedLayerNormalization", shapes, result=(TensorProto.FLOAT, TensorProto.INT32, TensorProto.FLOAT), **kw)
    two = ("y", "mask_index")
    return [
        embed("plain", [ids(20), ids(2), words, places, kinds, d, d], outputs=two),
        embed("mask", [ids(20), ids(2), words, places, kinds, d, d, of([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)], outputs=two, epsilon=0.01),
        embed("no segments", [ids(20), None, words, places, None, d, d], outputs=two),
        embed("places", [ids(20), ids(2), words, places, kinds, d, d, None, ids(7)], outputs=two),
        embed("sum", [ids(20), ids(2), words, places, kinds, d, d], outputs=("y", "mask_index", "sum")),
    ]


def blocks():
    """MatMulNBits by bits, block, rows of the matrix and its columns, zero points and bias."""
    out = []
    for bits, block, k, n, zeros, bias in [
        (4, 32, 64, 5, None, False), (4, 32, 64, 5, "codes", False), (4, 16, 100, 33, "codes", True), (4, 128, 300, 8, None, True), (4, 32, 96, 7, "floats", False),
        (8, 32, 64, 5, None, False), (8, 16, 100, 33, "codes", True), (8, 256, 700, 3, "codes", False), (4, 64, 1100, 40, "codes", False),
    ]:
        count = (k + block - 1) // block
        codes = rng.integers(0, 256, (n, count, block * bits // 8), dtype=np.uint8)
        shapes = [(1, 2, k), codes, rng.uniform(0.001, 0.02, n * count).astype(np.float32)]
        if zeros == "codes":
            shapes.append(rng.integers(0, 256, n * ((count * bits + 7) // 8), dtype=np.uint8))
        elif zeros == "floats":
            shapes.append(rng.uniform(0, 15, n * count).astype(np.float32))
        if bias:
            shapes += [None] * (5 - len(shapes)) + [(n,)]
        weights = [i for i in range(1, min(4, len(shapes))) if shapes[i] is not None]
        out.append(case(f"MatMulNBits {bits} {block} {k}x{n} {zeros} {bias}", "MatMulNBits", shapes, weights=weights, bits=bits, block_size=block, K=k, N=n))
    return out


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
    for dtype in (np.uint8, np.int8):
        result = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        name, q = np.dtype(dtype).name, lambda *shape: quantized(shape, dtype)
        to = lambda: q(1)[1:]
        out += [
            case("QLinearAdd " + name, "QLinearAdd", q(3, 40) + q(3, 40) + to(), result=result),
            case("QLinearAdd broadcast " + name, "QLinearAdd", q(2, 3, 40) + q(40) + to(), result=result),
            case("QLinearMul " + name, "QLinearMul", q(3, 40) + q(3, 40) + to(), result=result),
            case("QLinearSigmoid " + name, "QLinearSigmoid", q(3, 40) + [of(1 / 256, np.float32), of(0, dtype)], result=result),
            case("QLinearLeakyRelu " + name, "QLinearLeakyRelu", q(3, 40) + to(), result=result, alpha=0.1),
            case("QLinearConcat " + name, "QLinearConcat", to() + q(3, 20) + q(3, 30), result=result, axis=1),
            case("QLinearGlobalAveragePool " + name, "QLinearGlobalAveragePool", q(2, 3, 5, 7) + to(), result=result),
            case("QLinearAveragePool " + name, "QLinearAveragePool", q(2, 3, 6, 7) + to(), result=result, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0]),
            case("DynamicQuantizeMatMul columns " + name, "DynamicQuantizeMatMul", [(3, 8), q(8, 5)[0], rng.uniform(0.01, 0.05, 5).astype(np.float32), q(5)[0]]),
            case("DynamicQuantizeMatMul " + name, "DynamicQuantizeMatMul", [(3, 8)] + q(8, 5)),
            case("DynamicQuantizeMatMul bias " + name, "DynamicQuantizeMatMul", [(3, 8)] + q(8, 5) + [(5,)]),
        ]
    bias = lambda n: rng.integers(-2000, 2000, n).astype(np.int32)
    columns = lambda n: rng.uniform(0.01, 0.05, n).astype(np.float32)
    zero = lambda t: of(t(0), t)
    for dtype in (np.uint8, np.int8):
        name, a = np.dtype(dtype).name, lambda *shape: quantized(shape, dtype)
        to = [of(0.2, np.float32), of(100, np.uint8)] if dtype == np.uint8 else [of(0.2, np.float32), of(3, np.int8)]
        b = lambda *shape: [quantized(shape, np.int8)[0], of(rng.uniform(0.01, 0.05), np.float32), zero(np.int8)]
        result = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        out += [
            case("QGemm " + name, "QGemm", a(3, 9) + b(9, 5) + [bias(5)] + to, result=result),
            case("QGemm transB " + name, "QGemm", a(3, 9) + b(5, 9) + [None] + to, result=result, transB=1),
            case("QGemm columns " + name, "QGemm", a(3, 9) + [b(9, 5)[0], columns(5), of([0] * 5, np.int8), bias(5)] + to, result=result),
            case("QGemm floats " + name, "QGemm", a(3, 9) + b(9, 5) + [bias(5)]),
            case("QLinearSoftmax " + name, "QLinearSoftmax", a(3, 9) + [of(1 / 256, np.float32), of(np.iinfo(dtype).min, dtype)], result=result, axis=-1, opset=13),
        ]
    out += attentions() + embeddings() + blocks()
    with open(path, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as z:
        z.write(json.dumps(out).encode())
    print(len(out), "cases of onnxruntime", onnxruntime.__version__)


if __name__ == "__main__":
    main(sys.argv[1])
