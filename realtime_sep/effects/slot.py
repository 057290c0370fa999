"""A slot of a chain: an effect, the dry signal beside it, and a guard over what it does.

Three signals are there at any time: the input as it came (direct), the input as late as the effect
is (dry), and what the effect made of it (wet).  Exactly one of them is heard, or a fade leads from
one mixture of them to the next.  So whatever happens to a slot is a fade: one that enters goes from
direct to wet, one that leaves goes back, bypass is dry, and so is an effect that failed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numba import njit

from realtime_sep import native
from realtime_sep.effects.protocol import Effect, Late
from realtime_sep.effects.syntax import SlotSpec
from realtime_sep.errors import RealtimeSepError, UsageError
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32

#: Seconds of every fade.
FADE = 0.02
#: Seconds that an effect hears, beyond its latency, before it is heard.
LISTENING = 0.02
#: An effect may exceed the recent peak of its input by this factor (40 dB) before it is absurd,
RATIO = 100.0
#: but anything up to full scale is allowed.
FLOOR = 1 / RATIO
#: Seconds in which the remembered peak falls to 1/e: a reverb may ring on.
_MEMORY = 3.0
#: Part of a block's duration beyond which an effect is too slow, if it is so for most of
SHARE = 0.5
#: this many seconds.
SLOW = 0.5
#: Longest latency of an effect, in seconds.
LONGEST = 1.0

DIRECT, DRY, WET = range(3)


@njit(cache=True, nogil=True)
def _keep(block, line, position, direct, dry):  # type: ignore[no-untyped-def]
    """Copy `block` to `direct` and, `len(line)` frames late, to `dry`; `(position, peak)`."""
    length = line.shape[0]
    peak = np.float32(0)
    for i in range(block.shape[0]):
        for c in range(block.shape[1]):
            x = block[i, c]
            peak = max(peak, abs(x))
            direct[i, c] = x
            if length:
                dry[i, c] = line[position, c]
                line[position, c] = x
            else:
                dry[i, c] = x
        if length:
            position += 1
            if position == length:
                position = 0
    return position, peak


@njit(cache=True, nogil=True)
def _blend(block, direct, dry, held, start, goal, phase, step, limit, ran):  # type: ignore[no-untyped-def]
    """Leave in `block`, the effect's output, what is to be heard; `(phase, bad)`.

    `start` holds the weights of the three signals where the fade to `goal` began, `phase` how far
    it is.  Where the effect did not run, its last frame `held` stands for it, to be faded away.  A
    bad block is left as it is.
    """
    frames, channels = block.shape
    if ran:
        for i in range(frames):
            for c in range(channels):
                if not abs(block[i, c]) <= limit:
                    return phase, True
        held[:] = block[frames - 1]
    if phase >= 1.0 and goal == 2 and ran:
        return phase, False
    for i in range(frames):
        phase = min(phase + step, 1.0)
        one = np.float32(start[0] * (1 - phase) + (goal == 0) * phase)
        two = np.float32(start[1] * (1 - phase) + (goal == 1) * phase)
        three = np.float32(start[2] * (1 - phase) + (goal == 2) * phase)
        for c in range(channels):
            wet = block[i, c] if ran else held[c]
            block[i, c] = one * direct[i, c] + two * dry[i, c] + three * wet
    return phase, False


@dataclass(frozen=True)
class SlotInfo:
    """A slot, as people see it.

    Attributes:
        name: by which it is known in its chain.
        effect: what it was made from, as text.
        latency: frames.
        failed: why the effect was taken out; "" if it was not.
        parameters: of the effect, by their own names.
        values: what those were when it was made, where they were not the default.
        cell: where the first of them is among all that can be turned live.
    """

    name: str
    effect: str
    bypassed: bool
    latency: int
    failed: str = ""
    parameters: tuple[Parameter, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)
    cell: int = 0


class Slot:
    """One effect's place in a chain.

    Args:
        effect: fresh, for this slot alone.
        name: by which it is known in its chain.
        spec: what the effect was made from; None if somebody gave it, who then closes it as well.
        bypassed: begin with the dry signal.

    Attributes:
        latency: frames, of the effect; fixed once prepared.
        failed: why the effect was taken out; "" if it was not.
        late: blocks that it had nothing for in time, and was not heard at.
        cell: where its owner finds the first parameter; -1: nowhere.
        fresh: not a slot that another one's effect has moved to.
    """

    def __init__(
        self, effect: Effect, name: str, spec: SlotSpec | None = None, bypassed: bool = False
    ) -> None:
        self.effect, self.name, self.spec = effect, name, spec
        self.bypassed = bypassed
        self.failed = ""
        self.late = 0
        self.latency = 0
        self.cell = -1
        self.fresh = True
        self._owned = spec is not None
        self._told = False
        self._later: dict[str, float] = {}  # what was turned while the effect rested
        self._start = np.zeros(3)
        self._resting = self._asleep = False
        self._settle(self.place)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Of the effect."""
        return tuple(self.effect.parameters)

    @property
    def info(self) -> SlotInfo:
        """As people see it."""
        spec, parameters = self.spec, self.parameters
        names = {p.name for p in parameters}
        values = {} if spec is None else {k: v for k, v in spec.options.items() if k in names}
        return SlotInfo(
            self.name,
            self.name if spec is None else str(replace(spec, bypassed=False)),
            self.bypassed,
            self.latency,
            self.failed,
            parameters,
            {k: float(v) for k, v in values.items()},
            self.cell,
        )

    def moved(self) -> Slot:
        """Another slot for the same effect, which this one must have let go of (see `rest`)."""
        other = Slot(self.effect, self.name, self.spec, self.bypassed)
        other.cell, other.fresh, other._later = self.cell, False, self._later
        other._owned, self._owned = self._owned, False
        return other

    @property
    def place(self) -> int:
        """Which of the three signals is to be heard of a slot that is in its chain."""
        return DRY if self.bypassed or self.failed else WET

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None:
        """Make all that `process` needs, run it warm, and forget that; slow.

        Raises:
            UsageError: the effect cannot be used.
        """
        self._samplerate = samplerate
        try:
            self.effect.prepare(samplerate, channels, max_frames)
            latency = self.effect.latency
        except UsageError:
            raise
        except Exception as error:  # a plugin
            raise UsageError(f"effect {self.name!r} cannot be used: {_line(error)}") from error
        if not isinstance(latency, int | np.integer) or not 0 <= latency <= LONGEST * samplerate:
            raise UsageError(f"effect {self.name!r} says that it is {latency!r} frames late")
        self.latency = int(latency)
        self._line: Float32 = np.zeros((self.latency, channels), np.float32)
        self._position, self._level, self._slow = 0, 0.0, 0
        self._direct: Float32 = np.zeros((max_frames, channels), np.float32)
        self._dry: Float32 = np.zeros((max_frames, channels), np.float32)
        self._held: Float32 = np.zeros(channels, np.float32)
        self._step = 1 / (FADE * samplerate)
        self._memory = _MEMORY * samplerate
        self._budget = SHARE * 1e9 / samplerate
        self._slow_limit = SLOW * samplerate
        self._warm_up(np.zeros((max_frames, channels), np.float32))
        if self.failed:
            raise UsageError(f"effect {self.name!r} cannot be used: it {self.failed}")

    def _warm_up(self, block: Float32, blocks: int = 8) -> None:
        rng = np.random.default_rng(0)
        for _ in range(blocks):
            block[:] = rng.uniform(-0.1, 0.1, block.shape)
            self.process(block)
        place = self._goal
        self.go(DRY if place == WET else WET)
        self.process(block)  # the fade compiles as well
        self._settle(place)
        self.reset()

    def pace(self, paced: bool) -> None:
        """Tell an effect that wants to know whether a clock is pressing; not in the hot path."""
        if hasattr(self.effect, "realtime"):
            self.effect.realtime = paced

    def reset(self) -> None:
        """Forget the past; parameters stay, and so does a failure."""
        self._line[:] = 0
        self._held[:] = 0
        self._position, self._level, self._slow = 0, 0.0, 0
        self._settle(self._goal)
        try:
            self.effect.reset()
        except Exception as error:  # a plugin
            self.fail(f"raised {_line(error)}")

    def close(self) -> None:
        """Let go of what the effect holds, if it was made for this slot."""
        if self._owned and (close := getattr(self.effect, "close", None)) is not None:
            close()

    # ---- what is heard

    def _settle(self, goal: int) -> None:
        self._start[:] = 0
        self._start[goal] = 1
        self._goal, self._phase = goal, 1.0

    def enter(self) -> None:
        """Not be heard yet: the signal passes as it comes, while the effect listens."""
        self._settle(DIRECT)
        for name, value in self._later.items():
            self.turn(name, value)

    def go(self, goal: int) -> None:
        """Fade to one of the three signals."""
        if goal != self._goal:
            self._start *= 1 - self._phase
            self._start[self._goal] += self._phase
            self._goal, self._phase = goal, 0.0

    def rest(self) -> None:
        """Fade to the dry signal; then the effect is not run any more, whatever follows."""
        self._resting = True
        self.go(DRY)

    @property
    def settled(self) -> bool:
        """Whether no fade is under way."""
        return self._phase >= 1.0

    @property
    def listening(self) -> int:
        """Frames that the effect is to hear before it may be heard."""
        return self.latency + round(LISTENING * self._samplerate)

    # ---- the block

    def turn(self, name: str, value: float) -> None:
        """Turn a parameter, between two blocks."""
        if self._resting:
            self._later[name] = value
            return
        try:
            self.effect.set(name, value)
        except Exception as error:  # a plugin
            self.fail(f"raised {_line(error)}")

    def fail(self, why: str) -> None:
        """Take the effect out, by one fade."""
        self.failed = why
        self.go(DRY if self._goal == WET else self._goal)

    def process(self, block: Float32, paced: bool = False) -> bool:
        """Change `(frames, channels)`, which are finite, in place; True once after it failed.

        Args:
            paced: a clock is pressing, so an effect must not be slow.
        """
        frames = len(block)
        direct, dry = self._direct[:frames], self._dry[:frames]
        self._position, peak = _keep(block, self._line, self._position, direct, dry)
        self._asleep |= self._resting and self.settled
        ran = not (self.failed or self._asleep) and self._run(block, paced)
        self._level = max(peak, self._level * math.exp(-frames / self._memory))
        limit = RATIO * max(self._level, FLOOR)
        if self._heard(block, direct, dry, limit, ran):
            self.fail("sent what is no audio" if _finite(block) else "sent NaN or infinity")
            self._heard(block, direct, dry, limit, False)
        failed, self._told = bool(self.failed) and not self._told, bool(self.failed)
        return failed

    def _heard(
        self, block: Float32, direct: Float32, dry: Float32, limit: float, ran: bool
    ) -> bool:
        self._phase, bad = _blend(
            block,
            direct,
            dry,
            self._held,
            self._start,
            self._goal,
            self._phase,
            self._step,
            np.float32(limit),
            ran,
        )
        return bool(bad)

    def _run(self, block: Float32, paced: bool) -> bool:
        begin, cpu = (native.now(), native.thread_cpu()) if paced else (0, 0)
        try:
            self.effect.process(block)
            latency = self.effect.latency
        except Late:
            self.late += 1
            self.go(DRY if self._goal == WET else self._goal)
            return False
        except RealtimeSepError as error:
            self.fail(str(error))
            return False
        except Exception as error:  # a plugin
            self.fail(f"raised {_line(error)}")
            return False
        if self._goal == DRY and not self._resting:  # back from having been late
            self.go(self.place)
        if latency != self.latency:
            self.fail(f"was {self.latency} frames late, and now says {latency}")
        if paced:
            self._time(len(block), native.now() - begin, native.thread_cpu() - cpu)
        return not self.failed

    def _time(self, frames: int, took: int, cpu: int) -> None:
        """A machine that stalls makes a block slow, and an effect most of them."""
        budget = self._budget * frames
        if cpu > budget or took > budget / SHARE:
            self._slow += frames
            if self._slow > self._slow_limit:
                self.fail(f"takes {1e-6 * max(cpu, took):.1f} ms for {1e-6 * budget / SHARE:.1f}")
        elif self._slow:
            self._slow = max(0, self._slow - frames)


def _finite(block: Float32) -> bool:
    return bool(np.all(np.isfinite(block)))


def _line(error: Exception) -> str:
    """An error of somebody else's code in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
