"""A real song, where there is one."""

from __future__ import annotations

import sys
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
