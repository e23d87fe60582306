"""Compares numpy's output bits with the snapshots of the Rust tests: python tests/numpy/check.py

Exit status 1 if a snapshot is missing or differs.
"""

import sys
from pathlib import Path

import numpy as np

from model import attention, quantise

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "src" / "suite" / "data"
SNAPSHOTS = ROOT / "tests" / "snapshots"


def quantise_acceptance(x):
    """The acceptance tile's own rule: x · 127 / absmax in float32, truncated toward zero."""
    absmax = np.float32(np.abs(x).max())
    return np.trunc(x * np.float32(127) / absmax).astype(np.int8), absmax / np.float32(127)


def attend(tensors, quantiser):
    (q, s_q), (k, s_k), (v, s_v) = map(quantiser, tensors)
    return attention(q, k, v, (s_q, s_k, s_v, s_v))


def outputs():
    acceptance = np.load(DATA / "acceptance.npz")
    yield "acceptance", attend([acceptance[x] for x in "qkv"], quantise_acceptance)
    whisper = np.load(DATA / "whisper.npz")
    layers = [whisper[x].astype(np.float32) for x in "qkv"]
    for layer in range(6):
        yield f"whisper_layer_{layer}", attend([x[layer, 640:704] for x in layers], quantise)
    yield "whisper_head_layer_3", attend([x[3] for x in layers], quantise)


def compare(name, out):
    path = SNAPSHOTS / f"conformance__{name}.snap.bin"
    if not path.exists():
        return "missing"
    expected = np.fromfile(path, np.int8)
    if expected.size != out.size:
        return f"differs: {expected.size} elements, numpy has {out.size}"
    unequal = np.count_nonzero(expected != out.ravel())
    return f"differs in {unequal} of {out.size}" if unequal else "equal"


def main():
    results = [(name, compare(name, out)) for name, out in outputs()]
    for name, result in results:
        print(f"{name:22}{result}")
    sys.exit(any(result != "equal" for _, result in results))


if __name__ == "__main__":
    main()
