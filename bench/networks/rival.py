"""The rival of bench/networks: fetches real networks, and times onnxruntime on them.

onnxruntime==1.32.0 onnx==1.23.2 numpy (see main.go); the networks come out of the packages named in PACKAGES.

    rival.py make DIR      writes DIR/<network>.onnx and, for every work, its inputs
    rival.py rows DIR      writes DIR/<network>-rows/<input>.npy, 32 rows of noise for `pellucid predict` and `pellucid model audit`
    rival.py quantise DIR  writes DIR/<network>_static.onnx, _operator.onnx and _dynamic.onnx, in 8 bits by onnxruntime's quantiser, of QUANTISED
    rival.py serve DIR     answers lines "run NETWORK BATCH THREADS REPEATS" with the seconds of a run, the least of the repeats,
                           "load PATH THREADS REPEATS" with those of making a session of a file,
                           and "want NETWORK BATCH" with the path of a file of its outputs.
                           A NETWORK that ends with .onnx is any file: its inputs are those of the .npz beside it, or drawn.
"""

import functools
import os
import subprocess
import sys
import time
import zipfile

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

PACKAGES = {
    "magika==1.0.3": {"magika": "magika/models/standard_v3_3/model.onnx"},
    "nudenet==3.4.2": {"nudenet": "nudenet/320n.onnx"},
    "rapidocr-onnxruntime==1.4.4": {
        "ocr_detect": "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "ocr_class": "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "ocr_read": "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
    },
    "silero-vad==6.2.3": {"silero": "silero_vad/data/silero_vad.onnx"},
}

QUANTISED = ("dense", "ocr_class", "bert", "resnet18")


class Net:
    """A graph being put together, with weights that keep values of the size they have."""

    def __init__(self, seed):
        self.rng, self.nodes, self.weights, self.n = np.random.default_rng(seed), [], [], 0

    def weight(self, *shape, scale=None):
        fan = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        return self.const(self.rng.normal(0, scale or (2 / fan) ** 0.5, shape).astype(np.float32))

    def const(self, array):
        self.n += 1
        self.weights.append(numpy_helper.from_array(np.asarray(array), f"w{self.n}"))
        return f"w{self.n}"

    def op(self, kind, *inputs, **attributes):
        self.n += 1
        self.nodes.append(helper.make_node(kind, list(inputs), [f"v{self.n}"], **attributes))
        return f"v{self.n}"

    def save(self, path, inputs, output, opset=17):
        self.nodes[-1].output[0] = output[0]
        graph = helper.make_graph(self.nodes, "net", [helper.make_tensor_value_info(*i) for i in inputs], [helper.make_tensor_value_info(*output)], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def conv(net, x, cin, cout, k, stride):
    y = net.op("Conv", x, net.weight(cout, cin, k, k), kernel_shape=[k, k], strides=[stride] * 2, pads=[k // 2] * 4)
    stats = [net.rng.uniform(0.5, 1.5, cout), net.rng.normal(0, 0.1, cout), net.rng.normal(0, 0.1, cout), net.rng.uniform(0.5, 1.5, cout)]
    return net.op("BatchNormalization", y, *[net.const(s.astype(np.float32)) for s in stats])


def resnet18(path):
    net = Net(1)
    x = net.op("Relu", conv(net, "input", 3, 64, 7, 2))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    cin = 64
    for cout, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        y = conv(net, net.op("Relu", conv(net, x, cin, cout, 3, stride)), cout, cout, 3, 1)
        x = net.op("Relu", net.op("Add", y, x if cin == cout else conv(net, x, cin, cout, 1, stride)))
        cin = cout
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.op("Gemm", x, net.weight(512, 1000, scale=0.04), net.weight(1000, scale=0.1))
    net.save(path, [("input", TensorProto.FLOAT, ["n", 3, 224, 224])], ("logits", TensorProto.FLOAT, ["n", 1000]))


def bert(path, words=8000, wide=256, heads=4, layers=4, longest=128):
    net = Net(2)
    ints = lambda *v: net.const(np.array(v, np.int64))
    norm = lambda x: net.op("LayerNormalization", x, net.const(np.ones(wide, np.float32)), net.const(np.zeros(wide, np.float32)), axis=-1)
    dense = lambda x, a, b: net.op("Add", net.op("MatMul", x, net.weight(a, b, scale=a**-0.5)), net.weight(b, scale=0.02))
    mask = net.op("Cast", net.op("Unsqueeze", "attention_mask", ints(1, 2)), to=TensorProto.FLOAT)
    mask = net.op("Mul", net.op("Sub", net.const(np.float32(1)), mask), net.const(np.float32(-10000)))
    length = net.op("Slice", net.op("Shape", "input_ids"), ints(1), ints(2))
    place = net.op("Slice", net.weight(longest, wide, scale=0.5), ints(0), length, ints(0))
    x = norm(net.op("Add", net.op("Gather", net.weight(words, wide, scale=0.5), "input_ids"), place))
    split = ints(0, 0, heads, wide // heads)
    for _ in range(layers):
        q, k, v = (net.op("Transpose", net.op("Reshape", dense(x, wide, wide), split), perm=p) for p in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
        score = net.op("Div", net.op("MatMul", q, k), net.const(np.float32((wide // heads) ** 0.5)))
        y = net.op("MatMul", net.op("Softmax", net.op("Add", score, mask), axis=-1), v)
        y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), ints(0, 0, wide))
        x = norm(net.op("Add", x, dense(y, wide, wide)))
        y = dense(x, wide, 4 * wide)  # GELU, as exporters spell it
        e = net.op("Add", net.op("Erf", net.op("Div", y, net.const(np.float32(2**0.5)))), net.const(np.float32(1)))
        y = net.op("Mul", net.op("Mul", y, e), net.const(np.float32(0.5)))
        x = norm(net.op("Add", x, dense(y, 4 * wide, wide)))
    first = net.op("Squeeze", net.op("Slice", x, ints(0), ints(1), ints(1)), ints(1))
    net.op("Gemm", first, net.weight(wide, 2, scale=0.06), net.weight(2, scale=0.1))
    i64 = TensorProto.INT64
    net.save(path, [("input_ids", i64, ["n", "t"]), ("attention_mask", i64, ["n", "t"])], ("logits", TensorProto.FLOAT, ["n", 2]))


def dense(path):
    net = Net(3)
    x = "input"
    for a, b in ((256, 512), (512, 512), (512, 256)):
        x = net.op("Relu", net.op("Gemm", x, net.weight(a, b), net.weight(b, scale=0.1)))
    net.op("Softmax", net.op("Gemm", x, net.weight(256, 10), net.weight(10, scale=0.1)), axis=-1)
    net.save(path, [("input", TensorProto.FLOAT, ["n", 256])], ("probabilities", TensorProto.FLOAT, ["n", 10]))


def drawn(session, path, batch):
    """Inputs of any network: those kept beside it, or random ones. An open dimension is the batch where it is the first, 64 elsewhere."""
    kept = path.removesuffix(".onnx") + ".npz"
    if os.path.exists(kept):
        return dict(np.load(kept))
    rng, feed = np.random.default_rng(batch), {}
    for i in session.get_inputs():
        shape = [d if isinstance(d, int) else (batch if k == 0 else 64) for k, d in enumerate(i.shape)]
        kind = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}[i.type]
        feed[i.name] = rng.normal(size=shape).astype(kind) if kind is np.float32 else rng.integers(0, 100, shape).astype(kind)
    return feed


def inputs(network, batch):
    rng = np.random.default_rng(batch)
    image = lambda h, w, low=0: rng.uniform(low, 1, (batch, 3, h, w)).astype(np.float32)
    return {
        "dense": lambda: {"input": rng.normal(size=(batch, 256)).astype(np.float32)},
        "resnet18": lambda: {"input": image(224, 224, -1)},
        "bert": lambda: {
            "input_ids": rng.integers(0, 8000, (batch, 64)),
            "attention_mask": (np.arange(64)[None] < rng.integers(16, 65, (batch, 1))).astype(np.int64),
        },
        "magika": lambda: {"bytes": rng.integers(0, 257, (batch, 2048)).astype(np.int32)},
        "nudenet": lambda: {"images": image(320, 320)},
        "ocr_detect": lambda: {"x": image(320, 320, -1)},
        "ocr_class": lambda: {"x": image(48, 192, -1)},
        "ocr_read": lambda: {"x": image(48, 320, -1)},
        "silero": lambda: {
            "input": (0.3 * rng.normal(size=(batch, 576))).astype(np.float32),
            "state": (0.1 * rng.normal(size=(2, batch, 128))).astype(np.float32),
            "sr": np.array(16000, np.int64),
        },
    }[network.removesuffix("_static").removesuffix("_operator").removesuffix("_dynamic")]()


def make(folder):
    for package, files in PACKAGES.items():
        if all(os.path.exists(os.path.join(folder, name + ".onnx")) for name in files):
            continue
        wheels = os.path.join(folder, "wheels")
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", wheels, package], check=True)
        name = package.split("==")[0].replace("-", "_")
        (wheel,) = [w for w in os.listdir(wheels) if w.startswith(name)]
        with zipfile.ZipFile(os.path.join(wheels, wheel)) as z:
            for network, path in files.items():
                with open(os.path.join(folder, network + ".onnx"), "wb") as f:
                    f.write(z.read(path))
    for build in (dense, resnet18, bert):
        build(os.path.join(folder, build.__name__ + ".onnx"))


def rows(folder):
    for network in (n for n in os.listdir(folder) if n.endswith(".onnx")):
        network = network.removesuffix(".onnx")
        under = os.path.join(folder, network + "-rows")
        os.makedirs(under, exist_ok=True)
        for name, a in inputs(network, 32).items():
            np.save(os.path.join(under, name + ".npy"), a)


class Rows:
    """The rows that ranges are taken from."""

    def __init__(self, network):
        self.rows = iter([inputs(network, batch) for batch in (1, 2, 3)])

    def get_next(self):
        return next(self.rows, None)


def quantise(folder):
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    for network in QUANTISED:
        path = lambda suffix: os.path.join(folder, network + suffix + ".onnx")
        if all(os.path.exists(path(suffix)) for suffix in ("_static", "_operator", "_dynamic")):
            continue
        quant_pre_process(path(""), path("_before"), skip_symbolic_shape=True)
        model = onnx.load(path("_before"))
        if model.opset_import[0].version < 13:  # which has scales for each channel
            del model.opset_import[1:]
            onnx.save(onnx.version_converter.convert_version(model, 13), path("_before"))
        u8, s8 = quantization.QuantType.QUInt8, quantization.QuantType.QInt8
        for suffix, form in (("_static", quantization.QuantFormat.QDQ), ("_operator", quantization.QuantFormat.QOperator)):
            quantization.quantize_static(path("_before"), path(suffix), Rows(network), quant_format=form, per_channel=True, activation_type=u8, weight_type=s8)
        quantization.quantize_dynamic(path("_before"), path("_dynamic"))
        os.remove(path("_before"))


def write(path, arrays):
    """Tensors one after the other: name, type and shape in a line of text, then the raw values."""
    with open(path, "wb") as f:
        for name, a in arrays.items():
            a = np.ascontiguousarray(a) if np.ndim(a) else np.asarray(a)
            f.write((" ".join([name, a.dtype.name, *map(str, a.shape)]) + "\n").encode())
            f.write(a.tobytes())
    return path


def settle():
    """Returns once the threads of onnxruntime's pool sleep. After a run they look out for the next one for tens of
    milliseconds, on the processors on which the others are measured next."""
    for _ in range(500):
        used = time.process_time()
        time.sleep(0.004)
        if time.process_time() - used < 0.001:
            return


def bound(session, feed):
    """The inputs bound once, so that no call converts them; outputs are the runtime's."""
    binding = session.io_binding()
    for name, v in feed.items():
        if v.dtype.kind in "OUS":
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(v))
        else:
            binding.bind_cpu_input(name, v)
    for o in session.get_outputs():
        binding.bind_output(o.name, "cpu")
    return binding


@functools.cache
def call():
    """Seconds that a call takes by itself, of a network that copies one element: they are Python's and are not counted."""
    one = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("a", "c")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["a"], ["c"])], "g", one[:1], one[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    s = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    binding, least = bound(s, {"a": np.zeros(1, np.float32)}), float("inf")
    for _ in range(5000):
        start = time.perf_counter()
        s.run_with_iobinding(binding)
        least = min(least, time.perf_counter() - start)
    return least


def serve(folder):
    sessions, feeds = {}, {}

    def load(path, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def session(network, threads):
        if (network, threads) not in sessions:
            path = network if network.endswith(".onnx") else os.path.join(folder, network + ".onnx")
            sessions[network, threads] = load(path, threads)
        return sessions[network, threads]

    def feed_of(network, batch):
        if not network.endswith(".onnx"):
            return inputs(network, batch)
        if (network, batch) not in feeds:
            feeds[network, batch] = drawn(session(network, 1), network, batch)
        return feeds[network, batch]

    def answer(word, network, batch, *rest):
        if word == "load":
            least = float("inf")
            for _ in range(int(rest[0])):
                start = time.perf_counter()
                load(network, int(batch))
                least = min(least, time.perf_counter() - start)
            return least
        for other in [s for s in sessions if s[0] != network]:
            del sessions[other]  # many files need not all be in memory
        feed = feed_of(network, int(batch))
        if word == "want":
            s = session(network, 1)
            base = os.path.join(folder, os.path.basename(network) + f"-{batch}")
            write(base + ".in", feed)
            return write(base + ".out", dict(zip([o.name for o in s.get_outputs()], s.run(None, feed))))
        s, least = session(network, int(rest[0])), float("inf")
        binding = bound(s, feed)
        for _ in range(int(rest[1])):
            start = time.perf_counter()
            s.run_with_iobinding(binding)
            least = min(least, time.perf_counter() - start)
        settle()
        return max(least - call(), 1e-9)

    print("ready", onnxruntime.__version__, flush=True)
    for line in sys.stdin:
        try:
            print(answer(*line.split()), flush=True)
        except Exception as e:  # of any file: the next one may be well
            print("error", " ".join(str(e).split())[:300], flush=True)


if __name__ == "__main__":
    {"make": make, "rows": rows, "quantise": quantise, "serve": serve}[sys.argv[1]](sys.argv[2])
