"""The rival of bench/blas: onnxruntime's MatMul, timed as it is asked to.

onnxruntime==1.32.0 onnx==1.23.2 numpy==2.5.5

    rival.py    answers lines "M N K CONSTANT THREADS SECONDS" with seconds a product: the mean of as many runs as
                take SECONDS, less the mean of a session that only copies one element. CONSTANT 1 makes b a weight,
                which onnxruntime lays out when it loads the model.
"""

import sys
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def session(nodes, inputs, outputs, constants, threads):
    infos = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *infos, [numpy_helper.from_array(v, name) for name, v in constants])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def bound(s, inputs, output):
    """A call without arguments; the buffers are bound once."""
    b = s.io_binding()
    for name, v in inputs:
        b.bind_cpu_input(name, v)
    b.bind_output("c", "cpu", 0, np.float32, output.shape, output.ctypes.data)
    return lambda: (s.run_with_iobinding(b), inputs, output)


def product(m, n, k, constant, threads):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32)
    inputs, shapes, constants = [("a", a)], [("a", a.shape)], []
    if constant:
        constants.append(("b", b))
    else:
        inputs.append(("b", b))
        shapes.append(("b", b.shape))
    s = session([helper.make_node("MatMul", ["a", "b"], ["c"])], shapes, [("c", (m, n))], constants, threads)
    return bound(s, inputs, np.empty((m, n), np.float32))


def nothing():
    s = session([helper.make_node("Identity", ["a"], ["c"])], [("a", (1,))], [("c", (1,))], [], 1)
    return bound(s, [("a", np.zeros(1, np.float32))], np.empty(1, np.float32))


def seconds(call, least):
    call()
    runs, start = 0, time.perf_counter()
    while True:
        for _ in range(1 + runs // 2):
            call()
        runs += 1 + runs // 2
        spent = time.perf_counter() - start
        if spent >= least:
            return spent / runs


def settle():
    """Returns once the threads of onnxruntime's pool sleep. After a run they look out for the next one for tens of
    milliseconds, on the processors on which the others are measured next."""
    for _ in range(500):
        used = time.process_time()
        time.sleep(0.004)
        if time.process_time() - used < 0.001:
            return


def main():
    print("onnxruntime", onnxruntime.__version__, flush=True)
    calls, empty = {}, nothing()
    for line in sys.stdin:
        *key, least = line.split()
        key, least = tuple(map(int, key)), float(least)
        if key not in calls:
            calls = {key: product(*key)}
        spent = max(seconds(calls[key], least) - seconds(empty, least / 8), 1e-9)
        settle()
        print(spent, flush=True)


if __name__ == "__main__":
    main()
