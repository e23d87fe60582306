#!/usr/bin/env python3
"""Writes mel.npz and mel.flac, what openai-whisper makes of a test signal, for tests/mel.rs and tests/audio.rs.

    make_mel.py            write both files beside this script
    make_mel.py --check    compute mel.npz anew and compare with the committed file; exit status 1 where it differs

mel.npz:
    samples [480000] int16      30 s at 16 kHz: 2 s of signal, silence, 0.5 s of signal up to the very end
    mel [80, 3000] float32      `whisper.log_mel_spectrogram` of samples / 32768
    filters [80, 201] float32   the mel filter bank that openai-whisper comes with, librosa's
mel.flac: the first half second of `samples`, mono, 16 bits; written by libsndfile.

Needs `pip install openai-whisper==20250625 torch==2.13.0 soundfile`. The random numbers are of `RandomState`, whose
streams are frozen.
"""

import argparse
import pathlib
import sys

import numpy as np
import soundfile
import torch
import whisper

FILE = pathlib.Path(__file__).with_name("mel.npz")
TOLERANCE = 1e-5  # `MEL` of the table of tolerances; another processor adds up in another order


def signal(count):
    """`count` samples in [-1, 1]: a chirp over the whole band, harmonics of 140 Hz that swell, and noise."""
    seconds = np.arange(count) / whisper.audio.SAMPLE_RATE
    length = count / whisper.audio.SAMPLE_RATE
    chirp = np.sin(2 * np.pi * (50 * seconds + 7900 / (2 * length) * seconds**2))
    harmonics = sum(np.sin(2 * np.pi * 140 * n * seconds) / n for n in range(1, 12))
    noise = np.random.RandomState(30).randn(count)
    return 0.3 * chirp + 0.2 * harmonics * np.sin(np.pi * seconds / length) + 0.01 * noise


def compute():
    """All arrays of the file by name."""
    samples = np.zeros(whisper.audio.N_SAMPLES, np.int16)
    for part in (slice(0, 32_000), slice(-8_000, None)):
        samples[part] = np.rint(32_767 * np.clip(signal(samples[part].size), -1, 1))
    return {
        "samples": samples,
        "mel": whisper.log_mel_spectrogram(samples.astype(np.float32) / 32_768).numpy(),
        "filters": whisper.audio.mel_filters("cpu", 80).numpy(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed file instead of writing it")
    check = parser.parse_args().check
    fresh = compute()
    if not check:
        np.savez_compressed(FILE, **fresh)
        soundfile.write(FILE.with_suffix(".flac"), fresh["samples"][:8_000], whisper.audio.SAMPLE_RATE)
        return 0
    with np.load(FILE) as stored:
        errors = {name: np.abs(fresh[name].astype(float) - stored[name]).max() for name in fresh}
    print(f"{FILE.name}: openai-whisper {whisper.__version__}, torch {torch.__version__}, largest differences {errors}")
    return 0 if all(error <= TOLERANCE for error in errors.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
