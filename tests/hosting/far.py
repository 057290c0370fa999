"""What runs over there: imported by helpers, so it imports little."""

from __future__ import annotations

from realtime_sep.types import Float32


class Louder:
    """By a factor."""

    parameters, latency = (), 0

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def prepare(self, *_: int) -> None: ...
    def reset(self) -> None: ...

    def process(self, block: Float32) -> None:
        block *= self.factor
