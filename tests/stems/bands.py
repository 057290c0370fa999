"""A fake separator of any number of stems: each a fixed share of the mix, one hop late."""

from __future__ import annotations

from typing import Any

from realtime_sep.dsp.delay import Delay
from realtime_sep.errors import UsageError
from realtime_sep.types import Float32, SeparatorInfo

STEMS = ("vocals", "drums", "bass", "other", "guitar", "piano")
#: Of the mix, per stem; the last one takes what is left.
SHARES = (0.5, 0.25, 0.125, 0.0625, 0.03125)
HOP = 64


class Bands:
    """`stems` of them."""

    def __init__(self, *, samplerate: int, channels: int, stems: int = 4, **_: Any) -> None:
        if not 1 <= stems <= len(STEMS):
            raise UsageError(f"1 to {len(STEMS)} stems, not {stems}")
        self.info = SeparatorInfo("bands", STEMS[:stems], samplerate, channels, HOP, HOP)
        self._delay = Delay(HOP, channels)

    def reset(self) -> None:
        self._delay.reset()

    def process(self, hop: Float32, stems: Float32) -> None:
        self._delay.process(hop, stems[-1])
        mix = stems[-1].copy()
        for stem, share in zip(stems[:-1], SHARES, strict=False):
            stem[:] = share * mix
            stems[-1] -= stem


def four(*, samplerate: int, channels: int) -> Bands:
    return Bands(samplerate=samplerate, channels=channels, stems=4)


def six(*, samplerate: int, channels: int) -> Bands:
    return Bands(samplerate=samplerate, channels=channels, stems=6)
