"""A look-ahead peak limiter: holds its ceiling exactly, and touches nothing that stays below it.

The gain that each sample asks for is held over the look-ahead (a sliding minimum), released slowly,
and averaged over the look-ahead: the gain is then down before the peak arrives, and every gain in
the average is at most what the peak asks for, so the ceiling holds without a clipper.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from realtime_sep.types import Float32

#: Release time constant in seconds: slow enough not to distort bass, fast enough not to pump.
RELEASE = 0.08


@njit(cache=True, nogil=True)
def _quiet(block, gains, ceiling):  # type: ignore[no-untyped-def]
    """Whether nothing is to be done: nothing above the ceiling, and every gain back at one."""
    loud = False
    for i in range(block.shape[0]):
        for c in range(block.shape[1]):
            loud |= not abs(block[i, c]) <= ceiling
    for gain in gains:  # a sample that asked for less got less at once: `asked` is covered
        loud |= gain < 1.0
    return not loud


@njit(cache=True, nogil=True)
def _limit(block, line, asked, gains, position, ceiling, release):  # type: ignore[no-untyped-def]
    """In place; the lines are circular and `len(line)` is the look-ahead (at least one).

    Returns `(position, reduced, bad)`: whether any gain was below one, and the number of samples
    that were not finite.
    """
    look = line.shape[0]
    channels = block.shape[1]
    reduced = False
    bad = 0
    idle = _quiet(block, gains, ceiling)
    held = gains[position - 1]
    for i in range(block.shape[0]):
        gain = 1.0
        if not idle:
            peak = np.float32(0)
            for c in range(channels):
                x = block[i, c]
                if not abs(x) < np.inf:
                    x = np.float32(0)
                    block[i, c] = x
                    bad += 1
                peak = max(peak, abs(x))
            wanted = ceiling / peak if peak > ceiling else np.float32(1)
            # The minimum over the last look + 1 samples; asked[position] is the oldest of them.
            least = wanted
            for k in range(look):
                least = min(least, asked[k])
            asked[position] = wanted
            held = 1.0 if held > 0.99999 else held + (1.0 - held) * release
            held = min(held, least)
            gains[position] = held
            total = 0.0
            for k in range(look):
                total += gains[k]
            gain = total / look
            reduced |= gain < 1.0
        for c in range(channels):
            past = line[position, c]
            line[position, c] = block[i, c]
            # Rounding may leave the product one unit above; the ceiling is a promise.
            block[i, c] = min(max(past * gain, -ceiling), ceiling)
        position += 1
        if position == look:
            position = 0
    return position, reduced, bad


class Limiter:
    """Limits a stream in place; the output lags by `latency` frames.

    Args:
        ceiling: dBFS.
        lookahead: frames, at least 1.

    Attributes:
        ceiling: linear; may be changed between blocks.
    """

    def __init__(
        self, samplerate: int, channels: int, ceiling: float = -1.0, lookahead: int = 32
    ) -> None:
        self.latency = lookahead
        self.ceiling = np.float32(10 ** (ceiling / 20))
        self._release = 1 - math.exp(-1 / (RELEASE * samplerate))
        self._line: Float32 = np.zeros((lookahead, channels), np.float32)
        self._asked: Float32 = np.ones(lookahead, np.float32)
        # The last steps of a release are too small for float32: it would never end.
        self._gains = np.ones(lookahead)
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        self._line[:] = 0
        self._asked[:] = 1
        self._gains[:] = 1
        self._position = 0

    def process(self, block: Float32) -> tuple[bool, int]:
        """Limit `(frames, channels)` in place.

        Returns:
            `(whether the gain was reduced, samples that were not finite and became zero)`.
        """
        self._position, reduced, bad = _limit(
            block,
            self._line,
            self._asked,
            self._gains,
            self._position,
            self.ceiling,
            self._release,
        )
        return bool(reduced), int(bad)
