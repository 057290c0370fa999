"""What a plugin in another program and its engine share: a page of facts and faders, and two rings.

The plugin makes the memory and sends its descriptor over a local socket, with two eventfds; see
`native/plugin/link.h`, which describes the same bytes.  It is another program's, so nothing in it
is believed: sizes are checked, the rings check themselves, and memory that could be made smaller
while it is used is refused.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import socket
import struct
from contextlib import suppress
from typing import Any

import numpy as np

from realtime_sep.errors import EngineError
from realtime_sep.native import Ring
from realtime_sep.parameters import Gains

ABI = 1
MAGIC = 0x656764697262735F
#: The buses of a plugin that wants more than the mix.
STEMS = ("vocals", "accompaniment")

_HEADER = np.dtype(
    [
        ("magic", "u8"),
        ("abi", "u4"),
        ("samplerate", "u4"),
        ("bytes", "u8"),
        ("input_at", "u8"),
        ("output_at", "u8"),
        ("model", "S128"),
        ("prefill", "u8"),
        ("vocals", "f4"),
        ("music", "f4"),
        ("bypass", "u4"),
        ("wait", "u4"),
    ]
)
_ANSWER = struct.Struct("=IIQ240s")
_DESCRIPTORS = 3
#: No plugin needs more.
_MAX_BYTES = 1 << 26
_MAX_RATE = 1_000_000
_PAGE = 4096


class Segment:
    """One plugin's memory, opened.

    Attributes:
        samplerate: of the plugin's host, in Hz.
        model: what the plugin asks for; "" leaves the choice to the engine.
        outputs: buses of the output ring: ("mix",), or also `STEMS`.
        audio: ring of the stereo input, written by the plugin.
        sound: ring of the outputs side by side, written by the engine.

    Raises:
        EngineError: this is not the memory of a plugin that belongs to this engine.
    """

    def __init__(self, memory: int, bell: int, done: int) -> None:
        self.bell, self._done = bell, done
        size = os.fstat(memory).st_size
        if not _PAGE <= size <= _MAX_BYTES or not _sealed(memory):
            raise EngineError("a plugin sent memory that is none of ours")
        self._mapped = mmap.mmap(memory, size)
        bytes_ = np.frombuffer(self._mapped, np.uint8)
        self._live: Any = np.frombuffer(self._mapped, _HEADER, 1)[0]
        facts = self._live.copy()  # looked at twice, it might have changed in between
        if int(facts["magic"]) != MAGIC:
            raise EngineError("a plugin sent memory that is none of ours")
        if int(facts["abi"]) != ABI:
            raise EngineError(
                f"this plugin speaks version {int(facts['abi'])}, the engine version {ABI}: "
                "run `realtime-sep bridge install`"
            )
        first, second = int(facts["input_at"]), int(facts["output_at"])
        self.samplerate = int(facts["samplerate"])
        if (
            int(facts["bytes"]) != size
            or not _PAGE <= first < second < size
            or first % 128
            or second % 128
            or not 0 < self.samplerate <= _MAX_RATE
        ):
            raise EngineError("a plugin sent sizes that cannot be")
        try:
            self.audio = Ring.attach(bytes_[first:second])
            self.sound = Ring.attach(bytes_[second:])
        except Exception as error:
            raise EngineError("a plugin sent rings that are none") from error
        outputs = {2: ("mix",), 6: ("mix", *STEMS)}.get(self.sound.channels)
        if self.audio.channels != 2 or outputs is None:
            raise EngineError("a plugin sent rings of another width")
        self.outputs = outputs
        self.model = bytes(facts["model"]).decode("utf-8", "replace")

    @classmethod
    def receive(cls, link: socket.socket) -> Segment:
        """What a plugin sends first.

        Raises:
            EngineError: see above; or it sent nothing in time.
        """
        try:
            greeting, files, flags, _ = socket.recv_fds(link, 64, _DESCRIPTORS)
        except OSError as error:
            raise EngineError(f"a plugin said nothing: {error}") from error
        try:
            whole = len(files) == _DESCRIPTORS and not flags & socket.MSG_CTRUNC
            if greeting != struct.pack("=Q", MAGIC) or not whole:
                raise EngineError("a plugin that speaks another language")
            for file in files[1:]:
                os.set_blocking(file, False)
            return cls(*files)
        except BaseException:
            for file in files[1:]:
                os.close(file)
            raise
        finally:
            for file in files[:1]:
                os.close(file)

    @property
    def gains(self) -> Gains:
        """Where the plugin's faders are, for stems called `STEMS`."""
        live = self._live
        vocals, music = float(live["vocals"]), float(live["music"])
        return Gains((vocals, music), 1.0, bool(live["bypass"]), 1.0)

    @property
    def waits(self) -> bool:
        """Whether the plugin waits for the engine: no clock presses."""
        return bool(self._live["wait"])

    @property
    def prefill(self) -> int:
        """Frames of silence that the output began with."""
        return int(self._live["prefill"])

    def heard(self) -> None:
        """Take what the plugin has rung."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.bell)

    def answer_hop(self) -> None:
        """Tell a plugin that waits that something is finished."""
        with suppress(BlockingIOError):
            os.eventfd_write(self._done, 1)


def agree(link: socket.socket, hop: int, latency: int) -> None:
    """Tell a plugin what to expect: the hop, and the latency of the separator."""
    link.send(_ANSWER.pack(ABI, hop, latency, b""))


def refuse(link: socket.socket, reason: str) -> None:
    """Tell a plugin why not; it says so to its user."""
    text = " ".join(reason.split()).encode()[:239]
    with suppress(OSError):
        link.send(_ANSWER.pack(ABI, 0, 0, text))


def closed(link: socket.socket) -> bool:
    """Whether the plugin has gone."""
    poller = select.poll()
    poller.register(link, 0)
    return bool(poller.poll(0))


def _sealed(memory: int) -> bool:
    """Whether nobody can make this memory smaller, which would end whoever touches it."""
    try:
        return bool(fcntl.fcntl(memory, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:
        return False
