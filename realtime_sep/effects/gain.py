"""Gain: the smallest effect."""

from __future__ import annotations

import numpy as np

from realtime_sep.dsp.faders import Faders
from realtime_sep.dsp.meters import linear
from realtime_sep.errors import unknown
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32


class Gain:
    """Louder or softer, without zipper noise."""

    parameters = (Parameter("db", 0.0, -60.0, 24.0, "dB"),)
    latency = 0

    def __init__(self) -> None:
        self._faders: Faders | None = None
        self._gain = 1.0

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None:
        self._faders = Faders(1, samplerate)
        self._copy = np.empty((1, max_frames, channels), np.float32)
        self.reset()

    def set(self, name: str, value: float) -> None:
        (parameter,) = self.parameters
        if name != parameter.name:
            raise unknown("parameter of effect 'gain'", name, [parameter.name])
        self._gain = linear(parameter.checked(value))
        if self._faders is not None:
            self._faders.targets[0] = self._gain

    def reset(self) -> None:
        if self._faders is not None:
            self._faders.targets[0] = self._gain
            self._faders.settle()

    def process(self, block: Float32) -> None:
        assert self._faders is not None, "prepare() comes first"
        copy = self._copy[:, : len(block)]
        copy[0] = block
        self._faders.process(copy, block)
