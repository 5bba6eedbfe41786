"""Drives a running Pellucid with unmodified clients and holds their answers against each other.

usage: check_clients.py BASE_URL MODEL [--repository]

MODEL is any model with one floating point input [-1, M]. The clients are tritonclient (JSON and binary, gzip and
deflate, outputs by name, concurrent) and the KServe SDK (v1 and v2), pinned in requirements.txt. With --repository the
model is unloaded and loaded again. Prints one line a check and exits 1 if any failed.
"""

import asyncio
import sys
import traceback
from urllib.parse import urlparse

import numpy as np
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


async def kserve_v2(base, model, meta, expected):
    from kserve import InferInput, InferRequest, InferenceRESTClient, RESTConfig

    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(base) and await client.is_server_ready(base)
    assert await client.is_model_ready(base, model)
    spec = meta["inputs"][0]
    _, data = tensor(spec, 3, True)
    for binary in (True, False):
        t = InferInput(name=spec["name"], shape=list(data.shape), datatype=spec["datatype"])
        t.set_data_from_numpy(data, binary_data=binary)
        res = await client.infer(base, InferRequest(model_name=model, infer_inputs=[t], request_id="k"), model_name=model)
        got = res.outputs[0].as_numpy()
        np.testing.assert_array_equal(got, expected)


async def kserve_v1(base, model, meta, expected):
    from kserve import InferenceRESTClient, RESTConfig

    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_model_ready(base, model)
    _, data = tensor(meta["inputs"][0], 3, True)
    res = await client.infer(base, {"instances": data.tolist()}, model_name=model)
    np.testing.assert_array_equal(np.array(res["predictions"], expected.dtype), expected)


def main():
    base, model = sys.argv[1].rstrip("/"), sys.argv[2]
    client = triton.InferenceServerClient(urlparse(base).netloc, concurrency=8)
    meta = client.get_model_metadata(model)
    checks = Checks()
    checks.run("tritonclient: health and metadata", check_metadata, client, model)
    checks.run("tritonclient: infer, every form", check_infer, client, model, meta)
    checks.run("tritonclient: concurrent", check_async, client, model, meta)
    checks.run("tritonclient: errors", check_errors, client, model, meta)
    if "--repository" in sys.argv[3:]:
        checks.run("tritonclient: unload and load", check_repository, client, model)
    t, _ = tensor(meta["inputs"][0], 3, True)
    expected = client.infer(model, [t]).as_numpy(meta["outputs"][0]["name"])
    checks.run("kserve: v2", lambda: asyncio.run(kserve_v2(base, model, meta, expected)))
    checks.run("kserve: v1", lambda: asyncio.run(kserve_v1(base, model, meta, expected)))
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
