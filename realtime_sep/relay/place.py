"""Where a stream comes from or goes to: a file or a URL, checked before anything is opened."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from realtime_sep.errors import RelayError, UsageError

#: Protocols that are read and written.  Others that FFmpeg knows (concat:, subfile:, pipe: …) are
#: not for streams, and some of them read any file.
SOURCES = ("http", "https", "icecast", "rtmp", "rtmps", "rtsp", "srt", "tcp", "udp")
TARGETS = ("icecast", "rtmp", "rtmps", "srt", "tcp", "udp")
#: Their last part is a password as a rule.
_SECRET_PATH = ("rtmp", "rtmps")
#: Protocols over TCP, and their ports.
_PORTS = {
    "http": 80,
    "https": 443,
    "icecast": 80,
    "rtmp": 1935,
    "rtmps": 443,
    "rtsp": 554,
    "tcp": None,
}


@dataclass(frozen=True)
class Place:
    """One end of a relay.

    Attributes:
        url: as it was given.
        scheme: "file", or the protocol.
    """

    url: str
    scheme: str

    @property
    def is_file(self) -> bool:
        return self.scheme == "file"

    @property
    def path(self) -> Path:
        """Of a file; the end of a URL's path tells the format, as a file's name does."""
        return Path(self.url if self.is_file else self._parts.path)

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    def __str__(self) -> str:
        """For people: without passwords and stream keys."""
        if self.is_file:
            return self.url
        parts = self._parts
        path = parts.path
        if self.scheme in _SECRET_PATH and path.count("/") > 1:
            path = path.rpartition("/")[0] + "/…"
        return f"{self.scheme}://{parts.netloc.rpartition('@')[2]}{path}"

    def reach(self, seconds: float) -> None:
        """Try whether a server is there at all, before FFmpeg tries to talk to it.

        FFmpeg says of an unknown name only "input/output error"; and PyAV, when it opens an output,
        holds the interpreter's lock until the server has answered.

        Raises:
            RelayError: there is none.
        """
        if self.scheme not in _PORTS or "listen" in self._parts.query:
            return
        host, port = self._parts.hostname, self._parts.port or _PORTS[self.scheme]
        if host is None or port is None:
            return
        try:
            socket.create_connection((host, port), seconds).close()
        except socket.gaierror as error:
            raise RelayError(f"{self}: no host named {host!r} is known") from error
        except TimeoutError as error:
            raise RelayError(f"{self}: no answer within {seconds:.0f} s") from error
        except OSError as error:
            raise RelayError(f"{self}: cannot be reached: {error.strerror or error}") from error


def source(text: str) -> Place:
    """What `--from` names.

    Raises:
        UsageError: no file, or a protocol that is not read.
    """
    place = _place(text, SOURCES, "--from")
    if place.is_file:
        if place.path.is_dir():
            raise UsageError(f"{text}: is a directory; give a file in it")
        if not place.path.exists():
            raise UsageError(f"{text}: no such file; a stream begins with rtmp://, http:// …")
    return place


def target(text: str) -> Place:
    """What `--to` names.

    Raises:
        UsageError: no place for a file, or a protocol that is not written.
    """
    place = _place(text, TARGETS, "--to")
    if place.is_file:
        if place.path.is_dir():
            raise UsageError(f"{text}: is a directory; give a file name")
        if not place.path.parent.is_dir():
            raise UsageError(f"{text}: the directory {place.path.parent} does not exist")
    elif place.scheme == "icecast" and len(place.path.parts) < 2:
        raise UsageError(f"{place}: name a mount point, as in icecast://source:PASSWORD@host/live")
    return place


def _place(text: str, known: tuple[str, ...], option: str) -> Place:
    scheme, found, rest = text.partition("://")
    if not found:
        return Place(text, "file")
    scheme = scheme.lower()
    if scheme == "file":
        return Place(rest, "file")
    if scheme in ("http", "https") and scheme not in known:
        raise UsageError(
            f"{option} {scheme}:// is not written to; a radio server takes icecast://, "
            "a video server rtmp:// or srt://"
        )
    if scheme not in known:
        raise UsageError(f"{option}: {scheme}:// is not a stream; known: a file, {_list(known)}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is not a URL: {error}") from error
    if not parts.hostname and not (scheme in ("udp", "srt") and port):
        raise UsageError(f"{option} {text!r} names no host")
    return Place(text, scheme)


def _list(schemes: tuple[str, ...]) -> str:
    return ", ".join(f"{scheme}://" for scheme in schemes)
