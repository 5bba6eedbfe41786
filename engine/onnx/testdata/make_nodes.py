"""Makes nodes.zip: the node cases of ONNX's backend suite for the operators the engine has.

pip install onnx==1.23.2 ml_dtypes pillow
Usage: make_nodes.py OPERATORS, a file with one operator a line (domain:name), which the Go test prints with -args -operators.
"""
import sys, zipfile
import numpy as np
from onnx import numpy_helper, TypeProto
import onnx.backend.test.case.node as node
from onnx.backend.test.case.node import collect_testcases

have = set(open(sys.argv[1]).read().split())
out = zipfile.ZipFile("nodes.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9)


def put(path, data):
    info = zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    out.writestr(info, data)


kept = 0
for c in collect_testcases(None):
    if c.model is None or not all(f"{n.domain}:{n.op_type}" in have for n in c.model.graph.node):
        continue
    if c.model.functions or sum(np.asarray(a).nbytes for ds in c.data_sets for s in ds for a in s if a is not None and not isinstance(a, list)) > 60000:
        continue
    ins, outs = c.data_sets[0]
    if any(isinstance(a, (list, dict)) or a is None for a in list(ins) + list(outs)):
        continue
    put(f"{c.name}/model.onnx", c.model.SerializeToString())
    for kind, arrays, values in (("input", ins, c.model.graph.input), ("output", outs, c.model.graph.output)):
        for i, (a, v) in enumerate(zip(arrays, values)):
            t = a if hasattr(a, "SerializeToString") else numpy_helper.from_array(np.asarray(a), v.name)
            t.name = v.name
            put(f"{c.name}/{kind}_{i}.pb", t.SerializeToString())
    put(f"{c.name}/tol", f"{c.rtol} {c.atol}")
    kept += 1
print(kept)
out.close()
