"""Writes full.onnx, full.rows.csv and full.json: a small network of convolutions with what onnxruntime's own
quantiser makes of the ranges and the weights, and what onnxruntime answers.

    python engine/compress/testdata/make_full.py

Versions: onnx 1.23.2, onnxruntime 1.32.0, numpy 2.
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

HERE = pathlib.Path(__file__).parent
SIDE, ROWS = 8, 24
rng = np.random.default_rng(5)


def weight(name, *shape, scale=0.3):
    return numpy_helper.from_array(rng.normal(0, scale, shape).astype(np.float32), name)


weights = [
    weight("w1", 6, 2, 3, 3), weight("b1", 6), weight("w2", 6, 1, 3, 3), weight("b2", 6), weight("w3", 6, 6, 1, 1), weight("b3", 6),
    weight("w4", 96, 10), weight("b4", 10), weight("w5", 10, 3),
    numpy_helper.from_array(np.array([-1, 2, SIDE, SIDE], np.int64), "image"), numpy_helper.from_array(np.array([-1, 96], np.int64), "line"),
]
nodes = [
    helper.make_node("Reshape", ["rows", "image"], ["x"]),
    helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["c1"], ["r1"]),
    helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
    helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], group=6),
    helper.make_node("Conv", ["p1", "w3", "b3"], ["c3"]),
    helper.make_node("Add", ["c2", "c3"], ["sum"]),
    helper.make_node("Reshape", ["sum", "line"], ["flat"]),
    helper.make_node("Gemm", ["flat", "w4", "b4"], ["g"]),
    helper.make_node("Tanh", ["g"], ["t"]),
    helper.make_node("MatMul", ["t", "w5"], ["out"]),
]
graph = helper.make_graph(
    nodes, "full", [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 2 * SIDE * SIDE])],
    [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3])], weights,
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, HERE / "full.onnx")
rows = rng.normal(0, 1, (ROWS, 2 * SIDE * SIDE)).astype(np.float32).round(3)
np.savetxt(HERE / "full.rows.csv", rows, delimiter=",", fmt="%.3f", header=",".join(f"f{i}" for i in range(rows.shape[1])), comments="")


class Reader(CalibrationDataReader):
    def __init__(self):
        self.left = [{"rows": rows}]

    def get_next(self):
        return self.left.pop() if self.left else None


quantised = HERE / "quantised.tmp"
quantize_static(
    HERE / "full.onnx", quantised, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
)
held = {t.name: numpy_helper.to_array(t) for t in onnx.load(quantised).graph.initializer}
quantised.unlink()
out = {"values": {}, "weights": {}, "answers": None}
for name in ("x", "r1", "c2", "c3", "t"):
    out["values"][name] = [float(held[name + "_scale"]), int(held[name + "_zero_point"])]
for name in ("w1", "w2", "w3", "w4", "w5"):
    out["weights"][name] = [float(v) for v in np.atleast_1d(held[name + "_scale"])]
session = onnxruntime.InferenceSession(str(HERE / "full.onnx"), providers=["CPUExecutionProvider"])
out["answers"] = session.run(None, {"rows": rows})[0].astype(float).round(6).tolist()
(HERE / "full.json").write_text(json.dumps(out) + "\n")
