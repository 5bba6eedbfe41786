"""Control flow, lists and lengths in PyTorch, written by its first exporter from scripts and by its second, what they give, and their gradients.

torch==2.15.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0

    make_flow.py flow.json.gz
"""

import io
import logging
import sys
import typing
import warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch
from torch import nn
from torch._higher_order_ops import scan, while_loop

from exporters import Archive

logging.disable(logging.WARNING)
torch.manual_seed(0)
archive = Archive()


def flat(o):
    return [o] if isinstance(o, torch.Tensor) else [y for x in o for y in flat(x)]


def case(name, module, *xs, opsets=(11, 18), script=True, dynamo=False, axes=True, gradient=False):
    """gradient: no row touches another, and the number of rows varies."""
    module.eval()
    out = flat(module(*xs))
    names = [f"x{i}" for i in range(len(xs))]
    gradients = []
    if gradient:
        x = xs[0].clone().requires_grad_()
        first = flat(module(x))[0]
        gradients.append((0, 1, "x0", torch.autograd.grad(first.reshape(len(x), -1)[:, 1].sum(), x)[0].numpy()))
    for opset in opsets:
        file = io.BytesIO()
        if dynamo:
            torch.onnx.export(module, xs, dynamo=True, opset_version=opset, input_names=names, verbose=False).save(file)
        else:
            torch.onnx.export(torch.jit.script(module) if script else module, xs, file, dynamo=False, opset_version=opset, input_names=names,
                              dynamic_axes={n: {0: "b"} for n in names} if axes else None)
        archive.add(f"{name} {opset}", file.getvalue(), [x.numpy() for x in xs], [t.detach().numpy() for t in out], gradients)


class Listed(nn.Module):
    def forward(self, x):
        y = torch.zeros_like(x[0])
        out = []
        for i in range(x.size(0)):
            y = torch.tanh(y + x[i])
            out.append(y)
        return torch.stack(out), y


class Columns(nn.Module):
    def forward(self, x):
        y = torch.zeros_like(x[:, 0])
        out = []
        for i in range(x.size(1)):
            y = torch.tanh(y + x[:, i])
            out.append(y)
        return torch.stack(out, 1)


class While(nn.Module):
    def forward(self, x):
        n = 0
        while bool(x.abs().sum() > 1.0):
            x = x * 0.5
            n += 1
        return x, torch.tensor(n)


class If(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        if bool(x.sum() > 0):
            return self.a(x)
        else:
            return self.b(x)


class Nested(nn.Module):
    def forward(self, x):
        y = x
        for i in range(x.size(1)):
            if bool(x[0, i] > 0):
                y = y + x[:, i : i + 1]
                if bool(y.sum() > 3):
                    y = y * 0.5
            else:
                y = y - 1
        return y


class Optional(nn.Module):
    def forward(self, x, y: typing.Optional[torch.Tensor] = None):
        if y is None:
            return x * 2
        return x + y


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Packed(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        y, _ = self.cell(packed)
        return nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0]


class Cond(If):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: self.a(x), lambda x: self.b(x), (x,))


class Scan(nn.Module):
    def forward(self, x):
        return scan(lambda c, a: (torch.tanh(c + a), (c + a).clone()), torch.zeros(6), x, dim=0)


class Whiled(nn.Module):
    def forward(self, x):
        return while_loop(lambda i, y: i < 4, lambda i, y: (i + 1, y * 1.5), (torch.tensor(0), x))


x = torch.randn(3, 6)
case("list of rows", Listed(), x)
case("list of columns", Columns(), x, gradient=True)
case("while", While(), x)
case("if", If(), x)
case("if not", If(), -x.abs())
case("nested", Nested(), x)
case("chunk", Of(lambda x: x.chunk(4, 1)), x, opsets=(13, 18), script=False, gradient=True)
case("tensor_split", Of(lambda x: torch.tensor_split(x, 4, 1)), x, opsets=(13, 18), script=False, gradient=True)
case("det", Of(torch.linalg.det), torch.randn(3, 4, 4), script=False)
for name, cell in {"LSTM": nn.LSTM(4, 5, batch_first=True, bidirectional=True), "GRU": nn.GRU(4, 5, batch_first=True), "RNN": nn.RNN(4, 5, batch_first=True)}.items():
    case(f"packed {name}", Packed(cell), torch.randn(3, 7, 4), torch.tensor([7, 5, 2]), script=False)
case("cond", Cond(), x, opsets=(18, 23), dynamo=True)
case("cond not", Cond(), -x.abs(), opsets=(18, 23), dynamo=True)
case("scan", Scan(), x, opsets=(18,), dynamo=True)
case("while_loop", Whiled(), x, opsets=(18,), dynamo=True)
file, y = io.BytesIO(), torch.randn(3, 6)
torch.onnx.export(torch.jit.script(Optional()), (x, y), file, dynamo=False, opset_version=18, input_names=["x", "y"])
archive.add("optional given", file.getvalue(), [x.numpy(), y.numpy()], [(x + y).numpy()])
archive.add("optional left out", file.getvalue(), [x.numpy(), None], [(x * 2).numpy()])
archive.write(sys.argv[1])
