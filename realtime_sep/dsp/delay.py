"""A fixed delay of whole frames."""

from __future__ import annotations

import numpy as np
from numba import njit

from realtime_sep.types import Float32


@njit(cache=True, nogil=True)
def _delay(block, line, position, out):  # type: ignore[no-untyped-def]
    """Swap each frame with the one written `len(line)` frames ago. Returns the new position."""
    for i in range(block.shape[0]):
        for c in range(block.shape[1]):
            past = line[position, c]
            line[position, c] = block[i, c]
            out[i, c] = past
        position += 1
        if position == line.shape[0]:
            position = 0
    return position


class Delay:
    """Delays a stream by `frames`; zero is allowed and copies."""

    def __init__(self, frames: int, channels: int) -> None:
        self.frames = frames
        self._line: Float32 = np.zeros((frames, channels), np.float32)
        self._position = 0

    def reset(self) -> None:
        """Forget the past."""
        self._line[:] = 0
        self._position = 0

    def process(self, block: Float32, out: Float32) -> None:
        """Write `(n, channels)` of the stream `frames` ago to `out`, which may be `block`."""
        if self.frames:
            self._position = _delay(block, self._line, self._position, out)
        elif out is not block:
            out[:] = block
