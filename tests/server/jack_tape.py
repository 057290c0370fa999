"""A JACK client that plays a tape and records another one, in step: frame n of both is one moment.

PortAudio lists JACK clients as devices, so the stream under test is opened with the tape as its
input and output.  Its ports are the only thing between them: no device, no conversion.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Self

import numpy as np
import pytest
from audio_servers import JackServer

from realtime_sep.stream import Stream
from realtime_sep.types import Float32, StreamStats

#: Times to play again when the machine stalled.
_ATTEMPTS = 5
#: Seconds without a late block after which the guard has faded back.
_CALM = 0.5

try:
    import jack
except (ImportError, OSError) as error:  # the package, or the library
    pytest.skip(f"JACK-Client cannot be imported: {error}", allow_module_level=True)


class Tape:
    """Name of the client: "tape"."""

    def __init__(self, server: JackServer, channels: int = 2, heard: int = 2) -> None:
        self._client = jack.Client("tape", servername=server.name, no_start_server=True)
        self._outs = [self._client.outports.register(f"out_{c}") for c in range(channels)]
        self._ins = [self._client.inports.register(f"in_{c}") for c in range(heard)]
        self._playing: tuple[Any, Any] | None = None
        self._position = 0
        self._done = threading.Event()
        self._expected: int | None = None
        #: Cycles that the server left out while the tape ran: what was recorded then is torn.
        self.lost = 0
        self._client.set_process_callback(self._process)
        self._client.activate()

    def wire(self, client: str, *buses: str) -> None:
        """Connect by hand: to the inputs of a client, and from its buses (default: the mix)."""
        for number, port in enumerate(self._outs, 1):
            self._connect(port, f"{client}:input_{number}")
        buses = buses or ("mix",)
        names = [f"{client}:{bus}_{number}" for bus in buses for number in (1, 2)]
        for name, port in zip(names, self._ins, strict=True):
            self._connect(name, port)

    def _connect(self, source: Any, sink: Any) -> None:
        own, other = (sink, source) if isinstance(source, str) else (source, sink)
        if other not in {port.name for port in self._client.get_all_connections(own)}:
            self._client.connect(source, sink)

    def _process(self, frames: int) -> None:
        playing, now = self._playing, self._client.last_frame_time
        if playing is None:
            for port in self._outs:
                port.get_array()[:] = 0
            return
        audio, recorded = playing
        start, end = self._position, self._position + frames
        if end > len(audio):
            self._playing = None
            self._done.set()
            return
        self.lost += self._expected is not None and now != self._expected
        self._expected = (now + frames) & 0xFFFFFFFF
        for c, port in enumerate(self._outs):
            port.get_array()[:] = audio[start:end, c]
        for c, port in enumerate(self._ins):
            recorded[start:end, c] = port.get_array()
        self._position = end

    def run(self, audio: Float32) -> Float32:
        """Play all of it (whole cycles); what came in meanwhile, as long."""
        recorded = np.zeros((len(audio), len(self._ins)), np.float32)
        self._position, self._expected, self.lost = 0, None, 0
        self._done.clear()
        self._playing = audio, recorded
        seconds = len(audio) / self._client.samplerate
        assert self._done.wait(2 * seconds + 10), "the JACK server stands still"
        return recorded

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.deactivate()  # an active client with callbacks in Python would hang at exit
        self._client.close()


def lag(recorded: Float32, played: Float32) -> int:
    """Frames by which `recorded` lags `played`, by correlation of the first channel."""
    size = 2 * len(played)
    spectrum = np.fft.rfft(recorded[:, 0], size) * np.conj(np.fft.rfft(played[:, 0], size))
    return int(np.argmax(np.fft.irfft(spectrum)))


def calm(stream: Stream) -> StreamStats:
    """The counts as they stand, once nothing of an earlier stall is heard any more."""
    while True:
        before = stream.stats
        time.sleep(_CALM)
        if stream.stats.late_blocks == before.late_blocks and stream.stats.xruns == before.xruns:
            return before


def disturbed(before: StreamStats, after: StreamStats, tape: Tape) -> bool:
    """Whether a stall of the machine came through to the sound."""
    return after.late_blocks > before.late_blocks or after.xruns > before.xruns or tape.lost > 0


def assert_exact(tape: Tape, stream: Stream, audio: Float32) -> None:
    """What the tape plays comes back from the stream to the bit, after its latency and a period.

    A stall of the machine is no reason to fail: then it is played again.
    """
    period = stream.latency.deadline
    delay = period + stream.latency.frames  # the tape hears in one period what left in the last
    audio = audio[: len(audio) // period * period]
    for _ in range(_ATTEMPTS):
        recorded = tape.run(audio)
        if np.array_equal(recorded[delay:], audio[: len(audio) - delay]):
            return
    pytest.fail(f"lag {lag(recorded, audio)} instead of {delay}, or other samples")
