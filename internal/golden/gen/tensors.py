"""A small safetensors writer for NumPy arrays of float32 and int64."""
import json
import os
import struct


def write(path, settings, tensors):
    """settings go into the metadata, one text a case; tensors are named case/tensor."""
    header, blobs, at = {"__metadata__": settings}, [], 0
    for name, a in tensors.items():
        blob = a.tobytes()
        header[name] = {"dtype": {"float32": "F32", "int64": "I64"}[str(a.dtype)], "shape": list(a.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)))
        f.write(text)
        f.write(b"".join(blobs))
    print(f"{os.path.basename(path)}: {len(settings)} cases, {os.path.getsize(path)} bytes")
