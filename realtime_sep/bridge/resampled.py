"""A separator for a host whose sample rate it does not run at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from realtime_sep.blocks import BlockSeparator
from realtime_sep.dsp.delay import Delay
from realtime_sep.separators import Separator
from realtime_sep.types import Float32


class Resampled:
    """Resamples what enters and what leaves.

    The last stem is what the others leave of the host's own signal: so the stems add up to it, and
    what lies above the separator's band stays in the music.

    Args:
        separator: fresh, at a rate of its own.
        samplerate: of the host, in Hz.
    """

    def __init__(self, separator: Separator, samplerate: int) -> None:
        own = separator.info
        self._inner = separator
        # About as long as a hop of its own.
        hop = 1 << round(np.log2(own.hop * samplerate / own.samplerate))
        self._blocks = BlockSeparator(separator, samplerate, own.channels, blocksize=hop)
        latency = self._blocks.latency
        self.info = replace(own, samplerate=samplerate, hop=hop, latency=latency)
        self._delay = Delay(latency, own.channels)

    @property
    def realtime(self) -> bool:
        return bool(getattr(self._inner, "realtime", False))

    @realtime.setter
    def realtime(self, live: bool) -> None:
        if hasattr(self._inner, "realtime"):
            self._inner.realtime = live

    def reset(self) -> None:
        self._blocks.reset()
        self._delay.reset()

    def process(self, hop: Float32, stems: Float32) -> None:
        rest = stems[-1]
        self._delay.process(hop, rest)
        made = self._blocks.process(hop)
        for stem, name in zip(stems[:-1], self.info.stems[:-1], strict=True):
            stem[:] = made[name]
            rest -= stem

    def close(self) -> None:
        if (close := getattr(self._inner, "close", None)) is not None:
            close()
