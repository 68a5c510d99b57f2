"""What Triton's Python clients send, and the numbers of their gRPC messages.

    python3 internal/golden/gen/inference.py proto serve/inferencepb/testdata/triton.txt
    python3 internal/golden/gen/inference.py requests serve/inference/testdata/tritonclient
    python3 internal/golden/gen/inference.py responses DIR

needs `pip install tritonclient[all] kserve`. The second records the bodies of real requests by a server on the
loopback. The third reads the responses that TestResponsesOfPython wrote to DIR, with the clients' own code,
and compares the values with those in DIR/values.json.
"""

import http.server
import json
import pathlib
import subprocess
import sys
import threading

import numpy as np


def proto(path):
    """A line for each field: message, name, number, type, label, oneof."""
    from google.protobuf import descriptor_pb2
    from tritonclient.grpc import model_config_pb2, service_pb2

    lines = set()
    types = {v: k[5:].lower() for k, v in descriptor_pb2.FieldDescriptorProto.Type.items()}
    labels = {1: "optional", 2: "required", 3: "repeated"}

    def message(prefix, m):
        name = prefix + m.name
        lines.add(f"message {name}")
        for f in m.field:
            kind = f.type_name.removeprefix(".inference.") or types[f.type]
            oneof = m.oneof_decl[f.oneof_index].name if f.HasField("oneof_index") else "-"
            lines.add(f"field {name} {f.name} {f.number} {kind} {labels[f.label]} {oneof}")
        for e in m.enum_type:
            enum(name + ".", e)
        for n in m.nested_type:
            message(name + ".", n)

    def enum(prefix, e):
        for v in e.value:
            lines.add(f"enum {prefix}{e.name} {v.name} {v.number}")

    for module in (model_config_pb2, service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for m in file.message_type:
            message("", m)
        for e in file.enum_type:
            enum("", e)
        for s in file.service:
            for r in s.method:
                stream = f"{'stream' if r.client_streaming else 'one'} {'stream' if r.server_streaming else 'one'}"
                lines.add(f"rpc {s.name} {r.name} {r.input_type.removeprefix('.inference.')} {r.output_type.removeprefix('.inference.')} {stream}")
    pathlib.Path(path).write_text("".join(line + "\n" for line in sorted(lines)))


def kserve_inputs():
    x = np.random.default_rng(1).standard_normal((2, 5)).astype(np.float32)
    s = np.array([["Käse", "", 'a "quoted" \\ line\n']], dtype=np.object_)
    return [("x", "FP32", x)], [("s", "BYTES", s)]


def kserve(url):
    """Posts a request of KServe's client, in a process of its own: its messages have the names of Triton's."""
    import httpx
    from kserve import InferInput, InferRequest
    from kserve.protocol.infer_type import RequestedOutput

    ((_, _, x),), ((_, _, text),) = kserve_inputs()
    a = InferInput("x", list(x.shape), "FP32")
    a.set_data_from_numpy(x, binary_data=True)
    b = InferInput("s", list(text.shape), "BYTES")
    b.set_data_from_numpy(text, binary_data=False)
    request = InferRequest("m", [a, b], request_id="k", request_outputs=[RequestedOutput("y", {"binary_data": True})])
    body, size = request.to_rest()
    headers = {"Inference-Header-Content-Length": str(size)}
    httpx.post(url, content=body, headers=headers).raise_for_status()


def requests(directory):
    """Bodies that clients post: NAME.body, and NAME.json with the headers that matter and the values in it."""
    import ml_dtypes
    import tritonclient.grpc as grpc
    import tritonclient.http as client

    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    got = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, dict(self.headers), body))
            answer = b'{"model_name":"m","outputs":[]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"127.0.0.1:{server.server_address[1]}"
    triton = client.InferenceServerClient(url)

    def values(array):
        if array.dtype == np.object_ or array.dtype.kind == "S":
            return [x.decode() if isinstance(x, bytes) else str(x) for x in array.flatten()]
        if array.dtype.kind in "fV" or array.dtype == ml_dtypes.bfloat16:
            return [repr(float(x)) for x in array.flatten()]
        return [str(int(x)) for x in array.flatten()]

    def keep(name, inputs):
        path, headers, body = got.pop()
        assert not got
        (directory / f"{name}.body").write_bytes(body)
        facts = {
            "path": path,
            "header": headers.get("Inference-Header-Content-Length", ""),
            "inputs": [{"name": n, "datatype": d, "shape": list(a.shape), "values": values(a)} for n, d, a in inputs],
        }
        (directory / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")

    def tensors(inputs, binary):
        out = []
        for name, datatype, array in inputs:
            t = client.InferInput(name, list(array.shape), datatype)
            t.set_data_from_numpy(array, binary_data=binary)
            out.append(t)
        return out

    x, text = kserve_inputs()
    special = [("x", "FP32", np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4028235e38], np.float32))]
    ints = [
        (d.lower(), d, np.array([np.iinfo(t).min, np.iinfo(t).max, 7], t))
        for d, t in [("INT8", np.int8), ("INT16", np.int16), ("INT32", np.int32), ("INT64", np.int64),
                     ("UINT8", np.uint8), ("UINT16", np.uint16), ("UINT32", np.uint32), ("UINT64", np.uint64)]
    ]
    others = [
        ("b", "BOOL", np.array([[True, False], [False, True]])),
        ("d", "FP64", np.random.default_rng(2).standard_normal((1, 3))),
        *text,
    ]
    halves = [
        ("h", "FP16", np.array([1.5, -65504, 6e-8, np.inf], np.float16)),
        ("g", "BF16", np.array([1.5, -3e38, 1e-40, np.inf], ml_dtypes.bfloat16)),
    ]
    none = [("x", "FP32", np.zeros((0, 4), np.float32)), ("s", "BYTES", np.zeros((0,), np.object_))]

    triton.infer("m", tensors(x, True))
    keep("default", x)
    triton.infer("a model", tensors(x, False), model_version="3", request_id="one", outputs=[client.InferRequestedOutput("y", binary_data=False)])
    keep("json", x)
    triton.infer("m", tensors(special, False))
    keep("special", special)
    triton.infer("m", tensors(special, True))
    keep("special-binary", special)
    triton.infer("m", tensors(ints + others, True))
    keep("types-binary", ints + others)
    triton.infer("m", tensors(ints + others, False))
    keep("types-json", ints + others)
    triton.infer("m", tensors(halves, True))
    keep("halves", halves)
    triton.infer("m", tensors(none, True))
    keep("none-binary", none)
    triton.infer("m", tensors(none, False))
    keep("none-json", none)
    triton.infer("m", tensors(x, True) + tensors(others, False), sequence_id="s-1", sequence_start=True, priority=2, timeout=1500,
                 outputs=[client.InferRequestedOutput("y", binary_data=True), client.InferRequestedOutput("z", class_count=3)],
                 parameters={"note": "ü", "k": 4, "f": 0.5, "yes": True})
    keep("sequence", x + others)
    triton.infer("m", tensors(x, True), sequence_id=18446744073709551615, sequence_end=True)
    keep("sequence-number", x)

    subprocess.run([sys.executable, __file__, "kserve", f"http://{url}/v2/models/m/infer"], check=True)
    keep("kserve", x + text)

    # gRPC: the client's own messages, without a connection.
    from tritonclient.grpc._utils import _get_inference_request

    def message(name, inputs, **options):
        out = []
        for n, d, array in inputs:
            t = grpc.InferInput(n, list(array.shape), d)
            t.set_data_from_numpy(array)
            out.append(t)
        settings = dict(model_name="m", inputs=out, model_version="", request_id="", outputs=None, sequence_id=0, sequence_start=False,
                        sequence_end=False, priority=0, timeout=None, parameters=None)
        m = _get_inference_request(**{**settings, **options})
        got.append(("", {}, m.SerializeToString(deterministic=True)))
        keep(name, inputs)

    message("grpc", ints + others + halves + none)
    message("grpc-sequence", x, sequence_id="s-1", sequence_start=True, priority=2, timeout=1500, request_id="r",
            outputs=[grpc.InferRequestedOutput("y")], parameters={"note": "ü", "k": 4, "f": 0.5, "yes": True})
    triton.close()
    server.shutdown()


def responses(directory):
    """Reads NAME.http and NAME.grpc with tritonclient and compares them with values.json."""
    import tritonclient.grpc as grpc
    import tritonclient.http as client
    from tritonclient.grpc import service_pb2
    from tritonclient.utils import triton_to_np_dtype

    directory = pathlib.Path(directory)
    facts = json.loads((directory / "values.json").read_text())
    compared = 0
    for one in facts:
        body = (directory / one["file"]).read_bytes()
        if one["file"].endswith(".grpc"):
            m = service_pb2.ModelInferResponse()
            m.ParseFromString(body)
            result = grpc.InferResult(m)
            assert m.id == one["id"], m.id
        else:
            header = one["header"]
            result = client.InferResult.from_response_body(body, header_length=int(header) if header else None)
            assert result.get_response()["id"] == one["id"]
            if not header:
                json.loads(body, parse_constant=lambda word: (_ for _ in ()).throw(ValueError(f"{word} is no JSON")))
        for out in one["outputs"]:
            array = result.as_numpy(out["name"])
            assert list(array.shape) == out["shape"], (one["file"], out["name"], array.shape)
            if out["datatype"] == "BYTES":
                got = [x.decode() if isinstance(x, bytes) else x for x in array.flatten()]
                assert got == out["values"], (one["file"], got)
            else:
                want = np.array([float(x) if "." in x or "n" in x.lower() else int(x) for x in out["values"]], dtype=object)
                want = want.astype(triton_to_np_dtype(out["datatype"]))
                np.testing.assert_array_equal(array.flatten(), want, str((one["file"], out["name"])))
            compared += 1
    print(f"{compared} tensors of {len(facts)} responses are equal")


if __name__ == "__main__":
    {"proto": proto, "kserve": kserve, "requests": requests, "responses": responses}[sys.argv[1]](sys.argv[2])
