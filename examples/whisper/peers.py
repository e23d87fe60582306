#!/usr/bin/env python3
"""Measures CTranslate2's encoder of Whisper, what faster-whisper runs in production, on the same weights and spectrogram.

    python3 examples/whisper/peers.py --mel MEL.npy [--model DIR] [--threads N] [--rounds N] [--json] [--output DIR]
    python3 examples/whisper/peers.py --mel MEL.npy [--model DIR] [--threads N] [--output DIR] --serve

MEL.npy is a log-mel spectrogram, float32 [80, 3000]; DIR of `--model` has model.bin, config.json, vocabulary.json and
tokenizer.json. It installs what peers.txt pins into target/whisper/peers/venv first (250 MB).

A line for each compute type that this CPU has: median and minimum of one `encode` over interleaved rounds. `--output` writes
what the encoder gives as DIR/TYPE.npy, float32 [1500, 512], for another program to judge.

`--serve` is for a bench that has others in its rounds. A line on stdin, a line on stdout, until stdin ends:
  types          the compute types that this CPU has, separated by spaces
  encode TYPE    the milliseconds of one call; before the first one the model is loaded and warmed up, its output written

Which kernels it takes is CTranslate2's choice, which the variables CT2_USE_MKL (0, 1) and CT2_FORCE_CPU_ISA (AVX2, AVX512)
override; with CT2_VERBOSE=1 it says them on stderr. An error is one line on stderr, with exit status 1.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

REQUIREMENTS = pathlib.Path(__file__).resolve().with_name("peers.txt")
ROOT = REQUIREMENTS.parents[2]
FILES = ["model.bin", "config.json", "vocabulary.json", "tokenizer.json"]
# With several threads, those of OpenMP wait for more work at full load for some milliseconds before they sleep.
SETTLE = 0.02


def enter_venv():
    """Goes on in the virtual environment, which is made where it is not there or of other versions."""
    venv = ROOT / "target/whisper/peers/venv"
    python, stamp = venv / "bin/python", venv / "requirements.txt"
    if pathlib.Path(sys.prefix) == venv:
        return
    if not stamp.is_file() or stamp.read_text() != REQUIREMENTS.read_text():
        print(f"installing {REQUIREMENTS.relative_to(ROOT)} below target/whisper/peers", file=sys.stderr)
        # stdin and stdout are for the lines of `--serve`.
        streams = {"stdin": subprocess.DEVNULL, "stdout": sys.stderr}
        if subprocess.run([sys.executable, "-m", "venv", "--clear", venv], **streams).returncode != 0:
            sys.exit("python3 with venv is needed (on Debian, as root: apt-get install python3-venv)")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
        if subprocess.run([*pip, "--requirement", REQUIREMENTS], **streams).returncode != 0:
            sys.exit("pip did not get the pinned versions: see above")
        stamp.write_text(REQUIREMENTS.read_text())
    os.execv(python, [str(python), *sys.argv])


def arguments():
    def positive(text):
        if not text.isdecimal() or int(text) == 0:
            raise argparse.ArgumentTypeError(f"got {text}, expected 1 or more")
        return int(text)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = sys.exit
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "target/whisper/model", metavar="DIR")
    parser.add_argument("--mel", type=pathlib.Path, required=True, metavar="MEL.npy")
    parser.add_argument("--threads", type=positive, default=1, metavar="N")
    parser.add_argument("--rounds", type=positive, default=11, metavar="N")
    parser.add_argument("--json", action="store_true", help="one object of environment and results")
    parser.add_argument("--output", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--serve", action="store_true", help="measure what the lines on stdin say")
    return parser.parse_args()


OPTIONS = arguments()
enter_venv()

import ctranslate2  # noqa: E402
import numpy as np  # noqa: E402


class Peer:
    """The encoder with a compute type, loaded and warmed up."""

    def __init__(self, name, mel):
        threads = {"inter_threads": 1, "intra_threads": OPTIONS.threads}
        self.model = ctranslate2.models.Whisper(str(OPTIONS.model), device="cpu", compute_type=name, **threads)
        self.features = ctranslate2.StorageView.from_array(mel[None])
        output = self.model.encode(self.features).to(ctranslate2.DataType.float32)
        if OPTIONS.output:
            OPTIONS.output.mkdir(parents=True, exist_ok=True)
            np.save(OPTIONS.output / f"{name}.npy", np.array(output)[0])

    def milliseconds(self):
        start = time.perf_counter()
        self.model.encode(self.features)
        elapsed = time.perf_counter() - start
        if OPTIONS.threads > 1:
            time.sleep(SETTLE)
        return elapsed * 1e3


def types():
    """What this CPU has; int8_float32 is what int8 is here, for a CPU computes in float32 what is float16 in the file."""
    return sorted(ctranslate2.get_supported_compute_types("cpu") - {"int8_float32"})


def serve(mel):
    peers = {}
    for line in sys.stdin:
        match line.split():
            case ["types"]:
                print(*types(), flush=True)
            case ["encode", name]:
                if name not in peers:
                    peers[name] = Peer(name, mel)
                print(f"{peers[name].milliseconds():.6f}", flush=True)
            case _:
                raise ValueError(f"got {line.strip()!r}, expected `types` or `encode TYPE`")


def measure(mel):
    peers = [(name, Peer(name, mel), []) for name in types()]
    for round in range(OPTIONS.rounds):
        first = round % len(peers)
        for _, peer, times in peers[first:] + peers[:first]:
            times.append(peer.milliseconds())
    rows = [(name, statistics.median(times), min(times)) for name, _, times in peers]
    if OPTIONS.json:
        environment = {"ctranslate2": ctranslate2.__version__, "threads": OPTIONS.threads, "rounds": OPTIONS.rounds}
        keys = ("backend", "median_ms", "min_ms")
        print(json.dumps({"environment": environment, "results": [dict(zip(keys, r)) for r in rows]}, indent=2))
        return
    print(f"CTranslate2 {ctranslate2.__version__}, threads: {OPTIONS.threads}, rounds: {OPTIONS.rounds}")
    for name, median, least in rows:
        print(f"  {name:<16} median {median:8.1f} ms   min {least:8.1f} ms")


try:
    for name in FILES:
        (OPTIONS.model / name).open("rb").close()
    with OPTIONS.mel.open("rb") as file:
        try:
            mel = np.ascontiguousarray(np.lib.format.read_array(file))
        except ValueError as error:
            raise ValueError(f"{OPTIONS.mel}: {error}") from error
    if (mel.dtype, mel.shape) != (np.float32, (80, 3000)):
        raise ValueError(f"{OPTIONS.mel}: got {mel.dtype} {list(mel.shape)}, expected float32 [80, 3000]")
    serve(mel) if OPTIONS.serve else measure(mel)
except (OSError, RuntimeError, ValueError) as error:
    sys.exit(" ".join(str(error).split()))
