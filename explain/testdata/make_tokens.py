"""Makes tokens.onnx and tokens.json: a small transformer over ids, and captum's attributions of its tokens; and mixed.onnx, over ids and floats.

pip install torch==2.15.0 onnx==1.23.2 captum==0.9.0
LayerIntegratedGradients takes ids as a baseline; vectors of zeros are captum's IntegratedGradients over the vectors themselves.
"""
import json
import numpy as np
import onnx
import torch
from captum.attr import IntegratedGradients, LayerGradientXActivation, LayerIntegratedGradients
from onnx import TensorProto, helper, numpy_helper
from torch import nn

torch.manual_seed(11)
WIDTH, LENGTH = 8, 6


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.word, self.kind, self.place = nn.Embedding(20, WIDTH), nn.Embedding(2, WIDTH), nn.Embedding(16, WIDTH)
        self.n1, self.n2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down, self.head = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, ids, kinds, mask):
        return self.after(self.word(ids), self.kind(kinds), mask)

    def after(self, words, kinds, mask):
        x = self.n1(words + kinds + self.place(torch.arange(words.shape[1])))
        m = mask.to(x.dtype)
        scores = self.q(x) @ self.k(x).transpose(1, 2) / WIDTH**0.5 + (1 - m)[:, None, :] * -1e4
        x = self.n2(x + self.o(torch.softmax(scores, -1) @ self.v(x)))
        x = x + self.down(nn.functional.gelu(self.up(x)))
        pooled = (x * m[..., None]).sum(1) / m.sum(1, keepdim=True)
        return self.head(torch.tanh(pooled))


net = Tokens().eval()
for e in (net.word, net.kind, net.place):
    e.weight.data.mul_(0.7)
ids = torch.tensor([[2, 7, 11, 3, 0, 0], [2, 19, 5, 5, 8, 3], [2, 4, 3, 0, 0, 0]])
kinds = torch.tensor([[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 1, 1, 0, 0, 0]])
mask = (ids != 0).long()
torch.onnx.export(net, (ids, kinds, mask), "tokens.onnx", dynamo=False, opset_version=17, input_names=["input_ids", "token_type_ids", "attention_mask"],
                  output_names=["logits"], dynamic_axes={n: {0: "n", 1: "l"} for n in ("input_ids", "token_type_ids", "attention_mask")} | {"logits": {0: "n"}})
model = onnx.load("tokens.onnx")
for n in model.graph.node:
    n.doc_string = ""
onnx.save(model, "tokens.onnx")

TARGET, STEPS = 1, 32
layer = LayerIntegratedGradients(net, net.word)
kind = LayerIntegratedGradients(net, net.kind)


def of_ids(baseline):
    a = layer.attribute(ids, baselines=baseline, additional_forward_args=(kinds, mask), target=TARGET, n_steps=STEPS, method="gausslegendre")
    return a.sum(-1)


def saliency():
    words = net.word(ids).detach().requires_grad_()
    return torch.autograd.grad(net.after(words, net.kind(kinds), mask)[:, TARGET].sum(), words)[0].abs().sum(-1)


zeros = IntegratedGradients(net.after).attribute(net.word(ids), baselines=torch.zeros(1), additional_forward_args=(net.kind(kinds), mask), target=TARGET, n_steps=STEPS, method="gausslegendre").sum(-1)
row = torch.tensor([[2, 0, 0, 0, 0, 3]])
cases = {
    "zeros": ({}, zeros),
    "padding": ({"baseline": [0]}, of_ids(torch.zeros_like(ids))),
    "row": ({"baseline": row[0].tolist()}, of_ids(row.expand_as(ids))),
    "kinds": ({"input": "token_type_ids", "baseline": [0]},
              kind.attribute((ids, kinds, mask), baselines=(ids, torch.zeros_like(kinds), mask), target=TARGET, n_steps=STEPS, method="gausslegendre").sum(-1)),
    "input_x_gradient": ({"method": "input_x_gradient"}, LayerGradientXActivation(net, net.word).attribute(ids, additional_forward_args=(kinds, mask), target=TARGET).sum(-1)),
    "saliency": ({"method": "saliency"}, saliency()),
}
json.dump({"inputs": {"input_ids": ids.tolist(), "token_type_ids": kinds.tolist(), "attention_mask": mask.tolist()}, "output": f"logits[{TARGET}]", "steps": STEPS,
           "predictions": net(ids, kinds, mask)[:, TARGET].tolist(), "cases": {n: {"request": r, "phi": a.tolist()} for n, (r, a) in cases.items()}}, open("tokens.json", "w"), indent=1)

# y = (sum of the vectors of ids) times (sum of x) plus z, one row at a time: its gradients are plain.
node, info = helper.make_node, helper.make_tensor_value_info
graph = helper.make_graph(
    [node("Gather", ["table", "ids"], ["v"]), node("ReduceSum", ["v", "last"], ["s"], keepdims=0), node("ReduceSum", ["x", "one"], ["t"]), node("ReduceSum", ["s", "one"], ["u"]), node("Mul", ["t", "u"], ["p"]), node("Add", ["p", "z"], ["y"])],
    "mixed", [info("x", TensorProto.FLOAT, [1, 2]), info("ids", TensorProto.INT32, [1, 3]), info("z", TensorProto.FLOAT, [1, 1])], [info("y", TensorProto.FLOAT, [1, 1])],
    [numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "table"), numpy_helper.from_array(np.array([2]), "last"), numpy_helper.from_array(np.array([1]), "one")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "mixed.onnx")
