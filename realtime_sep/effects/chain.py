"""A chain: effects one after another, which may be changed while they play.

What changes a chain is an `Edit`: made outside the hot path, begun between two blocks, heard as one
fade, and ended.  All memory that comes with it is there before it begins; what leaves is retired,
for somebody to close outside the hot path.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from realtime_sep.effects.protocol import Effect
from realtime_sep.effects.slot import DIRECT, DRY, WET, Slot
from realtime_sep.errors import UsageError, unknown
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32

__all__ = ["DIRECT", "DRY", "WET", "Chain", "Edit", "Slot", "free_name", "full_parameters"]


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of one chain.

    Attributes:
        during: its slots while it changes: those that leave are still there.
        after: its slots in the end.
        entering: those of them that are new.
        resting: slots that are to rest (see `Slot.rest`), so that their effects can be moved.
    """

    chain: Chain
    during: tuple[Slot, ...]
    after: tuple[Slot, ...]
    entering: tuple[Slot, ...] = ()
    resting: tuple[Slot, ...] = ()

    @property
    def latency(self) -> int:
        """Of the chain in the end."""
        return sum(slot.latency for slot in self.after)

    @property
    def listening(self) -> int:
        """Frames to wait between `begin` and `fade`."""
        return max((slot.listening for slot in self.entering), default=0)

    # ---- between two blocks, in this order

    def begin(self) -> None:
        """Let what enters listen."""
        for slot in self.entering:
            slot.enter()
        self.chain.slots = self.during

    def fade(self) -> None:
        """Begin to be heard."""
        for slot in self.during:
            if slot in self.resting:
                slot.rest()
            elif slot in self.after:
                slot.go(slot.place)
            else:
                slot.go(DIRECT)

    def end(self) -> None:
        """Drop what has left; the fades are over."""
        chain = self.chain
        chain.retired.extend(slot for slot in self.during if slot not in self.after)
        chain.slots, chain.latency = self.after, self.latency


class Chain:
    """An effect that is made of others.

    Args:
        slots: in their order; not yet prepared.

    Attributes:
        slots: as they are now; another tuple after each change.
        latency: frames; fixed but for edits.
        failures: how many effects were taken out.
        news: slots whose effects were, for somebody to tell.
        retired: slots that have left, for somebody to close outside the hot path.
    """

    def __init__(self, slots: Iterable[Slot] = ()) -> None:
        self.slots = tuple(slots)
        self.latency = 0
        self._paced = False
        self.failures = 0
        self.news: deque[Slot] = deque()
        self.retired: deque[Slot] = deque()
        self._shape = (0, 0, 0)

    @classmethod
    def of(cls, effects: Sequence[Effect]) -> Chain:
        """With a slot for each of these effects, named after their classes."""
        names: list[str] = []
        for effect in effects:
            names.append(free_name(type(effect).__name__.lower(), names))
        return cls(Slot(effect, name) for effect, name in zip(effects, names, strict=True))

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None:
        """Get ready for a stream.

        Raises:
            UsageError: an effect cannot be used.
        """
        self._shape = samplerate, channels, max_frames
        for slot in self.slots:
            slot.prepare(*self._shape)
        self.latency = sum(slot.latency for slot in self.slots)

    @property
    def paced(self) -> bool:
        """Whether a clock is pressing: then an effect that is too slow is taken out."""
        return self._paced

    @paced.setter
    def paced(self, paced: bool) -> None:
        self._paced = paced
        for slot in self.slots:
            slot.pace(paced)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Of all slots, by full names such as "reverb.mix"."""
        return tuple(p for slot in self.slots for p in full_parameters(slot))

    def set(self, name: str, value: float) -> None:
        """Turn a parameter, by its full name."""
        slot, _, parameter = name.partition(".")
        for found in self.slots:
            if found.name == slot:
                found.effect.set(parameter, value)
                return
        raise unknown("parameter", name, [p.name for p in self.parameters])

    def reset(self) -> None:
        """Forget the past; parameters and failures stay."""
        for slot in self.slots:
            slot.reset()

    def process(self, block: Float32) -> None:
        """Change `(frames, channels)`, which are finite, in place; so they stay."""
        for slot in self.slots:
            if slot.process(block, self.paced):
                self.failures += 1
                self.news.append(slot)

    def close(self) -> None:
        """Let go of what the effects hold."""
        for slot in (*self.slots, *self.retired):
            slot.close()

    # ---- changes; made in any thread, one after another

    def find(self, name: str) -> Slot:
        """The slot of this name.

        Raises:
            UsageError: there is none.
        """
        for slot in self.slots:
            if slot.name == name:
                return slot
        raise unknown("slot", name, [slot.name for slot in self.slots])

    def fit(self, slot: Slot) -> None:
        """Prepare a slot for this chain; slow."""
        slot.prepare(*self._shape)
        slot.pace(self._paced)

    def edit(self, after: Sequence[Slot], resting: Sequence[Slot] = ()) -> Edit:
        """The change to these slots, those that are new prepared (see `fit`).

        Slots that stay keep their order among themselves: to move one, let its effect rest, and put
        it into a new slot.

        Raises:
            UsageError: their order changes.
        """
        staying = [slot for slot in self.slots if slot in after]
        if staying != [slot for slot in after if slot in self.slots]:
            raise UsageError("slots that stay cannot change places")
        during: list[Slot] = []
        rest = list(after)
        for slot in self.slots:
            if slot in after:
                while rest[0] is not slot:
                    during.append(rest.pop(0))
                rest.pop(0)
            during.append(slot)
        entering = tuple(slot for slot in after if slot not in self.slots)
        return Edit(self, (*during, *rest), tuple(after), entering, tuple(resting))


def free_name(wanted: str, taken: Iterable[str]) -> str:
    """`wanted`, or with the first number that makes it another one: "gain", "gain2", ..."""
    names, number, name = set(taken), 1, wanted
    while name in names:
        number += 1
        name = f"{wanted}{number}"
    return name


def full_parameters(slot: Slot) -> tuple[Parameter, ...]:
    """Of a slot's effect, by names such as "reverb.mix"."""
    return tuple(
        replace(p, name=f"{slot.name}.{p.name}", label=p.label or f"{slot.name}: {p.name}")
        for p in slot.parameters
    )
