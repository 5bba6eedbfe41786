"""What onnxruntime answers at the edges: axes of no elements, old operator sets, rare attributes, sparse tensors.

onnx==1.23.2 onnxruntime==1.32.0 numpy (any newer works)

    make_edges.py OUT.json.gz

Inputs and outputs are tensors as files hold them, so that infinities, text and shapes without elements stay what they are.
"""

import base64
import gzip
import json
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto as T
from onnx import helper, numpy_helper

onnxruntime.set_default_logger_severity(4)
rng = np.random.default_rng(41)
FLOAT, INT64, BOOL, STRING = T.FLOAT, T.INT64, T.BOOL, T.STRING
f32 = np.float32
i64 = lambda *v: np.array(v, np.int64)


def floats(*shape):
    return rng.normal(size=shape).astype(f32)


def answer(name, graph, arrays, opset, domains=(), ir=8):
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in domains)]
    data = helper.make_model(graph, opset_imports=imports, ir_version=ir).SerializeToString()
    got = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, arrays)
    pack = lambda n, a: base64.b64encode(numpy_helper.from_array(np.asarray(a), n).SerializeToString()).decode()
    return {
        "name": name,
        "model": base64.b64encode(data).decode(),
        "inputs": [pack(n, a) for n, a in arrays.items()],
        "outputs": [pack(o.name, a) for o, a in zip(graph.output, got)],
    }


def open_shape(n, a):
    """An input whose dimensions all vary."""
    return helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)


def case(name, op, arrays, opset=17, outputs=("y",), result=FLOAT, domain="", imports=True, **attrs):
    names = ["" if a is None else f"x{i}" for i, a in enumerate(arrays)]
    given = {n: a for n, a in zip(names, arrays) if n}
    results = result if isinstance(result, tuple) else (result,) * len(outputs)
    outs = [helper.make_tensor_value_info(n, r, None) for n, r in zip(outputs, results)]
    node = helper.make_node(op, names, list(outputs), domain=domain, **attrs)
    graph = helper.make_graph([node], "g", [open_shape(n, a) for n, a in given.items()], outs)
    return answer(f"{op} {name}", graph, given, opset, [(domain, 1)] if domain and imports else [])


def empties():
    """Axes of no elements, where they are the one that is worked on and beside it."""
    none = [(0, 3), (3, 0), (2, 0, 3), (2, 3, 0), (0, 2, 3), (0,)]
    out = []
    for shape in none:
        x = np.zeros(shape, f32)
        for axis in range(len(shape)):
            for op in ("Softmax", "LogSoftmax", "Hardmax"):
                out += [case(f"{shape} {axis} {opset}", op, [x], opset, axis=axis) for opset in (11, 13) if opset == 13 or op == "Softmax"]
            if shape[axis] == 0:
                out.append(case(f"{shape} {axis}", "TopK", [x, i64(0)], outputs=("y", "i"), result=(FLOAT, INT64), axis=axis))
            out.append(case(f"{shape} {axis}", "CumSum", [x, np.array(axis, np.int64)]))
    kinds = {FLOAT: f32, T.DOUBLE: np.float64, T.INT32: np.int32, INT64: np.int64}
    for op in ("Max", "Min", "Sum", "Mean", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"):
        for result, kind in kinds.items():
            if op.startswith("Log") and kind in (np.int32, np.int64):
                continue  # an integer made of an infinity is what the machine makes of it
            out.append(case(f"{kind.__name__}", "Reduce" + op, [np.zeros((2, 0, 3), kind), i64(1)], 18, result=result, keepdims=0))
            out.append(case(f"of all {kind.__name__}", "Reduce" + op, [np.zeros((0, 2), kind)], 18, result=result, keepdims=1))
    for op in ("Max", "Min"):
        for result, kind in {T.INT8: np.int8, T.UINT8: np.uint8}.items():
            out.append(case(f"{kind.__name__}", "Reduce" + op, [np.zeros((2, 0), kind), i64(1)], 18, result=result, keepdims=0))
    out += [
        case("of none", "MatMul", [floats(2, 0), floats(0, 3)]),
        case("of none", "Gemm", [floats(2, 0), floats(0, 3), floats(3)]),
        case("none", "Gather", [floats(3, 2), np.zeros((0,), np.int64)], axis=1),
        case("none", "ScatterElements", [floats(3, 2), np.zeros((0, 2), np.int64), floats(0, 2)], axis=0),
        case("none", "Concat", [floats(2, 0), floats(2, 3)], axis=1),
        case("none", "Transpose", [floats(2, 0, 3)], perm=[2, 1, 0]),
        case("none", "NonZero", [floats(0, 3)], result=INT64),
        case("none", "LayerNormalization", [floats(0, 4), floats(4), floats(4)]),
        case("none", "Conv", [floats(0, 2, 5, 5), floats(3, 2, 3, 3)]),
        case("no axes", "Squeeze", [floats(1, 3, 1), i64()]),
        case("no images", "Resize", [floats(0, 2, 4, 5), None, np.array([1, 1, 1.5, 2], f32)], mode="linear"),
        case("no columns", "Resize", [floats(1, 2, 4, 0), None, np.array([1, 1, 2, 2], f32)], mode="cubic"),
        case("no images", "Upsample", [floats(0, 2, 4, 5), np.array([1, 1, 2, 2], f32)], 9, mode="nearest"),
        case("none", "MaxPool", [floats(0, 2, 5, 5)], kernel_shape=[3, 3]),
    ]
    return out


def slices():
    """Steps backwards from before the first element."""
    x = floats(2, 5)
    out = []
    for start in (-100, -6, -5, -1, 0, 4, 5, 100, -(1 << 62)):
        for end in (-1000, -6, -5, -1, 0, 3, 100):
            for step in (-1, -2, 2, -(1 << 40)):
                if -100 <= start or step == -1:
                    out.append(case(f"{start} {end} {step}", "Slice", [x, i64(start), i64(end), i64(1), i64(step)]))
    return out + [case("of none", "Slice", [floats(2, 0), i64(-3), i64(-9), i64(1), i64(-1)])]


def text():
    values = [-0.0020000001, 0.1, 1e-7, 1e10, 1234567.5, 1e7, 1e8, 123456789, 3.4e38, 16777216, 0.30000001, 1.5, np.nan, np.inf, -np.inf, 0, -0.0, 1e-5,
              1e-4, 99999999, 999999999, 1e15, 1 / 3, 2e-4 / 3, 100, 12345678, 5e-324, 1e-45, -7]
    out = [case(kind.__name__, "Cast", [np.array(values).astype(kind)], result=STRING, to=STRING) for kind in (f32, np.float64)]
    few = [v for v in values if not np.isfinite(v) or abs(v) < 6e4]
    return out + [case("float16", "Cast", [np.array(few).astype(np.float16)], result=STRING, to=STRING)]


def sizes():
    """Upsample and Resize before operator set 11, and the mode of TensorFlow's nearest."""
    out = []
    for mode in ("nearest", "linear"):
        for h, w in ((2, 2), (1.6, 3), (1, 2.5)):
            x, s = floats(1, 2, 5, 4), [1.0, 1.0, float(h), float(w)]
            out += [case(f"{mode} {h} {w} {opset}", "Upsample", [x], opset, mode=mode, scales=s) for opset in (7, 8)]
            out.append(case(f"{mode} {h} {w} 9", "Upsample", [x, np.array(s, f32)], 9, mode=mode))
        for h, w in ((2, 2), (1.6, 0.5), (0.6, 0.7), (0.3, 2.3), (1, 0.9)):
            x, s = floats(1, 2, 7, 9), np.array([1, 1, h, w], f32)
            out.append(case(f"{mode} {h} {w} 10", "Resize", [x, s], 10, mode=mode))
            for opset in (11, 13, 18):
                out.append(case(f"{mode} {h} {w} {opset}", "Resize", [x, np.array([], f32), s], opset, mode=mode, coordinate_transformation_mode="tf_half_pixel_for_nn"))
    return out


def pools():
    out = []
    for i in range(40):
        shape = [1, 2, *rng.integers(4, 12, 2)]
        kernel, strides, dilations = (rng.integers(1, hi, 2).tolist() for hi in (4, 4, 4))
        pads = [int(rng.integers(0, k)) for k in kernel * 2]
        attrs = dict(kernel_shape=kernel, strides=strides, dilations=dilations, pads=pads, ceil_mode=1)
        if min(n + pads[a] + pads[a + 2] - (k - 1) * d - 1 for a, (n, k, d) in enumerate(zip(shape[2:], kernel, dilations))) < 0:
            continue
        out.append(case(f"{i} {shape} {attrs}", "MaxPool", [floats(*shape)], 12, outputs=("y", "i"), result=(FLOAT, INT64), **attrs))
        out.append(case(f"{i} {shape} {attrs}", "AveragePool", [floats(*shape)], 20, count_include_pad=i % 2, **attrs))
    regions = [[0, 0, 0, 3, 3], [1, 1, 1, 0, 0], [0, -2, -2, 1, 1], [0, 5, 5, 9, 9], [1, 0.5, 0.5, 2.5, 2.5], [0, 1.5, 1, 2, 2], [0, -3, 1, 30, 2]]
    images = -np.abs(floats(2, 3, 5, 4)) + f32(0.2)
    for scale in (1.0, 0.5, 0.3):
        out.append(case(f"{scale}", "MaxRoiPool", [images, np.array(regions, f32)], pooled_shape=[2, 3], spatial_scale=scale))
    out.append(case("half", "MaxRoiPool", [images.astype(np.float16), np.array(regions, np.float16)], result=T.FLOAT16, pooled_shape=[1, 2]))
    return out


def masks():
    x = floats(2, 3)
    flags = lambda v: np.array([v], bool)
    out = [case(f"{o}", "Dropout", [x], o, ("y", "mask"), (FLOAT, BOOL if o >= 10 else FLOAT)) for o in (7, 9, 10, 11, 12)]
    data = flags([[True, False, True], [False, False, True]])[0]
    for reduction in ("add", "mul", "none"):
        updates = flags([[True, True, False], [False, True, True]])[0]
        out.append(case(reduction, "ScatterElements", [data, i64([0, 1, 0], [1, 1, 1]), updates], 18, result=BOOL, reduction=reduction))
        out.append(case(reduction, "ScatterND", [data, i64([[0, 0], [0, 1], [0, 0]], [[1, 2], [1, 1], [1, 0]]), updates], 18, result=BOOL, reduction=reduction))
    return out


def machines():
    """Support vector machines that know one class."""
    out = []
    for kernel, params in (("LINEAR", [0.5, 0, 0]), ("RBF", [0.5, 0, 0]), ("POLY", [0.5, 1, 3]), ("SIGMOID", [0.5, 1, 3])):
        attrs = dict(kernel_type=kernel, kernel_params=params, n_supports=3, one_class=1, support_vectors=floats(12).tolist(), coefficients=floats(3).tolist(), rho=[0.1])
        out.append(case(kernel, "SVMRegressor", [floats(9, 4)], domain="ai.onnx.ml", **attrs))
    attrs = dict(one_class=1, kernel_params=[0.5, 0, 0], kernel_type="LINEAR", coefficients=floats(4).tolist(), rho=[0.1], n_supports=0)
    return out + [case("no vectors", "SVMRegressor", [floats(9, 4)], domain="ai.onnx.ml", **attrs)]


def walks():
    """Loops and scans of no turn, whose results have shapes that are told, told in part, and not told."""
    out = []
    for told in (None, [], [2], [None, 3], ["n"]):
        body = helper.make_graph(
            [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["s", "x"], ["s2"]), helper.make_node("Identity", ["s2"], ["o"])], "b",
            [helper.make_tensor_value_info("i", INT64, []), helper.make_tensor_value_info("c", BOOL, []), helper.make_tensor_value_info("s", FLOAT, None)],
            [helper.make_tensor_value_info("c2", BOOL, []), helper.make_tensor_value_info("s2", FLOAT, None), helper.make_tensor_value_info("o", FLOAT, told)])
        for turns in (0, 2):
            if turns and told is not None:
                continue
            x = {"n": np.array(turns, np.int64), "x": floats(2)}
            nodes = [helper.make_node("Loop", ["n", "", "x"], ["y", "list"], body=body)]
            outs = [helper.make_tensor_value_info("y", FLOAT, None), helper.make_tensor_value_info("list", FLOAT, None)]
            ins = [helper.make_tensor_value_info("n", INT64, []), helper.make_tensor_value_info("x", FLOAT, [None])]
            out.append(answer(f"Loop {turns} turns {told}", helper.make_graph(nodes, "g", ins, outs), x, 17))
    return out


def sparse():
    out = []
    flat = [1, 5, 6, 11]
    for kind in (f32, np.float64, np.int64, np.int8, np.float16):
        for name, places in (("flat", i64(*flat)), ("coordinates", i64(*([p // 4, p % 4] for p in flat)))):
            values = numpy_helper.from_array(np.array([1.5, -2, 3, 4]).astype(kind), "w")
            w = helper.make_sparse_tensor(values, numpy_helper.from_array(places), [3, 4])
            t = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
            outs = [helper.make_tensor_value_info("y", t, None)]
            x = {"x": np.arange(3, dtype=np.int64)}
            ins = [helper.make_tensor_value_info("x", INT64, [None])]
            read = helper.make_node("Gather", ["w", "x"], ["y"])
            graph = helper.make_graph([read], "g", ins, outs)
            graph.sparse_initializer.append(w)
            out.append(answer(f"sparse initialiser {np.dtype(kind)} {name}", graph, x, 17))
            if kind is f32:
                graph = helper.make_graph([helper.make_node("Constant", [], ["w"], sparse_value=w), read], "g", ins, outs)
                out.append(answer(f"sparse constant {name}", graph, x, 17))
    return out


def pads():
    """Pads that cut one side or axis and fill another: what is filled with is what the cut has left."""
    out = []
    for mode, (b, a) in ((m, w) for m in ("constant", "edge", "reflect", "wrap") for w in (([-1, 2], [2, 1]), ([2, -2], [-2, 2]), ([1, 1], [-1, -2]), ([-1, -3], [-2, 2]), ([0, -4], [-3, 0]))):
        x = floats(2, 5, 6)
        out.append(case(f"{mode} {b} {a}", "Pad", [x, i64(*b, *a), None, i64(1, -1)], 19, mode=mode))
        out.append(case(f"{mode} {b} {a} whole", "Pad", [x.astype(np.float64), i64(0, *b, 0, *a)], 19, result=T.DOUBLE, mode=mode))
    return out + [case(f"around {n}", "Pad", [floats(7), i64(-2, n)], 19, mode="wrap") for n in (0, 1, 5, 11)]


def imports():
    """Operators of onnxruntime's own domain, and of ai.onnx.ml, that the model does not import."""
    return [
        case("not imported", "FastGelu", [floats(2, 3)], domain="com.microsoft", imports=False),
        case("not imported", "SkipLayerNormalization", [floats(1, 2, 4), floats(1, 2, 4), floats(4)], domain="com.microsoft", imports=False),
        case("not imported", "Scaler", [floats(2, 3)], domain="ai.onnx.ml", imports=False, scale=[2.0, 3.0, 4.0], offset=[0.5, 0.0, 1.0]),
    ]


def beyond():
    """Windows larger than the padded input: with ceil_mode there is one while less than a step is missing."""
    out = []
    for size, kernel, stride, pad, dilation in ((2, 3, 2, 0, 1), (1, 2, 2, 0, 1), (1, 2, 3, 0, 1), (3, 5, 3, 0, 1), (1, 5, 3, 1, 1), (2, 2, 2, 0, 2), (3, 3, 3, 0, 2), (2, 4, 3, 0, 1)):
        attrs = dict(kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=1)
        name, x = f"{size} {kernel} {stride} {pad} {dilation}", floats(1, 2, size, size)
        for opset in (12, 22):
            out.append(case(name + f" {opset}", "MaxPool", [x], opset, outputs=("y", "i"), result=(FLOAT, INT64), dilations=[dilation] * 2, **attrs))
        out.append(case(name, "LpPool", [x], 18, dilations=[dilation] * 2, p=2, **attrs))
        for opset, included in ((11, 0), (11, 1), (19, 0), (22, 1)):
            if dilation == 1 or opset >= 19:
                wide = dict(dilations=[dilation] * 2) if opset >= 19 else {}
                out.append(case(name + f" {opset}", "AveragePool", [x], opset, count_include_pad=included, **wide, **attrs))
    return out


def main(path):
    out = empties() + slices() + text() + sizes() + pools() + masks() + machines() + walks() + sparse() + imports() + pads() + beyond()
    with open(path, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as z:
        z.write(json.dumps(out).encode())
    print(len(out), "cases of onnxruntime", onnxruntime.__version__)


if __name__ == "__main__":
    main(sys.argv[1])
