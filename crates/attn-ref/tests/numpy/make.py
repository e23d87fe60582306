#!/usr/bin/env python3
"""Writes attention.npz, the numpy results that the Rust truth and metrics are compared with.

    make.py            write attention.npz beside this script
    make.py --check    compute it anew and compare with the committed file; exit status 1 where they differ

Attention case NAME, all float64 unless stated:
    NAME.query [heads, m, d], NAME.key and NAME.value [kv_heads, n, d], NAME.scale [], NAME.expected [heads, m, d];
    the mask is NAME.valid_keys [] int64, NAME.causal [] int64 (query i sees keys j <= i + causal) and
    NAME.allowed [m, n] bool, each only where it applies.
Metrics case NAME: NAME.got [count], NAME.reference [count] and the figure NAME.FIGURE [] or, for ranges, [2].

Only numpy is needed. The random numbers are of `RandomState`, whose streams are frozen.
"""

import argparse
import pathlib
import sys

import numpy as np

FILE = pathlib.Path(__file__).with_name("attention.npz")
TOLERANCE = 1e-13  # REGENERATED in src/tolerance.rs; a test compares the two


def attention(query, key, value, scale, valid_keys=None, causal=None, allowed=None):
    """softmax(scale Q K^T) V, the textbook way: the whole matrix of scores of each head."""
    heads, m, _ = query.shape
    kv_heads, n, _ = key.shape
    visible = np.ones((m, n), bool)
    if valid_keys is not None:
        visible &= np.arange(n)[None, :] < valid_keys
    if causal is not None:
        visible &= np.arange(n)[None, :] <= np.arange(m)[:, None] + causal
    if allowed is not None:
        visible &= allowed
    out = np.zeros(query.shape)
    rows = visible.any(axis=1)
    for head in range(heads):
        kv_head = head // (heads // kv_heads)
        scores = np.where(visible, scale * (query[head] @ key[kv_head].T), -np.inf)[rows]
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[head, rows] = weights / weights.sum(axis=1, keepdims=True) @ value[kv_head]
    return out


def attention_cases(random):
    """The inputs of every attention case by name."""

    def normal(heads, kv_heads, m, n, d):
        return {
            "query": random.randn(heads, m, d),
            "key": random.randn(kv_heads, n, d),
            "value": random.randn(kv_heads, n, d),
            "scale": np.float64(1 / np.sqrt(d)),
        }

    cases = {
        "plain": normal(1, 1, 70, 37, 8),
        "grouped": normal(6, 2, 5, 11, 8),
        "valid_keys": normal(2, 2, 5, 40, 8) | {"valid_keys": np.int64(13)},
        "causal": normal(2, 2, 9, 15, 8) | {"causal": np.int64(4)},
        "causal_no_offset": normal(1, 1, 12, 7, 8) | {"causal": np.int64(0)},
    }

    # A boolean mask that hides all keys from one query, and from all queries a key whose score would be far the largest.
    boolean = normal(2, 1, 9, 21, 8)
    allowed = random.rand(9, 21) < 0.6
    allowed[4] = False
    allowed[:, 10] = False
    boolean["query"][:, :, 0] = 30.0
    boolean["key"][:, 10, 0] = 1000.0
    cases["boolean"] = boolean | {"allowed": allowed}

    combined = normal(4, 2, 8, 20, 8)
    allowed = random.rand(8, 20) < 0.7
    cases["combined"] = combined | {"allowed": allowed, "valid_keys": np.int64(14), "causal": np.int64(9)}

    # Scores of up to 2^14 16 / 4 nats, and below: exp() of them overflows, or is 0 throughout a row.
    integers = [random.randint(-128, 128, shape).astype(float) for shape in [(1, 12, 16), (1, 33, 16), (1, 33, 16)]]
    integers[0][0, 0], integers[1][0, :, :] = 127.0, np.where(integers[1] < 0, integers[1], -integers[1] - 1)[0]
    cases["extreme"] = dict(zip(["query", "key", "value"], integers)) | {"scale": np.float64(0.25)}
    return cases


def metrics(got, reference):
    """Every figure of the Rust `Metrics`, by numpy."""
    error = np.abs(got - reference)
    return {
        "correlation": np.corrcoef(got, reference)[0, 1],
        "mae": error.mean(),
        "rmse": np.sqrt(np.square(error).mean()),
        "equal": (error == 0).mean(),
        "within_1": (error <= 1).mean(),
        "within_5": (error <= 5).mean(),
        "max_error": error.max(),
        "got_range": np.array([got.min(), got.max()]),
        "expected_range": np.array([reference.min(), reference.max()]),
    }


def metrics_cases(random):
    """Outputs and references by name: integers, a real-valued reference, a mean far from zero."""
    integers = np.clip(np.rint(random.randn(700) * 40), -128, 127)
    noise = np.rint(random.randn(700) * 1.5)
    real = random.randn(500) * 30
    return {
        "metrics_integers": (np.clip(integers + noise, -128, 127), integers),
        "metrics_real": (np.clip(np.rint(real), -128, 127), real),
        "metrics_offset": (1e4 + real, 1e4 + real + random.randn(500)),
    }


def compute():
    """All arrays of the file by name."""
    random = np.random.RandomState(20)
    arrays = {}
    for name, case in attention_cases(random).items():
        for part, array in (case | {"expected": attention(**case)}).items():
            arrays[f"{name}.{part}"] = np.asarray(array)
    for name, (got, reference) in metrics_cases(random).items():
        for part, array in ({"got": got, "reference": reference} | metrics(got, reference)).items():
            arrays[f"{name}.{part}"] = np.asarray(array, np.float64)
    return arrays


def differences(fresh, stored):
    """What differs, a line each."""
    for name in sorted(fresh.keys() | stored.keys()):
        if name not in fresh or name not in stored:
            yield f"{name}: only in the {'new' if name in fresh else 'committed'} file"
            continue
        a, b = fresh[name], stored[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            yield f"{name}: {a.dtype}{a.shape} anew, {b.dtype}{b.shape} committed"
            continue
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            yield f"{name}: NaN or infinity"
            continue
        error = np.abs(a.astype(float) - b.astype(float)).max()
        if error > TOLERANCE:
            yield f"{name}: differs by {error:g}, accepted {TOLERANCE:g}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed file instead of writing it")
    check = parser.parse_args().check
    fresh = compute()
    if not check:
        np.savez_compressed(FILE, **fresh)
        return 0
    with np.load(FILE) as stored:
        lines = list(differences(fresh, dict(stored)))
    for line in lines:
        print(line, file=sys.stderr)
    if not lines:
        print(f"{FILE.name}: {len(fresh)} arrays as committed, numpy {np.__version__}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
