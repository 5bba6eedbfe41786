"""Drives a running Pellucid with unmodified clients and holds their answers against each other.

usage: check_clients.py BASE_URL GRPC_ADDRESS MODEL [--repository]

MODEL is any model with one floating point input [-1, M]. The client is tritonclient (JSON and binary, gzip and deflate,
outputs by name, concurrent; gRPC), pinned in requirements.txt. With --repository the model is unloaded and loaded
again. Prints one line a check and exits 1 if any failed. check_kserve.py has the KServe SDK, since one process cannot
hold both clients' copies of the protocol's messages.
"""

import json
import queue
import sys
import traceback
from urllib.parse import urlparse
from urllib.request import urlopen

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

DTYPES = {"FP32": np.float32, "FP64": np.float64}


class Checks:
    """Runs checks and counts what failed."""

    def __init__(self):
        self.failed = 0

    def run(self, name, check, *args):
        try:
            check(*args)
            print(f"ok      {name}")
        except Exception:
            self.failed += 1
            print(f"FAILED  {name}")
            traceback.print_exc()


def tensor(spec, rows, binary):
    data = np.random.default_rng(7).normal(size=(rows, int(spec["shape"][1]))).astype(DTYPES[spec["datatype"]])
    t = triton.InferInput(spec["name"], list(data.shape), spec["datatype"])
    t.set_data_from_numpy(data, binary_data=binary)
    return t, data


def check_metadata(client, model):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
    assert not client.is_model_ready("no such model / at all")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata(model)["name"] == model
    assert any(m["name"] == model for m in client.get_model_repository_index())


def check_infer(client, model, meta):
    """Every way of asking gives the same bits."""
    out = meta["outputs"][0]["name"]
    reference = None
    for rows in (1, 64):
        reference = None
        for binary_in in (True, False):
            for outputs in (None, True, False):
                for pack in (None, "gzip", "deflate"):
                    t, _ = tensor(meta["inputs"][0], rows, binary_in)
                    want = None if outputs is None else [triton.InferRequestedOutput(out, binary_data=outputs)]
                    result = client.infer(model, [t], outputs=want, request_id="r1",
                                          request_compression_algorithm=pack, response_compression_algorithm=pack)
                    got = result.as_numpy(out)
                    assert got is not None and got.shape[0] == rows, (binary_in, outputs, pack)
                    assert result.get_response()["id"] == "r1"
                    if reference is None:
                        reference = got
                    np.testing.assert_array_equal(got, reference)


def check_async(client, model, meta):
    tensors = [tensor(meta["inputs"][0], 1, True)[0] for _ in range(16)]
    for handle in [client.async_infer(model, [t]) for t in tensors]:
        assert handle.get_result().as_numpy(meta["outputs"][0]["name"]) is not None


def check_errors(client, model, meta):
    wrong = triton.InferInput("no_such_input", [1, 1], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 1), np.float32))
    for name, inputs, status in ((model, [wrong], "400"), ("no_such_model", [tensor(meta["inputs"][0], 1, True)[0]], "404")):
        try:
            client.infer(name, inputs)
        except InferenceServerException as e:
            assert e.status() == status and e.message(), (e.status(), e.message())
        else:
            raise AssertionError("no error")


def check_repository(client, model):
    client.unload_model(model)
    assert not client.is_model_ready(model)
    client.load_model(model)
    assert client.is_model_ready(model)


def grpc_tensor(spec, rows):
    _, data = tensor(spec, rows, True)
    t = triton_grpc.InferInput(spec["name"], list(data.shape), spec["datatype"])
    t.set_data_from_numpy(data)
    return t


def check_grpc(client, model, meta, expected, base):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
    assert not client.is_model_ready("no such model")
    assert client.get_server_metadata().name == "pellucid"
    got = client.get_model_metadata(model)
    assert got.name == model and list(got.inputs[0].shape) == [int(n) for n in meta["inputs"][0]["shape"]]
    out = meta["outputs"][0]["name"]
    for outputs in (None, [triton_grpc.InferRequestedOutput(out)]):
        for pack in (None, "gzip"):
            result = client.infer(model, [grpc_tensor(meta["inputs"][0], 3)], outputs=outputs, request_id="g1", compression_algorithm=pack)
            np.testing.assert_array_equal(result.as_numpy(out), expected)
            answer = result.get_response()
            assert answer.id == "g1"
            id = answer.parameters["pellucid_prediction_id"].string_param
            with urlopen(f"{base}/api/v1/predictions/{id}") as r:
                assert len(json.load(r)["predictions"]) == 3
    done = queue.Queue()
    for _ in range(16):
        client.async_infer(model, [grpc_tensor(meta["inputs"][0], 1)], lambda result, error: done.put((result, error)))
    for _ in range(16):
        result, error = done.get(timeout=30)
        assert error is None and result.as_numpy(out) is not None
    wrong = triton_grpc.InferInput("no_such_input", [1, 1], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 1), np.float32))
    for name, inputs, status in ((model, [wrong], "INVALID_ARGUMENT"), ("no_such_model", [grpc_tensor(meta["inputs"][0], 1)], "NOT_FOUND")):
        try:
            client.infer(name, inputs)
        except InferenceServerException as e:
            assert status in e.status() and e.message(), (e.status(), e.message())
        else:
            raise AssertionError("no error")


def main():
    base, address, model = sys.argv[1].rstrip("/"), sys.argv[2], sys.argv[3]
    client = triton.InferenceServerClient(urlparse(base).netloc, concurrency=8)
    meta = client.get_model_metadata(model)
    checks = Checks()
    checks.run("tritonclient: health and metadata", check_metadata, client, model)
    checks.run("tritonclient: infer, every form", check_infer, client, model, meta)
    checks.run("tritonclient: concurrent", check_async, client, model, meta)
    checks.run("tritonclient: errors", check_errors, client, model, meta)
    if "--repository" in sys.argv[4:]:
        checks.run("tritonclient: unload and load", check_repository, client, model)
    t, _ = tensor(meta["inputs"][0], 3, True)
    expected = client.infer(model, [t]).as_numpy(meta["outputs"][0]["name"])
    with triton_grpc.InferenceServerClient(address) as rpc:
        checks.run("tritonclient: gRPC", check_grpc, rpc, model, meta, expected, base)
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
