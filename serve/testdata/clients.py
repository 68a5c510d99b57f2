"""Runs tritonclient and kserve's clients, unmodified, against a server of Carousel.

    python clients.py triton|kserve facts.json

facts.json has the addresses and what the server's own code computed for the inputs; each
answer must have the same bits. Prints one line for each part and exits with 1 at the first
difference. One process cannot have both packages: each registers the protocol's messages.
"""

import asyncio
import http.client
import json
import logging
import os
import queue
import sys
import time
import traceback

import grpc
import numpy as np

if sys.argv[1] == "triton":
    import tritonclient.grpc as tgrpc
    import tritonclient.grpc.aio as tgrpc_aio
    import tritonclient.http as thttp
    import tritonclient.http.aio as thttp_aio
    from tritonclient.utils import InferenceServerException
else:
    from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

with open(sys.argv[2]) as f:
    FACTS = json.load(f)

PLAIN_X = np.array(FACTS["plain_x"], np.float32).reshape(FACTS["plain_shape"])
PLAIN_Y = np.array(FACTS["plain_y"], np.float32).reshape(FACTS["plain_shape"])
STEPS_X = [np.array(x, np.float32).reshape(1, 1, -1) for x in FACTS["steps_x"]]
STEPS_Y = [np.array(y, np.float32).reshape(1, 1, -1) for y in FACTS["steps_y"]]
TEXTS = np.array([t.encode() for t in FACTS["texts"]], dtype=object)
LABELS = [t.encode() for t in FACTS["labels"]]
PROBABILITIES = np.array(FACTS["probabilities"]).reshape(len(TEXTS), -1)


def same(got, want, what):
    assert got is not None, f"{what}: no answer"
    assert got.shape == want.shape and got.dtype == want.dtype and np.array_equal(got, want), f"{what}: got {got}, want {want}"


def fails(what, part, f, status=None):
    try:
        f()
    except InferenceServerException as e:
        assert part in e.message(), f"{what}: got {e.message()!r}, want {part!r}"
        assert status is None or status in str(e.status()), f"{what}: got status {e.status()}, want {status}"
        return
    raise AssertionError(f"{what}: no error")


def given(module, name, values, datatype="FP32", **options):
    one = module.InferInput(name, list(values.shape), datatype)
    one.set_data_from_numpy(values, **options)
    return one


def about(client, over_http):
    """What both clients ask about the server and its models."""
    options = {} if over_http else {"as_json": True}
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("step") and client.is_model_ready("step", "1")
    assert not client.is_model_ready("nothing") and not client.is_model_ready("step", "7")
    server = client.get_server_metadata(**options)
    assert server["name"] == "carousel" and "sequence(string_id)" in server["extensions"], server
    model = client.get_model_metadata("plain", **options)
    assert model["platform"] == "onnx_onnxv1" and model["versions"] == ["1"], model
    assert [int(d) for d in model["inputs"][0]["shape"]] == [-1, -1, PLAIN_X.shape[2]], model
    config = client.get_model_config("step", **options)
    config = config if over_http else config["config"]
    assert config["max_batch_size"] == 256, config
    assert [s["input_name"] for s in config["sequence_batching"]["state"]] == ["h0", "c0"], config
    index = client.get_model_repository_index(**options)
    index = index if over_http else index["models"]
    assert {m["name"]: m["state"] for m in index}["plain"] == "READY", index
    before = count(client, over_http)
    client.infer("plain", [given(thttp if over_http else tgrpc, "x", PLAIN_X)])
    after = count(client, over_http)
    rows = PLAIN_X.shape[0]
    assert (after[0] - before[0], after[1] - before[1]) == (rows, 1), (before, after)
    client.unload_model("plain")
    assert not client.is_model_ready("plain")
    client.load_model("plain")
    assert client.is_model_ready("plain")
    fails("unknown model", "unknown model", lambda: client.load_model("nothing"))
    fails("another configuration", 'parameter "config"', lambda: client.load_model("plain", config="{}"))
    fails("metadata of an unknown model", "unknown model", lambda: client.get_model_metadata("nothing"))
    fails("shared memory", "no shared memory", client.get_system_shared_memory_status)
    fails("traces", "no traces", client.get_trace_settings)
    fails("settings of the log", "log", client.get_log_settings)


def count(client, over_http):
    options = {} if over_http else {"as_json": True}
    stats = client.get_inference_statistics("plain", **options)["model_stats"][0]
    return int(stats.get("inference_count", 0)), int(stats.get("execution_count", 0))


def triton_http():
    client = thttp.InferenceServerClient(FACTS["http"], concurrency=4)
    about(client, True)
    for binary_in in (True, False):
        x = given(thttp, "x", PLAIN_X, binary_data=binary_in)
        same(client.infer("plain", [x]).as_numpy("y"), PLAIN_Y, "no outputs named")
        for binary_out in (True, False):
            y = thttp.InferRequestedOutput("y", binary_data=binary_out)
            for squeeze in (None, "gzip", "deflate"):
                r = client.infer("plain", [x], outputs=[y], model_version="1", request_id="a-7", priority=1, timeout=60_000_000,
                                 request_compression_algorithm=squeeze, response_compression_algorithm=squeeze)
                same(r.as_numpy("y"), PLAIN_Y, f"binary {binary_in}, {binary_out}, {squeeze}")
                assert r.get_response()["id"] == "a-7" and r.get_response()["model_version"] == "1"
    # Large answers are compressed.
    long = np.zeros((1, 4000, PLAIN_X.shape[2]), np.float32)
    want = client.infer("plain", [given(thttp, "x", long)]).as_numpy("y")
    for squeeze in ("gzip", "deflate"):
        r = client.infer("plain", [given(thttp, "x", long)], response_compression_algorithm=squeeze)
        same(r.as_numpy("y"), want, f"long, {squeeze}")

    x = given(thttp, "x", PLAIN_X)
    pending = [client.async_infer("plain", [x], request_id=str(i)) for i in range(20)]
    for i, p in enumerate(pending):
        r = p.get_result()
        same(r.as_numpy("y"), PLAIN_Y, f"asynchronous {i}")
        assert r.get_response()["id"] == str(i)

    top = client.infer("step", [given(thttp, "x", STEPS_X[0])], outputs=[thttp.InferRequestedOutput("y", class_count=3)]).as_numpy("y")
    best = np.argsort(-STEPS_Y[0].ravel(), kind="stable")[:3]
    assert [int(t.split(b":")[1]) for t in top.ravel()] == list(best), (top, best)
    named = client.infer("plain", [x], outputs=[thttp.InferRequestedOutput("y", class_count=3)]).as_numpy("y")
    assert all(t.split(b":")[2].decode() == FACTS["plain_labels"][int(t.split(b":")[1])] for t in named.ravel()
               if int(t.split(b":")[1]) < len(FACTS["plain_labels"])), named

    for id in (42, "a stream"):
        sequence(lambda x, **of: client.infer("step", [given(thttp, "x", x)], **of).as_numpy("y"), id)
    fails("no START", "must specify the START flag", lambda: client.infer("step", [given(thttp, "x", STEPS_X[0])], sequence_id=77), "400")
    fails("too little time", "time ran out", lambda: client.infer("plain", [x], timeout=1), "504")
    fails("unknown model", "unknown model", lambda: client.infer("nothing", [x]), "404")
    fails("wrong input", "has no input", lambda: client.infer("plain", [given(thttp, "z", PLAIN_X)]), "400")
    fails("wrong type", "expected datatype FP32", lambda: client.infer("plain", [given(thttp, "x", PLAIN_X.astype(np.float64), datatype="FP64")]), "400")
    texts(client, thttp)

    # A raw request has no JSON.
    raw = http.client.HTTPConnection(FACTS["http"])
    raw.request("POST", "/v2/models/step/infer", STEPS_X[0].tobytes(), {"Inference-Header-Content-Length": "0"})
    r = raw.getresponse()
    body = r.read()
    assert r.status == 200, body
    r = thttp.InferenceServerClient.parse_response_body(body, header_length=int(r.getheader("Inference-Header-Content-Length")))
    same(r.as_numpy("y"), STEPS_Y[0], "raw")
    client.close()


def sequence(infer, id):
    """One sequence, and again, so that the second starts anew."""
    for _ in range(2):
        for i, x in enumerate(STEPS_X):
            y = infer(x, sequence_id=id, sequence_start=i == 0, sequence_end=i == len(STEPS_X) - 1)
            same(y, STEPS_Y[i], f"sequence {id!r}, step {i}")


def texts(client, module):
    x = given(module, "text", TEXTS, "BYTES")
    r = client.infer("words", [x])
    assert list(r.as_numpy("label")) == LABELS, r.as_numpy("label")
    same(r.as_numpy("probabilities"), PROBABILITIES, "probabilities")
    top = client.infer("words", [x], outputs=[module.InferRequestedOutput("probabilities", class_count=1)]).as_numpy("probabilities")
    assert [t.split(b":")[2] for t in top.ravel()] == LABELS, top


def triton_grpc():
    client = tgrpc.InferenceServerClient(FACTS["grpc"])
    about(client, False)
    x = given(tgrpc, "x", PLAIN_X)
    for squeeze in (None, "gzip", "deflate"):
        r = client.infer("plain", [x], outputs=[tgrpc.InferRequestedOutput("y")], model_version="1", request_id="a-7", priority=1,
                         timeout=60_000_000, client_timeout=60, compression_algorithm=squeeze)
        same(r.as_numpy("y"), PLAIN_Y, f"compression {squeeze}")
        assert r.get_response().id == "a-7" and r.get_response().model_version == "1"

    done = queue.Queue()
    for i in range(20):
        client.async_infer("plain", [x], lambda result, error: done.put((result, error)), request_id=str(i))
    ids = set()
    for _ in range(20):
        result, error = done.get(timeout=60)
        assert error is None, error
        same(result.as_numpy("y"), PLAIN_Y, "asynchronous")
        ids.add(result.get_response().id)
    assert len(ids) == 20

    for id in (43, "another stream"):
        sequence(lambda x, **of: client.infer("step", [given(tgrpc, "x", x)], **of).as_numpy("y"), id)
    fails("no START", "must specify the START flag", lambda: client.infer("step", [given(tgrpc, "x", STEPS_X[0])], sequence_id=78), "INVALID_ARGUMENT")
    fails("too little time", "time ran out", lambda: client.infer("plain", [x], timeout=1), "DEADLINE_EXCEEDED")
    long = given(tgrpc, "x", np.zeros((64, 2000, PLAIN_X.shape[2]), np.float32))
    fails("a client without patience", "Deadline", lambda: client.infer("plain", [long], client_timeout=0.001), "DEADLINE_EXCEEDED")
    fails("unknown model", "unknown model", lambda: client.infer("nothing", [x]), "NOT_FOUND")
    texts(client, tgrpc)

    # A stream with several sequences and requests without one, some of them wrong.
    client.start_stream(lambda result, error: done.put((result, error)))
    ids = [44, "a third stream", 2**62 + 5]
    for i, step in enumerate(STEPS_X):
        for k, id in enumerate(ids):
            client.async_stream_infer("step", [given(tgrpc, "x", step)], request_id=f"{k}/{i}", sequence_id=id, sequence_start=i == 0,
                                      sequence_end=i == len(STEPS_X) - 1, enable_empty_final_response=i == 1)
        client.async_stream_infer("plain", [x], request_id=f"plain/{i}")
        client.async_stream_infer("nothing", [x])
    met, wrong = {}, 0
    for _ in range(len(STEPS_X) * (len(ids) + 2)):
        result, error = done.get(timeout=60)
        if error is not None:
            assert "unknown model" in error.message(), error
            wrong += 1
            continue
        answer = result.get_response()
        assert answer.parameters["triton_final_response"].bool_param
        name, i = answer.id.split("/")
        same(result.as_numpy("y"), PLAIN_Y if name == "plain" else STEPS_Y[int(i)], f"stream, {answer.id}")
        if name != "plain":
            assert met.get(name, 0) == int(i), f"{answer.id} came after {met[name]} answers of its sequence"
        met[name] = met.get(name, 0) + 1
    assert wrong == len(STEPS_X) and len(met) == len(ids) + 1, (wrong, met)
    client.stop_stream()

    # What began in a stream ends with it.
    client.start_stream(lambda result, error: done.put((result, error)))
    client.async_stream_infer("step", [given(tgrpc, "x", STEPS_X[0])], sequence_id="owned", sequence_start=True)
    assert done.get(timeout=60)[1] is None
    client.stop_stream()
    for _ in range(1000):
        try:
            client.infer("step", [given(tgrpc, "x", STEPS_X[0])], sequence_id="owned")
        except InferenceServerException as e:
            assert "the connection that it belonged to was closed" in e.message(), e
            break
        time.sleep(0.01)
    else:
        raise AssertionError("a sequence outlives its stream")
    client.close()


async def triton_aio():
    async with thttp_aio.InferenceServerClient(FACTS["http"]) as client:
        r = await client.infer("plain", [given(thttp, "x", PLAIN_X)])
        same(r.as_numpy("y"), PLAIN_Y, "http.aio")
    async with tgrpc_aio.InferenceServerClient(FACTS["grpc"]) as client:
        many = await asyncio.gather(*(client.infer("plain", [given(tgrpc, "x", PLAIN_X)]) for _ in range(10)))
        for r in many:
            same(r.as_numpy("y"), PLAIN_Y, "grpc.aio")

        async def requests():
            for i, step in enumerate(STEPS_X):
                yield {"model_name": "step", "inputs": [given(tgrpc, "x", step)], "sequence_id": 45, "sequence_start": i == 0,
                       "sequence_end": i == len(STEPS_X) - 1, "request_id": str(i)}

        i = 0
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            same(result.as_numpy("y"), STEPS_Y[i], f"grpc.aio, stream, step {i}")
            i += 1
        assert i == len(STEPS_X)


async def kserve_clients():
    url = "http://" + FACTS["http"]
    rest = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    assert await rest.is_server_live(url) and await rest.is_server_ready(url) and await rest.is_model_ready(url, "plain")
    assert not await rest.is_model_ready(url, "nothing")
    for binary in (True, False):
        x = InferInput("x", list(PLAIN_X.shape), "FP32")
        x.set_data_from_numpy(PLAIN_X, binary_data=binary)
        r = await rest.infer(url, InferRequest("plain", [x], request_id="k"), model_name="plain")
        same(r.outputs[0].as_numpy().astype(np.float32), PLAIN_Y, f"kserve REST, binary {binary}")
        assert r.id == "k"
    await rest.close()
    rpc = InferenceGRPCClient(FACTS["grpc"], timeout=60)
    assert await rpc.is_server_live() and await rpc.is_server_ready() and await rpc.is_model_ready("plain")
    assert not await rpc.is_model_ready("nothing")
    logging.disable(logging.ERROR)  # kserve logs the error that is wanted below
    for binary in (True, False):
        x = InferInput("x", list(PLAIN_X.shape), "FP32")
        x.set_data_from_numpy(PLAIN_X, binary_data=binary)
        r = await rpc.infer(InferRequest("plain", [x], request_id="k"))
        same(r.outputs[0].as_numpy().astype(np.float32), PLAIN_Y, f"kserve gRPC, binary {binary}")
        assert r.id == "k"
    try:
        await rpc.infer(InferRequest("nothing", [x]))
    except grpc.RpcError as e:
        assert e.code() == grpc.StatusCode.NOT_FOUND, e
    else:
        raise AssertionError("an unknown model was answered")
    await rpc.close()


for part in {"triton": (triton_http, triton_grpc, triton_aio), "kserve": (kserve_clients,)}[sys.argv[1]]:
    began = time.time()
    try:
        if asyncio.iscoroutinefunction(part):
            asyncio.run(part())
        else:
            part()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # an open stream's thread would go on
    print(f"{part.__name__}: as expected, {time.time() - began:.1f} s", flush=True)
