"""The wire: finds no voice and passes the mix, bit for bit.  For measuring everything around it."""

from __future__ import annotations

from realtime_sep.errors import UsageError
from realtime_sep.types import Float32, SeparatorInfo


class Identity:
    """`vocals` is silence, `accompaniment` the mix, without delay; any hop."""

    def __init__(self, *, samplerate: int, channels: int = 2, hop: int = 256) -> None:
        if hop < 1:
            raise UsageError(f"hop must be at least 1, not {hop}")
        self.info = SeparatorInfo(
            name="identity",
            stems=("vocals", "accompaniment"),
            samplerate=samplerate,
            channels=channels,
            hop=hop,
            latency=0,
            family="wire",
            provider="numpy",
        )

    def reset(self) -> None:
        """There is no state."""

    def process(self, hop: Float32, stems: Float32) -> None:
        stems[0] = 0
        stems[1] = hop
