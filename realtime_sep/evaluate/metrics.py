"""How good a separation is, in decibels, against the true stems.

Audio is float `(frames, channels)`, any equal scale.  Every score is a float or None: None where it
has no meaning (a reference that is silent all through), never a not-a-number.  Scores lie within
±`LIMIT` dB; a perfect stem has `LIMIT`.

BSSEval v4: Stöter, Liutkus, Ito, "The 2018 Signal Separation Evaluation Campaign", LVA/ICA 2018;
the decomposition: Vincent, Gribonval, Févotte, "Performance measurement in blind audio source
separation", IEEE TASLP 2006.  SI-SDR: Le Roux, Wisdom, Erdogan, Hershey, "SDR – half-baked or well
done?", ICASSP 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from realtime_sep.dsp.windows import hann

Audio = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]
Complex128 = npt.NDArray[np.complex128]
Score = float | None
Scores = dict[str, Score]

VOCALS = "vocals"
ACCOMPANIMENT = "accompaniment"
STEMS = (VOCALS, ACCOMPANIMENT)

#: Scores of each stem, in the order of every table.
METRICS: dict[str, tuple[str, ...]] = {
    VOCALS: ("sdr", "si_sdr", "bss_sdr", "bss_sir", "bss_sar", "leakage"),
    ACCOMPANIMENT: (
        "sdr",
        "si_sdr",
        "bss_sdr",
        "bss_sir",
        "bss_sar",
        "voice_attenuation",
        "music_loss",
    ),
}
#: Scores of every other stem, where a song and a model have it.
PART_METRICS = ("sdr", "si_sdr", "bss_sdr", "bss_sir", "bss_sar")


def metrics_of(stem: str) -> tuple[str, ...]:
    """The scores of a stem."""
    return METRICS.get(stem, PART_METRICS)


#: Largest score: past it, rounding is measured and not separation.
LIMIT = 100.0

#: Mean power (-90 dBFS) below which a recording is silent as a whole.
_SILENT = 1e-9
#: The voice is silent where it is this far below its own mean power: 40 dB.
_PAUSE = 1e-4
#: The voice sounds where it is at most this far below its own mean power: 20 dB.
_SOUNDING = 1e-2
#: Seconds over which the level of the voice is taken, and least pause in all to measure leakage in.
_PAUSE_WINDOW = 0.1
_LEAST_PAUSE = 0.5


class Scorer:
    """Scores separations of one song; what only depends on the song is computed once.

    Args:
        mixture: of the song.
        references: its true stems by name.
        samplerate: Hz.
        parts: true stems that the accompaniment consists of, by name, where they are known.
    """

    def __init__(
        self,
        mixture: Audio,
        references: Mapping[str, Audio],
        samplerate: int,
        parts: Mapping[str, Audio] | None = None,
    ) -> None:
        self._mixture = mixture
        self._references = references
        self._samplerate = samplerate
        self._bss = BssEval([references[stem] for stem in STEMS])
        self._parts = dict(parts or {})
        self._bss_parts = BssEval([references[VOCALS], *self._parts.values()])

    def score(self, estimates: Mapping[str, Audio]) -> dict[str, Scores]:
        """All scores of one separation, by stem and metric (see `metrics_of`)."""
        references, rate = self._references, self._samplerate
        voice, music = references[VOCALS], references[ACCOMPANIMENT]
        bss = self._bss.medians([estimates[stem] for stem in STEMS], rate)
        scores: dict[str, Scores] = {
            stem: {
                "sdr": sdr(references[stem], estimates[stem]),
                "si_sdr": si_sdr(references[stem], estimates[stem]),
                "bss_sdr": medians.sdr,
                "bss_sir": medians.sir,
                "bss_sar": medians.sar,
            }
            for stem, medians in zip(STEMS, bss, strict=True)
        }
        scores[VOCALS]["leakage"] = leakage(voice, self._mixture, estimates[VOCALS], rate)
        left, kept = shares(voice, music, estimates[ACCOMPANIMENT], rate)
        scores[ACCOMPANIMENT]["voice_attenuation"] = None if left is None else -left
        scores[ACCOMPANIMENT]["music_loss"] = None if kept is None else -kept
        return scores | self._part_scores(estimates)

    def _part_scores(self, estimates: Mapping[str, Audio]) -> dict[str, Scores]:
        """Those of the parts that song and separation have; BSSEval's where it has all of them."""
        known = [part for part in self._parts if part in estimates]
        scores: dict[str, Scores] = {
            part: dict.fromkeys(PART_METRICS)
            | {
                "sdr": sdr(self._parts[part], estimates[part]),
                "si_sdr": si_sdr(self._parts[part], estimates[part]),
            }
            for part in known
        }
        if known and len(known) == len(self._parts):
            found = [estimates[VOCALS], *(estimates[part] for part in known)]
            bss = self._bss_parts.medians(found, self._samplerate)[1:]
            for part, medians in zip(known, bss, strict=True):
                scores[part] |= {
                    "bss_sdr": medians.sdr,
                    "bss_sir": medians.sir,
                    "bss_sar": medians.sar,
                }
        return scores


def decibels(numerator: float, denominator: float) -> Score:
    """`10 log10` of a ratio of powers within ±LIMIT; None for 0 / 0 and what is no number."""
    if not (np.isfinite(numerator) and np.isfinite(denominator)) or numerator <= 0 >= denominator:
        return None
    if numerator <= 0:
        return -LIMIT
    if denominator <= 0:
        return LIMIT
    ratio = 10 * (np.log10(numerator) - np.log10(denominator))
    return float(np.clip(ratio, -LIMIT, LIMIT))


def power(audio: Audio) -> float:
    """Mean square over frames and channels."""
    return float(np.mean(np.square(audio, dtype=np.float64))) if audio.size else 0.0


def sdr(reference: Audio, estimate: Audio) -> Score:
    """Signal-to-distortion ratio over the whole recording: every difference counts."""
    reference = np.asarray(reference, np.float64)
    if power(reference) < _SILENT:
        return None
    return decibels(power(reference), power(reference - estimate))


def si_sdr(reference: Audio, estimate: Audio) -> Score:
    """The same, with the estimate free to be louder or softer by one factor."""
    reference = np.asarray(reference, np.float64)
    estimate = np.asarray(estimate, np.float64)
    if power(reference) < _SILENT or not estimate.any():
        return None
    target = reference * (np.sum(estimate * reference) / np.sum(reference**2))
    return decibels(power(target), power(estimate - target))


# --- what two numbers cannot tell apart ----------------------------------------------------------


def leakage(voice: Audio, mixture: Audio, estimate: Audio, samplerate: int) -> Score:
    """Level of the estimated voice where the true one pauses, relative to the mixture there.

    0 dB: all music leaks while nobody sings; -30 dB: a thousandth of its power does.  None if the
    voice never pauses for half a second in all, nothing sounds meanwhile, or the estimate is silent
    all through: that is no separation to be judged.
    """
    window = max(1, round(_PAUSE_WINDOW * samplerate))
    levels = _powers(voice, window)
    pauses = levels < _PAUSE * power(voice) if power(voice) >= _SILENT else levels >= 0
    music = float(np.sum(_powers(mixture, window)[pauses]))
    if np.count_nonzero(pauses) * window < _LEAST_PAUSE * samplerate or music <= _SILENT:
        return None
    if not estimate.any():
        return None
    return decibels(float(np.sum(_powers(estimate, window)[pauses])), music)


def _powers(audio: Audio, window: int) -> Float64:
    """Mean power of each whole window, `(windows,)`."""
    count = len(audio) // window
    squares = np.square(audio[: count * window], dtype=np.float64)
    return squares.reshape(count, -1).mean(axis=1) if count else np.zeros(0)


#: Analysis of `shares`: frames of 46 ms, patches of 16 frames by at least 8 bins, a third of an
#: octave where that is more.
_FRAME_SECONDS = 0.0464
_PATCH_FRAMES = 16
_PATCH_BINS = 8
_OCTAVE_PARTS = 3


def shares(voice: Audio, music: Audio, estimate: Audio, samplerate: int) -> tuple[Score, Score]:
    """How much of the voice and how much of the music an estimate holds, where the voice sounds.

    In each patch of time and frequency (0.4 s by a third of an octave) the estimate is explained,
    by least squares, as so much of the voice and so much of the music; the energies of the parts
    are added up over the patches in which the voice is heard, and compared with the stems' own
    there.  What fits neither (artefacts) counts for neither.

    Returns:
        Level changes in dB of the voice and of the music: 0 for all of it, negative for less; None
        for a voice or music that is silent.
    """
    size = 2 * round(_FRAME_SECONDS * samplerate / 2)
    edges = _band_edges(size // 2 + 1)
    signals = np.array([voice, music, estimate], np.float64)
    products = np.array([_products(patch, size, edges) for patch in _patches(signals, size)])
    vv, mm = products[:, 0, 0].real, products[:, 1, 1].real
    vm, ev, em = products[:, 0, 1], products[:, 2, 0], products[:, 2, 1]
    # A trace of regularisation where the two are one (or one is missing).
    trace = 1e-10 * (vv + mm) + 1e-100
    determinant = (vv + trace) * (mm + trace) - np.abs(vm) ** 2
    part_v = (ev * (mm + trace) - em * np.conj(vm)) / determinant
    part_m = (em * (vv + trace) - ev * vm) / determinant
    # Patches in which the voice is heard: by the level of all bands together.
    level = vv.sum(axis=1)
    sounding = level > _SOUNDING * level.mean() if power(voice) >= _SILENT else level >= 0
    return (
        _change(np.abs(part_v) ** 2 * vv, vv, sounding) if power(voice) >= _SILENT else None,
        _change(np.abs(part_m) ** 2 * mm, mm, sounding) if power(music) >= _SILENT else None,
    )


def _change(now: Float64, before: Float64, where: npt.NDArray[np.bool_]) -> Score:
    return decibels(float(now[where].sum()), float(before[where].sum()))


def _patches(signals: Float64, size: int) -> Iterator[Float64]:
    """Stretches of `(signals, frames, channels)` that hold the frames of one patch each."""
    hop = size // 2
    step, length = _PATCH_FRAMES * hop, (_PATCH_FRAMES - 1) * hop + size
    for start in range(0, max(1, signals.shape[1] - size + 1), step):
        patch = signals[:, start : start + length]
        yield np.pad(patch, ((0, 0), (0, length - patch.shape[1]), (0, 0)))


def _products(patch: Float64, size: int, edges: npt.NDArray[np.intp]) -> Complex128:
    """Inner products of each signal with each other, by band: `(signals, signals, bands)`."""
    frames = np.lib.stride_tricks.sliding_window_view(patch, size, axis=1)[:, :: size // 2]
    spectra = np.fft.rfft(frames * hann(size))  # (signals, frames, channels, bins)
    rows = spectra.reshape(len(patch), -1, spectra.shape[-1])
    by_bin = np.einsum("ifk,jfk->ijk", rows, np.conj(rows))
    bands: Complex128 = np.add.reduceat(by_bin, edges, axis=2)
    return bands


def _band_edges(bins: int) -> npt.NDArray[np.intp]:
    """First bins of the bands."""
    edges = [1]  # the constant part is no sound
    while edges[-1] < bins:
        wide = round(edges[-1] * (2 ** (1 / _OCTAVE_PARTS) - 1))
        edges.append(edges[-1] + max(_PATCH_BINS, wide))
    if bins - edges[-2] < _PATCH_BINS and len(edges) > 2:
        edges.pop()  # the last band takes what is left
    return np.array(edges[:-1])


# --- BSSEval v4 ----------------------------------------------------------------------------------


class Bss(NamedTuple):
    """BSSEval's ratios of one stem, in dB: distortion, image (spatial), interference, artefacts."""

    sdr: Score
    isr: Score
    sir: Score
    sar: Score


#: Length in samples of the filters by which an estimate may differ from the references.
_FILTER = 512
#: Steps of iterative refinement: after two, the figures are those of a direct solution.
_REFINEMENTS = 2


class BssEval:
    """BSSEval v4: one set of 512-tap filters for the whole recording, ratios per window.

    Args:
        references: the true stems, all of one shape.
    """

    def __init__(self, references: Sequence[Audio]) -> None:
        # (stems, channels, frames); and what each stem spans, (n, frames): two equal channels span
        # what one does, and would make the equations singular.
        self._true = _by_channel(references)
        self._spans = [
            s[:1] if np.array_equal(s, s[:1].repeat(len(s), 0)) else s for s in self._true
        ]
        self._projections: list[_Projection] | None = None

    def medians(self, estimates: Sequence[Audio], samplerate: int) -> list[Bss]:
        """Medians over windows of one second, as museval gives them, for each stem."""
        frames = self.frames(estimates, samplerate, samplerate)
        return [Bss(*(_median(stem[m]) for m in range(4))) for stem in np.moveaxis(frames, 0, 1)]

    def frames(self, estimates: Sequence[Audio], window: int, hop: int) -> Float64:
        """The ratios of each window.

        Returns:
            `(4, stems, windows)`: SDR, ISR, SIR, SAR in dB; a not-a-number where any stem, true or
            estimated, is digitally silent, as in museval; +inf where nothing is wrong.
        """
        true, found = self._true, _by_channel(estimates)
        stems, _, length = true.shape
        starts = range(0, length - window + 1, hop) if window < length else range(1)
        ratios = np.full((4, stems, len(starts)), np.nan)
        if _any_silent(true) or _any_silent(found):
            return ratios

        if self._projections is None:  # costly, and not needed for silence
            self._projections = self._project()
        *onto_own, onto_all = self._projections
        of_own = [onto.filters(found[j]) for j, onto in enumerate(onto_own)]
        of_all = [onto_all.filters(found[j]) for j in range(stems)]
        for t, start in enumerate(starts):
            part = slice(start, start + window)
            if _any_silent(true[:, :, part]) or _any_silent(found[:, :, part]):
                continue
            frames = min(window, length) + _FILTER - 1
            size = _fast_length(frames)
            spectra = [np.fft.rfft(span[:, part].astype(np.float64), size) for span in self._spans]
            every_spectrum = np.concatenate(spectra)
            for j in range(stems):
                target = _lengthen(true[j, :, part], frames)
                own = _filtered(of_own[j], spectra[j], size)[:, :frames]
                every = _filtered(of_all[j], every_spectrum, size)[:, :frames]
                spatial = own - target
                interference = every - own
                artefacts = _lengthen(found[j, :, part], frames) - every
                ratios[:, j, t] = (
                    _ratio(target, spatial + interference + artefacts),
                    _ratio(target, spatial),
                    _ratio(own, interference),
                    _ratio(every, artefacts),
                )
        return ratios

    def _project(self) -> list[_Projection]:
        """Onto each stem's span, and onto all of them."""
        everything = np.concatenate(self._spans)
        correlations = _correlations(everything, everything)
        projections, start = [], 0
        for span in self._spans:
            own = slice(start, start := start + len(span))
            projections.append(_Projection(span, correlations[own, own]))
        return [*projections, _Projection(everything, correlations)]


def _by_channel(stems: Sequence[Audio]) -> Audio:
    """`(stems, channels, frames)`."""
    return np.array([np.asarray(stem).T for stem in stems])


def _median(values: Float64) -> Score:
    values = values[~np.isnan(values)]
    return float(np.clip(np.median(values), -LIMIT, LIMIT)) if len(values) else None


def _any_silent(stems: Audio) -> bool:
    return bool((~stems.sum(axis=1).any(axis=1)).any())


def _ratio(wanted: Float64, unwanted: Float64) -> float:
    energy = float(np.sum(unwanted**2))
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.sum(wanted**2) / energy)) if energy else np.inf


def _lengthen(signal: Audio, frames: int) -> Float64:
    return np.pad(signal.astype(np.float64), ((0, 0), (0, frames - signal.shape[1])))


def _fast_length(least: int) -> int:
    """The next 2^a or 3 * 2^a or 5 * 2^a."""
    return min(m << max(0, -(-least // m) - 1).bit_length() for m in (1, 3, 5))


class _Projection:
    """Least-squares filters of `_FILTER` taps from the signals of a span, `(n, frames)`.

    Args:
        correlations: of the span with itself, as `_correlations` gives them.
    """

    def __init__(self, span: Audio, correlations: Float64) -> None:
        count, _, taps = correlations.shape
        self._span = span
        # Row (i, a), column (j, b): the sum over s of x_i[s] x_j[s + a - b].
        both_ways = np.concatenate(
            [correlations, np.moveaxis(correlations[..., :0:-1], 0, 1)], axis=2
        )
        lags = np.subtract.outer(np.arange(taps), np.arange(taps))
        gram = np.moveaxis(both_ways[..., lags], 1, 2)
        self._matrix = gram.reshape(count * taps, count * taps)
        self._matrix.flat[:: count * taps + 1] += np.finfo(np.float64).eps
        # The inverse is worth its price for several estimates; `filters` mends its rounding.
        self._inverse: Audio | None
        try:
            self._inverse = np.linalg.inv(self._matrix)
        except np.linalg.LinAlgError:
            self._inverse = None

    def filters(self, targets: Audio) -> Float64:
        """From the span to each of `targets` `(m, frames)`: `(m, n, taps)`."""
        count = len(targets)
        columns = np.moveaxis(_correlations(self._span, targets), 1, 2).reshape(-1, count)
        solution: Audio
        if self._inverse is None:
            solution = np.linalg.lstsq(self._matrix, columns)[0]
        else:
            solution = self._inverse @ columns
            for _ in range(_REFINEMENTS):
                solution += self._inverse @ (columns - self._matrix @ solution)
        return solution.astype(np.float64, copy=False).T.reshape(count, -1, _FILTER)


def _correlations(first: Audio, second: Audio) -> Float64:
    """Sums over t of `first[i, t] * second[j, t + lag]`, `(m, n, _FILTER)`: lags from 0.

    In blocks, so the memory does not grow with the length of songs.
    """
    size = 1 << 15
    step = size - _FILTER + 1
    total = np.zeros((len(first), len(second), size // 2 + 1), np.complex128)
    for start in range(0, first.shape[1], step):
        a = np.fft.rfft(first[:, start : start + step].astype(np.float64), size)
        b = np.fft.rfft(second[:, start : start + size].astype(np.float64), size)
        total += np.conj(a)[:, np.newaxis] * b
    return np.fft.irfft(total, size)[..., :_FILTER]


def _filtered(filters: Float64, spectra: Complex128, size: int) -> Float64:
    """Filter and add up: `(channels, n, taps)` on the spectra of n signals: `(channels, size)`."""
    return np.fft.irfft((np.fft.rfft(filters, size) * spectra).sum(axis=1), size)
