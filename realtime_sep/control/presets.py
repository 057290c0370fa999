"""Presets: named settings in TOML; those that come along, and a file of the user's own."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import platformdirs

from realtime_sep.effects.syntax import parse_chain
from realtime_sep.errors import UsageError, unknown
from realtime_sep.parameters import MICROPHONE, MONITOR, parameters

#: Stems whose faders a preset may name beside vocals and music; a stream need not have them.
_STEMS = ("accompaniment", "drums", "bass", "other", "piano", "guitar")


@dataclass(frozen=True)
class Preset:
    """Named settings.

    Attributes:
        title: for people.
        values: parameters by name; what is not named stays as it is.
        model: to switch to; None: whichever runs.
        chains: of effects, by place, as text; what is not named stays as it is.
    """

    name: str
    title: str
    values: Mapping[str, float]
    model: str | None = None
    chains: Mapping[str, str] = field(default_factory=dict)

    def chains_for(self, *, microphone: bool, monitor: bool) -> dict[str, str]:
        """`chains`, but for those of a microphone or a monitor that is not there."""
        there = {MICROPHONE: microphone, MONITOR: monitor}
        return {place: text for place, text in self.chains.items() if there.get(place, True)}


def own_file() -> Path:
    """Where users put theirs."""
    return Path(platformdirs.user_config_dir("realtime-sep")) / "presets.toml"


def shipped() -> dict[str, Preset]:
    """Those that come along."""
    text = files("realtime_sep.control").joinpath("presets.toml").read_text(encoding="utf-8")
    return _parse(text, "presets.toml")


def presets(path: Path | None = None) -> dict[str, Preset]:
    """All presets by name, those of the user's file last.

    Args:
        path: that file; by default `own_file()`.  It need not exist.

    Raises:
        UsageError: what is wrong with it, in one line.
    """
    found = shipped()
    path = own_file() if path is None else path
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return found
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {_line(error)}") from error
    return found | _parse(text, str(path))


def find(name: str) -> Preset:
    """One preset.

    Raises:
        UsageError: there is none of this name, or the user's file is damaged.
    """
    known = presets()
    if name not in known:
        raise unknown("preset", name, known)
    return known[name]


def _parse(text: str, source: str) -> dict[str, Preset]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source}: no TOML: {_line(error)}") from error
    found = {}
    for name, table in tables.items():
        try:
            found[name] = _preset(name, table)
        except UsageError as error:
            raise UsageError(f"{source}: [{name}]: {error}") from error
    return found


def _preset(name: str, table: Any) -> Preset:
    if not isinstance(table, dict):
        raise UsageError("a preset is a table, like [practice]")
    table = dict(table)
    title, model = table.pop("title", name), table.pop("model", None)
    if not isinstance(title, str) or not isinstance(model, str | None):
        raise UsageError("title and model are texts")
    chains = table.pop("chains", {})
    if not isinstance(chains, dict) or not all(isinstance(c, str) for c in chains.values()):
        raise UsageError('chains are a table of texts, like mix = "compressor|reverb"')
    for chain in chains.values():
        parse_chain(chain)
    known, values = parameters(_STEMS, microphone=True, monitor=True), {}
    for key, value in _flat(table).items():
        if key not in known:
            raise unknown("parameter", key, known)
        values[key] = known[key].checked(-math.inf if value == "off" else value)
    return Preset(name, title, values, model, chains)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`vocals.mute = true` is a table in TOML; here it is a name."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
