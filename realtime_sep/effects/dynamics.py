"""What is too soft becomes silent, what is too loud softer: gate, compressor, de-esser, limiter."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from realtime_sep.dsp.limiter import Limiter as PeakLimiter
from realtime_sep.effects.base import BaseEffect
from realtime_sep.effects.filters import tangent
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32


@njit(cache=True, nogil=True)
def _peak(block, i):  # type: ignore[no-untyped-def]
    """Largest sample of frame `i` of all channels."""
    largest = np.float32(0)
    for c in range(block.shape[1]):
        largest = max(largest, abs(block[i, c]))
    return largest


@njit(cache=True, nogil=True)
def _gate(block, threshold, floor, attack, hold, release, state):  # type: ignore[no-untyped-def]
    """In place; `state` is the gain and the frames for which it stays open yet."""
    gain, left = state
    for i in range(block.shape[0]):
        if _peak(block, i) >= threshold:
            left = hold
        open_ = left > 0
        left -= open_
        target = 1.0 if open_ else floor
        gain += (attack if open_ else release) * (target - gain)
        for c in range(block.shape[1]):
            block[i, c] *= gain
    state[0], state[1] = gain, left


class Gate(BaseEffect):
    """Closes where nothing is sung, so that a room or a loudspeaker is not heard through it."""

    name = "gate"
    parameters = (
        Parameter("threshold", -50.0, -90.0, 0.0, "dB", label="Gate"),
        Parameter("range", 60.0, 0.0, 90.0, "dB", label="Gate: depth"),
        Parameter("attack", 2.0, 0.1, 50.0, "ms", label="Gate: attack"),
        Parameter("hold", 150.0, 0.0, 1000.0, "ms", label="Gate: hold"),
        Parameter("release", 100.0, 5.0, 2000.0, "ms", label="Gate: release"),
    )

    def allocate(self, channels: int, max_frames: int) -> None:
        self._state = np.zeros(2)

    def reset(self) -> None:
        super().reset()
        self._state[:] = 0

    def run(self, block: Float32) -> None:
        values = self.values
        _gate(
            block,
            10 ** (values["threshold"] / 20),
            10 ** (-values["range"] / 20),
            coefficient(values["attack"], self.samplerate),
            round(1e-3 * values["hold"] * self.samplerate),
            coefficient(values["release"], self.samplerate),
            self._state,
        )


def coefficient(ms: float, samplerate: float) -> float:
    """Of a one-pole smoother that goes 63 % of its way in `ms`."""
    return 1 - math.exp(-1 / (1e-3 * ms * samplerate))


@njit(cache=True, nogil=True)
def _compress(block, threshold, slope, knee, makeup, attack, release, state):  # type: ignore[no-untyped-def]
    """In place; levels in dB, `state[0]` the reduction."""
    reduction = state[0]
    for i in range(block.shape[0]):
        level = 20 * np.log10(max(np.float64(_peak(block, i)), 1e-6))
        over = level - threshold
        if over <= -knee / 2:
            wanted = 0.0
        elif over < knee / 2:
            wanted = slope * (over + knee / 2) ** 2 / (2 * knee)
        else:
            wanted = slope * over
        reduction += (attack if wanted > reduction else release) * (wanted - reduction)
        gain = 10 ** ((makeup - reduction) / 20)
        for c in range(block.shape[1]):
            block[i, c] *= gain
    state[0] = reduction


class Compressor(BaseEffect):
    """Above the threshold only one part in `ratio` of each dB is left; soft knee, stereo-linked.

    Feed-forward with smoothing in the log domain, after Giannoulis, Massberg and Reiss, "Digital
    Dynamic Range Compressor Design", JAES 60 (2012).
    """

    name = "compressor"
    parameters = (
        Parameter("threshold", -18.0, -60.0, 0.0, "dB", label="Compressor"),
        Parameter("ratio", 3.0, 1.0, 20.0, ":1", label="Compressor: ratio"),
        Parameter("knee", 6.0, 0.0, 24.0, "dB", label="Compressor: knee"),
        Parameter("attack", 8.0, 0.1, 200.0, "ms", label="Compressor: attack"),
        Parameter("release", 120.0, 5.0, 2000.0, "ms", label="Compressor: release"),
        Parameter("makeup", 0.0, 0.0, 24.0, "dB", label="Compressor: make-up"),
    )

    def allocate(self, channels: int, max_frames: int) -> None:
        self._state = np.zeros(1)

    def reset(self) -> None:
        super().reset()
        self._state[:] = 0

    def run(self, block: Float32) -> None:
        values = self.values
        _compress(
            block,
            values["threshold"],
            1 - 1 / values["ratio"],
            max(values["knee"], 1e-6),
            values["makeup"],
            coefficient(values["attack"], self.samplerate),
            coefficient(values["release"], self.samplerate),
            self._state,
        )


@njit(cache=True, nogil=True)
def _deess(block, g, threshold, deepest, attack, release, filters, state):  # type: ignore[no-untyped-def]
    """In place.  What lies above a frequency (of tangent `g`) is heard by a high-pass and turned
    down by a shelf; as state variable filters, see `filters`.

    `filters` (channels, 4) are those two; `state` is the high-pass's peak, which falls slowly, and
    the reduction in dB.
    """
    k = math.sqrt(2.0)
    heard = 1 / (1 + g * (g + k))
    peak, reduction = state
    for i in range(block.shape[0]):
        peak -= release * peak
        for c in range(block.shape[1]):
            x = np.float64(block[i, c])
            band = heard * (filters[c, 0] + g * (x - filters[c, 1]))
            low = filters[c, 1] + g * band
            filters[c, 0] = 2 * band - filters[c, 0]
            filters[c, 1] = 2 * low - filters[c, 1]
            peak = max(peak, abs(x - k * band - low))
        over = 20 * np.log10(max(peak, 1e-6)) - threshold
        reduction += attack * (min(max(over, 0.0), deepest) - reduction)
        a = 10 ** (-reduction / 40)
        lower = g * math.sqrt(a)
        shelf = 1 / (1 + lower * (lower + k))
        for c in range(block.shape[1]):
            x = np.float64(block[i, c])
            band = shelf * (filters[c, 2] + lower * (x - filters[c, 3]))
            low = filters[c, 3] + lower * band
            filters[c, 2] = 2 * band - filters[c, 2]
            filters[c, 3] = 2 * low - filters[c, 3]
            block[i, c] = a * a * x + k * (1 - a) * a * band + (1 - a * a) * low
    state[0], state[1] = peak, reduction


class Deesser(BaseEffect):
    """Turns what lies above `f` down to the threshold, by `range` at most: sharp s and t."""

    name = "deesser"
    parameters = (
        Parameter("f", 5500.0, 2000.0, 12000.0, "Hz", label="De-esser: from", log=True),
        Parameter("threshold", -30.0, -60.0, 0.0, "dB", label="De-esser"),
        Parameter("range", 12.0, 0.0, 24.0, "dB", label="De-esser: depth"),
    )

    def allocate(self, channels: int, max_frames: int) -> None:
        self._filters = np.zeros((channels, 4))
        self._state = np.zeros(2)
        self._attack = coefficient(0.5, self.samplerate)
        self._release = coefficient(50.0, self.samplerate)

    def reset(self) -> None:
        super().reset()
        self._filters[:] = 0
        self._state[:] = 0
        self.tune()

    def tune(self) -> None:
        self._tangent = tangent(self.values["f"], self.samplerate)

    def run(self, block: Float32) -> None:
        _deess(
            block,
            self._tangent,
            self.values["threshold"],
            self.values["range"],
            self._attack,
            self._release,
            self._filters,
            self._state,
        )


class Limiter(BaseEffect):
    """No sample is above the ceiling; below it nothing is touched.  32 frames late."""

    name = "limiter"
    parameters = (Parameter("ceiling", -1.0, -30.0, 0.0, "dB", label="Limiter"),)
    latency = 32

    def allocate(self, channels: int, max_frames: int) -> None:
        self._limiter = PeakLimiter(self.samplerate, channels, lookahead=self.latency)

    def reset(self) -> None:
        super().reset()
        self._limiter.reset()
        self.tune()

    def tune(self) -> None:
        self._limiter.ceiling = np.float32(10 ** (self.values["ceiling"] / 20))

    def run(self, block: Float32) -> None:
        self._limiter.process(block)
