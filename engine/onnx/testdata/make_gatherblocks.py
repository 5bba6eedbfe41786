"""Expected values of GatherBlockQuantized (domain com.microsoft), the embeddings that
onnxruntime's 4-bit quantiser writes.

onnx==1.23.2 onnxruntime==1.32.0 numpy (any newer works)

    make_gatherblocks.py OUT.json.gz
"""

import base64
import gzip
import json
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(5)


def weights(name, kind, shape):
    if kind in ("u8", "u8of4"):
        return numpy_helper.from_array(rng.integers(0, 256, shape, dtype=np.uint8), name)
    low, high, t = {"u4": (0, 16, TensorProto.UINT4), "i4": (-8, 8, TensorProto.INT4)}[kind]
    return helper.make_tensor(name, t, shape, rng.integers(low, high, shape).ravel().tolist())


def case(kind, rows, columns, block, index, zeros, scale=np.float32, itype=np.int64, **attrs):
    pack = 2 if kind == "u8of4" else 1
    blocks = (columns + block - 1) // block
    data = weights("data", kind, [*rows, columns // pack])
    scales = numpy_helper.from_array(rng.uniform(0.01, 0.1, (*rows, blocks)).astype(scale), "scales")
    ins, init = ["data", "index", "scales"], [data, scales]
    if zeros:
        ins.append("zeros")
        init.append(weights("zeros", kind, [*rows, (blocks + pack - 1) // pack]))
    if kind in ("u8", "u8of4"):
        attrs["bits"] = 8 // pack
    node = helper.make_node("GatherBlockQuantized", ins, ["y"], domain="com.microsoft", gather_axis=0, quantize_axis=len(rows), block_size=block, **attrs)
    i = np.array(index, dtype=itype)
    out = helper.np_dtype_to_tensor_dtype(np.dtype(scale))
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("index", helper.np_dtype_to_tensor_dtype(i.dtype), i.shape)], [helper.make_tensor_value_info("y", out, None)], init
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)], ir_version=10).SerializeToString()
    y = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"index": i})[0]
    flat = lambda n, a: {"name": n, "type": str(a.dtype), "shape": list(a.shape), "data": [float(v) for v in a.ravel()]}
    name = f"{kind} {rows}x{columns} by {block} at {i.shape} {i.dtype} zeros {zeros} {np.dtype(scale)}"
    return {"name": name, "model": base64.b64encode(model).decode(), "inputs": [flat("index", i)], "outputs": [flat("y", y)]}


def main(path):
    out = []
    for kind in ("u8", "u8of4", "u4", "i4"):
        for zeros in (False, True):
            out.append(case(kind, [7], 64, 16, [[0, 3], [-1, 6]], zeros))
            out.append(case(kind, [5], 96, 32, [2], zeros, itype=np.int32))
            out.append(case(kind, [5], 40, 16, [4, 4, 0], zeros))
        out.append(case(kind, [5], 64, 32, [1, -5], True, scale=np.float16))
        out.append(case(kind, [4, 3], 32, 16, [3, 0], True))
    with gzip.GzipFile(path, "wb", mtime=0) as f:
        f.write(json.dumps(out, separators=(",", ":")).encode())
    print(len(out), "cases")


main(sys.argv[1])
