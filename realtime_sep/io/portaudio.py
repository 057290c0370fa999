"""Sound cards, JACK, ALSA, Core Audio, WASAPI, ... through PortAudio, with the callback in C.

python-sounddevice carries PortAudio and its constants; its `_StreamBase` is documented for library
authors and lets a C function be the callback, which is what keeps Python out of the audio thread.
All knowledge of that class is in this module; `tests/io/test_portaudio.py` is its contract test.

Importing sounddevice opens every host API (it may start servers, print, take time), so it happens
only in the process that plays.
"""

from __future__ import annotations

import atexit
import os
import threading
from dataclasses import dataclass
from typing import Any, Literal

from realtime_sep.errors import DeviceError, UsageError, unknown
from realtime_sep.io import jack, pulse
from realtime_sep.native import Bridge, Ring
from realtime_sep.types import Float32, StreamConfig

#: Seconds that closing a stream may take before it is left behind.
_CLOSE_TIMEOUT = 1.0

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
    return sounddevice


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
            None for the default.  On Linux also a PulseAudio or PipeWire source, monitor or sink,
            by its name or description.
        latency: "low", "high", or seconds, for the device's own buffers.
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
        routed = pulse.resolve(spec.input, spec.output) if spec.api is None else None
        if routed is not None:
            # PulseAudio's ALSA plugin reads these when the device is opened, in this process.
            os.environ.update(routed.environment)
        sd = self._sd = load()
        wanted_in = spec.input if routed is None else routed.input
        wanted_out = spec.output if routed is None else routed.output
        self._in = self._find(wanted_in, "input", spec.api)
        self._out = self._find(wanted_out, "output", spec.api)
        self._spec = spec
        self.in_channels = min(config.channels, int(self._in["max_input_channels"]))
        self.out_channels = config.channels * len(config.outputs)
        if self.out_channels > self._out["max_output_channels"]:
            raise DeviceError(
                f"output device {self._out['name']!r} has {self._out['max_output_channels']} "
                f"channels, the buses {', '.join(config.outputs)} need {self.out_channels}"
            )
        self.samplerate = int(config.samplerate or self._out["default_samplerate"])
        self.latency = 0
        names = [
            routed.describe(kind) if routed is not None and routed.describe(kind) else d["name"]
            for kind, d in (("input", self._in), ("output", self._out))
        ]
        api = sd.query_hostapis(self._out["hostapi"])["name"]
        period = jack.period() if "JACK" in api else None
        self.blocks: tuple[int, ...] = (period or config.blocksize,)
        self._blocksize = 0 if period else config.blocksize  # 0: as the host has them
        self.description = f"{names[0]} ▶ {names[1]} ({api}, {self.samplerate} Hz)"
        try:
            sd.check_input_settings(
                self._in["index"], self.in_channels, "float32", samplerate=self.samplerate
            )
            sd.check_output_settings(
                self._out["index"], self.out_channels, "float32", samplerate=self.samplerate
            )
        except sd.PortAudioError as error:
            raise DeviceError(f"{self.description}: {_reason(error)}") from error
        self._stream: Any = None

    def _find(self, name: DeviceName, kind: Literal["input", "output"], api: str | None) -> Any:
        sd = self._sd
        channels = f"max_{kind}_channels"
        devices = [d for d in sd.query_devices() if d[channels] > 0]
        if api is not None:
            apis = sd.query_hostapis()
            index = next((i for i, a in enumerate(apis) if api.lower() in a["name"].lower()), None)
            if index is None:
                raise unknown("host API", api, [a["name"] for a in apis])
            devices = [d for d in devices if d["hostapi"] == index]
            if name is None:
                name = apis[index][f"default_{kind}_device"]
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
            found = [d for d in devices if d["name"].lower() == name.lower()] or [
                d for d in devices if name.lower() in d["name"].lower()
            ]
        if not found:
            raise unknown(f"{kind} device", str(name), [d["name"] for d in devices])
        return found[0]

    def start(self, bridge: Bridge, ring: Ring) -> None:
        sd = self._sd
        ffi = sd._ffi
        try:
            self._stream = sd._StreamBase(
                kind="duplex",
                samplerate=self.samplerate,
                blocksize=self._blocksize,
                device=(self._in["index"], self._out["index"]),
                channels=(self.in_channels, self.out_channels),
                dtype="float32",
                latency=self._spec.latency,
                clip_off=True,
                dither_off=True,
                wrap_callback=None,
                callback=ffi.cast("PaStreamCallback*", bridge.callback_pointer),
                userdata=ffi.cast("void*", bridge.user_data_pointer),
            )
            self._stream.start()
        except sd.PortAudioError as error:
            self.stop()
            raise DeviceError(f"{self.description}: {_reason(error)}") from error
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
