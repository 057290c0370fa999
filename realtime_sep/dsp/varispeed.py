"""A resampler whose ratio may change all the time, between the clocks of two devices.

A windowed sinc (Kaiser) in phases, linear between neighbouring phases; the ratio itself moves
linearly within a block, so nothing steps.  Nothing is allocated while it runs.

Images and aliases of whatever lies below 0.45 of the lower rate are at least 100 dB down; above
that (21.6 kHz at 48 kHz) they come up with the filter's slope, as everywhere where delay counts.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from realtime_sep.types import Float32

#: Frames of the filter to either side of a place, where the source's rate is the lower one.
HALF = 32
#: Phases of the table: linear between so many, the error is below -110 dB.
_PHASES = 512
#: Of Kaiser's window: 110 dB.
_BETA = 11.2
#: Width of the slope for that attenuation (Kaiser 1974), in cycles per frame.
_SLOPE = (110 - 8) / (2.285 * 2 * math.pi * (2 * HALF - 1))
#: End of the slope, in cycles per frame: what lies above comes back below 0.455.
_STOP = 0.545


def half_taps(source: float, target: float) -> int:
    """Frames of the source that the filter needs after a place, and before it."""
    return math.ceil(HALF * max(1.0, source / target))


def _table(source: float, target: float) -> Float32:
    """`(phases + 1, taps)`: row p is for a place p / phases behind the frame in the middle."""
    half = half_taps(source, target)
    shrunk = min(1.0, target / source)
    cutoff = (_STOP - _SLOPE / 2) * shrunk
    phase = np.arange(_PHASES + 1)[:, None] / _PHASES
    t = np.arange(-half + 1, half + 1)[None, :] - phase
    window = np.i0(_BETA * np.sqrt(np.clip(1 - (t / half) ** 2, 0, None))) / np.i0(_BETA)
    taps = 2 * cutoff * np.sinc(2 * cutoff * t) * window
    table: Float32 = (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
    return table


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _render(source, place, step, last_step, table, out):  # type: ignore[no-untyped-def]
    """Fill `out` with `source` at `place`, `place + step`, ...; the step ends as `last_step`.

    The filter for a place between frames n and n + 1 begins with frame `n - half + 1`.  Returns the
    place that follows.
    """
    phases = table.shape[0] - 1
    taps = table.shape[1]
    frames, channels = out.shape
    growth = (last_step - step) / frames
    for i in range(frames):
        n = math.floor(place)
        fine = (place - n) * phases
        row = int(fine)
        part = np.float32(fine - row)
        first = n - taps // 2 + 1
        for c in range(channels):
            low = np.float32(0)
            high = np.float32(0)
            for k in range(taps):
                x = source[first + k, c]
                low += table[row, k] * x
                high += table[row + 1, k] * x
            out[i, c] = low + part * (high - low)
        step += growth
        place += step
    return place


@njit(cache=True, nogil=True)
def shift(line, block):  # type: ignore[no-untyped-def]
    """Move the frames of `line` up by as many as `block` has, and put those behind."""
    kept = line.shape[0] - block.shape[0]
    for i in range(line.shape[0]):
        for c in range(line.shape[1]):
            line[i, c] = line[i + block.shape[0], c] if i < kept else block[i - kept, c]


class Varispeed:
    """Reads a stretch of frames at places that are `step` apart.

    Args:
        source, target: nominal rates in Hz; they set the filter, not the step.

    Attributes:
        half: frames of the source that are needed before and after every place.
        step: frames of the source per frame of the output, as it was last.
    """

    def __init__(self, source: float, target: float) -> None:
        self.half = half_taps(source, target)
        self.nominal = self.step = source / target
        self._filter = _table(source, target)

    def render(self, source: Float32, place: float, step: float, out: Float32) -> float:
        """Fill `out` `(n, channels)` from `place` on; by its end the step is `step`.

        Args:
            source: `(frames, channels)`; frames from `floor(place) - half + 1` to
                `floor(last place) + half` are read, and must be there.

        Returns:
            The place of the frame that would follow.
        """
        place = _render(source, place, self.step, step, self._filter, out)
        self.step = step
        return float(place)

    def reach(self, frames: int, step: float) -> float:
        """How far `frames` frames of output lead, if the step becomes `step` meanwhile."""
        # The sum of `step += growth` over all frames.
        return frames * self.step + (step - self.step) * (frames + 1) / 2
