"""LADSPA: plugins in C with a block of samples in, a block out, and control values.

They are found in `LADSPA_PATH`, or where systems put them, and in `realtime-sep/ladspa` among the
user's data.  The library is opened and run by the native part; nothing of LADSPA need be installed.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from realtime_sep import native
from realtime_sep.effects.base import BaseEffect
from realtime_sep.effects.foreign import RATE, parameter
from realtime_sep.effects.hosts import HostedInfo
from realtime_sep.effects.isolated import Helper, Isolated
from realtime_sep.effects.protocol import Effect
from realtime_sep.errors import RealtimeSepError, UsageError, unknown
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32

# <ladspa.h>
_INPUT, _OUTPUT, _CONTROL, _AUDIO = 1, 2, 4, 8
_BELOW, _ABOVE, _TOGGLED, _SAMPLE_RATE, _LOGARITHMIC, _INTEGER = 1, 2, 4, 8, 16, 32
_DEFAULT_MASK = 0x3C0
_MINIMUM, _LOW, _MIDDLE, _HIGH, _MAXIMUM = 0x40, 0x80, 0xC0, 0x100, 0x140
_NUMBERS = {0x200: 0.0, 0x240: 1.0, 0x280: 100.0, 0x2C0: 440.0}

#: What a control output is called that tells the latency.
_LATENCY = ("latency", "_latency")


def search_path() -> list[Path]:
    """Directories to look into, in order: `LADSPA_PATH`, or the usual ones; then our own."""
    own = [platformdirs.user_data_path("realtime-sep") / "ladspa"]
    if told := os.environ.get("LADSPA_PATH"):
        return [Path(part).expanduser() for part in told.split(os.pathsep) if part] + own
    places = ["~/.ladspa", "/usr/local/lib/ladspa", "/usr/lib/ladspa", "/usr/lib64/ladspa"]
    if machine := getattr(sys.implementation, "_multiarch", ""):
        places.append(f"/usr/lib/{machine}/ladspa")
    if sys.platform == "darwin":
        places += ["~/Library/Audio/Plug-Ins/LADSPA", "/Library/Audio/Plug-Ins/LADSPA"]
    return [Path(place).expanduser() for place in places] + own


def libraries() -> Iterator[Path]:
    """Files that may hold plugins, in the order in which they count."""
    suffixes = {".so", ".dylib"} if sys.platform == "darwin" else {".so", ".dll"}
    for directory in search_path():
        if directory.is_dir():
            yield from sorted(p for p in directory.iterdir() if p.suffix in suffixes)


@dataclass(frozen=True)
class Found:
    """A plugin in a library."""

    path: str
    label: str
    number: int
    inputs: int
    outputs: int
    info: HostedInfo

    @property
    def misfit(self) -> str:
        """Why it cannot be an effect, or ""."""
        if 1 <= self.inputs <= 2 and 1 <= self.outputs <= 2:
            return ""
        return (
            f"LADSPA plugin {self.label!r} has {self.inputs} audio inputs and {self.outputs} "
            "outputs; an effect has one or two of each"
        )


def describe(path: str) -> list[Found]:
    """Everything in a library; runs its code.

    Raises:
        UsageError: it is no LADSPA library.
    """
    found = []
    for descriptor in native.ladspa_descriptors(path):
        number, label, name = native.ladspa_texts(descriptor)
        ports = list(native.ladspa_ports(descriptor))
        kinds = [kind for kind, *_ in ports]
        inputs = sum(bool(kind & _AUDIO and kind & _INPUT) for kind in kinds)
        outputs = sum(bool(kind & _AUDIO and kind & _OUTPUT) for kind in kinds)
        latency = None if _latency_port(ports) is not None else 0
        channels = max(inputs, outputs)
        turned = tuple(p for _, p in _controls(ports))
        info = HostedInfo(label, name, path, channels, turned, latency)
        found.append(Found(path, label, number, inputs, outputs, info))
    return found


_Ports = list[tuple[int, str, int, float, float]]


def _latency_port(ports: _Ports) -> int | None:
    for p, (kind, name, *_) in enumerate(ports):
        if kind & _CONTROL and kind & _OUTPUT and name.strip().lower() in _LATENCY:
            return p
    return None


def _controls(ports: _Ports) -> Iterator[tuple[int, Parameter]]:
    """The number of the port of each parameter, and the parameter."""
    taken: list[str] = []
    for p, (kind, label, hints, lower, upper) in enumerate(ports):
        if not (kind & _CONTROL and kind & _INPUT):
            continue
        low, high = _bounds(hints, lower, upper, RATE)
        made = parameter(
            label,
            taken,
            default=_default(hints, low, high),
            lower=low,
            upper=high,
            log=bool(hints & _LOGARITHMIC),
            switch=bool(hints & _TOGGLED),
            whole=bool(hints & _INTEGER),
        )
        taken.append(made.name)
        yield p, made


def _bounds(hints: int, lower: float, upper: float, rate: int) -> tuple[float | None, float | None]:
    scale = rate if hints & _SAMPLE_RATE else 1
    return lower * scale if hints & _BELOW else None, upper * scale if hints & _ABOVE else None


def _default(hints: int, low: float | None, high: float | None) -> float | None:
    kind = hints & _DEFAULT_MASK
    if kind in _NUMBERS:
        return _NUMBERS[kind]
    if kind == _MINIMUM:
        return low
    if kind == _MAXIMUM:
        return high
    if kind in (_LOW, _MIDDLE, _HIGH) and low is not None and high is not None:
        part = {_LOW: 0.25, _MIDDLE: 0.5, _HIGH: 0.75}[kind]
        if hints & _LOGARITHMIC and low > 0 and high > 0:
            return math.exp((1 - part) * math.log(low) + part * math.log(high))
        return (1 - part) * low + part * high
    return None


class Ladspa(BaseEffect):
    """One plugin, in this process: whatever it does wrong, it does here.

    Args:
        path: of the library.
        label: of the plugin in it.
    """

    def __init__(self, path: str, label: str) -> None:
        (found,) = [found for found in describe(path) if found.label == label][:1]
        if found.misfit:
            raise UsageError(found.misfit)
        self._descriptor = next(
            d for d in native.ladspa_descriptors(path) if native.ladspa_texts(d)[1] == label
        )
        ports = list(native.ladspa_ports(self._descriptor))
        self._latency_port = _latency_port(ports)
        self._places = {p.name: (place, *ports[place][2:]) for place, p in _controls(ports)}
        self._steps = {p.name for p in found.info.parameters if p.step or p.kind == "switch"}
        self._plugin: native.LadspaPlugin | None = None
        self.name, self.parameters = label, found.info.parameters
        super().__init__()

    @property
    def latency(self) -> int:  # type: ignore[override]
        """As the plugin says, now."""
        if self._plugin is None or self._latency_port is None:
            return 0
        return round(float(self._plugin.controls[self._latency_port]))

    def allocate(self, channels: int, max_frames: int) -> None:
        self._plugin = self._made(channels, max_frames)
        if self._latency_port is not None:
            # Only a plugin that has run says how late it is, and not every one can forget that.
            self.reset()
            self._plugin.run(np.zeros((max_frames, channels), np.float32))
            told = self._plugin.controls[self._latency_port]
            self._plugin = self._made(channels, max_frames)
            self._plugin.controls[self._latency_port] = told

    def _made(self, channels: int, max_frames: int) -> native.LadspaPlugin:
        try:
            return native.LadspaPlugin(self._descriptor, self.samplerate, channels, max_frames)
        except OSError as error:
            raise UsageError(f"LADSPA plugin {self.name!r} cannot be made") from error

    def reset(self) -> None:
        super().reset()
        self.tune()
        if self._plugin is not None:
            self._plugin.reset()

    def tune(self) -> None:
        assert self._plugin is not None, "prepare() comes first"
        for name, value in self.values.items():
            place, hints, lower, upper = self._places[name]
            low, high = _bounds(hints, lower, upper, self.samplerate)
            if name in self._steps:  # there is nothing between
                value = self.targets[name]
            value = value if low is None else max(value, low)
            self._plugin.controls[place] = value if high is None else min(value, high)

    def run(self, block: Float32) -> None:
        assert self._plugin is not None, "prepare() comes first"
        self._plugin.run(block)

    def close(self) -> None:
        """End the plugin."""
        self._plugin = None


class LadspaHost:
    """See `effects.hosts.Host`."""

    scheme = "ladspa"

    def available(self) -> list[HostedInfo]:
        with Helper() as helper:
            every = _every(helper)
        infos: dict[str, HostedInfo] = {}
        for found in every:
            if not found.misfit:
                infos.setdefault(found.label, found.info)
        return sorted(infos.values(), key=lambda info: info.name)

    def load(self, name: str, *, isolate: bool = True, preset: str | None = None) -> Effect:
        """See `Host.load`.

        Args:
            name: label, id, or name of a library that holds one plugin; or LIBRARY/LABEL, where the
                library may be a path.
        """
        if preset is not None:
            raise UsageError(f"LADSPA plugins have no presets, so {name!r} has no {preset!r}")
        helper = Helper()
        try:
            found = _find(helper, name)
            if found.misfit:
                raise UsageError(found.misfit)
        except BaseException:
            helper.close()
            raise
        if isolate:
            return Isolated(helper, "realtime_sep.effects.ladspa:Ladspa", found.path, found.label)
        helper.close()
        return Ladspa(found.path, found.label)


host = LadspaHost()


def _find(helper: Helper, name: str) -> Found:
    path = Path(name).expanduser()
    if path.is_file():
        return _choose(helper, path, "")
    if path.parent.is_file():
        return _choose(helper, path.parent, path.name)
    files = list(libraries())
    stem, _, label = name.partition("/")
    for library in files:
        if library.stem == stem:
            return _choose(helper, library, label)
    every = _every(helper)
    for found in every:
        if name in (found.label, str(found.number)):
            return found
    known = {found.label for found in every if not found.misfit}
    raise unknown("LADSPA plugin", name, known | {library.stem for library in files})


def _choose(helper: Helper, path: Path, label: str) -> Found:
    """The plugin of this label in a library; without a label, its only one, or its namesake."""
    founds: dict[str, Found] = {f.label: f for f in helper.call(_DESCRIBE, str(path))}
    if not label and len(founds) == 1:
        return next(iter(founds.values()))
    if (label or path.stem) in founds:
        return founds[label or path.stem]
    if label:
        raise unknown(f"LADSPA plugin in {path.name}:", label, founds)
    raise UsageError(f"{path.name} holds several plugins: {', '.join(sorted(founds))}")


_DESCRIBE = "realtime_sep.effects.ladspa:describe"


def _looked_into(helper: Helper, path: Path) -> list[Found]:
    """What is in a library; nothing if it is none, or crashes whoever opens it."""
    try:
        found: list[Found] = helper.call(_DESCRIBE, str(path))
        return found
    except RealtimeSepError:
        return []


# ---- what all libraries hold, kept from one time to the next

#: To be raised when `Found` becomes another one.
_FORMAT = 1

#: By path: when it was written and its size, and what is in it.
_Known = dict[str, tuple[tuple[int, int], list[Found]]]


def _every(helper: Helper) -> list[Found]:
    """What is in all libraries; those that are as they were last time are not opened again."""
    file = platformdirs.user_cache_path("realtime-sep") / "ladspa.json"
    known = _remembered(file)
    here: _Known = {}
    for path in libraries():
        try:
            state = path.stat()
        except OSError:  # a link to nowhere
            continue
        stamp = state.st_mtime_ns, state.st_size
        before = known.get(str(path), ((0, 0), []))
        here[str(path)] = before if before[0] == stamp else (stamp, _looked_into(helper, path))
    elsewhere = {path: what for path, what in known.items() if Path(path).exists()}
    if (now := {**elsewhere, **here}) != known:
        _remember(file, now)
    return [found for _, founds in here.values() for found in founds]


def _remembered(file: Path) -> _Known:
    """Nothing where there is no such file, or it is another version's, or damaged."""
    try:
        told = json.loads(file.read_bytes())
        if told["format"] != _FORMAT:
            return {}
        return {
            path: ((stamp[0], stamp[1]), [_found(one) for one in founds])
            for path, (stamp, founds) in told["libraries"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError):
        return {}


def _found(told: dict[str, Any]) -> Found:
    info = told["info"]
    turned = tuple(
        Parameter(**{**p, "choices": tuple(map(tuple, p["choices"]))}) for p in info["parameters"]
    )
    presets = tuple(info["presets"])
    return Found(
        **{**told, "info": HostedInfo(**{**info, "parameters": turned, "presets": presets})}
    )


def _remember(file: Path, known: _Known) -> None:
    libraries = {
        p: (stamp, [asdict(one) for one in founds]) for p, (stamp, founds) in known.items()
    }
    new = file.with_name(f".{file.name}.{os.getpid()}")
    with suppress(OSError):  # then they are opened again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps({"format": _FORMAT, "libraries": libraries}))
        new.replace(file)
