"""Answers of onnxruntime's Resize to random sizes and scales, in every mode.

onnx==1.23.0 onnxruntime==1.32.0 numpy (any newer works)

    make_resize.py OUT.json.gz
"""

import base64
import gzip
import json
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(5)
COORDINATES = ["half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric", "tf_crop_and_resize"]
ROUNDINGS = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]


def scale(n, coordinates):
    """A scale as exporters write it: of one size to another, of few digits, or any.

    Where align_corners shrinks, by whole sizes only: of a scale that leaves a fraction, the
    suite of the standard and onnxruntime read it in two ways.
    """
    kind = rng.integers(3)
    if kind == 0:
        return np.float32(rng.integers(1, 32) / n)
    least = 1.1 if coordinates == "align_corners" else 0.3
    if kind == 1:
        return np.float32(rng.integers(round(least * 10), 30) / 10)
    return np.float32(rng.uniform(least, 3))


def case(mode, coordinates, nearest, sized=False, **attrs):
    shape = [1, 1] + [int(v) for v in rng.integers(4, 20, 2)]
    scales = [np.float32(1), np.float32(1)] + [scale(n, coordinates) for n in shape[2:]]
    # Of an axis that keeps its size, onnxruntime leaves out the region.
    while any(s * np.float32(n) < 1 or coordinates == "tf_crop_and_resize" and int(s * np.float32(n)) == n for s, n in zip(scales[2:], shape[2:])):
        scales[2:] = [scale(n, coordinates) for n in shape[2:]]
    x = (rng.integers(-99, 99, shape) / 64).astype(np.float32)
    weights = [numpy_helper.from_array(np.array(scales, np.float32), "scales")]
    names = ["x", "", "scales"]
    if sized:
        sizes = np.array(shape[:2] + [int(np.float32(n) * s) for n, s in zip(shape[2:], scales[2:])], np.int64)
        if "axes" in attrs:
            sizes = sizes[attrs["axes"]]
        weights, names = [numpy_helper.from_array(sizes, "sizes")], ["x", "", "", "sizes"]
    if coordinates == "tf_crop_and_resize":
        sides = rng.uniform(-0.2, 1.2, (2, 2))
        roi = np.array([0, 0, *sides.min(0), 1, 1, *sides.max(0)], np.float32)
        names[1] = "roi"
        weights.append(numpy_helper.from_array(roi, "roi"))
        attrs["extrapolation_value"] = 7.0
    node = helper.make_node("Resize", names, ["y"], mode=mode, coordinate_transformation_mode=coordinates, nearest_mode=nearest, **attrs)
    ins = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "g", ins, outs, weights)
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9).SerializeToString()
    y = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    flat = lambda n, a: {"name": n, "type": "float32", "shape": list(a.shape), "data": [float(f"{v:.7g}") for v in a.ravel()]}
    words = [mode, coordinates, nearest if mode == "nearest" else "", "sizes" if sized else "scales", *(f"{k} {v}" for k, v in attrs.items()), str(shape[2:]), str([float(s) for s in scales[2:]])]
    return {"name": " ".join(w for w in words if w), "model": base64.b64encode(data).decode(), "inputs": [flat("x", x)], "outputs": [flat("y", y)]}


def whole(dtype, coordinates):
    """Whole numbers, which are mixed as floats and cut towards zero."""
    shape = [2, 2] + [int(v) for v in rng.integers(2, 12, 2)]
    sizes = np.array(shape[:2] + [int(v) for v in rng.integers(1, 30, 2)], np.int64)
    i = np.iinfo(dtype)
    x = rng.integers(max(i.min, -999), min(i.max, 999), shape, dtype=dtype, endpoint=True)
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear", coordinate_transformation_mode=coordinates)
    ins = [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)]
    outs = [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)]
    graph = helper.make_graph([node], "g", ins, outs, [numpy_helper.from_array(sizes, "sizes")])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9).SerializeToString()
    y = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    flat = lambda n, a: {"name": n, "type": str(a.dtype), "shape": list(a.shape), "data": [int(v) for v in a.ravel()]}
    name = f"linear {coordinates} {dtype.__name__} {shape[2:]} {sizes[2:].tolist()}"
    return {"name": name, "model": base64.b64encode(data).decode(), "inputs": [flat("x", x)], "outputs": [flat("y", y)]}


def main(path):
    out = []
    for coordinates in COORDINATES:
        # onnxruntime takes no part of a scaled region off its size, as the standard does.
        sized = coordinates == "tf_crop_and_resize"
        for nearest in ROUNDINGS:
            out += [case("nearest", coordinates, nearest, sized or i % 4 == 3) for i in range(8)]
        out += [case("linear", coordinates, "floor", sized or i % 4 == 3) for i in range(8)]
        out += [case("cubic", coordinates, "floor", sized or i % 4 == 3, cubic_coeff_a=[-0.75, -0.5][i % 2]) for i in range(8)]
    for coordinates in ("half_pixel", "align_corners", "asymmetric"):
        out += [case("cubic", coordinates, "floor", exclude_outside=1) for _ in range(6)]
    out += [case(mode, "half_pixel", "floor", antialias=1) for mode in ("linear", "cubic") for _ in range(8)]
    for policy in ("not_larger", "not_smaller"):
        out += [case(mode, "half_pixel", "floor", True, keep_aspect_ratio_policy=policy, axes=[2, 3]) for mode in ("nearest", "linear") for _ in range(8)]
    out += [whole(dtype, c) for dtype in (np.uint8, np.int8, np.int32) for c in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel") for _ in range(4)]
    with open(path, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as z:
        z.write(json.dumps(out).encode())
    print(len(out), "cases of onnxruntime", onnxruntime.__version__)


if __name__ == "__main__":
    main(sys.argv[1])
