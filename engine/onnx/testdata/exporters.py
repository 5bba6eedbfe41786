"""What the scripts of the field's exporters (make_keras.py and its like) share: an archive of cases.

A case is a model, its inputs, what onnxruntime answers, what the library itself computes where that is the same, and gradients
of the library: of element `index` of every row of `output` by `input`. Tensors are TensorProtos.
"""

import base64
import gzip
import json

import numpy as np
import onnxruntime
from onnx import numpy_helper

onnxruntime.set_default_logger_severity(4)


def pack(name, value):
    value = np.asarray(value)
    if value.dtype.kind == "U":
        value = value.astype(object)
    return base64.b64encode(numpy_helper.from_array(value, name).SerializeToString()).decode()


def apart(a, b):
    """By how much a differs from b, of b's largest."""
    if a.dtype.kind in "SUO":
        return float((a != b).any())
    with np.errstate(all="ignore"):
        d = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a.astype(np.float64) - b))
        return d.max(initial=0) / max(np.abs(b[np.isfinite(b)]).max(initial=0), 1e-12)


class Archive:
    def __init__(self):
        self.cases = []

    def add(self, name, model, feeds, library=None, gradients=(), exact=True):
        """feeds that are None are optional values left out. library is by output, in order. exact says that the exporter writes what the library computes."""
        data = model if isinstance(model, bytes) else model.SerializeToString()
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        if not isinstance(feeds, dict):
            feeds = dict(zip([i.name for i in session.get_inputs()], feeds))
        got = [np.asarray(v) for v in session.run(names, feeds)]
        kept = []
        if library is not None and exact:
            for n, g, v in zip(names, got, library, strict=True):
                v = np.asarray(v).reshape(g.shape)
                if not apart(g, v) <= 1e-4:
                    raise AssertionError(f"{name}: the library's {n} is apart from onnxruntime's by {apart(g, v)}")
                kept.append(pack(n, v.astype(g.dtype)))
        self.cases.append({
            "name": name,
            "model": base64.b64encode(data).decode(),
            "inputs": [pack(n, a) for n, a in feeds.items() if a is not None],
            "outputs": [pack(n, a) for n, a in zip(names, got)],
            "library": kept,
            "gradients": [{"output": names[o], "index": k, "input": i, "values": pack(i, g)} for o, k, i, g in gradients],
        })

    def write(self, path):
        with open(path, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as z:
            z.write(json.dumps(self.cases).encode())
        print(len(self.cases), "cases of onnxruntime", onnxruntime.__version__)
