"""Drives a running Pellucid with the unmodified KServe SDK and holds its answers against those of plain HTTP.

usage: check_kserve.py BASE_URL GRPC_ADDRESS MODEL

MODEL is any model with one floating point input [-1, M]. v1 and v2 over REST, the Open Inference Protocol over gRPC.
Prints one line a check and exits 1 if any failed.
"""

import asyncio
import json
import sys
import traceback
from urllib.request import Request, urlopen

import numpy as np
from kserve import InferInput, InferRequest, InferenceRESTClient, RESTConfig
from kserve.inference_client import InferenceGRPCClient

DTYPES = {"FP32": np.float32, "FP64": np.float64}


def rows(spec):
    return np.random.default_rng(7).normal(size=(3, int(spec["shape"][1]))).astype(DTYPES[spec["datatype"]])


def plain(base, model, meta):
    """The answer to the same rows by JSON over HTTP."""
    spec = meta["inputs"][0]
    data = rows(spec)
    body = {"inputs": [{"name": spec["name"], "datatype": spec["datatype"], "shape": list(data.shape), "data": data.astype(float).ravel().tolist()}]}
    with urlopen(Request(f"{base}/v2/models/{model}/infer", json.dumps(body).encode(), {"Content-Type": "application/json"})) as r:
        out = json.load(r)["outputs"][0]
    return np.array(out["data"], DTYPES[out["datatype"]]).reshape(out["shape"])


async def kserve_v2(base, model, meta, expected):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(base) and await client.is_server_ready(base)
    assert await client.is_model_ready(base, model)
    spec = meta["inputs"][0]
    data = rows(spec)
    for binary in (True, False):
        t = InferInput(name=spec["name"], shape=list(data.shape), datatype=spec["datatype"])
        t.set_data_from_numpy(data, binary_data=binary)
        res = await client.infer(base, InferRequest(model_name=model, infer_inputs=[t], request_id="k"), model_name=model)
        got = res.outputs[0].as_numpy()
        np.testing.assert_array_equal(got, expected)


async def kserve_v1(base, model, meta, expected):
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_model_ready(base, model)
    data = rows(meta["inputs"][0])
    res = await client.infer(base, {"instances": data.tolist()}, model_name=model)
    np.testing.assert_array_equal(np.array(res["predictions"], expected.dtype), expected)


async def kserve_grpc(address, model, meta, expected):
    async with InferenceGRPCClient(address) as client:
        assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready(model)
        spec = meta["inputs"][0]
        data = rows(spec)
        for binary in (True, False):
            t = InferInput(name=spec["name"], shape=list(data.shape), datatype=spec["datatype"])
            t.set_data_from_numpy(data, binary_data=binary)
            res = await client.infer(InferRequest(model_name=model, infer_inputs=[t], request_id="k"))
            np.testing.assert_array_equal(res.outputs[0].as_numpy().reshape(expected.shape), expected)


def main():
    base, address, model = sys.argv[1].rstrip("/"), sys.argv[2], sys.argv[3]
    with urlopen(f"{base}/v2/models/{model}") as r:
        meta = json.load(r)
    expected = plain(base, model, meta)
    failed = 0
    for name, check in (
        ("kserve: v2", lambda: kserve_v2(base, model, meta, expected)),
        ("kserve: v1", lambda: kserve_v1(base, model, meta, expected)),
        ("kserve: gRPC", lambda: kserve_grpc(address, model, meta, expected)),
    ):
        try:
            asyncio.run(check())
            print(f"ok      {name}")
        except Exception:
            failed += 1
            print(f"FAILED  {name}")
            traceback.print_exc()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
