"""A short song, made from nothing: a sung voice in the middle, a band around it.

Something to separate without a download, with the true stems at hand.  It is the same at every run.
The voice is a source and a filter, as in a throat: the harmonics of a gliding, vibrating pitch pass
the resonances (formants) of changing vowels, and noise makes the consonants.

    python examples/song.py      writes out/song.wav
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Signal = npt.NDArray[np.float64]

RATE = 44100
BEAT = 0.6  # seconds: 100 beats per minute
BAR = 4 * BEAT
BLOCK = 256  # samples between the voice's control points
PEAK = 10 ** (-3 / 20)

#: Formant frequencies in Hz.
VOWELS = {
    "a": (800, 1150, 2900, 3900, 4950),
    "e": (420, 1700, 2700, 3500, 4950),
    "i": (320, 1950, 2800, 3700, 4950),
    "o": (450, 850, 2830, 3800, 4950),
    "u": (330, 720, 2700, 3800, 4950),
    "m": (250, 1000, 2200, 3300, 4950),
    "n": (260, 1500, 2400, 3400, 4950),
    "l": (360, 1100, 2900, 3600, 4950),
    "r": (400, 1250, 1700, 3400, 4950),
    "v": (260, 1000, 2400, 3500, 4950),
}
BANDWIDTHS = (80, 90, 130, 160, 220)
#: The throat's higher resonances, (Hz, bandwidth), which do not depend on the vowel.
HIGHER = ((6000, 300), (7000, 350), (8000, 400), (9000, 450))

#: Noise of consonants: band in Hz, seconds, level.
NOISES = {
    "s": (5200, 9500, 0.13, 0.20),
    "t": (3000, 8000, 0.04, 0.28),
    "k": (1500, 3500, 0.05, 0.25),
    "d": (2500, 6000, 0.03, 0.15),
    "v": (800, 6000, 0.06, 0.05),
}

#: (semitones above A3 or None for a breath, beats, consonant, vowel); two bars to a line.
MELODY: tuple[tuple[int | None, float, str, str], ...] = (
    (7, 1.0, "d", "a"), (10, 0.5, "r", "o"), (12, 1.5, "m", "i"), (10, 1.0, "n", "e"),
    (8, 1.5, "l", "a"), (7, 0.5, "t", "i"), (3, 1.0, "n", "o"), (None, 1.0, "", ""),
    (7, 1.0, "s", "u"), (10, 0.5, "l", "e"), (15, 1.5, "v", "a"), (14, 0.5, "r", "i"),
    (10, 0.5, "n", "e"), (12, 1.0, "m", "o"), (10, 2.0, "n", "a"), (None, 1.0, "", ""),
    (12, 0.5, "k", "o"), (15, 1.0, "m", "e"), (14, 0.5, "l", "i"), (12, 1.0, "t", "o"),
    (7, 1.0, "n", "a"), (8, 0.5, "s", "o"), (10, 0.5, "l", "a"), (12, 1.5, "r", "e"),
    (8, 0.5, "t", "u"), (None, 1.0, "", ""), (10, 1.0, "s", "i"), (15, 1.0, "l", "a"),
    (17, 0.5, "n", "o"), (19, 1.5, "v", "a"), (17, 1.5, "r", "o"), (14, 0.5, "n", "e"),
    (10, 1.5, "m", "a"), (None, 0.5, "", ""),
)  # fmt: skip

#: One chord a bar, in semitones above A: A minor, F, C, G.
CHORDS = ((0, 3, 7, 10), (-4, 0, 3, 7), (-9, -2, 3, 7), (-2, 2, 5, 10))
ROOTS = (0, -4, 3, -2)


@dataclass(frozen=True)
class Song:
    """`mix` is exactly `vocals + accompaniment`; all `(frames, 2)` float32."""

    mix: npt.NDArray[np.float32]
    vocals: npt.NDArray[np.float32]
    accompaniment: npt.NDArray[np.float32]
    samplerate: int


def render_song(seconds: float = 24.0) -> Song:
    """A song of this length, peaking at -3 dBFS."""
    frames = round(seconds * RATE)
    bars = max(2, int(np.ceil(seconds / BAR)))  # one of intro, one with a voice
    random = np.random.default_rng(1)
    voice = _sing(bars, random)
    band = _play(bars, random)
    voice = voice[:frames] * (0.95 * _rms(band) / _rms(voice))
    band = band[:frames]
    _fade_ends(voice)
    _fade_ends(band)
    scale = PEAK / np.abs(voice + band).max()
    vocals = (scale * voice).astype(np.float32)
    accompaniment = (scale * band).astype(np.float32)
    return Song(vocals + accompaniment, vocals, accompaniment, RATE)


def _rms(signal: Signal) -> float:
    return float(np.sqrt(np.mean(signal**2)))


def _fade_ends(signal: Signal) -> None:
    ramp = np.linspace(0, 1, min(len(signal) // 2, RATE // 4))[:, np.newaxis]
    signal[: len(ramp)] *= ramp
    signal[len(signal) - len(ramp) :] *= ramp[::-1]


def _hertz(semitones: float | Signal) -> float | Signal:
    """From semitones above A3."""
    return 220.0 * 2.0 ** (np.asarray(semitones) / 12)


# --- the voice -----------------------------------------------------------------------------------


def _notes(bars: int) -> Iterator[tuple[float, float, int, str, str]]:
    """(start, seconds, semitones, consonant, vowel) of every sung note, after one bar of intro."""
    start, end = BAR, bars * BAR
    while True:
        for pitch, beats, consonant, vowel in MELODY:
            length = beats * BEAT
            if start + length > end:
                return
            if pitch is not None:
                yield start, length, pitch, consonant, vowel
            start += length


def _sing(bars: int, random: np.random.Generator) -> Signal:
    """`(frames, 2)`: the voice, dry in the centre, with a little room."""
    frames = round(bars * BAR * RATE)
    points = frames // BLOCK + 2
    time = np.arange(points) * BLOCK / RATE
    pitch = np.full(points, 7.0)  # semitones
    level = np.zeros(points)
    formants = np.tile(np.array(VOWELS["a"], float), (points, 1))
    noise = np.zeros(frames)

    for start, length, semitones, consonant, vowel in _notes(bars):
        voiced = consonant in VOWELS
        onset = start + (0.07 if voiced else 0.02)
        note = (time >= start) & (time < start + length)
        pitch[time >= start] = semitones
        formants[time >= start] = VOWELS[vowel]
        if voiced:
            formants[(time >= start - 0.03) & (time < onset)] = VOWELS[consonant]
        age = time[note] - start
        swell = 0.75 + 0.25 * np.sin(np.pi * np.minimum(age / length, 1))
        release = np.clip((start + length - time[note]) / 0.06, 0.15, 1)
        attack = np.clip((age + 0.02) / 0.05, 0.35 if voiced else 0.0, 1)
        level[note] = swell * release * attack
        # Vibrato sets in when a note is held.
        depth = 0.3 * np.clip((age - 0.25) / 0.4, 0, 1)
        pitch[note] += depth * np.sin(2 * np.pi * 5.6 * age)
        if consonant in NOISES:
            _add_noise(noise, start, NOISES[consonant], random)

    pitch = _smooth(pitch, 0.05)
    formants = np.stack([_smooth(f, 0.022) for f in formants.T], axis=1)
    level = _smooth(level, 0.012)
    drift = _smooth(random.standard_normal(points), 0.1)
    frequency = np.asarray(_hertz(pitch + 0.25 * drift))
    voice = _harmonics(frequency, level, formants)[:frames] + 1.2 * noise
    room = _reverb(voice, 0.5, random)
    return np.stack([voice + 0.15 * room] * 2, axis=1)


def _smooth(signal: Signal, seconds: float) -> Signal:
    """A moving average that settles within about this time, as muscles do."""
    width = 2 * max(1, round(seconds * RATE / BLOCK)) + 1
    window = np.hanning(width + 2)[1:-1]
    return np.convolve(np.pad(signal, width // 2, mode="edge"), window / window.sum(), "valid")


def _harmonics(frequency: Signal, level: Signal, formants: Signal) -> Signal:
    """Sum the harmonics of a glottal pulse, each with the gain and phase the throat gives it.

    Args:
        frequency, level: `(points,)`, one every `BLOCK` samples.
        formants: `(points, 5)` in Hz.
    """
    blocks = len(frequency) - 1
    ramp = np.arange(BLOCK) / BLOCK

    def between(points: npt.NDArray[np.complex64] | Signal) -> npt.NDArray[np.complex64]:
        """`(blocks, BLOCK)`: straight lines between control points."""
        step = np.diff(points)[:, np.newaxis]
        line = points[:-1, np.newaxis] + step * ramp.astype(np.float32)
        return line.astype(np.complex64)

    per_sample = frequency[:-1, np.newaxis] + np.diff(frequency)[:, np.newaxis] * ramp
    phase = 2 * np.pi * np.cumsum(per_sample.ravel()) / RATE
    turn = np.exp(1j * phase).astype(np.complex64).reshape(blocks, BLOCK)
    harmonic = np.ones_like(turn)
    voice = np.zeros((blocks, BLOCK), np.float32)
    for k in range(1, int(10000 / frequency.min()) + 1):
        harmonic *= turn
        hertz = k * frequency
        gain = level / k * np.clip((11000 - hertz) / 2000, 0, 1)
        response = np.ones(len(hertz), complex)
        resonances = [*zip(formants.T, BANDWIDTHS, strict=True), *HIGHER]
        for centre, width in resonances:
            response *= centre**2 / (centre**2 - hertz**2 + 1j * hertz * width)
        voice += (between((gain * response).astype(np.complex64)) * harmonic).imag
    return voice.ravel().astype(float)


def _add_noise(
    target: Signal,
    start: float,
    kind: tuple[float, float, float, float],
    random: np.random.Generator,
) -> None:
    low, high, seconds, level = kind
    length = round(seconds * RATE)
    begin = round((start - 0.6 * seconds) * RATE)
    burst = _band(random.standard_normal(length), low, high) * np.hanning(length)
    target[begin : begin + length] += level * burst[: max(0, len(target) - begin)]


# --- the band ------------------------------------------------------------------------------------


def _play(bars: int, random: np.random.Generator) -> Signal:
    """`(frames, 2)`: bass and drums in the centre, everything else around."""
    frames = round(bars * BAR * RATE)
    band = np.zeros((frames, 2))
    wet = np.zeros((frames, 2))

    kick, snare, hat = _kick(), _snare(random), _hat(random)
    for beat in range(4 * bars):
        at = beat * BEAT
        if beat % 2 == 0:
            _put(band, kick, at, 0.9)
        elif beat >= 4:
            _put(band, snare, at, 0.20, -0.15)
            _put(wet, snare, at, 0.06, -0.15)
        for half in (0, 1):
            _put(band, hat, at + half * BEAT / 2, 0.10 + 0.05 * half, 0.55)

    for bar in range(bars):
        chord, root = CHORDS[bar % 4], ROOTS[bar % 4]
        for step in (0, 1.5, 2, 3.5):
            _put(band, _bass(root), bar * BAR + step * BEAT, 0.42)
        for note in chord:
            for side, detune in ((-0.9, -0.06), (0.9, 0.06)):
                pad = _pad(note, detune)
                _put(band, pad, bar * BAR, 0.035, side)
                _put(wet, pad, bar * BAR, 0.02, -side)
        for eighth in range(8):
            note = chord[(0, 2, 1, 3, 2, 3, 1, 2)[eighth]] + 12
            side = -0.75 if eighth % 2 else 0.75
            pluck = _pluck(note)
            _put(band, pluck, bar * BAR + eighth * BEAT / 2, 0.16, side)
            _put(wet, pluck, bar * BAR + eighth * BEAT / 2, 0.12, -0.5 * side)

    left, right = (_reverb(wet[:, side], 1.3, random) for side in (0, 1))
    return band + 0.5 * np.stack([left, right], axis=1)


def _put(target: Signal, sound: Signal, start: float, level: float, side: float = 0.0) -> None:
    """Add a mono sound at equal power between left (-1) and right (+1)."""
    begin = round(start * RATE)
    sound = sound[: max(0, len(target) - begin)]
    angle = (side + 1) * np.pi / 4
    target[begin : begin + len(sound), 0] += level * np.cos(angle) * sound
    target[begin : begin + len(sound), 1] += level * np.sin(angle) * sound


def _seconds(length: float) -> Signal:
    return np.arange(round(length * RATE)) / RATE


def _kick() -> Signal:
    t = _seconds(0.35)
    phase = 2 * np.pi * (48 * t + 2.2 * (1 - np.exp(-t / 0.03)))
    return np.sin(phase) * np.exp(-t / 0.11) * np.minimum(t / 0.002, 1)


def _snare(random: np.random.Generator) -> Signal:
    t = _seconds(0.25)
    rattle = _band(random.standard_normal(len(t)), 900, 7000) * np.exp(-t / 0.06)
    return rattle + 0.8 * np.sin(2 * np.pi * 185 * t) * np.exp(-t / 0.05)


def _hat(random: np.random.Generator) -> Signal:
    t = _seconds(0.12)
    return _band(random.standard_normal(len(t)), 7000, 16000) * np.exp(-t / 0.025)


@cache
def _bass(semitones: float) -> Signal:
    t = _seconds(0.62)
    phase = 2 * np.pi * float(_hertz(semitones - 24)) * t
    tone = sum(np.sin(k * phase) * np.exp(-t * k / 0.9) / k**1.2 for k in range(1, 7))
    ends = np.minimum(t / 0.006, 1) * np.clip((0.62 - t) / 0.08, 0, 1)
    return np.asarray(tone * ends)


@cache
def _pad(semitones: float, detune: float) -> Signal:
    t = _seconds(BAR + 0.3)
    phase = 2 * np.pi * float(_hertz(semitones + detune)) * t + 40 * detune
    tone = sum(np.sin(k * phase) / k**1.3 for k in range(1, 8))
    return np.asarray(tone * np.minimum(t / 0.5, 1) * np.clip((BAR + 0.3 - t) / 0.5, 0, 1))


@cache
def _pluck(semitones: float) -> Signal:
    t = _seconds(0.8)
    phase = 2 * np.pi * float(_hertz(semitones)) * t
    tone = sum(np.sin(k * phase) * np.exp(-t * k / 0.35) / k for k in range(1, 9))
    return np.asarray(tone * np.minimum(t / 0.003, 1) * np.clip((0.8 - t) / 0.1, 0, 1))


# --- tools ---------------------------------------------------------------------------------------


def _band(noise: Signal, low: float, high: float) -> Signal:
    """Noise within a band with soft edges, at unit level."""
    spectrum = np.fft.rfft(noise)
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
    spectrum /= np.sqrt(1 + (low / np.maximum(hertz, 1)) ** 8) * np.sqrt(1 + (hertz / high) ** 8)
    shaped = np.fft.irfft(spectrum, len(noise))
    return np.asarray(shaped / shaped.std())


def _reverb(dry: Signal, seconds: float, random: np.random.Generator) -> Signal:
    """A room: convolution with decaying noise."""
    t = _seconds(seconds)
    tail = random.standard_normal(len(t)) * 10 ** (-3 * t / seconds) * np.minimum(t / 0.01, 1)
    tail = _band(tail, 250, 5000)
    tail /= np.sqrt(np.sum(tail**2))
    size = 1 << (len(dry) + len(tail) - 1).bit_length()
    spectrum = np.fft.rfft(dry, size) * np.fft.rfft(tail, size)
    return np.fft.irfft(spectrum, size)[: len(dry)]


if __name__ == "__main__":
    from pathlib import Path

    from realtime_sep.io.file import AudioWriter

    song = render_song()
    path = Path("out/song.wav")
    path.parent.mkdir(exist_ok=True)
    with AudioWriter(path, song.samplerate, 2) as writer:
        writer.write(song.mix)
    print(path)
