"""A real song, where there is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from realtime_sep.types import Float32

#: Before, the invented song has so little voice that without it, it sounds alike.
SUNG_S = 8


def a_song(data: Path, seconds: float) -> tuple[Float32, int]:
    """A stretch of it, below full scale so that the limiter has nothing to do; and its rate."""
    path = data / "eval" / "musdb18_Music_Delta_80s_Rock" / "mixture.flac"
    if path.exists():
        import soundfile

        audio, samplerate = soundfile.read(path, dtype="float32", always_2d=True)
    else:
        sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
        try:
            from song import render_song
        except ImportError:
            pytest.skip(f"no {path}, and no examples/song.py")
        finally:
            sys.path.pop(0)
        made = render_song()
        samplerate = made.samplerate
        audio = made.mix[SUNG_S * samplerate :]
    audio = np.ascontiguousarray(audio[: round(seconds * samplerate)], np.float32)
    return audio * np.float32(0.5 / np.abs(audio).max()), samplerate


def found(
    recorded: Float32, expected: Float32, piece: int
) -> Iterator[tuple[Float32, Float32, float]]:
    """Each piece of `expected`: where `recorded` is most like it, itself, and how like.

    A server that runs dry repeats or leaves out some frames, so pieces may be shifted.  Likeness is
    correlation, by the loudness of the place: a similar but louder place is not the one.
    """
    size = 1 << (len(recorded) + piece).bit_length()
    spectrum = np.fft.rfft(recorded.sum(axis=1), size)
    powers = np.cumsum(np.pad(recorded.sum(axis=1, dtype=np.float64) ** 2, (1, 0)))
    loudness = np.sqrt(powers[piece:-1] - powers[: -piece - 1] + 1e-6)
    for start in range(0, len(expected) - piece + 1, piece):
        part = expected[start : start + piece]
        fit = np.fft.irfft(spectrum * np.conj(np.fft.rfft(part.sum(axis=1), size)))
        place = int(np.argmax(fit[: len(recorded) - piece] / loudness))
        heard = recorded[place : place + piece]
        norm = float(np.linalg.norm(heard) * np.linalg.norm(part)) or 1.0
        yield heard, part, float(np.vdot(heard, part)) / norm
