"""Expected values of ai.onnx.ml's maps and single scores, and of what skl2onnx makes of texts.

onnx==1.23.2 onnxruntime==1.32.0 skl2onnx==1.20.0 scikit-learn==1.7.2, and a system that has the locale en_US.UTF-8, which
onnxruntime's StringNormalizer asks for.

    make_ml.py OUT.json.gz

A case is a model with files of inputs and outputs as ONNX's test_data_set_* folders have them: maps are MapProtos.
"""

import base64
import gzip
import json
import sys

import numpy as np
import onnxruntime
from onnx import MapProto, SequenceProto, TensorProto, helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DictionaryType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
import skl2onnx.common._container as container

# skl2onnx 1.20 hands NumPy's integers and booleans to onnx, which takes Python's integers only.
_make = container.make_node


def plain(v):
    if isinstance(v, (bool, np.bool_)):
        return int(v)
    return v.item() if isinstance(v, np.generic) else v


def make_node(*a, **k):
    for key, v in k.items():
        if isinstance(v, (list, tuple, np.ndarray)):
            k[key] = [plain(e) for e in v]
    return _make(*a, **k)


container.make_node = make_node
rng = np.random.default_rng(31)
FLOAT, DOUBLE, INT64, STRING = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING
cases = []


def tensor(name, a):
    a = np.asarray(a)
    if a.dtype.kind in "OU":
        t = helper.make_tensor(name, STRING, a.shape, [str(v).encode() for v in a.ravel()])
    else:
        t = numpy_helper.from_array(a, name)
    return t


def value(name, v, kind=np.float32):
    """A tensor, a map, or a list of either."""
    if isinstance(v, dict):
        m = MapProto(name=name)
        text = all(isinstance(k, str) for k in v)
        m.key_type = STRING if text else INT64
        (m.string_keys if text else m.keys).extend(k.encode() if text else k for k in v)
        for e in v.values():
            m.values.tensor_values.append(tensor("", np.array(e, object if isinstance(e, str) else kind)))
        m.values.elem_type = SequenceProto.TENSOR
        return m
    if isinstance(v, list):
        s = SequenceProto(name=name)
        s.elem_type = SequenceProto.MAP if isinstance(v[0], dict) else SequenceProto.TENSOR
        for e in v:
            (s.map_values if isinstance(e, dict) else s.tensor_values).append(value("", e, kind))
        return s
    return tensor(name, v)


def save(name, model, inputs, kind=np.float32):
    data = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    s = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    got = s.run(None, inputs)
    code = lambda v: base64.b64encode(v.SerializeToString()).decode()
    cases.append({
        "name": name,
        "model": base64.b64encode(data).decode(),
        "inputs": [code(value(i.name, inputs[i.name], kind)) for i in s.get_inputs()],
        "outputs": [code(value(o.name, v)) for o, v in zip(s.get_outputs(), got)],
    })


def one(name, node, inputs, ins, outs, kind=np.float32):
    graph = helper.make_graph([node], "g", ins, outs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1), helper.make_opsetid("com.microsoft", 1)]
    save(name, helper.make_model(graph, opset_imports=opsets, ir_version=8), inputs, kind)


def info(name, kind, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


# Two classes with one score.
x = np.array([[0.1, 0.2], [-1, 2], [3, -0.5], [-2, -2], [0, -0.4], [0, 0]], np.float32)
for labels in ({"classlabels_strings": ["a", "b"]}, {"classlabels_ints": [3, 7]}):
    for coefs in ([0.5, 0.25], [-0.5, 0.25]):
        for post in ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"):
            node = helper.make_node("LinearClassifier", ["x"], ["y", "z"], domain="ai.onnx.ml", coefficients=coefs, intercepts=[0.1], post_transform=post, **labels)
            kind = STRING if "classlabels_strings" in labels else INT64
            one(f"single score {post} {kind} {coefs[0]}", node, {"x": x}, [info("x", FLOAT, [None, 2])], [info("y", kind), info("z", FLOAT)])

# Tokens.
texts = np.array([["the quick-brown  fox", ""], ["don't", "naïve Ünïcode"], ["a,b;;c, d", "   "], ["x", "42_7 9.5\nnew line"]], object)
forms = {
    "characters": {"tokenexp": "."}, "characters by separator": {"separators": [""]}, "words": {"tokenexp": "[a-zA-Z0-9_]+"},
    "words of two": {"tokenexp": "[a-z0-9]+", "mincharnum": 2}, "longest": {"tokenexp": "a|a,b|the|the q"}, "boundaries": {"tokenexp": "\\b\\w\\w+\\b"},
    "any or none": {"tokenexp": "[a-z]*"}, "separators": {"separators": [" ", ",", ";"]}, "expressions": {"separators": ["\\s+", "[;,]"]},
    "separators of two": {"separators": [" ", "-"], "mincharnum": 2}, "nothing": {"tokenexp": "Q+"}, "short": {"tokenexp": "[a-z]|[a-z]{4}", "mincharnum": 3},
}
for name, form in forms.items():
    for mark in (0, 1):
        for rank in (1, 2):
            node = helper.make_node("Tokenizer", ["x"], ["y"], domain="com.microsoft", mark=mark, pad_value="#", **{"mincharnum": 1, **form})
            t = texts if rank == 2 else texts.ravel()
            one(f"tokens: {name} {mark} {rank}", node, {"x": t}, [info("x", STRING, [None] * rank)], [info("y", STRING)])

for positive in (0, 1):
    node = helper.make_node("MurmurHash3", ["x"], ["y"], domain="com.microsoft", positive=positive, seed=7 * positive)
    one(f"hashes {positive}", node, {"x": texts}, [info("x", STRING, [None, 2])], [info("y", TensorProto.UINT32 if positive else TensorProto.INT32)])

# A signal as PyTorch writes it.
node = helper.make_node("STFT", ["x", "step", "window"], ["y"], onesided=1)
graph = helper.make_graph([node], "g", [info("x", FLOAT, [2, 40])], [info("y", FLOAT)], [tensor("step", np.array(8)), tensor("window", np.hanning(16).astype(np.float32))])
save("signal of two dimensions", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), {"x": rng.normal(size=(2, 40)).astype(np.float32)})


# Maps.
def mapped(name, op, key, of, result, data, kind, **attrs):
    v = helper.make_value_info("x", helper.make_map_type_proto(key, helper.make_tensor_type_proto(of, [])))
    node = helper.make_node(op, ["x"], ["y"], domain="ai.onnx.ml", **attrs)
    one(name, node, {"x": data}, [v], [info("y", result)], kind)


letters, numbers = ["b", "a", "ü", "d"], [7, 2, 9, 4]
mapped("map of text", "DictVectorizer", STRING, FLOAT, FLOAT, {"ü": 0.5, "a": -2.0, "other": 7.0}, np.float32, string_vocabulary=letters)
mapped("map of integers", "DictVectorizer", INT64, FLOAT, FLOAT, {4: 0.5, 7: -2.0, 1: 3.0}, np.float32, int64_vocabulary=numbers)
mapped("map cast", "CastMap", INT64, FLOAT, FLOAT, {1: 0.5, 4: -2.0}, np.float32, cast_to="TO_FLOAT", map_form="SPARSE", max_map=6)

dicts = [{k: float(rng.normal()) for k in rng.choice(list("abcde"), 3, replace=False)} for _ in range(60)]
y3 = np.array(["low", "mid", "high"])[np.arange(60) % 3]
opset = {"": 18, "ai.onnx.ml": 3}
p = make_pipeline(DictVectorizer(sparse=False), LogisticRegression()).fit(dicts, y3)
save("pipeline over maps", convert_sklearn(p, initial_types=[("X", DictionaryType(StringTensorType([1]), FloatTensorType([1])))], target_opset=opset), {"X": dicts[0]})
p = make_pipeline(DictVectorizer(sparse=False), LogisticRegression()).fit([{ord(k): v for k, v in d.items()} for d in dicts], y3)
save("pipeline over maps of integers", convert_sklearn(p, initial_types=[("X", DictionaryType(Int64TensorType([1]), FloatTensorType([1])))], target_opset=opset), {"X": {97: 1.5, 99: -0.5}})

# Texts.
words = "the quick Brown fox jumps over lazy dogs and cats' dinner-time 42 don't naïve".split()
docs = np.array([" ".join(rng.choice(words, 8)) for _ in range(60)], object)
for name, step in {
    "counts": CountVectorizer(), "set": CountVectorizer(binary=True), "pairs": CountVectorizer(ngram_range=(1, 2)), "stop words": CountVectorizer(stop_words=["the", "and"]),
    "characters": CountVectorizer(analyzer="char", ngram_range=(1, 2)), "tfidf": TfidfVectorizer(), "sublinear": TfidfVectorizer(sublinear_tf=True, norm="l1"),
    "case kept": CountVectorizer(lowercase=False, token_pattern="[a-zA-Z]+"), "classifier": make_pipeline(TfidfVectorizer(), LogisticRegression()),
}.items():
    step.fit(docs, y3)
    save("texts: " + name, convert_sklearn(step, initial_types=[("X", StringTensorType([None, 1]))], target_opset=opset), {"X": docs[:8].reshape(-1, 1)})
pairs = rng.choice(["red", "green", "ünï", ""], (60, 2)).astype(object)
hashed = FeatureHasher(n_features=8, input_type="string").fit(pairs)
save("hashed", convert_sklearn(hashed, initial_types=[("X", StringTensorType([None, 2]))], target_opset=opset), {"X": pairs[:8]})

# Several classifiers, whose probabilities are a sequence.
X = rng.normal(size=(60, 3)).astype(np.float32)
Y = np.stack([(X[:, 0] > 0).astype(int), np.digitize(X[:, 1], [-0.5, 0.5])], 1)
m = MultiOutputClassifier(LogisticRegression()).fit(X, Y)
save("several classifiers", convert_sklearn(m, initial_types=[("X", FloatTensorType([None, 3]))], target_opset=opset), {"X": X[:8]})

with open(sys.argv[1], "wb") as out, gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0, filename="") as f:
    f.write(json.dumps(cases).encode())
print(len(cases), "cases")
