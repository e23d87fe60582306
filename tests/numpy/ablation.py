"""Prints the table of docs/arithmetic.md: what each choice of the arithmetic is worth: python tests/numpy/ablation.py

The truth is float64 attention over the same int8 numbers, the output scale is that of the truth.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # One process a core: numpy's own threads would only contend.

import numpy as np  # noqa: E402

from model import SPECIFICATION, attention, quantise  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "src" / "suite" / "data"
DIM = 64

VARIANTS = {
    "**specification**": {},
    "never split, 64 keys a block": {"split": False},
    "never split, 32 keys": {"split": False, "block": 32},
    "never split, 16 keys": {"split": False, "block": 16},
    "split, 32 keys a block": {"block": 32},
    "split, 16 keys": {"block": 16},
    "never split, 15 bits, 64 keys": {"split": False, "bits": 15},
    "split, 15 bits, 64 keys": {"bits": 15},
    "one running maximum": {"split": False, "running": True},
    "far from 2 octaves on": {"far": 2},
    "far from 6 octaves on": {"far": 6},
    "dominated below 4 per key": {"threshold": 4},
    "dominated below 12 per key": {"threshold": 12},
    "dominated below 34 per key": {"threshold": 34},
    "no rounding rule": {"parts": 0},
    "merge shift 6": {"merge_shift": 6},
    "fraction of 6 bits": {"fraction_bits": 6},
}


def aligned(rng, rows, keys, spread):
    """Queries with a common component of 4 along a direction to which all keys are orthogonal: a key at
    nats · √d / 4 along it is that many nats above the others' mean for every query."""
    u = rng.standard_normal(DIM)
    u /= np.linalg.norm(u)
    q, k = rng.standard_normal((rows, DIM)), rng.standard_normal((keys, DIM))
    q += np.outer(4 - q @ u, u)
    k = spread * (k - np.outer(k @ u, u))
    return q, k, u * np.sqrt(DIM) / 4


def sink(seed, rows, keys, nats, at, value=1.0, spread=1):
    rng = np.random.default_rng(seed)
    q, k, nat = aligned(rng, rows, keys, spread)
    v = rng.standard_normal((keys, DIM))
    k[at] = nats * nat
    v[at] *= value
    return q, k, v


def equal_sinks(seed, keys, count, nats, spread):
    rng = np.random.default_rng(seed)
    q, k, nat = aligned(rng, 32, keys, spread)
    k[3 : 3 + count] = nats * nat
    # Values of one sign where the keys are flattest: then errors of the probabilities do not cancel.
    return q, k, rng.standard_normal((keys, DIM)) + (spread < 0.1)


def normal(seed, keys):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((n, DIM)) for n in (min(keys, 256), keys, keys))


def cases():
    """Name, float q, k, v and, if not all keys are visible, which are."""
    whisper = np.load(DATA / "whisper.npz")
    for layer in range(6):
        yield f"Whisper head {layer}", [whisper[x][layer] for x in "qkv"], None
    for keys in (65, 500, 1500):
        yield f"normal, {keys} keys", normal(keys, keys), None
    for nats in (4, 6.75, 9, 11):
        for at in (0, 750, 1499):
            yield f"sink of {nats} nats at {at} of 1500", sink(at, 64, 1500, nats, at), None
    yield "sink of 14 nats, 65536 keys", sink(1, 32, 65536, 14, 0), None
    for nats in (6, 9):
        for at in (0, 750, 1499):
            yield f"near-zero sink of {nats} nats at {at} of 1500", sink(at, 64, 1500, nats, at, 0.02), None
    for value in (0, 0.02):
        for nats in (9, 10, 11):
            for keys in (64, 128, 300, 1500):
                for spread in (0.3, 1):
                    name = f"sink of {nats} nats and value × {value}, {keys} keys, spread {spread}"
                    yield name, sink(5, 32, keys, nats, 0, value, spread), None
    for keys, nats in ((128, 12), (300, 12), (1500, 12), (128, 13.86), (300, 13.86)):
        visible = np.ones(keys, bool)
        visible[1:64] = False  # the rest of the sink's block: only the merge can lose the other keys
        yield f"lone zero sink of {nats} nats, {keys} keys", sink(5, 64, keys, nats, 0, 0), visible
    for keys in (64, 128, 300):
        for count in range(1, 7):
            for nats in (5.5, 6.2, 6.4, 7, 8):
                for spread in (0.02, 0.3):
                    name = f"{count} × {nats} nats in one block, {keys} keys, spread {spread}"
                    yield name, equal_sinks(keys + count, keys, count, nats, spread), None


def truth(q, k, v, scales):
    s_q, s_k, s_v = (float(s) for s in scales)
    s = (q.astype(np.float64) @ k.astype(np.float64).T) * (s_q * s_k / np.sqrt(q.shape[1]))
    p = np.exp(s - s.max(axis=1, keepdims=True))
    return (p @ (v.astype(np.float64) * s_v)) / p.sum(axis=1, keepdims=True)


def prepare(tensors, visible):
    (q, k, v), scales = zip(*map(quantise, tensors))
    exact = truth(q, k[visible], v[visible], scales)
    scale = np.float32(np.abs(exact).max() / 127)
    return q, k, v, (*scales, scale), np.clip(np.rint(exact / scale), -128, 127).astype(np.int64)


def by_groups(row, full, groups):
    """Whether any row of each group of 16 splits this block."""
    flags = np.zeros(groups * 16, bool)
    flags[row] = full
    return flags.reshape(groups, 16).any(axis=1)


def measure(job):
    """Per variant, of one case: the shares within ±1, equal, of (row, block) and of (16 rows, block) split."""
    name, tensors, visible = job
    visible = np.ones(len(tensors[1]), bool) if visible is None else visible
    mask = np.broadcast_to(visible, (len(tensors[0]), len(visible)))
    q, k, v, scales, expected = prepare(tensors, visible)
    results = {}
    for variant, changes in VARIANTS.items():
        trace = []
        out = attention(q, k, v, scales, mask, replace(SPECIFICATION, **changes), trace)
        error = np.abs(out - expected)
        groups = -(-len(q) // 16)
        pairs = np.mean([full.mean() for _, full in trace])
        grouped = np.mean([by_groups(row, full, groups).mean() for row, full in trace])
        results[variant] = (error <= 1).mean(), (error == 0).mean(), pairs, grouped
    return name, results


def main():
    with ProcessPoolExecutor() as pool:
        measured = list(pool.map(measure, cases()))
    whisper = [results for name, results in measured if name.startswith("Whisper")]
    print(f"{len(measured)} cases; equal and within ±1 are shares of the outputs.\n")
    columns = "worst case within ±1", "cases below 99.9 %", "equal", "Whisper: equal"
    columns += "Whisper: (row, block) split", "(16 rows, block)"
    print("| | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for variant in VARIANTS:
        within, worst = min((results[variant][0], name) for name, results in measured)
        below = sum(results[variant][0] < 0.999 for _, results in measured)
        equal = np.mean([results[variant][1] for _, results in measured])
        whisper_equal, pairs, grouped = (np.mean([results[variant][i] for results in whisper]) for i in (1, 2, 3))
        cells = f"{within:.2%} ({worst})" if within < 1 else "100%", str(below)
        cells += f"{equal:.1%}", f"{whisper_equal:.1%}", f"{pairs:.1%}", f"{grouped:.1%}"
        print(f"| {variant} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
