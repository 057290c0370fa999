"""A delay of whole frames: fixed, or changed by a crossfade."""

from __future__ import annotations

import numpy as np
from numba import njit

from realtime_sep.dsp.faders import crossfade
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


class ShiftingDelay:
    """A delay that may become another one while it runs.

    The other one is made outside the hot path; it listens until it is full, and is then faded to.

    Args:
        frames: to begin with.
        most: frames per block, at most.
        fade: frames of a crossfade.
    """

    def __init__(self, frames: int, channels: int, most: int, fade: int) -> None:
        self._now = Delay(frames, channels)
        self._next: Delay | None = None
        self._channels, self._fade = channels, fade
        self._crossed = -1  # frames of the crossfade that are done; -1: it has not begun
        self._heard: Float32 = np.zeros((1, most, channels), np.float32)
        self._other: Float32 = np.zeros((1, most, channels), np.float32)

    @property
    def frames(self) -> int:
        """What it delays by, or, while that changes, did."""
        return self._now.frames

    def another(self, frames: int) -> Delay:
        """What `listen` wants, made in any thread."""
        other = Delay(frames, self._channels)
        scratch = np.zeros((1, self._channels), np.float32)
        other.process(scratch, scratch)  # compiled now, if it was not
        return other

    def reset(self) -> None:
        """Forget the past."""
        self._now.reset()
        if self._next is not None:
            self._next.reset()

    def listen(self, other: Delay) -> None:
        """Let another one listen; it wants to hear as many frames as it delays by."""
        self._next, self._crossed = other, -1

    def shift(self) -> None:
        """Begin to fade to the other one."""
        self._crossed = 0

    def settle(self) -> None:
        """Be the other one, if that has not happened yet: nobody may have listened."""
        if self._next is not None:
            self._now, self._next = self._next, None

    def process(self, block: Float32, out: Float32) -> None:
        """Write `(n, channels)` of the delayed stream to `out`, which may be `block`."""
        if self._next is None and not self._now.frames:
            if out is not block:
                out[:] = block
            return
        # In memory of its own, so that the kernels meet one layout only.
        heard = self._heard[:, : len(block)]
        heard[0] = block
        if self._next is not None:
            other = self._other[:, : len(block)]
            self._next.process(heard[0], other[0])
        self._now.process(heard[0], heard[0])
        if self._next is not None and self._crossed >= 0:
            crossfade(heard, other, self._crossed, self._fade)
            self._crossed += len(block)
            if self._crossed >= self._fade:
                self.settle()
        out[:] = heard[0]
