"""Which two devices a stream runs between: names, defaults and indices among what there is.

PortAudio opens pairs of one host API only, whoever asks it.  What there is comes as sounddevice
describes it (`query_devices`, `query_hostapis`), so this module needs no audio library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from realtime_sep.errors import DeviceError, UsageError, unknown
from realtime_sep.io import pulse
from realtime_sep.types import EVERY_STEM, StreamConfig

DeviceName = int | str | None
Kind = Literal["input", "output"]
#: Which of the two a device is to have; a microphone is an input alone.
Side = Literal["both", "input", "output"]

#: Seconds that "low" means behind a sound server: PortAudio's 9 ms are less than the server's own
#: rhythm, and ran dry several times a second on a busy machine.
_SERVER_LOW = 0.02


@dataclass(frozen=True)
class Listing:
    """What PortAudio sees.

    Attributes:
        devices: `index, name, hostapi, max_input_channels, max_output_channels,
            default_samplerate` each.
        apis: host APIs in their order: `name, default_input_device, default_output_device` each.
        defaults: indices of the default input and output; -1 where there is none.
    """

    devices: Sequence[Mapping[str, Any]]
    apis: Sequence[Mapping[str, Any]]
    defaults: tuple[int, int]

    def api(self, device: Mapping[str, Any]) -> str:
        """Name of the device's host API."""
        return str(self.apis[device["hostapi"]]["name"])

    def pair(
        self, source: DeviceName, sink: DeviceName, api: str | None = None
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """An input and an output that go together.

        Args:
            source, sink: index, part of a name, or None for the default (beside the other one).
            api: part of the name of the host API to look in.

        Raises:
            UsageError, DeviceError: there is no such device, or the two do not go together.
        """
        if source is None and sink is not None:
            output = self._find(sink, "output", api)
            return self._find(None, "input", self.api(output)), output
        input = self._find(source, "input", api)
        output = self._find(
            sink, "output", self.api(input) if source is not None and sink is None else api
        )
        if input["hostapi"] != output["hostapi"]:
            raise DeviceError(
                f"{input['name']!r} ({self.api(input)}) and {output['name']!r} "
                f"({self.api(output)}) do not go together; choose both from one host API"
            )
        return input, output

    def one(self, name: DeviceName, kind: Kind, api: str | None = None) -> Mapping[str, Any]:
        """An input or output alone; see `pair`."""
        return self._find(name, kind, api)

    def _find(self, name: DeviceName, kind: Kind, api: str | None) -> Mapping[str, Any]:
        devices = [d for d in self.devices if d[f"max_{kind}_channels"] > 0]
        if api is not None:
            names = [a["name"] for a in self.apis]
            index = next((i for i, n in enumerate(names) if api.lower() in n.lower()), None)
            if index is None:
                raise unknown("host API", api, names)
            devices = [d for d in devices if d["hostapi"] == index]
            if name is None:
                name = self.apis[index][f"default_{kind}_device"]
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
            name = self.defaults[kind == "output"]
        if name == -1:
            return devices[0]
        if isinstance(name, int):
            found = [d for d in devices if d["index"] == name]
        else:
            lower = name.lower()
            found = [d for d in devices if d["name"].lower() == lower] or [
                d for d in devices if lower in f"{d['name']}, {self.api(d)}".lower()
            ]
        if not found:
            known = [d["name"] for d in devices]
            known += [e.description for e in pulse.endpoints() if e.kind == kind]
            raise unknown(f"{kind} device", str(name), known)
        return found[0]


class Ends:
    """An input and an output that have been found, or one of them.

    Args:
        source, sink, api: as in `Listing.pair`; on Linux also a PulseAudio or PipeWire source,
            monitor or sink, by its name or description.
        latency: "low", "high" or seconds, for each of the device's own buffers.
        side: which of the two is wanted; the other one is not looked for.

    Attributes:
        input, output: of the listing; of a side alone, both are that one.
        api: name of their host API.
        behind_server: whether ALSA's plugins lead to a sound server.
        buffers: `latency`, for PortAudio.
        watch: notices when the named source or sink goes away, where PortAudio does not.

    Raises:
        UsageError, DeviceError: as `Listing.pair`.
    """

    def __init__(
        self,
        listing: Listing,
        source: DeviceName,
        sink: DeviceName,
        api: str | None,
        latency: Literal["low", "high"] | float,
        side: Side = "both",
    ) -> None:
        self.side = side
        self._route = route = pulse.resolve(source, sink) if api is None else None
        if route is not None:
            source, sink = route.input, route.output
            if not any(device["name"] == "pulse" for device in listing.devices):
                raise DeviceError(
                    "PortAudio reaches PulseAudio and PipeWire through ALSA's pulse device, which "
                    "is missing; on Debian/Ubuntu: apt install libasound2-plugins"
                )
        if side == "both":
            self.input, self.output = listing.pair(source, sink, api)
        else:
            self.input = self.output = listing.one(source if side == "input" else sink, side, api)
        self.api = listing.api(self.output)
        self.behind_server = "ALSA" in self.api and "hw:" not in self.output["name"]
        low = self.behind_server and latency == "low"
        self.buffers: Literal["low", "high"] | float = _SERVER_LOW if low else latency
        self.watch = pulse.Watch([] if route is None else list(route.endpoints.values()))

    def channels(self, config: StreamConfig) -> tuple[int, int]:
        """Channels to open on both sides.

        Raises:
            DeviceError, UsageError: a side has too few.
        """
        if EVERY_STEM in config.outputs:
            raise UsageError("a device has a few channels; every stem is for named ports (JACK)")
        wanted = config.in_channels if self.side != "output" else 0
        available = int(self.input["max_input_channels"])
        if config.microphone and self.side != "output" and wanted > available:
            raise DeviceError(
                f"input device {self.input['name']!r} has {available} channels, "
                f"the microphone is to be on {max(config.microphone)}"
            )
        if self.side == "input":
            return min(wanted, available), 0
        needed, there = config.channels * len(config.outputs), self.output["max_output_channels"]
        if needed > there:
            raise DeviceError(
                f"output device {self.output['name']!r} has {there} channels, "
                f"the buses {', '.join(config.outputs)} need {needed}"
            )
        return min(wanted, available), needed

    @property
    def samplerate(self) -> int:
        """The rate at which nobody has to resample."""
        if self._route is not None:
            return self._route.samplerate
        if self.behind_server:  # ALSA's plugins take any rate
            kind = "input" if self.side == "input" else "output"
            for endpoint in pulse.endpoints():
                if endpoint.kind == kind and endpoint.default:
                    return endpoint.samplerate
        return int(self.output["default_samplerate"])

    def describe(self, samplerate: int) -> str:
        """For people."""
        routed = {} if self._route is None else self._route.endpoints
        source = routed["input"].description if "input" in routed else self.input["name"]
        sink = routed["output"].description if "output" in routed else self.output["name"]
        if self.side != "both":
            return f"{source if self.side == 'input' else sink} ({self.api}, {samplerate} Hz)"
        return f"{source} ▶ {sink} ({self.api}, {samplerate} Hz)"

    @contextmanager
    def opening(self) -> Iterator[None]:
        """What must hold while devices are opened."""
        if self._route is None:
            yield
        else:
            with self._route.in_force():
                yield
