"""What the engine asks of a separator, and nothing more."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from realtime_sep.types import Float32, SeparatorInfo

#: Major version of this protocol; a plugin written for another one is refused.
API_VERSION = 1


@runtime_checkable
class Separator(Protocol):
    """One stream's separator: it has state, so every stream makes its own.

    What a separator may have besides:

    - an attribute `notice: str | None`, shown to the user once when it is set (for example: this
      input is mono and there is nothing to separate by position);
    - an attribute `realtime: bool`, set to true by a live host: from then on `process` must not
      wait for other threads of its own, but go on with what it has;
    - a method `close()`, called when the stream is over.
    """

    info: SeparatorInfo

    def reset(self) -> None:
        """Return to the state just after construction."""
        ...

    def process(self, hop: Float32, stems: Float32) -> None:
        """Separate one hop.

        Args:
            hop: `(info.hop, info.channels)`, finite; not to be written.
            stems: `(len(info.stems), info.hop, info.channels)`, C-contiguous; to be filled whole.
                Their sum is the mix delayed by `info.latency` frames.

        Called on the hot path: no allocation, no locks, no I/O after the first calls.
        """
        ...


class SeparatorFactory(Protocol):
    """What an entry point of the group `realtime_sep.separators` names: a class or a function."""

    def __call__(self, *, samplerate: int, channels: int, **options: Any) -> Separator:
        """Make a separator for a stream; raise `UsageError` for what it cannot do."""
        ...
