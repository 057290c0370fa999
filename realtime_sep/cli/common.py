"""What several commands need."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from realtime_sep.errors import UsageError

if TYPE_CHECKING:
    from realtime_sep.types import SeparatorInfo

#: Where faders end.
LOUDEST_DB = 6.0


def checked_model(name: str | None) -> str:
    """`name`, or the best separator; before any device is opened or file read.

    Raises:
        UsageError, ModelError: there is no such separator.
    """
    if name is None:
        from realtime_sep.cli.choice import best_model

        return best_model()
    from realtime_sep.plugins import available_separators, load_separator, with_options

    if with_options(name)[0] not in available_separators():
        load_separator(name)  # says what is wrong, and where to get it
    return name


def decibels(text: str) -> float:
    """A fader position from what a person typed."""
    if text.lower() in ("off", "-inf"):
        return -math.inf
    try:
        value = float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a level; give dB, like -12, or off") from None
    if not value <= LOUDEST_DB:
        raise typer.BadParameter(f"{text} dB is too loud; at most {LOUDEST_DB:.0f}")
    return value


def separator_options(profile: str | None, provider: str | None) -> dict[str, Any]:
    """What a separator is asked for besides its name."""
    options = {"profile": profile, "provider": provider}
    return {key: value for key, value in options.items() if value is not None}


def offer_another(info: SeparatorInfo) -> None:
    """Say so where a network takes longer than its audio lasts, and name one that does not."""
    if info.rtf > 1:
        from realtime_sep.cli.choice import best_model

        complain(
            f"{info.name} takes {info.rtf:.2g} s per second of audio on this machine "
            f"({info.provider}) and will be late; --model {best_model(info.name)} keeps up"
        )


def stem_levels(texts: list[str] | None) -> dict[str, float]:
    """Levels in dB by stem from `NAME=DB`, as typed."""
    levels = {}
    for text in texts or ():
        name, equals, level = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--stem {text!r}: give NAME=DB, like drums=-6 or bass=off")
        levels[name] = decibels(level)
    return levels


def chains(texts: list[str] | None, preset: Mapping[str, str] | None = None) -> dict[str, str]:
    """Texts of chains by place from `[WHERE=]TEXT`, as typed; they win over those of a preset.

    Raises:
        UsageError: text that is no chain, or two for one place.
    """
    from realtime_sep.effects.syntax import parse_chain

    typed: dict[str, str] = {}
    for text in texts or ():
        # Not the equals sign of an option: a colon or bar comes before that.
        named = re.fullmatch(r"\s*([\w-]+)\s*=(.*)", text)
        place, chain = named.groups() if named else ("mix", text)
        if place in typed:
            raise UsageError(f"--chain gives two chains for {place}; join them with a bar")
        parse_chain(chain)
        typed[place] = chain.strip()
    return {**(preset or {}), **typed}


def complain(text: str) -> None:
    """One line for the user's eyes, beside the output."""
    print(f"realtime-sep: {text}", file=sys.stderr)


def to_json(value: Any) -> str:
    """JSON of plain data and dataclasses; levels of minus infinity become null."""
    return json.dumps(_plain(value), indent=2)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
