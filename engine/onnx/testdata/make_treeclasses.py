"""Expected values of tree ensembles whose meaning the specification leaves open:
which ids have weights, and how many, how many base values there are, what follows the sum.

onnx==1.23.0 onnxruntime==1.32.0 numpy (any newer works)

    make_treeclasses.py OUT.json.gz
"""

import base64
import gzip
import itertools
import json
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

X = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1], [0.25, 3]], dtype=np.float32)


def trees(ids, weights):
    """Two trees of two leaves; leaf j, of those of a tree or of both trees, has a weight for each id in ids[j]."""
    a = {k: [] for k in "treeids nodeids featureids modes values truenodeids falsenodeids".split()}
    leaf = {k: [] for k in "treeids nodeids ids weights".split()}
    at = 0
    for t in range(2):
        for node in range(3):
            for k, v in zip(a, (t, node, t, "LEAF" if node else "BRANCH_LEQ", 0.0, 0 if node else 1, 0 if node else 2)):
                a[k].append(v)
            for i in ids[(2 * t + node - 1) % len(ids)] if node else ():
                for k, v in zip(leaf, (t, node, i, weights[at % len(weights)])):
                    leaf[k].append(v)
                at += 1
    return {"nodes_" + k: v for k, v in a.items()}, leaf


def repeated():
    """Leaves with several weights for one id, or with none and a number where splits have theirs. skl2onnx writes such for
    one target: what it means is the first."""
    some = {
        "repeated": [[0, 0, 0], [0, 0]], "in one tree": [[0, 0], [0, 0, 0], [0], [0]], "or none": [[0, 0], []], "no tree": [[0], [0], [], []],
        "repeated of two": [[0, 1, 0, 1], [1, 0, 0]], "repeated in the second": [[1, 1], [1, 1, 1]], "repeated or others": [[0, 0], [1, 1]], "or none of two": [[0, 0], []],
    }
    posts, totals, weights = ("NONE", "LOGISTIC"), ("SUM", "AVERAGE", "MIN", "MAX"), [0.16, 0.29, 0.03, 0.11, 0.22, 0.07, 0.31]
    for (which, ids), sign, post, total, base, order, number in itertools.product(some.items(), (1, -1), posts, totals, (False, True), (1, -1), (0.0, 0.04)):
        targets = max([i for leaf in ids for i in leaf] + ["two" in which]) + 1
        nodes, leaf = trees(ids, [sign * w for w in weights])
        if number and all(ids):
            continue
        nodes["nodes_values"] = [number if m == "LEAF" else v for m, v in zip(nodes["nodes_modes"], nodes["nodes_values"])]
        leaf = {k: v[::order] for k, v in leaf.items()}  # backwards: the first in the file, not the smallest
        name = f"{which} {'above' if sign > 0 else 'below'} 0 {post} {total} base {base} order {order} number {number}"
        attrs = {**nodes, **{"target_" + k: v for k, v in leaf.items()}, "post_transform": post, "n_targets": targets, "aggregate_function": total}
        if base:
            attrs["base_values"] = [0.31, 0.12][:targets]
        yield "regressor " + name, "TreeEnsembleRegressor", attrs
        if total == "SUM" and post != "PROBIT" and not base:
            attrs = {**nodes, **{"class_" + k: v for k, v in leaf.items()}, "post_transform": post, "classlabels_int64s": [0, 1]}
            yield "classifier " + name, "TreeEnsembleClassifier", attrs


def model(op, attrs, outputs, version=3):
    node = helper.make_node(op, ["x"], [o.name for o in outputs], domain="ai.onnx.ml", **attrs)
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])], outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def case(name, data, out):
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        got = session.run(None, {"x": X})
    except Exception:  # what onnxruntime refuses has no expected values
        return
    if not all(np.isfinite(g).all() for g in got):
        return
    entry = {"name": name, "model": base64.b64encode(data).decode(), "scores": got[-1].ravel().tolist(), "width": got[-1].shape[1]}
    if len(got) == 2:
        entry["labels"] = [int(v) for v in got[0]]
    out.append(entry)


def main(path):
    out = []
    float_out = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    posts = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"]
    spread = {"one": [[0], [0]], "second": [[1], [1]], "both": [[0, 1], [0, 1]], "each": [[0], [1]], "some": [[0, 1], [1]]}
    signs = {"mixed": [0.6, -0.9, 0.3, 1.1, -0.2, 0.7], "positive": [0.6, 0.2, 0.3, 0.1, 0.15, 0.4]}
    bases = {0: [], 1: [0.31], 2: [0.31, -0.47], 3: [0.31, -0.47, 0.23]}
    for (which, ids), (sign, weights), post, (n, base), classes in itertools.product(spread.items(), signs.items(), posts, bases.items(), (1, 2, 3)):
        if n > classes or classes == 1 and which != "one":
            continue
        nodes, leaf = trees(ids, weights)
        attrs = {**nodes, **{"class_" + k: v for k, v in leaf.items()}, "post_transform": post, "classlabels_int64s": list(range(classes))}
        if base:
            attrs["base_values"] = base
        labels = helper.make_tensor_value_info("label", TensorProto.INT64, None)
        case(f"classifier {classes} {which} {sign} {post} base {n}", model("TreeEnsembleClassifier", attrs, [labels, float_out("scores")]), out)
    for (which, ids), (sign, weights), post, (n, base), targets, total in itertools.product(
        spread.items(), signs.items(), posts, bases.items(), (1, 2, 3), ("SUM", "AVERAGE", "MIN", "MAX")
    ):
        if n > targets or targets == 1 and which != "one":
            continue
        nodes, leaf = trees(ids, weights)
        attrs = {**nodes, **{"target_" + k: v for k, v in leaf.items()}, "post_transform": post, "n_targets": targets, "aggregate_function": total}
        if base:
            attrs["base_values"] = base
        case(f"regressor {targets} {which} {sign} {post} {total} base {n}", model("TreeEnsembleRegressor", attrs, [float_out("scores")]), out)
    for (sign, weights), post, targets, total in itertools.product(signs.items(), range(4), (1, 2, 3), range(4)):
        f = lambda v: numpy_helper.from_array(np.array(v, dtype=np.float32))
        attrs = {
            "n_targets": targets, "aggregate_function": total, "post_transform": post, "tree_roots": [0, 1],
            "nodes_featureids": [0, 1], "nodes_splits": f([0, 0]), "nodes_modes": numpy_helper.from_array(np.array([0, 0], dtype=np.uint8)),
            "nodes_truenodeids": [0, 2], "nodes_falsenodeids": [1, 3], "nodes_trueleafs": [1, 1], "nodes_falseleafs": [1, 1],
            "leaf_targetids": [i % targets for i in range(4)], "leaf_weights": f(weights[:4]),
        }
        case(f"ensemble {targets} {sign} {post} {total}", model("TreeEnsemble", attrs, [float_out("scores")], 5), out)
    for name, op, attrs in repeated():
        labels = [helper.make_tensor_value_info("label", TensorProto.INT64, None)] if op.endswith("Classifier") else []
        case(name, model(op, attrs, [*labels, float_out("scores")]), out)
    # mtime 0: the same cases are the same bytes
    with open(path, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as z:
        z.write(json.dumps(out).encode())
    print(len(out), "cases of onnxruntime", onnxruntime.__version__)


if __name__ == "__main__":
    main(sys.argv[1])
