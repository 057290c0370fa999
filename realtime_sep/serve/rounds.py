"""The work of all clients in one thread, by turns: a round is one hop of everybody who has one.

Whoever sent a hop while a round was running is in the next one, so batches form by themselves and
grow with the load; nobody waits for a batch to fill.  A client that sends much at once still has
one hop per round, so nobody is ever more than two rounds late.  That is what admission rests on: a
round of everybody has to fit into the time of a hop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from realtime_sep.dsp.guard import sanitise
from realtime_sep.dsp.resample import NATIVE_RATES, native_rate
from realtime_sep.engine import MIX
from realtime_sep.errors import RealtimeSepError
from realtime_sep.offline import Separation
from realtime_sep.plugins import load_batch, load_separator
from realtime_sep.separators import Separator
from realtime_sep.separators.batch import SpectralBatch
from realtime_sep.serve.slot import Slot
from realtime_sep.types import Float32, SeparatorInfo

#: Part of the time of a hop that a round of everybody may take, by what was measured at the start.
#: Live, a round was seen to cost 1.6 times as much as in that loop; the rest is for what is not
#: measured at all: the rings, the machine's other work.
BUDGET = 0.5
#: Rounds that are measured, and those before them that only warm.
_MEASURED, _WARM = 20, 4
#: What it is measured at; and a rate that has to be changed both ways, to see what that costs.
_RATE, _FOREIGN_RATE = NATIVE_RATES[-1], 96000


class Busy(RealtimeSepError):
    """One more client would make the others late."""


@dataclass(frozen=True)
class Stream:
    """What a client's stream is, as the engine process needs it; see `protocol.Hello`."""

    model: str
    samplerate: int
    channels: int
    outputs: tuple[str, ...]
    packet: int


@dataclass(frozen=True)
class Opened:
    """What is settled once a stream is open.

    Attributes:
        latency: frames by which the outputs lag, exactly.
        hop: frames of the audio between two steps of the model.
        notice: what the separator wants people to know.
    """

    latency: int
    hop: int
    notice: str | None


class Model:
    """One model that clients may ask for, and what it costs here.

    Args:
        name: for `load_separator`.
        clients: that it may have at once.
        options: for `load_separator`.

    Attributes:
        info: of a separator at 48 kHz.
        batched: one call for all.
        costs: seconds that a round takes, by the number of clients; measured up to where they are
            too many.
        resampling: seconds that a round takes more for a client whose rate is changed.

    Raises:
        RealtimeSepError: it cannot be loaded.
    """

    def __init__(self, name: str, clients: int, options: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self._options = dict(options or {})
        self._batch: SpectralBatch | None = load_batch(name, clients, **self._options)
        self.batched = self._batch is not None
        everybody = [self._stream(_RATE)]
        self.info: SeparatorInfo = everybody[0].separator.info
        self.costs = {1: self._cost(everybody, _RATE)}
        foreign = self._stream(_FOREIGN_RATE)
        self.resampling = max(0.0, self._cost([foreign], _FOREIGN_RATE) - self.costs[1])
        while self.costs[len(everybody)] < self.period and len(everybody) < clients:
            more = min(len(everybody), clients - len(everybody))
            everybody += [self._stream(_RATE) for _ in range(more)]
            self.costs[len(everybody)] = self._cost(everybody, _RATE)
        for separation in (*everybody, foreign):
            close(separation.separator)

    def _stream(self, samplerate: int) -> Separation:
        return Separation(self.make(native_rate(samplerate), 2), samplerate, 2)

    @property
    def period(self) -> float:
        """Seconds from hop to hop, at the highest rate that it runs at."""
        return self.info.hop / _RATE

    def make(self, samplerate: int, channels: int) -> Separator:
        """A separator for one stream."""
        if self._batch is not None:
            return self._batch.lane(samplerate=samplerate, channels=channels)
        return load_separator(self.name, samplerate=samplerate, channels=channels, **self._options)

    def run(self) -> None:
        """Compute what the clients' separators have prepared."""
        if self._batch is not None:
            self._batch.run()

    def cost(self, clients: int) -> float:
        """Seconds that a round of so many clients takes: measured, between that interpolated."""
        counts = [0, *self.costs]
        times = [0.0, *self.costs.values()]
        if clients > counts[-1]:
            return clients * times[-1] / counts[-1]
        return float(np.interp(clients, counts, times))

    def _cost(self, separations: Sequence[Separation], samplerate: int) -> float:
        """Seconds of a round, each of them with one hop: the best quarter of a few stays below.

        What else the machine does meanwhile is not the model's; the running figures see to that.
        """
        info = separations[0].separator.info
        frames = ceil(info.hop * samplerate / info.samplerate)
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, (frames, info.channels))
        block = noise.astype(np.float32)
        times = []
        for _ in range(_WARM + _MEASURED):
            begin = time.perf_counter()
            for separation in separations:
                separation.push(block)
                prepare(separation)
            self.run()
            for separation in separations:
                if separation.ready is not None:
                    separation.step()
                separation.pull()
            times.append(time.perf_counter() - begin)
        return float(np.quantile(times[_WARM:], 0.25))


class Session:
    """One client's stream.

    Attributes:
        separation: what runs it.
        latency: frames by which its outputs lag, exactly.
        hop: frames of its audio that make a hop of the model, rounded up.
        resampled: its rate is none of the model's.
        gave: the last round had something for the client.

    Raises:
        RealtimeSepError: the model cannot do this.
    """

    def __init__(self, model: Model, stream: Stream, slot: Slot) -> None:
        self.model = model
        self._stream = stream
        self._slot = slot
        slot.attach()
        rate = native_rate(stream.samplerate)
        self._separator = model.make(rate, stream.channels)
        if hasattr(self._separator, "realtime"):
            self._separator.realtime = True
        self._begin()
        self.latency = self.separation.lag(stream.packet)
        self.hop = ceil(self._separator.info.hop * stream.samplerate / rate)
        self.resampled = rate != stream.samplerate
        self.gave = False
        self._told: str | None = None
        self._end: int | None = None
        self._out = self._silence()

    def _begin(self) -> None:
        stream = self._stream
        self.separation = Separation(
            self._separator, stream.samplerate, stream.channels, outputs=stream.outputs
        )
        self._move_faders()
        self.separation.faders.settle()
        self._taken = self._given = 0
        self._ended = False

    def _silence(self) -> Float32:
        """What comes before the first frame, so that it comes exactly `latency` late."""
        width = self._stream.channels * len(self._stream.outputs)
        return np.zeros((self.latency, width), np.float32)

    def _move_faders(self) -> None:
        stems = len(self._separator.info.stems)  # the last fader is that of the dry signal
        self.separation.faders.targets[:stems] = self._slot.gains[:stems]

    def end(self, at: int) -> None:
        """Bring the tail out after so many frames from the ring; then begin anew."""
        self._end = at

    def take(self) -> bool:
        """Get ready for a round, if there is anything to be done.

        Returns:
            Whether a hop is ready.
        """
        self.gave = False
        if not self._give():
            return False  # nobody reads what is there
        ring = self._slot.audio
        while self.separation.ready is None and not self._ended:
            if frames := min(ring.read_space, self.hop):
                self.separation.push(ring.read(frames))
                self._taken += frames
            elif self._end == ring.consumed:
                self.separation.end()
                self._ended = True
            else:
                break
        if self.separation.ready is None:
            self._give()
            return False
        return True

    def give(self) -> None:
        """Pass on what has come out, but no more than has gone in."""
        done = self.separation.pull().transpose(1, 0, 2)
        self._out = np.concatenate([self._out, done.reshape(len(done), self._out.shape[1])])
        self._give()

    def _give(self) -> bool:
        """Returns whether nothing is left that is due."""
        due = self._taken - self._given + (self.latency if self._ended else 0)
        wanted = min(due, len(self._out))
        given = self._slot.stems.write(self._out[:wanted])
        self._out = self._out[given:]
        self._given += given
        self.gave |= given > 0
        if self._ended and given == due:
            self._end = None
            self._separator.reset()
            self._begin()
            self._out = self._silence()
        return given == wanted

    def step(self) -> None:
        """Separate the hop that is ready; computed already, where `prepare` was called for it."""
        if MIX in self._stream.outputs:
            self._move_faders()
        self.separation.step()

    @property
    def news(self) -> str | None:
        """What the separator wants its user to know, once."""
        notice = self.separation.notice
        if notice in (None, self._told):
            return None
        self._told = notice
        return notice

    def close(self) -> None:
        close(self._separator)


class Rounds:
    """All sessions, by the number of their slot.

    Attributes:
        failures: sessions that ended because their separator raised, and why; to be emptied.
    """

    def __init__(self, models: Sequence[Model], slots: Sequence[Slot]) -> None:
        self.models = {model.name: model for model in models}
        self.failures: dict[int, str] = {}
        self._slots = slots
        self._sessions: dict[int, Session] = {}

    def open(self, place: int, stream: Stream) -> Opened:
        """Begin a stream.

        Raises:
            Busy: it would make the others late.
            RealtimeSepError: the model cannot do this.
        """
        session = Session(self.models[stream.model], stream, self._slots[place])
        try:
            self._admit(session)
        except Busy:
            session.close()
            raise
        self._sessions[place] = session
        return Opened(session.latency, session.hop, session.news)

    def _admit(self, new: Session) -> None:
        sessions = [*self._sessions.values(), new]
        models = {session.model for session in sessions}
        seconds = sum(m.cost(sum(s.model is m for s in sessions)) for m in models)
        seconds += sum(s.model.resampling for s in sessions if s.resampled)
        period = min(model.period for model in models)
        if seconds > BUDGET * period:
            raise Busy(
                f"this server is full: with one more stream of {new.model.name!r} it would need "
                f"{1e3 * seconds:.1f} ms for every {1e3 * period:.1f} ms of audio of its "
                f"{len(sessions)} clients, and may take {BUDGET:.0%}; try again later"
            )

    def end(self, place: int, at: int) -> None:
        """As `Session.end`."""
        if session := self._sessions.get(place):
            session.end(at)

    def close(self, place: int) -> None:
        """End a stream, if there is one."""
        if session := self._sessions.pop(place, None):
            session.close()

    def run(self) -> bool:
        """One hop of every session that has one.

        Returns:
            Whether anything was done, so that there may be more to do.
        """
        ready: dict[int, Session] = {}
        for place, session in [*self._sessions.items()]:
            with self._failing(place):
                if session.take():
                    ready[place] = session
        for model in self.models.values():
            own = {p: s for p, s in ready.items() if s.model is model}
            with self._failing(*own):
                for session in own.values():
                    prepare(session.separation)
                model.run()
        for place in ready.keys() & self._sessions.keys():
            session = ready[place]
            with self._failing(place):
                session.step()
                session.give()
        return any(s.gave for s in self._sessions.values()) or bool(ready)

    @contextmanager
    def _failing(self, *places: int) -> Iterator[None]:
        """What goes wrong inside ends these sessions and no other."""
        try:
            yield
        except Exception as error:
            for place in places:
                if session := self._sessions.pop(place, None):
                    name = session.model.name
                    self.failures[place] = f"separator {name!r} failed: {error!r:.200}"
                    with suppress(Exception):
                        session.close()

    def news(self) -> Iterator[tuple[int, str]]:
        """What separators want their users to know."""
        for place, session in self._sessions.items():
            if text := session.news:
                yield place, text


def prepare(separation: Separation) -> None:
    """Let a separator that is computed together with others know its next hop."""
    method, hop = getattr(separation.separator, "prepare", None), separation.ready
    if method is not None and hop is not None:
        clean = np.empty_like(hop)
        sanitise(hop, clean)  # as the engine does, which gives the separator this hop again
        method(clean)


def close(separator: Separator) -> None:
    """Let go of a separator, if it holds on to anything."""
    if (method := getattr(separator, "close", None)) is not None:
        method()
