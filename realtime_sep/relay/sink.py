"""Writing: the mix encoded, the picture copied, into a file or to a server."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.codec.context import Flags

from realtime_sep.errors import RelayError, UsageError
from realtime_sep.relay.place import Place
from realtime_sep.relay.program import Program, reason
from realtime_sep.types import Float32

#: Seconds that a server may take to accept anything.
TIMEOUT = 10.0
#: Seconds that a live output waits for a picture to go with the sound, or the reverse.
_INTERLEAVE = 1.0

#: What people call codecs, and FFmpeg's encoder for each.
CODECS = {
    "aac": "aac",
    "mp3": "libmp3lame",
    "opus": "libopus",
    "flac": "flac",
    "pcm": "pcm_f32le",
    "ac3": "ac3",
}
#: FFmpeg's name of a container -> the codec to use in it; AAC in all others.
_USUAL = {"mp3": "mp3", "ogg": "opus", "opus": "opus", "webm": "opus", "wav": "pcm", "flac": "flac"}
#: Containers of sound alone.
_SOUND_ONLY = ("mp3", "ogg", "opus", "wav", "flac", "adts", "ipod", "aiff", "ac3")
#: kb/s of a channel, for codecs that lose anything.
_BITRATE = 96
_LOSSLESS = ("flac", "pcm_", "alac", "wavpack")
#: What Icecast takes: codec -> container and content type.
_RADIO = {
    "mp3": ("mp3", "audio/mpeg"),
    "aac": ("adts", "audio/aac"),
    "opus": ("ogg", "application/ogg"),
    "flac": ("ogg", "application/ogg"),
}
_RADIO_BY_NAME = {".ogg": "opus", ".oga": "opus", ".opus": "opus", ".aac": "aac", ".flac": "flac"}


@dataclass(frozen=True)
class Encoding:
    """How the sound is stored: FFmpeg's names of container and encoder, Hz, bits per second."""

    container: str
    codec: str
    samplerate: int
    bitrate: int | None
    content_type: str = ""


def encoding(
    place: Place, codec: str | None, bitrate: int | None, samplerate: int, channels: int
) -> Encoding:
    """What to write to `place`.

    Args:
        codec: one of `CODECS`, or any encoder of FFmpeg; the usual one if None.
        bitrate: bits per second; the usual one if None.
        samplerate: of the sound, which is kept where the codec can.

    Raises:
        UsageError: a file of no known kind, or an unknown codec.
    """
    content_type = ""
    if place.scheme == "icecast":
        codec = codec or _RADIO_BY_NAME.get(place.path.suffix.lower(), "mp3")
        if codec not in _RADIO:
            raise UsageError(f"a radio server takes {', '.join(_RADIO)}, not {codec}")
        container, content_type = _RADIO[codec]
    elif place.is_file:
        container = _container_of(place.path)
    else:
        container = "flv" if place.scheme in ("rtmp", "rtmps") else "mpegts"
    codec = codec or _USUAL.get(container, "aac")
    name = CODECS.get(codec, codec)
    try:
        encoder = av.Codec(name, "w")
    except (av.error.FFmpegError, ValueError) as error:
        raise UsageError(
            f"this FFmpeg has no encoder {name!r}; known: {', '.join(sorted(CODECS))}"
        ) from error
    if encoder.type != "audio":
        raise UsageError(f"{codec!r} is not for sound; known: {', '.join(sorted(CODECS))}")
    rates = encoder.audio_rates or [samplerate]
    fitting = [rate for rate in rates if rate >= samplerate]
    if not name.startswith(_LOSSLESS):
        bitrate = bitrate or _BITRATE * 1000 * channels
    return Encoding(container, name, min(fitting) if fitting else max(rates), bitrate, content_type)


def _container_of(path: Path) -> str:
    try:
        with av.open(path.name, "w") as unopened:
            return str(unopened.format.name)
    except (av.error.FFmpegError, ValueError) as error:
        raise UsageError(
            f"{path}: {path.suffix or 'no ending'} names no format; use .mp4, .mkv, .mp3, .flac …"
        ) from error


class Film:
    """A copy of what a video stream is, to be copied into outputs as often as they are opened.

    Raises:
        UsageError: the container takes no such video.
    """

    def __init__(self, stream: Any, container: str) -> None:
        if container in _SOUND_ONLY:
            raise UsageError(f"{container} holds sound only")
        self._holder = av.open("nothing", "w", format=container)  # never started, never written
        try:
            self.stream = self._holder.add_stream_from_template(stream, opaque=True)
        except (av.error.FFmpegError, ValueError) as error:
            raise UsageError(f"{container} takes no {stream.codec.name}") from error


class Sink:
    """One output; after an error of a server, `connect` begins anew.

    Args:
        place: a file appears under its name when it is complete.
        encoding: see `encoding`.
        channels: of the sound.
        film: to be copied; None for sound alone.
        patience: seconds by which the sound may come after its picture.

    Attributes:
        bytes: handed over so far.
        dropped: packets of the picture left out: before a key frame, or out of order.
        film: for the next `connect`.

    Raises:
        RelayError: it cannot be written.
    """

    def __init__(
        self,
        place: Place,
        encoding: Encoding,
        channels: int,
        film: Film | None = None,
        patience: float = 0.0,
    ) -> None:
        self.place = place
        self.encoding = encoding
        self.bytes = self.dropped = 0
        self._channels = channels
        self.film = film
        self._patience = patience
        self._container: Any = None
        self._program: Program | None = None
        self._temporary: Path | None = None
        self._moment = Fraction(0)  # of the newest sound
        self.connect()

    def connect(self) -> None:
        """Open the output.  After an interruption its time starts at zero again.

        Raises:
            RelayError: it cannot be written.
        """
        self.place.reach(TIMEOUT)
        self._zero = self._moment
        self._keyed = False
        self._last: Fraction | None = None  # the picture's newest decoding timestamp
        try:
            self._container = self._opened()
            self._audio = self._add_audio()
            self._video = None
            if self.film is not None:
                self._video = self._container.add_stream_from_template(
                    self.film.stream, opaque=True
                )
            self._container.start_encoding()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._failure(error, "cannot be opened") from error

    def _opened(self) -> Any:
        form = self.encoding
        if self.place.is_file:
            path = self.place.path
            self._temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
            return av.open(
                f"file:{self._temporary}",
                "w",
                format=form.container,
                container_options=_edit_lists(form),
            )
        delay = str(int((_INTERLEAVE + self._patience) * 1e6))
        if not _known(self.place.scheme):
            self._program = Program.writing(self.place, TIMEOUT)
            return av.open(
                self._program.url,
                "w",
                format=form.container,
                container_options={"max_interleave_delta": delay, "flush_packets": "1"},
            )
        # The muxer `tee` opens what it writes to with options, which PyAV itself does not.
        options = {
            "f": form.container,
            "onfail": "abort",
            "rw_timeout": str(int(TIMEOUT * 1e6)),
            "flush_packets": "1",
            "max_interleave_delta": delay,
            **({"content_type": form.content_type} if form.content_type else {}),
            **_PROMPT.get(form.container, {}),
        }
        words = ":".join(f"{key}={value}" for key, value in options.items())
        return av.open(
            f"[{words}]{_quoted(_packets_of_ts(self.place))}",
            "w",
            format="tee",
            container_options={"max_interleave_delta": delay},
        )

    def _add_audio(self) -> Any:
        form = self.encoding
        stream = self._container.add_stream(
            form.codec,
            form.samplerate,
            layout="mono" if self._channels == 1 else "stereo",
            time_base=Fraction(1, form.samplerate),
        )
        if form.codec == "flac":
            stream.format = "s32"  # 24 bits of them are stored
        if form.bitrate is not None:
            stream.bit_rate = form.bitrate
        # tee does not tell what its outputs want: FLV and MP4 keep the codec's header apart.
        if form.container in ("flv", "matroska", "mp4", "mov", "ipod"):
            stream.codec_context.flags |= Flags.global_header
        return stream

    def replace_film(self, film: Film) -> None:
        """Go on in a new output whose picture has another form.

        Raises:
            RelayError: as `connect`.
        """
        if self._container is not None:
            with suppress(RelayError):
                self.finish()
        self.film = film
        self.connect()

    def sound(self, first: int, samples: Float32) -> None:
        """Write `(frames, channels)` whose first frame is the output's frame `first`.

        Raises:
            RelayError: the server is gone, the disk is full.
        """
        rate = self.encoding.samplerate
        self._moment = Fraction(first + len(samples), rate)
        planar = np.ascontiguousarray(samples.T)
        frame = av.AudioFrame.from_ndarray(
            planar, format="fltp", layout="mono" if self._channels == 1 else "stereo"
        )
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = first - round(self._zero * rate)
        try:
            self._mux(self._audio.encode(frame))
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error, "cannot be written") from error

    def miss(self, first: int, frames: int) -> None:
        """Note sound that cannot be written while the server is away."""
        self._moment = Fraction(first + frames, self.encoding.samplerate)

    def picture(self, packet: av.Packet[Any], offset: Fraction) -> None:
        """Copy a packet, `offset` seconds later than it says.

        Raises:
            RelayError: as `sound`.
        """
        if self._video is None or packet.dts is None:
            return
        base = packet.time_base
        shift = round((offset - self._zero) / base)
        dts = packet.dts + shift
        self._keyed = self._keyed or packet.is_keyframe
        if not self._keyed or (self._last is not None and dts * base <= self._last):
            self.dropped += 1
            return
        self._last = dts * base
        packet.pts = dts if packet.pts is None else max(packet.pts + shift, dts)
        packet.dts = dts
        packet.stream = self._video
        try:
            self._mux([packet])
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error, "cannot be written") from error

    def _mux(self, packets: list[av.Packet[Any]]) -> None:
        for packet in packets:
            size = packet.size
            self._container.mux(packet)
            self.bytes += size

    def finish(self) -> None:
        """Write what the encoder holds back, and give a file its name.

        Raises:
            RelayError: it could not be completed; nothing is left of it.
        """
        try:
            self._mux(self._audio.encode(None))
            self._container.close()
            if self._temporary is not None:
                self._temporary.replace(self.place.path)
                self._temporary = None
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error, "cannot be completed") from error
        if self._program is not None:
            self._program.finish(TIMEOUT)

    def discard(self) -> None:
        """Let go of it; of a file, nothing is left."""
        container, self._container = self._container, None
        if container is not None:
            with suppress(av.error.FFmpegError, OSError):
                container.close()
        if self._program is not None:
            self._program.stop()
            self._program = None
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None

    def _failure(self, error: BaseException, what: str) -> RelayError:
        if self._program is not None:
            failure = self._program.failure(error, what)
        else:
            failure = RelayError(f"{self.place}: {what}: {_reason(error, self.place)}")
        self.discard()
        return failure


def _edit_lists(form: Encoding) -> dict[str, str]:
    """MP4 says in units of 1 ms when sound and picture begin, unless told to be more exact."""
    if form.container not in ("mp4", "mov", "ipod"):
        return {}
    return {"movie_timescale": str(form.samplerate)}


#: Containers that collect sound before they send it: for servers, less of that.
_PROMPT = {"ogg": {"page_duration": "200000"}, "mpegts": {"pes_payload_size": "0"}}


def _known(scheme: str) -> bool:
    """Whether PyAV's FFmpeg has the protocol for writing: asked without going anywhere."""
    return scheme != "srt" or _has_srt()


def _has_srt() -> bool:
    try:
        av.open("srt://127.0.0.1:0?mode=none", timeout=0.01)
    except av.error.ProtocolNotFoundError:
        return False
    except (av.error.FFmpegError, OSError):
        pass
    return True


def _packets_of_ts(place: Place) -> str:
    """The URL; UDP gets packets of seven whole MPEG-TS packets, as receivers expect."""
    if place.scheme != "udp" or "pkt_size" in place.url:
        return place.url
    return f"{place.url}{'&' if '?' in place.url else '?'}pkt_size=1316"


def _quoted(url: str) -> str:
    """For `tee`, to which some characters mean something."""
    return "".join(f"\\{c}" if c in "\\'|[] " else c for c in url)


def _reason(error: BaseException, place: Place) -> str:
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return "the server does not accept the password"
    if isinstance(error, av.error.HTTPForbiddenError):
        return "the server refuses (another sender on this mount point, or too many of them)"
    if isinstance(error, av.error.ExitError | TimeoutError):
        return f"no answer within {TIMEOUT:.0f} s"
    if isinstance(error, ValueError) and not isinstance(error, av.error.FFmpegError):
        return str(error)
    return reason(error)
