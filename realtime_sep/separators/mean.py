"""Several separators at once, each stem the mean of theirs: what only one gets wrong counts less.

The errors of methods that know different things hardly agree, so their mean is often better than
the best of them, as with bags of networks (Uhlich et al., ICASSP 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from realtime_sep.dsp.delay import Delay
from realtime_sep.errors import UsageError
from realtime_sep.separators.adapted import adapted
from realtime_sep.separators.protocol import Separator
from realtime_sep.types import Float32


class Mean:
    """The mean of separators with the same stems, at the longest hop and latency among them.

    Raises:
        UsageError: fewer than two, or their stems differ.
    """

    def __init__(self, separators: Sequence[Separator]) -> None:
        names = " and ".join(s.info.name for s in separators)
        if len(separators) < 2:
            raise UsageError(f"a mean is of two separators or more, not of {names or 'none'}")
        stems = separators[0].info.stems
        if any(set(s.info.stems) != set(stems) for s in separators):
            raise UsageError(f"{names} have different stems: there is no mean of them")
        self._separators, self._realtime = list(separators), False
        hop = max(s.info.hop for s in separators)
        self._members = [adapted(s, hop, stems) for s in separators]
        infos = [member.info for member in self._members]
        latency = max(info.latency for info in infos)
        channels = infos[0].channels
        self.info = replace(
            infos[0],
            name="+".join(info.name for info in infos),
            latency=latency,
            family="mean",
            provider=", ".join(dict.fromkeys(info.provider for info in infos)),
            rtf=sum(info.rtf for info in infos),
        )
        self._delays = [[Delay(latency - info.latency, channels) for _ in stems] for info in infos]
        self._stems: Float32 = np.zeros((len(stems), hop, channels), np.float32)
        self._share = np.float32(1 / len(infos))

    @property
    def notice(self) -> str | None:
        return next((n for s in self._separators if (n := getattr(s, "notice", None))), None)

    @property
    def realtime(self) -> bool:
        return self._realtime

    @realtime.setter
    def realtime(self, live: bool) -> None:
        self._realtime = live
        for separator in self._separators:
            if hasattr(separator, "realtime"):
                separator.realtime = live

    def reset(self) -> None:
        for member, delays in zip(self._members, self._delays, strict=True):
            member.reset()
            for delay in delays:
                delay.reset()

    def process(self, hop: Float32, stems: Float32) -> None:
        stems[:] = 0
        for member, delays in zip(self._members, self._delays, strict=True):
            member.process(hop, self._stems)
            for delay, stem, out in zip(delays, self._stems, stems, strict=True):
                delay.process(stem, stem)
                stem *= self._share
                out += stem

    def close(self) -> None:
        for separator in self._separators:
            if (close := getattr(separator, "close", None)) is not None:
                close()
