"""Sound cards, ALSA, Core Audio, WASAPI, ... through PortAudio, with the callback in C.

python-sounddevice carries PortAudio and its constants; its `_StreamBase` is documented for library
authors and lets a C function be the callback, which is what keeps Python out of the audio thread.
All knowledge of that class is in this module; `tests/io/test_portaudio.py` is its contract test.

Importing sounddevice opens every host API (it may start servers, print, take time), so it happens
only in the process that plays.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from math import ceil
from typing import Any, Literal
from weakref import WeakSet

from realtime_sep.errors import DeviceError, SampleRateError, UsageError
from realtime_sep.io import jack
from realtime_sep.io.device import Device
from realtime_sep.io.ends import DeviceName, Ends, Listing, Side
from realtime_sep.io.jack import JackDevice, JackSpec
from realtime_sep.native import Bridge, Ring
from realtime_sep.types import Float32, StreamConfig

#: Seconds that closing a stream may take before it is left behind.
_CLOSE_TIMEOUT = 1.0
#: Seconds to wait for the first callback: an idle sink of PulseAudio wakes up every two seconds.
START_TIMEOUT = 2.5
#: PortAudio's thread may give up while such a sink wakes; the next one finds it awake.
START_ATTEMPTS = 3
#: PortAudio's number for a sample rate that a device does not have.
_WRONG_RATE = -9997
_GONE = "the device, or its audio server, is gone"

#: What keeps libjack from finding a server; the second is for PipeWire's.
_NO_JACK = {"JACK_DEFAULT_SERVER": "none", "JACK_NO_START_SERVER": "1", "PIPEWIRE_NOJACK": "1"}

#: Threads that close streams whose server does not answer.
_closing: set[threading.Thread] = set()
#: Devices of this process that are not stopped: PortAudio is not initialised under them.
_alive: WeakSet[PortAudioDevice] = WeakSet()
#: One thread at a time looks for devices or opens one: where to is partly told by the environment.
_turn = threading.RLock()


def load(anew: bool = False, jack: bool = False) -> Any:
    """The sounddevice module.

    Args:
        anew: let PortAudio look for devices again, which it does only when it is initialised; no
            stream of this process may be open.  Waits, for ever if need be, for those that close.
        jack: let it also look for a JACK server.  Only to ask what there is: once such a server has
            died, PortAudio neither closes a stream nor ends, but aborts the process.

    Raises:
        DeviceError: PortAudio is not installed.
    """
    known: Any = sys.modules.get("sounddevice")
    with _quiet_stderr() if jack else quiet():
        if known is None:
            try:
                known = import_module("sounddevice")
            except OSError as error:
                raise DeviceError(
                    f"PortAudio cannot be loaded ({error}); "
                    "on Debian/Ubuntu: apt install libportaudio2"
                ) from error
        elif anew or not known._initialized:
            for thread in list(_closing):
                thread.join()
            unload(known)
            known._initialize()
    _hush_alsa()
    return known


def unload(sounddevice: Any) -> None:
    """Let PortAudio forget everything, until it is loaded anew."""
    while sounddevice._initialized:
        sounddevice._terminate()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _hush_alsa() -> None:
    """ALSA writes a line about every underrun, over the meters; they are counted as `xruns`."""
    with suppress(OSError, AttributeError):
        alsa = ctypes.CDLL("libasound.so.2")
        # The handler must not be Python, as it runs in the audio thread: a C function that only
        # returns a constant will do.
        nothing = ctypes.cast(alsa.snd_asoundlib_version, ctypes.c_void_p)
        alsa.snd_lib_error_set_handler(nothing)


@contextmanager
def quiet() -> Iterator[None]:
    """While PortAudio is initialised, for whoever does it: without JACK, and without a word.

    Host APIs write their probing to file descriptor 2, from C; nobody wants to read it.
    """
    with _environment(_NO_JACK), _quiet_stderr():
        yield


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@dataclass(frozen=True)
class PortAudioSpec:
    """A pair of PortAudio devices.

    Attributes:
        input, output: index, or part of a name (case does not matter; "name, host api" too), or
            None for the default (in the host API of the other one).  On Linux also a PulseAudio or
            PipeWire source, monitor or sink, by its name or description, and a JACK client, which
            `realtime_sep.io.jack` then opens.
        latency: "low", "high", or seconds, for each of the device's own buffers.
        api: host API to look in ("JACK", "ALSA", ...); None: any.
        side: "input" or "output" opens that one alone, as a second device.
    """

    input: DeviceName = None
    output: DeviceName = None
    latency: Literal["low", "high"] | float = "low"
    api: str | None = None
    side: Side = "both"

    def open(self, config: StreamConfig, before: Any = None) -> Device:
        if isinstance(before, JackDevice):
            return before.spec.open(config, before)
        with _turn:
            return self._open(config, before)

    def _open(self, config: StreamConfig, before: Any) -> Device:
        alone = not _alive
        sounddevice = load(anew=before is not None and alone)
        try:
            ends = self._ends(sounddevice)
        except (UsageError, DeviceError):
            if not alone or not jack.running():
                raise
            sounddevice = load(anew=True, jack=True)
            try:
                ends = self._ends(sounddevice)
                if "JACK" not in ends.api:  # ALSA has a way to the server, too
                    ends = self._ends(sounddevice, "JACK")
            finally:
                unload(sounddevice)
        if "JACK" in ends.api:
            names = (
                None if self.side == "output" else ends.input["name"],
                None if self.side == "input" else ends.output["name"],
            )
            return JackSpec(*names, self.side).open(config)
        return PortAudioDevice(sounddevice, ends, config)

    def _ends(self, sounddevice: Any, api: str | None = None) -> Ends:
        return Ends(
            listing(sounddevice), self.input, self.output, api or self.api, self.latency, self.side
        )


def listing(sounddevice: Any) -> Listing:
    """What PortAudio sees now."""
    defaults = sounddevice.default.device
    return Listing(
        sounddevice.query_devices(),
        sounddevice.query_hostapis(),
        (defaults["input"], defaults["output"]),
    )


class PortAudioDevice:
    """See `realtime_sep.io.device.Device`."""

    captured: Float32 | None = None
    finished = False
    paced = True

    def __init__(self, sounddevice: Any, ends: Ends, config: StreamConfig) -> None:
        self._sd, self._ends = sounddevice, ends
        self.in_channels, self._out_channels = ends.channels(config)
        self.samplerate = config.samplerate or ends.samplerate
        self.latency = 0
        self.description = ends.describe(self.samplerate)
        self.silence_hint = silence_hint(sys.platform)
        self._blocksize = config.blocksize
        self.blocks: tuple[int, ...] = (config.blocksize,)
        self._stream: Any = None
        self._bridge: Any = None
        _alive.add(self)
        with self._opening():
            if self.in_channels:
                self._sd.check_input_settings(
                    ends.input["index"], self.in_channels, "float32", samplerate=self.samplerate
                )
            if self._out_channels:
                self._sd.check_output_settings(
                    ends.output["index"], self._out_channels, "float32", samplerate=self.samplerate
                )
            if ends.behind_server:
                self.blocks = (config.blocksize, self._burst())

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """What PortAudio needs, and what it says, while devices are opened."""
        try:
            with _turn, self._ends.opening():
                yield
        except self._sd.PortAudioError as error:
            self.stop()
            kind = SampleRateError if _WRONG_RATE in error.args else DeviceError
            raise kind(f"{self.description}: {_reason(error)}") from error

    def _open(self, **callback: Any) -> Any:
        ends = self._ends
        one = {"input": self.in_channels, "output": self._out_channels}
        both = self.in_channels, self._out_channels
        duplex = ends.side == "both"
        return self._sd._StreamBase(
            kind="duplex" if duplex else ends.side,
            samplerate=self.samplerate,
            blocksize=self._blocksize,
            device=(ends.input["index"], ends.output["index"]) if duplex else ends.input["index"],
            channels=both if duplex else one[ends.side],
            dtype="float32",
            latency=self._ends.buffers,
            clip_off=True,
            dither_off=True,
            wrap_callback=None,
            **callback,
        )

    def _burst(self) -> int:
        """Frames that may come in one go, in whole blocks.

        Behind ALSA's plugins a sound server hands over what it has when it comes by, up to the size
        of the capture buffer; the callback then runs several times in a row.
        """
        probe = self._open()
        latency = probe.latency[0] if self._ends.side == "both" else probe.latency
        blocks: int = ceil(round(latency * self.samplerate) / self._blocksize)
        probe.close()
        return max(1, blocks) * self._blocksize

    def start(self, bridge: Bridge, ring: Ring | None, buses: Sequence[str] = ()) -> None:
        self._bridge = bridge
        ffi = self._sd._ffi
        for _ in range(START_ATTEMPTS):
            before = bridge.stats().callbacks
            with self._opening():
                self._stream = self._open(
                    callback=ffi.cast("PaStreamCallback*", bridge.callback_pointer),
                    userdata=ffi.cast("void*", bridge.user_data_pointer),
                )
                self._stream.start()
            deadline = time.monotonic() + START_TIMEOUT
            while not self.trouble and time.monotonic() < deadline:
                if bridge.stats().callbacks > before:
                    self._note_latency()
                    self._ends.watch.start()
                    return
                time.sleep(0.005)
            self.stop()
        raise DeviceError(
            f"{self.description}: it opens, but no audio flows; "
            "is the device, or the audio server, busy or suspended?"
        )

    def _note_latency(self) -> None:
        latency = self._stream.latency
        latency = latency if self._ends.side == "both" else (latency,)
        # What a virtual device reports can be garbage: nobody waits more than two seconds.
        total = sum(latency) if all(0 <= part < 2 for part in latency) else 0.0
        self.latency = round(total * self.samplerate)

    def stop(self) -> None:
        self._ends.watch.close()
        _alive.discard(self)
        stream, self._stream = self._stream, None
        if stream is None:
            return

        def close(bridge: Bridge = self._bridge) -> None:  # which is there until no one calls it
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)
            _closing.discard(threading.current_thread())

        # A server that died can keep PortAudio waiting for ever, here and again at exit.
        closing = threading.Thread(target=close, name="realtime_sep close", daemon=True)
        _closing.add(closing)
        closing.start()
        closing.join(_CLOSE_TIMEOUT)
        if closing.is_alive():
            atexit.unregister(self._sd._exit_handler)

    @property
    def trouble(self) -> str:
        try:
            if self._stream is None or not self._stream.active:
                return _GONE
        except self._sd.PortAudioError:
            return _GONE
        return self._ends.watch.lost


def silence_hint(platform: str) -> str:
    """What it may mean on `platform` (as `sys.platform`) that an input is silent; "" if nothing."""
    if platform != "darwin":
        return ""
    return (
        "the input is silent: allow this terminal to use the microphone in System Settings > "
        "Privacy & Security > Microphone, then start again"
    )


def _reason(error: Exception) -> str:
    """PortAudio's own words, without its numbers."""
    text = str(error.args[0]) if error.args else str(error)
    return text.split("[PaErrorCode")[0].strip() or "PortAudio refused"


def validate_latency(text: str) -> Literal["low", "high"] | float:
    """`low`, `high` or seconds, from what a person typed."""
    if text == "low":
        return "low"
    if text == "high":
        return "high"
    try:
        seconds = float(text)
    except ValueError:
        raise UsageError(f"latency is 'low', 'high' or seconds, not {text!r}") from None
    if not 0 < seconds < 10:
        raise UsageError(f"latency of {text} s makes no sense; try 0.01")
    return seconds
