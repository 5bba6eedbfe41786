"""Makes torch.zip: PyTorch networks as ONNX, with outputs and gradients by torch.autograd.

pip install torch==2.15.0 onnx==1.23.2 onnxscript==0.7.2
See README.md for the layout.
"""
import io, json, os, tempfile, zipfile
import numpy as np
import onnx
import torch
from torch import nn

torch.manual_seed(3)
out = zipfile.ZipFile("torch.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9)


def put(path, data):
    info = zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    out.writestr(info, data)


def npy(a):
    b = io.BytesIO()
    np.save(b, np.ascontiguousarray(a))
    return b.getvalue()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.n = nn.Linear(6, 6), nn.Linear(6, 6), nn.LayerNorm(6)
        self.o = nn.Linear(6, 3)

    def forward(self, x):
        h = self.n(x + self.b(torch.nn.functional.gelu(self.a(x))))
        return torch.softmax(self.o(h), -1)


class Of(nn.Module):
    """A function of the input and some modules or parameters."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.c2, self.b2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.o = nn.Linear(4, 3)

    def forward(self, x):
        h = torch.relu(self.b1(self.c1(x)))
        h = torch.relu(h + self.b2(self.c2(h)))
        return self.o(nn.functional.adaptive_avg_pool2d(h, 1).flatten(1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(8, 2)

    def forward(self, x):
        h = x.reshape(-1, 2, 3)
        w = torch.softmax(self.q(h) @ self.k(h).transpose(1, 2) / 2.0, -1)
        return self.o((w @ self.v(h)).flatten(1))


nets = {
    "mlp_relu": lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1)),
    "mlp_gelu": lambda: nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3)),
    "mlp_tanh_softmax": lambda: nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4), nn.Softmax(-1)),
    "mlp_batchnorm_sigmoid": lambda: nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.SiLU(), nn.Dropout(0.3), nn.Linear(12, 1), nn.Sigmoid()),
    "mlp_layernorm": lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 12), nn.ELU(), nn.Linear(12, 2), nn.LogSoftmax(-1)),
    "mlp_selu_leaky": lambda: nn.Sequential(nn.Linear(6, 12), nn.SELU(), nn.Linear(12, 8), nn.LeakyReLU(0.1), nn.Softplus(), nn.Linear(8, 2)),
    "residual": Residual,
    "attention": Attention,
}
# Networks over images, series and more rows of numbers: the shape of a row, then the network. Single precision only.
functional = nn.functional
more = {
    "resnet": ((2, 8, 8), ResNet),
    "cnn_pools": ((2, 9, 9), lambda: nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.SiLU(), nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), nn.AvgPool2d(2, padding=1, count_include_pad=False), nn.Flatten(), nn.Linear(16, 2))),
    "cnn_groups": ((4, 8, 8), lambda: nn.Sequential(nn.Conv2d(4, 8, 3, dilation=2, groups=2, padding=2), nn.GELU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 36, 2))),
    "cnn_series": ((2, 16), lambda: nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(4, 4, 3), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(4, 2))),
    "cnn_volume": ((1, 4, 4, 4), lambda: nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(16, 2))),
    "cnn_transposed": ((2, 4, 4), lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), nn.Hardswish(), nn.Flatten(), nn.Linear(3 * 64, 2))),
    "cnn_pads": ((2, 4, 4), lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.ZeroPad2d((1, 0, 2, 0)), nn.ReplicationPad2d(1), nn.ConstantPad2d(1, 0.5), nn.Conv2d(2, 1, 3), nn.Flatten(), nn.Linear(90, 2))),
    "upsample_nearest": ((1, 4, 4), lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(36, 2))),
    "upsample_bilinear": ((1, 4, 4), lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(36, 2))),
    "group_norm": ((4, 3, 3), lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.Flatten(), nn.Linear(36, 2))),
    "pixel_shuffle": ((4, 2, 2), lambda: nn.Sequential(nn.PixelShuffle(2), nn.Flatten(), nn.Linear(16, 2))),
    "lstm": ((4, 3), lambda: Of(lambda s, x: s.o(s.r(x)[0][:, -1]), r=nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True), o=nn.Linear(8, 2))),
    "gru": ((4, 3), lambda: Of(lambda s, x: s.o(s.r(x)[0][:, -1]), r=nn.GRU(3, 4, batch_first=True), o=nn.Linear(4, 2))),
    "rnn": ((4, 3), lambda: Of(lambda s, x: s.o(s.r(x)[0][:, -1]), r=nn.RNN(3, 4, batch_first=True), o=nn.Linear(4, 2))),
    "activations": ((6,), lambda: nn.Sequential(nn.Linear(6, 6), nn.PReLU(6), nn.Mish(), nn.Linear(6, 6), nn.Hardsigmoid(), nn.CELU(0.7), nn.Softsign(), nn.ReLU6(), nn.Linear(6, 2))),
    "chunks": ((6,), lambda: Of(lambda s, x: s.o(torch.cat([a * b for a, b in zip(x.chunk(3, 1), x.split(2, 1))], 1)), o=nn.Linear(6, 2))),
    "normalized": ((6,), lambda: Of(lambda s, x: s.o(functional.normalize(x.clamp(-1, 1), dim=1)), o=nn.Linear(6, 2))),
    "sums": ((6,), lambda: Of(lambda s, x: s.o(torch.cumsum(x, 1) + torch.topk(x, 6, 1)[0]), o=nn.Linear(6, 2))),
    "einsum": ((3, 4), lambda: Of(lambda s, x: s.o(torch.einsum("bid,bjd->bij", x, x).flatten(1)), o=nn.Linear(9, 2))),
    "indexed": ((6,), lambda: Of(lambda s, x: s.o(torch.cat([x[:, [0, 2]], x[:, 1:3], x[:, ::2], x[:, -1:]], 1)), o=nn.Linear(8, 2))),
    "moments": ((6,), lambda: Of(lambda s, x: torch.stack([x.std(1), x.prod(1), x.norm(dim=1), torch.logsumexp(x, 1), x.amax(1)], 1))),
    "trigonometry": ((6,), lambda: Of(lambda s, x: s.o(torch.sin(x) + torch.cos(x) * torch.tan(x * 0.3) + torch.atan(x) + torch.log1p(x.abs()) + torch.rsqrt(x.abs() + 1)), o=nn.Linear(6, 2))),
}


def export(net, x, path, dynamo):
    if dynamo:
        dim = {0: torch.export.Dim("n")}
        torch.onnx.export(net, (x,), path, dynamo=True, external_data=False, input_names=["x"], output_names=["y"], dynamic_shapes=(dim,), verbose=False)
    else:
        torch.onnx.export(net, (x,), path, dynamo=False, input_names=["x"], output_names=["y"], opset_version=17, dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})


def save(case, net, x, dynamo):
    """A case that cannot be made ends the script: none may silently be missing."""
    y = net(x)
    grads = [torch.autograd.grad(y[:, k].sum(), x, retain_graph=True)[0] for k in range(y.shape[1])]
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "m.onnx")
        export(net, x.detach(), path, dynamo)
        model = onnx.load(path)
    for n in model.graph.node:
        n.doc_string = ""
        del n.metadata_props[:]
    del model.graph.metadata_props[:]
    put(f"{case}/model.onnx", model.SerializeToString())
    put(f"{case}/in_0.npy", npy(x.detach().numpy()))
    put(f"{case}/out_0.npy", npy(y.detach().numpy()))
    for k, g in enumerate(grads):
        put(f"{case}/grad_{k}.npy", npy(g.numpy()))
    put(f"{case}/case.json", json.dumps({"inputs": [{"name": "x", "file": "in_0.npy", "shape": list(x.shape)}],
        "outputs": [{"name": "y", "file": "out_0.npy", "shape": list(y.shape)}], "library": {},
        "gradients": [{"output": "y", "index": k, "input": "x", "file": f"grad_{k}.npy"} for k in range(len(grads))]}))
    print(case, sorted({n.op_type for n in model.graph.node}), model.opset_import[0].version)


def prepare(net):
    net = net.eval()
    for m in net.modules():
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
    return net


for name, make in nets.items():
    for dtype, suffix in ((torch.float32, ""), (torch.float64, "_double")):
        net = prepare(make().to(dtype))
        x = torch.randn(7, 6, dtype=dtype, requires_grad=True)
        for dynamo in (False, True):
            save(f"{name}{suffix}_{'dynamo' if dynamo else 'script'}", net, x, dynamo)
for name, (shape, make) in more.items():
    net = prepare(make())
    x = torch.randn(3, *shape, requires_grad=True)
    for dynamo in (False, True):
        save(f"{name}_{'dynamo' if dynamo else 'script'}", net, x, dynamo)
out.close()
