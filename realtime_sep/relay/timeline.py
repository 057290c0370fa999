"""Which moment of the source is which moment of the output: plain arithmetic, without a clock.

The output has one timeline, counted in frames of its audio, without gaps.  A source's timestamps
are put on it by one offset for sound and picture alike, so they stay together to the sample, and
the separator's delay does not matter: a sample keeps the timestamp with which it came in.

A new *epoch*, a new offset, begins when the source's timestamps start again: it was reconnected,
or its sender was restarted behind a server that kept us waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

#: Timestamps of sound may jitter by so many seconds without anything being mended: less than the
#: 45 ms from which on viewers notice (ITU-R BT.1359).  Within it, samples are counted instead,
#: because containers round timestamps (FLV to 1 ms) and some senders guess them.
JITTER = Fraction(40, 1000)
#: What is off by more than `STEADY` seconds for `SETTLED` seconds is no jitter: a packet was lost,
#: or the sender's clocks drift apart.
STEADY, SETTLED = Fraction(10, 1000), 1
#: Seconds that timestamps may leap ahead, or a packet come after its successor, in one epoch.
LEAP, REORDER = 10, Fraction(1, 2)
#: Seconds without sound after which a live output gets silence.
PATIENCE = 1
#: Seconds of nothing but late sound after which the source is taken to have paused, not to lag.
PAUSED = 1


@dataclass(frozen=True)
class Placement:
    """What to do with a block of sound: `silence` frames before it, its first `skip` left out."""

    silence: int
    skip: int


class Timeline:
    """Puts one source's packets on the output's timeline.

    Args:
        samplerate: of the sound, in Hz.
        live: the source goes by the clock; `now` is then that clock, in seconds.

    Attributes:
        begin: frame of the output's first sample; None until there is one.
        position: frame of the next sample.
        late_frames: sound that came too late, when silence had taken its place.
        silent_frames: silence that stands for sound that did not come.
        epochs: how often timestamps have started.
    """

    def __init__(self, samplerate: int, live: bool) -> None:
        self.samplerate = samplerate
        self.begin: int | None = None
        self.position = 0
        self.late_frames = self.silent_frames = self.epochs = 0
        self._live = live
        self._offset = Fraction(0)
        self._before: Fraction | None = None  # the offset of the epoch before
        self._front = Fraction(0)  # the latest moment of any packet so far
        self._last: dict[int, Fraction] = {}  # the same by stream, in this epoch
        self._origin: float | None = None  # the clock's reading at the output's moment 0
        self._first_origin = 0.0
        self._late_since: float | None = None
        self._exact = True  # the next sample is placed by its timestamp, whatever came before
        self._run: list[int] = [0, 0]  # the smallest deviation of one sign in a row, and its frames

    def restart(self, first: Fraction, now: float = 0.0) -> None:
        """A connection begins with the timestamp `first`: there starts a new epoch."""
        self._start_epoch(first, now)
        self.epochs += 1

    def moment(self, stream: int, at: Fraction, duration: Fraction, now: float = 0.0) -> Fraction:
        """The output's moment of a packet's decoding timestamp, in seconds.

        Every packet passes here, in the order in which they come.
        """
        moment = at + self._offset
        least = self._last.get(stream, self._front - LEAP) - REORDER
        if not least <= moment <= self._front + LEAP:
            if self._before is not None and abs(at + self._before - self._front) <= 1:
                return at + self._before  # a straggler
            self.restart(at, now)
            moment = at + self._offset
        self._last[stream] = moment
        self._front = max(self._front, moment + duration)
        return moment

    @property
    def offset(self) -> Fraction:
        """Seconds from the source's timestamps to the output's."""
        return self._offset

    def place(self, at: Fraction | None, frames: int, now: float = 0.0) -> Placement:
        """Put `frames` of sound with the source's timestamp `at` (None: where the last ended)."""
        target = self.position if at is None else self._frame(at + self._offset)
        if self.begin is None:
            self.begin = self.position = target
        gap = self._deviation(target, frames)
        if gap >= 0:
            self._late_since = None
        elif self._live and at is not None:
            if self._late_since is None:
                self._late_since = now
            elif now - self._late_since > PAUSED:
                self._start_epoch(at, now)
                return self.place(at, frames, now)
        placed = Placement(max(gap, 0), min(max(-gap, 0), frames))
        self.position += placed.silence + frames - placed.skip
        self.silent_frames += placed.silence
        self.late_frames += placed.skip
        self._exact = placed.skip == frames
        if placed.skip < frames:
            self._heard(now)
        return placed

    def overdue(self, now: float) -> int:
        """Frames of silence that must go out now, because no sound came; they are counted in."""
        if self._origin is None:
            return 0
        due = int((now - self._origin - PATIENCE) * self.samplerate) - self.position
        if due <= 0:
            return 0
        self.position += due
        self.silent_frames += due
        self._exact = True
        return due

    def lateness(self, now: float) -> float:
        """Seconds by which a live output has fallen behind the clock since it began."""
        if self._origin is None:
            return 0.0
        return max(0.0, now - self._first_origin - self.position / self.samplerate)

    def _start_epoch(self, first: Fraction, now: float) -> None:
        """The output goes on with `first`, at the end of what is there and not before the clock."""
        end = self._front
        if self.begin is not None:
            end = max(end, Fraction(self.position, self.samplerate))
            if self._live and self._origin is not None:
                end = max(end, Fraction(round((now - self._origin) * 1000), 1000))
        self._before = self._offset if self.epochs else None
        self._offset = self._front = end
        self._offset -= first
        self._last.clear()
        self._late_since = None
        self._exact = True

    def _deviation(self, target: int, frames: int) -> int:
        """Frames by which the next sample must be moved to be in time."""
        gap = target - self.position
        if target > (self._front + LEAP) * self.samplerate:
            return 0  # a decoder that is late with its last frame before an epoch
        if self._exact or abs(gap) > JITTER * self.samplerate:
            self._run = [0, 0]
            return gap
        least, since = self._run
        steady = since > 0 and least * gap > 0
        least = min(least, gap, key=abs) if steady else gap
        since = (since if steady else 0) + frames
        if since < SETTLED * self.samplerate:
            self._run = [least, since]
            return 0
        self._run = [0, 0]
        return least if abs(least) > STEADY * self.samplerate else 0

    def _heard(self, now: float) -> None:
        """Sound has come in time: the output's clock is never ahead of it."""
        origin = now - self.position / self.samplerate
        if self._origin is None:
            self._origin = self._first_origin = origin
        self._origin = max(self._origin, origin)

    def _frame(self, moment: Fraction) -> int:
        return round(moment * self.samplerate)
