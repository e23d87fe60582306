"""Integer attention in numpy, written from docs/arithmetic.md alone: an independent check of crates/attn-fixed.

Every array is int64, and `i32` / `u32` assert that what the page computes in 32 bits fits them.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rules:
    """The constants of the arithmetic that ablation.py varies; the defaults are the specification."""

    block: int = 64  # keys a block
    precision: str = "rule"  # "rule"; "8" or "15": that many bits in every block
    threshold: int = 17  # full precision where the block's 8-bit probabilities sum to less than this per key
    bias: int = 2  # ... or where this times the roundings' sum exceeds that sum; 0: never
    merge_shift: int = 1  # what a block at the row's reference is shifted down by: guard bits above, none below
    fraction_bits: int = 9
    running: bool = False  # distances from the maximum of the row so far, not from that of the block


SPECIFICATION = Rules()


@dataclass(frozen=True)
class Parameters:
    """What the page computes once per head."""

    c: int
    sh: int
    G: int
    ge: int


def i32(x):
    assert np.all((np.asarray(x) >= -(2**31)) & (np.asarray(x) < 2**31)), "does not fit int32"
    return x


def u32(x):
    assert np.all((np.asarray(x) >= 0) & (np.asarray(x) < 2**32)), "does not fit uint32"
    return x


def rsh(x, n, width=i32):
    """x / 2^n, rounded half up; `width` checks the sum before the shift."""
    return width(x + ((1 << np.asarray(n, np.int64)) >> 1)) >> n


def mulhrs(a, b):
    return i32(a * b + (1 << 14)) >> 15


def dot(a, b):
    """Exact integer product of matrices: every partial sum is far below 2^53."""
    return i32((a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64))


def floor_log2(x):
    return math.frexp(x)[1] - 1


def round_half_up(x):
    return math.floor(x) + (x - math.floor(x) >= 0.5)


def parameters(dim, scales):
    s_q, s_k, s_v, s_o = (float(np.float32(s)) for s in scales)
    scale, gain = s_q * s_k, s_v / s_o
    if scale * math.sqrt(dim) > 32 or not 2.0**-16 <= gain <= 2.0**16:
        raise ValueError("scales out of range")
    steps = scale * math.log2(math.e) / math.sqrt(dim) * 2.0**11
    sh = min(-floor_log2(steps) - 1, 24) if steps > 0 else 24
    ge = floor_log2(gain) + 1
    c = min(round_half_up(steps * 2.0 ** (sh + 16)), 65535)
    return Parameters(c, sh, min(round_half_up(gain * 2.0 ** (16 - ge)), 65535), ge)


def exp2(t):
    x = (t & 2047) << 4
    y = 32640 - mulhrs(x, 22579 - mulhrs(x, 7562 - mulhrs(x, 1305)))
    return y >> (t >> 11)


def quantise(x):
    """Symmetric int8 per tensor, in float32: x / scale rounded half to even, scale = absmax / 127."""
    x = np.asarray(x, np.float32)
    scale = np.float32(np.abs(x).max()) / np.float32(127)
    scale = scale if scale > 0 else np.float32(1)
    return np.clip(np.rint(x / scale), -127, 127).astype(np.int8), scale


def attention(q, k, v, scales, mask=None, rules=SPECIFICATION, trace=None):
    """int8 [m, d], [n, d], [n, d]; scales of q, k, v, output; mask [m, n], true where visible -> int8 [m, d].

    `trace`, a list, receives (rows, their full-precision flags) of every block.
    """
    (rows, dim), keys = q.shape, k.shape[0]
    assert q.dtype == k.dtype == v.dtype == np.int8 and 8 <= dim <= 256
    head = parameters(dim, scales)
    c, sh = head.c, head.sh
    mask = np.ones((rows, keys), bool) if mask is None else mask
    R = np.full(rows, -(1 << 24))
    total = np.zeros(rows, np.int64)
    acc = np.zeros((rows, dim), np.int64)
    top = np.full(rows, -(1 << 31))
    for first in range(0, keys, rules.block):
        block = slice(first, min(first + rules.block, keys))
        row = np.flatnonzero(mask[:, block].any(axis=1))  # the others see none of the block and skip it
        if row.size == 0:
            continue
        visible = mask[row, block]
        s = dot(q[row], k[block].T)

        # The block: probabilities below its own maximum, exponent and fraction of that maximum.
        m = np.where(visible, s, -(1 << 31)).max(axis=1)
        if rules.running:
            m = top[row] = np.maximum(m, top[row])
        below = np.where(visible, m[:, None] - s, 0)
        t = np.minimum(u32(np.minimum(i32(below) >> max(sh, 0), 65535) * c) >> (16 + min(sh, 0)), 65535)
        p = np.where(visible, exp2(t), 0)
        T = i32((m * c + (1 << (sh + 15))) >> (sh + 16))
        e = i32(T + 2047) >> 11
        coarser = 15 - rules.fraction_bits
        f = rsh(exp2(i32(e << 11) - T), coarser) << (coarser - 6)  # always on the scale of 9 bits

        # The merge: the reference rises to the exponent or with the sum, both sides are shifted to it.
        raised = np.maximum(e, R[row] + (total[row] >> 29))
        p8 = (p + 64) >> 7
        sum_p, sum_p8 = p.sum(axis=1), p8.sum(axis=1)
        full = (sum_p8 < rules.threshold * rules.block) | (rules.bias * np.abs(sum_p - 128 * sum_p8) > sum_p8)
        full = full & (e >= raised) if rules.precision == "rule" else np.full(len(row), rules.precision == "15")
        if trace is not None:
            trace.append((row, full))
        p = np.where(full[:, None], p, 128 * p8)
        x = rsh(dot(p, v[block]), 7)
        b = rules.merge_shift + np.minimum(raised - e, 31 - rules.merge_shift)
        a = np.minimum(raised - R[row], 31)
        acc[row] = i32(rsh(acc[row], a[:, None]) + rsh(i32(x * f[:, None]), b[:, None]))
        total[row] = i32(rsh(total[row], a) + rsh(i32(p.sum(axis=1) * f), b))
        R[row] = raised

    # The end of a row: one reciprocal, one multiplier, two roundings.
    out = np.zeros((rows, dim), np.int64)
    row = np.flatnonzero(mask.any(axis=1))
    total = total[row]
    exponent = np.frexp(total.astype(np.float64))[1].astype(np.int64) - 1  # floor(log2), exact below 2^53
    r = np.minimum((1 << 31) // (total >> (exponent - 15)), 65535)
    w = np.minimum(rsh(u32(r * head.G), 17, u32), 32767)
    S = exponent + 8 - head.ge
    n1 = np.maximum(S - 21, 0)
    narrow = np.clip(rsh(acc[row], n1[:, None]), -(1 << 15), (1 << 15) - 1)
    out[row] = np.clip(rsh(i32(narrow * w[:, None]), (S - n1)[:, None]), -128, 127)
    return out.astype(np.int8)
