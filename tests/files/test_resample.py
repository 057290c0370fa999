"""Resampling that streams: no delay, no drift, exact length, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.dsp.resample import StreamResampler, native_rate
from realtime_sep.types import Float32

RATES = [8000, 11025, 16000, 22050, 32000, 44100, 48000, 88200, 96000, 192000]


def tones(rate: int, frames: int) -> Float32:
    """Two sines below every Nyquist frequency in play, one per channel."""
    time = np.arange(frames) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * f * time) for f in (440.0, 2500.0)], axis=1).astype(
        np.float32
    )


def decibels(error: Float32) -> float:
    return float(20 * np.log10(np.abs(error).max() + 1e-12))


@pytest.mark.parametrize(
    ("rate", "native"),
    [(44100, 44100), (48000, 48000), (46000, 46000), (8000, 48000), (11025, 44100),
     (16000, 48000), (22050, 44100), (32000, 48000), (88200, 44100), (96000, 48000),
     (192000, 48000)],
)  # fmt: skip
def test_the_rate_to_separate_at(rate: int, native: int) -> None:
    assert native_rate(rate) == native


@pytest.mark.parametrize(
    ("source", "target"), [(s, t) for s in RATES for t in (44100, 48000) if s != t]
)
def test_frame_zero_stays_frame_zero(source: int, target: int) -> None:
    resampler = StreamResampler(source, target, 2)
    audio = tones(source, source)
    out = np.concatenate([resampler.process(audio), resampler.flush()])
    assert out.shape == (target, 2)
    edge = target // 20
    assert decibels((out - tones(target, target))[edge:-edge]) < -95


@settings(max_examples=25, deadline=None)
@given(
    source=st.sampled_from(RATES),
    cuts=st.lists(st.integers(0, 6000), max_size=12),
    frames=st.integers(0, 6000),
)
def test_blocks_do_not_matter(source: int, cuts: list[int], frames: int) -> None:
    audio = np.random.default_rng(0).uniform(-1, 1, (frames, 2)).astype(np.float32)
    whole = StreamResampler(source, 48000, 2)
    expected = np.concatenate([whole.process(audio), whole.flush()])
    parts = StreamResampler(source, 48000, 2)
    got = [parts.process(part) for part in np.split(audio, sorted(min(c, frames) for c in cuts))]
    joined = np.concatenate([*got, parts.flush()])
    assert joined.shape == expected.shape == (-(-frames * 48000 // source), 2)
    np.testing.assert_allclose(joined, expected, atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 11025, 32000, 96000, 192000])
@pytest.mark.parametrize("frames", [0, 1, 799, 20_000])
def test_there_and_back_again(rate: int, frames: int) -> None:
    audio = tones(rate, frames)
    there = StreamResampler(rate, 44100, 2)
    back = StreamResampler(44100, rate, 2)
    between = np.concatenate([there.process(audio), there.flush()])
    out = np.concatenate([back.process(between), back.flush(frames)])
    assert out.shape == audio.shape
    if frames > 5000:
        assert decibels((out - audio)[2000:-2000]) < -95


def test_no_drift_in_ten_minutes() -> None:
    """Odd ratio, odd blocks: the last second is as aligned as the first."""
    rate, seconds = 11025, 600
    resampler = StreamResampler(rate, 48000, 1)
    last = np.empty((0, 1), np.float32)
    total, position = 0, 0
    while position < rate * seconds:
        block = np.arange(position, min(position + 4999, rate * seconds))
        out = resampler.process(np.sin(2 * np.pi * 440 * block / rate)[:, None].astype(np.float32))
        total += len(out)
        position += 4999
        if len(out):
            last = out
    index = np.arange(total - len(last), total)
    expected = np.sin(2 * np.pi * 440 * index / 48000)
    assert decibels(last[:, 0] - expected.astype(np.float32)) < -80
