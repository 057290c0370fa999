"""Synthetic singers: recorded syllables pitched and stretched onto invented melodies (WORLD).

    python -m training.sing --shards SHARDS --minutes 12 --workers 2

Sources are the `voice` (sung phoneme strings) and `speech` clips of the corpus.  A take analyses
a few seconds of one speaker, cuts them into syllables, and sings several phrases with them, each
with a singer of its own: formants, range, vibrato, breath, loudness.  Doubles and harmonies of the
same phrase are panned around the lead.  The result is `singing` clips, stereo, in shards.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass
from multiprocessing import Process
from pathlib import Path

import numpy as np
import numpy.typing as npt

warnings.filterwarnings("ignore", message="pkg_resources")
import pyworld  # noqa: E402

from training.shards import SAMPLE_RATE, Audio, Clip, ShardWriter, clips, groups, read  # noqa: E402

FRAME_S = 0.005
FloatArray = npt.NDArray[np.float64]

SCALES = (
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 10),
    (0, 2, 4, 7, 9),
    (0, 3, 5, 7, 10),
    (0, 2, 3, 5, 7, 9, 10),
)
RHYTHMS = ((0.5, 1.0), (0.5, 1.0, 2.0), (1.0, 2.0, 4.0), (0.25, 0.5, 1.0))  # beats
STEPS = {-3: 0.06, -2: 0.14, -1: 0.24, 0: 0.12, 1: 0.24, 2: 0.14, 3: 0.06}


@dataclass(frozen=True)
class Material:
    """WORLD parameters of a stretch of voice, 5 ms a frame, and its syllables.

    `envelope` and `aperiodicity` are `[frames, bins]`; a syllable is (start, vowel start, end).
    """

    envelope: FloatArray
    aperiodicity: FloatArray
    voiced: npt.NDArray[np.bool_]
    syllables: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Singer:
    """What stays the same through a phrase."""

    formant: float  # frequency scale of the spectral envelope
    base: float  # middle of the range, MIDI note number
    vibrato_hz: float
    vibrato_semitones: float
    glide_s: float
    jitter_semitones: float
    breath: float  # aperiodicity is raised to 1 - breath
    tilt_db: float  # brightness of loud notes, dB per octave above 1 kHz


def analyse(audio: FloatArray) -> Material:
    """WORLD analysis of mono `audio` and its segmentation into syllables."""
    f0, times = pyworld.dio(audio, SAMPLE_RATE, f0_floor=65.0, f0_ceil=900.0)
    envelope = pyworld.cheaptrick(audio, f0, times, SAMPLE_RATE)
    aperiodicity = pyworld.d4c(audio, f0, times, SAMPLE_RATE)
    loud = 10 * np.log10(envelope.mean(axis=1) + 1e-20)
    sounding = loud > loud.max() - 45
    voiced = (f0 > 0) & sounding
    edges = np.flatnonzero(np.diff(np.r_[0, voiced.astype(np.int8), 0]))
    syllables: list[tuple[int, int, int]] = []
    last = 0
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start < 12:
            continue
        # At most 150 ms of sounding consonant before the vowel belong to it.
        onset = start
        while onset > max(last, start - 30) and sounding[onset - 1]:
            onset -= 1
        # Long vowels of the phoneme strings are cut, so that they yield several notes.
        for begin in range(start, end, 160):
            stop = min(begin + 160, end)
            if stop - begin >= 12:
                syllables.append((onset if begin == start else begin, begin, stop))
        last = end
    return Material(envelope, aperiodicity, voiced, syllables)


def random_singer(rng: np.random.Generator) -> Singer:
    low = rng.random() < 0.5
    formant = rng.uniform(0.84, 1.05) if low else rng.uniform(0.98, 1.22)
    return Singer(
        formant=formant,
        base=rng.uniform(46, 58) if low else rng.uniform(56, 71),
        vibrato_hz=rng.uniform(4.5, 7.0),
        vibrato_semitones=rng.choice([0.0, 0.15, 0.35, 0.8]) * rng.uniform(0.5, 1.2),
        glide_s=rng.uniform(0.02, 0.16),
        jitter_semitones=rng.uniform(0.02, 0.15),
        breath=rng.choice([0.0, 0.1, 0.3]) * rng.random(),
        tilt_db=rng.uniform(-3, 3),
    )


def melody(
    rng: np.random.Generator, seconds: float, base: float
) -> list[tuple[float, float, float]]:
    """Notes `(start s, length s, pitch)` in one key; phrases with rests between them."""
    scale = np.array(SCALES[rng.integers(len(SCALES))])
    ladder = np.sort(np.concatenate([scale + 12 * octave for octave in range(-2, 3)]))
    ladder = ladder[np.abs(ladder) <= rng.choice([5, 8, 12])]
    key = base + rng.uniform(-0.5, 0.5)
    step = int(rng.integers(len(ladder)))
    beat = 60 / rng.uniform(70, 170)
    lengths = RHYTHMS[rng.integers(len(RHYTHMS))]
    notes, now = [], rng.uniform(0, 0.6)
    while now < seconds - 0.3:
        for _ in range(rng.integers(3, 11)):
            length = float(rng.choice(lengths)) * beat
            length = min(max(length, 0.12), seconds - now)
            if length < 0.1:
                break
            notes.append((now, length * rng.uniform(0.85, 1.0), key + float(ladder[step])))
            move = int(rng.choice(list(STEPS), p=list(STEPS.values())))
            step = int(np.clip(step + move, 0, len(ladder) - 1))
            now += length
        now += rng.choice([0.1, 0.4, 1.5]) * rng.uniform(0.5, 1.5)
    return notes


def warp(envelope: FloatArray, ratio: float) -> FloatArray:
    """Spectral envelopes `[frames, bins]` with every formant moved by `ratio`."""
    bins = envelope.shape[1]
    source = np.minimum(np.arange(bins) / ratio, bins - 1.001)
    index = source.astype(int)
    part = source - index
    return envelope[:, index] * (1 - part) + envelope[:, index + 1] * part


def timeline(rng: np.random.Generator, syllable: tuple[int, int, int], frames: int) -> FloatArray:
    """Source frame for each of `frames` output frames: consonant and edges at their own speed."""
    start, vowel, end = syllable
    head = min(vowel - start + 6, frames // 2)
    tail = min(8, (frames - head) // 3)
    middle = frames - head - tail
    first, last = start + head, max(start + head + 1, end - tail)
    if middle > 3 * (last - first):
        # A vowel held far beyond its recording sways to and fro rather than freezing.
        sway = np.cumsum(rng.uniform(0.4, 1.1, middle)) % (2 * (last - first))
        held = first + np.minimum(sway, 2 * (last - first) - sway)
    else:
        held = np.linspace(first, last, middle, endpoint=False)
    return np.concatenate([start + np.arange(head), held, last + np.arange(tail)]).astype(float)


def perform(
    rng: np.random.Generator,
    material: Material,
    singer: Singer,
    notes: list[tuple[float, float, float]],
    words: list[int],
    seconds: float,
) -> Audio:
    """Sing `notes` with the syllables `words`; returns mono audio `[frames]`."""
    total = int(seconds / FRAME_S)
    bins = material.envelope.shape[1]
    envelope = np.full((total, bins), 1e-16)
    aperiodicity = np.ones((total, bins))
    f0 = np.zeros(total)
    frequency = np.arange(bins) * SAMPLE_RATE / 2 / (bins - 1)
    octaves = np.log2(np.maximum(frequency, 200) / 1000)
    previous = notes[0][2]
    for (start, length, pitch), word in zip(notes, words, strict=True):
        begin = int(start / FRAME_S)
        frames = min(int(length / FRAME_S), total - begin)
        if frames < 12:
            continue
        source = timeline(rng, material.syllables[word % len(material.syllables)], frames)
        nearest = np.clip(np.round(source).astype(int), 0, len(material.envelope) - 1)
        effort = rng.normal(0, 3)
        gain = 10 ** ((effort + singer.tilt_db * octaves * (1 + effort / 6)) / 10)
        taken = warp(material.envelope[nearest], singer.formant) * gain
        taken *= 10 ** (rng.normal(0, 2) / 10) / (taken.sum(axis=1).mean() + 1e-12)
        fade = np.minimum(1, np.arange(frames, 0, -1) / 8.0) * np.minimum(
            1, (np.arange(frames) + 2) / 4.0
        )
        envelope[begin : begin + frames] = taken * fade[:, None] ** 2
        breathy = warp(material.aperiodicity[nearest], singer.formant) ** (1 - singer.breath)
        aperiodicity[begin : begin + frames] = breathy
        now = np.arange(frames) * FRAME_S
        glide = 1 / (1 + np.exp(-(now - singer.glide_s) / (singer.glide_s / 4 + 1e-3)))
        vibrato = singer.vibrato_semitones * np.clip((now - 0.25) / 0.3, 0, 1)
        wander = np.convolve(rng.normal(0, 1, frames + 30), np.hanning(31) / 4, "valid")[:frames]
        line = (
            previous
            + (pitch - previous) * glide
            + vibrato * np.sin(2 * np.pi * singer.vibrato_hz * now + rng.uniform(0, 6))
            + singer.jitter_semitones * wander
        )
        hertz = 440 * 2 ** ((line - 69) / 12)
        f0[begin : begin + frames] = np.where(material.voiced[nearest], hertz, 0)
        previous = pitch
    audio = pyworld.synthesize(f0, envelope, aperiodicity, SAMPLE_RATE)
    return audio[: int(seconds * SAMPLE_RATE)].astype(np.float32)


def phrase(rng: np.random.Generator, material: Material, seconds: float) -> Audio:
    """One sung clip `[frames, 2]`, peak 0.7: a lead, and perhaps doubles and harmonies."""
    singer = random_singer(rng)
    notes = melody(rng, seconds, singer.base)
    first = int(rng.integers(len(material.syllables)))
    words = [first + i for i in range(len(notes))]
    if rng.random() < 0.3:  # a vowel carried over the notes
        words = [first + i // 4 for i in range(len(notes))]
    lead = perform(rng, material, singer, notes, words, seconds)
    mix = np.repeat(lead[:, None], 2, axis=1)
    if rng.random() < 0.4:
        interval = float(rng.choice([0, 0, 0, 4, 7, -5, 12]))
        for pan in (-1.0, 1.0)[: rng.integers(1, 3)]:
            late = rng.normal(0, 0.02, len(notes))
            other = [
                (max(0.0, start + shift), length, pitch + interval + rng.normal(0, 0.08))
                for (start, length, pitch), shift in zip(notes, late, strict=True)
            ]
            extra = perform(rng, material, singer, other, words, seconds)
            width = pan * rng.uniform(0.2, 1.0)
            level = rng.uniform(0.3, 0.8)
            mix += level * extra[:, None] * np.array([1 - max(width, 0), 1 + min(width, 0)])
    return (0.7 * mix / (np.abs(mix).max() + 1e-9)).astype(np.float32)


def gather(rng: np.random.Generator, folder: Path, sources: list[Clip], seconds: float) -> Audio:
    """About `seconds` of neighbouring clips of one speaker, mono."""
    index = int(rng.integers(len(sources)))
    pieces: list[Audio] = []
    length = 0
    while length < seconds * SAMPLE_RATE and len(pieces) < len(sources):
        clip = sources[index % len(sources)]
        piece = read(folder, clip)[: int(seconds * SAMPLE_RATE), 0]
        level = float(np.sqrt(np.mean(piece**2))) + 1e-6
        pieces.append(piece * (0.1 / level) if level > 1e-4 else piece)
        length += len(piece)
        index += 1
    return np.concatenate(pieces)[: int(seconds * SAMPLE_RATE)]


def sing(folder: Path, worker: int, seconds: float, split: str) -> None:
    """Fill shards `singing-…` for about `seconds` of wall-clock time."""
    seed = int(time.time()) * 64 + worker
    rng = np.random.default_rng(seed)
    found = dict(groups(clips(folder, {"voice", "speech"}, split)))
    # 16 kHz telephone prompts have no sibilants to learn from.
    names = [name for name in found if not name.startswith("asterisk")]
    weights = np.array([sum(c.frames for c in found[name]) for name in names], float) ** 0.4
    prefix = "singing" if split == "train" else "heldout-singing"
    writer = ShardWriter(folder, f"{prefix}-{seed}", 2)
    end = time.monotonic() + seconds
    takes = 0
    while time.monotonic() < end:
        name = str(rng.choice(names, p=weights / weights.sum()))
        material = analyse(gather(rng, folder, found[name], 7.0).astype(np.float64))
        if len(material.syllables) < 4:
            continue
        for _ in range(4):
            audio = phrase(rng, material, rng.uniform(9, 13))
            licence = found[name][0].licence
            writer.add(audio, "singing", name, f"take {takes}", licence, split)
        takes += 1
    writer.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--split", choices=["train", "validation"], default="train")
    args = parser.parse_args()
    crew = [
        Process(target=sing, args=(args.shards, i, args.minutes * 60, args.split))
        for i in range(args.workers)
    ]
    for process in crew:
        process.start()
    for process in crew:
        process.join()


if __name__ == "__main__":
    main()
