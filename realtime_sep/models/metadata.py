"""What a model file says of itself, in the `metadata_props` of the ONNX format.

Every property is a string under the prefix `realtime_sep.`; numbers are decimal, lists are comma
separated, `scores` and `states` are JSON.  Four kinds of model exist:

- `spectral`: one streaming step; a spectrum and states go in, spectra and states come out.
- `waveform`: one streaming step; samples and states go in, samples and states come out.
- `window`: a network on a fixed window of magnitudes that gives masks at its right edge
  (see `realtime_sep.separators.sliding`).
- `segment`: a network on some seconds of samples, their spectrogram, or both, that gives the stems
  of the same seconds (see `realtime_sep.separators.segments`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any

from realtime_sep.errors import ModelError, UsageError
from realtime_sep.types import Geometry

PREFIX = "realtime_sep."
FORMAT = "1"
KINDS = ("spectral", "waveform", "window", "segment")
#: Transforms of a segment: how its frames lie (see `realtime_sep.dsp.frames`).
TRANSFORMS = ("", "centred", "staggered")


@dataclass(frozen=True)
class StateSpec:
    """A state tensor: `state_<name>` goes in, `next_state_<name>` comes out, zeros at the start.

    Attributes:
        shape: of one stream; in the graph a batch axis precedes it.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """Everything a model needs to be run, and to be told about.

    Attributes:
        name: as in `load_separator(name)`.
        family: kind of method, for people ("unet", "gru", "spleeter").
        kind: how it is run, one of `KINDS`.
        sample_rates: Hz it was made for.  It runs natively at every rate from the lowest to the
            highest; a window model's transform is scaled to the rate instead.
        n_fft: analysis length in samples (of a window or spectral model: at the first of
            `sample_rates`); 0 where there is no transform (waveform, and segments of samples
            alone).
        hop: samples between frames (of a window model: likewise); of a waveform model, of one step.
        channels: that the network takes.
        stems: named outputs of the network.
        residual: name of the stem that is the mix without the others.
        licence: of the weights, as an SPDX expression.
        training_data: what it learned from.
        scores: measured quality, as `realtime-sep evaluate` prints it.
        synthesis: synthesis length S (spectral).
        lookahead: hops by which the network's output lags its input (spectral).
        delay: samples by which it does so (waveform).
        states: of the network (spectral, waveform, window).
        bins: frequency bins from 0 that it sees; above, its masks are zero (window, segment).
        frames: a context must be a multiple of this (window).
        level: RMS in dBFS that a window is brought to; 0: it is left as it is (window).
        segment: its length in samples (segment).
        transform: one of `TRANSFORMS` (segment).
    """

    name: str
    family: str
    kind: str
    sample_rates: tuple[int, ...]
    n_fft: int
    hop: int
    channels: int
    stems: tuple[str, ...]
    residual: str
    licence: str
    training_data: str
    scores: Mapping[str, Any] = field(default_factory=dict)
    synthesis: int = 0
    lookahead: int = 0
    states: tuple[StateSpec, ...] = ()
    bins: int = 0
    frames: int = 1
    delay: int = 0
    level: int = -14
    segment: int = 0
    transform: str = ""

    @property
    def geometry(self) -> Geometry:
        """Of a spectral model's transform, as its graph sees it."""
        return Geometry(self.n_fft, self.synthesis, self.hop)

    def geometry_at(self, samplerate: int) -> Geometry:
        """The same at another rate: a bin stays as many hertz wide as the network learned.

        Hop and synthesis stay as many samples long, so the delay in samples is that of every rate.
        """
        n_fft = self.n_fft_at(samplerate)
        return self.geometry if n_fft < self.synthesis else replace(self.geometry, n_fft=n_fft)

    def n_fft_at(self, samplerate: int) -> int:
        """Analysis length at which a bin is as many hertz wide as at the first of the rates.

        At others it is rounded to a multiple of 64, which is quick to transform and, from 1024
        samples on, within 3 % of the true one.
        """
        base = self.sample_rates[0]
        return self.n_fft if samplerate == base else 64 * round(self.n_fft * samplerate / base / 64)

    @property
    def all_stems(self) -> tuple[str, ...]:
        """The network's stems and the residual, in the order of a separator's stems axis."""
        return (*self.stems, self.residual)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ModelError: one line that names the model and the contradiction.
        """
        wrong = self._contradiction()
        if wrong:
            raise ModelError(f"model {self.name!r}: its metadata is contradictory: {wrong}")

    def _contradiction(self) -> str:
        if self.kind not in KINDS:
            return f"kind is {self.kind!r}, known are {', '.join(KINDS)}"
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            return f"name {self.name!r} is not made of letters, digits, '-' and '_'"
        if not self.sample_rates or not all(8000 <= r <= 384000 for r in self.sample_rates):
            return f"sample_rates {list(self.sample_rates)} are no audio rates"
        if self.channels not in (1, 2):
            return f"channels is {self.channels}, not 1 or 2"
        if not self.stems or "" in self.stems or not self.residual:
            return "stems and residual need names"
        if len({*self.stems, self.residual}) != len(self.stems) + 1:
            return f"stems {list(self.all_stems)} are not distinct"
        if any(min(s.shape, default=1) < 1 for s in self.states):
            return "a state has an empty shape"
        if self.kind == "waveform" or (self.kind == "segment" and not self.transform):
            if not 1 <= self.hop <= 65536 or not 0 <= self.delay <= 10**6:
                return f"hop {self.hop} or delay {self.delay} makes no sense"
        elif not 16 <= self.n_fft <= 65536 or self.n_fft % 2:
            return f"n_fft {self.n_fft} is not even and between 16 and 65536"
        elif not 1 <= self.hop <= self.n_fft:
            return f"hop {self.hop} is not between 1 and n_fft {self.n_fft}"
        if self.kind == "spectral":
            if not self.hop <= self.synthesis <= self.n_fft or self.synthesis % 2:
                return f"synthesis {self.synthesis} is not even and between hop and n_fft"
            if not 0 <= self.lookahead <= 1000:
                return f"lookahead {self.lookahead} is not between 0 and 1000 hops"
        elif self.kind == "window" or self.transform:
            if not 1 <= self.bins <= self.n_fft // 2 + 1 or self.frames < 1:
                return f"bins {self.bins} or frames {self.frames} do not fit n_fft {self.n_fft}"
            if not -60 <= self.level <= 0:
                return f"level {self.level} is not between -60 and 0 dBFS"
        if self.kind == "segment":
            if self.transform not in TRANSFORMS:
                return f"transform is {self.transform!r}, known are {', '.join(TRANSFORMS[1:])}"
            if not max(4 * self.hop, 2 * self.n_fft) <= self.segment <= 10**8:
                return f"segment {self.segment} is too short for its hop and n_fft, or too long"
        return ""

    def check_channels(self, channels: int) -> None:
        """Refuse a number of channels that the network cannot be fed with.

        Raises:
            UsageError: neither one nor as many as it takes.
        """
        if channels not in (1, self.channels):
            raise UsageError(
                f"model {self.name!r} separates 1 or {self.channels} channels, not {channels}"
            )

    def check_stream(self, samplerate: int, channels: int) -> None:
        """Likewise, and a rate that is none of its own.

        Raises:
            UsageError: says which it takes.
        """
        low, high = min(self.sample_rates), max(self.sample_rates)
        if not low <= samplerate <= high:
            span = f"{low} Hz" if low == high else f"{low} to {high} Hz"
            raise UsageError(f"model {self.name!r} runs at {span}, not at {samplerate} Hz")
        self.check_channels(channels)

    def to_props(self) -> dict[str, str]:
        """The properties to be written into a model file; the inverse of `from_props`."""
        props = {"format": FORMAT}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "states":
                value = json.dumps([asdict(s) for s in value])
            elif f.name == "scores":
                value = json.dumps(dict(value), sort_keys=True)
            elif isinstance(value, tuple):
                value = ",".join(map(str, value))
            props[f.name] = str(value)
        return {PREFIX + key: value for key, value in props.items()}

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON data, for manifests."""
        return {**asdict(self), "states": [asdict(s) for s in self.states]}

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> ModelMetadata:
        """Read the properties of a model file.

        Raises:
            ModelError: not one of our models, another format version, a property that is missing
                or makes no sense.
        """
        own = {k[len(PREFIX) :]: v for k, v in props.items() if k.startswith(PREFIX)}
        if "format" not in own:
            raise ModelError(
                "the ONNX file carries no realtime_sep metadata; import it with "
                "'realtime-sep models import' or export it with training/export"
            )
        if own["format"] != FORMAT:
            raise ModelError(
                f"the model's metadata has format {own['format']!r}, this program reads "
                f"{FORMAT!r}; install a matching version"
            )
        own.setdefault("kind", "spectral")
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for key, text in own.items():
            if key in known:
                try:
                    values[key] = _READERS[known[key].type](text)
                except (ValueError, TypeError, KeyError, RecursionError) as error:
                    raise ModelError(
                        f"the model's metadata {key!r} is {text[:40]!r}, which makes no sense"
                    ) from error
        required = {
            key for key, f in known.items() if f.default is MISSING and f.default_factory is MISSING
        }
        if missing := sorted(required - values.keys()):
            raise ModelError(f"the model's metadata lacks {', '.join(missing)}")
        return cls(**values)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelMetadata:
        """The inverse of `to_json`.

        Raises:
            ModelError: as `from_props`.
        """
        try:
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in data.items()
            }
            values["states"] = tuple(
                StateSpec(s["name"], tuple(s["shape"])) for s in data["states"]
            )
            return cls(**values)
        except (TypeError, KeyError) as error:
            raise ModelError(f"the manifest's metadata cannot be read: {error}") from error


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _states(text: str) -> tuple[StateSpec, ...]:
    return tuple(
        StateSpec(str(state["name"]), tuple(int(n) for n in state["shape"]))
        for state in json.loads(text)
    )


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


#: How each annotated type is read from a property (annotations are strings in this module).
_READERS: dict[Any, Any] = {
    "str": str,
    "int": int,
    "tuple[int, ...]": _integers,
    "tuple[str, ...]": _names,
    "tuple[StateSpec, ...]": _states,
    "Mapping[str, Any]": _object,
}
