"""Separators and effects are plugins: found by entry point, or (separators) in the model registry.

The engine knows none of them by name.  A name that an entry point carries wins over a model's.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from realtime_sep import effects, separators
from realtime_sep.effects import Effect
from realtime_sep.effects.chain import Chain, free_name
from realtime_sep.effects.hosts import HOSTS, Host
from realtime_sep.effects.slot import Slot
from realtime_sep.effects.syntax import SlotSpec, parse_chain, parse_slot, slot_name
from realtime_sep.errors import RealtimeSepError, UsageError, unknown
from realtime_sep.parameters import meant
from realtime_sep.separators import Separator
from realtime_sep.types import SeparatorInfo

if TYPE_CHECKING:
    from realtime_sep.separators.batch import SpectralBatch

SEPARATORS = "realtime_sep.separators"
EFFECTS = "realtime_sep.effects"
PLUS = "+"


def available_separators() -> list[str]:
    """Names that `load_separator` takes, sorted: plugins and installed models."""
    from realtime_sep.models import registry

    return sorted({*entry_points(group=SEPARATORS).names, *registry.names()})


def available_effects() -> list[str]:
    """Names that `load_effect` takes, sorted."""
    return sorted(entry_points(group=EFFECTS).names)


def load_separator(
    name: str, *, samplerate: int = 44100, channels: int = 2, **options: Any
) -> Separator:
    """Make a separator for one stream.

    Args:
        name: of a plugin or a model; see `available_separators()`.  Options may follow it, as text:
            `NAME:key=value,...` (see `with_options`).  Several names with a plus between them are
            the mean of those (see `separators.mean`).
        samplerate: Hz that it will be fed with.
        channels: of the audio it will be fed with.
        options: what this separator takes besides (`profile="stage"`, `provider="cuda"`, ...).

    Raises:
        UsageError: unknown name (the nearest is suggested), or an option it does not take.
        ModelError: a model that is missing, damaged or foreign.
    """
    if PLUS in name and not os.path.exists(name):
        from realtime_sep.separators.mean import Mean

        return Mean(
            [
                load_separator(part, samplerate=samplerate, channels=channels, **options)
                for part in name.split(PLUS)
            ]
        )
    name, told = with_options(name)
    options = {**told, **options}
    factory = find(SEPARATORS, name)
    if factory is None:
        from realtime_sep.models import registry

        entry = registry.find(name)
        if entry is None:
            raise unknown("model", name, available_separators())
        from realtime_sep.separators.onnx import load

        return load(entry, samplerate=samplerate, channels=channels, **options)
    made = _call(name, factory, samplerate=samplerate, channels=channels, **options)
    if not (isinstance(made, Separator) and isinstance(made.info, SeparatorInfo)):
        raise UsageError(f"plugin {name!r} makes no separator: it lacks part of the protocol")
    if (made.info.samplerate, made.info.channels) != (samplerate, channels):
        raise UsageError(
            f"{name!r} runs at {made.info.samplerate} Hz with {made.info.channels} channels, "
            f"not at {samplerate} Hz with {channels}"
        )
    return made


def load_batch(name: str, lanes: int, **options: Any) -> SpectralBatch | None:
    """What computes many streams of one model together, or None where each is on its own.

    Args:
        name, options: as for `load_separator`.
        lanes: streams at once, at most.

    Raises:
        UsageError, ModelError: as `load_separator`.
    """
    from realtime_sep.models import registry

    name, told = with_options(name)
    options = {**told, **options}
    entry = None if entry_points(group=SEPARATORS, name=name) else registry.find(name)
    if entry is None or options.keys() - {"provider", "profile"}:
        return None
    from realtime_sep.separators.batch import load_batch

    return load_batch(entry, lanes, **options)


def with_options(spec: str) -> tuple[str, dict[str, Any]]:
    """Name and options of `NAME:key=value,...`; numbers and true/false become such.

    In `NAME:key=value+NAME`, a mean, options belong to their part, so it is a name as it is.

    Raises:
        UsageError: options that are none.
    """
    if os.path.exists(spec) or PLUS in spec:  # a file may be called anything
        return spec, {}
    name, _, rest = spec.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(
                f"{spec!r}: options are NAME:key=value,key=value, and {part!r} is not one"
            )
        options[key] = _value(value)
    return name, options


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def available_hosts() -> list[str]:
    """Schemes of the hosts of foreign plugins, sorted."""
    return sorted(entry_points(group=HOSTS).names)


def load_host(scheme: str) -> Host:
    """A host of foreign plugins.

    Raises:
        UsageError: there is none for this scheme (the nearest is suggested).
    """
    target = find(HOSTS, scheme)
    if target is None:
        raise unknown("host of plugins", scheme, available_hosts())
    host = _call(scheme, target) if isinstance(target, type) else target
    if not isinstance(host, Host):
        raise UsageError(f"plugin {scheme!r} is no host: it lacks part of the protocol")
    return host


def load_effect(name: str | SlotSpec, **parameters: Any) -> Effect:
    """Make an effect and turn its parameters.

    Args:
        name: of the effect, or text as in a chain: `gain:db=-3`, `ladspa:plate_1423:decay=2`
            (see `effects.syntax`; whether it starts bypassed is no matter here).
        parameters: by name, or, as in text, by as much of it as is no other one's (see
            `parameters.meant`); foreign plugins take `preset`, a name, and `isolate`, whether they
            run in a process of their own, as well.

    Raises:
        UsageError: unknown effect or parameter (the nearest is suggested).
    """
    spec = parse_slot(name) if isinstance(name, str) else name
    return _effect(replace(spec, options={**spec.options, **parameters}))[0]


def _effect(spec: SlotSpec) -> tuple[Effect, SlotSpec]:
    """An effect, and the same with its parameters' whole names."""
    name, parameters = spec.source, dict(spec.options)
    if spec.scheme:
        chosen: dict[str, Any] = {}
        if "isolate" in parameters:
            chosen["isolate"] = bool(parameters.pop("isolate"))
        if "preset" in parameters:
            chosen["preset"] = str(parameters.pop("preset"))
        effect = load_host(spec.scheme).load(spec.name, **chosen)
    else:
        factory = find(EFFECTS, name)
        if factory is None:
            raise unknown("effect", name, available_effects())
        effect = _call(name, factory)
    if not isinstance(effect, Effect):
        raise UsageError(f"plugin {name!r} makes no effect: it lacks part of the protocol")
    try:
        turned = _named(name, effect, parameters)
        _turn(name, effect, turned)
    except UsageError:
        if (close := getattr(effect, "close", None)) is not None:
            close()
        raise
    kept = {k: v for k, v in spec.options.items() if k not in parameters}
    return effect, replace(spec, options={**kept, **turned})


def _named(name: str, effect: Effect, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters by their whole names."""
    known = [p.name for p in effect.parameters]
    turned: dict[str, Any] = {}
    for asked, value in parameters.items():
        parameter = meant(f"parameter of effect {name!r}", asked, known)
        if parameter in turned:
            raise UsageError(f"effect {name!r} is told {parameter} twice")
        turned[parameter] = value
    return turned


def _turn(name: str, effect: Effect, parameters: Mapping[str, Any]) -> None:
    for parameter, value in parameters.items():
        try:
            effect.set(parameter, value)
        except RealtimeSepError:
            raise
        except Exception as error:
            raise UsageError(
                f"effect {name!r} does not take {parameter}={value!r}: {_line(error)}"
            ) from error


def load_slot(spec: SlotSpec, taken: Iterable[str] = ()) -> Slot:
    """Make a slot for a chain, named after its effect but not as one of `taken`.

    Raises:
        UsageError: as `load_effect`.
    """
    effect, spec = _effect(spec)
    return Slot(effect, free_name(slot_name(spec), taken), spec, spec.bypassed)


def load_chain(text: str) -> Chain:
    """Make a chain from text: `highpass:f=90|compressor|!gain:db=-3`.

    Raises:
        UsageError: as `load_effect`.
    """
    slots: list[Slot] = []
    for spec in parse_chain(text):
        slots.append(load_slot(spec, [slot.name for slot in slots]))
    return Chain(slots)


def find(group: str, name: str) -> Any:
    """The object that an entry point names, or None where there is no such entry point.

    Raises:
        UsageError: it cannot be loaded, or is for another version of the interface.
    """
    api_version = separators.API_VERSION if group == SEPARATORS else effects.API_VERSION
    found: list[EntryPoint] = list(entry_points(group=group, name=name))
    if not found:
        return None
    try:
        target = found[0].load()
    except Exception as error:
        raise UsageError(
            f"plugin {name!r} ({found[0].value}) cannot be loaded: {_line(error)}"
        ) from error
    version = getattr(target, "api_version", api_version)
    if version != api_version:
        raise UsageError(
            f"plugin {name!r} was written for version {version} of the plugin interface, "
            f"this is version {api_version}; install a matching release of the plugin"
        )
    return target


def _call(name: str, factory: Any, **options: Any) -> Any:
    """Call a factory; an option that it does not take is the user's mistake, named as such."""
    if not callable(factory):
        raise UsageError(f"plugin {name!r} names {factory!r}, which makes nothing")
    try:
        takes = inspect.signature(factory).parameters
    except ValueError:  # some callables written in C do not tell
        takes = None
    if takes is not None and not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        for option in options:
            if option not in takes:
                own = [p for p in takes if p not in ("samplerate", "channels")]
                raise unknown(f"option of {name!r}", option, own)
    try:
        return factory(**options)
    except RealtimeSepError:
        raise
    except Exception as error:
        raise UsageError(f"{name!r} cannot be made with these options: {_line(error)}") from error


def _line(error: Exception) -> str:
    """An error of somebody else's code in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
