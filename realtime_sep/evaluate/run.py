"""Run separators over songs, through the streaming engine at their real delay, and score them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from realtime_sep.dsp.resample import native_rate
from realtime_sep.dsp.stft import Analysis, Synthesis
from realtime_sep.errors import AudioFileError, UsageError
from realtime_sep.evaluate.metrics import (
    ACCOMPANIMENT,
    STEMS,
    VOCALS,
    Score,
    Scorer,
    Scores,
    metrics_of,
)
from realtime_sep.evaluate.songs import Song, find_songs, printable, read_song, song_name
from realtime_sep.latency import overlap_add_lag, stream_latency
from realtime_sep.offline import separate
from realtime_sep.plugins import load_separator, with_options
from realtime_sep.separators import Separator
from realtime_sep.types import PROFILES, Float32, Geometry, StreamConfig

#: Estimated stems of a song by name, aligned with it.
Estimates = dict[str, Float32]

MIXTURE = "mixture"
IDEAL_MASK = "ideal-mask"
CENTER = "center"

#: What a model hears before the song when it is scored warm: the song itself, in a loop.
WARM_UP_SECONDS = 10.0


@dataclass(frozen=True)
class SongResult:
    """Scores of one song by stem and metric: from a cold start, and warmed up."""

    name: str
    seconds: float
    cold: dict[str, Scores]
    warm: dict[str, Scores]


@dataclass
class ModelResult:
    """Scores of one model over all songs.

    Attributes:
        model: as it was asked for.
        samplerate: of the audio it was fed with, in Hz.
        latency_ms: of a live stream with it, at the default block size and without the device's own
            buffers; None for a reference that cannot run live.
        load: CPU time per time of audio, on the machine that evaluated; None likewise.
        provider: who computed.
        songs: in the order of evaluation.
    """

    model: str
    samplerate: int = 0
    latency_ms: float | None = None
    load: float | None = None
    provider: str | None = None
    songs: list[SongResult] = field(default_factory=list)

    def scores(self, stem: str, metric: str, warm: bool = False) -> list[float]:
        """The scores that there are, in the order of songs."""
        every = [(song.warm if warm else song.cold).get(stem, {}) for song in self.songs]
        return [score for of in every if (score := of.get(metric)) is not None]

    @property
    def parts(self) -> list[str]:
        """Stems besides vocals and accompaniment that have scores."""
        return list(dict.fromkeys(s for song in self.songs for s in song.cold if s not in STEMS))

    def summary(
        self, summarise: Callable[[list[float]], float], warm: bool = False
    ) -> dict[str, Scores]:
        """One score for all songs, by stem and metric; None where no song has any."""
        return {
            stem: {
                metric: summarise(scores) if (scores := self.scores(stem, metric, warm)) else None
                for metric in metrics_of(stem)
            }
            for stem in (*STEMS, *self.parts)
        }

    def median(self, warm: bool = False) -> dict[str, Scores]:
        return self.summary(median, warm)

    def mean(self, warm: bool = False) -> dict[str, Scores]:
        return self.summary(fmean, warm)

    def worst(self, stem: str) -> SongResult | None:
        """The song with the lowest plain SDR of a stem."""
        scored = [
            (s, song)
            for song in self.songs
            if (s := song.cold.get(stem, {}).get("sdr")) is not None
        ]
        return min(scored, key=lambda pair: pair[0])[1] if scored else None


@dataclass
class Evaluation:
    """What came out, in the order of the table.

    Attributes:
        models: those that were asked for.
        references: what they are to be compared with.
        skipped: song and reason, for those that could not be read.
        notes: song and what was mended in it.
    """

    models: list[ModelResult] = field(default_factory=list)
    references: list[ModelResult] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def rows(self) -> list[ModelResult]:
        """References first, each name once."""
        asked = {result.model for result in self.models}
        return [r for r in self.references if r.model not in asked] + self.models


class Candidate:
    """A model as it was asked for: a name, and perhaps options: `spleeter:profile=fast`."""

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.name, self.options = with_options(spec)
        self._made: dict[tuple[int, int], Separator] = {}
        self.separator(44100, 2)  # a name that does not exist is an error now, not after songs

    def separator(self, samplerate: int, channels: int) -> Separator:
        """The separator for such songs, fresh; made once, as models are slow to load."""
        key = native_rate(samplerate), channels
        if key not in self._made:
            made = load_separator(self.name, samplerate=key[0], channels=channels, **self.options)
            if VOCALS not in made.info.stems:
                raise UsageError(
                    f"model {self.name!r} has no stem 'vocals' to be scored; it has "
                    f"{', '.join(made.info.stems)}"
                )
            self._made[key] = made
        self._made[key].reset()
        return self._made[key]

    def separate(self, audio: Float32, samplerate: int) -> Estimates:
        """Through the engine, hop by hop; every stem but the voice is accompaniment.

        A separator of more than two stems gives each of them besides."""
        stems = separate(audio, samplerate, self.separator(samplerate, audio.shape[1]))
        voice = stems.pop(VOCALS)
        parts = stems if len(stems) > 1 else {}
        return {**parts, VOCALS: voice, ACCOMPANIMENT: np.sum(list(stems.values()), axis=0)}

    def run(self, song: Song) -> tuple[Estimates, Estimates]:
        """The stems of a song, from a cold start and warmed up."""
        hop = self.separator(song.samplerate, song.mixture.shape[1]).info.hop
        lead = -(-round(WARM_UP_SECONDS * song.samplerate) // hop) * hop
        before = np.take(song.mixture, np.arange(-lead, 0), axis=0, mode="wrap")
        cold = self.separate(song.mixture, song.samplerate)
        warm = self.separate(np.concatenate([before, song.mixture]), song.samplerate)
        return cold, {stem: audio[lead:] for stem, audio in warm.items()}

    def warm_up(self, song: Song) -> None:
        """Let everything be compiled and loaded before the clock runs."""
        self.separate(
            np.zeros((song.samplerate // 4, song.mixture.shape[1]), np.float32), song.samplerate
        )

    def describe(self, result: ModelResult, song: Song) -> None:
        """Tell a result about the separator that `song` was separated by."""
        info = self.separator(song.samplerate, song.mixture.shape[1]).info
        config = StreamConfig()
        latency = stream_latency(
            samplerate=info.samplerate,
            hop=info.hop,
            blocks=(config.blocksize,),
            guard=config.guard,
            separator=info.latency,
        )
        result.latency_ms = latency.ms()
        result.provider = info.provider

    def geometry(self) -> tuple[str, Geometry] | None:
        """The profile whose windows it seems to use, by its hop and delay."""
        info = self.separator(44100, 2).info
        for name, geometry in PROFILES.items():
            if (info.hop, info.latency) == (geometry.hop, overlap_add_lag(geometry)):
                return name, geometry
        return None


# --- references ----------------------------------------------------------------------------------


def unprocessed(song: Song) -> Estimates:
    """The mixture for either stem: what doing nothing scores."""
    return {stem: song.mixture for stem in (*STEMS, *song.parts)}


def ideal_mask(song: Song, geometry: Geometry) -> Estimates:
    """Each stem's share of the magnitudes, known from the true stems, as its mask.

    A reference for what magnitude masks with these windows can do; no ceiling, as masks that know
    the phase do better.
    """
    hop, lag = geometry.hop, overlap_add_lag(geometry)
    frames, channels = song.mixture.shape
    padded = -(-(frames + lag) // hop) * hop

    def masked(stems: Sequence[Float32], count: int) -> list[Float32]:
        """The first `count` of stems that make up the mixture."""
        signals = [np.pad(x, ((0, padded - frames), (0, 0))) for x in (song.mixture, *stems)]
        analyses = [Analysis(geometry, channels) for _ in signals]
        syntheses = [Synthesis(geometry, channels) for _ in range(count)]
        found: list[Float32] = [np.zeros((padded, channels), np.float32) for _ in range(count)]
        for start in range(0, padded, hop):
            part = slice(start, start + hop)
            mix, *spectra = (an.process(x[part]) for an, x in zip(analyses, signals, strict=True))
            levels = [np.abs(spectrum) for spectrum in spectra]
            whole = np.maximum(np.sum(levels, axis=0), np.float32(1e-20))
            for out, synthesis, level in zip(found, syntheses, levels, strict=False):
                synthesis.process(mix * (level / whole), out[part])
        return [out[lag : lag + frames] for out in found]

    (voice,) = masked([song.vocals, song.accompaniment], 1)
    parts = list(song.parts)
    found = masked([*song.parts.values(), song.vocals], len(parts)) if parts else []
    return {
        **dict(zip(parts, found, strict=True)),
        VOCALS: voice,
        ACCOMPANIMENT: song.mixture - voice,
    }


# --- the run -------------------------------------------------------------------------------------

#: Called with what is being done, the steps done and the steps in all.
Progress = Callable[[str, int, int], None]
#: Called with each separated song: the model's name, the song, the stems from a cold start and
#: their scores.
Listener = Callable[[str, Song, Estimates, dict[str, Scores]], None]


def evaluate(
    directory: Path,
    models: Sequence[str] = (),
    *,
    rate: int | None = None,
    progress: Progress | None = None,
    listener: Listener | None = None,
) -> Evaluation:
    """Score models on all songs of a directory.

    Args:
        models: names for `load_separator`, perhaps with options: `NAME:key=value,...`.
        rate: resample the songs to this many Hz.
        listener: is given every separated song, to show or keep it.

    Raises:
        UsageError: no songs, or no such model.
        AudioFileError: no song that can be read.
        ModelError: as `load_separator`.
    """
    candidates = [Candidate(spec) for spec in dict.fromkeys(models)]
    center = next((c for c in candidates if c.spec == CENTER), None) or Candidate(CENTER)
    profiles = dict(filter(None, (c.geometry() for c in (center, *candidates))))
    paths = find_songs(directory)

    out = Evaluation()
    references = {
        MIXTURE: ModelResult(MIXTURE),
        **{name: ModelResult(f"{IDEAL_MASK}-{name}") for name in profiles},
        CENTER: ModelResult(CENTER),
    }
    results = {
        c.spec: references[CENTER] if c is center else ModelResult(c.spec) for c in candidates
    }
    out.references = list(references.values())
    out.models = list(results.values())
    runs = {center.spec: center, **{c.spec: c for c in candidates}}
    steps = len(paths) * (1 + len(profiles) + len(runs))
    clock = dict.fromkeys(runs, 0.0)
    seconds = dict.fromkeys(runs, 0.0)
    done = 0

    def step(what: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(what, done, steps)

    def keep(
        result: ModelResult, song: Song, scorer: Scorer, cold: Estimates, warm: Estimates | None
    ) -> None:
        scores = scorer.score(cold)
        result.samplerate = song.samplerate
        result.songs.append(
            SongResult(
                song.name,
                len(song.mixture) / song.samplerate,
                scores,
                scores if warm is None else scorer.score(warm),
            )
        )
        if listener is not None:
            listener(result.model, song, cold, scores)
        step(f"{song.name}: {result.model}")

    names: set[str] = set()
    for path in paths:
        name = _unique(song_name(path, directory), names)
        try:
            song = read_song(path, name, rate)
        except AudioFileError as error:
            out.skipped.append((name, printable(str(error))))
            done += steps // len(paths)
            continue
        out.notes += [(name, note) for note in song.notes]
        scorer = Scorer(song.mixture, song.references, song.samplerate, song.parts)
        keep(references[MIXTURE], song, scorer, unprocessed(song), None)
        for profile, geometry in profiles.items():
            keep(references[profile], song, scorer, ideal_mask(song, geometry), None)
        for spec, candidate in runs.items():
            result = results.get(spec, references[CENTER])
            candidate.describe(result, song)
            candidate.warm_up(song)
            started = time.process_time()
            cold, warm = candidate.run(song)
            clock[spec] += time.process_time() - started
            seconds[spec] += 2 * len(song.mixture) / song.samplerate + WARM_UP_SECONDS
            keep(result, song, scorer, cold, warm)
    for spec in runs:
        if seconds[spec]:
            results.get(spec, references[CENTER]).load = clock[spec] / seconds[spec]
    if not references[MIXTURE].songs:
        raise AudioFileError(f"{directory}: no song can be read; {_reasons(out.skipped)}")
    return out


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number if another song has it already."""
    numbers = (f"{name} ({n})" for n in count(2))
    free = next(other for other in chain([name], numbers) if other not in taken)
    taken.add(free)
    return free


def _reasons(skipped: Iterable[tuple[str, str]]) -> str:
    reasons = [reason for _, reason in skipped]
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return f"{reasons[0]}{more}"


# --- JSON ----------------------------------------------------------------------------------------


def to_json(evaluation: Evaluation) -> Any:
    """One object for one model, a list for more (or for none: the references)."""
    references = [_summary_json(result) for result in evaluation.references]
    if not evaluation.models:
        return references
    skipped = [{"name": name, "reason": reason} for name, reason in evaluation.skipped]
    objects = [
        _model_json(result) | {"references": references, "skipped": skipped}
        for result in evaluation.models
    ]
    return objects[0] if len(objects) == 1 else objects


def _summary_json(result: ModelResult) -> dict[str, Any]:
    return {
        "model": result.model,
        "latency_ms": _rounded(result.latency_ms),
        "samplerate": result.samplerate,
        "median": _plain(result.median()),
        "mean": _plain(result.mean()),
    }


def _model_json(result: ModelResult) -> dict[str, Any]:
    stems = (*STEMS, *result.parts)
    worst = {stem: result.worst(stem) for stem in stems}
    return {
        "model": result.model,
        "latency_ms": _rounded(result.latency_ms),
        "samplerate": result.samplerate,
        "load": _rounded(result.load, 4),
        "provider": result.provider,
        "songs": [
            {"name": song.name, "seconds": _rounded(song.seconds)}
            | _plain(song.cold)
            | {"warm": _plain(song.warm)}
            for song in result.songs
        ],
        "median": _plain(result.median()),
        "mean": _plain(result.mean()),
        "warm": {
            "median": _plain(result.median(warm=True)),
            "mean": _plain(result.mean(warm=True)),
        },
        "worst": {stem: song.name if song else None for stem, song in worst.items()},
        "scored": {
            stem: {metric: len(result.scores(stem, metric)) for metric in metrics_of(stem)}
            for stem in stems
        },
    }


def _plain(scores: dict[str, Scores]) -> dict[str, Scores]:
    return {
        stem: {metric: _rounded(value) for metric, value in of_stem.items()}
        for stem, of_stem in scores.items()
    }


def _rounded(value: Score, digits: int = 3) -> Score:
    return None if value is None else round(value, digits)
