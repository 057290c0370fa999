"""The limiter: its ceiling holds for whatever comes, and what stays below is not touched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.dsp.limiter import RELEASE, Limiter
from realtime_sep.types import Float32

RATE = 48000
CEILING = np.float32(10 ** (-1 / 20))

#: What a broken effect might send, beside music.
HOSTILE = [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e30, 1e-45, -1e-40, 0.0, -0.0, 1.0, 0.5]
lookaheads = st.sampled_from([1, 2, 3, 31, 32, 100])


def limit(limiter: Limiter, audio: Float32, blocks: list[int] | None = None) -> Float32:
    parts = np.split(audio, np.cumsum(blocks)) if blocks else [audio]
    parts = [part.copy() for part in parts]
    for part in parts:
        limiter.process(part)
    return np.concatenate(parts)


def music(frames: int, level: float, seed: int = 0) -> Float32:
    """Noise with an envelope: quiet stretches, bursts, single peaks."""
    rng = np.random.default_rng(seed)
    envelope = np.repeat(rng.uniform(0, 1, frames // 50 + 1) ** 3, 50)[:frames, np.newaxis]
    audio = envelope * rng.uniform(-level, level, (frames, 2))
    audio[rng.integers(0, frames, frames // 500)] *= 4
    return audio.astype(np.float32)


def late(audio: Float32, frames: int) -> Float32:
    return np.concatenate([np.zeros((frames, audio.shape[1]), np.float32), audio])[: len(audio)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    level=st.sampled_from([0.5, 1.0, 3.0, 1e3, 1e30]),
    hostile=st.lists(st.tuples(st.integers(0, 1999), st.sampled_from(HOSTILE)), max_size=40),
    lookahead=lookaheads,
)
def test_the_ceiling_holds_for_whatever_comes(
    seed: int, level: float, hostile: list[tuple[int, float]], lookahead: int
) -> None:
    audio = music(2000, level, seed)
    for place, value in hostile:
        audio[place, place % 2] = value
    out = limit(Limiter(RATE, 2, lookahead=lookahead), audio, [256] * 7)
    assert np.all(np.isfinite(out))
    assert np.abs(out).max() <= CEILING


def test_what_was_not_finite_is_counted_and_silent() -> None:
    audio = np.full((100, 2), 0.5, np.float32)
    audio[10, 0], audio[11, 1], audio[50, 0] = np.nan, np.inf, -np.inf
    limiter = Limiter(RATE, 2)
    part = audio.copy()
    assert limiter.process(part) == (False, 3)
    expected = np.where(np.isfinite(audio), audio, 0)
    np.testing.assert_array_equal(part, late(expected, limiter.latency))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), lookahead=lookaheads, block=st.integers(1, 500))
def test_bit_transparent_up_to_the_ceiling(seed: int, lookahead: int, block: int) -> None:
    audio = np.random.default_rng(seed).uniform(-CEILING, CEILING, (1500, 2)).astype(np.float32)
    audio[::100] = CEILING
    limiter = Limiter(RATE, 2, lookahead=lookahead)
    assert limiter.latency == lookahead
    out = limit(limiter, audio, [block] * (1499 // block))
    np.testing.assert_array_equal(out, late(audio, lookahead))


def test_it_says_when_it_acts() -> None:
    limiter = Limiter(RATE, 1)
    block = np.full((64, 1), 0.5, np.float32)
    assert limiter.process(block.copy()) == (False, 0)
    block[32] = 2
    assert limiter.process(block.copy()) == (True, 0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    blocks=st.lists(st.integers(1, 300), min_size=1, max_size=20),
    lookahead=lookaheads,
)
def test_blocks_do_not_matter(seed: int, blocks: list[int], lookahead: int) -> None:
    audio = music(3000, 1.5, seed)
    audio[1000:1100] = 0
    whole = limit(Limiter(RATE, 2, lookahead=lookahead), audio)
    parts = limit(Limiter(RATE, 2, lookahead=lookahead), audio, blocks)
    np.testing.assert_array_equal(parts, whole)


def gain_curve(level: float, at: int, frames: int) -> Float32:
    """Gain over a quiet tone that one peak interrupts."""
    audio = np.full((frames, 1), 0.1, np.float32)
    audio[at] = level
    limiter = Limiter(RATE, 1)
    return limit(limiter, audio)[limiter.latency :, 0] / 0.1


def test_the_gain_is_down_before_the_peak_and_moves_gently() -> None:
    """No step on the way down is larger than the whole way over the look-ahead."""
    curve = gain_curve(4.0, 1000, 3000)
    curve[1000] = curve[999]
    down = 1 - CEILING / 4
    assert curve[999] == pytest.approx(CEILING / 4, rel=0.05)
    assert np.all(curve[:968] == 1)
    assert np.abs(np.diff(curve)).max() <= down / 32 * 1.01


def test_release_has_its_time_constant_and_an_end() -> None:
    curve = gain_curve(4.0, 100, 100_000)
    after = np.arange(1, 4) * int(RELEASE * RATE)
    lost = (1 - curve[132 + after]) / (1 - CEILING / 4)
    np.testing.assert_allclose(lost, np.exp([-1, -2, -3]), rtol=0.03)
    assert np.all(curve[-1000:] == 1), "back to bit-exact"


def test_reset_is_a_new_limiter() -> None:
    limiter, audio = Limiter(RATE, 2), music(1000, 3.0)
    first = limit(limiter, audio)
    assert not np.array_equal(limit(limiter, audio), first)
    limiter.reset()
    np.testing.assert_array_equal(limit(limiter, audio), first)


def test_both_channels_turn_together() -> None:
    """The image does not move: the gain is one for both."""
    audio = music(2000, 2.0)
    audio[:, 1] = audio[:, 0] * np.float32(0.25)
    out = limit(Limiter(RATE, 2), audio)
    np.testing.assert_allclose(out[:, 1], out[:, 0] * 0.25, rtol=1e-5, atol=1e-9)
