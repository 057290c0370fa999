"""Separators that misbehave on purpose; importable, so that they also travel to another process."""

from __future__ import annotations

import time
from typing import Any

from realtime_sep.separators.identity import Identity
from realtime_sep.types import Float32


class Halves(Identity):
    """`vocals` is a quarter of the mix, `accompaniment` the rest: wet differs from dry."""

    def process(self, hop: Float32, stems: Float32) -> None:
        stems[0] = 0.25 * hop
        stems[1] = 0.75 * hop


class Sleepy(Halves):
    """Sleeps for `seconds` at the hops in `at`, and only once the stream has started."""

    def __init__(self, *, at: tuple[int, ...], seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._at, self._seconds = at, seconds
        self._hops = 0

    def reset(self) -> None:
        self._hops = 0

    def process(self, hop: Float32, stems: Float32) -> None:
        self._hops += 1
        if self._hops in self._at:
            time.sleep(self._seconds)
        super().process(hop, stems)


class Poisoned(Halves):
    """Sends NaN, Inf and +60 dB now and then."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._hops = 0

    def process(self, hop: Float32, stems: Float32) -> None:
        self._hops += 1
        super().process(hop, stems)
        if self._hops % 40 == 0:
            stems[0, 3] = float("nan")
        if self._hops % 40 == 13:
            stems[1, 5] = float("inf")
        if self._hops % 40 == 27:
            stems *= 1000


class Crashing(Halves):
    """Raises at hop 50."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._hops = 0

    def process(self, hop: Float32, stems: Float32) -> None:
        self._hops += 1
        if self._hops == 50:
            raise ZeroDivisionError("out of ideas")
        super().process(hop, stems)
