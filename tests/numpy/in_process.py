"""The library of crates/attn-c called from Python (examples/python): python tests/numpy/in_process.py LIBRARY [CASE [COUNT]]

The output bits on every backend must be those of the snapshots of the Rust tests, and, in the cases of cases.py, those
of numpy's own model of the arithmetic; every error an exception with a message. Exit status 1 if anything differs.

CASE: only this random case, or COUNT of them from it on.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

import cases
import check
import model

sys.path.insert(0, str(check.ROOT / "examples" / "python"))
from npu_attention import AttnError, NPUAttention

LIBRARY = sys.argv[1] if 2 <= len(sys.argv) <= 4 else sys.exit(__doc__)
CASES = [int(x) for x in sys.argv[2:]]
RANDOM = np.random.RandomState(7)
BACKENDS = "auto", "scalar", "avx512-vnni", "avx512-bw", "avx-vnni", "avx2", "kernel", "aie2-model"


def snapshots(attend):
    """As check.outputs, but computed by the library; the output has the scale of the values."""

    def int8(tensors, quantiser):
        (q, s_q), (k, s_k), (v, s_v) = map(quantiser, tensors)
        return attend(q_scale=s_q, k_scale=s_k, v_scale=s_v, out_scale=s_v)(q, k, v)

    acceptance = np.load(check.DATA / "acceptance.npz")
    acceptance = [acceptance[x] for x in "qkv"]
    whisper = np.load(check.DATA / "whisper.npz")
    layers = [whisper[x].astype(np.float32) for x in "qkv"]
    yield "acceptance", int8(acceptance, check.quantise_acceptance)
    for layer in range(6):
        yield f"whisper_layer_{layer}", int8([x[layer, 640:704] for x in layers], model.quantise)
    yield "acceptance_floats", attend()(*acceptance)
    if attend.keywords["backend"] != "aie2-model":  # it takes a second
        yield "whisper_head_layer_3_floats", attend()(*(x[3] for x in layers))
    # All heads and scales in one call.
    tiles = [x[:, 640:704] for x in layers]
    quantised = [[model.quantise(tile) for tile in x] for x in tiles]
    q, k, v = (np.stack([tile for tile, _ in x]) for x in quantised)
    s_q, s_k, s_v = ([scale for _, scale in x] for x in quantised)
    out = attend(q_scale=s_q, k_scale=s_k, v_scale=s_v, out_scale=s_v)(q, k, v)
    for layer in range(6):
        yield f"whisper_layer_{layer}", out[layer]


def random(attend, boolean, drawn):
    """Runs every case; says which are not what numpy's model has, or are refused wrongly, or wrongly not refused."""
    equal, refused, wrong = 0, 0, []
    for case in drawn:
        refusals = [case.expected] if isinstance(case.expected, str) else []
        refusals += ["got a boolean mask"] if "mask" in case.masks and not boolean else []
        try:
            out = attend(**case.scales)(*case.tensors, **case.masks)
        except AttnError as error:
            if any(refusal in str(error) for refusal in refusals):
                refused += 1
            else:
                wrong.append(f"case {case}\n    got {error}, expected {refusals or 'an output'}")
            continue
        if refusals:
            wrong.append(f"case {case}\n    got an output, expected {refusals}")
        elif differ := np.argwhere(bits(out) != bits(case.expected)).tolist():
            at = tuple(differ[0])
            got = f"got {out[at]} at {differ[0]}, numpy has {case.expected[at]}"
            wrong.append(f"case {case}\n    {len(differ)} of {out.size} differ: {got}")
        else:
            equal += 1
    print(f"  of {len(drawn)} cases {equal} equal, {refused} refused as expected")
    return wrong


def bits(x):
    return x.view(f"i{x.itemsize}")


def full_range(attend):
    """The output scale that is chosen is that of the output."""
    q, k, v = (RANDOM.randint(-128, 128, (3, 64, 64)).astype(np.int8) for _ in "qkv")
    attention = attend(q_scale=0.001)
    out = attention(q, k, v)
    yield "chosen scale: range", bool(np.all(np.abs(out.astype(int)).max(axis=(1, 2)) >= 120))
    meant = attend(q_scale=0.001, out_scale=1 / 32)(q, k, v) / 32
    yield "chosen scale: meaning", bool(np.all(np.abs(out * attention.out_scales[..., None, None] - meant) < 1 / 32))
    again = attend(q_scale=0.001, out_scale=attention.out_scales)(q, k, v)
    yield "chosen scale: stated", np.array_equal(again, out)


def threads(attend):
    q, k, v = (RANDOM.randint(-128, 128, (4, 64, 64)).astype(np.int8) for _ in "qkv")
    attention = attend(out_scale=1 / 32)
    expected = attention(q, k, v)
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda _: attention(q, k, v), range(100)))
    yield "four threads on one backend", all(np.array_equal(out, expected) for out in outputs)


def closing(attend):
    """It waits for calls of other threads, and those after it are refused."""
    q, k, v = (RANDOM.randint(-128, 128, (8, 1500, 64)).astype(np.int8) for _ in "qkv")
    attention = attend(out_scale=1 / 32)
    expected = attention(q, k, v)

    def calls():
        try:
            while np.array_equal(attention(q, k, v), expected):
                pass
            return "differs"
        except AttnError as error:
            return "backend: got NULL" in str(error)

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(calls)
        time.sleep(0.1)
        attention.close()
        yield "closed while another thread computes", result.result()


def without_threads():
    """The library says it, every time, and what needs none goes on."""
    program = """if True:
        import sys
        import numpy as np
        from npu_attention import AttnError, NPUAttention
        q = np.ones((5, 8), np.int8)
        for backend in "auto", "auto", "scalar":
            try:
                print(NPUAttention(backend, library=sys.argv[1])(q, q, q).shape)
            except AttnError as error:
                print(error.status, error)
    """
    environment = {"RAYON_NUM_THREADS": "1025", "PYTHONPATH": sys.path[0]}
    result = subprocess.run([sys.executable, "-c", program, LIBRARY], env=environment, capture_output=True, text=True)
    error = "14 threads: got RAYON_NUM_THREADS=1025, expected at most 1024"
    yield "without threads", (result.stdout.splitlines(), result.stderr) == ([error, error, "(5, 8)"], "")


def errors(attend):
    q = np.ones((3, 5, 8), np.int8)
    nan = np.full((5, 8), np.nan, np.float32)
    closed = attend()
    closed.close()
    closed.close()
    os.environ.pop("ATTN_LIBRARY", None)
    for call, kind, message in [
        (lambda: attend(backend="cuda"), AttnError, "got `cuda`, expected scalar, "),
        (lambda: attend(backend="auto\0"), ValueError, "backend: got b'auto\\x00', expected no zero byte"),
        (lambda: attend(xclbin="a\0b"), ValueError, "xclbin: got b'a\\x00b', expected no zero byte"),
        (lambda: NPUAttention(), FileNotFoundError, "expected library=FILE or ATTN_LIBRARY"),
        (lambda: NPUAttention(library="/no/such.so"), OSError, "/no/such.so"),
        (lambda: closed(q, q, q), AttnError, "backend: got NULL"),
        (lambda: attend()(q, q[:2], q[:2]), AttnError, "heads: got 3, expected a positive multiple of the 2"),
        (lambda: attend()(q, q[:0], q[:0]), AttnError, "0 key and value heads"),
        (lambda: attend()(q[..., :7], q[..., :7], q[..., :7]), AttnError, "head dimension: got 7, expected 8 to 256"),
        (lambda: attend(q_scale=0)(q, q, q), AttnError, "query scale: got 0"),
        (lambda: attend(out_scale=1e9)(q, q, q), AttnError, "value scale / output scale"),
        (lambda: attend(q_scale=[1, 2])(q, q, q), ValueError, "broadcast"),
        (lambda: attend()(q, q, q, valid_keys=6), AttnError, "valid keys: got 6, expected at most 5"),
        (lambda: attend()(q, q, q, valid_keys=2**64 + 3), ValueError, "valid_keys: got 18446744073709551619, expected 0 to 2^63 - 1"),
        (lambda: attend()(q, q, q, causal=-1), ValueError, "causal: got -1, expected 0 to 2^63 - 1"),
        (lambda: attend()(q, q, q, causal=0.5), TypeError, "'float'"),
        (lambda: attend()(q, q, q, mask=np.ones((5, 4), bool)), ValueError, "broadcast"),
        (lambda: attend()(q, q, q, mask=np.zeros((5, 5))), TypeError, "mask: got float64, expected bool, true where a key is seen"),
        (lambda: attend()(nan, nan, nan), AttnError, "query: quantise: got NaN at element 0"),
        (lambda: attend()(q, q, q.astype(np.int16)), TypeError, "got int8, int8, int16, expected int8 or float32"),
        (lambda: attend()(q, q, q[:, :4]), ValueError, "got [3, 5, 8], [3, 5, 8], [3, 4, 8], expected"),
        (lambda: attend()(q[None], q, q), ValueError, "got [1, 3, 5, 8], [3, 5, 8], [3, 5, 8], expected"),
        (lambda: attend()(q[None], q[:, None], q[:, None]), ValueError, "got [1, 3, 5, 8], [3, 1, 5, 8], [3, 1, 5, 8], expected"),
        (lambda: attend()(q[0, 0], q[0, 0], q[0, 0]), ValueError, "got [8], [8], [8], expected"),
    ]:
        try:
            call()
            got = "no exception"
        except kind as error:
            got = str(error)
        yield f"error: {message}", message in got or f"got {got}"


def fixed(attend):
    """What is the same at every call of this script."""
    results = [(name, check.compare(name, out) == "equal") for name, out in snapshots(attend)]
    results += full_range(attend)
    results += threads(attend)
    wrong = [name for name, result in results if result is not True]
    print(f"  {len(results) - len(wrong)} of {len(results)} equal")
    return wrong


def main():
    first, count = (*CASES, 1)[:2] if CASES else (0, 1000)
    drawn = [cases.case(number) for number in range(first, first + count)]
    drawn += [] if CASES else cases.edges()
    wrong = 0
    open_on = partial(NPUAttention, library=LIBRARY)
    for backend in BACKENDS:
        attend = partial(open_on, backend=backend)
        try:
            attend()
        except AttnError as error:
            print(f"not here: {error}")
            continue
        print(f"backend {backend}:")
        differ = random(attend, backend not in ("kernel", "aie2-model"), drawn)
        differ += [] if CASES else fixed(attend)
        for name in differ:
            print(f"  DIFFERS {name}")
        wrong += len(differ)
    for name, result in () if CASES else [*closing(open_on), *without_threads(), *errors(open_on)]:
        wrong += result is not True
        print(f"{name}: {'as expected' if result is True else result}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
