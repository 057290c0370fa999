"""What the built-in effects share: parameters that are checked, and glide to where they are set."""

from __future__ import annotations

from realtime_sep.errors import unknown
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32

#: Seconds in which a parameter has gone most (63 %) of its way.
GLIDE = 0.03
#: Frames between its steps.
_STEP = 16


class BaseEffect:
    """Subclasses say `name` and `parameters`; they override `allocate`, `reset`, `tune`, `run`."""

    name = ""
    parameters: tuple[Parameter, ...] = ()
    latency = 0

    def __init__(self) -> None:
        self.targets = {p.name: p.default for p in self.parameters}
        self.values = dict(self.targets)
        self.samplerate = 0

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None:
        """Get ready for a stream."""
        self.samplerate = samplerate
        self.allocate(channels, max_frames)
        self.reset()

    def allocate(self, channels: int, max_frames: int) -> None:
        """Make all the memory that `process` needs."""

    def set(self, name: str, value: float) -> None:
        """Turn a parameter; it glides there."""
        for parameter in self.parameters:
            if parameter.name == name:
                self.targets[name] = parameter.checked(value)
                return
        raise unknown(f"parameter of effect {self.name!r}", name, self.targets)

    def reset(self) -> None:
        """Forget the past; parameters are where they were set at once."""
        self.values.update(self.targets)

    def tune(self) -> None:
        """The values have changed."""

    def run(self, block: Float32) -> None:
        """Change `(frames, channels)` in place, with the values as they are."""
        raise NotImplementedError

    def process(self, block: Float32) -> None:
        """Change `(frames, channels)` in place."""
        start = 0
        while start < len(block):
            end = len(block)
            if self._glide(min(_STEP, end - start)):
                self.tune()
                end = start + _STEP
            self.run(block[start:end])
            start = end

    def _glide(self, frames: int) -> bool:
        """Move the values towards their targets; whether any moved."""
        moved = False
        part = min(1.0, frames / (GLIDE * self.samplerate))
        for name, target in self.targets.items():
            value = self.values[name]
            if value != target:
                moved = True
                step = part * (target - value)
                near = abs(target - value) < 1e-4 * (abs(target) + 1e-2)
                self.values[name] = target if near else value + step
        return moved
