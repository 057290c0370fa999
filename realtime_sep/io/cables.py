"""macOS and Windows: programs cannot be moved there, but whatever plays on a cable can be heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from realtime_sep.errors import DeviceError, UsageError, unknown


@dataclass(frozen=True)
class Loopback:
    """Devices, by PortAudio's index, through which system audio can be led.

    Attributes:
        input, output: what to listen to and to play on.
        hint: what is still to be done by hand; "" if nothing is.
    """

    input: int
    output: int
    hint: str = ""


@dataclass(frozen=True)
class _Cable:
    """A virtual device whose output comes back as its input.

    Attributes:
        ends: words in the names of its input and output side.
        api: the host API to prefer; "": any.
        missing: what to do where there is none.
        chosen: what people must choose as the system's output.
    """

    ends: tuple[str, str]
    api: str
    missing: str
    chosen: str


_CABLES = {
    "darwin": _Cable(
        ("blackhole", "blackhole"),
        "",
        "macOS lets nobody hear other programs: install BlackHole (brew install blackhole-2ch), "
        "choose it as the output in System Settings > Sound, and start this again",
        "choose BlackHole as the output in System Settings > Sound",
    ),
    "win32": _Cable(
        ("cable output", "cable input"),
        "WASAPI",
        "there is no virtual cable and no loopback device: install VB-CABLE (vb-audio.com/Cable), "
        "choose CABLE Input as the output in Settings > System > Sound, and start this again",
        "choose CABLE Input as the output in Settings > System > Sound",
    ),
}

#: How WASAPI's own loopback devices are named after the output that they listen to.
_WASAPI_LOOPBACK = "[loopback]"


def loopback(
    platform: str, devices: Sequence[Mapping[str, Any]], output: str | None = None
) -> Loopback:
    """How to hear the system's audio, from a list of PortAudio's devices.

    Args:
        platform: as `sys.platform`.
        devices: `index, name, api, inputs, outputs, virtual, default_output` each.
        output: part of the name of what to play on; None: the default, or the only real one.

    Raises:
        DeviceError: something is missing; the message says what.
        UsageError: `output` is unknown, not clear, or what is listened to.
    """
    if platform not in _CABLES:
        raise DeviceError(f"nobody knows how to hear other programs on {platform!r}")
    cable = _CABLES[platform]
    inputs = [d for d in devices if d["inputs"] and cable.ends[0] in d["name"].lower()]
    inputs.sort(key=lambda device: cable.api not in device["api"])
    if inputs:
        source = inputs[0]
        default = any(d["default_output"] and cable.ends[1] in d["name"].lower() for d in devices)
        sink = _output(devices, source, cable.ends[1], output)
        return Loopback(source["index"], sink["index"], "" if default else cable.chosen)
    for source in devices:
        name = source["name"].lower()
        if source["inputs"] and _WASAPI_LOOPBACK in name:
            heard = name.replace(_WASAPI_LOOPBACK, "").strip()
            sink = _output(devices, source, heard, output)
            return Loopback(source["index"], sink["index"])
    raise DeviceError(cable.missing)


def _output(
    devices: Sequence[Mapping[str, Any]], source: Mapping[str, Any], heard: str, wanted: str | None
) -> Mapping[str, Any]:
    """What to play on: in the host API of `source`, and not what `source` hears."""
    sinks = [d for d in devices if d["outputs"] and d["api"] == source["api"]]
    if wanted is not None:
        fits = [
            d for d in sinks if wanted.lower() in d["name"].lower() or wanted == str(d["index"])
        ]
        if not fits:
            raise unknown("output", wanted, [d["name"] for d in sinks])
        if heard in fits[0]["name"].lower():
            raise UsageError(f"{fits[0]['name']} is what is listened to; choose another --output")
        return fits[0]
    free = [d for d in sinks if heard not in d["name"].lower()]
    real = [d for d in free if not d["virtual"]]
    for found in ([d for d in free if d["default_output"]], real, free):
        if len(found) == 1:
            return found[0]
    if not free:
        raise DeviceError(f"there is no output besides the one that {source['name']} listens to")
    names = ", ".join(repr(d["name"]) for d in free)
    raise UsageError(f"there are several outputs; choose one with --output: {names}")
