"""Memory that one client's audio travels through between the server and the engine process.

A slot holds two of the lock-free rings that devices use, and the faders.  Neither side ever waits
for the other, nothing is copied through the kernel, and memory is what it was at the start.
"""

from __future__ import annotations

from multiprocessing import get_context
from typing import Any

import numpy as np
import numpy.typing as npt

from realtime_sep.native import Ring
from realtime_sep.types import Float32

#: Most outputs that a client may ask for: the mix and the stems of any model.
MAX_OUTPUTS = 9
#: Frames of stereo, and of two stereo stems, that the rings hold: 0.7 s at 48 kHz.
_FRAMES = 1 << 15
_IN_BYTES = Ring.bytes_needed(_FRAMES, 2)
_OUT_BYTES = Ring.bytes_needed(_FRAMES, 4)
#: What rings may rely on; the allocator of shared memory promises 8 bytes.
_ALIGNMENT = 128


class Slot:
    """One client's place; made by the server, and handed to the engine process.

    Attributes:
        audio: ring of the mix, written by the server.
        stems: ring of the outputs side by side, written by the engine process.
        gains: linear, one for each of the model's stems; written by the server at any time.
    """

    audio: Ring
    stems: Ring

    def __init__(self) -> None:
        array = get_context("spawn").RawArray
        self._memory: tuple[Any, Any, Any] = (
            array("B", _IN_BYTES + _ALIGNMENT),
            array("B", _OUT_BYTES + _ALIGNMENT),
            array("f", MAX_OUTPUTS),
        )
        self._bind()

    def _bind(self) -> None:
        self.gains: Float32 = np.frombuffer(self._memory[2], np.float32)

    def __getstate__(self) -> tuple[Any, Any, Any]:
        return self._memory

    def __setstate__(self, memory: tuple[Any, Any, Any]) -> None:
        self._memory = memory
        self._bind()

    def lay_out(self, channels: int, outputs: int) -> None:
        """Make fresh, empty rings; only while nobody uses the old ones."""
        self.audio = _place(self._memory[0], channels)
        self.stems = _place(self._memory[1], channels * outputs)
        self.gains[:] = 1

    @property
    def max_frames(self) -> int:
        """Frames that a message may have, so that it and its answer fit."""
        return min(self.audio.capacity, self.stems.capacity)

    def attach(self) -> None:
        """Open, in the engine process, the rings that the server has laid out."""
        self.audio = Ring.attach(_aligned(self._memory[0]))
        self.stems = Ring.attach(_aligned(self._memory[1]))


def _place(memory: Any, width: int) -> Ring:
    """The longest ring of `width` samples per frame that fits."""
    usable = _aligned(memory)
    frames = 4 * _FRAMES
    while Ring.bytes_needed(frames, width) > len(usable):
        frames //= 2
    return Ring.place(usable, frames, width)


def _aligned(memory: Any) -> npt.NDArray[np.uint8]:
    """The part of `memory` that begins where a ring may; the same in every process."""
    whole: npt.NDArray[np.uint8] = np.frombuffer(memory, np.uint8)
    skip = -whole.ctypes.data % _ALIGNMENT
    return whole[skip : skip + len(whole) - _ALIGNMENT]
