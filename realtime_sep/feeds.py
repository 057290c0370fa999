"""Sound of a second device, brought to the clock of the first: what the worker takes and gives.

Each device of its own clock has a bridge and a ring, a `Link`.  Where a device is on its ring's
timeline, and when, its bridge tells after every callback (`Bridge.mark`); so does the main one.
Between such marks both clocks run evenly, so at any moment it is known how far apart they are, to
the jitter of the callbacks, and a loop (`dsp.clocks`) holds that distance by resampling a little
faster or slower (`dsp.varispeed`).

The distance is as short as it can be: what may be missing at the worst moment (a block that is
being recorded, a hop that is being computed), the resampler's reach, the frames that are held back
to fade with, and `MARGIN` for callbacks that come late.  It is the stream's latency, part `clock`.

A ring that runs dry fades out over the guard, is silent, and fades in at its place again: a gap,
which is counted; so is a stream that is found too far from its place.

Where `MARGIN` is too short, a gap widens the distance by as much again, up to `WIDEST`, as a jitter
buffer does; after a minute without a gap it shrinks, too slowly to be heard (`RAMP`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from realtime_sep.dsp.clocks import ClockLoop
from realtime_sep.dsp.varispeed import Varispeed, half_taps, shift
from realtime_sep.native import Bridge, Ring
from realtime_sep.types import Float32

#: Seconds by which callbacks of either device may be late.
MARGIN = 0.004
#: Seconds by which the distance may widen beyond that.
WIDEST = 0.032
#: Seconds without a gap after which it shrinks again,
CALM = 60.0
#: and how fast it moves while there is sound, relative: 0.2 cents.
RAMP = 1e-4
#: Seconds for which a device must have run evenly since it began: a sound server may take a quarter
#: of that at once, and wake up for more only two seconds later.
SETTLE = 0.3
#: Seconds after which a mark is of a device that has stopped.
_STALE = 0.25


@dataclass(frozen=True, eq=False)
class Link:
    """An opened device beside the main one.

    Attributes:
        ring: that the bridge fills, or empties.
        samplerate: Hz, by its name.
        blocks: every size that it may use, in frames.
        columns: for each channel of the engine, which one of the ring a microphone is on.
    """

    bridge: Bridge
    ring: Ring
    samplerate: int
    blocks: tuple[int, ...]
    columns: tuple[int, ...] = (0, 0)


@dataclass(frozen=True)
class Moment:
    """When the main device was where.

    Attributes:
        frames, time: the main bridge's mark.
        hop: frame that the hop in work begins with.
    """

    frames: int
    time: int
    hop: int


@dataclass(frozen=True, eq=False)
class _Prepared:
    """All that a link needs, made outside the worker."""

    link: Link
    speed: Varispeed
    loop: ClockLoop
    line: Float32
    raw: Float32  # a hop of the ring's channels


class Feed:
    """What both directions have in common.

    Args:
        samplerate, hop: of the engine.
        guard: frames of a fade.

    Attributes:
        gaps: times that the sound was interrupted.
        wider: seconds by which the distance is to be wider than it must be.
        correction: relative, of the device's clock.
        error: frames of the device by which the stream is not where it should be, averaged.
    """

    #: Seconds for which a device must have run evenly since a gap.
    pause = 0.0

    def __init__(self, samplerate: int, hop: int, guard: int) -> None:
        self.samplerate, self.hop = samplerate, hop
        self.gaps = 0
        self.wider = 0.0
        self._guard, self._fade = guard, min(guard, hop)
        self._prepared: _Prepared | None = None
        self._wanted: _Prepared | None = None
        self._linked: _Prepared | None = None
        self._sounds = False
        rising = np.arange(1, self._fade + 1, dtype=np.float32) / np.float32(self._fade)
        self._rising: Float32 = rising[:, None]
        self._falling: Float32 = rising[::-1, None].copy()
        self._place = 0.0
        self._distance = 0.0
        self._calm = 0.0
        self._rest = SETTLE
        self._since: int | None = None  # the mark from which on the device has run evenly
        self._speed: Varispeed
        self._loop = ClockLoop(samplerate, hop)

    @property
    def link(self) -> Link | None:
        """Set from another thread than the worker's; None: there is no device."""
        return None if self._wanted is None else self._wanted.link

    @link.setter
    def link(self, link: Link | None) -> None:
        if link is None:
            self._wanted = None
        else:
            self.prepare(link)
            self._wanted = self._prepared

    def prepare(self, link: Link) -> None:
        """Make all that a link needs before it is set: what must be compiled takes a while."""
        if self._prepared is None or self._prepared.link is not link:
            self._prepared = self._prepare(link)

    @property
    def correction(self) -> float:
        return self._loop.correction

    @property
    def drift(self) -> float:
        """Relative, of the device's clock, as far as it is known."""
        return self._loop.drift

    @property
    def error(self) -> float:
        return self._loop.error

    def _prepare(self, link: Link) -> _Prepared:
        speed = self._varispeed(link)
        past = 2 * speed.half + 8 + math.ceil(2 * speed.nominal)
        line: Float32 = np.zeros((past + self.hop, link.ring.channels), np.float32)
        shift(line, line[: self.hop].copy())  # compiled now, and the other one, too
        speed.render(line, float(speed.half), speed.step, line[:1].copy())
        loop = ClockLoop(link.samplerate, max(*link.blocks, MARGIN * link.samplerate))
        raw: Float32 = np.zeros((self.hop, link.ring.channels), np.float32)
        return _Prepared(link, speed, loop, line, raw)

    def _varispeed(self, link: Link) -> Varispeed:
        raise NotImplementedError

    def latency(self, link: Link) -> int:
        """Frames of the engine that the two clocks cost with this device."""
        return round(self._goal(link) * self.samplerate / link.samplerate)

    def _goal(self, link: Link) -> float:
        return self.distance(link) + self.wider * link.samplerate

    def distance(self, link: Link) -> int:
        """The least distance, in frames of the device."""
        raise NotImplementedError

    def widen(self) -> None:
        """The distance was too short for what this machine does."""
        self.wider, self._calm = min(self.wider + MARGIN, WIDEST), 0.0

    def _follow(self) -> Link | None:
        """The link in use; another one is taken only when the one before is silent."""
        if self._linked is not self._wanted and not self._sounds:
            self._linked = self._wanted
            if self._linked is not None:
                self._begin(self._linked)
        return None if self._linked is None else self._linked.link

    def _begin(self, prepared: _Prepared) -> None:
        self._speed, self._loop = prepared.speed, prepared.loop
        self.wider, self._rest, self._since = 0.0, SETTLE, None
        self._distance = self._goal(prepared.link)

    def _device(self, link: Link, moment: Moment) -> float | None:
        """Where the device was at this moment on its ring's timeline; None: it stands still."""
        mark = link.bridge.mark()
        since = math.inf if mark is None else (moment.time - mark[1]) * 1e-9
        if mark is None or abs(since) >= _STALE:
            self._since = None
            return None
        self._newest = mark[0]
        if self._since is None:
            self._since = mark[0]
        return mark[0] + since * link.samplerate

    def _steady(self, link: Link) -> bool:
        """Whether the device has run evenly for long enough to begin."""
        since = self._since
        return since is not None and self._newest - since >= self._rest * link.samplerate

    def _keeps(self, link: Link, behind: float | None) -> bool:
        """One look of the loop; whether the stream may go on as it does."""
        seconds = self.hop / self.samplerate
        if behind is not None:
            self._loop.update(behind, seconds)
        self._calm += seconds
        if self._calm > CALM:
            self.wider = max(0.0, self.wider - RAMP * seconds)
        most = RAMP * seconds * link.samplerate
        self._distance += min(max(self._goal(link) - self._distance, -most), most)
        return self.link is link and not self._loop.lost

    def _stop(self, link: Link) -> None:
        self.gaps += 1
        if self.link is link:
            self.widen()
        self._distance = self._goal(link)
        self._sounds, self._rest, self._since = False, self.pause, None


class MicrophoneFeed(Feed):
    """Takes a hop's worth from a microphone."""

    pause = 0.1  # one that is being pulled out is known to be gone by then

    def distance(self, link: Link) -> int:
        speed = link.samplerate / self.samplerate
        reach = half_taps(link.samplerate, self.samplerate) + self._reserve(speed)
        return max(link.blocks) + reach + math.ceil(MARGIN * link.samplerate)

    def _reserve(self, speed: float) -> int:
        """Frames that are held back to fade with."""
        return math.ceil(1.01 * self._fade * speed) + 2

    def _varispeed(self, link: Link) -> Varispeed:
        return Varispeed(link.samplerate, self.samplerate)

    def _begin(self, prepared: _Prepared) -> None:
        super()._begin(prepared)
        self._held = self._reserve(self._speed.nominal)

    def take(self, moment: Moment, out: Float32) -> None:
        """Fill `out` `(hop, channels)` with what belongs to this hop."""
        link = self._follow()
        if link is None or self._linked is None:
            out[:] = 0
            return
        raw = self._linked.raw
        self._fill(link, moment, raw)
        for channel in range(out.shape[1]):
            out[:, channel] = raw[:, link.columns[channel]]

    def _fill(self, link: Link, moment: Moment, out: Float32) -> None:
        ring, speed = link.ring, self._speed
        device = self._device(link, moment)
        if device is not None:
            device -= self._distance + (moment.frames - moment.hop) * speed.step
        if self._sounds:
            keeps = self._keeps(link, None if device is None else device - self._place)
            step = speed.nominal * (1 + self._loop.correction)
            if keeps and self._there(ring, len(out), step, self._held):
                self._render(ring, step, out)
            else:
                self._stop(link)
                out[self._fade :] = 0
                self._render(ring, speed.step, out[: self._fade])
                out[: self._fade] *= self._falling
        elif self._finds(link, device):
            self._loop.restart()
            speed.step = step = speed.nominal * (1 + self._loop.correction)
            self._sounds = self._there(ring, len(out), step, self._held)
            if self._sounds:
                self._render(ring, step, out)
                out[: self._fade] *= self._rising
            else:
                out[:] = 0
        else:
            out[:] = 0

    def _finds(self, link: Link, place: float | None) -> bool:
        """Go to where it should be, and let go of all that is older; whether that is possible."""
        if place is None or self.link is not link:
            return False
        ring = link.ring
        old = math.floor(place) - self._speed.half + 1 - ring.consumed
        if old < 0:
            return False
        some = min(old, ring.read_space)
        ring.claim_read(some)
        ring.commit_read(some)
        self._place = place
        return some == old and self._steady(link)

    def _there(self, ring: Ring, frames: int, step: float, reserve: int) -> bool:
        last = self._place + self._speed.reach(frames, step)
        return math.floor(last) + self._speed.half + 1 + reserve <= ring.written

    def _render(self, ring: Ring, step: float, out: Float32) -> None:
        first, half = ring.consumed, self._speed.half
        last = math.floor(self._place + self._speed.reach(len(out), step))
        source = ring.claim_read(last + half + 1 - first)
        if source is None:  # cannot be: `_there` has looked, or what was held back is there
            out[:] = 0
            return
        self._place = first + self._speed.render(source, self._place - first, step, out)
        ring.commit_read(math.floor(self._place) - half + 1 - first)


class MonitorFeed(Feed):
    """Gives hops to a monitor.

    Args:
        lead: frames by which the newest finished hop may be behind the main device: until it is
            gathered, and while it is computed.
    """

    def __init__(self, samplerate: int, hop: int, guard: int, lead: int) -> None:
        super().__init__(samplerate, hop, guard)
        self._lead = lead

    def distance(self, link: Link) -> int:
        behind = self._lead + half_taps(self.samplerate, link.samplerate)
        uneven = max(link.blocks) - min(link.blocks)
        own = self._guard + uneven + math.ceil(MARGIN * link.samplerate)
        return math.ceil(behind * link.samplerate / self.samplerate) + own

    def _varispeed(self, link: Link) -> Varispeed:
        return Varispeed(self.samplerate, link.samplerate)

    def _begin(self, prepared: _Prepared) -> None:
        super()._begin(prepared)
        self._line = prepared.line
        self._past = len(self._line) - self.hop
        self._place = float(self._past - self._speed.half)

    def give(self, moment: Moment, hop: Float32) -> None:
        """Pass on `hop` `(hop, channels)`."""
        link = self._follow()
        if link is None:
            return
        ring, speed = link.ring, self._speed
        shift(self._line, hop)
        self._place -= self.hop
        missing = self._missing(link, moment)
        if self._sounds:
            keeps = self._keeps(link, missing)
            step = speed.nominal / (1 + self._loop.correction)
            frames = self._ready(step)
            if keeps and ring.write_space >= frames + self._fade:
                self._render(ring, frames, step)
            else:
                self._stop(link)
                rest = self._ready(speed.step)
                self._render(ring, min(rest, self._fade, ring.write_space), speed.step, falls=True)
                self._pass_over(self._ready(speed.step))
            return
        begins = missing is not None and self.link is link and self._steady(link)
        silence = round(missing or 0) if begins else -1
        speed.step = step = speed.nominal / (1 + self._loop.drift)
        frames = self._ready(step)
        if 0 <= silence <= ring.write_space - frames - self._fade:
            ring.write_silence(silence)
            self._loop.restart()
            self._sounds = True
            self._render(ring, frames, step, rises=True)
        else:
            ring.write_silence(max(0, min(silence, ring.write_space)))  # what is owed, bit by bit
            self._pass_over(frames)

    def _missing(self, link: Link, moment: Moment) -> float | None:
        """Frames by which what is written is behind where it should be; None: nobody knows."""
        device = self._device(link, moment)
        if device is None:
            return None
        ahead = (moment.frames - moment.hop - (self._place - self._past)) / self._speed.step
        return device + self._distance - (link.ring.written + ahead)

    def _ready(self, step: float) -> int:
        """Frames that can be made of what is there."""
        left = len(self._line) - 1 - self._speed.half - self._place
        return max(0, int(left / max(self._speed.step, step)))

    def _pass_over(self, frames: int) -> None:
        self._place += self._speed.reach(frames, self._speed.step)

    def _render(
        self, ring: Ring, frames: int, step: float, *, rises: bool = False, falls: bool = False
    ) -> None:
        out = ring.claim_write(frames)
        if out is None or frames == 0:  # no room: then nothing plays that could click
            return
        self._place = self._speed.render(self._line, self._place, step, out)
        fade = min(self._fade, frames)
        if rises:
            out[:fade] *= self._rising[:fade]
        if falls:
            out[:fade] *= self._falling[-fade:]
        ring.commit_write(frames)
