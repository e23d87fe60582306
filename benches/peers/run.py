#!/usr/bin/env python3
"""Measures ONNX Runtime and OpenVINO beside torch, in one process and in interleaved rounds, as `attn bench` does with its
backends, on the same data.

    python3 benches/peers/run.py [--threads N] [--rounds N] [--json] [--attn target/release/attn]

It installs what requirements.txt pins into target/peers/venv first (several GB: torch on PyPI brings its GPU libraries).
`--attn` names a build of attn with the feature `torch`: `attn bench` then runs after the peers, and its backends are rows too,
marked with *: their ratio is to torch-sdpa-f32 in their own run, and their time that ratio times the one measured here. `of
peak` is theirs of that run, too, in whose rounds the peak was measured; of a peer it is that of torch-sdpa-f32 there divided by
the peer's ratio, so that a machine that was busier in one of the runs does not shift it.

Workloads as `attn bench` has them, by the same names: the int8 ones give the dequantised integers to whoever computes in
floats; those with -f32io give everybody the floats.

Peers, each called through its Python interface with inputs and outputs made before:
  torch-sdpa-*         scaled_dot_product_attention           torch-plain-*  softmax(Q K^T / sqrt(d)) V
  ort-mha-f32          MultiHeadAttention (com.microsoft), a batch entry for each head: nothing to be transposed
  ort-dynamic-int8     float in and out: DynamicQuantizeLinear, MatMulInteger, softmax in floats
  openvino-sdpa-*      ScaledDotProductAttention, inference precision f32 and bf16
  openvino-int8        float in and out: FakeQuantize with fixed ranges before both products, softmax in floats
  openvino-int8-in     int8 in, float out: the same without the quantisation of Q, K and V

The int8 peers have one scale for a whole tensor. Their accuracy is nevertheless that of calls with one head each, so that a
scale has to serve one head alone, as in attn; their time is that of all heads in one call.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
REQUIREMENTS = HERE / "requirements.txt"
REFERENCE = "torch-sdpa-f32"
# Shorter calls are measured several at a time.
BATCH = 1e-3
# With several threads, those of torch (OpenMP) wait for more work at full load for 9 to 11 ms before they sleep.
SETTLE = 0.02


def enter_venv():
    """Goes on in the virtual environment, which is made where it is not there or of other versions."""
    venv = ROOT / "target/peers/venv"
    python, stamp = venv / "bin/python", venv / "requirements.txt"
    if pathlib.Path(sys.prefix) == venv:
        return
    if not stamp.is_file() or stamp.read_text() != REQUIREMENTS.read_text():
        print(f"installing {REQUIREMENTS.relative_to(ROOT)} below target/peers", file=sys.stderr)
        if subprocess.run([sys.executable, "-m", "venv", "--clear", venv]).returncode != 0:
            sys.exit("python3 with venv is needed (on Debian, as root: apt-get install python3-venv)")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
        if subprocess.run([*pip, "--requirement", REQUIREMENTS]).returncode != 0:
            sys.exit("pip did not get the pinned versions: see above")
        stamp.write_text(REQUIREMENTS.read_text())
    os.execv(python, [str(python), *sys.argv])


def arguments():
    def positive(text):
        if not text.isdigit() or int(text) == 0:
            raise argparse.ArgumentTypeError(f"got {text}, expected 1 or more")
        return int(text)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, default=1, metavar="N")
    parser.add_argument("--rounds", type=positive, default=21, metavar="N")
    parser.add_argument("--json", action="store_true", help="one object of environment and results, as attn bench --json")
    parser.add_argument("--attn", type=pathlib.Path, metavar="PATH", help="attn, built with the feature torch")
    return parser.parse_args()


OPTIONS = arguments()
enter_venv()

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
import openvino as ov  # noqa: E402
import openvino.opset13 as ops  # noqa: E402
import torch  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402


class Workload:
    """Float32 tensors [heads, rows, dim], of int8 workloads with the integers and the scale of each head."""

    def __init__(self, name, tensors, int8):
        self.name, self.integers, self.scales = name, None, None
        if int8:
            self.scales = [np.abs(x).max(axis=(1, 2), keepdims=True) / np.float32(127) for x in tensors]
            self.integers = [np.clip(np.rint(x / s), -127, 127).astype(np.int8) for x, s in zip(tensors, self.scales)]
            tensors = [i * s for i, s in zip(self.integers, self.scales)]
        self.tensors = [np.ascontiguousarray(x, np.float32) for x in tensors]
        (self.heads, self.queries, self.dim), self.keys = self.tensors[0].shape, self.tensors[1].shape[1]
        self.macs = 2 * self.heads * self.queries * self.keys * self.dim
        self.truth = self.attention64()

    def attention64(self):
        heads = []
        for q, k, v in zip(*(x.astype(np.float64) for x in self.tensors)):
            weights = np.exp((s := q @ k.T / np.sqrt(self.dim)) - s.max(axis=1, keepdims=True))
            heads.append(weights @ v / weights.sum(axis=1, keepdims=True))
        return np.stack(heads)

    def head(self, h):
        """One head as a workload of its own, without a truth."""
        one = object.__new__(Workload)
        one.__dict__.update(self.__dict__, heads=1, tensors=[x[h : h + 1] for x in self.tensors], truth=None)
        if self.integers is not None:
            one.integers, one.scales = [x[h : h + 1] for x in self.integers], [s[h : h + 1] for s in self.scales]
        return one


def workloads():
    with np.load(ROOT / "src/suite/data/whisper.npz") as data:
        layers = [data[name].astype(np.float32) for name in "qkv"]

    def tiles(count):
        place = lambda i: (i % 6, slice(i // 6 * 128, i // 6 * 128 + 64))
        return [np.stack([x[place(i)] for i in range(count)]) for x in layers]

    whole = [np.stack([x[h % 6] for h in range(8)]) for x in layers]
    shapes = [("tile-64x64x64", tiles(1)), ("tiles64-64x64x64", tiles(64)), ("whisper-8x1500x64", whole)]
    return [Workload(name + io, tensors, not io) for name, tensors in shapes for io in ("", "-f32io")]


# A peer is a function of a workload; it returns a call, and a function that gives what was last computed.


def torch_peer(plain, dtype):
    def prepare(w):
        q, k, v = (torch.from_numpy(x)[None].to(dtype) for x in w.tensors)
        last = []

        def call():
            with torch.inference_mode():
                if plain:
                    last[:] = [torch.softmax(q @ k.transpose(-1, -2) * w.dim**-0.5, -1) @ v]
                else:
                    last[:] = [torch.nn.functional.scaled_dot_product_attention(q, k, v)]

        return call, lambda: last[0].float().numpy()[0]

    return prepare


def ort_peer(w, nodes, constants, opsets):
    """Inputs q, k, v and output o, float32 [heads, rows, dim]."""
    shapes = [list(x.shape) for x in w.tensors]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip("qkvo", [*shapes, shapes[0]])]
    graph = helper.make_graph(nodes, "attention", values[:3], values[3:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*opset) for opset in opsets], ir_version=10)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = OPTIONS.threads, 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    out = np.empty(shapes[0], np.float32)
    binding = session.io_binding()
    for name, x in zip("qkv", w.tensors):
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_ortvalue_output("o", ort.OrtValue.ortvalue_from_numpy(out))
    # The values are in numpy's memory, which has to stay.
    arrays = [*w.tensors, out]
    return lambda: session.run_with_iobinding(binding), lambda: arrays[3]


def ort_mha(w):
    node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["o"], domain="com.microsoft", num_heads=1)
    return ort_peer(w, [node], [], [("", 21), ("com.microsoft", 1)])


def ort_int8(w):
    node = helper.make_node
    nodes = [node("DynamicQuantizeLinear", [x], [x + "8", x + "s", x + "z"]) for x in "qkv"]
    nodes += [
        node("Transpose", ["k8"], ["kt"], perm=[0, 2, 1]),
        node("MatMulInteger", ["q8", "kt", "qz", "kz"], ["s32"]),
        node("Cast", ["s32"], ["s"], to=TensorProto.FLOAT),
        node("Mul", ["qs", "ks"], ["qks"]),
        node("Mul", ["qks", "scale"], ["factor"]),
        node("Mul", ["s", "factor"], ["scores"]),
        node("Softmax", ["scores"], ["p"], axis=-1),
        node("DynamicQuantizeLinear", ["p"], ["p8", "ps", "pz"]),
        node("MatMulInteger", ["p8", "v8", "pz", "vz"], ["o32"]),
        node("Cast", ["o32"], ["of"], to=TensorProto.FLOAT),
        node("Mul", ["ps", "vs"], ["pvs"]),
        node("Mul", ["of", "pvs"], ["o"]),
    ]
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [w.dim**-0.5])
    return ort_peer(w, nodes, [scale], [("", 21)])


CORE = ov.Core()


def openvino_peer(model, tensors, precision):
    config = {"INFERENCE_NUM_THREADS": OPTIONS.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    if precision:
        config["INFERENCE_PRECISION_HINT"] = precision
    request = CORE.compile_model(model, "CPU", config).create_infer_request()
    for i, x in enumerate(tensors):
        request.set_input_tensor(i, ov.Tensor(x[None], shared_memory=False))
    return lambda: request.infer(), lambda: np.array(request.get_output_tensor().data[0], np.float32)


def openvino_sdpa(precision):
    def prepare(w):
        inputs = [ops.parameter([1, *x.shape], np.float32) for x in w.tensors]
        attention = ops.scaled_dot_product_attention(*inputs)
        return openvino_peer(ov.Model([attention], inputs), w.tensors, precision)

    return prepare


def openvino_int8(int8_in):
    def prepare(w):
        kind = np.int8 if int8_in else np.float32
        inputs = [ops.parameter([1, *x.shape], kind) for x in w.tensors]
        if int8_in:
            # One scale for all heads: the integers are those of attn, whatever their heads' own scales are.
            scales = [np.float32(s.max()) for s in w.scales]
            q, k, v = (ops.multiply(ops.convert(x, np.float32), ops.constant(s)) for x, s in zip(inputs, scales))
        else:
            largest = [np.float32(np.abs(x).max()) for x in w.tensors]
            q, k, v = (fake_quantise(x, -r * 128 / 127, r) for x, r in zip(inputs, largest))
        scores = ops.multiply(ops.matmul(q, k, False, True), ops.constant(np.float32(w.dim**-0.5)))
        weights = fake_quantise(ops.softmax(scores, -1), 0.0, 1.0)
        model = ov.Model([ops.matmul(weights, v, False, False)], inputs)
        return openvino_peer(model, w.integers if int8_in else w.tensors, None)

    return prepare


def fake_quantise(x, low, high):
    low, high = ops.constant(np.float32(low)), ops.constant(np.float32(high))
    return ops.fake_quantize(x, low, high, low, high, 256)


PEERS = {
    REFERENCE: torch_peer(False, torch.float32),
    "torch-sdpa-bf16": torch_peer(False, torch.bfloat16),
    "torch-plain-f32": torch_peer(True, torch.float32),
    "torch-plain-bf16": torch_peer(True, torch.bfloat16),
    "ort-mha-f32": ort_mha,
    "ort-dynamic-int8": ort_int8,
    "openvino-sdpa-f32": openvino_sdpa("f32"),
    "openvino-sdpa-bf16": openvino_sdpa("bf16"),
    "openvino-int8": openvino_int8(False),
    "openvino-int8-in": openvino_int8(True),
}


def accuracy(prepare, workload, call, output, by_head):
    """Largest and mean error and share within one step, each of the worst head; a step is absmax of the truth / 127."""
    if by_head:
        outputs = []
        for h in range(workload.heads):
            call, output = prepare(workload.head(h))
            call()
            outputs.append(output()[0])
        got = np.stack(outputs)
    else:
        call()
        got = output()
    step = np.abs(workload.truth).max(axis=(1, 2), keepdims=True) / 127
    error = np.abs(got.astype(np.float64) - workload.truth) / step
    return {
        "max_error_lsb": float(error.max()),
        "mean_error_lsb": float(error.mean(axis=(1, 2)).max()),
        "within_1_lsb": float((error <= 1).mean(axis=(1, 2)).min()),
    }


def timed(call, count):
    start = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start


def measure(workload):
    entries = []
    for name, prepare in PEERS.items():
        if name == "openvino-int8-in" and workload.integers is None:
            continue
        call, output = prepare(workload)
        figures = accuracy(prepare, workload, call, output, by_head="int8" in name)
        call()
        batch = 1
        while timed(call, batch) < BATCH:
            batch *= 2
        entries.append((name, call, batch, [], figures))
    for round in range(OPTIONS.rounds):
        first = round % len(entries)
        for _, call, batch, times, _ in entries[first:] + entries[:first]:
            if OPTIONS.threads > 1:
                time.sleep(SETTLE)
            call()
            times.append(timed(call, batch) / batch)
    reference = np.array(entries[0][3])
    for name, _, _, times, figures in entries:
        seconds = float(np.median(times))
        yield {
            "workload": workload.name,
            "backend": name,
            "threads": OPTIONS.threads,
            "rounds": OPTIONS.rounds,
            "median_ns": seconds * 1e9,
            "mac_per_s": workload.macs / seconds,
            "peak_fraction": None,
            "ratio_torch_f32": float(np.median(times / reference)),
            **figures,
        }


def bridge(workload, rows, theirs):
    """Adds the backends of `attn bench` on a workload, brought here by their ratio to torch-sdpa-f32, and the shares of the
    peak that it measured."""
    theirs = [row for row in theirs["results"] if row["workload"] == workload.name]
    reference = next(row for row in theirs if row["backend"] == REFERENCE)
    for row in rows:
        share = reference["peak_fraction"]
        row["peak_fraction"] = share and share / row["ratio_torch_f32"]
    for row in theirs:
        if not row["backend"].startswith("torch"):
            ns = row["ratio_torch_f32"] * rows[0]["median_ns"]
            rows.append({**row, "backend": "*" + row["backend"], "median_ns": ns, "mac_per_s": workload.macs / ns * 1e9})


def table(workload, rows):
    io = "float32" if workload.integers is None else "int8"
    print(f"\n{workload.name}: {workload.heads} x {workload.queries} x {workload.keys} x {workload.dim} {io}")
    print("  backend                   time    GMAC/s  of peak   ratio    max   mean        ±1")
    for row in rows:
        ns = row["median_ns"]
        shown = f"{ns / 1e3:.2f} µs" if ns < 1e6 else f"{ns / 1e6:.2f} ms"
        peak = "-" if row["peak_fraction"] is None else f"{row['peak_fraction'] * 100:.1f} %"
        within = np.floor(row["within_1_lsb"] * 1e4) / 1e2
        print(
            f"  {row['backend']:<18}{shown:>12}{row['mac_per_s'] / 1e9:>10.1f}{peak:>9}{row['ratio_torch_f32']:>8.3f}"
            f"{row['max_error_lsb']:>7.2f}{row['mean_error_lsb']:>7.3f}{within:>8.2f} %",
            flush=True,
        )


FLAGS = ["avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"]


def cpu():
    """The CPU's name, with family and model where the operating system says them, and which of FLAGS it has; as in attn."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    fields = {}
    for name, _, value in (line.partition(":") for line in lines):
        fields.setdefault(name.strip(), value.strip())
    name = fields.get("model name", "unknown")
    if "cpu family" in fields and "model" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name, [flag for flag in FLAGS if flag in fields.get("flags", "").split()]


def main():
    torch.set_num_threads(OPTIONS.threads)
    name, flags = cpu()
    environment = {
        "cpu": name,
        "flags": flags,
        "cores": len(os.sched_getaffinity(0)),
        "threads": OPTIONS.threads,
        "torch": torch.__version__.split("+")[0],
        "onnxruntime": ort.__version__,
        "openvino": ov.__version__.split("-")[0],
        "os": f"{platform.system().lower()} {platform.machine()}",
        "rounds": OPTIONS.rounds,
    }
    if not OPTIONS.json:
        e = environment
        print(f"{e['cpu']}, {e['cores']} cores, {e['os']}; {e['threads']} thread{'s' if e['threads'] > 1 else ''}")
        if flags:
            print(*flags)
        print(f"torch {e['torch']}, onnxruntime {e['onnxruntime']}, openvino {e['openvino']}, through Python")
        print(f"time: median of {e['rounds']} interleaved rounds; ratio: to {REFERENCE}, within a round")
        print("max, mean, ±1: error against float64 attention over the same inputs, worst head; 1 is a 127th of the largest")
        print("magnitude of the head's output")
    results = []
    everything = workloads()
    for workload in everything:
        rows = list(measure(workload))
        results.append((workload, rows))
        if not OPTIONS.json and not OPTIONS.attn:
            table(workload, rows)
    if OPTIONS.attn:
        command = [OPTIONS.attn, "bench", "--json", "--threads", str(OPTIONS.threads), "--rounds", str(OPTIONS.rounds)]
        theirs = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        if theirs["environment"]["libtorch"] is None:
            sys.exit(f"{OPTIONS.attn}: got a build without libtorch, expected one with `--features torch`")
        environment["attn"] = theirs["environment"]
        for workload, rows in results:
            bridge(workload, rows, theirs)
        if not OPTIONS.json:
            version, libtorch = theirs["environment"]["attn"], theirs["environment"]["libtorch"]
            print(f"*: a backend of attn {version}, by its ratio to {REFERENCE} of libtorch {libtorch} in a run of its own")
            for workload, rows in results:
                table(workload, rows)
    if OPTIONS.json:
        rows = [row for _, rows in results for row in rows]
        json.dump({"environment": environment, "results": rows}, sys.stdout, indent=2)
        print()


main()
