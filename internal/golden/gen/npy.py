"""Writes internal/npy/testdata: 0, 1, 2, ... as NumPy writes it in every type and order.

    python3 internal/golden/gen/npy.py

Needs NumPy, and no PyTorch.
"""
import io
import zipfile

import numpy as np

cases = {}
for code in ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"]:
    cases[code] = np.arange(24).reshape(2, 3, 4).astype("<" + code)
    cases[code + "_fortran"] = np.asfortranarray(cases[code])
    if code[1] != "1":
        cases[code + "_big"] = cases[code].astype(">" + code)
cases["scalar"] = np.array(7, "<f4")
cases["vector"] = np.arange(5, dtype="<i8")
cases["empty"] = np.zeros((0, 3), "<f4")
cases["negative"] = np.array([-1.5, np.nan, np.inf], "<f4")
cases["halves"] = np.array([-1.5, np.nan, -np.inf, 3 / 2**24, 65504], "<f2")
cases["signs"] = np.array([-1, -32768], ">i2")
cases["objects"] = np.array([1, "a"], dtype=object)
cases["structs"] = np.zeros(2, dtype=[("a", "<f4"), ("b", "<i8")])
cases["text"] = np.array(["ab"])
cases["complex"] = np.zeros(2, "<c8")
with zipfile.ZipFile("internal/npy/testdata/arrays.npz", "w", zipfile.ZIP_DEFLATED) as z:
    for name, a in cases.items():
        b = io.BytesIO()
        np.lib.format.write_array(b, a)
        z.writestr(zipfile.ZipInfo(name + ".npy"), b.getvalue(), zipfile.ZIP_DEFLATED)
    for major in [2, 3]:
        b = io.BytesIO()
        np.lib.format.write_array(b, cases["vector"], version=(major, 0))
        z.writestr(zipfile.ZipInfo(f"version{major}.npy"), b.getvalue(), zipfile.ZIP_DEFLATED)
