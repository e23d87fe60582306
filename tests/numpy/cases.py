"""Attention at random, and what numpy's model of the arithmetic makes of it: in_process.py asks every backend the same.

A case is drawn from its number. What is rare among random numbers is not rare here: sinks, ties, flat and peaked softmax,
outputs that saturate, masks that end at the edge of a block, scales that are refused. What hangs on a single value of one
rule is too rare all the same: `edges` has such cases.
"""

import itertools
import math
from dataclasses import dataclass
from unittest import mock

import numpy as np

import model

WORK = 1_500_000  # heads · queries · keys · dim, at most: the model of the NPU's instructions is slow
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Case:
    number: object  # or the name of an edge
    kinds: list  # what it was drawn as, and what came of it
    tensors: list  # q, k, v: int8, or float32, which are quantised
    scales: dict  # as NPUAttention takes them; none for float32
    masks: dict
    expected: object  # an array, or part of the message where it is refused

    def __str__(self):
        q, k, _ = self.tensors
        masks = {name: list(x.shape) if name == "mask" else x for name, x in self.masks.items()}
        scales = {name: x.ravel().tolist() for name, x in self.scales.items()}
        return f"{self.number}: {q.dtype} {list(q.shape)} on {list(k.shape)}, {', '.join(self.kinds)}; {masks}; {scales}"


class Draw(np.random.RandomState):
    """Random numbers, the same with every version of numpy."""

    def one(self, *choices):
        return choices[self.randint(len(choices))]

    def power(self, low, high, size=None):
        """Powers of two, uniform in their logarithm."""
        return 2.0 ** self.uniform(low, high, size)

    def keys(self, most):
        """A number of keys up to `most`, half of the time one near the edge of a block."""
        edge = abs(64 * self.randint(most // 64 + 2) + self.randint(-2, 3))
        return self.one(self.randint(most + 1), min(edge, most))


def case(number):
    draw = Draw(number)
    dim = draw.one(8, 16, 64, 256, draw.randint(8, 65), draw.randint(8, 257))
    edge = 64 * draw.randint(1, 5) + draw.randint(-1, 2)
    keys = draw.one(*5 * [draw.randint(1, 65)], *5 * [edge], *4 * [draw.randint(1, 300)], draw.randint(500, 3000))
    queries = draw.one(1, draw.randint(1, 6), draw.randint(1, 40), draw.randint(60, 70), draw.randint(125, 140))
    batch, kv_heads, group = draw.one((), (), (2,)), draw.randint(1, 3), draw.randint(1, 4)
    if math.prod(batch) * kv_heads * group * queries * keys * dim > WORK and draw.rand() < 0.7:
        batch, kv_heads, group = (), 1, 1  # fewer heads, otherwise fewer queries
    kv = math.prod(batch) * kv_heads
    heads = kv * group
    queries = min(queries, max(WORK // (heads * keys * dim), 1))

    kinds, tensors = zip(*(elements(draw, *shape, dim) for shape in ((heads, queries), (kv, keys), (kv, keys))))
    shapes = (sinks, 0.4), (ties, 0.3), (opposites, 0.15)
    kinds = [*kinds, *(shape(draw, *tensors) for shape, often in shapes if draw.rand() < often)]
    masks, seen = masks_of(draw, heads, queries, keys)
    floats = draw.rand() < 0.4
    steepness, s_q, s_k = score_scales(draw, *tensors[:2])
    gain, s_v, s_o = value_scales(draw, heads, kv, floats)
    kinds += [steepness, gain]
    scales = {"q_scale": s_q, "k_scale": s_k, "v_scale": s_v, "out_scale": s_o}
    if floats:
        tensors = [as_floats(draw, x, scale) for x, scale in zip(tensors, (s_q, s_k, s_v))]
        scales = {}
    try:
        expected = modelled(*tensors, scales, seen, kinds)
    except AssertionError as error:
        raise AssertionError(f"random case {number}: {', '.join(kinds)}") from error

    def shaped(x, n):
        x = x.reshape(*batch, n, *x.shape[1:])
        return np.asfortranarray(x) if draw.rand() < 0.2 else x

    tensors = [shaped(x, n) for x, n in zip(tensors, (kv_heads * group, kv_heads, kv_heads))]
    scales = {name: shaped(x, len(x) // math.prod(batch)) for name, x in scales.items()}
    if "mask" in masks:
        mask = masks["mask"]
        masks["mask"] = mask.reshape(*batch, -1, *mask.shape[1:]) if len(mask) > 1 else mask[0]
    if not isinstance(expected, str):
        expected = expected.reshape(tensors[0].shape)
    return Case(number, kinds, tensors, scales, masks, expected)


def modelled(q, k, v, scales, seen, kinds):
    """The output, [heads, queries, dim], or why there is none; what is rare becomes one of the kinds."""
    group, trace, out = len(q) // len(k), [], []
    floats = q.dtype == np.float32
    try:
        for h in range(len(q)):
            tensors = q[h], k[h // group], v[h // group]
            if floats:
                tensors, (s_q, s_k, s_v) = zip(*map(model.quantise, tensors))
                of_head = s_q, s_k, s_v, s_v
            else:
                of_head = [scale[h * len(scale) // len(q)] for scale in scales.values()]
            out.append(model.attention(*tensors, of_head, seen[h], trace=trace, floats=floats))
    except ValueError as error:
        return str(error)
    out = np.array(out)
    kinds += ["split"] if any(split.any() for _, split in trace) else []
    kinds += ["saturated"] if not floats and np.any((out == 127) | (out == -128)) else []
    return out


def elements(draw, heads, rows, dim):
    """int8 [heads, rows, dim], and what they are."""
    shape = heads, rows, dim
    some = draw.one(-128, 127, draw.randint(-128, 128), draw.randint(-1, 2))
    name, x = draw.one(
        *3 * [("uniform", draw.randint(-128, 128, shape))],
        *3 * [("normal", draw.standard_normal(shape) * draw.power(1, 6))],
        ("small", draw.randint(-2, 3, shape)),
        ("extreme", np.where(draw.rand(*shape) < draw.rand(), -128, 127)),
        ("sparse", np.where(draw.rand(*shape) < 0.05, some, 0)),
        ("constant", np.full(shape, some)),
    )
    return name, np.clip(np.rint(x), -128, 127).astype(np.int8)


def sinks(draw, q, k, v):
    """Keys of any height above the others for some of the queries, alone in their columns, with small values.

    They are a few, or a plateau that ends near the edge of a block, say.
    """
    keys, columns = k.shape[1], draw.randint(1, 5)
    k >>= draw.randint(0, 8)
    q[..., :columns] = np.where(draw.rand(q.shape[1], 1) < draw.one(1, 0.7, 0.1), 127, draw.randint(-2, 3))
    k[..., :columns] = 0
    at = draw.one(np.arange(keys), draw.permutation(keys))[: draw.one(draw.randint(1, 9), draw.keys(keys))]
    k[:, at, :columns] = draw.one(draw.randint(1, 128), draw.randint(1, 128, (len(at), 1)))
    v[:, at] >>= draw.randint(0, 8)
    return "sinks"


def ties(draw, q, k, v):
    """Keys that are equal."""
    k[:] = k[:, draw.randint(min(k.shape[1], 4), size=k.shape[1])]
    return "ties"


def opposites(draw, q, k, _):
    """Rows as large as they may be, of either sign: so are the differences of scores."""
    for x in q, k:
        x[:] = np.where(draw.rand(*x.shape[:2], 1) < draw.rand(), -128, 127)
    return "opposites"


def score_scales(draw, q, k):
    """Scales of [heads] queries and [kv] keys: from scores that are all the same to those of which one is all there is."""
    dim, group = q.shape[2], len(q) // len(k)
    largest = 32 / math.sqrt(dim)
    scores = np.abs(q[0].astype(np.int64) @ k[0].astype(np.int64).T).max()
    octave = math.sqrt(dim) * math.log(2) / max(scores, 1)  # the largest score is one
    name, scale = draw.one(
        ("flat", octave * draw.power(-8, 1)),
        *6 * [("moderate", octave * draw.power(1, 5))],
        ("peaked", octave * draw.power(5, 10)),
        ("any steepness", largest * draw.power(-40, 0)),
        *2 * [("steepest", largest * draw.one(1, draw.power(-1, 0)))],
        ("vanishing", draw.power(-298, -100)),
    )
    middle = math.log2(scale) / 2 if name == "vanishing" else 0
    s_k = draw.power(middle - 20, middle + 20, len(k))
    s_k = np.exp2(np.rint(np.log2(s_k))) if draw.rand() < 0.5 else s_k
    s_q = np.repeat(min(scale, largest) / s_k, group) * np.where(draw.rand(len(q)) < 0.5, draw.power(-1, 0, len(q)), 1)
    if draw.rand() < 0.03:
        name, s_q = "too steep", np.repeat(largest * draw.power(0, 20) / s_k, group)
    return name, float32(s_q), float32(s_k)


def value_scales(draw, heads, kv, floats):
    """Scales of [kv] values and [heads] outputs."""
    name, gain = draw.one(
        *8 * [("moderate gain", draw.power(-3, 8, heads))],
        ("any gain", draw.power(-16, 16, heads)),
        ("largest gain", 2.0**16),
        ("smallest gain", 2.0**-16),
    )
    s_v = draw.power(*draw.one((-3, 3), (-100, 100)), kv)
    if floats:  # those of the outputs are of no use, and values may be as small and as large as floats are
        name, s_v = "", draw.one(s_v, draw.power(-149, 120, kv), np.full(kv, LARGEST / 64))
    elif draw.rand() < 0.03:
        name, gain = "gain out of range", draw.one(draw.power(16, 20), draw.power(-20, -16))
    return name, float32(s_v), float32(np.repeat(float32(s_v).astype(float), heads // kv) / gain)


def float32(x):
    """Rounded, positive and finite."""
    return np.clip(x, 2.0**-149, LARGEST).astype(np.float32)


def as_floats(draw, x, scale):
    """What is quantised as int8, some of it to the nearest, and half steps, to the nearest even."""
    steps = draw.one(0, 0.5 * draw.randint(-1, 2, x.shape), draw.uniform(-0.5, 0.5, x.shape))
    return np.clip((x + steps) * scale.astype(float)[:, None, None], -LARGEST, LARGEST).astype(np.float32)


def masks_of(draw, heads, queries, keys):
    """Masks as NPUAttention takes them, and what is seen, [heads, queries, keys]."""
    masks, seen = {}, np.ones((heads, queries, keys), bool)
    i, j = np.ogrid[:queries, :keys]
    if draw.rand() < 0.4:
        masks["valid_keys"] = draw.keys(keys)
        seen &= j < masks["valid_keys"]
    if draw.rand() < 0.4:
        masks["causal"] = draw.one(0, draw.keys(keys), draw.keys(keys), 1 << 40)
        seen &= j <= i + masks["causal"]
    if draw.rand() < 0.3:  # the kernels refuse them
        # Each dimension may be 1, and then holds for all.
        shape = [draw.one(1, n, n, n) for n in (heads, queries, keys)]
        blocks = draw.rand(*shape[:2], -(-keys // 64)) < draw.one(0.3, 0.8, 1)
        mask = draw.rand(*shape) < draw.one(0.1, 0.5, 0.98, 1)
        mask &= np.repeat(blocks, 64, axis=2)[..., : shape[2]]
        if draw.rand() < 0.2:  # a window
            mask &= (np.abs(j - draw.keys(keys)) < draw.randint(1, 66))[:, : shape[2]]
        masks["mask"] = mask
        seen &= mask
    return masks, seen


def edges():
    """Cases that hang on one value of one rule: a rule that differs there alone gives another output."""
    raised, far, parameters = model.Rows.raised, model.Rows.far, model.parameters

    def raised_beyond(rows, row, e):
        return raised(mock.Mock(R=rows.R, sum=rows.sum - 1), row, e)

    def far_at_equality(rows, *block):
        rows.rules = model.Rules(parts=256.001)
        return far(rows, *block)

    def parameters_of_float32(dim, scales):
        return parameters(dim, (*scales[:2], np.float32(scales[2] / scales[3]), 1))

    rules = (
        ("sum of exactly 2^29", full_sum, mock.patch.object(model.Rows, "raised", raised_beyond)),
        ("rounding of exactly one part in 256", biased, mock.patch.object(model.Rows, "far", far_at_equality)),
        ("gain that float32 rounds up", fine_gain, mock.patch.object(model, "parameters", parameters_of_float32)),
    )
    # Backends have ways of their own for one query.
    for (name, drawn, otherwise), queries in itertools.product(rules, (1, 5)):
        for number in itertools.count():
            (q, k, v), scales = drawn(Draw(number), queries)
            scales = float32(scales)
            expected = model.attention(q, k, v, scales)
            with otherwise:
                other = model.attention(q, k, v, scales)
            if np.any(other != expected):
                break
        scales = dict(zip(("q_scale", "k_scale", "v_scale", "out_scale"), scales[:, None]))
        yield Case(name, [f"drawn {number}"], [q[None], k[None], v[None]], scales, {}, expected[None])


def full_sum(draw, queries):
    """Eight distance steps a score unit. Of three blocks the sums, probability times fraction, are 2^23, which 6 bits follow."""
    blocks = (3, [255] * 63 + [63]), (1, [255] * 63 + [128]), (1, [255, 129])  # the fractions are 257, 256 and 256
    distances = {int(model.rounded_power(model.exp2(8 * t))): t for t in range(600)}
    scores = [top - distances[p] for top, block in blocks for p in block]
    # Keys so far away that nothing is left of them, which are absorbed last.
    q, k = tensors_of_scores(queries, [*scores, *[-40 * 256] * 3], 256)
    # Steps a little larger than 8 have the multiplier of 8, and those a little smaller would not.
    scale = 8 * (1 + 2**-22) * math.sqrt(256) * math.log(2) / 2**11
    return (q, k, draw.randint(-1, 2, k.shape).astype(np.int8)), (scale, 1, 1, 2.0**-16)


def biased(draw, queries):
    """A distance step a score unit, and keys whose rounding adds up: twice the error is the sum of the probabilities."""
    t = np.arange(5 * 2048)
    power = model.exp2(t)
    p = model.rounded_power(power)
    excess = 2 * (power - 128 * p) - p  # of the error over what is allowed
    some = np.flatnonzero((excess > -40) & (p > 16) & (p < 80))
    chosen = [0, *np.flatnonzero(p < 10)[draw.randint(500, size=3)], *draw.choice(some, 40)]
    while len(chosen) < 64:  # each brings the sum nearer to what it should be
        chosen.append(some[np.argmin(np.abs(excess[chosen].sum() + excess[some]))])
    q, k = tensors_of_scores(queries, -t[chosen], 64)
    scale = (1 + 2**-22) * math.sqrt(64) * math.log(2) / 2**11
    return (q, k, draw.randint(-128, 128, k.shape).astype(np.int8)), (scale, 1, 1, 2.0**-9)


def fine_gain(draw, queries):
    tensors = [draw.randint(-128, 128, (rows, 256)).astype(np.int8) for rows in (queries, 64, 64)]
    return tensors, (0.01, 0.01, draw.power(0, 1), draw.power(-2, -1))


def tensors_of_scores(queries, scores, dim):
    """Queries that are all the same, and a key for each score."""
    q, k = np.zeros((queries, dim), np.int8), np.zeros((len(scores), dim), np.int8)
    q[:, :2] = 1, -128
    k[:, 0], k[:, 1] = np.array(scores) & 127, -(np.array(scores) >> 7)
    return q, k
