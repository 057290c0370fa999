"""What clients and server say to each other: hello, ready, control, errors; and the limits.

Text messages are JSON objects with a `type`, binary messages are audio.  Knows no sockets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from realtime_sep.blocks import check_rate
from realtime_sep.engine import MIX
from realtime_sep.errors import RealtimeSepError, UsageError, unknown
from realtime_sep.io.pipe import Encoding

VERSION = 1

#: Bytes of a binary message, at most: 0.34 s of stereo floats at 48 kHz.
MAX_MESSAGE = 1 << 17
#: Bytes of a JSON message, at most.
MAX_JSON = 4096
#: Seconds of audio that a client may be ahead of the clock: live audio is not sent faster than it
#: plays, but networks deliver in bursts.
AHEAD = 2.0
#: Messages per second, and how many at once.
MESSAGE_RATE, MESSAGE_BURST = 1000, 2000
#: Seconds that a connection may take to say hello, and then be silent.
HELLO_SECONDS = 5.0
IDLE_SECONDS = 60.0
#: Seconds that a full ring is waited for before its client counts as one that does not read.
SLOW_SECONDS = 3.0
#: Frames of every message that carries the tail.
TAIL_PIECE = 4096

_BYTES = {"f32le": 4, "s16le": 2}
#: Where faders end, in dB.
_LOUDEST = 6.0

# Codes of the WebSocket protocol's closing handshake.
CLOSE_OK = 1000
CLOSE_GOING = 1001
CLOSE_UNSUPPORTED = 1003
CLOSE_POLICY = 1008
CLOSE_TOO_BIG = 1009
CLOSE_FAILED = 1011
CLOSE_LATER = 1013


class ClientError(RealtimeSepError):
    """What ends one client's connection: a code for programs, a line for people.

    Attributes:
        code: stable, one of those in docs/serve.md.
        close: code of the closing handshake.
    """

    def __init__(self, code: str, message: str, close: int = CLOSE_POLICY) -> None:
        super().__init__(message)
        self.code = code
        self.close = close


@dataclass(frozen=True)
class Hello:
    """What a client wants.

    Attributes:
        samplerate, channels, format: of the audio that it sends and gets.
        outputs: buses, in the order of the layout: stems or "mix"; empty: every stem.
        model: name; empty: the server's first.
        packet: frames that the length of every binary message is a multiple of; only the last one
            before the end, or before a flush, may be shorter.
        faders: gains in dB of stems in the mix.
        token: the server's secret, where it wants one.
    """

    samplerate: int
    channels: int = 2
    format: Encoding = "f32le"
    outputs: tuple[str, ...] = ()
    model: str = ""
    packet: int = 1
    faders: Mapping[str, float] = field(default_factory=dict)
    token: str = ""

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame that comes in."""
        return _BYTES[self.format] * self.channels


def read_json(text: str) -> dict[str, Any]:
    """The object in a text message.

    Raises:
        ClientError: there is none.
    """
    if len(text) > MAX_JSON:
        raise ClientError(
            "too_big", f"text messages are JSON of at most {MAX_JSON} bytes", CLOSE_TOO_BIG
        )
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ClientError(
            "bad_message",
            "text messages are JSON objects with a type; audio goes into binary messages",
            CLOSE_UNSUPPORTED,
        )
    return value


def read_hello(message: Mapping[str, Any]) -> Hello:
    """The hello in a JSON message.

    Raises:
        ClientError: something in it is missing, unknown, or of the wrong kind.
    """
    if message.get("type") != "hello":
        raise _bad("the first message is a hello: " + _EXAMPLE)
    version = message.get("version")
    if version != VERSION:
        raise _bad(f"this server speaks version {VERSION} of the protocol, not {version!r:.20}")
    values = {key: value for key, value in message.items() if key not in ("type", "version")}
    known = Hello.__dataclass_fields__
    try:
        for key in values:
            if key not in known:
                raise unknown("field of hello", key[:40], known)
        hello = Hello(
            samplerate=_integer(values, "samplerate", None),
            channels=_integer(values, "channels", 2),
            format=_text(values, "format", "f32le"),  # type: ignore[arg-type]
            outputs=_names(values.get("outputs", ())),
            model=_text(values, "model", ""),
            packet=_integer(values, "packet", 1),
            faders=read_faders(values.get("faders", {})),
            token=_text(values, "token", ""),
        )
        check_rate(hello.samplerate)
    except UsageError as error:
        raise _bad(f"{error!s:.250}") from None
    if hello.channels not in (1, 2):
        raise _bad(f"channels is 1 or 2, not {hello.channels}")
    if hello.format not in _BYTES:
        raise _bad(f"format is f32le or s16le, not {hello.format[:20]!r}")
    if not 1 <= hello.packet * hello.frame_bytes <= MAX_MESSAGE:
        raise _bad(f"packet is in frames and at least 1, and fits into {MAX_MESSAGE} bytes")
    return hello


def read_faders(value: Any) -> dict[str, float]:
    """Gains in dB by stem; null stands for off.

    Raises:
        UsageError: they are none.
    """
    if not isinstance(value, dict) or len(value) > 16:
        raise UsageError('faders are an object of stems and dB: {"vocals": -12, "drums": null}')
    gains = {}
    for name, gain in value.items():
        if gain is None:
            gain = -math.inf
        if isinstance(gain, bool) or not isinstance(gain, int | float) or not gain <= _LOUDEST:
            raise UsageError(
                f"a fader is a number of dB up to {_LOUDEST:.0f}, or null for off, not {gain!r:.20}"
            )
        gains[name] = float(gain)
    return gains


def choose_outputs(wanted: Sequence[str], stems: Sequence[str]) -> tuple[str, ...]:
    """What a client gets, checked against what there is.

    Raises:
        ClientError: an unknown one, or one twice.
    """
    for name in wanted:
        if name not in (known := (*stems, MIX)):
            raise _bad(str(unknown("output", name[:40], known)))
    if len(set(wanted)) != len(wanted):
        raise _bad("outputs names something twice")
    return tuple(wanted) or tuple(stems)


def layout(outputs: Sequence[str], channels: int) -> list[str]:
    """Names of the samples of an answer's frame, in order."""
    return [f"{name}.{channel}" for name in outputs for channel in range(channels)]


_EXAMPLE = '{"type": "hello", "version": 1, "samplerate": 48000}'


def _bad(message: str) -> ClientError:
    return ClientError("bad_hello", message)


def _integer(values: Mapping[str, Any], key: str, default: int | None) -> int:
    value = values.get(key, default)
    if value is None:
        raise UsageError(f"hello needs a {key}: {_EXAMPLE}")
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{key} is a whole number, not {value!r:.20}")
    return value


def _text(values: Mapping[str, Any], key: str, default: str) -> str:
    value = values.get(key, default)
    if not isinstance(value, str):
        raise UsageError(f"{key} is a text, not {value!r:.20}")
    return value


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise UsageError('outputs are a list of stems or "mix": ["vocals", "accompaniment"]')
