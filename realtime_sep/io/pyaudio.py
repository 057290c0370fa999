"""Sound cards and servers through PyAudio: blocking streams, pumped by a thread in Python.

A second way to PortAudio, for machines where python-sounddevice has none.  It costs: two bursts
wait in the output so that it does not run dry, and the pump shares the interpreter lock with the
worker.  Whatever of that can be computed is in `latency`.

The pump asks whether a block is there before it reads or writes one: a call that waits for a server
could not be ended.

PyAudio tells of lost frames only by closing the stream, so it is not asked, and `xruns` stays 0.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from realtime_sep import native
from realtime_sep.errors import DeviceError, SampleRateError
from realtime_sep.io.ends import DeviceName, Ends, Listing
from realtime_sep.io.portaudio import START_ATTEMPTS, START_TIMEOUT, quiet, silence_hint
from realtime_sep.native import Bridge, Ring
from realtime_sep.types import Float32, StreamConfig

#: Seconds that closing may take before it is left behind.
_CLOSE_TIMEOUT = 1.0
#: Bursts of silence in the output when the pump begins: one is played while the next is made.
_PRIME = 2
#: Real-time priority of the pump: as JACK gives to its callbacks, above the worker.
_PRIORITY = 5
#: PortAudio's number for a sample rate that a device does not have.
_WRONG_RATE = -9997
#: Seconds of buffers to ask for behind a sound server, whose own rhythm is no quicker.
_SERVER_BUFFER = 0.02
#: Looks of the pump per block.
_LOOKS = 4


@dataclass(frozen=True)
class PyAudioSpec:
    """A pair of PyAudio's devices.

    Attributes:
        input, output, api: as in `realtime_sep.io.portaudio.PortAudioSpec`, but no JACK clients.
    """

    input: DeviceName = None
    output: DeviceName = None
    api: str | None = None

    def open(self, config: StreamConfig, before: Any = None) -> PyAudioDevice:
        if isinstance(before, PyAudioDevice):
            before.closed()  # PortAudio looks for devices only when nobody uses it
        return PyAudioDevice(self, config)


def _listing(audio: Any) -> Listing:
    """What PortAudio sees, as sounddevice would say it."""
    devices = [audio.get_device_info_by_index(i) for i in range(audio.get_device_count())]
    apis = [audio.get_host_api_info_by_index(i) for i in range(audio.get_host_api_count())]

    def default(kind: str) -> int:
        try:
            return int(getattr(audio, f"get_default_{kind}_device_info")()["index"])
        except OSError:
            return -1

    return Listing(
        [
            {
                "index": device["index"],
                "name": device["name"],
                "hostapi": device["hostApi"],
                "max_input_channels": device["maxInputChannels"],
                "max_output_channels": device["maxOutputChannels"],
                "default_samplerate": device["defaultSampleRate"],
            }
            for device in devices
        ],
        [
            {
                "name": api["name"],
                "default_input_device": api["defaultInputDevice"],
                "default_output_device": api["defaultOutputDevice"],
            }
            for api in apis
        ],
        (default("input"), default("output")),
    )


class PyAudioDevice:
    """See `realtime_sep.io.device.Device`."""

    captured: Float32 | None = None
    finished = False
    paced = True

    def __init__(self, spec: PyAudioSpec, config: StreamConfig) -> None:
        try:
            import pyaudio
        except ImportError as error:
            raise DeviceError(
                f"PyAudio cannot be loaded ({error}); on Debian/Ubuntu: "
                "apt install portaudio19-dev, then pip install 'realtime-sep[pyaudio]'"
            ) from error
        self._format = pyaudio.paFloat32
        with quiet():
            self._audio: Any = pyaudio.PyAudio()
        self._streams: list[Any] = []
        self._pump: threading.Thread | None = None
        self._closing: threading.Thread | None = None
        self._stop = False
        self._failure = ""
        self._realtime = config.realtime
        try:
            self._ends = Ends(_listing(self._audio), spec.input, spec.output, spec.api, "low")
            self.in_channels, self._out_channels = self._ends.channels(config)
        except BaseException:
            self._audio.terminate()
            raise
        self.samplerate = config.samplerate or self._ends.samplerate
        self.description = self._ends.describe(self.samplerate) + " by PyAudio"
        self._block = self._buffer = config.blocksize
        self.blocks: tuple[int, ...] = (self._block,)
        if self._ends.behind_server:  # what is there comes at once, in whole blocks
            self._buffer = max(self._block, round(_SERVER_BUFFER * self.samplerate))
            self.blocks = (self._block, ceil(self._buffer / self._block) * self._block)
        self.latency = 0
        self.silence_hint = silence_hint(sys.platform)
        self._open()  # to hear now whether the devices can do what is asked

    def _open(self) -> None:
        self._stop = False
        for kind in ("input", "output"):
            self._open_one(kind)

    def _open_one(self, kind: str) -> None:
        ends = self._ends
        channels, end = (
            (self.in_channels, ends.input) if kind == "input" else (self._out_channels, ends.output)
        )
        direction = {kind: True, f"{kind}_device_index": end["index"]}
        try:
            with ends.opening(), quiet():
                self._streams.append(
                    self._audio.open(
                        rate=self.samplerate,
                        channels=channels,
                        format=self._format,
                        frames_per_buffer=self._buffer,
                        start=False,
                        **direction,
                    )
                )
        except (OSError, ValueError) as error:
            self.stop()
            wrong_rate = _WRONG_RATE in error.args
            raise (SampleRateError if wrong_rate else DeviceError)(
                f"{self.description}: {error.args[-1] if wrong_rate else error}"
            ) from error

    def start(self, bridge: Bridge, ring: Ring | None, buses: Sequence[str] = ()) -> None:
        for attempt in range(START_ATTEMPTS):
            before = bridge.stats().callbacks
            try:
                if attempt:
                    self._open()
                self._begin(bridge)
            except OSError as error:
                self.stop()
                raise DeviceError(f"{self.description}: {error}") from error
            deadline = time.monotonic() + START_TIMEOUT
            while not self._failure and time.monotonic() < deadline:
                if bridge.stats().callbacks > before:
                    self._ends.watch.start()
                    return
                time.sleep(0.005)
            self._halt()
        self.stop()
        raise DeviceError(
            f"{self.description}: it opens, but no audio flows; "
            "is the device, or the audio server, busy or suspended?"
        )

    def _begin(self, bridge: Bridge) -> None:
        recorded, played = self._streams
        played.start_stream()
        waiting = min(_PRIME * max(self.blocks), played.get_write_available())
        played.write(bytes(4 * waiting * self._out_channels), waiting)
        recorded.start_stream()
        buffered = recorded.get_input_latency() + played.get_output_latency()
        # What a virtual device reports can be garbage: nobody waits more than two seconds.
        buffered = buffered if 0 <= buffered < 2 else 0.0
        self.latency = round(buffered * self.samplerate) + waiting
        self._failure = ""
        self._pump = threading.Thread(
            target=self._run, args=(bridge,), name="realtime_sep pump", daemon=True
        )
        self._pump.start()

    def _run(self, bridge: Bridge) -> None:
        if self._realtime:
            native.set_realtime(_PRIORITY)
        recorded, played = self._streams
        block = self._block
        nap = block / self.samplerate / _LOOKS
        out = np.zeros((block, self._out_channels), np.float32)
        try:
            while not self._stop:
                if recorded.get_read_available() < block:
                    time.sleep(nap)
                    continue
                data = recorded.read(block, exception_on_overflow=False)
                heard = np.frombuffer(data, np.float32).reshape(block, self.in_channels)
                if bridge.callback(heard, out, block):
                    self._stop = True
                while played.get_write_available() < block and not self._stop:
                    time.sleep(nap)
                played.write(out.tobytes(), block, exception_on_underflow=False)
        except OSError as error:
            self._failure = f"the device, or its audio server, is gone ({error})"

    def _halt(self) -> None:
        """End the pump and close the streams."""
        self._stop = True
        if self._pump is not None:
            self._pump.join()
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.close()

    def stop(self) -> None:
        audio, self._audio = self._audio, None
        if audio is None:
            return
        self._ends.watch.close()
        self._stop = True

        def close() -> None:
            self._halt()
            audio.terminate()

        # A server that hangs may keep us waiting until it goes on.
        self._closing = threading.Thread(target=close, name="realtime_sep close", daemon=True)
        self._closing.start()
        self._closing.join(_CLOSE_TIMEOUT)

    def closed(self) -> None:
        """Wait, for ever if need be, until nothing of it is left."""
        if self._closing is not None:
            self._closing.join()

    @property
    def trouble(self) -> str:
        return self._failure or self._ends.watch.lost
