"""The text of a chain: `highpass:f=90|compressor|ladspa:plate_1423:decay=2|!gain:db=-3`.

    chain = [slot {"|" slot}]
    slot  = ["!"] [SCHEME ":"] NAME [":" [KEY "=" VALUE {"," KEY "=" VALUE}]]

`!` begins a slot that starts bypassed.  SCHEME is a host of foreign plugins.  What follows the last
colon is options only if all of it looks like options, so names may be paths and URIs; a name that
ends like options itself is closed by a colon with nothing after it.  A value that holds `|`, `,` or
`:`, or is a text that looks like a number, stands in double quotes: `preset="Hall: big"`; in them,
two quotes are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from realtime_sep.errors import UsageError

BETWEEN, BYPASSED, COLON = "|", "!", ":"
Value = float | str

_KEY = re.compile(r"\w[\w.-]*")
#: A value in quotes, and what it follows.
_QUOTED = re.compile(r'(?<==)"(?:[^"]|"")*"')


@dataclass(frozen=True)
class SlotSpec:
    """One slot, as text says it.

    Attributes:
        name: of the effect; of a plugin, if there is a scheme.
        scheme: of the host that knows it; "": found by entry point.
        options: numbers, and texts where they are none.
    """

    name: str
    scheme: str = ""
    options: Mapping[str, Value] = field(default_factory=dict)
    bypassed: bool = False

    @property
    def source(self) -> str:
        """Name and scheme."""
        return f"{self.scheme}{COLON}{self.name}" if self.scheme else self.name

    def __str__(self) -> str:
        text = self.source
        if self.options:
            text += COLON + ",".join(f"{k}={_written(v)}" for k, v in self.options.items())
        elif _split(text) != (text, None):
            text += COLON
        return BYPASSED * self.bypassed + text


def slot_name(spec: SlotSpec) -> str:
    """By which a slot may be known in its chain: the end of a path or URI, as an identifier."""
    last = re.split(r"[/\\#:]", spec.name.rstrip("/\\#:"))[-1]
    return re.sub(r"\W+", "_", re.sub(r"\.\w{1,9}$", "", last)).strip("_") or "effect"


def parse_slot(text: str) -> SlotSpec:
    """One slot of a chain.

    Raises:
        UsageError: it is none.
    """
    whole, text = text, text.strip()
    bypassed = text.startswith(BYPASSED)
    source, listed = _split(text.removeprefix(BYPASSED).strip())
    scheme, colon, name = source.partition(COLON)
    if not colon:
        scheme, name = "", source
    if not name or BETWEEN in _outside(text) or (colon and not scheme.isidentifier()):
        raise UsageError(
            f"{whole!r} is no effect: give NAME, NAME:key=value,... or HOST:NAME:key=value,..."
        )
    options: dict[str, Value] = {}
    for part in filter(None, _cut(listed or "", ",")):
        key, _, value = part.partition("=")
        if key.strip() in options:
            raise UsageError(f"{whole!r} says {key.strip()} twice")
        options[key.strip()] = told = _read(value.strip())
        if told == value.strip() and value.lstrip().startswith('"'):
            raise UsageError(f"{whole!r}: the quotes of {key.strip()} do not end, or too soon")
    return SlotSpec(name, scheme, options, bypassed)


def parse_chain(text: str) -> tuple[SlotSpec, ...]:
    """The slots of a chain; none where there is nothing but space.

    Raises:
        UsageError: a slot is none.
    """
    return tuple(parse_slot(part) for part in _cut(text, BETWEEN)) if text.strip() else ()


def chain_text(slots: Iterable[SlotSpec]) -> str:
    """What `parse_chain` reads as these slots."""
    return BETWEEN.join(map(str, slots))


def _split(text: str) -> tuple[str, str | None]:
    """What comes before the options, and the options, or None."""
    at = _outside(text).rfind(COLON)
    if at < 0:
        return text, None
    source, last = text[:at], text[at + 1 :]
    parts = _cut(last, ",") if last.strip() else []
    for part in parts:
        key, equals, _ = part.partition("=")
        if not equals or not _KEY.fullmatch(key.strip()):
            return text, None
    return source, last


def _outside(text: str) -> str:
    """The text with something harmless in the place of what is in quotes."""
    return _QUOTED.sub(lambda found: "_" * len(found[0]), text)


def _cut(text: str, at: str) -> list[str]:
    """Like `str.split`, but not in quotes."""
    parts, start = [], 0
    for part in _outside(text).split(at):
        parts.append(text[start : start + len(part)])
        start += len(part) + 1
    return parts


def _read(text: str) -> Value:
    if _QUOTED.fullmatch(f"={text}", 1):
        return text[1:-1].replace('""', '"')
    match text.lower():
        case "true" | "on":
            return 1.0
        case "false" | "off":
            return 0.0
    try:
        return float(text)
    except ValueError:
        return text


def _written(value: Value) -> str:
    if not isinstance(value, str):
        return f"{value:.12g}"
    plain = not re.search(r'[|,:"]', value) and value == value.strip()
    if plain and isinstance(_read(value), str):
        return value
    return '"' + value.replace('"', '""') + '"'
