"""Expected values of further operators of onnxruntime: of language models, of its optimizer, of its quantiser.

onnx==1.23.2 onnxruntime==1.32.0 numpy (any newer works)

    make_contrib2.py OUT.json.gz
"""

import base64
import gzip
import json
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(23)
FLOAT, U8, I8 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8


def of(v, dtype):
    return np.array(v, dtype=dtype)


def quantized(shape, dtype):
    """Numbers of 8 bits with a scale and a zero point."""
    i = np.iinfo(dtype)
    return [rng.integers(i.min, i.max, shape, dtype=dtype, endpoint=True), of(rng.uniform(0.01, 0.05), np.float32), of(rng.integers(i.min, i.max) // 4, dtype)]


def flat(name, a):
    return {"name": name, "type": str(a.dtype), "shape": list(a.shape), "data": [float(v) for v in a.ravel()]}


def case(name, op, shapes, outputs=("y",), result=FLOAT, weights=(), domain="com.microsoft", opset=17, rows=None, **attrs):
    """An input of each shape, or the array itself; None is an input that is not given.

    Those of the places in weights are initialisers; result may be a type for each output. rows keeps of the first output what
    a mask of its first two dimensions says: beyond the rows' lengths it holds what lay in memory.
    """
    names = ["" if s is None else f"x{i}" for i, s in enumerate(shapes)]
    arrays = {n: s if isinstance(s, np.ndarray) else rng.normal(size=s).astype(np.float32) * 2 for n, s in zip(names, shapes) if n}
    nodes = [helper.make_node(op, names, [o + "all" if rows is not None and o == outputs[0] else o for o in outputs], domain=domain, **attrs)]
    initialisers = [numpy_helper.from_array(arrays.pop(names[i]), names[i]) for i in weights]
    if rows is not None:
        initialisers.append(numpy_helper.from_array(np.array(rows)[:, :, None], "rows"))
        initialisers.append(numpy_helper.from_array(of(0, np.float32), "nothing"))
        nodes.append(helper.make_node("Where", ["rows", outputs[0] + "all", "nothing"], [outputs[0]]))
    ins = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in arrays.items()]
    results = result if isinstance(result, tuple) else (result,) * len(outputs)
    outs = [helper.make_tensor_value_info(n, r, None) for n, r in zip(outputs, results) if n]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    data = helper.make_model(helper.make_graph(nodes, "g", ins, outs, initialisers), opset_imports=opsets, ir_version=8).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    got = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, arrays)
    return {
        "name": name,
        "model": base64.b64encode(data).decode(),
        "inputs": [flat(n, a) for n, a in arrays.items()],
        "outputs": [flat(o.name, a) for o, a in zip(outs, got)],
    }


def norms():
    plain = lambda name, op, shapes, **kw: case(op + " " + name, op, shapes, domain="", **kw)
    skip = lambda name, shapes, **kw: case("SkipSimplifiedLayerNormalization " + name, "SkipSimplifiedLayerNormalization", shapes, **kw)
    x, d = (2, 3, 8), (8,)
    return [
        plain("opset 11", "LayerNormalization", [x, d, d], opset=11, epsilon=1e-3),
        plain("opset 16 axis", "LayerNormalization", [x, (3, 8)], opset=16, axis=1),
        plain("opset 12", "SimplifiedLayerNormalization", [x, d], opset=12),
        plain("opset 21", "SimplifiedLayerNormalization", [x, d], opset=21, epsilon=0.5, axis=-1, stash_type=1),
        skip("plain", [x, x, d]),
        skip("bias", [x, x, d, d], epsilon=0.25),
        skip("sum", [x, x, d], outputs=("y", "", "", "sum")),
        skip("matrix", [(5, 8), (5, 8), d], outputs=("y", "", "", "sum"), epsilon=1e-6),
    ]


def rotations():
    i64 = lambda v: of(v, np.int64)
    turn = lambda rows, n: (np.cos(rng.normal(size=(rows, n))).astype(np.float32), np.sin(rng.normal(size=(rows, n))).astype(np.float32))
    rotary = lambda name, shapes, **kw: case("RotaryEmbedding " + name, "RotaryEmbedding", shapes, **kw)
    at = i64([[0, 4, 2], [1, 1, 6]])
    return [
        rotary("start", [(2, 3, 32), i64([0]), *turn(9, 4)]),
        rotary("later", [(2, 3, 32), i64([5]), *turn(9, 4)]),
        rotary("places", [(2, 3, 32), at, *turn(9, 4)], num_heads=4),
        rotary("interleaved", [(2, 3, 32), at, *turn(9, 4)], interleaved=1),
        rotary("heads", [(2, 4, 3, 8), at, *turn(9, 4)]),
        rotary("a part", [(2, 3, 32), at, *turn(9, 2)], num_heads=4, rotary_embedding_dim=4),
        rotary("a part of heads, interleaved", [(2, 4, 3, 8), at, *turn(9, 2)], num_heads=4, rotary_embedding_dim=4, interleaved=1),
    ]


def grouped():
    """GroupQueryAttention: a prompt, a step, a part of a prompt behind a past; of rows of unequal lengths; over shared buffers."""
    heads, kv, size = 4, 2, 16
    i32 = lambda v: of(v, np.int32)
    turn = lambda rows, n=size // 2: [np.cos(rng.normal(size=(rows, n))).astype(np.float32), np.sin(rng.normal(size=(rows, n))).astype(np.float32)]
    outs = ("y", "present_key", "present_value")

    def gqa(name, batch, steps, lengths, total, past=None, packed=False, rotary=0, more=(), size=size, **attrs):
        shapes = [(batch, steps, (heads + 2 * kv if packed else heads) * size)]
        shapes += [None, None] if packed else [(batch, steps, kv * size)] * 2
        shapes += [None, None] if past is None else [(batch, kv, past, size)] * 2
        shapes += [i32([n - 1 for n in lengths]), i32(total)]
        shapes += turn(40, rotary) if rotary else [None, None] if more else []
        shapes += list(more)
        if rotary:
            attrs["do_rotary"] = 1
        rows = None
        if steps == total and min(lengths) < steps:
            rows = [[k < n for k in range(steps)] for n in lengths]
        return case("GroupQueryAttention " + name, "GroupQueryAttention", shapes, outputs=outs, rows=rows, num_heads=heads, kv_num_heads=kv, **attrs)

    bias = lambda *shape: rng.normal(size=shape).astype(np.float32)
    return [
        gqa("prompt", 2, 5, [5, 5], 5),
        gqa("prompt of unequal rows", 2, 5, [3, 5], 5, rotary=8),
        gqa("prompt rotary", 2, 5, [5, 5], 5, rotary=8),
        gqa("prompt rotary interleaved", 2, 5, [5, 5], 5, rotary=8, rotary_interleaved=1),
        gqa("prompt rotary of a part", 2, 5, [5, 5], 5, size=32, rotary=8),
        gqa("prompt packed", 2, 5, [5, 5], 5, packed=True, rotary=8),
        gqa("prompt scale", 1, 4, [4], 4, scale=0.3),
        gqa("prompt softcap", 1, 4, [4], 4, softcap=2.0),
        gqa("prompt window", 1, 9, [9], 9, local_window_size=3),
        gqa("prompt smooth", 1, 4, [4], 4, smooth_softmax=1),
        gqa("prompt sink", 1, 4, [4], 4, more=(None, None, (heads,))),
        gqa("prompt bias", 2, 4, [4, 4], 4, more=(None, bias(1, heads, 4, 4))),
        gqa("prompt bias softcap", 2, 4, [4, 4], 4, more=(None, bias(2, 1, 4, 4)), softcap=1.5),
        gqa("prompt places", 2, 4, [4, 4], 4, rotary=8, more=(of([[3, 4, 5, 6], [0, 1, 2, 3]], np.int64),)),
        gqa("prompt both ways", 2, 4, [4, 4], 4, causal=0),
        gqa("step", 1, 1, [7], 7, past=6, rotary=8),
        gqa("step packed", 2, 1, [7, 7], 7, past=6, rotary=8, packed=True),
        gqa("step window", 1, 1, [9], 9, past=8, local_window_size=4),
        gqa("step smooth softcap", 1, 1, [9], 9, past=8, smooth_softmax=1, softcap=3.0),
        gqa("step sink window", 1, 1, [9], 9, past=8, local_window_size=4, more=(None, None, (heads,))),
        gqa("step of unequal rows", 2, 1, [4, 7], 7, past=6, rotary=8),
        gqa("step in a buffer", 2, 1, [4, 7], 7, past=12, rotary=8),
        gqa("step bias", 2, 1, [7, 7], 7, past=6, more=(None, bias(2, heads, 1, 7))),
        gqa("step bias in a buffer", 2, 1, [7, 7], 7, past=10, more=(None, bias(2, 1, 1, 7))),
        gqa("step places", 2, 1, [7, 7], 7, past=6, rotary=8, more=(of([[3], [9]], np.int64),)),
        gqa("part behind a past with places", 1, 3, [9], 9, past=6, rotary=8, more=(of([[3, 2, 12]], np.int64),)),
        gqa("part behind a past", 1, 3, [9], 9, past=6, rotary=8),
        gqa("part behind a past in a buffer", 1, 3, [9], 9, past=12, rotary=8, local_window_size=5),
        gqa("prompt with an empty past", 1, 4, [4], 4, past=0, rotary=8),
        gqa("prompt in a buffer", 1, 4, [4], 4, past=9, rotary=8),
    ]


def fusions():
    x, w = (1, 2, 6, 5), (3, 2, 3, 3)
    conv = lambda name, shapes, **kw: case("FusedConv " + name, "FusedConv", shapes, pads=[1, 1, 1, 1], **kw)
    gemm = lambda name, shapes, **kw: case("FusedGemm " + name, "FusedGemm", shapes, **kw)
    product = lambda name, shapes, op="FusedMatMul", **kw: case(op + " " + name, op, shapes, **kw)
    return [
        conv("Relu", [x, w, (3,)], activation="Relu"),
        conv("Tanh", [x, w], activation="Tanh"),
        conv("Sigmoid", [x, w, (3,)], activation="Sigmoid", strides=[2, 2]),
        conv("LeakyRelu", [x, w, (3,)], activation="LeakyRelu", activation_params=[0.2]),
        conv("Clip", [x, w, (3,)], activation="Clip", activation_params=[-1.0, 2.0]),
        conv("HardSigmoid", [x, w, (3,)], activation="HardSigmoid", activation_params=[0.1, 0.4]),
        conv("sum", [x, w, (3,), (1, 3, 6, 5)], activation="Relu"),
        conv("group", [x, (4, 1, 3, 3)], activation="Relu", group=2),
        gemm("Relu", [(3, 4), (4, 5), (5,)], activation="Relu"),
        gemm("transB", [(3, 4), (5, 4), (5,)], activation="Tanh", transB=1, alpha=0.5, beta=0.25),
        gemm("LeakyRelu", [(3, 4), (4, 5)], activation="LeakyRelu", activation_alpha=0.3),
        gemm("Sigmoid", [(4, 3), (4, 5), (1, 5)], activation="Sigmoid", transA=1),
        product("transBatchA", [(3, 2, 4), (2, 4, 5)], transBatchA=1),
        product("transBatchA transA", [(4, 2, 3), (2, 4, 5)], transBatchA=1, transA=1),
        product("transBatchB", [(2, 3, 4), (4, 2, 5)], transBatchB=1, alpha=0.5),
        product("transBatchB transB", [(2, 3, 4), (5, 2, 4)], transBatchB=1, transB=1),
        product("alpha", [(2, 3, 4), (2, 5, 4)], "TransposeMatMul", transB=1, alpha=0.5),
        case("Trilu upper", "Trilu", [(2, 4, 5)]),
        case("Trilu lower", "Trilu", [(2, 4, 5), of(-1, np.int64)], upper=0),
        case("Pad", "Pad", [(2, 3), of([0, 1, 2, 0], np.int64), of(3, np.float32)]),
        case("Pad edge", "Pad", [(2, 3), of([[0, 1, 2, 0]], np.int64)], mode="edge"),
        case("Range", "Range", [of([1], np.float32), of([4.5], np.float32)]),
        case("Range by 2", "Range", [of(1, np.int64), of(9, np.int64), of(3, np.int64)], result=TensorProto.INT64),
        case("GatherND", "GatherND", [(3, 4, 2), of([[0, 1], [2, 3]], np.int64)]),
        case("GridSample", "GridSample", [(1, 2, 4, 5), rng.uniform(-1.2, 1.2, (1, 3, 3, 2)).astype(np.float32)]),
        case("GridSample nearest", "GridSample", [(1, 2, 4, 5), rng.uniform(-1.2, 1.2, (1, 3, 3, 2)).astype(np.float32)], mode="nearest", padding_mode="border", align_corners=1),
        case("GridSample bicubic", "GridSample", [(1, 2, 4, 5), rng.uniform(-1.2, 1.2, (1, 3, 3, 2)).astype(np.float32)], mode="bicubic", padding_mode="reflection"),
        case("ExpandDims", "ExpandDims", [(2, 3), of(1, np.int32)]),
        case("ExpandDims last", "ExpandDims", [(2, 3), of(-1, np.int32)]),
        case("Unique", "Unique", [of([3, 1, 3, 2, 1, 3], np.float32)], outputs=("y", "idx", "counts"), result=(FLOAT, TensorProto.INT64, TensorProto.INT64)),
        case("CDist", "CDist", [(4, 3), (5, 3)], metric="euclidean"),
        case("CDist squares", "CDist", [(4, 3), (5, 3)]),
    ]


def octets():
    out = []
    nhwc = (1, 6, 7, 3)
    for dtype in (np.uint8, np.int8):
        result = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        name, q = np.dtype(dtype).name, lambda *shape: quantized(shape, dtype)
        to = lambda: q(1)[1:]
        w = lambda *shape: [quantized(shape, np.int8)[0], of(rng.uniform(0.01, 0.02), np.float32), of(0, np.int8)]
        out += [
            case("QLinearAveragePool channels last " + name, "QLinearAveragePool", q(*nhwc) + to(), result=result, kernel_shape=[3, 2], strides=[2, 1], channels_last=1),
            case("QLinearGlobalAveragePool channels last " + name, "QLinearGlobalAveragePool", q(*nhwc) + to(), result=result, channels_last=1),
            case("NhwcMaxPool " + name, "NhwcMaxPool", q(*nhwc)[:1], result=result, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0]),
            case("QLinearWhere " + name, "QLinearWhere", [rng.integers(0, 2, (3, 8)).astype(bool)] + q(3, 8) + q(8) + to(), result=result),
            case("QuantizeLinear " + name, "QuantizeLinear", [(3, 8)] + to(), result=result),
            case("QuantizeLinear axis " + name, "QuantizeLinear", [(3, 8), rng.uniform(0.01, 0.05, 3).astype(np.float32), rng.integers(0, 9, 3).astype(dtype)], result=result, axis=0),
            case("DequantizeLinear " + name, "DequantizeLinear", q(3, 8)),
            case("DequantizeLinear axis " + name, "DequantizeLinear", [q(3, 8)[0], rng.uniform(0.01, 0.05, 8).astype(np.float32), rng.integers(0, 9, 8).astype(dtype)], axis=1),
            case("MatMulIntegerToFloat " + name, "MatMulIntegerToFloat", [q(2, 3, 8)[0], q(8, 5)[0], of(0.02, np.float32), of(0.03, np.float32), q(1)[2], q(1)[2]]),
            case("MatMulIntegerToFloat columns " + name, "MatMulIntegerToFloat", [q(3, 8)[0], quantized((8, 5), np.int8)[0], of([0.02], np.float32), rng.uniform(0.01, 0.05, 5).astype(np.float32), None, rng.integers(-5, 5, 5).astype(np.int8), (5,)]),
            case("MatMulIntegerToFloat plain " + name, "MatMulIntegerToFloat", [q(3, 8)[0], q(8, 5)[0], of(0.02, np.float32), of(0.03, np.float32)]),
        ]
        if dtype == np.uint8:
            x = q(1, 3, 6, 7)
            bias = rng.integers(-500, 500, 4).astype(np.int32)
            end = [of(0.1, np.float32), of(120, np.uint8)]
            kernel = [rng.integers(-128, 127, (4, 3, 3, 3)).astype(np.int8), of(0.02, np.float32), of(0, np.int8)]
            out += [
                case("QLinearConv", "QLinearConv", x + kernel + end + [bias], result=U8, pads=[1, 1, 1, 1], weights=(3, 4, 5, 8)),
                case("QLinearConv channels last", "QLinearConv", [np.ascontiguousarray(x[0].transpose(0, 2, 3, 1))] + x[1:] + kernel + end + [bias], result=U8, pads=[1, 1, 1, 1], kernel_shape=[3, 3], channels_last=1, weights=(3, 4, 5, 8)),
            ]
    u16 = lambda *shape: rng.integers(0, 65536, shape).astype(np.uint16)
    out += [
        case("QuantizeLinear uint16", "QuantizeLinear", [(3, 8), of(0.001, np.float32), of(30000, np.uint16)], result=TensorProto.UINT16),
        case("QuantizeLinear int16", "QuantizeLinear", [(3, 8), of(0.001, np.float32), of(-70, np.int16)], result=TensorProto.INT16),
        case("DequantizeLinear uint16", "DequantizeLinear", [u16(3, 8), of(0.001, np.float32), of(30000, np.uint16)]),
        case("DequantizeLinear int32", "DequantizeLinear", [rng.integers(-999, 999, (3, 8)).astype(np.int32), of(0.001, np.float32)]),
        case("QuantizeLinear no zero", "QuantizeLinear", [(3, 8), of(0.05, np.float32)], result=U8),
    ]
    return out


def attentions():
    i32 = lambda v: of(v, np.int32)
    x, past = (2, 5, 8), (2, 2, 4, 3, 2)
    both = ("y", "present")

    def q(name, mask=None, past=None, columns=False, zero=True, outputs=("y",), dtype=np.int8, steps=5, **kw):
        a, scale, z = quantized((2, steps, 8), np.uint8)
        w = quantized((8, 24), dtype)
        ws, wz = of(0.02, np.float32), of(3, dtype)
        if columns:
            ws, wz = rng.uniform(0.005, 0.02, 24).astype(np.float32), rng.integers(0, 4, 24).astype(dtype)
        shapes = [a, w[0], (24,), scale, ws, mask, z if zero else None, wz if zero else None, past]
        return case("QAttention " + name, "QAttention", shapes, weights=(1,), outputs=outputs, num_heads=4, **kw)

    ids = lambda n: rng.integers(0, n, (2, 5)).astype(np.int32)

    def embed(name, segments=True, mask=None):
        word, place, kind, gamma, beta = (quantized(s, np.uint8) for s in ((20, 8), (7, 8), (2, 8), (8,), (8,)))
        s = lambda v: v if segments else None
        shapes = [ids(20), s(ids(2)), word[0], place[0], s(kind[0]), gamma[0], beta[0], mask]
        shapes += [word[1], place[1], s(kind[1]), gamma[1], beta[1], word[2], place[2], s(kind[2]), gamma[2], beta[2]]
        return case("QEmbedLayerNormalization " + name, "QEmbedLayerNormalization", shapes, outputs=("y", "mask_index"), result=(FLOAT, TensorProto.INT32))

    return [
        q("plain"),
        q("no zero points", zero=False),
        q("uint8", dtype=np.uint8),
        q("columns", columns=True),
        q("mask", mask=i32([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])),
        q("lengths", mask=i32([3, 5])),
        q("unidirectional", unidirectional=1),
        q("scale", scale=0.3, mask_filter_value=-5.0, mask=i32([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])),
        q("past", past=past, outputs=both, unidirectional=1),
        q("one step", past=past, outputs=both, unidirectional=1, steps=1),
        embed("plain"),
        embed("mask", mask=of([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)),
        embed("no segments", segments=False),
    ]


def recurrent():
    """DynamicQuantizeLSTM, whose input and state are quantised by each product."""
    steps, batch, inputs, hidden = 4, 3, 5, 6
    outs = ("Y", "Y_h", "Y_c")

    def lstm(name, directions=1, dtype=np.uint8, columns=False, bias=True, lengths=None, state=False, peep=False, **kw):
        part = lambda n: rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (directions, n, 4 * hidden), dtype=dtype, endpoint=True)
        shape = (directions, 4 * hidden) if columns else (directions,)
        zero = 128 if dtype == np.uint8 else 0
        scales = [rng.uniform(0.003, 0.008, shape).astype(np.float32), np.full(shape, zero, dtype), rng.uniform(0.003, 0.008, shape).astype(np.float32), np.full(shape, zero, dtype)]
        shapes = [(steps, batch, inputs), part(inputs), part(hidden), (directions, 8 * hidden) if bias else None, lengths]
        shapes += [(directions, batch, hidden)] * 2 if state else [None, None]
        shapes += [(directions, 3 * hidden) if peep else None] + scales
        weights = [1, 2, 8, 9, 10, 11]
        return case("DynamicQuantizeLSTM " + name, "DynamicQuantizeLSTM", shapes, outputs=outs, weights=weights, hidden_size=hidden, **kw)

    return [
        lstm("plain"),
        lstm("int8", dtype=np.int8),
        lstm("columns", dtype=np.int8, columns=True),
        lstm("reverse", direction="reverse", state=True),
        lstm("bidirectional", directions=2, direction="bidirectional", state=True, bias=False),
        lstm("activations", activations=["Sigmoid", "Tanh", "Tanh"], input_forget=0),
    ]


def halves():
    """Means that lie between two numbers of the result, with even and odd zero points."""
    out = []
    for dtype, result in ((np.uint8, U8), (np.int8, I8)):
        for zero, zero_out, scale_out in ((0, 1, 0.5), (3, 7, 0.5), (3, 8, 1), (5, 7, 1)):
            x = [quantized((2, 3, 6, 5), dtype)[0], of(0.5, np.float32), of(zero, dtype), of(scale_out, np.float32), of(zero_out, dtype)]
            out.append(case(f"QLinearAveragePool halves {dtype.__name__} {zero} {zero_out}", "QLinearAveragePool", x, result=result, kernel_shape=[2, 2], strides=[2, 1], pads=[0, 1, 0, 1]))
            out.append(case(f"QLinearGlobalAveragePool halves {dtype.__name__} {zero} {zero_out}", "QLinearGlobalAveragePool", [x[0][:, :, :2, :4]] + x[1:], result=result))
        for op in ("QLinearAdd", "QLinearMul"):
            for shape in ((2, 8, 6, 5), (8, 1, 1), (1,), (2, 1, 1, 5)):
                for kind, scales in (("halves", (0.5, 0.5, 1 if op == "QLinearAdd" else 20)), ("any", rng.uniform(0.01, 0.05, 3))):
                    a, b, y = quantized((2, 8, 6, 5), dtype), quantized(shape, dtype), quantized((1,), dtype)
                    a[1], b[1], y[1] = (of(s, np.float32) for s in scales)
                    out.append(case(f"{op} {kind} {dtype.__name__} {shape}", op, a + b + y[1:], result=result, weights=[1, 2, 4, 5, 6, 7]))
    return out


def main(path):
    out = norms() + rotations() + grouped() + fusions() + octets() + attentions() + recurrent() + halves()
    with open(path, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as z:
        z.write(json.dumps(out).encode())
    print(len(out), "cases of onnxruntime", onnxruntime.__version__)


if __name__ == "__main__":
    main(sys.argv[1])
