"""A new network on trial: a minute of music, noise and silence, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from realtime_sep.dsp.delay import Delay
from realtime_sep.models.registry import ModelEntry
from realtime_sep.native import denormals_flushed
from realtime_sep.separators import Separator
from realtime_sep.separators.onnx import load
from realtime_sep.types import Float32

#: Stems may be so much louder or softer (dB) at the end than when the same music first came.
_DRIFT = 3.0
#: What may come out when nothing goes in, in dBFS.
_QUIET = -70.0
#: Part of real time above which a network is not to be trusted with a live stream.
_TRUSTED = 0.8
#: Longest lag of the stems behind their mix that is looked for, in samples.
_FARTHEST = 8192
#: Part of the mix that the stems must resemble for their lag to mean anything.
_ALIKE = 0.3
_SILENT_DB = -120.0


@dataclass(frozen=True)
class Trial:
    """What happened.

    Attributes:
        latency: samples by which the stems lag the input, as described.
        rtf: seconds of computing per second of audio; of all threads' work that is waited for.
        slow_hops: hops that took longer than they last.
        bad_hops: hops in which a stem was not a number or infinite.
        drift: by how many dB the loudest change of a stem's level is, for the same music.
        silence: level in dBFS of the loudest stem when nothing goes in.
        offset: samples by which the stems lag the input besides `latency`; None if unknown.
        sum_error: level in dBFS by which the stems' sum differs from the delayed mix.
        remarks: what is wrong, in words.
    """

    name: str
    seconds: float
    samplerate: int
    latency: int
    hop: int
    provider: str
    rtf: float
    worst_hop: float
    slow_hops: int
    bad_hops: int
    drift: float
    silence: float
    offset: int | None
    sum_error: float
    remarks: tuple[str, ...]

    @property
    def latency_ms(self) -> float:
        return 1e3 * self.latency / self.samplerate


def trial(entry: ModelEntry, seconds: float = 60.0, **options: Any) -> Trial:
    """Load an installed model and try it.

    Args:
        seconds: of audio; the same music comes first and last.
        options: as of `separators.onnx.load`.

    Raises:
        ModelError, UsageError: as `load`.
    """
    rate = entry.metadata.sample_rates[0]
    separator = load(entry, samplerate=rate, **options)
    try:
        with denormals_flushed():
            return _run(separator, entry.name, max(4.0, seconds))
    finally:
        if (close := getattr(separator, "close", None)) is not None:
            close()


def music(frames: int, samplerate: int, channels: int) -> Float32:
    """Chords, a beat and a wavering voice, made by formula; at about -14 dBFS."""
    t = np.arange(frames) / samplerate
    rng = np.random.default_rng(5)
    beat = (2 * t) % 1
    bar = (t / 2).astype(int) % 4
    root = 110 * 2 ** (np.array([0, 5, 7, 3])[bar] / 12)
    chord = sum(
        np.sin(2 * np.pi * np.cumsum(root * ratio * n) / samplerate) / n
        for ratio in (1, 1.25, 1.5)
        for n in (1, 2, 3)
    )
    drum = rng.standard_normal(frames) * np.exp(-30 * beat)
    pitch = (
        330 * 2 ** (np.array([0, 2, 4, -3])[bar] / 12) * (1 + 0.01 * np.sin(2 * np.pi * 5.5 * t))
    )
    phase = 2 * np.pi * np.cumsum(pitch) / samplerate
    voice = sum(np.sin(n * phase) / n**1.2 for n in range(1, 12)) * (beat > 0.1)
    sides = [0.8 * chord + drum + voice, 1.2 * chord + 0.7 * drum + voice]
    mix = np.stack(sides[:channels], axis=1)
    loud: Float32 = (0.2 * mix / np.sqrt(np.mean(mix**2))).astype(np.float32)
    return loud


def _run(separator: Separator, name: str, seconds: float) -> Trial:
    info = separator.info
    hops = max(round(seconds / 4 * info.samplerate / info.hop), 1)
    quarter = hops * info.hop
    rng = np.random.default_rng(6)
    first = music(quarter, info.samplerate, info.channels)
    # The stems' delay is played out in silence before what is compared begins.
    rest = -(-info.latency // info.hop) * info.hop
    signal = np.concatenate(
        [
            first,
            rng.uniform(-0.5, 0.5, (quarter, info.channels)).astype(np.float32),
            np.zeros((quarter + rest, info.channels), np.float32),
            first,
            np.zeros((rest, info.channels), np.float32),
        ]
    )
    stems: Float32 = np.zeros((len(info.stems), info.hop, info.channels), np.float32)
    dry: Float32 = np.zeros((info.hop, info.channels), np.float32)
    delay = Delay(info.latency, info.channels)
    out: Float32 = np.zeros((len(info.stems), *signal.shape), np.float32)
    times = np.zeros(len(signal) // info.hop)
    bad, error = 0, 0.0
    for i in range(len(times)):
        part = slice(i * info.hop, (i + 1) * info.hop)
        begin = time.perf_counter()
        separator.process(signal[part], stems)
        times[i] = time.perf_counter() - begin
        delay.process(signal[part], dry)
        if not np.isfinite(stems).all():
            bad += 1
            separator.reset()
            np.nan_to_num(stems, copy=False, posinf=0, neginf=0)
        else:
            error = max(error, float(np.abs(stems.sum(axis=0) - dry).max()))
        out[:, part] = stems
    aligned = out[:, info.latency :]
    again = 3 * quarter + rest
    # The beginning of each stretch still hears what was before it.
    skip = min(quarter // 2, 2 * info.samplerate)
    drift = max(
        abs(_level(b) - _level(a))
        for a, b in zip(
            aligned[:, skip:quarter], aligned[:, again + skip : again + quarter], strict=True
        )
        if max(_level(a), _level(b)) > _QUIET
    )
    quiet = aligned[:, 2 * quarter + skip : 3 * quarter]
    return _judged(
        name=name,
        seconds=len(signal) / info.samplerate,
        samplerate=info.samplerate,
        latency=info.latency,
        hop=info.hop,
        provider=info.provider,
        rtf=max(float(times.sum()) * info.samplerate / len(signal), info.rtf),
        worst_hop=float(times.max()),
        slow_hops=int(np.sum(times > info.hop / info.samplerate)),
        bad_hops=bad,
        drift=drift,
        silence=max(_level(stem) for stem in quiet),
        offset=_offset(aligned[:-1, :quarter].sum(axis=0), first),
        sum_error=float(20 * np.log10(error)) if error > 0 else _SILENT_DB,
    )


def _judged(**figures: Any) -> Trial:
    remarks = []
    if figures["bad_hops"]:
        remarks.append(
            f"{figures['bad_hops']} hops were not finite: the network fails on some input "
            "(silence? a division by its level?)"
        )
    if figures["rtf"] > _TRUSTED:
        remarks.append(
            f"it takes {figures['rtf']:.2f} s per second of audio on this machine: too slow to be "
            "live; a graphics card, a longer hop or a smaller network would help"
        )
    if figures["drift"] > _DRIFT:
        remarks.append(
            f"the same music comes out {figures['drift']:.1f} dB apart after a while: its states "
            "drift, or are connected in the wrong order"
        )
    if figures["silence"] > _QUIET:
        remarks.append(f"silence comes out at {figures['silence']:.0f} dBFS")
    if figures["offset"]:
        more = figures["offset"]
        remarks.append(
            f"the stems lag the mix by {more} samples more than described: correct lookahead or "
            "delay"
        )
    return Trial(**figures, remarks=tuple(remarks))


def _level(audio: Float32) -> float:
    power = float(np.mean(np.square(audio, dtype=np.float64)))
    return max(float(10 * np.log10(power)), _SILENT_DB) if power > 0 else _SILENT_DB


def _offset(stems: Float32, mix: Float32) -> int | None:
    """The lag at which the stems resemble the mix most; None where they hardly do."""
    size = len(mix) + _FARTHEST
    a, b = (np.fft.rfft(x.sum(axis=1, dtype=np.float64), size) for x in (stems, mix))
    scale = np.sqrt(np.sum(np.abs(a) ** 2) * np.sum(np.abs(b) ** 2)) * 2 / size
    if scale <= 0:
        return None
    likeness = np.fft.irfft(a * np.conj(b), size) / scale
    likeness = np.concatenate([likeness[-_FARTHEST // 2 :], likeness[: _FARTHEST // 2]])
    best = int(np.argmax(np.abs(likeness)))
    if abs(likeness[best]) < _ALIKE:
        return None
    # A peak that is hardly higher than the one in its place is no lag.
    here = abs(likeness[_FARTHEST // 2])
    return 0 if here > 0.95 * abs(likeness[best]) else best - _FARTHEST // 2
