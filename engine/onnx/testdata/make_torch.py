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
for name, make in nets.items():
    for dtype, suffix in ((torch.float32, ""), (torch.float64, "_double")):
        net = make().to(dtype).eval()
        for m in net.modules():
            if isinstance(m, nn.BatchNorm1d):
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)
        x = torch.randn(7, 6, dtype=dtype, requires_grad=True)
        y = net(x)
        grads = [torch.autograd.grad(y[:, k].sum(), x, retain_graph=True)[0] for k in range(y.shape[1])]
        for dynamo in (False, True):
            case = f"{name}{suffix}_{'dynamo' if dynamo else 'script'}"
            try:
                with tempfile.TemporaryDirectory() as d:
                    path = os.path.join(d, "m.onnx")
                    if dynamo:
                        torch.onnx.export(net, (x.detach(),), path, dynamo=True, external_data=False, input_names=["x"], output_names=["y"],
                                          dynamic_shapes=({0: torch.export.Dim("n")},), verbose=False)
                    else:
                        torch.onnx.export(net, (x.detach(),), path, dynamo=False, input_names=["x"], output_names=["y"], opset_version=17,
                                          dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})
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
                put(f"{case}/case.json", json.dumps({"inputs": [{"name": "x", "file": "in_0.npy", "shape": [7, 6]}],
                    "outputs": [{"name": "y", "file": "out_0.npy", "shape": list(y.shape)}], "library": {},
                    "gradients": [{"output": "y", "index": k, "input": "x", "file": f"grad_{k}.npy"} for k in range(len(grads))]}))
                print(case, sorted({n.op_type for n in model.graph.node}), model.opset_import[0].version)
            except Exception as e:
                print("FAILED", case, repr(e)[:200])
out.close()
