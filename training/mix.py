"""Mixtures made on the fly: voices, effects, accompaniment, level, width.

`Mixer.batch` returns `(vocals, accompaniment)`, float32 `[batch, 2, samples]` at 44.1 kHz.
Prepared stems stay in a small pool and are used again with other partners, gains and channels, so
that one loader process keeps up with the training.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
from scipy.signal import butter, fftconvolve, sosfilt

from training.harmony import agreement, chroma
from training.shards import SAMPLE_RATE, Audio, Clip, clips, converted, groups, pairs, place, read

# Shares of the vocal sources; what is missing on disk gives its share to the others.  Chosen by
# what a small network that learned from one of them alone scored on real songs
# (docs/training.md): real singing, mixed as songs are, is worth far more than any amount of
# invented singing or speech.
VOICES = {"teacher_vocals": 0.5, "song_vocals": 0.25, "singing": 0.15, "voice": 0.1}
BACKINGS = {
    "accompaniment": 0.55,
    "band": 0.2,
    "lead": 0.15,
    "song_accompaniment": 0.06,
    "teacher_accompaniment": 0.04,
}
# Most are songs as they are, voice and music of one (see `Mixer._song`): nothing was worth more.
MODES = {"song": 0.58, "mix": 0.16, "instrumental": 0.2, "voice": 0.05, "silence": 0.01}
# Resampling moves pitch, formants and tempo together; more than this makes voices that nobody has,
# and scored worse.
MUSIC_RATIOS, VOICE_RATIOS = (0.88, 1.13), (0.92, 1.09)
# A quarter of the mixtures sound as 48 kHz read as 44.1: slower, lower, nothing above 20 kHz.
SLOW, SLOW_SHARE = 44_100 / 48_000, 0.25
TRIES, SOUNDING = 6, 0.06  # draws until the voice is above this power against the music's
SONGS = ("song", "teacher")  # kinds whose voices and music belong together
ORIGINAL = 0.25  # share of a song's own voice where there are converted ones, too
POOL, FRESH = 60, 0.45  # stems kept; share of those prepared anew
CANDIDATES, IN_KEY = 8, 0.7  # voices of which the one in key is taken; share of such mixtures
GROUP_POWER = 0.5  # a group's weight grows with the root of its length


def level_of(audio: Audio) -> float:
    """Root mean square of the sounding parts (within 30 dB of the loudest 50 ms)."""
    block = SAMPLE_RATE // 20
    usable = len(audio) // block * block
    power = np.mean(audio[:usable].reshape(-1, block, audio.shape[1]) ** 2, axis=(1, 2))
    loud = power[power > 1e-3 * power.max(initial=0.0)]
    return float(np.sqrt(loud.mean())) if len(loud) else 0.0


def decibels(value: float) -> float:
    return float(10 ** (value / 20))


def equalise(rng: np.random.Generator, audio: Audio) -> Audio:
    """Two peaking filters and perhaps a high-pass or low-pass (second order sections)."""
    sections = []
    for _ in range(2):
        hertz, gain, q = np.exp(rng.uniform(4.6, 9.2)), rng.uniform(-8, 8), rng.uniform(0.4, 1.5)
        amp, w = 10 ** (gain / 40), 2 * np.pi * hertz / SAMPLE_RATE
        alpha = np.sin(w) / (2 * q)
        b = np.array([1 + alpha * amp, -2 * np.cos(w), 1 - alpha * amp])
        a = np.array([1 + alpha / amp, -2 * np.cos(w), 1 - alpha / amp])
        sections.append(np.r_[b, a] / a[0])
    if rng.random() < 0.3:
        low = rng.random() < 0.5  # a low-pass dulls, a high-pass thins
        w = 2 * np.pi * (rng.uniform(4000, 14000) if low else rng.uniform(60, 250)) / SAMPLE_RATE
        alpha, cos = np.sin(w) / 1.4, np.cos(w)
        edge = (1 - cos) / 2 if low else (1 + cos) / 2
        b = np.array([edge, 2 * edge if low else -2 * edge, edge])
        a = np.array([1 + alpha, -2 * cos, 1 - alpha])
        sections.append(np.r_[b, a] / a[0])
    return sosfilt(np.array(sections), audio, axis=0).astype(np.float32)


def tilt(rng: np.random.Generator, audio: Audio) -> Audio:
    """Another microphone or mouth: a first-order shelf, up to 9 dB between dull and bright."""
    gain, pole = 10 ** (rng.uniform(-9, 9) / 20), np.exp(rng.uniform(-3.5, -0.3))
    # H = g + (1 - g) · low-pass: 1 at the bottom, between g and 1 at the top.
    b = np.array([gain + (1 - gain) * pole, -gain * (1 - pole), 0])
    a = np.array([1, -(1 - pole), 0])
    return sosfilt(np.r_[b, a][None], audio, axis=0).astype(np.float32)


def telephone(rng: np.random.Generator, audio: Audio) -> Audio:
    """The band of a telephone, a megaphone or an old record."""
    low, high = rng.uniform(200, 600), rng.uniform(2200, 5000)
    sections = butter(2, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos")
    return sosfilt(sections, audio, axis=0).astype(np.float32)


def chorus(rng: np.random.Generator, audio: Audio) -> Audio:
    """Doubling: a copy on either side, delayed by a slowly wandering 8 to 35 ms (detuned)."""
    frames = len(audio)
    out, mono = audio.copy(), audio.mean(axis=1)
    for channel in (0, 1):
        knots = np.cumsum(rng.normal(0, 0.0012, frames // SAMPLE_RATE * 2 + 3))
        knots = np.clip(rng.uniform(0.01, 0.03) + knots - knots.mean(), 0.005, 0.045)
        delay = np.interp(np.arange(frames), np.linspace(0, frames, len(knots)), knots)
        place = np.maximum(np.arange(frames) - delay * SAMPLE_RATE, 0)
        whole = place.astype(np.int64)
        part = (place - whole).astype(np.float32)
        after = np.minimum(whole + 1, frames - 1)
        copy = mono[whole] * (1 - part) + mono[after] * part
        out[:, channel] += decibels(rng.uniform(-12, -2)) * copy
    return out


def compress(rng: np.random.Generator, audio: Audio) -> Audio:
    """Feed-forward compressor on 5 ms blocks, ratio 2 to 6."""
    block = SAMPLE_RATE // 200
    count = -(-len(audio) // block)
    padded = np.pad(audio, ((0, count * block - len(audio)), (0, 0)))
    power = np.mean(padded.reshape(count, block, -1) ** 2, axis=(1, 2)) + 1e-9
    smooth = np.convolve(power, np.full(6, 1 / 6), "same")
    over = np.maximum(0, 10 * np.log10(smooth / (level_of(audio) ** 2 + 1e-9)) + rng.uniform(0, 12))
    gain = 10 ** (-over * (1 - 1 / rng.uniform(2, 6)) / 20)
    curve = np.interp(np.arange(len(audio)), np.arange(count) * block + block / 2, gain)
    return audio * curve[:, None].astype(np.float32)


def reverberate(rng: np.random.Generator, audio: Audio) -> Audio:
    """A room, plate or hall of decaying noise, other on either channel, and perhaps an echo."""
    out = audio.copy()
    if rng.random() < 0.75:
        seconds = rng.choice([0.25, 0.6, 1.2, 2.2], p=[0.3, 0.3, 0.28, 0.12]) * rng.uniform(
            0.6, 1.4
        )
        frames = int(seconds * SAMPLE_RATE)
        now = np.arange(frames)[:, None] / SAMPLE_RATE
        room = rng.standard_normal((frames, 2)) * np.exp(-6.9 * now / seconds)
        room = np.cumsum(room, axis=0) * 0.05 + room if rng.random() < 0.5 else room
        room /= np.sqrt((room**2).sum(axis=0))
        late = int(rng.choice([0.0, 0.05, 0.12]) * rng.random() * SAMPLE_RATE)
        send = audio.mean(axis=1, keepdims=True).astype(np.float32)
        wet = fftconvolve(np.repeat(send, 2, axis=1), room.astype(np.float32), axes=0)
        wet = np.pad(wet[: len(audio) - late], ((late, 0), (0, 0)))
        out += decibels(rng.uniform(-20, -3)) * wet.astype(np.float32)
    if rng.random() < 0.35:
        delay = int(rng.uniform(0.08, 0.5) * SAMPLE_RATE)
        gain = decibels(rng.uniform(-18, -6))
        for tap in range(1, 4):
            if tap * delay < len(out):
                out[tap * delay :] += gain**tap * audio[: -tap * delay]
    return out


@dataclass(frozen=True)
class Stem:
    """Prepared: of level one, `audio (samples, 2)`, with its `training.harmony.chroma`."""

    audio: Audio
    chroma: npt.NDArray[np.float64]


class Mixer:
    """Endless batches from the shards in `folder`, reproducible from `seed` and their contents."""

    def __init__(self, folder: Path, samples: int, seed: int, split: str = "train") -> None:
        self.folder, self.samples = folder, samples
        self.rng = np.random.default_rng(seed)
        self.found: dict[str, list[tuple[float, list[Clip]]]] = {}
        for kind in (*VOICES, *BACKINGS):
            items = clips(folder, {kind}, split)
            if items:
                self.found[kind] = [
                    (sum(c.frames for c in members) ** GROUP_POWER, members)
                    for _, members in groups(items)
                ]
        # By voice and speed (see SLOW), so that the two stems of a mixture are of one.
        self.pools = {
            (voice, slow): deque[Stem](maxlen=POOL // 2 if slow else POOL)
            for voice in (False, True)
            for slow in (False, True)
        }
        self.slow = False
        # Music of each song's voice, and what `training.convert` made of the voice, by its place.
        self.songs = {voice: music for kind in SONGS for voice, music in pairs(folder, kind, split)}
        self.singers: dict[str, list[Clip]] = {}
        for kind in SONGS:
            self.singers |= converted(folder, kind, split)

    def _kind(self, shares: dict[str, float]) -> str:
        present = {kind: share for kind, share in shares.items() if kind in self.found}
        weights = np.array(list(present.values()))
        return str(self.rng.choice(list(present), p=weights / weights.sum()))

    def _group(self, kind: str) -> list[Clip]:
        weights = np.array([weight for weight, _ in self.found[kind]])
        index = int(self.rng.choice(len(weights), p=weights / weights.sum()))
        return self.found[kind][index][1]

    def _stretch(self, frames: int, ratios: tuple[float, float]) -> tuple[int, float]:
        """How much to read for `frames` after resampling, and the ratio of the two."""
        ratio = SLOW if self.slow else 1.0
        if self.rng.random() < 0.7:
            ratio *= float(np.exp(self.rng.uniform(*np.log(ratios))))
        return (frames if ratio == 1 else int(frames * ratio) + 8), ratio

    def _continuous(self, kind: str) -> Audio:
        """A stretch of one clip, preferably long enough, `[samples, 2]`."""
        members = self._group(kind)
        ratios = VOICE_RATIOS if kind in VOICES else MUSIC_RATIOS
        frames, ratio = self._stretch(self.samples, ratios)
        clip = members[int(self.rng.integers(len(members)))]
        start = int(self.rng.integers(max(1, clip.frames - frames + 1)))
        return self._fit(read(self.folder, clip, start, frames), ratio)

    def _strung(self, kind: str) -> Audio:
        """Short clips of one speaker strung together with pauses, `[samples, 2]`."""
        members = self._group(kind)
        frames, ratio = self._stretch(self.samples, VOICE_RATIOS)
        out = np.zeros((frames, 1), np.float32)
        index, now = int(self.rng.integers(len(members))), 0
        while now < frames:
            clip = members[index % len(members)]
            piece = read(self.folder, clip, 0, min(clip.frames, frames - now))
            level = level_of(piece)
            if level > 1e-3:
                out[now : now + len(piece)] += piece * (0.1 / level)
            now += len(piece) + int(self.rng.choice([0.0, 0.1, 0.8]) * SAMPLE_RATE)
            index += 1
        return self._fit(out, ratio)

    def _fit(self, audio: Audio, ratio: float) -> Audio:
        if audio.shape[1] == 1:
            audio = np.repeat(audio, 2, axis=1)
        if ratio != 1.0:
            audio = soxr.resample(audio, ratio, 1.0, "LQ")
        audio = audio[: self.samples]
        return np.pad(audio, ((0, self.samples - len(audio)), (0, 0))).astype(np.float32)

    def _dry_voice(self) -> Audio:
        kind = self._kind(VOICES)
        voice = self._strung(kind) if kind in ("voice", "speech") else self._continuous(kind)
        if self.rng.random() < 0.5:
            voice = equalise(self.rng, voice)
        if self.rng.random() < 0.3:
            voice = tilt(self.rng, voice)
        if kind == "teacher_vocals":
            return voice  # comes with the other effects of its song
        if self.rng.random() < 0.5:
            voice = compress(self.rng, voice)
        if self.rng.random() < 0.15:
            drive = decibels(self.rng.uniform(0, 18)) / (level_of(voice) * 4 + 1e-6)
            voice = np.tanh(voice * drive)
        if self.rng.random() < 0.04:
            voice = telephone(self.rng, voice)
        if self.rng.random() < 0.12:
            voice = chorus(self.rng, voice)
        if self.rng.random() < 0.3:
            pan = self.rng.uniform(-0.6, 0.6)
            voice = voice * np.array([1 - max(pan, 0), 1 + min(pan, 0)], np.float32)
        return reverberate(self.rng, voice) if self.rng.random() < 0.8 else voice

    def _voice(self) -> Audio:
        """A voice of level one, perhaps with backing voices."""
        voice = self._dry_voice()
        voice = voice / (level_of(voice) + 1e-6)
        if self.rng.random() < 0.2:
            for _ in range(int(self.rng.integers(1, 3))):
                other = self._dry_voice()
                gain = decibels(self.rng.uniform(-12, -2)) / (level_of(other) + 1e-6)
                voice = voice + gain * other
            voice = voice / (level_of(voice) + 1e-6)
        return voice.astype(np.float32)

    def _backing(self) -> Audio:
        """An accompaniment of level one."""
        music = self._continuous(self._kind(BACKINGS))
        if self.rng.random() < 0.15:
            other = self._continuous(self._kind(BACKINGS))
            gain = decibels(self.rng.uniform(-9, 0)) * level_of(music) / (level_of(other) + 1e-6)
            music = music + min(gain, 10.0) * other
        if self.rng.random() < 0.4:
            music = equalise(self.rng, music)
        if self.rng.random() < 0.2:
            music = compress(self.rng, music)
        return (music / (level_of(music) + 1e-5)).astype(np.float32)

    def _drawn(self, voice: bool, partner: Stem | None = None) -> Stem:
        """A stem of the pool; for most partners the one of several that is best in their key."""
        pool = self.pools[voice, self.slow]
        if self.rng.random() < FRESH or len(pool) < POOL // 4:
            audio = self._voice() if voice else self._backing()
            pool.append(Stem(audio, chroma(audio)))
        if partner is None or self.rng.random() > IN_KEY:
            return pool[int(self.rng.integers(len(pool)))]
        found = [pool[int(self.rng.integers(len(pool)))] for _ in range(CANDIDATES)]
        return max(found, key=lambda stem: agreement(stem.chroma, partner.chroma))

    def _song(self) -> tuple[Audio, Audio]:
        """A stretch of a song, the voice or a converted one with its music, in their levels."""
        kind = self._kind({f"{kind}_vocals": VOICES[f"{kind}_vocals"] for kind in SONGS})
        frames, ratio = self._stretch(self.samples, MUSIC_RATIOS)
        for _ in range(TRIES):
            members = self._group(kind)
            clip = members[int(self.rng.integers(len(members)))]
            music = self.songs[clip]
            singers = self.singers.get(place(clip))
            if singers and self.rng.random() > ORIGINAL:
                clip = singers[int(self.rng.integers(len(singers)))]
            start = int(self.rng.integers(max(1, clip.frames - frames + 1)))
            both = np.hstack([read(self.folder, part, start, frames) for part in (clip, music)])
            if np.square(both[:, :2]).sum() > SOUNDING * np.square(both[:, 2:]).sum():
                break
        if self.rng.random() < 0.5:
            both = equalise(self.rng, both)
        both = self._fit(both, ratio) / (level_of(both[:, 2:]) + 1e-5)
        return both[:, :2], both[:, 2:]

    def _varied(self, audio: Audio) -> Audio:
        """Channel swap and polarity of a stem used again."""
        rng = self.rng
        if rng.random() < 0.5:
            audio = audio[:, ::-1]
        return audio * np.float32(rng.choice([-1, 1]))

    def pair(self) -> tuple[Audio, Audio]:
        """One `(vocals, accompaniment)`, each `[samples, 2]`."""
        rng = self.rng
        mode = str(rng.choice(list(MODES), p=list(MODES.values())))
        if mode == "song" and not self.songs:
            mode = "mix"
        self.slow = bool(rng.random() < SLOW_SHARE)
        silence = np.zeros((self.samples, 2), np.float32)
        voice, music = silence, silence
        if mode == "song":
            voice, music = self._song()
            voice = voice * np.float32(decibels(rng.uniform(-4, 4)))
        partner = None
        if mode in ("mix", "instrumental"):
            partner = self._drawn(voice=False)
            music = self._varied(partner.audio)
        if mode in ("mix", "voice"):
            voice = self._varied(self._drawn(voice=True, partner=partner).audio)
            voice = voice * np.float32(decibels(float(np.clip(rng.normal(-2, 5), -15, 12))))
        width = rng.choice([0.0, 0.1, 1.0], p=[0.3, 0.1, 0.6])
        if width < 1:
            middle = np.array([[1 + width, 1 - width], [1 - width, 1 + width]], np.float32) / 2
            voice, music = voice @ middle, music @ middle
        if mode == "mix" and rng.random() < 0.15:
            # The voice enters or stops somewhere: onsets out of pure music must be found too.
            edge = int(rng.integers(self.samples))
            voice = voice.copy()
            if rng.random() < 0.5:
                voice[:edge] = 0
            else:
                voice[edge:] = 0
        mix = voice + music
        gain = decibels(rng.uniform(-40, -10)) / (level_of(mix) + 1e-6)
        gain = min(gain, 1.0 / (float(np.abs(mix).max()) + 1e-6))
        return voice * np.float32(gain), music * np.float32(gain)

    def batch(self, size: int) -> tuple[Audio, Audio]:
        pairs = [self.pair() for _ in range(size)]
        stems = [np.stack([pair[i].T for pair in pairs]) for i in (0, 1)]
        return np.ascontiguousarray(stems[0]), np.ascontiguousarray(stems[1])

    def batches(self, size: int) -> Iterator[tuple[Audio, Audio]]:
        while True:
            yield self.batch(size)
