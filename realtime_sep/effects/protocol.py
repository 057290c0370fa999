"""What the engine asks of an effect."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from realtime_sep.errors import RealtimeSepError
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32

#: Major version of this protocol; a plugin written for another one is refused.
API_VERSION = 1


class Late(RealtimeSepError):
    """Raised by `Effect.process`: nothing is there for this block, but there may be for the next.

    The dry signal is heard meanwhile, as late as the effect is."""


@runtime_checkable
class Effect(Protocol):
    """One stream's effect.  An entry point of the group `realtime_sep.effects` names a class or a
    function without required arguments that makes one."""

    parameters: tuple[Parameter, ...]

    @property
    def latency(self) -> int:
        """Frames by which the output lags the input; fixed once prepared."""
        ...

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None:
        """Get ready: allocate and compile here, never in `process`."""
        ...

    def set(self, name: str, value: float) -> None:
        """Turn a parameter; takes effect smoothly from the next block on."""
        ...

    def reset(self) -> None:
        """Forget the past; parameters stay."""
        ...

    def process(self, block: Float32) -> None:
        """Change `(frames, channels)` in place, `1 <= frames <= max_frames`."""
        ...
