"""Reading: packets of a file or a stream, the sound decoded, the picture as it is."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error
from av.stream import Disposition

from realtime_sep.errors import RelayError
from realtime_sep.io.file import frame_samples
from realtime_sep.relay.place import Place
from realtime_sep.relay.program import Program, reason
from realtime_sep.types import Float32

#: Seconds that a source may take to answer, and be silent, before it counts as lost.
TIMEOUT = 10.0
#: The same for HLS, which delivers a segment at a time.
HLS_TIMEOUT = 30.0
#: Protocols whose streams FFmpeg expects never to end: "input/output error" when they do.
_ENDLESS = ("http", "https", "icecast")
#: Packets in a row that cannot be decoded before the stream counts as broken: 4 s of AAC.
_HOPELESS = 200

#: For all protocols; each takes what it knows.
_OPTIONS = {
    "reconnect": "1",  # HTTP files that break off are continued; radio streams are not
    "reconnect_delay_max": "4",
    "overrun_nonfatal": "1",  # UDP that came too fast is lost, and no more
    "fifo_size": "65536",
    "rtmp_live": "any",
    "tcp_nodelay": "1",
}


@dataclass(frozen=True)
class Sound:
    """A decoded packet: timestamps in seconds, blocks `(frames, channels)` with their own ones."""

    at: Fraction
    duration: Fraction
    blocks: tuple[tuple[Fraction | None, Float32], ...]
    arrived: float


@dataclass(frozen=True)
class Picture:
    """A packet of the video stream."""

    at: Fraction
    duration: Fraction
    packet: av.Packet[Any]
    arrived: float


@dataclass(frozen=True)
class PictureFormat:
    """What must not change while a file is written."""

    codec: str
    width: int
    height: int
    extradata: bytes | None


class Source:
    """A file or stream, opened as often as needed; sound always comes out in the first one's form.

    Attributes:
        samplerate, channels: of the blocks: Hz, 1 or 2.
        start: the first timestamp, in seconds.
        live: it goes by the clock and may come back after its end.
        picture: the format of its video; None if it has none.
        damaged: packets that could not be decoded.
        bytes: taken so far.

    Raises:
        RelayError: it cannot be opened, or holds no sound.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.samplerate = self.channels = 0
        self.damaged = self.bytes = 0
        self._container: Any = None
        self._program: Program | None = None
        self.open()

    def open(self) -> None:
        """Connect, again if need be.

        Raises:
            RelayError: as for the class.
        """
        self.close()
        self.place.reach(TIMEOUT)
        self._container = self._opened()
        try:
            self._choose()
        except BaseException:
            self.close()
            raise

    def _opened(self) -> Any:
        url = f"file:{self.place.path}" if self.place.is_file else self.place.url
        if self.place.scheme == "icecast":
            url = "http" + url[len("icecast") :]
        wait = HLS_TIMEOUT if self.place.path.suffix == ".m3u8" else TIMEOUT
        timeout = None if self.place.is_file else (wait, wait)
        options = {} if self.place.is_file else _OPTIONS
        try:
            return av.open(url, timeout=timeout, options=options, metadata_errors="replace")
        except av.error.ProtocolNotFoundError:
            self._program = Program.reading(self.place, TIMEOUT)
            try:
                return av.open(self._program.url, format="mpegts", options={})
            except (av.error.FFmpegError, OSError) as error:
                raise self._program.failure(error, "cannot be opened") from error
        except (av.error.FFmpegError, OSError) as error:
            raise RelayError(f"{self.place}: {_unopened(error, wait)}") from error

    def _choose(self) -> None:
        container = self._container
        audio = container.streams.best("audio")
        if audio is None or audio.codec_context is None or not audio.codec_context.sample_rate:
            raise RelayError(f"{self.place}: holds no sound that can be decoded")
        if not self.samplerate:
            self.samplerate = audio.codec_context.sample_rate
            self.channels = min(audio.codec_context.channels, 2)
        self._audio = audio
        self._video = next((s for s in container.streams.video if _moving(s)), None)
        start = container.start_time
        self.start = Fraction(start or 0, av.time_base)
        self.live = not self.place.is_file and not (container.duration or 0) > 0
        self._undated: list[Any] = []
        self._resamplers: dict[tuple[int, str], av.AudioResampler] = {}

    @property
    def picture(self) -> PictureFormat | None:
        if self._video is None or self._video.codec_context is None:
            return None
        codec = self._video.codec_context
        return PictureFormat(codec.name, codec.width, codec.height, codec.extradata)

    @property
    def video(self) -> Any:
        """The video stream itself, while the source is open."""
        return self._video

    def packets(self) -> Iterator[Sound | Picture]:
        """What comes, until the end.

        Raises:
            RelayError: it broke off, fell silent, or cannot be decoded any more.
        """
        streams = [self._audio] if self._video is None else [self._audio, self._video]
        demuxed = self._container.demux(*streams)
        hopeless = 0
        while True:
            try:
                packet = next(demuxed, None)
            except (av.error.FFmpegError, OSError) as error:
                if self.live and self.place.scheme in _ENDLESS and error.errno == errno.EIO:
                    break
                raise RelayError(f"{self.place}: {_broken(error)}") from error
            if packet is None:
                break
            arrived = time.monotonic()
            self.bytes += packet.size
            if packet.stream is not self._audio:
                for picture in self._pictures(packet):
                    at, duration = picture.dts * picture.time_base, picture.duration or 0
                    yield Picture(at, duration * picture.time_base, picture, arrived)
                continue
            try:
                blocks = tuple(self._decoded(packet))
            except av.error.FFmpegError as error:
                self.damaged += 1
                hopeless += 1
                if hopeless < _HOPELESS:
                    continue  # players go on here, too
                raise RelayError(
                    f"{self.place}: its sound cannot be decoded any more: {reason(error)}"
                ) from error
            hopeless = 0
            stamp = packet.dts if packet.dts is not None else packet.pts
            if stamp is not None:
                at = stamp * packet.time_base
            elif blocks and blocks[0][0] is not None:  # what a decoder held back, at the end
                at = blocks[0][0]
            else:
                continue
            yield Sound(at, (packet.duration or 0) * packet.time_base, blocks, arrived)
        if self._program is not None:
            self._program.check()

    def _pictures(self, packet: av.Packet[Any]) -> list[Any]:
        """Video packets that have a decoding timestamp now.

        Some containers (Matroska) do not say the first ones of a film with bidirectional frames;
        they follow from the next.
        """
        if packet.dts is None:
            if packet.size:
                self._undated.append(packet)
            return []
        held, self._undated = self._undated, []
        for distance, earlier in enumerate(reversed(held), 1):
            earlier.dts = packet.dts - distance * (earlier.duration or 1)
        return [*held, packet]

    def _decoded(self, packet: av.Packet[Any]) -> Iterator[tuple[Fraction | None, Float32]]:
        for frame in packet.decode():
            if isinstance(frame, av.AudioFrame) and frame.samples:
                for same in self._at_own_rate(frame):
                    at = None
                    if same.pts is not None and same.time_base is not None:
                        at = same.pts * same.time_base
                    yield at, frame_samples(same, self.channels)

    def _at_own_rate(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """The frame as it is, unless the stream has come back with another sample rate."""
        if frame.sample_rate == self.samplerate:
            return [frame]
        kind = (frame.sample_rate, frame.layout.name)
        if kind not in self._resamplers:
            self._resamplers[kind] = av.AudioResampler("fltp", frame.layout, self.samplerate)
        return self._resamplers[kind].resample(frame)

    def close(self) -> None:
        """Let go of it; `open` brings it back."""
        if self._container is not None:
            with suppress(av.error.FFmpegError, OSError):
                self._container.close()
            self._container = None
        if self._program is not None:
            self._program.stop()
            self._program = None


def _moving(stream: Any) -> bool:
    """Whether it is film, not the picture of a cover."""
    return not stream.disposition & Disposition.attached_pic


def _unopened(error: BaseException, wait: float) -> str:
    if isinstance(error, av.error.ExitError):
        return f"no answer within {wait:.0f} s"
    if isinstance(error, av.error.InvalidDataError):
        return "is neither audio nor video that FFmpeg knows"
    if isinstance(error, EOFError):
        return "ended before it began: is anybody sending?"
    return f"cannot be opened: {reason(error)}"


def _broken(error: BaseException) -> str:
    if isinstance(error, av.error.ExitError):
        return f"nothing came for {TIMEOUT:.0f} s"
    return f"broke off: {reason(error)}"
