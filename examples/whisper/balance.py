#!/usr/bin/env python3
"""What int8 costs attention, by how its channels are scaled: the table of docs/whisper.md, in numpy.

    balance.py CAPTURE.npz

CAPTURE.npz holds q, k and v, [layer, head, frame, channel], as `cargo xtask whisper ... --attention float --capture` writes it. Every
head is attended exactly, in float64, on tensors that are rounded to int8 by their largest magnitude and back; a row is a way to scale
them before. Printed is the error relative to the output of float attention, the mean of the heads, for each layer: with an output in
floats, and with one that is rounded to int8 by its largest magnitude.
"""

import sys

import numpy as np


def largest(x):
    return np.abs(x).max(axis=0)


def int8(x):
    step = np.abs(x).max() / 127
    return np.rint(x / step) * step


def in_blocks(x, rows):
    return np.concatenate([int8(x[i : i + rows]) for i in range(0, len(x), rows)])


def attention(q, k, v):
    p = q @ k.T / np.sqrt(q.shape[1])
    p = np.exp(p - p.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True) @ v


def hadamard(n):
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(n)


def equal_covariance(q, k):
    """Factors of query and key, the inverse transposes of each other, with which both have the same covariance."""
    root = np.linalg.cholesky(q.T @ q)
    values, vectors = np.linalg.eigh(root.T @ (k.T @ k) @ root)
    # Rounding makes the smallest ones negative.
    of_q = np.linalg.inv(root.T) @ vectors * np.maximum(values, 1e-9 * values[-1]) ** 0.25
    return of_q, np.linalg.inv(of_q).T


def power_of_two(x):
    return 2.0 ** np.rint(np.log2(x))


def ways(q, k, v, out):
    """(name, query, key, value, factor of the output), the first three in int8."""
    d, g = np.sqrt(largest(k) / largest(q)), np.sqrt(largest(v) * largest(out))
    yield "as they are", int8(q), int8(k), int8(v), 1
    yield "balanced", int8(q * d), int8(k / d), int8(v / g), g
    d2, g2 = power_of_two(d), power_of_two(g)
    yield "balanced, factors rounded to powers of two", int8(q * d2), int8(k / d2), int8(v / g2), g2
    yield "balanced, values by their own largest", int8(q * d), int8(k / d), int8(v / largest(v)), largest(v)
    yield "balanced, queries by the 50 rows", in_blocks(q * d, 50), int8(k / d), int8(v / g), g
    h = hadamard(q.shape[1])
    yield "balanced, queries and keys rotated", int8(q * d @ h), int8(k / d @ h), int8(v / g), g
    of_q, of_k = equal_covariance(q, k - k.mean(axis=0))
    centred = (k - k.mean(axis=0)) @ of_k @ h
    yield "the same, of equal covariance before", int8(q @ of_q @ h), int8(centred), int8(v / g), g


def main(path):
    with np.load(path) as data:
        q, k, v = (data[name].astype(np.float64) for name in "qkv")
    errors = {}
    for layer, head in np.ndindex(q.shape[:2]):
        tensors = q[layer, head], k[layer, head], v[layer, head]
        out = attention(*tensors)
        for name, *quantised, factor in ways(*tensors, out):
            got = attention(*quantised)
            for form, got in (("float out", got), ("int8 out", int8(got))):
                error = np.linalg.norm(got * factor - out) / np.linalg.norm(out)
                errors.setdefault((form, name), np.zeros(q.shape[:2]))[layer, head] = error
    for (form, name), error in sorted(errors.items(), key=lambda item: item[0][0]):
        print(f"{form:<9} {name:<44}", *(f"{mean:.4f}" for mean in error.mean(axis=1)))


if len(sys.argv) != 2:
    sys.exit(__doc__)
main(sys.argv[1])
