"""Keeps what a separator must not send, NaN, Inf and absurd levels, away from everything after it.

A bad hop is replaced: every stem but the last becomes silence, the last one takes the whole mix, so
the stems still add up.  Both ways the change is spread over `FADE` frames, from the last good value
down and from zero up, so that it does not click.
"""

from __future__ import annotations

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
#: Seconds in which the remembered peak of the mix falls to 1/e.
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
def _guard(stems, dry, limit, weight, held):  # type: ignore[no-untyped-def]
    """Returns `(was bad, new weight)`; `weight` in 0..FADE is how much of the stems is heard."""
    count, frames, channels = stems.shape
    bad = False
    for s in range(count):
        for i in range(frames):
            for c in range(channels):
                if not abs(stems[s, i, c]) <= limit:
                    bad = True
    if bad or weight < FADE:
        for i in range(frames):
            weight = max(weight - 1, 0) if bad else min(weight + 1, FADE)
            part = np.float32(weight) / np.float32(FADE)
            for c in range(channels):
                rest = dry[i, c]
                for s in range(count - 1):
                    value = (held[s, c] if bad else stems[s, i, c]) * part
                    stems[s, i, c] = value
                    rest -= value
                stems[count - 1, i, c] = rest
    if not bad:
        for s in range(count):
            for c in range(channels):
                held[s, c] = stems[s, frames - 1, c]
    return bad, weight


class StemGuard:
    """Checks the stems of one stream, hop by hop."""

    def __init__(self, stems: int, channels: int, samplerate: int) -> None:
        self._samplerate = samplerate
        self._held: Float32 = np.zeros((stems, channels), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        self._held[:] = 0
        self._weight = FADE
        self._level = 0.0

    def process(self, stems: Float32, dry: Float32, input_peak: float) -> bool:
        """Mend `stems` `(stems, frames, channels)` in place.

        Args:
            dry: the mix, delayed like the stems.
            input_peak: of the newest hop of the mix.

        Returns:
            Whether the hop was bad: then the separator's state is not to be trusted either.
        """
        decay = 1.0 - len(dry) / (_MEMORY * self._samplerate)
        self._level = max(input_peak, self._level * decay)
        limit = np.float32(RATIO * max(self._level, FLOOR))
        bad, self._weight = _guard(stems, dry, limit, self._weight, self._held)
        return bool(bad)
