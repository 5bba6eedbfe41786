"""Makes nodes.tar.gz: every case of ONNX's own backend test suite of operators, in its layout (model.onnx, input_N.pb, output_N.pb). What one
case shares with another (most stand there twice, as the operator and as its function body) is a hard link in the archive.

pip install onnx==1.23.2 numpy==2.* ml_dtypes==0.6.0
"""
import gzip, hashlib, importlib, io, pkgutil, tarfile, warnings
import numpy as np
import onnx
import onnx.backend.test.case.node as node
from onnx import numpy_helper

warnings.filterwarnings("ignore")


def file(value, info):
    """The bytes of one input or output: a TensorProto, SequenceProto or OptionalProto, by the type that the model declares."""
    kind = info.type.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.from_list(value, info.name).SerializeToString()
    if kind == "optional_type":
        return numpy_helper.from_optional(value, info.name).SerializeToString()
    if not isinstance(value, onnx.TensorProto):
        value = numpy_helper.from_array(np.asarray(value), info.name)
    return value.SerializeToString()


for m in pkgutil.iter_modules(node.__path__):
    importlib.import_module(node.__name__ + "." + m.name)
first = {}
cases = sorted(node.collect_testcases(None), key=lambda c: c.name)
with open("nodes.tar.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as z, tarfile.open(fileobj=z, mode="w", format=tarfile.USTAR_FORMAT) as tar:
    for case in cases:
        assert (case.rtol, case.atol) == (1e-3, 1e-7) and len(case.data_sets) == 1, case.name
        own = {"model.onnx": case.model.SerializeToString()}
        for kind, values, infos in zip(("input", "output"), case.data_sets[0], (case.model.graph.input, case.model.graph.output)):
            assert len(values) == len(infos), case.name
            for i, v in enumerate(values):
                own[f"{kind}_{i}.pb"] = file(v, infos[i])
        for name, b in own.items():
            info = tarfile.TarInfo(f"{case.name}/{name}")
            seen = first.setdefault(hashlib.sha256(b).digest(), info.name)
            if seen != info.name:
                info.type, info.linkname = tarfile.LNKTYPE, seen
                tar.addfile(info)
                continue
            info.size = len(b)
            tar.addfile(info, io.BytesIO(b))
print(len(cases), "cases")
