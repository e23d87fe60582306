"""Archives between real numpy and the `attn` command, both ways: python tests/numpy/interop.py ATTN

numpy writes every kind of archive that it can, `attn run` reads it and writes an output, numpy reads that. Its bits must
be those of numpy's own model of the arithmetic, its scales those that numpy's float64 attention gives. `attn compare`
must find the metrics that numpy finds. Exit status 1 if anything differs.
"""

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import model

ATTN = sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__)
TEMPORARY = tempfile.TemporaryDirectory()
FOLDER = Path(TEMPORARY.name)
RANDOM = np.random.RandomState(5)


def call(*arguments):
    return subprocess.run([ATTN, *map(str, arguments)], capture_output=True, text=True)


def tensors(query, key, dtype="f4"):
    """Random q, k and v of these shapes."""
    return {name: RANDOM.randn(*shape).astype(dtype) for name, shape in zip("qkv", (query, key, key))}


def int8(query, key, q_scale, k_scale, v_scale):
    integers = {n: RANDOM.randint(-128, 128, s).astype("i1") for n, s in zip("qkv", (query, key, key))}
    return integers | {"q_scale": q_scale, "k_scale": k_scale, "v_scale": v_scale}


def each(change, arrays):
    """Arrays with q, k and v changed."""
    return {name: change(array) if name in "qkv" else array for name, array in arrays.items()}


def cases():
    """Name, arrays, how numpy writes them, options of `attn run`."""
    flat, heads = ((70, 64), (130, 64)), ((3, 9, 16), (3, 70, 16))
    for bits in 16, 32, 64:
        yield f"float{bits}", tensors(*flat, f"f{bits // 8}"), np.savez, []
        yield f"float{bits}, big-endian", tensors(*heads, f">f{bits // 8}"), np.savez, []
        yield f"float{bits}, compressed", tensors(*heads, f"f{bits // 8}"), np.savez_compressed, []
        yield f"float{bits}, Fortran order", each(np.asfortranarray, tensors(*heads, f"f{bits // 8}")), np.savez, []
    mixed = tensors(*heads) | {"k": np.asfortranarray(RANDOM.randn(3, 70, 16).astype(">f8"))}
    yield "mixed widths, orders and bytes, compressed", mixed, np.savez_compressed, []
    yield "views with strides", each(lambda a: a[..., ::2], tensors((9, 32), (70, 32))), np.savez, []
    yield "other arrays beside", tensors(*flat) | {"note": np.array(["a"]), "x": np.zeros(0)}, np.savez, []
    yield "one key", tensors((5, 8), (1, 8)), np.savez, []
    yield "d = 256", tensors((5, 256), (66, 256)), np.savez, []
    yield "4 dimensions", tensors((2, 3, 9, 16), (2, 3, 70, 16)), np.savez, []
    yield "grouped", tensors((2, 6, 9, 16), (2, 2, 70, 16), "f2"), np.savez, []
    yield "one key head", tensors((6, 9, 16), (70, 16)), np.savez, []
    yield "zeros", each(np.zeros_like, tensors(*flat)), np.savez, []
    yield "int8, numbers", int8(*heads, 0.02, np.float32(0.03), 1), np.savez, []
    yield "int8, a scale per head", int8(*heads, [0.02, 0.03, 0.04], np.float16([1, 0.1, 0.01]), [1, 2, 3]), np.savez, []
    scales = RANDOM.rand(2, 6) + 0.01, RANDOM.rand(2, 2).astype(">f4") + 0.01, RANDOM.rand(2, 2) + 0.01
    grouped = int8((2, 6, 9, 16), (2, 2, 70, 16), *scales)
    yield "int8, grouped, compressed", each(np.asfortranarray, grouped), np.savez_compressed, []
    yield "causal", tensors(*heads), np.savez, ["--causal"]
    yield "causal after 61 cached keys, 68 valid", tensors(*heads), np.savez, ["--causal=61", "--valid-keys", 68]
    yield "nothing visible", tensors(*heads), np.savez, ["--valid-keys=0"]
    yield "the scale of the values", tensors(*heads), np.savez, ["--out-scale", "v"]
    yield "a scale of 0.01", tensors(*heads), np.savez, ["--out-scale=0.01"]
    for shape in (2, 3, 9, 70), (6, 9, 70), (1, 3, 1, 70), (2, 1, 9, 1), (3, 9, 70), (9, 70), (1, 70), (9, 1), (70,), ():
        mask = np.asarray(RANDOM.rand(*shape) < 0.7)
        yield f"mask {shape}", tensors((2, 3, 9, 16), (2, 1, 70, 16)) | {"mask": mask}, np.savez, []
    mask = np.asfortranarray(RANDOM.rand(9, 70) < 0.05)
    yield "mask and causal, rows without keys", tensors(*heads) | {"mask": mask}, np.savez_compressed, ["--causal"]


def option(options, name, default=None):
    """The value of --NAME, written with or without `=`."""
    words = " ".join(map(str, options)).replace("=", " ").split()
    if name not in words:
        return None
    after = words[words.index(name) + 1 :]
    return default if not after or after[0].startswith("--") else after[0]


def heads_of(arrays, options):
    """What `attn run` documents, head by head: int8 tensors, scales, mask."""
    q, k, v = (np.asarray(arrays[name]) for name in "qkv")
    (m, d), n = q.shape[-2:], k.shape[-2]
    q, k, v = q.reshape(-1, m, d), k.reshape(-1, n, d), v.reshape(-1, n, d)
    group = len(q) // len(k)
    mask = np.ones((m, n), bool)
    if (valid := option(options, "--valid-keys")) is not None:
        mask &= np.arange(n) < int(valid)
    if (offset := option(options, "--causal", "0")) is not None:
        mask &= np.arange(n) <= np.arange(m)[:, None] + int(offset)
    allowed = np.asarray(arrays.get("mask", True))
    try:
        allowed = np.broadcast_to(allowed, arrays["q"].shape[:-1] + (n,))
    except ValueError:
        allowed = np.broadcast_to(allowed, (len(q), m, n))
    allowed = allowed.reshape(len(q), m, n)
    for h, kv in zip(range(len(q)), np.repeat(np.arange(len(k)), group)):
        head = q[h], k[kv], v[kv]
        if q.dtype == np.int8:
            scale = lambda name, heads, head: np.broadcast_to(np.ravel(arrays[name]), heads)[head].astype("f4")
            scales = scale("q_scale", len(q), h), scale("k_scale", len(k), kv), scale("v_scale", len(k), kv)
        else:
            head, scales = zip(*(model.quantise(tensor) for tensor in head))
        yield head, scales, mask & allowed[h]


def truth(head, scales, mask):
    """Float64 attention on the dequantised integers; a row that sees nothing is zeros."""
    q, k, v = (tensor.astype("f8") * float(scale) for tensor, scale in zip(head, scales))
    scores = np.where(mask, q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.nan_to_num(weights / weights.sum(axis=1, keepdims=True)) @ v


def check(name, arrays, write, options):
    """What is wrong, if anything, and the outputs for `compare`."""
    source, target = FOLDER / "in.npz", FOLDER / "out.npz"
    write(source, **arrays)
    result = call("run", "--input", source, "--output", target, *options)
    if result.returncode or result.stdout or not result.stderr.startswith("backend scalar: "):
        return f"status {result.returncode}: {result.stdout}{result.stderr}", None, None
    with np.load(target) as output:
        if sorted(output.files) != ["out", "out_scale"]:
            return f"it holds {output.files}", None, None
        out, out_scale = output["out"], output["out_scale"]
    heads = list(heads_of(arrays, options))
    form = out.dtype, out.shape, out.flags.c_contiguous, out_scale.dtype, out_scale.shape
    if form != (np.int8, arrays["q"].shape, True, np.float32, (len(heads),)):
        return f"dtypes or shapes: {form}", None, None
    truths = np.stack([truth(*head) for head in heads])
    rule = option(options, "--out-scale")
    for h, (head, scales, mask) in enumerate(heads):
        expected = {"v": scales[2], None: np.abs(truths[h]).max() / 127}.get(rule) if rule in ("v", None) else rule
        expected = max(float(expected), float(scales[2]) / 65536, 2.0**-126)
        if abs(out_scale[h] / expected - 1) > 1e-5:
            return f"head {h}: scale {out_scale[h]}, numpy has {expected}", None, None
        bits = model.attention(*head, (*scales, out_scale[h]), mask)
        if not np.array_equal(out.reshape(-1, *bits.shape)[h], bits):
            return f"head {h}: {np.count_nonzero(out.reshape(-1, *bits.shape)[h] != bits)} bits differ", None, None
    return None, {"out": out, "out_scale": out_scale}, truths.reshape(out.shape)


def metrics(got, expected):
    error = np.abs(got - expected)
    figures = {"mae": error.mean(), "rmse": np.sqrt(np.square(error).mean()), "max_error": error.max()}
    shares = {"equal": error == 0, "within_1": error <= 1, "within_5": error <= 5}
    figures |= {name: share.mean() for name, share in shares.items()}
    if got.std() and expected.std():
        figures["correlation"] = np.corrcoef(got.ravel(), expected.ravel())[0, 1]
    return figures


def check_compare(output, truths):
    """`attn compare` of an output with other scales, and of floats in every form, against numpy's metrics."""
    column = output["out_scale"].astype("f8").reshape(truths.shape[:-2] + (1, 1))
    integers, floats = output["out"].astype("f8"), truths
    halved = output | {"out_scale": output["out_scale"] / 2}
    with_floats = metrics(integers, np.rint(floats / column))
    step = np.abs(floats).max(axis=(-1, -2), keepdims=True) / 127
    step[step == 0] = 1
    fortran = {"out": np.asfortranarray(floats.astype(">f8"))}
    for a, b, write, expected in [
        (output, output, np.savez, metrics(integers, integers)),
        (output, halved, np.savez_compressed, metrics(integers, np.rint(integers / 2))),
        (output, {"out": floats}, np.savez, with_floats),
        (output, fortran, np.savez_compressed, with_floats),
        (fortran, output, np.savez, metrics(np.rint(floats / column), integers)),
        ({"out": floats + 1e-9 * step}, {"out": floats}, np.savez, metrics((floats + 1e-9 * step) / step, floats / step)),
    ]:
        write(FOLDER / "a.npz", **a)
        write(FOLDER / "b.npz", **b)
        result = call("compare", FOLDER / "a.npz", FOLDER / "b.npz", "--json")
        if result.returncode:
            return f"compare: status {result.returncode}: {result.stderr}"
        got = json.loads(result.stdout)["overall"]
        wrong = [f"{n} {got[n]}, numpy has {x}" for n, x in expected.items() if not abs((got[n] or 0) - x) <= 1e-9]
        if wrong:
            return f"compare: {'; '.join(wrong)}"
    return None


def main():
    failed, count = 0, 0
    for name, arrays, write, options in cases():
        wrong, output, truths = check(name, arrays, write, options)
        wrong = wrong or check_compare(output, truths)
        print(f"{name:50}{wrong or 'equal'}")
        failed, count = failed + bool(wrong), count + 1
    # What numpy can write and attention cannot use is refused, not guessed.
    for name, dtype in itertools.product("qkv", ["O", "c16", "U3", "?", "i4", "u1", "M8[s]"]):
        np.savez(FOLDER / "in.npz", **tensors((3, 8), (3, 8)) | {name: np.zeros((3, 8)).astype(dtype)})
        result = call("run", "--input", FOLDER / "in.npz", "--output", FOLDER / "refused.npz")
        right = result.returncode == 2 and result.stderr.count("\n") == 1 and f"{name} is " in result.stderr
        if not right or (FOLDER / "refused.npz").exists():
            print(f"{name} of dtype {dtype}: status {result.returncode}, {result.stderr}")
            failed += 1
        count += 1
    print(f"numpy {np.__version__}: {count - failed} of {count} archives as numpy has it")
    sys.exit(failed > 0)


main()
