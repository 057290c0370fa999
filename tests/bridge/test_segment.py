"""Memory that comes from another program is believed in nothing."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from realtime_sep.bridge import segment
from realtime_sep.errors import EngineError
from realtime_sep.native import Ring

FRAMES = 1 << 10


class Made:
    """A segment as a plugin makes it, to be spoilt."""

    def __init__(self, seal: bool = True) -> None:
        ring = Ring.bytes_needed(FRAMES, 2), Ring.bytes_needed(FRAMES, 6)
        self.size = 4096 + sum(ring)
        self.memory = os.memfd_create("test", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, self.size)
        if seal:
            fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        import mmap

        self.bytes = np.frombuffer(mmap.mmap(self.memory, self.size), np.uint8)
        self.header = np.frombuffer(self.bytes, segment._HEADER, 1)
        for name, value in {
            "magic": segment.MAGIC,
            "abi": segment.ABI,
            "samplerate": 48000,
            "bytes": self.size,
            "input_at": 4096,
            "output_at": 4096 + ring[0],
        }.items():
            self.header[name] = value
        Ring.place(self.bytes[4096 : 4096 + ring[0]], FRAMES, 2)
        Ring.place(self.bytes[4096 + ring[0] :], FRAMES, 6)
        self.bells = os.eventfd(0), os.eventfd(0)

    def open(self) -> segment.Segment:
        return segment.Segment(self.memory, *self.bells)


@pytest.fixture
def made() -> Iterator[Made]:
    one = Made()
    yield one
    for file in (one.memory, *one.bells):
        os.close(file)


def test_it_opens(made: Made) -> None:
    opened = made.open()
    assert opened.outputs == ("mix", "vocals", "accompaniment")
    assert opened.samplerate == 48000
    made.header["vocals"] = 0.5
    assert opened.gains.stems == (0.5, 0.0)


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("magic", 1, "none of ours"),
        ("abi", 2, "bridge install"),
        ("bytes", 1 << 40, "sizes"),
        ("input_at", 0, "sizes"),
        ("input_at", 4097, "sizes"),
        ("output_at", 1 << 62, "sizes"),
        ("output_at", 4096, "sizes"),
        ("samplerate", 0, "sizes"),
    ],
)
def test_a_spoilt_header_is_refused(made: Made, field: str, value: int, word: str) -> None:
    made.header[field] = value
    with pytest.raises(EngineError, match=word):
        made.open()


def test_spoilt_rings_are_refused(made: Made) -> None:
    made.bytes[4096 : 4096 + 32] = 255
    with pytest.raises(EngineError, match="rings"):
        made.open()


def test_memory_that_can_shrink_is_refused() -> None:
    with pytest.raises(EngineError, match="none of ours"):
        Made(seal=False).open()


def test_a_stranger_is_refused() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(b"GET / HTTP/1.1")
        with pytest.raises(EngineError, match="another language"):
            segment.Segment.receive(ours)
        segment.refuse(ours, "no\nsuch model")
        assert struct.unpack("=IIQ240s", theirs.recv(512))[3].startswith(b"no such model\0")


def test_both_languages_say_the_same() -> None:
    """Header, models and ports are written down in C and in other places."""
    native = Path(__file__).resolve().parents[2] / "native" / "plugin"
    header = (native / "link.h").read_text()
    assert f"RS_SEGMENT_ABI = {segment.ABI}" in header
    assert f"{segment.MAGIC:#x}" in header
    models = re.findall(r'"([^"]*)"', re.search(r"MODELS\[.*?\{(.*?)\}", _source(native))[1])
    turtle = (Path(segment.__file__).parent / "data" / "realtime_sep.ttl").read_text()
    points = re.findall(r'rdfs:label "([^"]*)" ; rdf:value (\d+)', turtle)
    assert points == 2 * [(name or "As the engine likes", str(i)) for i, name in enumerate(models)]


def _source(native: Path) -> str:
    return (native / "link.c").read_text().replace("RS_PLUGIN_MODELS] =", "] =")
