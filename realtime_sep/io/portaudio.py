"""Sound cards, JACK, ALSA, Core Audio, WASAPI, ... through PortAudio, with the callback in C.

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
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from realtime_sep.errors import DeviceError, UsageError, unknown
from realtime_sep.io import jack, pulse
from realtime_sep.native import Bridge, Ring
from realtime_sep.types import Float32, StreamConfig

#: Seconds that closing a stream may take before it is left behind.
_CLOSE_TIMEOUT = 1.0
#: Seconds to wait for the first callback: an idle sink of PulseAudio wakes up every two seconds.
_START_TIMEOUT = 2.5
#: PortAudio's thread may give up while such a sink wakes; the next one finds it awake.
_START_ATTEMPTS = 3
#: Seconds that "low" means behind a sound server: PortAudio's 9 ms are less than the server's own
#: rhythm, and ran dry several times a second on a busy machine.
_SERVER_LOW = 0.02

DeviceName = int | str | None


def load() -> Any:
    """The sounddevice module.

    Raises:
        DeviceError: PortAudio is not installed.
    """
    try:
        with _QuietStderr():
            import sounddevice
    except OSError as error:
        raise DeviceError(
            f"PortAudio cannot be loaded ({error}); on Debian/Ubuntu: apt install libportaudio2"
        ) from error
    _hush_alsa()
    return sounddevice


def _hush_alsa() -> None:
    """ALSA writes a line about every underrun, over the meters; they are counted as `xruns`."""
    with suppress(OSError, AttributeError):
        alsa = ctypes.CDLL("libasound.so.2")
        # The handler must not be Python, as it runs in the audio thread: a C function that only
        # returns a constant will do.
        nothing = ctypes.cast(alsa.snd_asoundlib_version, ctypes.c_void_p)
        alsa.snd_lib_error_set_handler(nothing)


class _QuietStderr:
    """Host APIs write their probing to file descriptor 2, from C; nobody wants to read it."""

    def __enter__(self) -> None:
        self._saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)


@dataclass(frozen=True)
class PortAudioSpec:
    """A pair of PortAudio devices.

    Attributes:
        input, output: index, or part of a name (case does not matter; "name, host api" too), or
            None for the default (in the host API of the other one).  On Linux also a PulseAudio or
            PipeWire source, monitor or sink, by its name or description.
        latency: "low", "high", or seconds, for each of the device's own buffers.
        api: host API to look in ("JACK", "ALSA", ...); None: any.
    """

    input: DeviceName = None
    output: DeviceName = None
    latency: Literal["low", "high"] | float = "low"
    api: str | None = None

    def open(self, config: StreamConfig) -> PortAudioDevice:
        return PortAudioDevice(self, config)


class PortAudioDevice:
    """See `realtime_sep.io.device.Device`."""

    captured: Float32 | None = None
    paced = True

    def __init__(self, spec: PortAudioSpec, config: StreamConfig) -> None:
        self._spec = spec
        self._route = pulse.resolve(spec.input, spec.output) if spec.api is None else None
        self._sd = load()
        self._in, self._out = self._find_pair()
        self.in_channels = min(config.channels, int(self._in["max_input_channels"]))
        self.out_channels = config.channels * len(config.outputs)
        if self.out_channels > self._out["max_output_channels"]:
            raise DeviceError(
                f"output device {self._out['name']!r} has {self._out['max_output_channels']} "
                f"channels, the buses {', '.join(config.outputs)} need {self.out_channels}"
            )
        api = self._api(self._out)
        behind_server = "ALSA" in api and "hw:" not in self._out["name"]
        self._buffers = _SERVER_LOW if behind_server and spec.latency == "low" else spec.latency
        self.samplerate = int(config.samplerate or self._preferred_rate(behind_server))
        self.latency = 0
        routed = {} if self._route is None else self._route.endpoints
        source = routed["input"].description if "input" in routed else self._in["name"]
        sink = routed["output"].description if "output" in routed else self._out["name"]
        self.description = f"{source} ▶ {sink} ({api}, {self.samplerate} Hz)"
        self._stream: Any = None

        period = jack.period() if "JACK" in api else None
        self._blocksize = 0 if period else config.blocksize  # 0: as the host has them
        self.blocks: tuple[int, ...] = (period or config.blocksize,)
        with self._opening():
            self._sd.check_input_settings(
                self._in["index"], self.in_channels, "float32", samplerate=self.samplerate
            )
            self._sd.check_output_settings(
                self._out["index"], self.out_channels, "float32", samplerate=self.samplerate
            )
            if behind_server:
                self.blocks = (config.blocksize, self._burst())

    def _preferred_rate(self, behind_server: bool) -> float:
        if self._route is not None:
            return self._route.samplerate
        if behind_server:  # ALSA's plugins take any rate; the server's own needs no resampling
            for endpoint in pulse.endpoints():
                if endpoint.kind == "output" and endpoint.default:
                    return endpoint.samplerate
        return float(self._out["default_samplerate"])

    def _find_pair(self) -> tuple[Any, Any]:
        """Input and output of one host API: PortAudio opens no other pairs."""
        spec, route = self._spec, self._route
        wanted_in, wanted_out = (
            (spec.input, spec.output) if route is None else (route.input, route.output)
        )
        if wanted_in is None and wanted_out is not None:
            out = self._find(wanted_out, "output", spec.api)
            return self._find(None, "input", self._api(out)), out
        source = self._find(wanted_in, "input", spec.api)
        named = wanted_in is not None and wanted_out is None
        sink = self._find(wanted_out, "output", self._api(source) if named else spec.api)
        if source["hostapi"] != sink["hostapi"]:
            raise DeviceError(
                f"{source['name']!r} ({self._api(source)}) and {sink['name']!r} "
                f"({self._api(sink)}) do not go together; choose both from one host API"
            )
        return source, sink

    def _api(self, device: Any) -> str:
        return str(self._sd.query_hostapis(device["hostapi"])["name"])

    def _find(self, name: DeviceName, kind: Literal["input", "output"], api: str | None) -> Any:
        sd = self._sd
        devices = [d for d in sd.query_devices() if d[f"max_{kind}_channels"] > 0]
        if api is not None:
            apis = sd.query_hostapis()
            index = next((i for i, a in enumerate(apis) if api.lower() in a["name"].lower()), None)
            if index is None:
                raise unknown("host API", api, [a["name"] for a in apis])
            devices = [d for d in devices if d["hostapi"] == index]
            if name is None:
                name = apis[index][f"default_{kind}_device"]
        if isinstance(name, str) and "monitor" in name.lower() and not pulse.endpoints():
            raise DeviceError(
                f"no PulseAudio or PipeWire server answers that could have {name!r}; "
                "start one: systemctl --user start pipewire-pulse"
            )
        if not devices:
            raise DeviceError(
                f"there is no {kind} device; plug one in or start an audio server, "
                "then look with: realtime-sep devices"
            )
        if name is None:
            name = sd.default.device[kind]
        if name == -1:
            return devices[0]
        if isinstance(name, int):
            found = [d for d in devices if d["index"] == name]
        else:
            lower = name.lower()
            found = [d for d in devices if d["name"].lower() == lower] or [
                d for d in devices if lower in f"{d['name']}, {self._api(d)}".lower()
            ]
        if not found and self._route is not None and name == "pulse":
            raise DeviceError(
                "PortAudio reaches PulseAudio and PipeWire through ALSA's pulse device, which is "
                "missing; on Debian/Ubuntu: apt install libasound2-plugins"
            )
        if not found:
            names = [d["name"] for d in devices]
            names += [e.description for e in pulse.endpoints() if e.kind == kind]
            raise unknown(f"{kind} device", str(name), names)
        return found[0]

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """What PortAudio needs, and what it says, while devices are opened."""
        with ExitStack() as stack:
            if self._route is not None:
                stack.enter_context(self._route.in_force())
            try:
                yield
            except self._sd.PortAudioError as error:
                self.stop()
                raise DeviceError(f"{self.description}: {_reason(error)}") from error

    def _open(self, **callback: Any) -> Any:
        return self._sd._StreamBase(
            kind="duplex",
            samplerate=self.samplerate,
            blocksize=self._blocksize,
            device=(self._in["index"], self._out["index"]),
            channels=(self.in_channels, self.out_channels),
            dtype="float32",
            latency=self._buffers,
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
        blocks: int = ceil(round(probe.latency[0] * self.samplerate) / self._blocksize)
        probe.close()
        return max(1, blocks) * self._blocksize

    def start(self, bridge: Bridge, ring: Ring) -> None:
        ffi = self._sd._ffi
        for _ in range(_START_ATTEMPTS):
            before = bridge.stats().callbacks
            with self._opening():
                self._stream = self._open(
                    callback=ffi.cast("PaStreamCallback*", bridge.callback_pointer),
                    userdata=ffi.cast("void*", bridge.user_data_pointer),
                )
                self._stream.start()
            deadline = time.monotonic() + _START_TIMEOUT
            while self.active and time.monotonic() < deadline:
                if bridge.stats().callbacks > before:
                    self._note_latency()
                    return
                time.sleep(0.005)
            self.stop()
        raise DeviceError(
            f"{self.description}: it opens, but no audio flows; "
            "is the device, or the audio server, busy or suspended?"
        )

    def _note_latency(self) -> None:
        latency = self._stream.latency
        # What a virtual device reports can be garbage: nobody waits more than two seconds.
        total = sum(latency) if all(0 <= part < 2 for part in latency) else 0.0
        self.latency = round(total * self.samplerate)

    def stop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return

        def close() -> None:
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)

        # A server that died can keep PortAudio waiting for ever, here and again at exit.
        closing = threading.Thread(target=close, name="realtime_sep close", daemon=True)
        closing.start()
        closing.join(_CLOSE_TIMEOUT)
        if closing.is_alive():
            atexit.unregister(self._sd._exit_handler)

    @property
    def active(self) -> bool:
        if self._stream is None:
            return False
        try:
            return bool(self._stream.active)
        except self._sd.PortAudioError:
            return False

    @property
    def finished(self) -> bool:
        return False


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
