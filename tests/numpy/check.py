"""Compares numpy's output bits with the snapshots of the Rust tests and the vectors of attn-fixed: python tests/numpy/check.py

Exit status 1 if one is missing or differs.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from model import attention, exp2, quantise

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "src" / "suite" / "data"
SNAPSHOTS = ROOT / "tests" / "snapshots"
VECTORS = ROOT / "crates" / "attn-fixed" / "vectors"


def quantise_acceptance(x):
    """The acceptance tile's own rule: x · 127 / absmax in float32, truncated toward zero."""
    absmax = np.float32(np.abs(x).max())
    return np.trunc(x * np.float32(127) / absmax).astype(np.int8), absmax / np.float32(127)


def attend(tensors, quantiser, floats=False):
    (q, s_q), (k, s_k), (v, s_v) = map(quantiser, tensors)
    return attention(q, k, v, (s_q, s_k, s_v, s_v), floats=floats)


def outputs():
    acceptance = np.load(DATA / "acceptance.npz")
    yield "acceptance", attend([acceptance[x] for x in "qkv"], quantise_acceptance)
    whisper = np.load(DATA / "whisper.npz")
    layers = [whisper[x].astype(np.float32) for x in "qkv"]
    for layer in range(6):
        yield f"whisper_layer_{layer}", attend([x[layer, 640:704] for x in layers], quantise)
    yield "whisper_head_layer_3", attend([x[3] for x in layers], quantise)
    yield "acceptance_floats", attend([acceptance[x] for x in "qkv"], quantise, floats=True)
    yield "whisper_head_layer_3_floats", attend([x[3] for x in layers], quantise, floats=True)


def compare(name, out):
    if out.dtype == np.float32:  # the bits would take four times the room: a hash of them
        path = SNAPSHOTS / f"conformance__{name}.snap"
        if not path.exists():
            return "missing"
        return "equal" if f"\nfnv1a: {fnv1a(out.tobytes())}\n" in path.read_text() else "differs"
    path = SNAPSHOTS / f"conformance__{name}.snap.bin"
    if not path.exists():
        return "missing"
    expected = np.fromfile(path, np.int8)
    if expected.size != out.size:
        return f"differs: {expected.size} elements, numpy has {out.size}"
    unequal = np.count_nonzero(expected != out.ravel())
    return f"differs in {unequal} of {out.size}" if unequal else "equal"


def vector(name):
    with (VECTORS / f"{name}.csv").open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def numbers(tensor, rows, dim):
    x = (np.arange(rows * dim, dtype=np.uint32) + np.uint32(tensor << 24)) * np.uint32(0x9E3779B1)
    x = (x ^ x >> 15) * np.uint32(0x85EBCA77)
    return ((x ^ x >> 13) >> 24).astype(np.uint8).view(np.int8).reshape(rows, dim)


def fnv1a(data):
    hash = 0xCBF29CE484222325
    for byte in data:
        hash = (hash ^ byte) * 0x100000001B3 % 2**64
    return f"{hash:016x}"


def attention_hashes(case):
    """FNV-1a of the attention that a line of attention.csv describes, in int8 and in floats; the file says how."""
    integers = "dim queries keys shift first sinks height valid causal runs"
    dim, queries, keys, shift, first, sinks, height, valid, causal, runs = (int(case[x]) for x in integers.split())
    q, k, v = numbers(0, queries, dim) >> shift, numbers(1, keys, dim) >> shift, numbers(2, keys, dim)
    q[:, 0], k[:, 0] = 127, 0
    k[first : first + sinks, 0] = height
    i, j = np.ogrid[:queries, :keys]
    mask = (j < valid) & (j <= i + causal) & ((i + j) >> runs & 1 == 0)
    scales = [np.float32(case[x]) for x in ("query", "key", "value", "out")]
    outputs = (attention(q, k, v, scales, mask, floats=floats) for floats in (False, True))
    return [fnv1a(out.astype(out.dtype.newbyteorder("<")).tobytes()) for out in outputs]


def vectors():
    t = np.arange(2048)
    expected = [(int(line["distance"]), int(line["probability"])) for line in vector("exp2")]
    yield "exp2.csv", "equal" if expected == list(zip(t, exp2(t), strict=True)) else "differs"
    for n, case in enumerate(vector("attention"), 1):
        got = attention_hashes(case)
        equal = got == [case["fnv1a"], case["fnv1a_floats"]]
        yield f"attention.csv, case {n}", "equal" if equal else f"differs: numpy has {','.join(got)}"


def main():
    results = [(name, compare(name, out)) for name, out in outputs()] + list(vectors())
    for name, result in results:
        print(f"{name:28}{result}")
    sys.exit(any(result != "equal" for _, result in results))


if __name__ == "__main__":
    main()
