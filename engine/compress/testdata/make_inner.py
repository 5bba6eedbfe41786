"""Writes inner.onnx, a network whose weights lie within the branches of an If, and inner.json, what onnxruntime answers.

    python engine/compress/testdata/make_inner.py

Versions: onnx 1.23.2, onnxruntime 1.32.0, numpy 2.
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).parent
rng = np.random.default_rng(7)


def weight(name, *shape):
    return numpy_helper.from_array(rng.normal(0, 0.4, shape).astype(np.float32), name)


def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def branch(name, out, nodes, weights):
    return helper.make_graph(nodes, name, [], [value(out)], weights)


# Both branches call a weight of their own "w"; that of the deeper graph reads one of the graph around it.
deep = branch("deep", "d", [helper.make_node("MatMul", ["r", "far"], ["d"])], [])
flat = branch("flat", "z", [helper.make_node("MatMul", ["r", "near"], ["z"])], [weight("near", 24, 16)])
then = branch("then", "a", [
    helper.make_node("Constant", [], ["w"], value=weight("", 12, 24)),
    helper.make_node("MatMul", ["x", "w"], ["m"]),
    helper.make_node("Relu", ["m"], ["r"]),
    helper.make_node("If", ["second"], ["a"], name="inner", then_branch=deep, else_branch=flat),
], [weight("far", 24, 16)])
other = branch("other", "b", [helper.make_node("MatMul", ["x", "w"], ["b"])], [weight("w", 12, 16)])
graph = helper.make_graph(
    [helper.make_node("If", ["first"], ["y"], name="outer", then_branch=then, else_branch=other), helper.make_node("Tanh", ["y"], ["out"])],
    "inner",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12])] + [helper.make_tensor_value_info(n, TensorProto.BOOL, []) for n in ("first", "second")],
    [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 16])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, HERE / "inner.onnx")
x = rng.normal(0, 1, (3, 12)).astype(np.float32).round(3)
session = onnxruntime.InferenceSession(model.SerializeToString())
answers = []
for first, second in ((True, True), (True, False), (False, False)):
    out = session.run(None, {"x": x, "first": np.array(first), "second": np.array(second)})[0]
    answers.append({"first": first, "second": second, "out": out.ravel().tolist()})
(HERE / "inner.json").write_text(json.dumps({"x": x.ravel().tolist(), "answers": answers}))
