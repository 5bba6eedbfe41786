"""What PaddlePaddle's layers and operators are, written by paddle2onnx, and what they give.

paddlepaddle==3.3.1 paddle2onnx==2.1.0 onnx==1.17.0 onnxruntime==1.32.0

    make_paddle.py paddle.json.gz

Left out is what paddle2onnx cannot write (it ends the process) or writes wrong: SimpleRNN, the states of stacked LSTMs, LeakyReLU, constant padding.
"""

import os
import sys
import tempfile

import numpy as np
import onnx
import paddle
import paddle2onnx
from paddle import nn
from paddle.nn import functional as F

from exporters import Archive

paddle.seed(0)
rng = np.random.default_rng(0)
archive = Archive()


def f(*shape):
    return rng.normal(size=shape).astype(np.float32)


class Of(nn.Layer):
    """A layer that is a function of one input, and of other layers."""

    def __init__(self, function, *layers):
        super().__init__()
        self.function, self.layers = function, nn.LayerList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


def flat(o):
    return [y for x in o for y in flat(x)] if isinstance(o, (list, tuple)) else [o]


def case(name, layer, x, opset=17, exact=True):
    layer.eval()
    with paddle.no_grad():
        library = [t.numpy() for t in flat(layer(paddle.to_tensor(x)))]
    folder = tempfile.mkdtemp()
    path, out = os.path.join(folder, "m"), os.path.join(folder, "m.onnx")
    paddle.jit.save(layer, path, input_spec=[paddle.static.InputSpec([None, *x.shape[1:]], str(x.dtype), name="x")])
    paddle2onnx.export(path + ".json", path + ".pdiparams", out, opset_version=opset, auto_upgrade_opset=False)
    archive.add(f"{name} {opset}", onnx.load(out), [x], library, exact=exact)


x, image = f(3, 6), f(2, 4, 9, 8)
for opset in (11, 17):
    case("mlp", nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.BatchNorm1D(8), nn.Dropout(0.3), nn.Linear(8, 3), nn.Softmax()), x, opset)
    case("cnn", nn.Sequential(nn.Conv2D(4, 6, 3, padding=1), nn.BatchNorm2D(6), nn.ReLU(), nn.MaxPool2D(2), nn.Conv2D(6, 6, 3, groups=3),
                              nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(6, 3)), image, opset)
    for cell in ("LSTM", "GRU"):
        case(cell, Of(lambda x, c: c(x), getattr(nn, cell)(4, 5)), f(3, 6, 4), opset)
        case(f"{cell} both ways", Of(lambda x, c: c(x)[0], getattr(nn, cell)(4, 5, num_layers=2, direction="bidirect")), f(3, 6, 4), opset)
    case("MultiHeadAttention", Of(lambda x, m: m(x), nn.MultiHeadAttention(8, 2)), f(2, 5, 8), opset)
    case("masked_select", Of(lambda x: paddle.masked_select(x, x > 0)), x, opset)
    case("nonzero", Of(lambda x: paddle.nonzero(x > 0)), x, opset)
    case("gather_nd", Of(lambda x: paddle.gather_nd(x, paddle.to_tensor([[0, 1], [2, 3]]))), x, opset)
    case("topk", Of(lambda x: paddle.topk(x, 3)), x, opset)
    case("slices", Of(lambda x: (x[:, ::2], x[1:, -3:], x[:, 1])), x, opset)
case("TransformerEncoder", nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2), f(2, 5, 8))
case("Embedding", Of(lambda i, e: e(i).mean(1), nn.Embedding(10, 4)), rng.integers(0, 10, (3, 5)))
for name, layer in {
    "dilated": nn.Conv2D(4, 3, 3, dilation=2, stride=2),
    "same": nn.Conv2D(4, 3, 3, padding="SAME"),
    "transposed": nn.Conv2DTranspose(4, 3, 3, stride=2, padding=1, output_padding=1),
    "averages": nn.AvgPool2D(3, 2, 1),
    "averages, ceiling": nn.AvgPool2D(3, 2, 1, ceil_mode=True, exclusive=False),
    "adaptive": nn.AdaptiveAvgPool2D((3, 4)),
    "GroupNorm": nn.GroupNorm(2, 4),
    "InstanceNorm": nn.InstanceNorm2D(4),
    "PReLU": nn.PReLU(4),
    "reflect": nn.Pad2D([1, 2, 0, 1], mode="reflect"),
    "PixelShuffle": nn.PixelShuffle(2),
    "nearest": nn.Upsample(size=[18, 16], mode="nearest"),
    "bilinear": nn.Upsample(size=[13, 11], mode="bilinear"),
    "bilinear by corners": nn.Upsample(size=[13, 11], mode="bilinear", align_corners=True),
    "bicubic": nn.Upsample(size=[13, 11], mode="bicubic"),
}.items():
    case(name, layer, image)
for name in "gelu silu mish hardswish hardsigmoid log_sigmoid tanhshrink softshrink hardshrink swish".split():
    case(name, Of(getattr(F, name)), x)
for name, function in {
    "reductions": lambda a: (a.sum(1), a.mean(0), a.max(1, keepdim=True), a.prod(1), paddle.logsumexp(a, 1), a.std(1)),
    "sort": lambda a: (paddle.sort(a, 1, descending=True), paddle.argsort(a, 1)),
    "take_along_axis": lambda a: paddle.take_along_axis(a, paddle.argsort(a, 1), 1),
    "scatter": lambda a: paddle.scatter(a, paddle.to_tensor([0, 2]), a[1:]),
    "roll": lambda a: (paddle.flip(a, [1]), paddle.roll(a, 2, 1)),
    "normalize": lambda a: (paddle.norm(a, p=2, axis=1), F.normalize(a)),
    "mod": lambda a: (a // 0.7, a % 0.7),
    "unique": lambda a: paddle.unique((a * 2).astype("int64")),
    "meshgrid": lambda a: paddle.meshgrid(a[0], a[1]),
}.items():
    case(name, Of(function), x)
archive.write(sys.argv[1])
