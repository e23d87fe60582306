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
    split: bool = True  # dominated blocks are absorbed as two
    threshold: int = 17  # dominated: the block's probabilities sum to less than this per key
    parts: int = 256  # ... or rounding changes the sum by more than one part in this many; 0: never
    far: int = 4  # octaves below the maximum beyond which keys of a dominated block are absorbed apart
    bits: int = 8  # of a probability: 8 or 15
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
    if scale * math.sqrt(dim) > 32:
        raise ValueError("query scale x key scale x sqrt(dimension)")
    if not 2.0**-16 <= gain <= 2.0**16:
        raise ValueError("value scale / output scale")
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
    absmax = np.float32(np.abs(x).max())
    scale = max(absmax / np.float32(127), np.finfo(np.float32).tiny) if absmax > 0 else np.float32(1)
    return np.clip(np.rint(x / scale), -127, 127).astype(np.int8), scale


class Rows:
    """The running state of all rows."""

    def __init__(self, rows, dim, head, rules):
        self.head, self.rules = head, rules
        self.R = np.full(rows, -(1 << 24))
        self.sum = np.zeros(rows, np.int64)
        self.acc = np.zeros((rows, dim), np.int64)
        self.top = np.full(rows, -(1 << 31))

    def weigh(self, row, visible, s):
        """Powers below the maximum of the visible keys, exponent and fraction of that maximum."""
        c, sh = self.head.c, self.head.sh
        m = np.where(visible, s, -(1 << 31)).max(axis=1)
        if self.rules.running:
            m = self.top[row] = np.maximum(m, self.top[row])
        below = np.where(visible, m[:, None] - s, 0)
        t = np.minimum(u32(np.minimum(i32(below) >> max(sh, 0), 65535) * c) >> (16 + min(sh, 0)), 65535)
        T = i32((m * c + (1 << (sh + 15))) >> (sh + 16))
        e = i32(T + 2047) >> 11
        coarser = 15 - self.rules.fraction_bits
        f = rsh(exp2(i32(e << 11) - T), coarser) << (coarser - 6)  # always on the scale of 9 bits
        return np.where(visible, exp2(t), 0), e, f

    def raised(self, row, e):
        """The reference rises to the exponent or with the sum."""
        return np.maximum(e, self.R[row] + (self.sum[row] >> 29))

    def far(self, row, visible, y, e):
        """The keys of dominated blocks that are absorbed apart."""
        rules, exact, rounded = self.rules, y.sum(axis=1), rounded_power(y).sum(axis=1)
        dominated = rounded < rules.threshold * rules.block
        dominated |= rules.parts * np.abs(exact - 128 * rounded) > 128 * rounded
        dominated &= (e >= self.raised(row, e)) & rules.split
        return visible & (y < 32640 >> rules.far) & dominated[:, None]

    def merge(self, row, y, e, f, values):
        p = 128 * rounded_power(y) if self.rules.bits == 8 else y
        x = rsh(dot(p, values), 7)
        raised, shift = self.raised(row, e), self.rules.merge_shift
        b = shift + np.minimum(raised - e, 31 - shift)
        a = np.minimum(raised - self.R[row], 31)
        self.acc[row] = i32(rsh(self.acc[row], a[:, None]) + rsh(i32(x * f[:, None]), b[:, None]))
        self.sum[row] = i32(rsh(self.sum[row], a) + rsh(i32(p.sum(axis=1) * f), b))
        self.R[row] = raised


def rounded_power(y):
    return (y + 64) >> 7


def attention(q, k, v, scales, mask=None, rules=SPECIFICATION, trace=None, floats=False):
    """int8 [m, d], [n, d], [n, d]; scales of q, k, v, output; mask [m, n], true where visible -> int8 [m, d].

    `floats`: float32 instead, which the output scale has no part in.
    `trace`, a list, receives of every block the rows that see it and which of them absorbed it as two.
    """
    (rows, dim), keys = q.shape, k.shape[0]
    assert q.dtype == k.dtype == v.dtype == np.int8 and 8 <= dim <= 256
    head = parameters(dim, scales)
    mask = np.ones((rows, keys), bool) if mask is None else mask
    state = Rows(rows, dim, head, rules)
    for first in range(0, keys, rules.block):
        block = slice(first, min(first + rules.block, keys))
        row = np.flatnonzero(mask[:, block].any(axis=1))  # the others see none of the block and skip it
        if row.size == 0:
            continue
        visible = mask[row, block]
        s = dot(q[row], k[block].T)
        y, e, f = state.weigh(row, visible, s)
        far = state.far(row, visible, y, e)
        split = far.any(axis=1)
        if trace is not None:
            trace.append((row, split))
        state.merge(row, np.where(far, 0, y), e, f, v[block])  # the maximum is not far: the others keep their powers
        if split.any():
            again = row[split]
            y, e, f = state.weigh(again, far[split], s[split])
            state.merge(again, y, e, f, v[block])

    row = np.flatnonzero(mask.any(axis=1))
    total = state.sum[row]
    if floats:
        out = np.zeros((rows, dim), np.float32)
        reciprocal = np.float32(128) / total.astype(np.float32)
        largest = np.finfo(np.float32).max
        with np.errstate(over="ignore", under="ignore"):
            scaled = state.acc[row].astype(np.float32) * reciprocal[:, None] * np.float32(scales[2])
        out[row] = np.clip(scaled, -largest, largest)
        return out

    # The end of a row: one reciprocal, one multiplier, two roundings.
    out = np.zeros((rows, dim), np.int64)
    exponent = np.frexp(total.astype(np.float64))[1].astype(np.int64) - 1  # floor(log2), exact below 2^53
    r = np.minimum((1 << 31) // (total >> (exponent - 15)), 65535)
    w = rsh(u32(r * head.G), 17, u32)
    assert np.all(w < 1 << 15)
    S = exponent + 8 - head.ge
    n1 = np.maximum(S - 21, 0)
    narrow = np.clip(rsh(state.acc[row], n1[:, None]), -(1 << 15), (1 << 15) - 1)
    out[row] = np.clip(rsh(i32(narrow * w[:, None]), (S - n1)[:, None]), -128, 127)
    return out.astype(np.int8)
