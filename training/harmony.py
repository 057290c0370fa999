"""Which key a sound is in: a singer follows the harmony, a voice drawn at random does not.

Mixed at random, a voice hardly ever shares partials with the music, which makes it far easier to
find than in a song; `agreement` lets a mixer choose partners that could have sung together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.shards import SAMPLE_RATE, Audio

SIZE, HOP = 8192, 4096
LOWEST, HIGHEST = 80.0, 1500.0  # Hz: of the fundamentals and first partials
_HERTZ = np.fft.rfftfreq(SIZE, 1 / SAMPLE_RATE)
_USED = np.flatnonzero((_HERTZ > LOWEST) & (_HERTZ < HIGHEST))
_CLASS = np.round(12 * np.log2(_HERTZ[_USED] / 440)).astype(int) % 12
_WINDOW = np.hanning(SIZE)


def chroma(audio: Audio) -> npt.NDArray[np.float64]:
    """How much of each pitch class is in `(samples, channels)`: `(12,)`, length one, mean nought.

    Roots of amplitudes, so that soft chord notes count beside loud ones.
    """
    mono = audio.mean(axis=1)
    if len(mono) < SIZE:
        mono = np.pad(mono, (0, SIZE - len(mono)))
    frames = np.lib.stride_tricks.sliding_window_view(mono, SIZE)[::HOP]
    spectrum = np.sqrt(np.abs(np.fft.rfft(frames * _WINDOW, axis=1)[:, _USED])).mean(axis=0)
    found = np.bincount(_CLASS, spectrum, 12) / np.bincount(_CLASS, minlength=12)
    found -= found.mean()
    return found / (np.sqrt(np.square(found).sum()) + 1e-9)


def agreement(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Correlation of two chromas, -1 to 1."""
    return float(one @ other)
