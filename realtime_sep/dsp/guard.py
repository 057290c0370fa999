"""Keeps what a separator must not send, NaN, Inf and absurd levels, away from everything after it.

A bad hop is replaced: every stem but the last becomes silence, the last one takes the whole mix, so
the stems still add up.  Both ways the change is spread over `FADE` frames, from the last good value
down and from zero up, so that it does not click.  A separator that was reset gives nothing of use
for as long as its latency; its stems rise again after that.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from realtime_sep.types import Float32

FADE = 64
#: A stem may exceed the recent peak of the mix by this factor (18 dB) before it is absurd: a mask
#: bounded at 2 and the overlap of windows stay far below, a model gone wild far above.
RATIO = 8.0
#: Peak of the mix below which `RATIO` is not applied to anything smaller (-60 dBFS).
FLOOR = 1e-3
#: Input samples beyond this (+60 dBFS) are not audio; squares of them would leave float32 behind.
INPUT_LIMIT = 1e3
#: Seconds in which the remembered peak of the mix falls to 1/e; for slow separators, four times
#: their latency: what comes out is to be compared with what went in that long ago.
_MEMORY = 3.0


@njit(cache=True, nogil=True)
def sanitise(hop, out):  # type: ignore[no-untyped-def]
    """Copy `(frames, channels)` with what is not audio replaced by zero.

    Returns `(bad samples, peak)`.
    """
    bad = 0
    peak = np.float32(0)
    for i in range(hop.shape[0]):
        for c in range(hop.shape[1]):
            x = hop[i, c]
            size = abs(x)
            if not size <= INPUT_LIMIT:
                x = np.float32(0)
                size = np.float32(0)
                bad += 1
            out[i, c] = x
            peak = max(peak, size)
    return bad, peak


@njit(cache=True, nogil=True)
def _guard(stems, dry, limit, settling, state, last, held):  # type: ignore[no-untyped-def]
    """Returns whether the hop was bad.

    `state` is how long to wait before the stems may rise, how much of them is heard, and how much
    of `held`, the values that they had when they went bad; the latter two in 0..FADE.
    """
    count, frames, channels = stems.shape
    bad = False
    for s in range(count):
        for i in range(frames):
            for c in range(channels):
                if not abs(stems[s, i, c]) <= limit:
                    bad = True
    wait, wet, tail = state
    if bad:
        if wet > 0:
            held[:] = last
            wet = 0
            tail = FADE
        wait = settling
    if bad or wet < FADE:
        for i in range(frames):
            tail = max(tail - 1, 0)
            if not bad and wait > 0:
                wait -= 1
            elif not bad:
                wet = min(wet + 1, FADE)
            rise = np.float32(wet) / np.float32(FADE)
            fall = np.float32(tail) / np.float32(FADE)
            for c in range(channels):
                rest = dry[i, c]
                for s in range(count - 1):
                    value = held[s, c] * fall
                    if wet > 0:
                        value += stems[s, i, c] * rise
                    stems[s, i, c] = value
                    rest -= value
                stems[count - 1, i, c] = rest
    for s in range(count):
        for c in range(channels):
            last[s, c] = stems[s, frames - 1, c]
    state[0], state[1], state[2] = wait, wet, tail
    return bad


class StemGuard:
    """Checks the stems of one stream, hop by hop.

    Args:
        latency: of the separator, in frames.
    """

    def __init__(self, stems: int, channels: int, samplerate: int, latency: int = 0) -> None:
        self._settling = latency
        self._memory = max(_MEMORY * samplerate, 4 * latency)
        self._state = np.zeros(3, np.int64)
        self._last: Float32 = np.zeros((stems, channels), np.float32)
        self._held: Float32 = np.zeros((stems, channels), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        self._state[:] = 0, FADE, 0
        self._last[:] = 0
        self._level = 0.0

    def process(self, stems: Float32, dry: Float32, input_peak: float) -> bool:
        """Mend `stems` `(stems, frames, channels)` in place.

        Args:
            dry: the mix, delayed like the stems.
            input_peak: of the newest hop of the mix.

        Returns:
            Whether the hop was bad: then the separator's state is not to be trusted either, and it
            is expected to be reset.
        """
        self._level = max(input_peak, self._level * math.exp(-len(dry) / self._memory))
        limit = np.float32(RATIO * max(self._level, FLOOR))
        return bool(_guard(stems, dry, limit, self._settling, self._state, self._last, self._held))
