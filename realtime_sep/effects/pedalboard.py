"""VST3 and Audio Unit plugins, and what `pedalboard` brings along, through that package.

Pedalboard is under the GPL and brings a large library of its own, so it is never imported into this
process, only into that of a helper; there is no `isolate=False`.  Its plugins hold frames back
rather than delay them, so their latency is measured: silence goes in until as much comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from realtime_sep.effects.foreign import identifier
from realtime_sep.effects.helper import MOST
from realtime_sep.effects.hosts import HostedInfo
from realtime_sep.effects.isolated import Helper, Isolated
from realtime_sep.effects.protocol import Effect
from realtime_sep.errors import UsageError, unknown
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32

_HERE = "realtime_sep.effects.pedalboard"
#: Seconds of silence after which a plugin that lets nothing out is refused.
_LONGEST = 1.0
#: Frames that it takes at least: in fewer it cannot tell frames from channels.
_LEAST = 4

#: Ranges of the package's own effects, which do not say theirs, by how their parameters end.
_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("_db", -100.0, 60.0, "dB"),
    ("rate_hz", 0.0, 100.0, "Hz"),
    ("_hz", 10.0, 20000.0, "Hz"),
    ("_ms", 0.1, 5000.0, "ms"),
    ("_seconds", 0.0, 10.0, "s"),
    ("semitones", -24.0, 24.0, "st"),
    ("ratio", 1.0, 100.0, ":1"),
    ("bit_depth", 1.0, 32.0, "bit"),
    ("vbr_quality", 0.0, 10.0, ""),
    ("target_sample_rate", 1000.0, 192000.0, "Hz"),
    ("drive", 1.0, 10.0, ""),
    ("q", 0.1, 20.0, ""),
)
#: Of them, those that hold others, or nothing to turn.
_NOT = {"Chain", "Mix", "Pedalboard"}


class Pedal:
    """A plugin of pedalboard's, in this process, which must be a helper's.

    It takes as many channels as the stream has; else, as with other hosts, a mono stream goes to
    both of its two, which are averaged, and one that is mono runs once per channel.

    Args:
        name: for messages.
        plugin: made.
        make: what makes another one.
        parameters: of it.
        setters: what each stands for in the plugin: its attribute, and its values where they are
            no numbers.
    """

    def __init__(
        self,
        name: str,
        plugin: Any,
        make: Callable[[], Any],
        parameters: tuple[Parameter, ...],
        setters: Mapping[str, tuple[str, list[Any] | None]],
    ) -> None:
        self._name, self._make, self._setters = name, make, setters
        self._plugins = [plugin]
        self._told: dict[str, float] = {}
        self.parameters = parameters
        self.latency = 0

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None:
        """See `Effect.prepare`.

        Raises:
            UsageError: it takes no such audio, or lets nothing out.
        """
        self._rate, self._most = samplerate, max_frames
        self._none: Float32 = np.zeros((channels, 0), np.float32)
        for self._wide, plugins in ((channels, 1), (3 - channels, channels)):
            while len(self._plugins) < plugins:
                self._plugins.append(self._make())
            for name, value in self._told.items():
                self.set(name, value)
            try:
                self.latency = self._measured(np.zeros((channels, max_frames), np.float32))
            except ValueError as error:  # of pedalboard's: so many channels do not fit
                if isinstance(error, UsageError):
                    raise
                continue
            self.reset()
            return
        raise UsageError(f"{self._name} takes neither one channel nor two")

    def _measured(self, silence: Float32) -> int:
        """The latency."""
        for plugin in self._plugins:
            plugin.reset()
        held = 0
        while lacks := silence.shape[1] - self._run(silence).shape[1]:
            held += lacks
            if held > _LONGEST * self._rate:
                raise UsageError(
                    f"{self._name} holds back more than {_LONGEST:g} s, or gives nothing"
                )
        return held + _LEAST - 1

    def set(self, name: str, value: float) -> None:
        """See `Effect.set`; it does not glide unless the plugin lets it."""
        attribute, values = self._setters[name]
        self._told[name] = value
        for plugin in self._plugins:
            setattr(plugin, attribute, value if values is None else values[round(value)])

    def reset(self) -> None:
        """See `Effect.reset`."""
        for plugin in self._plugins:
            plugin.reset()
        self._waiting = self._none
        self._queue: Float32 = np.zeros((len(self._none), self.latency), np.float32)

    def process(self, block: Float32) -> None:
        """See `Effect.process`."""
        self._waiting = np.concatenate([self._waiting, block.T], axis=1)
        queue = self._queue
        if self._waiting.shape[1] >= _LEAST:
            queue = np.concatenate([queue, self._run(self._waiting)], axis=1)
            self._waiting = self._none
        if queue.shape[1] < len(block):
            raise UsageError(f"holds back more than the {self.latency} frames that it did at first")
        block[:] = queue[:, : len(block)].T
        self._queue = queue[:, len(block) :]

    def _run(self, audio: Float32) -> Float32:
        if self._wide == len(audio):
            return self._made(self._plugins[0], audio)
        if self._wide == 2:
            both = self._made(self._plugins[0], np.repeat(audio, 2, axis=0))
            mono: Float32 = both.mean(axis=0, keepdims=True, dtype=np.float32)
            return mono
        rows = zip(self._plugins, audio, strict=False)
        return np.concatenate([self._made(plugin, row[np.newaxis]) for plugin, row in rows])

    def _made(self, plugin: Any, audio: Float32) -> Float32:
        made = plugin.process(audio, self._rate, self._most, reset=False)
        # Nothing may have any shape.
        return np.asarray(made, np.float32).reshape(len(audio), -1) if made.size else audio[:, :0]


# ---- in the helper's process: the package's own effects


def _package() -> Any:
    return import_module("pedalboard")


def built_in(name: str) -> Pedal:
    """One of the package's own effects.

    Raises:
        UsageError: there is none of this name.
    """
    makers = _built_ins()
    if name not in makers:
        raise unknown("effect of pedalboard", name, makers)
    plugin = makers[name]()
    parameters, setters = [], {}
    for attribute, value in _numbers(plugin).items():
        parameters.append(_parameter(attribute, value))
        setters[attribute] = (attribute, [False, True] if isinstance(value, bool) else None)
    return Pedal(name, plugin, makers[name], tuple(parameters), setters)


def describe() -> list[HostedInfo]:
    """Everything that `built_in` takes."""
    pedalboard = _package()
    origin = str(Path(str(pedalboard.__file__)).parent)
    return [
        HostedInfo(name, name, origin, 1, built_in(name).parameters)
        for name in sorted(_built_ins())
    ]


def _built_ins() -> dict[str, Any]:
    """Classes that can be made without an argument, by name."""
    pedalboard = _package()
    found = {}
    for name, kind in vars(pedalboard).items():
        if isinstance(kind, type) and issubclass(kind, pedalboard.Plugin) and name not in _NOT:
            try:
                kind()
            except Exception:  # it is abstract, or wants an argument
                continue
            found[name] = kind
    return found


def _numbers(plugin: Any) -> dict[str, float]:
    names = [n for n in dir(type(plugin)) if isinstance(getattr(type(plugin), n), property)]
    values = {n: getattr(plugin, n) for n in names if not n.startswith("is_")}
    return {n: v for n, v in values.items() if isinstance(v, int | float)}


def _parameter(name: str, value: float) -> Parameter:
    if isinstance(value, bool):
        return Parameter(name, float(value), 0, 1, "", "switch")
    default = float(f"{value:.6g}")
    for end, low, high, unit in _RANGES:
        if name.endswith(end) and (end != "q" or name == "q"):
            return Parameter(name, min(max(default, low), high), low, high, unit)
    return Parameter(name, default, 0.0, max(1.0, 10 * default if default > 1 else 1.0))


# ---- in the helper's process: plugins in files


def external(path: str, plugin_name: str | None, preset: str | None) -> Pedal:
    """The plugin in a file.

    Raises:
        UsageError: it cannot be loaded, or makes sound from nothing.
    """

    def make() -> Any:
        try:
            plugin = _package().load_plugin(path, plugin_name=plugin_name)
        except (ImportError, ValueError, OSError) as error:
            told = " ".join(str(error).split())
            raise UsageError(f"{path} cannot be loaded: {told:.200}") from error
        if preset is not None:
            plugin.load_preset(preset)
        return plugin

    plugin = make()
    if not plugin.is_effect:
        raise UsageError(f"{path} is an instrument, not an effect")
    parameters: list[Parameter] = []
    setters: dict[str, tuple[str, list[Any] | None]] = {}
    for attribute, known in list(plugin.parameters.items())[:MOST]:
        made, values = _external_parameter(attribute, known, getattr(plugin, attribute), setters)
        parameters.append(made)
        setters[made.name] = (attribute, values)
    return Pedal(path, plugin, make, tuple(parameters), setters)


def _external_parameter(
    attribute: str, known: Any, value: Any, taken: Mapping[str, object]
) -> tuple[Parameter, list[Any] | None]:
    """A parameter, and its values where they are no numbers."""
    name, label = identifier(attribute, taken), str(known.name)
    if known.type is bool:
        return Parameter(name, float(bool(value)), 0, 1, "", "switch", label), [False, True]
    if known.type is float:
        low, high = float(known.min_value), float(known.max_value)
        default = min(max(float(value), low), high)
        return Parameter(name, default, low, high, str(known.label or ""), label=label), None
    values = list(known.valid_values)
    default = float(values.index(value)) if value in values else 0.0
    choices = tuple((str(text), float(i)) for i, text in enumerate(values))
    last = max(0.0, len(values) - 1.0)
    return Parameter(name, default, 0.0, last, label=label, step=1, choices=choices), values


def installed() -> list[str]:
    """Files of plugins, where systems put them."""
    pedalboard = _package()
    kinds = [getattr(pedalboard, name, None) for name in ("VST3Plugin", "AudioUnitPlugin")]
    return sorted({path for kind in kinds if kind is not None for path in kind.installed_plugins})


# ---- here


def _require(what: str) -> None:
    if find_spec("pedalboard") is None:
        raise UsageError(f"{what} needs pedalboard (GPL-3): pip install 'realtime-sep[pedalboard]'")


class PedalboardHost:
    """The effects that pedalboard brings along; see `effects.hosts.Host`."""

    scheme = "pedalboard"

    def available(self) -> list[HostedInfo]:
        if find_spec("pedalboard") is None:
            return []
        with Helper() as helper:
            found: list[HostedInfo] = helper.call(f"{_HERE}:describe")
        return found

    def load(self, name: str, *, isolate: bool = True, preset: str | None = None) -> Effect:
        """See `Host.load`."""
        _require(f"pedalboard:{name}")
        _refuse(isolate)
        if preset is not None:
            raise UsageError(
                f"effects of pedalboard have no presets, so {name!r} has no {preset!r}"
            )
        return Isolated(Helper(), f"{_HERE}:built_in", name)


class Vst3Host:
    """VST3 plugins, and Audio Units where there are such; see `effects.hosts.Host`."""

    scheme = "vst3"

    def available(self) -> list[HostedInfo]:
        if find_spec("pedalboard") is None:
            return []
        with Helper() as helper:
            paths: list[str] = helper.call(f"{_HERE}:installed")
        return [HostedInfo(path, Path(path).stem, path, 2) for path in paths]

    def load(self, name: str, *, isolate: bool = True, preset: str | None = None) -> Effect:
        """See `Host.load`.

        Args:
            name: path of the plugin, or name of one that is installed; PATH/NAME where a file
                holds several.
            preset: path of a `.vstpreset`.
        """
        _require(f"vst3:{name}")
        _refuse(isolate)
        helper = Helper()
        path, inner = Path(name).expanduser(), None
        if not path.exists() and path.parent.suffix in (".vst3", ".component"):
            path, inner = path.parent, path.name
        if not path.exists():
            files = {Path(file).stem: Path(file) for file in helper.call(f"{_HERE}:installed")}
            if name not in files:
                helper.close()
                raise unknown("VST3 plugin", name, files)
            path = files[name]
        return Isolated(helper, f"{_HERE}:external", str(path), inner, preset)


def _refuse(isolate: bool) -> None:
    if not isolate:
        raise UsageError("plugins of pedalboard run in a process of their own, and nowhere else")


host, vst3 = PedalboardHost(), Vst3Host()
