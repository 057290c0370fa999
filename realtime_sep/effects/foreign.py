"""What the hosts share: how a foreign plugin's controls become named parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from realtime_sep.parameters import Parameter

#: Ranges that depend on the sample rate are shown for this one; what runs keeps to its own.
RATE = 44100
#: Where a control ends that has no end.
FAR = 1e5

_UNITS = {
    "db": "dB", "hz": "Hz", "khz": "kHz", "ms": "ms", "s": "s", "sec": "s", "secs": "s",
    "seconds": "s", "%": "%", "percent": "%", "semitones": "st", "cents": "ct", "bpm": "BPM",
    "1:n": ":1",
}  # fmt: skip
_BRACKETS = re.compile(r"[(\[]([^)\]]*)[)\]]")


def identifier(label: str, taken: Collection[str] = ()) -> str:
    """A name to type: "Decay time [ms]" is `decay_time`; with a number if it is taken."""
    bare = _BRACKETS.sub(" ", label)
    name = re.sub(r"[^a-z0-9]+", "_", bare.lower()).strip("_") or "port"
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def unit(label: str) -> str:
    """The unit that a label says in brackets, or ""."""
    for text in _BRACKETS.findall(label):
        if (found := _UNITS.get(text.strip().lower())) is not None:
            return found
    return ""


def parameter(
    label: str,
    taken: Collection[str],
    *,
    default: float | None,
    lower: float | None,
    upper: float | None,
    log: bool = False,
    switch: bool = False,
    whole: bool = False,
    unit_: str = "",
    name: str = "",
    choices: tuple[tuple[str, float], ...] = (),
) -> Parameter:
    """A control as a parameter; None: the plugin does not say, or says what is no number."""
    name = identifier(name or label, taken)
    if switch:
        return Parameter(name, float((default or 0) > 0), 0, 1, "", "switch", label)
    low = _round(lower, whole, math.ceil)
    high = _round(upper, whole, math.floor)
    if low is None:
        low = 0.0 if log else min(-FAR, high if high is not None else 0.0)
    if high is None:
        high = max(FAR, low)
    high = max(low, high)
    value = _round(default, whole, round)
    value = min(max(0.0 if value is None else value, low), high)
    return Parameter(
        name,
        value,
        low,
        high,
        unit_ or unit(label),
        "number",
        _BRACKETS.sub("", label).strip() or label,
        log=log,
        step=1.0 if whole else 0.0,
        choices=choices,
    )


def _round(value: float | None, whole: bool, way: object) -> float | None:
    """Single precision says 0.1 as 0.10000000149: that is not meant."""
    if value is None or not math.isfinite(value):
        return None
    if whole:
        assert callable(way)
        return float(way(value - 1e-4 if way is math.ceil else value + 1e-4))
    return float(f"{value:.6g}")
