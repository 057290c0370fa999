"""The text of a chain: `highpass:f=90|compressor|ladspa:plate_1423:decay=2|!gain:db=-3`.

    chain = [slot {"|" slot}]
    slot  = ["!"] [SCHEME ":"] NAME [":" [KEY "=" VALUE {"," KEY "=" VALUE}]]

`!` begins a slot that starts bypassed.  SCHEME is a host of foreign plugins.  What follows the last
colon is options only if all of it looks like options, so names may be paths and URIs; a name that
ends like options itself is closed by a colon with nothing after it.  Values hold none of `|`, `,`
and `:`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from realtime_sep.errors import UsageError

BETWEEN, BYPASSED, COLON = "|", "!", ":"
Value = float | str

_KEY = re.compile(r"\w[\w.-]*")


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
    if not name or BETWEEN in text or (colon and not scheme.isidentifier()):
        raise UsageError(
            f"{whole!r} is no effect: give NAME, NAME:key=value,... or HOST:NAME:key=value,..."
        )
    options: dict[str, Value] = {}
    for part in filter(None, (listed or "").split(",")):
        key, _, value = part.partition("=")
        if key.strip() in options:
            raise UsageError(f"{whole!r} says {key.strip()} twice")
        options[key.strip()] = _read(value.strip())
    return SlotSpec(name, scheme, options, bypassed)


def parse_chain(text: str) -> tuple[SlotSpec, ...]:
    """The slots of a chain; none where there is nothing but space.

    Raises:
        UsageError: a slot is none.
    """
    return tuple(parse_slot(part) for part in text.split(BETWEEN)) if text.strip() else ()


def chain_text(slots: Iterable[SlotSpec]) -> str:
    """What `parse_chain` reads as these slots."""
    return BETWEEN.join(map(str, slots))


def _split(text: str) -> tuple[str, str | None]:
    """What comes before the options, and the options, or None."""
    source, colon, last = text.rpartition(COLON)
    if not colon:
        return text, None
    parts = last.split(",") if last.strip() else []
    for part in parts:
        key, equals, _ = part.partition("=")
        if not equals or not _KEY.fullmatch(key.strip()):
            return text, None
    return source, last


def _read(text: str) -> Value:
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
    return value if isinstance(value, str) else f"{value:.12g}"
