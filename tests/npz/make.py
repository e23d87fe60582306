"""Writes the archives of tests/npz.rs beside this file, with numpy: `python tests/npz/make.py`.

The same files result from every run. The numbers are those that tests/npz.rs computes: element `i` (in C order) of a
tensor is `(step * i) % 29 - 14`, with step 3, 5 and 7 for q, k and v; floats are a quarter of that.
"""

import io
import pathlib
import zipfile

import numpy as np

HERE = pathlib.Path(__file__).parent


def tensor(step, shape, dtype):
    numbers = (step * np.arange(np.prod(shape, dtype=int))) % 29 - 14
    return (numbers if np.issubdtype(dtype, np.integer) else numbers / 4).reshape(shape).astype(dtype)


def qkv(query=(3, 8), key=(5, 8), dtype="f4"):
    return {"q": tensor(3, query, dtype), "k": tensor(5, key, dtype), "v": tensor(7, key, dtype)}


def scaled(query=(3, 8), key=(5, 8), q_scale=0.5, k_scale=0.25, v_scale=0.125):
    return qkv(query, key, "i1") | {"q_scale": q_scale, "k_scale": k_scale, "v_scale": v_scale}


def save(name, arrays, write=np.savez):
    write(HERE / f"{name}.npz", **arrays)


def save_members(name, members):
    """An archive of raw members: {file name: bytes}."""
    with zipfile.ZipFile(HERE / f"{name}.npz", "w") as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content)


def npy(header, body=b"", version=b"\x01\x00"):
    length = len(header).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + length + header.encode() + body


def npy_of(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version)
    return file.getvalue()


def members(**changed):
    return {f"{name}.npy": npy_of(array) for name, array in qkv((1, 8), (1, 8)).items()} | {
        f"{name}.npy": content for name, content in changed.items()
    }


def one(name, index, value, dtype="f4"):
    """Arrays of one head with one element changed."""
    arrays = qkv(dtype=dtype)
    arrays[name][index] = value
    return arrays


for old in HERE.glob("*.np[yz]"):
    old.unlink()

# Good.
for bits in 16, 32, 64:
    save(f"float{bits}", qkv(dtype=f"f{bits // 8}"))
save("float_widths", qkv() | {"q": tensor(3, (3, 8), "f2"), "v": tensor(7, (5, 8), "f8")})
save("int8_numbers", scaled())
save("int8_python_ones", scaled(q_scale=1, k_scale=1, v_scale=np.int32(1)))
save("int8_one_element", scaled((2, 3, 8), (2, 5, 8), np.float32([0.5]), np.float16([0.25]), np.float64([[0.125]])))
save("int8_per_head", scaled((4, 3, 8), (2, 5, 8), np.float32([0.5, 1, 2, 4]), np.float16([0.25, 3]), [0.125, 5]))
save("leading_4d", qkv((2, 2, 3, 8), (2, 2, 5, 8)))
save("grouped", qkv((2, 4, 3, 8), (2, 2, 5, 8), "f2"))
save("grouped_3d", qkv((4, 3, 8), (1, 2, 5, 8), "f2"))
save("one_kv_head", qkv((2, 2, 3, 8), (5, 8), "f2"))
fortran = scaled((2, 4, 3, 8), (2, 2, 5, 8), k_scale=np.asfortranarray(np.float32([[1, 2], [3, 4]])))
save("fortran_int8", fortran | {name: np.asfortranarray(fortran[name]) for name in "qkv"})
save("fortran", {name: np.asfortranarray(array) for name, array in qkv((2, 3, 8), (2, 5, 8), "f8").items()})
save("big_endian", {name: array.astype(array.dtype.newbyteorder(">")) for name, array in qkv((2, 3, 8), (2, 5, 8)).items()})
save(
    "big_endian_widths",
    {"q": tensor(3, (3, 8), ">f2"), "k": tensor(5, (5, 8), ">f8"), "v": np.asfortranarray(tensor(7, (5, 8), ">f8"))},
)
save("big_endian_scales", scaled(q_scale=np.array(0.5, ">f4"), k_scale=np.array(1, ">i8"), v_scale=np.array(0.125, ">f2")))
save("compressed", qkv((2, 3, 8), (2, 5, 8)), np.savez_compressed)
save("compressed_int8", scaled(), np.savez_compressed)
save("mask", qkv((2, 2, 3, 8), (2, 2, 5, 8)) | {"mask": np.arange(10).reshape(2, 1, 1, 5) % 3 == 0})
save("mask_compressed", qkv() | {"mask": np.asfortranarray(np.arange(15).reshape(3, 5) % 3 == 0)}, np.savez_compressed)
save("other_arrays", qkv() | {"note": np.array(["a", "b"]), "x": np.zeros(3)})
save_members("versions", {f"{n}.npy": npy_of(a, v) for (n, a), v in zip(qkv().items(), [(1, 0), (2, 0), (3, 0)])})

# Bad: not an archive, or not of these arrays.
np.save(HERE / "bad_single.npy", tensor(3, (1, 8), "f4"))
save_members("bad_empty_archive", {})
save("bad_no_value", {"q": np.zeros((1, 8)), "k": np.zeros((1, 8)), "values": np.zeros(1)})
save("bad_positional", {"arr_0": np.zeros((1, 8)), "arr_1": np.zeros((1, 8)), "arr_2": np.zeros((1, 8))})
save_members("bad_names", {f"line\n{i:02}.npy": b"" for i in range(12)})
# Bad: dtypes.
for name, value in {
    "int32": np.zeros((1, 8), "i4"),
    "uint8": np.zeros((1, 8), "u1"),
    "complex": np.zeros((1, 8), "c8"),
    "bool": np.zeros((1, 8), "?"),
    "object": np.full((1, 8), None),
    "string": np.full((1, 8), "ab"),
    "structured": np.zeros((1, 8), [("a", "f4"), ("b", "i2", (2,))]),
    "longdouble": np.zeros((1, 8), "g"),
    "void": np.zeros((1, 8), "V2"),
}.items():
    save(f"bad_dtype_{name}", qkv((1, 8), (1, 8)) | {"k": value})
save("bad_mixed", qkv((1, 8), (1, 8)) | {"v": tensor(7, (1, 8), "i1")})
# Bad: shapes.
save("bad_0d", qkv((1, 8), (1, 8)) | {"q": np.float32(1)})
save("bad_1d", qkv((8,), (1, 8)))
save("bad_no_keys", qkv((1, 8), (0, 8)))
save("bad_key_value", qkv((1, 8), (2, 8)) | {"v": tensor(7, (3, 8), "f4")})
save("bad_d", qkv((1, 8), (1, 16)))
save("bad_heads", qkv((4, 1, 8), (3, 1, 8), "f2"))
save("bad_batch", qkv((2, 4, 1, 8), (4, 2, 1, 8), "f2"))
save("bad_batch_missing", qkv((2, 4, 1, 8), (4, 1, 8), "f2"))
save("bad_more_kv_heads", qkv((1, 8), (2, 1, 8), "f2"))
# Bad: numbers.
save("bad_nan", one("q", (1, 3), np.nan))
save("bad_infinity", one("v", (4, 7), -np.inf, "f2"))
save("bad_overflow", one("k", (2, 0), 1e39, "f8"))
save("bad_nan_fortran", {name: np.asfortranarray(array) for name, array in one("q", (1, 3), np.nan).items()})
# Bad: masks.
save("bad_mask_dtype", qkv() | {"mask": np.ones((3, 5), "i8")})
save("bad_mask_shape", qkv() | {"mask": np.ones((5, 3), bool)})
save("bad_mask_transposed_heads", qkv((4, 2, 3, 8), (4, 2, 5, 8)) | {"mask": np.ones((2, 4, 3, 5), bool)})
save("bad_mask_dimensions", qkv() | {"mask": np.ones((1, 1, 1, 3, 5), bool)})
save("bad_mask_empty", qkv() | {"mask": np.ones((0, 5), bool)})
# Bad: scales.
save("bad_scale_missing", qkv(dtype="i1") | {"q_scale": 0.5, "v_scale": 0.5})
save("bad_scale_of_float", qkv() | {"k_scale": 0.5})
save("bad_scale_count", scaled((2, 3, 8), (2, 5, 8), k_scale=[0.5, 0.25, 0.125]))
save("bad_scale_kv_count", scaled((4, 3, 8), (2, 5, 8), v_scale=[0.5, 0.25, 0.125, 1]))
save("bad_scale_dtype", scaled(q_scale="0.5"))
save("bad_scale_empty", scaled(q_scale=np.zeros(0)))
save("bad_scale_zero", scaled(k_scale=0.0))
save("bad_scale_negative", scaled((2, 3, 8), (2, 5, 8), k_scale=[1.0, -0.5]))
save("bad_scale_nan", scaled(v_scale=np.float16(np.nan)))
save("bad_scale_infinity", scaled(q_scale=np.float32([np.inf])))
save("bad_scale_underflow", scaled(q_scale=1e-50))
save("bad_scale_overflow", scaled(q_scale=1e50))
# Bad: members that numpy would not write.
HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n"
save_members("bad_member_empty", members(q=b""))
save_members("bad_member_text", members(q=b"1 2 3 4 5 6 7 8\n"))
save_members("bad_member_version", members(q=npy(HEADER % "1, 8", bytes(32), b"\x09\x00")))
save_members("bad_member_header_cut", members(q=npy(HEADER % "1, 8")[:40]))
save_members("bad_member_header", members(q=npy("{'descr': '<f4', 'shape': (1, 8)}\n", bytes(32))))
save_members("bad_member_negative", members(q=npy(HEADER % "-1, 8", bytes(32))))
save_members("bad_member_short", members(q=npy(HEADER % "1, 8", bytes(31))))
save_members("bad_member_long", members(q=npy(HEADER % "1, 8", bytes(36))))
save_members("bad_member_huge", members(q=npy(HEADER % "1099511627776, 8", bytes(32))))
save_members("bad_member_overflow", members(q=npy(HEADER % "4611686018427387904, 4, 4", bytes(32))))
save_members("bad_member_beyond_u64", members(q=npy(HEADER % "99999999999999999999, 8", bytes(32))))
save_members("bad_member_header_length", members(q=b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(32)))
save_members("bad_member_brackets", members(q=npy("[" * 9000)))
