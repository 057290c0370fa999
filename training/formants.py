"""A voice with other formants, colour, breath and vibrato, in time with the original.

Nothing is resynthesised: the smooth part of the cepstrum, the envelope, says by what every bin of
the spectrum is amplified for the formants to lie elsewhere; phases, pitch, panorama, echoes and
choirs stay.  (It is lifted onto the partials after Röbel and Rodet, "Efficient spectral envelope
estimation", 2005.)
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, rfft
from scipy.ndimage import map_coordinates, median_filter

warnings.filterwarnings("ignore", message="pkg_resources")
import pyworld  # noqa: E402

from training.shards import SAMPLE_RATE, Audio  # noqa: E402

N_FFT, HOP, BLOCK = 2048, 512, 512  # of the spectra; frames at once
BINS = np.arange(N_FFT // 2 + 1, dtype=np.float32)
HERTZ = BINS * SAMPLE_RATE / N_FFT
PITCHES = (80.0, 900.0)  # Hz
CEPSTRUM = 360  # coefficients of the envelope at most
KNEE = (0.4, 0.65)  # of a period: coefficients in full below, none above (else partials move)
ROUNDS = 6  # of lifting the envelope onto the partials
LIMIT = 3.2  # nepers, 28 dB: what is amplified more is only noise
EPS = 1e-7

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Singer:
    """What is done to a voice from its beginning to its end."""

    formant: float  # frequency ratio
    tilt_db: float = 0.0  # brightness, dB per octave above 1 kHz
    ring_db: float = 0.0  # what 2.2 … 4 kHz stand out by
    breath_db: float = -np.inf  # noise above 2 kHz, against the tops of the partials
    vibrato_semitones: float = 0.0  # on top of the voice's own
    vibrato_hz: float = 5.5


def _cosines(places: Floats) -> Floats:
    """`[CEPSTRUM, len(places)]`: what each coefficient adds at `places` (bins, may be broken)."""
    order = np.arange(CEPSTRUM, dtype=np.float32)[:, None]
    return np.cos(np.pi * order * places * np.float32(2 / N_FFT))


def cepstra(magnitude: Floats, period: Floats) -> Floats:
    """Smooth envelope of `magnitude [frames, bins]` as coefficients `[frames, CEPSTRUM]`.

    Its logarithm is the coefficients times `_cosines(BINS)`.  It is smoothed again and again
    together with what stands out of it, until it runs over the tops of the partials; how much,
    depends on the `period [frames]` of the voice in samples.
    """
    cosines = _cosines(BINS)
    inverse = cosines.T * np.float32(4 / N_FFT)
    inverse[[0, -1]] /= 2
    inverse[:, 0] /= 2
    over = (np.arange(CEPSTRUM) / period[:, None] - KNEE[0]) / (KNEE[1] - KNEE[0])
    taper = (0.5 + 0.5 * np.cos(np.pi * np.clip(over, 0, 1))).astype(np.float32)
    log = np.log(magnitude + EPS)
    coefficients = log @ inverse * taper
    for _ in range(ROUNDS):
        coefficients = np.maximum(log, coefficients @ cosines) @ inverse * taper
    return coefficients


def periods(audio: Audio, frames: int) -> Floats:
    """Period of the voice in samples at every `HOP`; where there is none, of its neighbours."""
    mono = audio.mean(axis=1).astype(np.float64)
    low, high = PITCHES
    pitch, times = pyworld.dio(mono, SAMPLE_RATE, f0_floor=low, f0_ceil=high, speed=4)
    voiced = np.flatnonzero(pitch)
    if not len(voiced):
        return np.full(frames, SAMPLE_RATE / 200, np.float32)
    steady = median_filter(SAMPLE_RATE / pitch[voiced], 15)
    return np.interp(np.arange(frames) * HOP / SAMPLE_RATE, times[voiced], steady).astype("f4")


def sing(rng: np.random.Generator, audio: Audio, singer: Singer) -> Audio:
    """`audio [samples, 2]` as `singer` would have it: same length and time."""
    moved = _cosines(np.minimum(BINS / np.float32(singer.formant), BINS[-1])) - _cosines(BINS)
    octaves = np.clip(np.log2(np.maximum(HERTZ, 200) / 1000), -1, 3.5)
    ring = np.exp(-((np.log2(np.maximum(HERTZ, 100) / 2900) / 0.45) ** 2))
    colour = 10 ** ((singer.tilt_db * octaves + singer.ring_db * ring) / 20)
    breath = 10 ** (singer.breath_db / 20) * np.clip((HERTZ - 1000) / 3000, 0, 1)
    frames, edge = -(-len(audio) // HOP) + N_FFT // HOP - 1, N_FFT - HOP
    padded = np.zeros(((frames - 1) * HOP + N_FFT, 2), np.float32)
    padded[edge : edge + len(audio)] = audio
    out = np.zeros_like(padded)
    period = periods(padded[N_FFT // 2 :], frames)
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    cut = np.lib.stride_tricks.sliding_window_view(padded, N_FFT, axis=0)[::HOP]
    for begin in range(0, frames, BLOCK):
        loud = np.abs(cut[begin : begin + BLOCK]).max(axis=(1, 2)) > 1e-4
        if not loud.any():
            continue
        where = begin + np.flatnonzero(loud)
        spec = rfft(cut[where] * window)  # [frames, 2, bins]
        whole = np.sqrt(np.square(np.abs(spec)).sum(axis=1))
        coefficients = cepstra(whole, period[where])
        if singer.breath_db > -np.inf:
            noise = rng.standard_normal((2, *whole.shape)) * np.sqrt(0.5)
            noise = np.exp(coefficients @ _cosines(BINS)) * breath * (noise[0] + 1j * noise[1])
            spec = spec + np.abs(spec) * (noise / (whole + EPS))[:, None]
        gain = np.exp(np.clip(coefficients @ moved, -LIMIT, LIMIT)) * colour
        pieces = irfft(spec * gain[:, None]) * (window / 1.5)  # squares of four add up to 1.5
        for first, piece in zip(where * HOP, pieces, strict=True):
            out[first : first + N_FFT] += piece.T
    return swayed(rng, out[edge : edge + len(audio)], singer)


def swayed(rng: np.random.Generator, audio: Audio, singer: Singer) -> Audio:
    """Vibrato that comes and goes, by a delay that swings by less than a millisecond."""
    if not singer.vibrato_semitones:
        return audio
    now, radians = np.arange(len(audio)), 2 * np.pi * singer.vibrato_hz  # radians a second
    depth = SAMPLE_RATE * (2 ** (singer.vibrato_semitones / 12) - 1) / radians  # samples
    knots = np.arange(0, len(audio) + SAMPLE_RATE, 0.8 * SAMPLE_RATE)
    depths, speeds = rng.uniform((0, 0.95), (depth, 1.05), (len(knots), 2)).T
    phase = np.cumsum(radians / SAMPLE_RATE * np.interp(now, knots, speeds))
    late = now + np.interp(now, knots, depths) * np.sin(phase)
    return np.stack([map_coordinates(side, [late], order=3, mode="nearest") for side in audio.T], 1)
