"""One separator and one effect for realtime_sep, each as small as it can be."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from realtime_sep.effects import Parameter
from realtime_sep.errors import UsageError
from realtime_sep.types import Float32, SeparatorInfo


@njit(cache=True, nogil=True)
def _band(hop, state, low, high, stems):  # type: ignore[no-untyped-def]
    """The middle of the mix between two one-pole filters is the voice, the rest the rest."""
    below_high, below_low = state
    for i in range(hop.shape[0]):
        middle = np.float32(0)
        for c in range(hop.shape[1]):
            middle += hop[i, c]
        below_high += high * (middle / hop.shape[1] - below_high)
        below_low += low * (below_high - below_low)
        voice = np.float32(below_high - below_low)
        for c in range(hop.shape[1]):
            stems[0, i, c] = voice
            stems[1, i, c] = hop[i, c] - voice
    state[0], state[1] = below_high, below_low


class BandCenter:
    """What is in the middle, between `low` and `high` Hz, is the voice.  No delay."""

    api_version = 1

    def __init__(
        self, *, samplerate: int, channels: int, low: float = 200, high: float = 5000
    ) -> None:
        if not 0 < low < high:
            raise UsageError(f"low and high are frequencies in rising order, not {low} and {high}")
        self.info = SeparatorInfo(
            name="band-center",
            stems=("vocals", "accompaniment"),
            samplerate=samplerate,
            channels=channels,
            hop=256,
            latency=0,
        )
        self._low, self._high = (1 - math.exp(-math.tau * f / samplerate) for f in (low, high))
        self._state = np.zeros(2)

    def reset(self) -> None:
        self._state[:] = 0

    def process(self, hop: Float32, stems: Float32) -> None:
        _band(hop, self._state, self._low, self._high, stems)


class Tremolo:
    """The level goes up and down."""

    api_version = 1
    parameters = (
        Parameter("rate", 5.0, 0.1, 20.0, "Hz"),
        Parameter("depth", 0.5, 0.0, 1.0),
    )
    latency = 0

    def __init__(self) -> None:
        self._values = {p.name: p.default for p in self.parameters}

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None:
        self._samplerate = samplerate
        self._ramp = np.arange(1, max_frames + 1)
        self._curve, self._depths = np.empty((2, max_frames))
        self._gain: Float32 = np.empty((max_frames, 1), np.float32)
        self.reset()

    def set(self, name: str, value: float) -> None:
        (parameter,) = (p for p in self.parameters if p.name == name)
        if not parameter.minimum <= value <= parameter.maximum:
            raise UsageError(f"{name} goes from {parameter.minimum} to {parameter.maximum}")
        self._values[name] = value

    def reset(self) -> None:
        self._phase = 0.0
        self._depth = self._values["depth"]

    def process(self, block: Float32) -> None:
        frames, depth = len(block), self._values["depth"]
        ramp, curve, depths = self._ramp[:frames], self._curve[:frames], self._depths[:frames]
        turn = math.tau * self._values["rate"] / self._samplerate
        np.multiply(ramp, turn, out=curve)
        curve += self._phase
        np.cos(curve, out=curve)
        curve -= 1
        # A new depth is reached over the block, or it would click.
        np.multiply(ramp, (depth - self._depth) / frames, out=depths)
        depths += self._depth
        curve *= depths
        curve *= 0.5
        curve += 1
        self._gain[:frames, 0] = curve
        block *= self._gain[:frames]
        self._phase = (self._phase + turn * frames) % math.tau
        self._depth = depth
