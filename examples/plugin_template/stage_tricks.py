"""One separator and one effect for realtime_sep, each as small as it can be."""

import math

import numpy as np
from numba import njit

from realtime_sep.effects import BaseEffect, Parameter
from realtime_sep.errors import UsageError
from realtime_sep.types import Float32, SeparatorInfo


@njit(cache=True, nogil=True)
def _band(hop, state, low, high, stems):
    """The middle of the mix between two one-pole filters is the voice, the rest the rest."""
    for i in range(len(hop)):
        state[0] += high * (hop[i].mean() - state[0])
        state[1] += low * (state[0] - state[1])
        stems[0, i] = state[0] - state[1]
        stems[1, i] = hop[i] - stems[0, i]


class BandCenter:
    """What is in the middle, between `low` and `high` Hz, is the voice.  No delay."""

    api_version = 1

    def __init__(self, *, samplerate: int, channels: int, low: float = 200, high: float = 5000):
        if not 0 < low < high:
            raise UsageError(f"low and high are frequencies in rising order, not {low} and {high}")
        self.info = SeparatorInfo(
            "band-center", ("vocals", "accompaniment"), samplerate, channels, hop=256, latency=0
        )
        self._low, self._high = (1 - math.exp(-math.tau * f / samplerate) for f in (low, high))
        self._state = np.zeros(2)

    def reset(self) -> None:
        self._state[:] = 0

    def process(self, hop: Float32, stems: Float32) -> None:
        _band(hop, self._state, self._low, self._high, stems)


@njit(cache=True, nogil=True)
def _tremolo(block, turn, depth, phase):
    for i in range(len(block)):
        block[i] *= np.float32(1 - depth * (0.5 - 0.5 * math.cos(phase)))
        phase = (phase + turn) % math.tau
    return phase


class Tremolo(BaseEffect):
    """The level goes up and down."""

    api_version = 1
    name = "tremolo"
    parameters = (Parameter("rate", 5.0, 0.1, 20.0, "Hz"), Parameter("depth", 0.5, 0.0, 1.0))

    def reset(self) -> None:
        super().reset()
        self._phase = 0.0

    def run(self, block: Float32) -> None:
        turn = math.tau * self.values["rate"] / self.samplerate
        self._phase = _tremolo(block, turn, self.values["depth"], self._phase)
