"""Filters of second order: high-pass and low-pass, and an equaliser of three bands.

The equaliser's are those of Robert Bristow-Johnson's "Audio EQ Cookbook" (W3C note, 2021) as state
variable filters (Andrew Simper, "Linear Trapezoidal Integrated SVF", 2013), which do not click when
they are turned quickly.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from realtime_sep.effects.base import BaseEffect
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32

#: `b0 b1 b2 a1 a2`, where a0 is 1.
Biquad = tuple[float, float, float, float, float]
#: `g k` of a state variable filter, and how much of input, band and low leave it.
Band = tuple[float, float, float, float, float]


def tangent(hz: float, samplerate: float) -> float:
    """Where the bilinear transform takes a frequency."""
    return math.tan(math.pi * min(hz, 0.49 * samplerate) / samplerate)


def highpass_coefficients(hz: float, samplerate: float) -> Biquad:
    """`b0 b1 b2 a1 a2` of a second-order Butterworth high-pass (bilinear transform)."""
    k = tangent(hz, samplerate)
    norm = 1 / (1 + math.sqrt(2) * k + k * k)
    return norm, -2 * norm, norm, 2 * (k * k - 1) * norm, (1 - math.sqrt(2) * k + k * k) * norm


def lowpass_coefficients(hz: float, samplerate: float) -> Biquad:
    """`b0 b1 b2 a1 a2` of a second-order Butterworth low-pass (bilinear transform)."""
    k = tangent(hz, samplerate)
    norm = 1 / (1 + math.sqrt(2) * k + k * k)
    b = k * k * norm
    return b, 2 * b, b, 2 * (k * k - 1) * norm, (1 - math.sqrt(2) * k + k * k) * norm


def bell(hz: float, samplerate: float, db: float, q: float) -> Band:
    """`db` louder around `hz`."""
    a = 10 ** (db / 40)
    return tangent(hz, samplerate), 1 / (q * a), 1.0, (a - 1 / a) / q, 0.0


def low_shelf(hz: float, samplerate: float, db: float) -> Band:
    """`db` louder below `hz`, where it is half of that."""
    a, k = 10 ** (db / 40), math.sqrt(2)
    return tangent(hz, samplerate) / math.sqrt(a), k, 1.0, k * (a - 1), a * a - 1


def high_shelf(hz: float, samplerate: float, db: float) -> Band:
    """`db` louder above `hz`, where it is half of that."""
    a, k = 10 ** (db / 40), math.sqrt(2)
    return tangent(hz, samplerate) * math.sqrt(a), k, a * a, k * (1 - a) * a, 1 - a * a


@njit(cache=True, nogil=True)
def _band(block, g, k, m0, m1, m2, state):  # type: ignore[no-untyped-def]
    """In place; a state variable filter, `state` (channels, 2) in double precision."""
    a1 = 1 / (1 + g * (g + k))
    for c in range(block.shape[1]):
        first, second = state[c, 0], state[c, 1]
        for i in range(block.shape[0]):
            x = np.float64(block[i, c])
            band = a1 * (first + g * (x - second))
            low = second + g * band
            first, second = 2 * band - first, 2 * low - second
            block[i, c] = m0 * x + m1 * band + m2 * low
        state[c, 0], state[c, 1] = first, second


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


class _Filter(BaseEffect):
    """One `f` and what becomes of it."""

    def allocate(self, channels: int, max_frames: int) -> None:
        self._state = np.zeros((channels, 2))

    def reset(self) -> None:
        super().reset()
        self._state[:] = 0
        self.tune()

    def run(self, block: Float32) -> None:
        _biquad(block, *self._coefficients, self._state)

    _coefficients: Biquad


class Highpass(_Filter):
    """12 dB per octave below `f`: takes away rumble, handling noise and breath."""

    name = "highpass"
    parameters = (Parameter("f", 80.0, 20.0, 1000.0, "Hz", label="Low cut"),)

    def tune(self) -> None:
        self._coefficients = highpass_coefficients(self.values["f"], self.samplerate)


class Lowpass(_Filter):
    """12 dB per octave above `f`."""

    name = "lowpass"
    parameters = (Parameter("f", 12000.0, 200.0, 20000.0, "Hz", label="High cut", log=True),)

    def tune(self) -> None:
        self._coefficients = lowpass_coefficients(self.values["f"], self.samplerate)


#: Where the shelves of the equaliser are half of their gain, and the width of its middle.
LOW_HZ, HIGH_HZ, MIDDLE_Q = 120.0, 8000.0, 0.7


class Equaliser(BaseEffect):
    """Bass, middle and treble, as on a mixing desk; where nothing is turned, nothing changes."""

    name = "eq"
    parameters = (
        Parameter("low", 0.0, -18.0, 18.0, "dB", label="Bass"),
        Parameter("mid", 0.0, -18.0, 18.0, "dB", label="Middle"),
        Parameter("f", 1000.0, 200.0, 5000.0, "Hz", label="Middle: place", log=True),
        Parameter("high", 0.0, -18.0, 18.0, "dB", label="Treble"),
    )

    def allocate(self, channels: int, max_frames: int) -> None:
        self._states = np.zeros((3, channels, 2))

    def reset(self) -> None:
        super().reset()
        self._states[:] = 0
        self.tune()

    def tune(self) -> None:
        values, rate = self.values, self.samplerate
        self._bands = (
            low_shelf(LOW_HZ, rate, values["low"]),
            bell(values["f"], rate, values["mid"], MIDDLE_Q),
            high_shelf(HIGH_HZ, rate, values["high"]),
        )

    def run(self, block: Float32) -> None:
        for band, state in zip(self._bands, self._states, strict=True):
            _band(block, *band, state)
