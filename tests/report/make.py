#!/usr/bin/env python3
"""Makes heads.npz, what the pictures of a report are made of.

    make.py            -> heads.npz
    make.py --check    heads.npz is what this makes today (exit status 1 if not)

Int8 `q`, `k` and `v`, [3 heads, 64, 64], with scales of each head. The first two heads are noise. In the third one nearly all weight
goes to eight keys of one block whose values are zero, and the output is scaled to what is left: more than these integers can do.
"""

import pathlib
import sys

import numpy as np

FILE = pathlib.Path(__file__).parent / "heads.npz"


def heads():
    state = 1
    def noise():
        nonlocal state
        values = np.empty(64 * 64, np.int64)
        for i in range(values.size):
            state = (state * 1664525 + 1013904223) % 2**32
            values[i] = state >> 24
        return values.astype(np.uint8).view(np.int8).reshape(64, 64)

    q, k, v = (np.stack([noise() for _ in range(3)]) for _ in "qkv")
    sinks = slice(5, 13)
    q[2] = (q[2].astype(np.int64) // 32).astype(np.int8)
    q[2, :, 0] = 127
    k[2, :, 0] = 0
    k[2, sinks] = v[2, sinks] = 0
    k[2, sinks, 0] = 127
    one = np.ones(3, np.float32)
    # A sink scores 127 · 127 · scale / 8 = 4 nats.
    scales = np.array([0.001, 0.02, 4 * 8 / 127**2], np.float32)
    return {"q": q, "k": k, "v": v, "q_scale": one, "k_scale": scales, "v_scale": one}


def main(arguments):
    match arguments:
        case []:
            np.savez(FILE, **heads())
        case ["--check"]:
            with np.load(FILE) as committed:
                wrong = [name for name, array in heads().items() if not np.array_equal(committed[name], array)]
            if wrong:
                sys.exit(f"heads.npz: {', '.join(wrong)} differ from numpy {np.__version__}")
            print(f"heads.npz is what numpy {np.__version__} makes")
        case _:
            sys.exit(__doc__)


main(sys.argv[1:])
