"""Makes gradients.json.gz: one small ONNX model for a rule each, what PyTorch computes for it, and its gradients by torch.autograd.

pip install torch==2.15.0 torchvision==0.29.2 onnx==1.23.2
Each case: a model, its inputs, weights of its output "y", y itself, and the gradients of the weighted sum by the inputs of floats that vary ("x0", ...).
Everything is float64 but where an operator has no such form. A case that cannot be made ends the script.
"""
import base64, gzip, json
import numpy as np
import onnx
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

rng = np.random.default_rng(5)
torch.manual_seed(5)
cases = []
ML, MS, PREVIEW = "ai.onnx.ml", "com.microsoft", "ai.onnx.preview"


class C:
    """A constant."""

    def __init__(self, value, dtype=None):
        self.value = np.asarray(value, dtype)


def r(*shape, lo=-2.0, hi=2.0):
    return rng.uniform(lo, hi, shape)


def t64(a):
    return torch.tensor(a, dtype=torch.float64)


def flat(a):
    return [float(v) for v in np.asarray(a, np.float64).reshape(-1)]


def graph_case(name, nodes, xs, constants, function, domain="", version=20, ir=10):
    """xs by name vary; function gives y of them, in their order."""
    inputs = [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in xs.items()]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
                              [numpy_helper.from_array(v, k) for k, v in constants.items()])
    opsets = [helper.make_opsetid("", version if domain == "" else 20)]
    if domain:
        opsets.append(helper.make_opsetid(domain, version))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir)
    t = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in xs.values()]
    y = function(*t)
    w = torch.randn(y.shape, dtype=torch.float64)
    grads = torch.autograd.grad(y, t, w)
    cases.append({"name": name, "model": base64.b64encode(model.SerializeToString()).decode(),
                  "inputs": [{"name": k, "shape": list(v.shape), "float32": v.dtype == np.float32, "values": flat(v), "gradient": flat(g.numpy())} for (k, v), g in zip(xs.items(), grads)],
                  "shape": list(y.shape), "y": flat(y.detach().numpy()), "weights": flat(w.numpy())})


def case(op, function, *args, name=None, domain="", version=20, outs=1, target=0, **attrs):
    """One node. args in the operator's order: arrays vary, C are constants, None is left out."""
    xs, constants, inputs = {}, {}, []
    for a in args:
        if a is None:
            inputs.append("")
        elif isinstance(a, C):
            inputs.append(f"k{len(constants)}")
            constants[inputs[-1]] = a.value
        else:
            inputs.append(f"x{len(xs)}")
            xs[inputs[-1]] = a
    node = helper.make_node(op, inputs, ["y" if i == target else f"o{i}" for i in range(outs)], domain=domain, **attrs)
    graph_case(name or op, [node], xs, constants, function, domain, version)


for op, f in {"Neg": torch.neg, "Abs": torch.abs, "Sign": torch.sign, "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round, "Exp": torch.exp, "Erf": torch.erf, "Sin": torch.sin, "Cos": torch.cos,
              "Atan": torch.atan, "Sinh": torch.sinh, "Cosh": torch.cosh, "Asinh": torch.asinh, "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Softplus": F.softplus, "Softsign": F.softsign,
              "LeakyRelu": F.leaky_relu, "Elu": F.elu, "Celu": F.celu, "Selu": F.selu, "HardSwish": F.hardswish, "Mish": F.mish, "Gelu": F.gelu, "Identity": lambda x: x * 1}.items():
    case(op, f, r(2, 4, lo=-4, hi=4))
case("HardSigmoid", F.hardsigmoid, r(2, 4, lo=-4, hi=4), alpha=1 / 6, beta=0.5)
case("Gelu", lambda x: F.gelu(x, approximate="tanh"), r(2, 4), approximate="tanh", name="Gelu tanh")
case("Swish", F.silu, r(2, 4), version=24)
case("ThresholdedRelu", lambda x: F.threshold(x, 0.75, 0.0), r(2, 6), alpha=0.75)
case("Shrink", lambda x: F.softshrink(x, 0.5), r(2, 6), lambd=0.5, bias=0.5)
case("PRelu", F.prelu, r(2, 3), r(3))
for op, f in {"Sqrt": torch.sqrt, "Log": torch.log, "Reciprocal": torch.reciprocal}.items():
    case(op, f, r(2, 4, lo=0.5, hi=3))
for op, f in {"Asin": torch.asin, "Acos": torch.acos, "Atanh": torch.atanh, "Tan": torch.tan}.items():
    case(op, f, r(2, 4, lo=-0.9, hi=0.9))
case("Acosh", torch.acosh, r(2, 4, lo=1.2, hi=4))
case("Clip", lambda x: x.clamp(-1, 0.5), r(2, 5), C(-1.0, np.float64), C(0.5, np.float64))
case("Cast", lambda x: x * 1, r(2, 3), to=TensorProto.DOUBLE)
case("CastLike", lambda x: x * 1, r(2, 3), C([1.0], np.float64))
case("Dropout", lambda x: x * 1, r(2, 3))
graph_case("Optional", [helper.make_node("Optional", ["x0"], ["o"]), helper.make_node("OptionalGetElement", ["o"], ["y"])], {"x0": r(2, 3)}, {}, lambda x: x * 1)
# Two and more operands.
for op, f in {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div, "Pow": torch.pow, "Max": torch.maximum, "Min": torch.minimum, "Mod": torch.remainder}.items():
    case(op, f, r(2, 3, lo=0.5, hi=3), r(3, lo=0.6, hi=2))
case("Mod", lambda x: torch.fmod(x, t64([0.9, 1.1, 0.5])), r(2, 3, lo=-3, hi=-0.7), C([0.9, 1.1, 0.5], np.float64), fmod=1, name="Mod fmod")
case("Sum", lambda a, b, c: a + b + c, r(2, 3), r(3), r(2, 1))
case("Mean", lambda a, b, c: (a + b + c) / 3, r(2, 3), r(3), r(2, 1))
case("Where", lambda a, b: torch.where(torch.tensor([[True, False, True]]), a, b), C([[True, False, True]]), r(2, 3), r(2, 3))
case("Gemm", lambda a, b, c: 0.5 * a.T @ b.T + 2 * c, r(3, 2), r(4, 3), r(4), transA=1, transB=1, alpha=0.5, beta=2.0)
case("MatMul", torch.matmul, r(2, 1, 2, 3), r(4, 3, 2))
case("Einsum", lambda a, b: torch.einsum("bid,bjd->bij", a, b), r(2, 3, 4), r(2, 2, 4), equation="bid,bjd->bij")
codes = rng.integers(0, 256, (3, 2, 8), dtype=np.uint8)
scale = r(3, 2, lo=0.05, hi=0.2).astype(np.float32)
wide = np.stack([codes & 15, codes >> 4], -1).reshape(3, 2, 16).astype(np.float64)
matrix = torch.tensor(((wide - 8) * scale[:, :, None]).reshape(3, 32)[:, :20])
case("MatMulNBits", lambda x: x @ matrix.T, r(2, 20), C(codes), C(scale.reshape(-1)), domain=MS, version=1, K=20, N=3, bits=4, block_size=16)
# What moves elements.
x3 = r(2, 2, 3)
case("Reshape", lambda x: x.reshape(2, 6), x3, C([0, -1]))
case("Flatten", lambda x: x.flatten(1), x3)
case("Squeeze", lambda x: x.squeeze(1), r(2, 1, 3), C([1]))
case("Unsqueeze", lambda x: x.unsqueeze(1), x3, C([1]))
case("Transpose", lambda x: x.transpose(1, 2), x3, perm=[0, 2, 1])
case("Slice", lambda x: x[:, :, [2, 0]], x3, C([2]), C([-9]), C([2]), C([-2]))
case("Expand", lambda x: x.expand(2, 4, 3), r(2, 1, 3), C([2, 4, 3]))
case("Tile", lambda x: x.repeat(1, 2, 3), x3, C([1, 2, 3]))
case("Gather", lambda x: x[:, :, [2, 0, 2]], x3, C([2, 0, -1]), axis=2)
at = torch.tensor([[2, 0], [1, 1]])
case("GatherElements", lambda x: torch.gather(x, 1, at), r(2, 3), C(at.numpy()), axis=1)
case("GatherND", lambda x: x[[0, 1, 0], [2, 0, 2]], r(2, 3), C([[0, 2], [1, 0], [0, 2]]))
case("ScatterND", lambda x, u: x.index_put((torch.tensor([3, 1]),), u), r(4, 2), C([[3], [1]]), r(2, 2))
case("ScatterND", lambda x, u: x.index_put((torch.tensor([3, 3]),), u, accumulate=True), r(4, 2), C([[3], [3]]), r(2, 2), name="ScatterND add", reduction="add")
case("ScatterElements", lambda x, u: torch.scatter(x, 1, torch.tensor([[1, 0], [2, 1]]), u), r(2, 3), C([[1, 0], [2, 1]]), r(2, 2), axis=1)
case("ScatterElements", lambda x, u: torch.scatter_add(x, 1, torch.tensor([[1, 1], [2, 0]]), u), r(2, 3), C([[1, 1], [2, 0]]), r(2, 2), axis=1, reduction="add", name="ScatterElements add")
case("Scatter", lambda x, u: torch.scatter(x, 0, torch.tensor([[1, 0, 2]]), u), r(3, 3), C([[1, 0, 2]]), r(1, 3), version=10)


def tensor_scatter(past, update):
    return torch.stack([past[b].index_put((torch.tensor([(w + i) % 4 for i in range(2)]),), update[b]) for b, w in enumerate((1, 3))])


case("TensorScatter", tensor_scatter, r(2, 4, 2), r(2, 2, 2), C([1, 3]), version=24, mode="circular")
case("Split", lambda x: x[:, 1:], r(2, 3), C([1, 2]), axis=1, outs=2, target=1)
case("Concat", lambda a, b: torch.cat([a, b], 1), r(2, 3), r(2, 2), axis=1)
case("Pad", lambda x: F.pad(x, (1, 2), value=7.0), r(2, 3), C([0, 1, 0, 2]), C(7.0, np.float64))
case("Pad", lambda x: F.pad(x, (2, 1), mode="reflect"), r(2, 1, 4), C([0, 0, 2, 0, 0, 1]), mode="reflect", name="Pad reflect")
case("DepthToSpace", lambda x: F.pixel_shuffle(x, 2), r(1, 8, 2, 1), blocksize=2, mode="CRD")
case("SpaceToDepth", lambda x: F.pixel_unshuffle(x, 2).reshape(1, 2, 4, 2, 1).transpose(1, 2).reshape(1, 8, 2, 1), r(1, 2, 4, 2), blocksize=2)
case("Trilu", torch.tril, r(2, 3, 3), upper=0)
case("Compress", lambda x: x[:, [0, 2]], r(2, 3), C([True, False, True]), axis=1)
case("CumSum", lambda x: x.cumsum(1), r(2, 4), C(1, np.int64))
case("CumProd", lambda x: x.cumprod(1), r(2, 4), C(1, np.int64), version=26)
case("TopK", lambda x: x.topk(2, 1)[0], r(2, 4), C([2]), outs=2)
case("ReverseSequence", lambda x: torch.stack([torch.cat([x[:n, b].flip(0), x[n:, b]]) for b, n in enumerate((2, 3))], 1), r(3, 2, 2), C([2, 3]))
case("CenterCropPad", lambda x: F.pad(x[:, 1:3], (1, 2)), r(1, 4, 2), C([1, 2, 5]))
# Sums and norms.
for op, f in {"ReduceSum": lambda x: x.sum(1, True), "ReduceMean": lambda x: x.mean(1, True), "ReduceMax": lambda x: x.amax(1, True), "ReduceMin": lambda x: x.amin(1, True), "ReduceL1": lambda x: x.norm(1, 1, True),
              "ReduceL2": lambda x: x.norm(2, 1, True), "ReduceSumSquare": lambda x: (x * x).sum(1, True), "ReduceLogSumExp": lambda x: x.logsumexp(1, True), "ReduceProd": lambda x: x.prod(1, True)}.items():
    case(op, f, r(2, 3, 2), C([1]))
case("ReduceLogSum", lambda x: x.sum(1, True).log(), r(2, 3, lo=0.5), C([1]))
case("Softmax", lambda x: x.softmax(1), r(2, 3, 2), axis=1)
case("LogSoftmax", lambda x: x.log_softmax(-1), r(2, 3))
case("LpNormalization", lambda x: F.normalize(x, dim=1), r(2, 3), axis=1)
case("LpNormalization", lambda x: F.normalize(x, p=1, dim=1), r(2, 3), axis=1, p=1, name="LpNormalization 1")
s3, b3, m3, v3 = (r(3, lo=0.3, hi=1.5) for _ in range(4))
case("BatchNormalization", lambda x: F.batch_norm(x, t64(m3), t64(v3), t64(s3), t64(b3), eps=0.125), r(2, 3, 2), C(s3), C(b3), C(m3), C(v3), epsilon=0.125)
case("LayerNormalization", lambda x: F.layer_norm(x, (3,), t64(s3), t64(b3), 0.125), r(2, 3), C(s3), C(b3), epsilon=0.125)
case("InstanceNormalization", lambda x: F.instance_norm(x, weight=t64(s3), bias=t64(b3), eps=0.125), r(2, 3, 4), C(s3), C(b3), epsilon=0.125)
s4, b4 = r(4, lo=0.3, hi=1.5), r(4)
case("GroupNormalization", lambda x: F.group_norm(x, 2, t64(s4), t64(b4), 0.125), r(2, 4, 3), C(s4), C(b4), version=21, num_groups=2, epsilon=0.125)
case("RMSNormalization", lambda x, s: F.rms_norm(x, (3,), s, 0.125), r(2, 3), r(3), version=23, epsilon=0.125)
case("MeanVarianceNormalization", lambda x: (x - x.mean((0, 2, 3), True)) / (x.var((0, 2, 3), False, True) ** 0.5 + 1e-9), r(2, 2, 3, 2))
case("LRN", lambda x: F.local_response_norm(x, 3, 0.5, 0.75, 1.0), r(1, 5, 2, 2), size=3, alpha=0.5, beta=0.75, bias=1.0)
# Windows over images.
image = r(2, 2, 5, 4)
k1, k2, kb = r(3, 2, 3, 2), r(2, 3, 3, 2), r(3)
case("Conv", lambda x: F.conv2d(x, t64(k1), t64(kb), stride=(2, 1), padding=1), image, C(k1), C(kb), strides=[2, 1], pads=[1, 1, 1, 1])
case("ConvTranspose", lambda x: F.conv_transpose2d(x, t64(k2), t64(kb), stride=(2, 1), padding=(1, 0)), image, C(k2), C(kb), strides=[2, 1], pads=[1, 0, 1, 0])
case("MaxPool", lambda x: F.max_pool2d(x, 2, 1), image, kernel_shape=[2, 2])
case("AveragePool", lambda x: F.avg_pool2d(x, 2, 1), image, kernel_shape=[2, 2])
case("LpPool", lambda x: F.lp_pool2d(x, 2, 2, 1), image, kernel_shape=[2, 2], p=2)
case("GlobalLpPool", lambda x: x.flatten(2).norm(2, 2)[..., None, None], image)
case("GlobalAveragePool", lambda x: x.mean((2, 3), True), image)
case("GlobalMaxPool", lambda x: x.amax((2, 3), True), image)
case("MaxUnpool", lambda x: F.max_unpool2d(x, torch.tensor([[[[5, 7], [13, 15]]]]), 2, 2), r(1, 1, 2, 2), C([[[[5, 7], [13, 15]]]]), kernel_shape=[2, 2], strides=[2, 2])
for mode in ("nearest", "linear", "cubic"):
    for padding in ("zeros", "border", "reflection"):
        grid = r(1, 3, 2, 2, lo=-1.3, hi=1.3)
        case("GridSample", lambda x: F.grid_sample(x, t64(grid), {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode), padding, align_corners=False), r(1, 2, 4, 3), C(grid), mode=mode, padding_mode=padding, name=f"GridSample {mode} {padding}")
weight, offset, bias, masks = r(2, 2, 2, 2), r(1, 8, 4, 4, lo=-0.7, hi=0.7), r(2), r(1, 4, 4, 4, lo=0)
case("DeformConv", lambda x: torchvision.ops.deform_conv2d(x, t64(offset), t64(weight), t64(bias), padding=1, mask=t64(masks)), r(1, 2, 3, 3), C(weight), C(offset), C(bias), C(masks), version=19, kernel_shape=[2, 2], pads=[1, 1, 1, 1])
boxes = np.array([[0, 0.5, 3, 4], [1, 1, 3.5, 2.5]])
case("RoiAlign", lambda x: torchvision.ops.roi_align(x, [t64(boxes)], (2, 3), 1.0, 2, True), r(1, 2, 5, 4), C(boxes), C([0, 0]), output_height=2, output_width=3, sampling_ratio=2, version=16)
case("Col2Im", lambda x: F.fold(x, (4, 4), 2), r(1, 8, 9), C([4, 4]), C([2, 2]))
case("AffineGrid", lambda x: F.affine_grid(x, (1, 1, 2, 3), align_corners=False), r(1, 2, 3), C([1, 1, 2, 3]), align_corners=0)
case("Resize", lambda x: F.interpolate(x, scale_factor=(2, 1.5), mode="bicubic", align_corners=False), image, None, C([1, 1, 2, 1.5], np.float32), None, name="Resize cubic", mode="cubic")
case("Resize", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True), image, None, C([1, 1, 2, 2], np.float32), mode="linear", coordinate_transformation_mode="align_corners")
case("Upsample", lambda x: F.interpolate(x, scale_factor=2), image, C([1, 1, 2, 2], np.float32), version=9)
# Signals.
case("DFT", lambda x: torch.view_as_real(torch.fft.fft(torch.view_as_complex(x), dim=1)), r(1, 6, 2), None, C(1, np.int64))
case("DFT", lambda x: torch.view_as_real(torch.fft.ifft(torch.view_as_complex(x), dim=1)), r(1, 5, 2), None, C(1, np.int64), inverse=1, name="DFT inverse")
case("DFT", lambda x: torch.view_as_real(torch.fft.rfft(x[..., 0], n=7, dim=1)), r(1, 5, 1), C(7, np.int64), C(1, np.int64), onesided=1, name="DFT onesided")
window = r(4, lo=0.2, hi=1)
case("STFT", lambda x: torch.view_as_real(torch.stft(x[..., 0], 4, 2, 4, t64(window), center=False, return_complex=True).transpose(1, 2)), r(1, 10, 1), C(2, np.int64), C(window), C(4, np.int64))
# Operators that others define.
q, k, v = r(1, 2, 3, 4), r(1, 2, 5, 4), r(1, 2, 5, 3)
case("Attention", F.scaled_dot_product_attention, q, k, v, version=23)
case("FlexAttention", F.scaled_dot_product_attention, q, k, v, domain=PREVIEW, version=1)
heads = lambda x, n: x.reshape(*x.shape[:2], n, -1).transpose(1, 2)
case("MultiHeadAttention", lambda q, k, v: F.scaled_dot_product_attention(heads(q, 2), heads(k, 2), heads(v, 2)).transpose(1, 2).flatten(2), r(1, 3, 8), r(1, 5, 8), r(1, 5, 4), domain=MS, version=1, num_heads=2)
case("GroupQueryAttention", lambda q, k, v: F.scaled_dot_product_attention(heads(q, 4), heads(k, 2), heads(v, 2), is_causal=True, enable_gqa=True).transpose(1, 2).flatten(2), r(1, 3, 16), r(1, 3, 8), r(1, 3, 8), None, None,
     C([2], np.int32), C(3, np.int32), domain=MS, version=1, num_heads=4, kv_num_heads=2, outs=3)
cos, sin = r(1, 3, 2), r(1, 3, 2)


def rotated(x, cos, sin):
    a, b = x[..., :2], x[..., 2:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


case("RotaryEmbedding", lambda x: rotated(x, t64(cos), t64(sin)), r(1, 2, 3, 4), C(cos), C(sin), version=23)
case("RotaryEmbedding", lambda x: rotated(heads(x, 3), t64(cos[0]), t64(sin[0])).transpose(1, 2).flatten(2), r(1, 3, 12), C([0]), C(cos[0]), C(sin[0]), domain=MS, version=1, name="RotaryEmbedding of onnxruntime")
case("SwiGLU", lambda x, g: F.silu(x) * g, r(2, 3), r(2, 3), version=28)
kernel, state, kbias = r(2, 1, 3), r(1, 2, 2), r(2)
case("CausalConvWithState", lambda x: F.silu(F.conv1d(torch.cat([t64(state), x], 2), t64(kernel), t64(kbias), groups=2)), r(1, 2, 4), C(kernel), C(kbias), C(state), version=27, outs=2, activation="silu")
classes = torch.tensor([[2, 0, 1], [9, 1, 0]])
case("NegativeLogLikelihoodLoss", lambda x: F.nll_loss(x, classes, t64(s3), ignore_index=9, reduction="none"), r(2, 3, 3), C(classes.numpy()), C(s3), ignore_index=9, reduction="none")
case("SoftmaxCrossEntropyLoss", lambda x: F.cross_entropy(x, classes, ignore_index=9, reduction="none"), r(2, 3, 3), C(classes.numpy()), ignore_index=9, reduction="none")
graph_case("QuantizeLinear", [helper.make_node("QuantizeLinear", ["x0", "s", "z"], ["q"]), helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])], {"x0": r(2, 5, lo=-20, hi=20)},
           {"s": np.array(0.1), "z": np.array(7, np.int8)}, lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 7, -128, 127))
# Recurrent layers: rows of time, then of a batch.
for op, gates, module, order in (("RNN", 1, torch.nn.RNN, [0]), ("GRU", 3, torch.nn.GRU, [1, 0, 2]), ("LSTM", 4, torch.nn.LSTM, [0, 3, 1, 2])):
    net = module(3, 2, dtype=torch.float64)
    part = lambda w: np.concatenate([w.detach().numpy().reshape(gates, -1)[i] for i in order]).reshape(1, gates * 2, -1)
    both = np.concatenate([part(net.bias_ih_l0)[..., 0], part(net.bias_hh_l0)[..., 0]], 1)
    more = {"linear_before_reset": 1} if op == "GRU" else {}
    case(op, lambda x: net(x)[0][:, None], r(3, 2, 3), C(part(net.weight_ih_l0)), C(part(net.weight_hh_l0)), C(both), hidden_size=2, **more)
# Inner graphs.
info = lambda n, d=TensorProto.DOUBLE, shape=None: helper.make_tensor_value_info(n, d, shape)
then = helper.make_graph([helper.make_node("Mul", ["x0", "x1"], ["t"])], "then", [], [info("t")])
other = helper.make_graph([helper.make_node("Add", ["x0", "x1"], ["e"])], "else", [], [info("e")])
for which in (True, False):
    graph_case(f"If {which}", [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)], {"x0": r(2, 3), "x1": r(2, 3)}, {"c": np.array(which)}, lambda a, b: a * b if which else a + b)
turn = helper.make_graph([helper.make_node("Identity", ["cond"], ["go"]), helper.make_node("Mul", ["s", "x1"], ["m"]), helper.make_node("Tanh", ["m"], ["next"])], "turn",
                         [info("i", TensorProto.INT64, []), info("cond", TensorProto.BOOL, []), info("s")], [info("go", TensorProto.BOOL, []), info("next")])


def looped(s, x):
    for _ in range(3):
        s = torch.tanh(s * x)
    return s


graph_case("Loop", [helper.make_node("Loop", ["n", "c", "x0"], ["y"], body=turn)], {"x0": r(2, 3), "x1": r(2, 3)}, {"n": np.array(3), "c": np.array(True)}, looped)
step = helper.make_graph([helper.make_node("Mul", ["s", "e"], ["m"]), helper.make_node("Sin", ["m"], ["next"]), helper.make_node("Identity", ["next"], ["out"])], "step", [info("s", shape=[3]), info("e", shape=[3])], [info("next", shape=[3]), info("out", shape=[3])])


def scanned(s, x):
    out = []
    for e in x:
        s = torch.sin(s * e)
        out.append(s)
    return torch.stack(out)


graph_case("Scan", [helper.make_node("Scan", ["x0", "x1"], ["last", "y"], body=step, num_scan_inputs=1)], {"x0": r(3), "x1": r(4, 3)}, {}, scanned)
# ai.onnx.ml, in what scikit-learn's converters write.
ml = dict(domain=ML, version=1)
case("Scaler", lambda x: (x - t64([1, 2, 3])) * t64([0.5, 2, 3]), r(2, 3), offset=[1.0, 2.0, 3.0], scale=[0.5, 2.0, 3.0], **ml)
for norm, p in (("L1", 1), ("L2", 2)):
    case("Normalizer", lambda x: F.normalize(x, p=p, dim=1), r(2, 3), norm=norm, name=f"Normalizer {norm}", **ml)
case("Imputer", lambda x: torch.where(x == 9, t64(1.0), x), np.array([[0.5, 9, 2], [9, 1, -1]]), imputed_value_floats=[1.0], replaced_value_float=9.0, **ml)
case("ArrayFeatureExtractor", lambda x: x[:, [2, 0]], r(2, 3), C([2, 0]), **ml)
case("FeatureVectorizer", lambda a, b: torch.cat([a, b], 1), r(2, 3), r(2, 1), inputdimensions=[3, 1], **ml)
coefficients = np.array([[1, 2, 3], [-1, 0.5, 0.25], [0.5, -2, 1]])
scores = lambda x: x @ t64(coefficients).T + t64([1, 2, -1])
linear = dict(coefficients=coefficients.reshape(-1).tolist(), intercepts=[1.0, 2.0, -1.0])
f32 = lambda *s: r(*s).astype(np.float32)
case("LinearRegressor", scores, f32(2, 3), targets=3, **linear, **ml)
case("LinearClassifier", lambda x: scores(x).softmax(1), f32(2, 3), post_transform="SOFTMAX", classlabels_ints=[0, 1, 2], outs=2, target=1, **linear, **ml)
case("LinearClassifier", lambda x: scores(x).sigmoid(), f32(2, 3), post_transform="LOGISTIC", classlabels_ints=[0, 1, 2], outs=2, target=1, name="LinearClassifier logistic", **linear, **ml)
vectors, alpha = np.array([[0.5, -1, 2], [1, 0.5, -0.25]]), np.array([0.75, -1.5])
for kind, f in {"LINEAR": lambda p: p, "POLY": lambda p: (0.5 * p + 0.75) ** 3, "SIGMOID": lambda p: torch.tanh(0.5 * p + 0.75)}.items():
    case("SVMRegressor", lambda x: f(x @ t64(vectors).T) @ t64(alpha)[:, None] + 0.25, f32(2, 3), kernel_type=kind, kernel_params=[0.5, 0.75, 3.0], support_vectors=vectors.reshape(-1).tolist(), coefficients=alpha.tolist(), rho=[0.25], n_supports=2, name=f"SVMRegressor {kind}", **ml)
case("SVMRegressor", lambda x: torch.exp(-0.5 * ((x[:, None] - t64(vectors)) ** 2).sum(-1)) @ t64(alpha)[:, None] + 0.25, f32(2, 3), kernel_type="RBF", kernel_params=[0.5, 0.0, 0.0], support_vectors=vectors.reshape(-1).tolist(), coefficients=alpha.tolist(), rho=[0.25], n_supports=2, name="SVMRegressor RBF", **ml)

case("Det", torch.linalg.det, r(2, 3, 3))
case("Det", torch.linalg.det, r(1, 5, 5), name="Det of five")
# Lists of tensors, as torch.jit writes chunk, append and stack.
node = helper.make_node
i64 = np.int64
graph_case("SplitToSequence", [node("SplitToSequence", ["x0", "n"], ["s"], axis=1), node("SequenceAt", ["s", "at"], ["y"])],
           {"x0": r(2, 5)}, {"n": np.array([2, 3], i64), "at": np.array(1, i64)}, lambda x: x[:, 2:])
graph_case("ConcatFromSequence", [node("SequenceConstruct", ["x0", "x1"], ["a"]), node("SequenceInsert", ["a", "x1", "zero"], ["b"]),
                                  node("SequenceErase", ["b", "one"], ["c"]), node("SequenceInsert", ["c", "x0"], ["d"]), node("Mul", ["x0", "x1"], ["m"]),
                                  node("SequenceInsert", ["d", "m"], ["e"]), node("ConcatFromSequence", ["e"], ["y"], axis=1, new_axis=1)],
           {"x0": r(2, 3), "x1": r(2, 3)}, {"zero": np.array(0, i64), "one": np.array(1, i64)}, lambda a, b: torch.stack([b, b, a, a * b], 1))
listed = helper.make_graph([node("Tanh", ["h"], ["t"]), node("Mul", ["t", "x0"], ["next"]), node("SequenceInsert", ["list", "next"], ["longer"])], "listed",
                           [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("h", shape=[2, 3]), helper.make_tensor_sequence_value_info("list", TensorProto.DOUBLE, None)],
                           [info("c", TensorProto.BOOL, []), info("next", shape=[2, 3]), helper.make_tensor_sequence_value_info("longer", TensorProto.DOUBLE, None)])


def appended(x, h):
    out = []
    for _ in range(3):
        h = torch.tanh(h) * x
        out.append(h)
    return torch.stack(out, 1)


graph_case("Loop of a list", [node("SequenceEmpty", [], ["none"], dtype=TensorProto.DOUBLE), node("Loop", ["n", "c", "x1", "none"], ["last", "all"], body=listed),
                              node("ConcatFromSequence", ["all"], ["y"], axis=1, new_axis=1)],
           {"x0": r(2, 3), "x1": r(2, 3)}, {"n": np.array(3, i64), "c": np.array(True)}, appended)

# Scatters that multiply or compare: two updates at one place, and values that tie or are zero.
at = torch.tensor([[1, 1, 2], [2, 0, 2]])
tied, ties, zeros = np.array([[1.0, 5, 2], [0, 3, 1]]), np.array([[5.0, 5, 2], [1, 0, 1]]), np.array([[0.0, 2, 0], [0, 3, 0]])
row = torch.tensor([[3, 3], [1, 1], [3, 3]])
for mode, reduce in {"mul": "prod", "min": "amin", "max": "amax"}.items():
    f = lambda x, u: torch.scatter_reduce(x, 1, at, u, reduce)
    case("ScatterElements", f, r(2, 3), C(at.numpy()), r(2, 3), axis=1, reduction=mode, name=f"ScatterElements {mode}", version=18)
    case("ScatterElements", f, tied, C(at.numpy()), ties, axis=1, reduction=mode, name=f"ScatterElements {mode} of ties", version=18)
    case("ScatterElements", f, tied, C(at.numpy()), zeros, axis=1, reduction=mode, name=f"ScatterElements {mode} of zeros", version=18)
    case("ScatterND", lambda x, u: torch.scatter_reduce(x, 0, row, u, reduce), r(4, 2), C([[3], [1], [3]]), r(3, 2), reduction=mode, name=f"ScatterND {mode}", version=18)


def linear_attention(rule):
    """Four heads of queries over two of keys (2) and values (3), a step at a time; inputs but for q, k and v in their order where the rule has them."""

    def f(q, k, v, s, *more):
        more = list(more)
        decay = more.pop(0) if "gated" in rule else None
        beta = more.pop(0) if "delta" in rule else None
        out = []
        for t in range(q.shape[1]):
            key, value = k[:, t].reshape(-1, 2, 2), v[:, t].reshape(-1, 2, 3)
            if decay is not None:
                s = s * decay[:, t].exp().reshape(-1, 2, decay.shape[2] // 2, 1)
            if beta is not None:
                value = beta[:, t, :, None] * (value - torch.einsum("bhk,bhkv->bhv", key, s))
            s = s + torch.einsum("bhk,bhv->bhkv", key, value)
            out.append(torch.einsum("bhnk,bhkv->bhnv", q[:, t].reshape(-1, 2, 2, 2), s).flatten(1) / 2**0.5)
        return torch.stack(out, 1)

    return f


q, k, v, state = r(2, 3, 8), r(2, 3, 4), r(2, 3, 6), r(2, 2, 2, 3)
of_heads = dict(version=27, outs=2, q_num_heads=4, kv_num_heads=2)
for rule, more in {"linear": [], "gated": [r(2, 3, 4, lo=-1, hi=0)], "delta": [None, r(2, 3, 2, lo=0, hi=1)], "gated_delta": [r(2, 3, 2, lo=-1, hi=0), r(2, 3, 1, lo=0, hi=1)]}.items():
    case("LinearAttention", linear_attention(rule), q, k, v, state, *more, name=f"LinearAttention {rule}", update_rule=rule, **of_heads)
graph_case("Scan of set 8", [node("Scan", ["", "x0", "x1"], ["last", "y"], body=step, num_scan_inputs=1, directions=[1])], {"x0": r(2, 3), "x1": r(2, 4, 3)}, {},
           lambda s, x: torch.stack([scanned(s[i], x[i].flip(0)) for i in range(2)]), version=8, ir=3)

# Regions of images: of some elements, across the border and beyond it, turned around, and elements that tie. No scale: it would be float32 here and float64 there.
regions = np.array([[0, 0, 0, 3, 4], [1, 1.4, 0.6, 2.2, 3], [1, 2, -3, 7, 2], [0, 6, 1, 8, 3], [1, 3, 3, 1, 1]])
for name, x in {"MaxRoiPool": r(2, 2, 5, 4), "MaxRoiPool of ties": rng.integers(0, 3, (2, 2, 5, 4)).astype(float)}.items():
    case("MaxRoiPool", lambda x: torchvision.ops.roi_pool(x, t64(regions), (2, 4)), x, C(regions), pooled_shape=[2, 4], name=name, version=1, domain="")
# A map over two lists of unequal pieces, with a tensor that all have and one around the body, and one within the body of a loop.
anything = [info(n) for n in "abc"]
scaled = helper.make_graph([node("Mul", ["a", "b"], ["ab"]), node("Add", ["ab", "c"], ["abc"]), node("Tanh", ["abc"], ["t"]), node("Mul", ["t", "x3"], ["out"])], "scaled", anything, [info("out"), info("b")])


def mapped(a, b, c, d):
    made = [torch.tanh(p * q + c) * d for p, q in zip(a.split([2, 3, 1], 1), b.split([2, 3, 1], 1))]
    return torch.cat(made[::-1], 1) * b + made[1].sum(1, True)


graph_case("SequenceMap", [node("SplitToSequence", ["x0", "lengths"], ["l"], axis=1), node("SplitToSequence", ["x1", "lengths"], ["m"], axis=1), node("SequenceMap", ["l", "m", "x2"], ["made", "same"], body=scaled),
                           node("SequenceAt", ["made", "one"], ["second"]), node("SequenceAt", ["made", "zero"], ["first"]), node("SequenceErase", ["made", "zero"], ["tail"]), node("SequenceErase", ["tail", "zero"], ["last"]),
                           node("SequenceInsert", ["last", "second"], ["two"]), node("SequenceInsert", ["two", "first"], ["three"]), node("ConcatFromSequence", ["three"], ["back"], axis=1), node("ConcatFromSequence", ["same"], ["again"], axis=1),
                           node("Mul", ["back", "again"], ["prod"]), node("ReduceSum", ["second", "ones"], ["sum"]), node("Add", ["prod", "sum"], ["y"])],
           {"x0": r(2, 6), "x1": r(2, 6), "x2": r(2, 1), "x3": r(1)}, {"lengths": np.array([2, 3, 1], i64), "zero": np.array(0, i64), "one": np.array(1, i64), "ones": np.array([1], i64)}, mapped)
squared = helper.make_graph([node("Mul", ["a", "x0"], ["ax"]), node("Sin", ["ax"], ["out"])], "squared", [info("a")], [info("out")])
in_turn = helper.make_graph([node("SequenceMap", ["list"], ["next"], body=squared)], "in_turn", [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), helper.make_tensor_sequence_value_info("list", TensorProto.DOUBLE, None)],
                            [info("c", TensorProto.BOOL, []), helper.make_tensor_sequence_value_info("next", TensorProto.DOUBLE, None)])


def in_loop(x, a):
    pieces = a.split(1, 1)
    for _ in range(3):
        pieces = [torch.sin(p * x) for p in pieces]
    return torch.cat(pieces, 1)


graph_case("SequenceMap in a Loop", [node("SplitToSequence", ["x1"], ["l"], axis=1), node("Loop", ["n", "c", "l"], ["all"], body=in_turn), node("ConcatFromSequence", ["all"], ["y"], axis=1)],
           {"x0": r(2, 1), "x1": r(2, 4)}, {"n": np.array(3, i64), "c": np.array(True)}, in_loop)


def roi_largest(x):
    """RoiAlign of the largest, 2 x 3 bins of 2 x 2 samples within the image: of all products of an element and its weight, as onnxruntime has it."""
    out = []
    for x1, y1, x2, y2 in boxes - 0.5:
        for c in range(2):
            for by in range(2):
                for bx in range(3):
                    products = []
                    for k in range(4):
                        py, px = y1 + (by + (k // 2 + 0.5) / 2) * (y2 - y1) / 2, x1 + (bx + (k % 2 + 0.5) / 2) * (x2 - x1) / 3
                        py, px = max(py, 0), max(px, 0)
                        for row, wy in ((int(py), 1 - py % 1), (int(py) + 1, py % 1)):
                            for column, wx in ((int(px), 1 - px % 1), (int(px) + 1, px % 1)):
                                products.append(x[0, c, min(row, 4), min(column, 3)] * wy * wx)
                    out.append(torch.stack(products).amax())
    return torch.stack(out).reshape(2, 2, 2, 3)


case("RoiAlign", roi_largest, r(1, 2, 5, 4), C(boxes), C([0, 0]), output_height=2, output_width=3, sampling_ratio=2, mode="max", version=16, name="RoiAlign of the largest")

# By all inputs of recurrent layers: what begins where another ended, and weights that are computed.
for op, gates, module, order in (("RNN", 1, torch.nn.RNN, [0]), ("GRU", 3, torch.nn.GRU, [1, 0, 2]), ("LSTM", 4, torch.nn.LSTM, [0, 2, 3, 1])):
    net = module(3, 2, dtype=torch.float64)
    # order: where PyTorch's gates are in ONNX's
    part = lambda w: w.reshape(gates, 2, -1)[order].reshape(gates * 2, -1)

    def all_of(x, w, rec, bias, h, c=None):
        of = {"weight_ih_l0": part(w[0]), "weight_hh_l0": part(rec[0]), "bias_ih_l0": part(bias[0, :gates * 2])[:, 0], "bias_hh_l0": part(bias[0, gates * 2:])[:, 0]}
        y, last = torch.func.functional_call(net, of, (x, h if c is None else (h, c)))
        return y[:, None] if c is None else last[1]

    states = [None, r(1, 2, 2)] + ([r(1, 2, 2)] if op == "LSTM" else [])
    more = {"linear_before_reset": 1} if op == "GRU" else {"outs": 3, "target": 2} if op == "LSTM" else {}
    case(op, all_of, r(3, 2, 3), r(1, gates * 2, 3), r(1, gates * 2, 2), r(1, gates * 4), *states, hidden_size=2, name=f"{op} by all inputs", **more)

# Convolutions whose weights are computed.
case("Conv", lambda x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=1, dilation=(1, 2), groups=2), r(2, 4, 5, 6), r(6, 2, 3, 2), r(6), strides=[2, 1], pads=[1, 1, 1, 1], dilations=[1, 2], group=2, name="Conv by all inputs")
case("Conv", lambda x, w: F.conv1d(x, w), r(2, 2, 6), r(3, 2, 3), name="Conv of one dimension by weights")
case("Conv", lambda w: F.conv3d(t64(volume), w), C(volume := r(1, 2, 3, 4, 3)), r(2, 2, 2, 2, 2), name="Conv of a volume by weights")
case("ConvTranspose", lambda x, w, b: F.conv_transpose2d(x, w, b, stride=(2, 1), padding=(1, 0), output_padding=(1, 0), groups=2), image, r(2, 2, 3, 2), r(4), strides=[2, 1], pads=[1, 0, 1, 0], output_padding=[1, 0], group=2, name="ConvTranspose by all inputs")

# Bounds, and what normalisations scale and add, that are computed; the mean and one over the deviation as outputs; training.
case("Clip", lambda x, a, b: x.clamp(a, b), r(2, 5), np.array(-1.0), np.array(0.5), name="Clip by bounds")
case("Clip", lambda x, a, b: x.clamp(a, b), r(2, 5), np.array(0.5), np.array(-0.25), name="Clip by bounds that cross")
case("Pow", lambda x, y: x**y, np.array([[0.0, 0, 1.5], [0, 2, 0]]), np.array([[1.0, 2.5, 2], [0, -1, 3]]), name="Pow of zeros")
case("BatchNormalization", lambda x, s, b, m, v: (x - m[:, None]) / (v[:, None] + 0.125).sqrt() * s[:, None] + b[:, None], r(2, 3, 2), r(3), r(3), r(3), r(3, lo=0.3), epsilon=0.125, name="BatchNormalization by all inputs")
case("LayerNormalization", lambda x, s, b: F.layer_norm(x, (3,), s, b, 0.125), r(2, 3), r(3), r(3), epsilon=0.125, name="LayerNormalization by all inputs")
case("LayerNormalization", lambda x: x.mean((1, 2), True), r(2, 3, 2), C(r(3, 2)), outs=3, target=1, axis=1, name="LayerNormalization mean")
case("LayerNormalization", lambda x: (x.var(-1, False, True) + 0.125).rsqrt(), r(2, 3), C(r(3)), outs=3, target=2, epsilon=0.125, name="LayerNormalization inverse deviation")
case("InstanceNormalization", lambda x, s, b: F.instance_norm(x, weight=s, bias=b, eps=0.125), r(2, 3, 4), r(3), r(3), epsilon=0.125, name="InstanceNormalization by all inputs")
case("GroupNormalization", lambda x, s, b: F.group_norm(x, 2, s, b, 0.125), r(2, 4, 3), r(4), r(4), version=21, num_groups=2, epsilon=0.125, name="GroupNormalization by all inputs")
old_groups = lambda x, s, b: F.group_norm(x, 2, s.repeat_interleave(2), b.repeat_interleave(2), 0.125)
case("GroupNormalization", old_groups, r(2, 4, 3), r(2), r(2), version=18, num_groups=2, epsilon=0.125, name="GroupNormalization of set 18 by all inputs")
training = dict(epsilon=0.125, training_mode=1, outs=3)
unused = [C(r(3)), C(r(3, lo=0.3))]
case("BatchNormalization", lambda x, s, b: F.batch_norm(x, None, None, s, b, True, eps=0.125), r(1, 3, 4), r(3), r(3), *unused, name="BatchNormalization in training", **training)

# What is sampled, at places that are computed.
for mode in ("nearest", "linear", "cubic"):
    for padding in ("zeros", "border", "reflection"):
        for align in (0, 1):
            case("GridSample", lambda x, grid: F.grid_sample(x, grid, {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode), padding, align_corners=bool(align)), r(1, 2, 4, 3), r(1, 3, 2, 2, lo=-1.3, hi=1.3),
                 mode=mode, padding_mode=padding, align_corners=align, name=f"GridSample {mode} {padding} by the grid, corners {align}")
case("GridSample", lambda x, grid: F.grid_sample(x, grid, align_corners=False), r(1, 2, 3, 4, 3), r(1, 2, 3, 2, 3, lo=-1.2, hi=1.2), mode="linear", name="GridSample of a volume by the grid")
case("DeformConv", lambda x, w, o, b, m: torchvision.ops.deform_conv2d(x, o, w, b, padding=1, mask=m), r(1, 2, 3, 3), r(2, 2, 2, 2), r(1, 8, 4, 4, lo=-0.7, hi=0.7), r(2), r(1, 4, 4, 4, lo=0), version=19, kernel_shape=[2, 2], pads=[1, 1, 1, 1], name="DeformConv by all inputs")
case("DeformConv", lambda x, w, o: torchvision.ops.deform_conv2d(x, o, w, stride=2, padding=1), r(2, 4, 5, 4), r(6, 2, 2, 3), r(2, 12, 3, 2, lo=-0.7, hi=0.7), version=19, kernel_shape=[2, 3], pads=[1, 1, 1, 1], strides=[2, 2], group=2, offset_group=1, name="DeformConv in groups by all inputs")
case("STFT", lambda x, w: torch.view_as_real(torch.stft(x[..., 0], 4, 2, 4, w, center=False, return_complex=True).transpose(1, 2)), r(1, 10, 1), C(2, np.int64), r(4, lo=-1, hi=1), C(4, np.int64), name="STFT by the window")


def roi_samples(x, regions, largest):
    """RoiAlign of 2 x 3 bins of 2 x 2 samples within the image, by its regions too, which torchvision has no gradient by."""
    out = []
    for x1, y1, x2, y2 in regions - 0.5:
        for c in range(2):
            for by in range(2):
                for bx in range(3):
                    products, samples = [], 0
                    for k in range(4):
                        py, px = y1 + (by + (k // 2 + 0.5) / 2) * (y2 - y1) / 2, x1 + (bx + (k % 2 + 0.5) / 2) * (x2 - x1) / 3
                        py, px = py.clamp(min=0), px.clamp(min=0)
                        row, column = int(py), int(px)
                        for i, wy in ((row, row + 1 - py), (row + 1, py - row)):
                            for j, wx in ((column, column + 1 - px), (column + 1, px - column)):
                                products.append(x[0, c, min(i, 4), min(j, 3)] * wy * wx)
                    products = torch.stack(products)
                    out.append(products.amax() if largest else products.sum() / 4)
    return torch.stack(out).reshape(2, 2, 2, 3)


for mode in ("avg", "max"):
    case("RoiAlign", lambda x, regions: roi_samples(x, regions, mode == "max"), r(1, 2, 5, 4), np.array([[0.2, 0.6, 3.1, 4.1], [1.1, 1, 3.3, 2.4]]), C([0, 0]), output_height=2, output_width=3, sampling_ratio=2, mode=mode, version=16, name=f"RoiAlign {mode} by the regions")

# Values of places, numbers of a range, the largest without their places, rows by their largest, and scales of what is rounded.
case("OneHot", lambda v: torch.where(F.one_hot(torch.tensor([[2, 0], [1, 2]]), 3).transpose(1, 2) > 0, v[1], v[0]), C([[2, 0], [1, 2]]), C(3), r(2), axis=1)
case("Range", lambda a, b, d: a + d * torch.arange(4.0, dtype=torch.float64) + 0 * b, np.array(0.5), np.array(3.2), np.array(0.75))
case("TopK", lambda x: x.topk(2, 1, False)[0], np.array([[1.0, 0.5, 1.5, 2], [3, 1, -1, 0]]), C([2]), largest=0, name="TopK without places")
case("Normalizer", lambda x: x / x.amax(1, True), np.array([[1.0, 2, -3], [2, 0.5, 2]]), norm="MAX", name="Normalizer MAX", **ml)


def rounded(x, s, zero, low, high):
    """Rounding seen straight through, as torch's learnable fake quantisation does, which is of float32 alone."""
    q = x / s
    return ((q + (q.round() - q).detach() + zero).clamp(low, high) - zero) * s


graph_case("QuantizeLinear by its scale", [helper.make_node("QuantizeLinear", ["x0", "x1", "z"], ["q"]), helper.make_node("DequantizeLinear", ["q", "x1", "z"], ["y"])], {"x0": r(2, 5, lo=-20, hi=20), "x1": np.array([0.1])},
           {"z": np.array([7], np.int8)}, lambda x, s: rounded(x, s, 7, -128, 127))
graph_case("QuantizeLinear by the scale of each column", [helper.make_node("QuantizeLinear", ["x0", "x1", "z"], ["q"], axis=1), helper.make_node("DequantizeLinear", ["q", "x1", "z"], ["y"], axis=1)], {"x0": r(2, 3), "x1": r(3, lo=0.003, hi=0.02)},
           {"z": np.array([0, 9, 200], np.uint8)}, lambda x, s: rounded(x, s, torch.tensor([0.0, 9, 200]), 0, 255))

# An encoder-decoder network: the second layer begins where the first ended.
encoder, decoder = torch.nn.LSTM(4, 3, dtype=torch.float64), torch.nn.LSTM(3, 3, dtype=torch.float64)
weights = {}
for k, net in (("1", encoder), ("2", decoder)):
    part = lambda w: np.concatenate([w.detach().numpy().reshape(4, -1)[i] for i in [0, 3, 1, 2]]).reshape(1, 12, -1)
    weights |= {"w" + k: part(net.weight_ih_l0), "r" + k: part(net.weight_hh_l0), "b" + k: np.concatenate([part(net.bias_ih_l0)[..., 0], part(net.bias_hh_l0)[..., 0]], 1)}


def translated(x):
    steps, last = encoder(x)
    return decoder(steps, last)[1][1]


graph_case("Encoder and decoder", [node("LSTM", ["x0", "w1", "r1", "b1"], ["steps", "h", "c"], hidden_size=3), node("Squeeze", ["steps", "one"], ["s"]),
                                   node("LSTM", ["s", "w2", "r2", "b2", "", "h", "c"], ["o", "oh", "y"], hidden_size=3)], {"x0": r(5, 2, 4)}, weights | {"one": np.array([1], i64)}, translated)

with gzip.GzipFile("gradients.json.gz", "wb", mtime=0) as out:
    out.write(json.dumps(cases).encode())
print(len(cases), "cases")
