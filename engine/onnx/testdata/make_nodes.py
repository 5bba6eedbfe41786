"""Makes nodes.tar.gz: the small cases of ONNX's own backend test suite whose operators the engine has, in its layout
(model.onnx, input_N.pb, output_N.pb).

pip install onnx==1.23.2 numpy==2.*
"""
import gzip, importlib, io, pkgutil, tarfile, warnings
import numpy as np
import onnx
import onnx.backend.test.case.node as node
from onnx import numpy_helper

warnings.filterwarnings("ignore")
LARGEST = 3000  # bytes of a case
# Operators the engine does not have; what else it refuses (a type, an attribute) stays in, to be refused by name.
LEFT_OUT = set("""
Adagrad Adam AffineGrid Attention Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow CausalConvWithState
CenterCropPad Col2Im ConvInteger CumProd DFT DeformConv DequantizeLinear Det DynamicQuantizeLinear EyeLike FlexAttention Gradient
GridSample HammingWindow HannWindow Hardmax ImageDecoder LRN LinearAttention Loop LpPool MatMulInteger MaxRoiPool MaxUnpool
MeanVarianceNormalization MelWeightMatrix Momentum Multinomial NegativeLogLikelihoodLoss NonMaxSuppression Optional OptionalGetElement
OptionalHasElement QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RandomNormal RandomNormalLike RandomUniform
RandomUniformLike RegexFullMatch ReverseSequence RoiAlign RotaryEmbedding STFT Scatter ScatterElements SequenceAt SequenceConstruct
SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap Shrink SoftmaxCrossEntropyLoss SplitToSequence StringConcat
StringNormalizer StringSplit TensorScatter TfIdfVectorizer TreeEnsemble Unique
""".split())

for m in pkgutil.iter_modules(node.__path__):
    importlib.import_module(node.__name__ + "." + m.name)
files = {}
for case in sorted(node.collect_testcases(None), key=lambda c: c.name):
    if case.model is None or not case.data_sets or {n.op_type for n in case.model.graph.node} & LEFT_OUT or case.model.functions:
        continue
    if any(o.domain in ("", "ai.onnx") and o.version > 26 for o in case.model.opset_import):
        continue
    own = {"model.onnx": case.model.SerializeToString()}
    for kind, values, infos in (("input", case.data_sets[0][0], case.model.graph.input), ("output", case.data_sets[0][1], case.model.graph.output)):
        for i, v in enumerate(values):
            if not isinstance(v, onnx.TensorProto):
                if not isinstance(v, (np.ndarray, np.generic)):
                    break
                v = numpy_helper.from_array(np.asarray(v), infos[i].name)
            own[f"{kind}_{i}.pb"] = v.SerializeToString()
    if sum(len(b) for b in own.values()) <= LARGEST and len(own) == 1 + len(case.data_sets[0][0]) + len(case.data_sets[0][1]):
        files.update({f"{case.name}/{name}": b for name, b in own.items()})
with open("nodes.tar.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as z, tarfile.open(fileobj=z, mode="w", format=tarfile.USTAR_FORMAT) as tar:
    for name, b in files.items():
        info = tarfile.TarInfo(name)
        info.size = len(b)
        tar.addfile(info, io.BytesIO(b))
print(len({n.split("/")[0] for n in files}), "cases")
