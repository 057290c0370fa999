"""A separator in the place of another one: at that one's hop, with that one's stems."""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import Any

import numpy as np

from realtime_sep.separators.protocol import Separator
from realtime_sep.types import Float32


def adapted(separator: Separator, hop: int, stems: tuple[str, ...]) -> Separator:
    """`separator` itself if it has that hop and those stems already, else something that does."""
    info = separator.info
    if info.hop == hop and info.stems == stems:
        return separator
    return Adapted(separator, hop, stems)


class Adapted:
    """Runs a separator at a hop that is not its own, and sorts its stems into those wanted.

    A stem that both know stays what it is; every other stem goes to the last one wanted; what is
    wanted and not there is silence.  So the stems still add up to the mix.  Where the hops do not
    fit, gathering adds `own hop - gcd(own hop, hop)` frames of latency.
    """

    def __init__(self, separator: Separator, hop: int, stems: tuple[str, ...]) -> None:
        own = separator.info
        self._inner = separator
        self._gathering = 0 if hop % own.hop == 0 else own.hop - gcd(own.hop, hop)
        self.info = replace(own, hop=hop, stems=stems, latency=own.latency + self._gathering)
        last = len(stems) - 1
        self._places = [stems.index(s) if s in stems else last for s in own.stems]
        self._hop: Float32 = np.zeros((own.hop, own.channels), np.float32)
        self._stems: Float32 = np.zeros((len(own.stems), own.hop, own.channels), np.float32)
        room = self._gathering + own.hop + hop
        self._ready: Float32 = np.zeros((len(stems), room, own.channels), np.float32)
        self._gathered = 0
        self._finished = self._gathering

    @property
    def notice(self) -> Any:
        return getattr(self._inner, "notice", None)

    def close(self) -> None:
        if (close := getattr(self._inner, "close", None)) is not None:
            close()

    def reset(self) -> None:
        self._inner.reset()
        self._ready[:] = 0
        self._gathered = 0
        self._finished = self._gathering

    def process(self, hop: Float32, stems: Float32) -> None:
        taken, frames = 0, len(hop)
        own = len(self._hop)
        while taken < frames:
            part = min(frames - taken, own - self._gathered)
            self._hop[self._gathered : self._gathered + part] = hop[taken : taken + part]
            self._gathered += part
            taken += part
            if self._gathered == own:
                self._gathered = 0
                self._inner.process(self._hop, self._stems)
                ready = self._ready[:, self._finished : self._finished + own]
                ready[:] = 0
                for place, stem in zip(self._places, self._stems, strict=True):
                    ready[place] += stem
                self._finished += own
        stems[:] = self._ready[:, :frames]
        self._finished -= frames
        self._ready[:, : self._finished] = self._ready[:, frames : frames + self._finished].copy()
