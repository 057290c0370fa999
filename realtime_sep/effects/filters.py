"""High-pass: takes away rumble, handling noise and breath below the voice."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from realtime_sep.effects.base import BaseEffect
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32


def highpass_coefficients(hz: float, samplerate: float) -> tuple[float, float, float, float, float]:
    """`b0 b1 b2 a1 a2` of a second-order Butterworth high-pass (bilinear transform)."""
    k = math.tan(math.pi * min(hz, 0.49 * samplerate) / samplerate)
    norm = 1 / (1 + math.sqrt(2) * k + k * k)
    return norm, -2 * norm, norm, 2 * (k * k - 1) * norm, (1 - math.sqrt(2) * k + k * k) * norm


@njit(cache=True, nogil=True)
def _biquad(block, b0, b1, b2, a1, a2, state):  # type: ignore[no-untyped-def]
    """In place; direct form II transposed, `state` (channels, 2) in double precision."""
    for c in range(block.shape[1]):
        first, second = state[c, 0], state[c, 1]
        for i in range(block.shape[0]):
            x = np.float64(block[i, c])
            y = b0 * x + first
            first = b1 * x - a1 * y + second
            second = b2 * x - a2 * y
            block[i, c] = y
        state[c, 0], state[c, 1] = first, second


class Highpass(BaseEffect):
    """12 dB per octave below `f`."""

    name = "highpass"
    parameters = (Parameter("f", 80.0, 20.0, 1000.0, "Hz", label="Low cut"),)

    def allocate(self, channels: int, max_frames: int) -> None:
        self._state = np.zeros((channels, 2))

    def reset(self) -> None:
        super().reset()
        self._state[:] = 0
        self.tune()

    def tune(self) -> None:
        self._coefficients = highpass_coefficients(self.values["f"], self.samplerate)

    def run(self, block: Float32) -> None:
        _biquad(block, *self._coefficients, self._state)
