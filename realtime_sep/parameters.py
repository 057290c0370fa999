"""What a person may turn while a stream runs, described once for every hand that turns it.

The command line, presets, the web panel and whatever else steers a stream read the same
descriptions and write the same names, so a value is checked in one place and means one thing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from realtime_sep.errors import UsageError, unknown

Kind = Literal["level", "switch", "number"]

#: Where faders end.
LOUDEST_DB = 6.0
VOCALS, MUSIC = "vocals", "music"
MICROPHONE, MONITOR = "mic", "monitor"


@dataclass(frozen=True)
class Parameter:
    """A named number that a person may turn.

    Attributes:
        minimum, maximum: both included; levels may be minus infinity as well, which is silence.
        unit: "dB", "Hz", "ms", ... or "".
        kind: "level" is a fader in dB, "switch" is 0 or 1, "number" anything else.
        label: for people; by default the name.
        log: whether equal ratios, not differences, feel equal.
        step: between values that count, 0: all do; others go to the nearest.
        choices: what single values mean, for people.
    """

    name: str
    default: float
    minimum: float
    maximum: float
    unit: str = ""
    kind: Kind = "number"
    label: str = ""
    log: bool = False
    step: float = 0.0
    choices: tuple[tuple[str, float], ...] = ()

    def checked(self, value: float) -> float:
        """`value` as a float.

        Raises:
            UsageError: no number, or out of range.
        """
        if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
            raise UsageError(f"{self.name} is a number, not {value!r}")
        number = float(value)
        if self.kind == "switch" and number not in (0, 1):
            raise UsageError(f"{self.name} is on or off (1 or 0), not {value}")
        silence = self.kind == "level" and number == -math.inf
        if not (silence or self.minimum <= number <= self.maximum):
            low = "off" if self.kind == "level" else f"{self.minimum:g}"
            raise UsageError(
                f"{self.name} goes from {low} to {self.maximum:+g} {self.unit}".rstrip()
                + f", not to {number:g}"
            )
        return self.step * round(number / self.step) if self.step else number


#: What makers of effects call alike.
_ALIKE = (
    ("decay", "decay_time", "reverb_time"),
    ("mix", "dry_wet", "wet_dry"),
    ("cutoff", "frequency"),
)


def meant(kind: str, asked: str, known: Iterable[str]) -> str:
    """Which of the names is asked for: that one, or the only one of whose words one begins so, or
    that somebody else would call so.

    Raises:
        UsageError: none, or several; `kind` says what they are, for the message.
    """
    names = list(known)
    if asked in names:
        return asked
    others = {word for group in _ALIKE if asked in group for word in group}
    for words in ({asked}, others):
        found = [n for n in names if any(f"_{word}".lower() in f"_{n}".lower() for word in words)]
        if len(found) > 1:
            raise UsageError(f"{kind} {asked!r} may be any of {', '.join(found)}")
        if found:
            return found[0]
    raise unknown(kind, asked, names)


def _fader(name: str, label: str) -> tuple[Parameter, ...]:
    return (
        Parameter(name, 0.0, -120.0, LOUDEST_DB, "dB", "level", label),
        Parameter(f"{name}.solo", 0, 0, 1, "", "switch", f"{label}: solo"),
        Parameter(f"{name}.mute", 0, 0, 1, "", "switch", f"{label}: mute"),
    )


def _level(name: str, label: str, default: float = 0.0) -> Parameter:
    return Parameter(name, default, -120.0, LOUDEST_DB, "dB", "level", label)


#: Of a microphone: its fader, mute, and the gain before its effects.
_MICROPHONE = (
    _level(MICROPHONE, "Microphone"),
    Parameter(f"{MICROPHONE}.mute", 0, 0, 1, "", "switch", "Microphone: mute"),
    Parameter(f"{MICROPHONE}.gain", 0.0, -20.0, 40.0, "dB", "number", "Microphone: gain"),
)
#: Of the monitor: what the ear hears, whatever the hall does.
_MONITOR = (
    _level(MONITOR, "Monitor"),
    _level(f"{MONITOR}.{VOCALS}", "Monitor: vocals"),
    _level(f"{MONITOR}.{MUSIC}", "Monitor: music"),
    _level(f"{MONITOR}.{MICROPHONE}", "Monitor: microphone"),
    _level(f"{MONITOR}.dry", "Monitor: original", -math.inf),
)


def parameters(
    stems: Iterable[str],
    effects: Iterable[Parameter] = (),
    *,
    microphone: bool = False,
    monitor: bool = False,
) -> dict[str, Parameter]:
    """All parameters of a stream with these stems and effects, by name.

    `music` is the group of all stems that are not vocals; a stem's own fader works within it.

    Args:
        microphone, monitor: whether there is one.
    """
    stems = tuple(stems)
    every = [*_fader(VOCALS, "Vocals"), *_fader(MUSIC, "Music")]
    for stem in stems:
        if stem not in (VOCALS, MUSIC):
            every += _fader(stem, stem.capitalize())
    every += [
        Parameter("wet", 1.0, 0.0, 1.0, "", "number", "Separation"),
        Parameter("bypass", 0, 0, 1, "", "switch", "Bypass"),
        Parameter("master", 0.0, -120.0, LOUDEST_DB, "dB", "level", "Master"),
        *(_MICROPHONE if microphone else ()),
        *(_MONITOR if monitor else ()),
        *effects,
    ]
    return {parameter.name: parameter for parameter in every}


@dataclass(frozen=True)
class Gains:
    """What the engine is told: linear gains.

    Attributes:
        stems: one per stem, solo and mute included.
        wet: part of the separated mix in what is heard, 0..1; the rest is the original.
        bypass: nothing but the original.
        master: of everything.
        microphone: of the microphone in the mix, master and mute included.
        microphone_gain: of the microphone before its effects.
        monitor: of each stem, the original and the microphone in the monitor's bus; empty: as they
            are.
        heard: what becomes of each stem in the end, one per stem.
    """

    stems: tuple[float, ...]
    wet: float
    bypass: bool
    master: float
    microphone: float = 0.0
    microphone_gain: float = 1.0
    monitor: tuple[float, ...] = ()

    @property
    def heard(self) -> tuple[float, ...]:
        if self.bypass:
            return tuple(self.master for _ in self.stems)
        return tuple(self.master * (self.wet * g + 1 - self.wet) for g in self.stems)


class Settings:
    """Where everything stands.

    Args:
        stems: of the stream.
        effects: parameters of its effects, by full names such as "reverb.mix".
        microphone, monitor: whether there is one.

    Attributes:
        parameters: descriptions by name.
        values: by name.
        beside: whether there is a microphone, and a monitor.
    """

    def __init__(
        self,
        stems: Iterable[str],
        effects: Iterable[Parameter] = (),
        *,
        microphone: bool = False,
        monitor: bool = False,
    ) -> None:
        self.stems = tuple(stems)
        self.effects = tuple(effects)
        self.beside = {MICROPHONE: microphone, MONITOR: monitor}
        self.parameters = parameters(
            self.stems, self.effects, microphone=microphone, monitor=monitor
        )
        self.values = {name: p.default for name, p in self.parameters.items()}

    def copy(self) -> Settings:
        """Another one that stands where this one does."""
        beside = self.beside
        other = Settings(
            self.stems, self.effects, microphone=beside[MICROPHONE], monitor=beside[MONITOR]
        )
        other.values.update(self.values)
        return other

    def set(self, name: str, value: float) -> None:
        """Turn a parameter.

        Raises:
            UsageError: there is none of this name (the nearest is suggested), or it does not go so
                far; nothing has changed then.
        """
        if name not in self.parameters:
            raise unknown("parameter", name, self.parameters)
        self.values[name] = self.parameters[name].checked(value)

    def gains(self) -> Gains:
        """What all this means for the engine."""
        values = self.values
        soloed = any(values[f"{name}.solo"] for name in (VOCALS, MUSIC, *self.stems))
        stems = []
        for stem in self.stems:
            hands = {stem} if stem == VOCALS else {stem, MUSIC}
            open_ = not any(values[f"{hand}.mute"] for hand in hands)
            chosen = not soloed or any(values[f"{hand}.solo"] for hand in hands)
            level = sum(values[hand] for hand in hands)
            stems.append(_linear(level) if open_ and chosen else 0.0)
        master = _linear(values["master"])
        gains = Gains(tuple(stems), values["wet"], bool(values["bypass"]), master)
        if self.beside[MICROPHONE]:
            open_ = not values["mic.mute"]
            gains = replace(
                gains,
                microphone=master * _linear(values["mic"]) if open_ else 0.0,
                microphone_gain=_linear(values["mic.gain"]),
            )
        if self.beside[MONITOR]:
            names = [VOCALS if stem == VOCALS else MUSIC for stem in self.stems]
            levels = [values[f"monitor.{name}"] for name in (*names, "dry", MICROPHONE)]
            ears = tuple(_linear(values["monitor"] + level) for level in levels)
            gains = replace(gains, monitor=ears)
        return gains


def _linear(db: float) -> float:
    return 10 ** (db / 20) if db > -math.inf else 0.0
