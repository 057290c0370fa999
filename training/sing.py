"""Synthetic singers: recorded voices pitched and stretched onto invented melodies (WORLD).

    python -m training.sing --shards SHARDS --minutes 12 --workers 2

Sources are the `voice` (sung phoneme strings) and `speech` clips of the corpus.  A take analyses
some seconds of one speaker once and sings several phrases with them, each as a singer of its own:
formants, range, vibrato, breath, growl, effort, falsetto.  Syllables stay in the order in which
they were spoken, and only their nuclei are stretched, so consonants and transitions sound as
recorded; vowels fall on the beat.  Doubles and harmonies of the same phrase are panned around the
lead.  The result is `singing` clips, stereo, in shards.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing import Process
from pathlib import Path

import numpy as np
import numpy.typing as npt

warnings.filterwarnings("ignore", message="pkg_resources")
import pyworld  # noqa: E402

from training.shards import SAMPLE_RATE, Audio, Clip, ShardWriter, clips, groups, read  # noqa: E402

FRAME_S = 0.005
SOURCE_S, TAKES = 14.0, 9  # analysed at once, and phrases sung with it
FloatArray = npt.NDArray[np.float64]

SCALES = (
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 10),
    (0, 2, 4, 7, 9),
    (0, 3, 5, 7, 10),
    (0, 2, 3, 5, 7, 9, 10),
)
RHYTHMS = (  # beats
    (0.5, 1.0),
    (0.5, 1.0, 2.0),
    (0.5, 0.75, 1.5),
    (1.0, 2.0, 4.0),
    (0.25, 0.5, 1.0),
    (2.0, 4.0, 6.0),
)
STEPS = {-4: 0.03, -3: 0.05, -2: 0.13, -1: 0.22, 0: 0.16, 1: 0.2, 2: 0.12, 3: 0.05, 4: 0.04}


@dataclass(frozen=True)
class Syllable:
    """Frames of the material: onset … nucleus begin … nucleus end … end."""

    onset: int
    begin: int
    stop: int
    end: int


@dataclass(frozen=True)
class Material:
    """WORLD parameters of a stretch of voice, 5 ms a frame, and its syllables.

    `envelope` and `aperiodicity` are `[frames, bins]`; `pitch` is MIDI note numbers less their
    median, held where there is none.
    """

    envelope: FloatArray
    aperiodicity: FloatArray
    voiced: npt.NDArray[np.bool_]
    pitch: FloatArray
    syllables: list[Syllable]


@dataclass(frozen=True)
class Note:
    """One note of a melody; `carried` ones keep the syllable of the note before (melisma)."""

    start: float  # s
    length: float  # s
    pitch: float  # MIDI note number
    carried: bool = False


@dataclass(frozen=True)
class Singer:
    """What stays the same through a phrase."""

    formant: float  # frequency scale of the spectral envelope
    base: float  # middle of the range, MIDI note number
    vibrato_hz: float
    vibrato_semitones: float
    vibrato_delay_s: float
    glide_s: float
    scoop: float  # share of the notes reached from below
    jitter_semitones: float
    breath: float  # aperiodicity is raised to 1 - breath
    tilt_db: float  # brightness, dB per octave above 1 kHz
    ring_db: float  # belting: what 2.2 … 4 kHz stand out by
    growl: float  # depth of the subharmonic
    falsetto: float  # notes so many semitones above the base turn airy and dull
    tuned: bool  # hard pitch correction
    spoken: float  # share of the source's own intonation: rap and declamation


def widened(
    envelope: FloatArray, loud: npt.NDArray[np.bool_], voiced: npt.NDArray[np.bool_]
) -> FloatArray:
    """The envelope, continued above the edge of sources of a lower sample rate.

    Telephone prompts and small synthesizers end at 8 to 12 kHz.  Above it they go on with the
    level below, falling by 24 dB an octave where voiced and 9 dB where not (sibilants).
    """
    bins = envelope.shape[1]
    mean = 10 * np.log10(envelope[loud].mean(axis=0) + 1e-30)
    span = bins // 32  # 700 Hz
    low = int(6000 / (SAMPLE_RATE / 2) * bins)
    drop = mean[low : -2 * span] - mean[low + 2 * span :]
    edge = low + int(np.flatnonzero(drop > drop.max() - 3)[-1])  # the last before it falls
    if drop.max() < 18 or edge > bins * 0.85:
        return envelope
    above = np.arange(edge, bins) / edge
    level = envelope[:, edge * 3 // 4 : edge].mean(axis=1, keepdims=True)
    out = envelope.copy()
    out[:, edge:] = level * np.where(voiced[:, None], above**-8.0, above**-3.0)
    return out


def nuclei(power: FloatArray, start: int, end: int) -> list[tuple[int, int]]:
    """Cut a voiced run at its valleys of at least 3 dB: (begin, end) of each syllable."""
    smooth = np.convolve(power[start:end], np.hanning(13) / 6, "same")
    cuts, peak, valley, where = [start], smooth[0], np.inf, start
    for frame, value in enumerate(smooth, start):
        if value > peak and valley == np.inf:
            peak = value
        elif value < min(valley, peak - 3):
            valley, where = value, frame
        elif valley < np.inf and value > valley + 3:
            if where - cuts[-1] >= 14 and end - where >= 14:
                cuts.append(where)
            peak, valley = value, np.inf
    cuts.append(end)
    pieces = []
    for begin, stop in pairwise(cuts):
        count = max(1, round((stop - begin) / 160))  # long vowels yield several notes
        bounds = np.linspace(begin, stop, count + 1).astype(int)
        pieces += list(pairwise(bounds))
    return [(int(a), int(b)) for a, b in pieces]


def analyse(audio: FloatArray) -> Material:
    """WORLD analysis of mono `audio` and its segmentation into syllables."""
    f0, times = pyworld.dio(audio, SAMPLE_RATE, f0_floor=65.0, f0_ceil=900.0, speed=2)
    envelope = pyworld.cheaptrick(audio, f0, times, SAMPLE_RATE)
    aperiodicity = pyworld.d4c(audio, f0, times, SAMPLE_RATE)
    loud = 10 * np.log10(envelope.mean(axis=1) + 1e-20)
    sounding = loud > np.percentile(loud, 98) - 42
    voiced = (f0 > 0) & sounding
    edges = np.flatnonzero(np.diff(np.r_[0, voiced.astype(np.int8), 0]))
    syllables: list[Syllable] = []
    last = 0
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start < 12:
            continue
        # At most 150 ms of sounding consonant before the vowel belong to it, and 60 ms after.
        onset = start
        while onset > max(last, start - 30) and sounding[onset - 1]:
            onset -= 1
        coda = end
        while coda < min(len(voiced), end + 12) and sounding[coda] and not voiced[coda]:
            coda += 1
        pieces = nuclei(loud, int(start), int(end))
        for begin, stop in pieces:
            edge = min(8, (stop - begin) // 4)
            first, final = begin == pieces[0][0], stop == pieces[-1][1]
            syllables.append(
                Syllable(
                    onset if first else begin, begin + edge, stop - edge, coda if final else stop
                )
            )
        last = coda
    pitch = np.zeros(len(f0))
    if voiced.any():
        frames = np.flatnonzero(voiced)
        semitones = 12 * np.log2(f0[frames])
        pitch = np.interp(np.arange(len(f0)), frames, semitones - np.median(semitones))
    if sounding.any():
        envelope = widened(envelope, sounding, voiced)
    return Material(envelope, aperiodicity, voiced, pitch, syllables)


def random_singer(rng: np.random.Generator) -> Singer:
    """Men, women and children, each with a manner."""
    kind = rng.choice(["man", "woman", "child"], p=[0.45, 0.45, 0.1])
    formants = {"man": (0.75, 1.05), "woman": (0.92, 1.2), "child": (1.1, 1.35)}[kind]
    ranges = {"man": (45, 59), "woman": (55, 70), "child": (60, 74)}[kind]
    manner = rng.choice(["plain", "soft", "belt", "growl", "rap"], p=[0.45, 0.17, 0.18, 0.08, 0.12])
    singer = Singer(
        formant=rng.uniform(*formants),
        base=rng.uniform(*ranges),
        vibrato_hz=rng.uniform(4.5, 7.0),
        vibrato_semitones=rng.choice([0.0, 0.15, 0.35, 0.8]) * rng.uniform(0.5, 1.2),
        vibrato_delay_s=rng.choice([0.05, 0.25, 0.6]) * rng.uniform(0.7, 1.3),
        glide_s=rng.uniform(0.01, 0.1),
        scoop=rng.choice([0.0, 0.15, 0.5]),
        jitter_semitones=rng.uniform(0.02, 0.18),
        breath=rng.choice([0.0, 0.1, 0.3]) * rng.random(),
        tilt_db=rng.uniform(-2.5, 2.5),
        ring_db=0.0,
        growl=0.0,
        falsetto=rng.uniform(5, 14),
        tuned=bool(rng.random() < 0.12),
        spoken=0.0,
    )
    if manner == "soft":
        return replace(
            singer, breath=rng.uniform(0.2, 0.6), tilt_db=rng.uniform(-6, -2), falsetto=4.0
        )
    if manner == "belt":
        return replace(
            singer,
            base=singer.base + 4,
            tilt_db=rng.uniform(0, 3),
            ring_db=rng.uniform(3, 10),
            breath=0.0,
            falsetto=24.0,
        )
    if manner == "growl":
        return replace(singer, growl=rng.uniform(0.3, 0.9), ring_db=rng.uniform(0, 8))
    if manner == "rap":
        low = singer.base - 4
        return replace(singer, spoken=rng.uniform(0.4, 1.0), base=low, vibrato_semitones=0.0)
    return singer


def melody(rng: np.random.Generator, seconds: float, singer: Singer) -> list[Note]:
    """Notes in one key on a grid of beats; motifs that come back, rests, runs, held ends."""
    scale = np.array(SCALES[rng.integers(len(SCALES))])
    ladder = np.sort(np.concatenate([scale + 12 * octave for octave in range(-2, 3)]))
    reach = 2 if singer.spoken else rng.choice([5, 8, 12])
    ladder = ladder[np.abs(ladder) <= reach]
    key = round(singer.base) + rng.normal(0, 0.1)
    beat = 60 / (rng.uniform(75, 105) if singer.spoken else np.exp(rng.uniform(4.2, 5.1)))
    lengths = (0.25, 0.25, 0.5) if singer.spoken else RHYTHMS[rng.integers(len(RHYTHMS))]
    runs = rng.choice([0.0, 0.05, 0.25]) if not singer.spoken else 0.0

    def motif() -> list[tuple[float, int]]:
        count = rng.integers(4, 13) if singer.spoken else rng.integers(3, 10)
        moves = rng.choice(list(STEPS), size=count, p=list(STEPS.values()))
        beats = rng.choice(lengths, size=count).astype(float)
        if rng.random() < 0.4:
            beats[-1] = rng.choice([2.0, 4.0, 6.0])  # held
        return list(zip(beats, moves.tolist(), strict=True))

    motifs = [motif() for _ in range(3)]
    notes: list[Note] = []
    step, now = int(rng.integers(len(ladder))), rng.uniform(0, 0.6)
    while now < seconds - 0.3:
        for beats, move in motifs[int(rng.integers(3))]:
            length = min(max(beats * beat, 0.11), seconds - now)
            if length < 0.1:
                break
            step = int(np.clip(step + move, 0, len(ladder) - 1))
            sound = length * (rng.uniform(0.45, 0.8) if rng.random() < 0.15 else 1.0)
            pitch = key + float(ladder[step])
            if rng.random() < runs and length > 0.3:  # a run down or up on one syllable
                direction, pieces = int(rng.choice([-1, 1])), int(rng.integers(2, 6))
                for i in range(pieces):
                    place = int(np.clip(step + direction * i, 0, len(ladder) - 1))
                    part = 0.09 if i < pieces - 1 else max(0.1, length - 0.09 * (pieces - 1))
                    place_pitch = key + float(ladder[place])
                    notes.append(Note(now + 0.09 * i, part, place_pitch, i > 0))
                length = max(length, 0.09 * (pieces - 1) + 0.1)
            else:
                notes.append(Note(now, sound, pitch))
            now += length
        now += beat * rng.choice([0.0, 0.5, 1.0, 2.0, 4.0])
    return [note for note in notes if note.start + note.length <= seconds + 0.05]


def warp(envelope: FloatArray, ratio: float) -> FloatArray:
    """Spectral envelopes `[frames, bins]` with every formant moved by `ratio`."""
    bins = envelope.shape[1]
    source = np.minimum(np.arange(bins) / ratio, bins - 1.001)
    index = source.astype(int)
    part = source - index
    return envelope[:, index] * (1 - part) + envelope[:, index + 1] * part


def timeline(
    rng: np.random.Generator, notes: list[Note], words: list[Syllable], total: int
) -> tuple[FloatArray, npt.NDArray[np.bool_], FloatArray]:
    """Source frame, whether sounding, and loudness of each of `total` output frames.

    Onsets are played at their own speed before the beat, nuclei stretched up to the next onset; a
    long note holds one place of its vowel, swaying by some frames rather than freezing.
    """
    source, sounding, gain = np.zeros(total), np.zeros(total, bool), np.ones(total)
    heads = [i for i, note in enumerate(notes) if not note.carried]
    free = 0
    for place, index in enumerate(heads):
        word = words[place]
        following = heads[place + 1] if place + 1 < len(heads) else len(notes)
        start = int(notes[index].start / FRAME_S)
        final = notes[following - 1]
        stop = min(int((final.start + final.length) / FRAME_S), total)
        if following < len(notes):  # legato: up to the onset of the next syllable
            next_word = words[place + 1]
            onset = int(notes[following].start / FRAME_S) - (next_word.begin - next_word.onset)
            if stop > onset - 12:
                stop = max(onset, start + 8)
        stop = min(stop, total)
        if stop - start < 8:
            continue
        head = max(0, min(word.begin - word.onset, start - free))
        tail = min(word.end - word.stop, (stop - start) // 3)
        middle, nucleus = stop - tail - start, max(1, word.stop - word.begin)
        held = np.linspace(word.begin, word.stop, middle, endpoint=False)
        if middle > 1.5 * nucleus + 8:
            ways = nucleus // 3, nucleus - nucleus // 3  # into the vowel, and out of it
            held = np.r_[word.begin + np.arange(ways[0]), word.stop - np.arange(ways[1], 0, -1.0)]
            reach = max(2, min(nucleus // 4, 8))
            sway = np.cumsum(rng.uniform(0.2, 0.9, middle - nucleus)) % (2 * reach)
            sway = np.minimum(sway, 2 * reach - sway)
            held = np.insert(held, ways[0], word.begin + ways[0] + sway)
        source[start - head : start] = word.begin - head + np.arange(head)
        source[start : start + middle] = held
        source[start + middle : stop] = word.stop + np.arange(tail)
        sounding[start - head : stop] = True
        effort = rng.normal(0, 2.5) + np.linspace(0, rng.normal(0, 3), stop - start + head)
        gain[start - head : stop] = 10 ** (effort / 20)
        free = stop
    return source, sounding, gain


def intonation(
    rng: np.random.Generator, singer: Singer, notes: list[Note], total: int
) -> FloatArray:
    """The pitch of every frame in semitones: notes, glides, scoops, vibrato, wander."""
    line = np.full(total, notes[0].pitch)
    now = np.arange(total) * FRAME_S
    vibrato = np.zeros(total)
    previous = notes[0].pitch
    for note in notes:
        begin = max(0, int(note.start / FRAME_S) - 8)
        span = now[begin:] - note.start
        width = (0.002 if singer.tuned else singer.glide_s / 3 + 0.004) / (2 if note.carried else 1)
        glide = 1 / (1 + np.exp(np.clip(-span / width, -50, 50)))
        line[begin:] = previous + (note.pitch - previous) * glide
        if rng.random() < singer.scoop and not note.carried and not singer.tuned:
            depth, speed = rng.uniform(0.5, 3), rng.uniform(0.03, 0.12)
            line[begin:] -= depth * np.exp(-np.maximum(span, 0) / speed)
        if note.length > 0.25:
            rise = np.clip((span - singer.vibrato_delay_s) / 0.4, 0, 1)
            vibrato[begin:] = rise
        else:
            vibrato[begin:] = 0
        previous = note.pitch
    if singer.tuned:
        return line
    rate = singer.vibrato_hz * (1 + 0.05 * np.sin(2 * np.pi * 0.4 * now + rng.uniform(0, 6)))
    wave = np.sin(2 * np.pi * np.cumsum(rate) * FRAME_S + rng.uniform(0, 6))
    wander = np.convolve(rng.normal(0, 1, total + 30), np.hanning(31) / 4, "valid")[:total]
    return line + singer.vibrato_semitones * vibrato * wave + singer.jitter_semitones * wander


def growled(
    rng: np.random.Generator, audio: FloatArray, f0: FloatArray, depth: float
) -> FloatArray:
    """`audio` with every second (or third) period weaker: subharmonics, unsteady ones."""
    frames = np.arange(len(audio)) / (FRAME_S * SAMPLE_RATE)
    hertz = np.interp(frames, np.arange(len(f0)), np.where(f0 > 0, f0, 100.0))
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE / rng.choice([2, 2, 3])
    knots = np.clip(rng.normal(1, 0.5, len(f0) // 12 + 2), 0, 1.5)
    unsteady = np.interp(frames / 12, np.arange(len(knots)), knots)
    return audio * (1 - depth * np.clip(unsteady, 0, 1) * (0.5 + 0.5 * np.cos(phase)))


def perform(
    rng: np.random.Generator,
    material: Material,
    singer: Singer,
    notes: list[Note],
    words: list[Syllable],
    seconds: float,
) -> Audio:
    """Sing `notes` with the syllables `words`; returns mono audio `[frames]`."""
    total = int(seconds / FRAME_S)
    source, sounding, gain = timeline(rng, notes, words, total)
    nearest = np.clip(np.round(source).astype(int), 0, len(material.envelope) - 1)
    line = intonation(rng, singer, notes, total)
    if singer.spoken:
        line = line + singer.spoken * np.clip(material.pitch[nearest], -7, 9)
    bins = material.envelope.shape[1]
    frequency = np.arange(bins) * SAMPLE_RATE / 2 / (bins - 1)
    octaves = np.clip(np.log2(np.maximum(frequency, 200) / 1000), -1, 3.5)
    ring = np.exp(-(((np.log2(np.maximum(frequency, 100) / 2900)) / 0.45) ** 2))
    airy = 1 / (1 + np.exp(-(line - singer.base - singer.falsetto)))  # 0 … 1 a frame
    envelope = warp(material.envelope[nearest], singer.formant)
    # Even loudness of the nuclei, so that no syllable of the source sticks out: half way to it.
    power = envelope.sum(axis=1)
    smooth = np.convolve(power, np.full(41, 1 / 41), "same") + 1e-12
    envelope *= (gain**2 / np.sqrt(smooth * np.median(smooth[sounding])))[:, None]
    effort = 20 * np.log10(gain)[:, None]
    colour = (singer.tilt_db + 0.25 * effort) * octaves + singer.ring_db * ring
    colour = colour - airy[:, None] * (3.0 * np.maximum(octaves, -0.5))
    envelope *= 10 ** (colour / 10)
    breath = np.clip(singer.breath + 0.35 * airy, 0, 0.8)[:, None]
    aperiodicity = warp(material.aperiodicity[nearest], singer.formant) ** (1 - breath)
    # Ends of phrases fade over 40 ms instead of breaking off.
    fade = np.convolve(sounding.astype(float), np.hanning(9) / 4, "same") * sounding
    envelope = envelope * fade[:, None] ** 2 + 1e-14
    f0 = np.where(material.voiced[nearest] & sounding, 440 * 2 ** ((line - 69) / 12), 0)
    f0 = np.clip(f0, 0, 1400)
    envelope, aperiodicity = np.ascontiguousarray(envelope), np.ascontiguousarray(aperiodicity)
    audio = pyworld.synthesize(f0, envelope, aperiodicity, SAMPLE_RATE)
    if singer.growl:
        audio = growled(rng, audio, f0, singer.growl)
    return audio[: int(seconds * SAMPLE_RATE)].astype(np.float32)


def shifted(rng: np.random.Generator, notes: list[Note], interval: float) -> list[Note]:
    """The same notes at an interval, a little late and out of tune, as a second take is."""
    late = rng.normal(0, 0.015)
    detune = rng.normal(0, 0.07)
    return [
        replace(
            note,
            start=max(0.0, note.start + late + rng.normal(0, 0.008)),
            pitch=note.pitch + interval + detune,
        )
        for note in notes
    ]


def phrase(rng: np.random.Generator, material: Material, seconds: float) -> Audio:
    """One sung clip `[frames, 2]`, peak 0.7: a lead, and perhaps doubles, harmonies, a choir."""
    singer = random_singer(rng)
    notes = melody(rng, seconds, singer)
    first = int(rng.integers(len(material.syllables)))
    stay = rng.choice([1, 1, 1, 4])  # a vowel sung over several notes: "la la la"
    words = [
        material.syllables[(first + i // stay) % len(material.syllables)] for i in range(len(notes))
    ]
    lead = perform(rng, material, singer, notes, words, seconds)
    mix = np.repeat(lead[:, None], 2, axis=1)
    kind = rng.choice(["alone", "double", "harmony", "choir"], p=[0.64, 0.16, 0.14, 0.06])
    count = {"alone": 0, "double": rng.integers(1, 3), "harmony": rng.integers(1, 3), "choir": 4}
    for index in range(int(count[kind])):
        interval = 0.0 if kind == "double" else float(rng.choice([0, 3, 4, 7, -5, 12, -12]))
        other = singer
        if kind == "choir":  # other throats; a double is the same one
            other = replace(singer, formant=singer.formant * np.exp(rng.normal(0, 0.08)))
        extra = perform(rng, material, other, shifted(rng, notes, interval), words, seconds)
        width = (-1) ** index * rng.uniform(0.2, 1.0)
        level = rng.uniform(0.3, 0.9)
        mix += level * extra[:, None] * np.array([1 - max(width, 0), 1 + min(width, 0)])
    return (0.7 * mix / (np.abs(mix).max() + 1e-9)).astype(np.float32)


def gather(rng: np.random.Generator, folder: Path, sources: list[Clip], seconds: float) -> Audio:
    """About `seconds` of neighbouring clips of one speaker, mono."""
    index = int(rng.integers(len(sources)))
    pieces: list[Audio] = []
    length = 0
    while length < seconds * SAMPLE_RATE and len(pieces) < len(sources):
        clip = sources[index % len(sources)]
        surplus = max(0, clip.frames - int(seconds * SAMPLE_RATE))
        start = int(rng.integers(surplus + 1))
        piece = read(folder, clip, start, min(clip.frames, int(seconds * SAMPLE_RATE)))[:, 0]
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
    names = list(found)
    weights = np.array([sum(c.frames for c in found[name]) for name in names], float) ** 0.4
    prefix = "singing" if split == "train" else "heldout-singing"
    writer = ShardWriter(folder, f"{prefix}-{seed}", 2)
    end = time.monotonic() + seconds
    takes, length = 0, 0.0
    while time.monotonic() < end:
        name = str(rng.choice(names, p=weights / weights.sum()))
        material = analyse(gather(rng, folder, found[name], SOURCE_S).astype(np.float64))
        if len(material.syllables) < 4:
            continue
        for _ in range(TAKES):
            audio = phrase(rng, material, rng.uniform(9, 13))
            licence = found[name][0].licence
            writer.add(audio, "singing", name, f"take {takes}", licence, split)
            length += len(audio) / SAMPLE_RATE
        takes += 1
    writer.flush()
    print(
        f"{takes} takes, {length / 60:.1f} minutes, {time.process_time():.0f} s of CPU", flush=True
    )


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
