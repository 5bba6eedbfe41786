"""Expected values of convolutions in 8 bits over lines, images and volumes, of all channels, of groups and of each channel.

onnx==1.23.2 onnxruntime==1.32.0 numpy (any newer works)

    make_octets.py OUT.json.gz
"""

import base64
import gzip
import json
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(41)
types = {np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.int8): TensorProto.INT8, np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int32): TensorProto.INT32}


def flat(name, a):
    return {"name": name, "type": str(a.dtype), "shape": list(a.shape), "data": [float(v) for v in a.ravel()]}


def bytes_of(shape, dtype):
    i = np.iinfo(dtype)
    return rng.integers(i.min, i.max, shape, dtype=dtype, endpoint=True)


def answer(name, nodes, weights, x, result):
    initialisers = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    ins = [helper.make_tensor_value_info("x", types[x.dtype], x.shape)]
    outs = [helper.make_tensor_value_info("y", result, None)]
    graph = helper.make_graph(nodes, "g", ins, outs, initialisers)
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    got = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    return {"name": name, "model": base64.b64encode(data).decode(), "inputs": [flat("x", x)], "outputs": [flat("y", got)]}


def geometry(rank, channels, outer, group, kernel, weight, **attrs):
    """The input's and the weights' shapes, and the node's attributes."""
    size = {1: (13,), 2: (5, 9), 3: (3, 2, 9)}[rank]
    kernel = kernel[:rank]
    full = {"group": group, "kernel_shape": kernel}
    for k, v in attrs.items():
        full[k] = [v] * (2 * rank if k == "pads" else rank)
    return (2 if rank < 3 else 1, channels, *size), (outer, channels // group, *kernel), full


def qlinear(name, x_type, w_type, shape, w_shape, attrs, bias=True, zero=False):
    """QLinearConv, whose weights have a scale for each channel."""
    out = w_shape[0]
    per = int(np.prod(w_shape[1:]))
    weights = {
        "sx": np.float32(rng.uniform(0.01, 0.05)),
        "zx": bytes_of((), x_type),
        "w": bytes_of(w_shape, w_type),
        "sw": rng.uniform(0.001, 0.01, out).astype(np.float32),
        "zw": np.full(out, 131 if w_type == np.uint8 else 3 if zero else 0, w_type),
        "sy": np.float32(0.004 * per**0.5 * 3),
        "zy": bytes_of((), x_type),
    }
    names = ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"]
    if w_type == np.uint8 or zero:  # of which onnxruntime takes one
        weights["sw"], weights["zw"] = weights["sw"][0], weights["zw"][0]
    if bias:
        weights["b"] = rng.integers(-20000, 20000, out, dtype=np.int32)
        names.append("b")
    node = helper.make_node("QLinearConv", names, ["y"], **attrs)
    return answer("QLinearConv " + name, [node], weights, bytes_of(shape, x_type), types[np.dtype(x_type)])


def integer(name, x_type, w_type, shape, w_shape, attrs):
    weights = {"zx": bytes_of((), x_type), "w": bytes_of(w_shape, w_type), "zw": bytes_of((), w_type)}
    node = helper.make_node("ConvInteger", ["x", "w", "zx", "zw"], ["y"], **attrs)
    return answer("ConvInteger " + name, [node], weights, bytes_of(shape, x_type), TensorProto.INT32)


def pairs(name, shape, w_shape, attrs):
    """A convolution between pairs of QuantizeLinear and DequantizeLinear, its bias in 32 bits of the products' scale, a Relu behind it."""
    out = w_shape[0]
    sx, sw = np.float32(0.02), rng.uniform(0.002, 0.01, out).astype(np.float32)
    weights = {
        "sx": sx, "zx": np.uint8(120), "w": bytes_of(w_shape, np.int8), "sw": sw, "zw": np.zeros(out, np.int8),
        "b": rng.integers(-9000, 9000, out, dtype=np.int32), "sb": sx * sw, "zb": np.zeros(out, np.int32),
        "sy": np.float32(0.01 * int(np.prod(w_shape[1:])) ** 0.5), "zy": np.uint8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wf"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "sb", "zb"], ["bf"], axis=0),
        helper.make_node("Conv", ["xf", "wf", "bf"], ["c"], **attrs),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "sy", "zy"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "sy", "zy"], ["y"]),
    ]
    return answer("pairs " + name, nodes, weights, (1.5 * rng.normal(size=shape)).astype(np.float32), TensorProto.FLOAT)


def forms():
    """Name and geometry."""
    for rank in (1, 2, 3):
        for kernel in ((3, 3, 3), (5, 2, 1), (1, 2, 5)):
            tail = f"{rank}-D {kernel[:rank]}"
            yield f"{tail}", geometry(rank, 5, 7, 1, kernel, None, pads=1)
            yield f"{tail} dilated, apart", geometry(rank, 16, 18, 1, (3, 1, 2), None, pads=2, strides=2, dilations=2)
            yield f"{tail} groups", geometry(rank, 12, 8, 4, kernel, None, pads=1)
            yield f"{tail} many groups", geometry(rank, 22, 33, 11, kernel, None, pads=2, strides=2)
            yield f"{tail} multiplied channels", geometry(rank, 9, 18, 9, kernel, None, pads=1)
            yield f"{tail} each", geometry(rank, 19, 19, 19, kernel, None, pads=2)
            yield f"{tail} each, apart", geometry(rank, 32, 32, 32, kernel, None, pads=1, strides=2)


if __name__ == "__main__":
    u8, s8 = np.uint8, np.int8
    cases = []
    for i, (name, form) in enumerate(forms()):
        cases.append(qlinear(name + " u8 s8", u8, s8, *form, bias=i % 2 == 0))
        if i % 4 == 1:
            cases.append(qlinear(name + " u8 u8", u8, u8, *form))
        if i % 4 == 2:
            cases.append(qlinear(name + " s8 s8", s8, s8, *form))
        if i % 4 == 0:
            cases.append(integer(name + " u8 u8", u8, u8, *form))
        if i % 2 == 1:
            cases.append(pairs(name, *form))
    with gzip.GzipFile(sys.argv[1], "wb", mtime=0) as f:
        f.write(json.dumps(cases).encode())
    print(len(cases), "cases")
