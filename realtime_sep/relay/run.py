"""One stream through the separator: reader thread ▶ queue ▶ separator ▶ queue ▶ writer thread.

Data flows one way and both queues are short, so memory stays what it is: a slow output makes the
source wait, as a pipe would.  The separator's thread is the one that calls `Relay.run`; it also
knows the clock, and puts silence where a live source owes sound to a live output.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Self

import av
import numpy as np

from realtime_sep.dsp.meters import linear
from realtime_sep.dsp.resample import StreamResampler
from realtime_sep.engine import MIX
from realtime_sep.errors import RelayError, UsageError, unknown
from realtime_sep.offline import VOCALS, Separation
from realtime_sep.relay.place import Place
from realtime_sep.relay.sink import Encoding, Film, Sink, encoding
from realtime_sep.relay.source import Picture, PictureFormat, Sound, Source
from realtime_sep.relay.timeline import Timeline
from realtime_sep.types import Float32, SeparatorInfo

#: Packets in a queue: some 3 s of a film, and of sound alone 5 s.
_QUEUE = 256
#: Seconds between two looks at the clock while nothing comes.
_TICK = 0.05
#: Seconds by which a file may run ahead of the clock on its way to a server.
_AHEAD = 1.0
#: Seconds before the first attempt to reconnect, and between later ones at most.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0
#: A connection that lasts less than this belongs to the outage before it.
_LASTING = 5.0
#: Frames of silence that are separated at once.
_SILENCE = 8192
#: Seconds that the last packets may take on their way out.
_FAREWELL = 30.0


@dataclass
class RelayStats:
    """What happened so far.

    Attributes:
        seconds: of sound on the output's timeline.
        bytes_in, bytes_out: of packets, without containers and protocols.
        late: seconds that a live output is behind the clock now; late_max: at worst.
        silent: seconds of silence for sound that did not come.
        discarded: seconds of sound that came when silence had already taken its place.
        lost: seconds of sound that the target did not get, because it was away.
        source_losses, target_losses: how often each was lost and came back.
        damaged: packets that could not be decoded.
        pictures_dropped: packets before a key frame, or out of order.
        delay_p50, delay_max: seconds from a live sample's arrival to its hand-over to the muxer.
    """

    seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    late: float = 0.0
    late_max: float = 0.0
    silent: float = 0.0
    discarded: float = 0.0
    lost: float = 0.0
    source_losses: int = 0
    target_losses: int = 0
    damaged: int = 0
    pictures_dropped: int = 0
    delay_p50: float = 0.0
    delay_max: float = 0.0


@dataclass(frozen=True)
class _Restart:
    """The source is back: its first timestamp, and its picture if that has another form now."""

    first: Fraction
    film: Film | None = None


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


@dataclass(frozen=True)
class _Mixed:
    """Sound for the sink: `first` is its place on the output's timeline."""

    first: int
    samples: Float32
    arrived: float


@dataclass(frozen=True)
class _Copied:
    packet: av.Packet[Any]
    offset: Fraction


@dataclass
class _Outage:
    """A target that is away, and when to try again."""

    since: float
    wait: float = _FIRST_WAIT
    again: float = field(init=False)

    def __post_init__(self) -> None:
        self.postpone(self.since)

    def postpone(self, now: float) -> None:
        self.again = now + self.wait
        self.wait = min(2 * self.wait, _LONGEST_WAIT)


class Relay:
    """A stream under way.

    Args:
        source, target: see `place`.
        separator: a name for `load_separator`.
        vocals, music: levels in dB, of the stem "vocals" and of all others.
        levels: in dB, by the name of a stem, instead of those.
        chains: text of chains of effects, by place: "mix" or a stem (see `effects.syntax`).
        codec, bitrate: see `sink.encoding`.
        reconnect: seconds for which a live source or a server may be away.
        tell: called with one line whenever something happens that a person wants to know; from
            any thread.
        options: for `load_separator`.

    Attributes:
        info: the separator.
        encoding: of the output.

    Raises:
        UsageError, ModelError: as `load_separator`, or an output that cannot be.
        RelayError: one of the ends cannot be opened.
    """

    def __init__(
        self,
        source: Place,
        target: Place,
        separator: str = "center",
        *,
        vocals: float = -math.inf,
        music: float = 0.0,
        levels: Mapping[str, float] | None = None,
        chains: Mapping[str, str] | None = None,
        codec: str | None = None,
        bitrate: int | None = None,
        reconnect: float = 60.0,
        tell: Callable[[str], None] = lambda line: None,
        **options: Any,
    ) -> None:
        self._tell = tell
        self._reconnect = reconnect
        if not source.is_file:
            _warm(
                separator, {"chains": chains, **options}
            )  # what a live stream sends meanwhile would stay late
        self._source = Source(source)
        try:
            rate, channels = self._source.samplerate, self._source.channels
            self._separation = Separation(
                separator, rate, channels, outputs=(MIX,), chains=chains, **options
            )
            self.info: SeparatorInfo = self._separation.separator.info
            _set_faders(self._separation, vocals, music, levels or {})
            self.encoding: Encoding = encoding(target, codec, bitrate, rate, channels)
            self._picture: PictureFormat | None = None
            patience = self.info.latency / self.info.samplerate
            self._sink = Sink(target, self.encoding, channels, self._film(target), patience)
        except BaseException:
            self._source.close()
            raise
        self._live = self._source.live
        self._clocked = self._live and not target.is_file
        self._paced = not self._live and not target.is_file
        self._timeline = Timeline(rate, self._live)
        self._resampler = None
        if self.encoding.samplerate != rate:
            self._resampler = StreamResampler(rate, self.encoding.samplerate, channels)

        self._incoming: queue.Queue[Sound | Picture | _Restart | _End] = queue.Queue(_QUEUE)
        self._outgoing: queue.Queue[_Mixed | _Copied | Film | _End] = queue.Queue(_QUEUE)
        self._stopping = threading.Event()
        self._failed: BaseException | None = None  # the writer's end
        self._given = 0  # frames, at the output's rate
        self._arrivals: deque[tuple[int, float]] = deque()  # (frame after a block, its arrival)
        self._delays: deque[float] = deque(maxlen=4096)
        self._stats = RelayStats()
        self._began = 0.0
        self._notice: str | None = None

    def _film(self, target: Place) -> Film | None:
        """The source's picture, if there is one and the target takes it."""
        if self._source.picture is None:
            return None
        try:
            film = Film(self._source.video, self.encoding.container)
        except UsageError as error:
            self._tell(f"{target}: without the picture: {error}")
            return None
        self._picture = self._source.picture
        return film

    @property
    def live(self) -> bool:
        """Whether the source goes by the clock."""
        return self._live

    @property
    def has_picture(self) -> bool:
        return self._picture is not None

    @property
    def samplerate(self) -> int:
        """Of the source, in Hz."""
        return self._source.samplerate

    @property
    def _seconds(self) -> float:
        """Length of the output so far."""
        begin = self._timeline.begin
        return 0.0 if begin is None else (self._timeline.position - begin) / self.samplerate

    @property
    def stats(self) -> RelayStats:
        """Figures of this moment."""
        stats, timeline, rate = self._stats, self._timeline, self._source.samplerate
        stats.seconds = self._seconds
        stats.bytes_in, stats.bytes_out = self._source.bytes, self._sink.bytes
        stats.silent = timeline.silent_frames / rate
        stats.discarded = timeline.late_frames / rate
        stats.damaged = self._source.damaged
        stats.pictures_dropped = self._sink.dropped
        delays = list(self._delays)
        if delays:
            stats.delay_p50 = float(np.median(delays))
        return stats

    # --- the separator's thread ------------------------------------------------------------------

    def run(
        self,
        stopped: Callable[[], bool] = lambda: False,
        seconds: float | None = None,
        watch: Callable[[RelayStats], None] = lambda stats: None,
    ) -> RelayStats:
        """Relay until the source ends, `stopped()` says so, or `seconds` of sound are through.

        A file is complete when this returns, also when it raises because a live source has gone.

        Args:
            watch: called about twenty times a second.

        Raises:
            RelayError: one of the ends is gone for good; of a file that could not be read to its
                end, nothing is written.
        """
        self._began = time.monotonic()
        reader = threading.Thread(target=self._read, name="relay reader", daemon=True)
        writer = threading.Thread(target=self._write, name="relay writer", daemon=True)
        reader.start()
        writer.start()
        try:
            end = self._relay(stopped, seconds, watch)
            if end.error is not None and not self._live:
                raise end.error
            self._finish(writer, watch)
        except BaseException:
            self._stopping.set()
            writer.join(_FAREWELL)  # at most as long as a server may hesitate
            if not writer.is_alive():
                self._sink.discard()
            raise
        finally:
            self._stopping.set()
        if end.error is not None:
            raise end.error
        return self.stats

    def _relay(
        self,
        stopped: Callable[[], bool],
        seconds: float | None,
        watch: Callable[[RelayStats], None],
    ) -> _End:
        self._timeline.restart(self._source.start)
        looked = 0.0
        while True:
            now = time.monotonic()
            if now - looked >= _TICK:
                looked = now
                self._look(now, watch)
            if self._failed is not None:
                raise self._failed
            if stopped() or (seconds is not None and self._seconds >= seconds):
                return _End()
            if self._clocked and self._incoming.empty():
                self._silence(self._timeline.overdue(now), now)
            if self._paced and self._ahead(now) > _AHEAD:
                time.sleep(_TICK)
                continue
            try:
                item = self._incoming.get(timeout=_TICK)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                return item
            self._take(item)

    def _take(self, item: Sound | Picture | _Restart) -> None:
        now = time.monotonic()
        timeline = self._timeline
        if isinstance(item, _Restart):
            timeline.restart(item.first, now)
            if item.film is not None:
                self._put(item.film)
        elif isinstance(item, Picture):
            moment = timeline.moment(1, item.at, item.duration, now)
            self._put(_Copied(item.packet, moment - item.at))
        else:
            timeline.moment(0, item.at, item.duration, now)
            for at, block in item.blocks:
                placed = timeline.place(at, len(block), now)
                self._silence(placed.silence, now)
                self._separate(block[placed.skip :], item.arrived)

    def _silence(self, frames: int, now: float) -> None:
        """Separate silence, which the timeline has counted in already."""
        while frames > 0:
            block = np.zeros((min(frames, _SILENCE), self._source.channels), np.float32)
            self._separate(block, now)
            frames -= len(block)

    def _separate(self, block: Float32, arrived: float) -> None:
        if not len(block):
            return
        fed = self._arrivals[-1][0] if self._arrivals else self._heard()
        self._arrivals.append((fed + len(block), arrived))
        self._emit(self._separation.process(block)[0])
        if (notice := self._separation.notice) not in (None, self._notice):
            self._notice = notice
            self._tell(str(notice))

    def _heard(self) -> int:
        """Frames that have been given, at the source's rate."""
        return round(self._given * self._source.samplerate / self.encoding.samplerate)

    def _emit(self, mix: Float32) -> None:
        if self._resampler is not None:
            mix = self._resampler.process(mix)
        self._give(mix)

    def _give(self, mix: Float32) -> None:
        """To the writer, at the output's rate."""
        if not len(mix):
            return
        begin = self._timeline.begin or 0
        first = round(begin * self.encoding.samplerate / self._source.samplerate) + self._given
        self._given += len(mix)
        heard = self._heard()
        while len(self._arrivals) > 1 and self._arrivals[0][0] < heard:
            self._arrivals.popleft()
        arrived = self._arrivals[0][1] if self._arrivals else time.monotonic()
        self._put(_Mixed(first, mix, arrived))

    def _put(self, item: _Mixed | _Copied | Film | _End) -> None:
        while self._failed is None:
            with suppress(queue.Full):
                self._outgoing.put(item, timeout=_TICK)
                return
        raise self._failed

    def _ahead(self, now: float) -> float:
        """Seconds by which what was taken is ahead of the clock."""
        return self._timeline.position / self._source.samplerate - (now - self._began)

    def _look(self, now: float, watch: Callable[[RelayStats], None]) -> None:
        if self._live:
            self._stats.late = self._timeline.lateness(now)
        elif self._paced:
            self._stats.late = max(0.0, -self._ahead(now))
        self._stats.late_max = max(self._stats.late_max, self._stats.late)
        watch(self.stats)

    def _finish(self, writer: threading.Thread, watch: Callable[[RelayStats], None]) -> None:
        """Bring out the separator's tail, and wait until everything is written."""
        if self._timeline.begin is None:
            raise RelayError(f"{self._source.place}: no sound came")
        self._emit(self._separation.flush()[0])
        if self._resampler is not None:
            self._give(self._resampler.flush())
        self._put(_End())
        until = time.monotonic() + _FAREWELL
        while writer.is_alive() and time.monotonic() < until:
            writer.join(_TICK)
            watch(self.stats)
        if self._failed is not None:
            raise self._failed
        if writer.is_alive():
            raise RelayError(f"{self._sink.place}: does not take the end of the stream")

    # --- the reader's thread ---------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while True:
                error = self._read_connection()
                if self._stopping.is_set():
                    return
                if not self._live or self._reconnect <= 0:
                    self._offer(_End(error))
                    return
                self._tell(
                    f"{error or f'{self._source.place}: ended'}; waiting for it to come back"
                )
                back = self._reopened()
                self._offer(back)
                if isinstance(back, _End):
                    return
        except BaseException as error:
            self._offer(_End(error))
        finally:
            self._source.close()

    def _read_connection(self) -> RelayError | None:
        """Read until the connection ends; why, if not in peace."""
        try:
            for item in self._source.packets():
                if not self._offer(item):
                    return None
        except RelayError as error:
            return error
        return None

    def _reopened(self) -> _Restart | _End:
        """Connect again; the end if that does not succeed in time."""
        outage = _Outage(time.monotonic())
        while not self._stopping.wait(max(0.0, outage.again - time.monotonic())):
            try:
                self._source.open()
            except RelayError:
                outage.postpone(time.monotonic())
                if outage.again - outage.since <= self._reconnect:
                    continue
                seconds = f"{self._reconnect:.0f} s"
                return _End(RelayError(f"{self._source.place}: did not come back in {seconds}"))
            self._stats.source_losses += 1
            self._tell(f"{self._source.place}: is back")
            return self._restart()
        return _End()

    def _restart(self) -> _Restart | _End:
        picture = self._source.picture
        if self._picture is None or picture in (None, self._picture):
            return _Restart(self._source.start)
        target = self._sink.place
        if target.is_file:
            return _End(
                RelayError(
                    f"{self._source.place}: is back with another picture; {target} ends here"
                )
            )
        return _Restart(self._source.start, self._film(target))

    def _offer(self, item: Sound | Picture | _Restart | _End) -> bool:
        """Put it into the queue as soon as there is room; False when nobody wants it any more."""
        while not self._stopping.is_set():
            with suppress(queue.Full):
                self._incoming.put(item, timeout=_TICK)
                return True
        return False

    # --- the writer's thread ---------------------------------------------------------------------

    def _write(self) -> None:
        outage: _Outage | None = None
        away = False
        connected = time.monotonic()
        try:
            while not self._stopping.is_set():
                try:
                    item = self._outgoing.get(timeout=_TICK)
                except queue.Empty:
                    continue
                try:
                    if away and outage is not None and self._is_back(outage):
                        away, connected = False, time.monotonic()
                    if not away and isinstance(item, _End):
                        self._sink.finish()
                        return
                    if not away:
                        self._deliver(item)
                        continue
                except RelayError as error:
                    now = time.monotonic()
                    if self._sink.place.is_file or self._reconnect <= 0:
                        raise
                    if outage is None or (not away and now - connected > _LASTING):
                        outage = _Outage(now)
                        self._tell(f"{error}; trying again")
                    else:
                        outage.postpone(now)
                    if now - outage.since > self._reconnect:
                        raise
                    away = True
                if isinstance(item, _Mixed):
                    self._sink.miss(item.first, len(item.samples))
                    self._stats.lost += len(item.samples) / self.encoding.samplerate
                if isinstance(item, Film):
                    self._sink.film = item
                if isinstance(item, _End):
                    raise RelayError(f"{self._sink.place}: was away when the stream ended")
        except BaseException as error:
            self._failed = error

    def _is_back(self, outage: _Outage) -> bool:
        """Try to connect, if it is time to."""
        if time.monotonic() < outage.again:
            return False
        self._sink.connect()
        self._stats.target_losses += 1
        self._tell(f"{self._sink.place}: is back")
        return True

    def _deliver(self, item: _Mixed | _Copied | Film | _End) -> None:
        if isinstance(item, Film):
            self._sink.replace_film(item)
        elif isinstance(item, _Copied):
            self._sink.picture(item.packet, item.offset)
        elif isinstance(item, _Mixed):
            self._sink.sound(item.first, item.samples)
            if self._live:  # files wait for the clock or for nothing
                delay = time.monotonic() - item.arrived
                self._delays.append(delay)
                self._stats.delay_max = max(self._stats.delay_max, delay)

    def close(self) -> None:
        """Let go of both ends; an output that is not complete vanishes."""
        if not self._began:
            self._source.close()
            self._sink.discard()
        self._separation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _warm(separator: str, options: dict[str, Any]) -> None:
    """Import, compile and load what a separator needs, so that the next of its kind is quick."""
    with Separation(separator, 48000, 2, outputs=(MIX,), **options) as separation:
        info = separation.separator.info
        separation.process(np.zeros((info.latency + 2 * info.hop, 2), np.float32))


def _set_faders(
    separation: Separation, vocals: float, music: float, levels: Mapping[str, float]
) -> None:
    info = separation.separator.info
    for name in levels:
        if name not in info.stems:
            raise unknown("stem", name, info.stems)
    if VOCALS not in info.stems and not levels:
        raise UsageError(
            f"{info.name!r} has no stem 'vocals' (it has {', '.join(info.stems)}); use --stem"
        )
    decibels = {name: vocals if name == VOCALS else music for name in info.stems} | dict(levels)
    gains = [linear(decibels[name]) for name in info.stems]
    separation.faders.targets[: len(gains)] = gains
    separation.faders.settle()
