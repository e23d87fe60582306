"""The acceptance test of the older kernel's users, on this library: acceptance.py --library target/release/libattn.so

numpy seed 42, three 64x64 `randn`, each truncated to int8 by its largest magnitude, and attention over them in int8; expected is
float attention on the floats, truncated in the same way: the float64 truth, and torch where Python has it. Called with the scales
of the data and of what is expected (the figures of `attn validate`), and with none, as the older kernel was. Then raw integers, of
which the output must reach both ends. Exit status 1 if a threshold is missed.
"""

import argparse
import sys

import numpy as np

from npu_attention import NPUAttention

DIM = 64


def softmax_attention(q, k, v):
    """In float64."""
    scores = q.astype(np.float64) @ k.T.astype(np.float64) / np.sqrt(DIM)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights @ v.astype(np.float64) / weights.sum(axis=1, keepdims=True)


def truths(q, k, v):
    yield "float64 truth", softmax_attention(q, k, v)
    try:
        import torch
    except ImportError:
        print("torch: Python has none, the float64 truth alone is compared with")
        return
    tensors = [torch.from_numpy(x)[None, None] for x in (q, k, v)]
    out = torch.nn.functional.scaled_dot_product_attention(*tensors)[0, 0].double().numpy()
    yield f"torch {torch.__version__}", out


def verdict(title, rows):
    """Prints `(what, got, limit, is it kept)` and returns whether all are."""
    print(title)
    for what, got, limit, kept in rows:
        print(f"  {what:<18}{got:<14}{limit:<18}{'ok' if kept else 'MISSED'}")
    return all(kept for *_, kept in rows)


def truncate(x):
    return (x * 127 / np.abs(x).max()).astype(np.int8)


def compare(title, out, truth):
    """The users' thresholds."""
    expected = truncate(truth).astype(np.int16)
    error = np.abs(out - expected)
    correlation = np.corrcoef(out.ravel(), expected.ravel())[0, 1]
    within_5 = np.mean(error <= 5)
    ends = [(int(x.min()), int(x.max())) for x in (out, expected)]
    is_full = all(abs(got - wanted) <= 5 for got, wanted in zip(*ends))
    return verdict(
        title,
        [
            ("correlation", f"{correlation:.5f}", "> 0.95", correlation > 0.95),
            ("mean abs. error", f"{error.mean():.3f}", "< 2.0", error.mean() < 2.0),
            ("within ±5", f"{100 * within_5:.2f} %", "> 95 %", within_5 > 0.95),
            ("range", "{} to {}".format(*ends[0]), "{} to {}, ±5".format(*ends[1]), is_full),
        ],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", help="libattn.so; if not given, the environment's ATTN_LIBRARY")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--xclbin")
    options = vars(parser.parse_args())

    np.random.seed(42)
    floats = [np.random.randn(64, DIM).astype(np.float32) for _ in "qkv"]
    Q_int8, K_int8, V_int8 = map(truncate, floats)
    scales = {f"{name}_scale": np.abs(x).max() / 127 for name, x in zip("qkv", floats)}

    bare = NPUAttention(**options)
    print(f"backend: {bare.backend}")
    passed = True
    for name, truth in truths(*floats):
        scaled = NPUAttention(**scales, out_scale=np.abs(truth).max() / 127, **options)
        passed &= compare(f"with scales, against {name}", scaled(Q_int8, K_int8, V_int8), truth)
        passed &= compare(f"with none, against {name}", bare(Q_int8, K_int8, V_int8), truth)

    raw = NPUAttention(q_scale=1, k_scale=1, v_scale=1, out_scale=1, **options)
    q, k, v = np.random.randint(-64, 64, (3, 64, DIM)).astype(np.int8)
    out = raw(q, k, v)
    within_1 = np.mean(np.abs(out - np.round(softmax_attention(q, k, v))) <= 1)
    passed &= verdict(
        "raw integers in [-64, 63], against the float64 truth",
        [
            ("within ±1", f"{100 * within_1:.2f} %", ">= 99.9 %", within_1 >= 0.999),
            ("range", f"{out.min()} to {out.max()}", "-64 to 63", (out.min(), out.max()) == (-64, 63)),
        ],
    )
    print("PASSED" if passed else "FAILED", f"on backend {bare.backend}")
    return not passed


if __name__ == "__main__":
    sys.exit(main())
