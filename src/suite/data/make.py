#!/usr/bin/env python3
"""Makes the fixtures of `attn validate`.

    make.py acceptance            -> acceptance.npz (numpy alone)
    make.py whisper CAPTURE.npz   -> whisper.npz, one whole head of each layer of a capture (docs/whisper.md says how one is made)
    make.py --check               acceptance.npz is what numpy makes today (exit status 1 if not)

acceptance.npz: numpy seed 42, three 64x64 `randn` (q, k, v in that order), float32.

whisper.npz: `q`, `k`, `v`, float16 [6 layers, 1500 frames, 64], of the encoder self-attention of Whisper-base (MIT
weights) on 24.7 s of public-domain LibriVox speech in a 30 s window; frames after 1236 are silence. q = xWq + bq,
k = xWk, v = xWv + bv, unscaled: the scores are q·k / 8. A capture holds the same as [6, 8, 1500, 64]. Of each layer
the head on which the integers differ most from float attention is taken.
"""

import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
HEADS = [2, 0, 0, 3, 7, 0]


def acceptance():
    np.random.seed(42)
    return {name: np.random.randn(64, 64).astype(np.float32) for name in "qkv"}


def whisper(capture):
    with np.load(capture) as data:
        return {name: np.stack([layer[head] for layer, head in zip(data[name], HEADS)]) for name in "qkv"}


def main(arguments):
    match arguments:
        case ["acceptance"]:
            np.savez(HERE / "acceptance.npz", **acceptance())
        case ["whisper", capture]:
            np.savez_compressed(HERE / "whisper.npz", **whisper(capture))
        case ["--check"]:
            with np.load(HERE / "acceptance.npz") as committed:
                wrong = [n for n, a in acceptance().items() if not np.array_equal(committed[n], a)]
            if wrong:
                sys.exit(f"acceptance.npz: {', '.join(wrong)} differ from numpy {np.__version__}")
            print(f"acceptance.npz is what numpy {np.__version__} makes")
        case _:
            sys.exit(__doc__)


main(sys.argv[1:])
