"""Stem faders: one gain per stem, moved without zipper noise; and the crossfade of two streams."""

from __future__ import annotations

import numpy as np
from numba import njit

from realtime_sep.types import Float32

#: Seconds in which a fader travels by a linear gain of one.  Shorter clicks, longer feels slow.
TRAVEL = 0.02


@njit(cache=True, nogil=True)
def _mix(stems, gains, targets, reach, out):  # type: ignore[no-untyped-def]
    """Sum of gain times stem; gains ramp linearly towards their targets over the hop."""
    count, frames, channels = stems.shape
    for s in range(count):
        start = gains[s]
        way = targets[s] - start
        if not abs(way) < np.inf:  # no place to go to
            way = np.float32(0)
        end = start + min(max(way, -reach), reach)
        slope = (end - start) / np.float32(frames)
        for i in range(frames):
            gain = start + slope * np.float32(i + 1)
            for c in range(channels):
                value = gain * stems[s, i, c]
                out[i, c] = value if s == 0 else out[i, c] + value
        gains[s] = end


class Faders:
    """Mixes stems down.

    Attributes:
        targets: `(stems,)` linear gains to go to; written by whoever moves the faders.  A fader
            whose target is not finite stays where it is.
    """

    def __init__(self, stems: int, samplerate: int) -> None:
        self.targets: Float32 = np.ones(stems, np.float32)
        self._gains: Float32 = np.ones(stems, np.float32)
        self._samplerate = samplerate

    def settle(self) -> None:
        """Be at the targets at once."""
        np.copyto(self._gains, self.targets, where=np.isfinite(self.targets))

    def process(self, stems: Float32, out: Float32) -> None:
        """Mix `(stems, frames, channels)` into `out` `(frames, channels)`."""
        reach = np.float32(len(out) / (TRAVEL * self._samplerate))
        _mix(stems, self._gains, self.targets, reach, out)


@njit(cache=True, nogil=True)
def crossfade(old, new, position, length):  # type: ignore[no-untyped-def]
    """Blend `new` (stems, frames, channels) into `old`, linearly, `position` of `length` on."""
    for i in range(old.shape[1]):
        weight = min(np.float32(position + i + 1) / np.float32(length), np.float32(1))
        rest = np.float32(1) - weight
        for s in range(old.shape[0]):
            for c in range(old.shape[2]):
                old[s, i, c] = rest * old[s, i, c] + weight * new[s, i, c]
