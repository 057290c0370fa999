"""The guard: whatever a separator sends, what goes on is finite, adds up and does not click."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from realtime_sep.dsp.guard import FADE, INPUT_LIMIT, StemGuard, sanitise
from realtime_sep.types import Float32

RATE = 48000
SHARES = np.array([0.5, -0.25, 0.75], np.float32)


def wave(frames: int) -> Float32:
    """Two channels of slow tones: the largest step from sample to sample is known and small."""
    time = np.arange(frames)[:, np.newaxis] / RATE
    return np.sin(2 * np.pi * time * [100, 130] + [0.3, 1]).astype(np.float32)


def stems_of(mix: Float32) -> Float32:
    return SHARES[:, np.newaxis, np.newaxis] * mix


def spoil(stems: Float32, kind: str) -> None:
    count, frames, channels = stems.shape
    if kind == "nan":
        stems[0, frames // 2, 0] = np.nan
    elif kind == "last":
        stems[count - 1, frames - 1, channels - 1] = np.nan
    elif kind == "inf":
        stems[1, 0, 1] = -np.inf
    elif kind == "all":
        stems[:] = np.nan
    elif kind == "loud":
        stems *= np.float32(1000)


KINDS = ("nan", "last", "inf", "all", "loud")


@settings(max_examples=150, deadline=None)
@given(
    hop=st.sampled_from([1, 3, 16, 40, 64, 100, 256]),
    latency=st.sampled_from([0, 1, 50, 256, 700]),
    hops=st.lists(st.sampled_from(["", "", "", *KINDS]), min_size=1, max_size=60),
)
@example(hop=40, latency=0, hops=["", "nan", "", "nan", "", "", ""])
@example(hop=256, latency=256, hops=["", "", "all", "", "", "", ""])
def test_what_goes_on_is_clean(hop: int, latency: int, hops: list[str]) -> None:
    """A bad hop is followed by `latency` frames of silence, as a reset separator gives them."""
    mix = wave(len(hops) * hop)
    guard = StemGuard(3, 2, RATE, latency)
    silent = 0
    heard = []
    for i, kind in enumerate(hops):
        dry = mix[i * hop : (i + 1) * hop]
        stems = stems_of(dry)
        stems[:, : min(silent, hop)] = 0
        silent = max(0, silent - hop)
        if kind == "loud" and not stems.any():
            kind = "nan"
        spoil(stems, kind)
        assert guard.process(stems, dry, 1.0) == bool(kind)
        silent = latency if kind else silent
        heard.append(stems)
    out = np.concatenate(heard, axis=1)

    assert np.all(np.isfinite(out))
    assert np.abs(out.sum(axis=0) - mix).max() <= 1e-6
    step = np.abs(np.diff(mix, axis=0)).max(initial=0)
    jumps = np.abs(np.diff(out, axis=1)).max(axis=(1, 2), initial=0)
    allowed = np.abs(SHARES) * (step + 2 / FADE) + 1e-6
    allowed[2] = step + allowed[0] + allowed[1]
    assert np.all(jumps <= allowed), (jumps, allowed)


@pytest.mark.parametrize("latency", [0, 256, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_it_recovers_and_is_then_not_there(kind: str, latency: int) -> None:
    hop, guard = 128, StemGuard(3, 2, RATE, latency)
    mix = wave(20 * hop)
    for i in range(20):
        dry = mix[i * hop : (i + 1) * hop]
        stems = stems_of(dry)
        if i == 5:
            spoil(stems, kind)
        before = stems.copy()
        assert guard.process(stems, dry, 1.0) == (i == 5)
        touched = 5 * hop <= i * hop < 6 * hop + latency + FADE
        assert touched != np.array_equal(stems, before)


def test_a_bad_hop_is_the_mix_in_the_last_stem() -> None:
    guard, mix = StemGuard(2, 1, RATE), wave(256)[:, :1]
    for _ in range(3):
        stems = np.full((2, 256, 1), np.nan, np.float32)
        assert guard.process(stems, mix, 1.0)
    assert not stems[0].any()
    np.testing.assert_array_equal(stems[1], mix)


@pytest.mark.parametrize("factor", [1.0, 2.0, 7.9])
def test_legitimately_loud_is_not_touched(factor: float) -> None:
    """Music that starts and stops suddenly, at any level, and a mask that overshoots."""
    rng = np.random.default_rng(0)
    guard = StemGuard(2, 2, RATE)
    for level in (1e-4, 1.0, 1e-6, 0.0, 100.0, 0.01, 0.0):
        for _ in range(30):
            dry = (level * rng.uniform(-1, 1, (256, 2))).astype(np.float32)
            stems = np.stack([factor * dry, (1 - factor) * dry])
            before = stems.copy()
            assert not guard.process(stems, dry, float(np.abs(dry).max()))
            np.testing.assert_array_equal(stems, before)


def test_a_slow_separator_may_answer_long_after_the_music_stopped() -> None:
    """One second of music, then silence, through a separator with ten seconds of latency."""
    rate, hop = 1000, 100
    guard = StemGuard(2, 1, rate, latency=10 * rate)
    mix = np.zeros((13 * rate, 1), np.float32)
    mix[:rate] = np.sin(np.arange(rate))[:, np.newaxis]
    late = np.roll(mix, 10 * rate, axis=0)
    for start in range(0, len(mix), hop):
        dry = late[start : start + hop]
        newest = float(np.abs(mix[start : start + hop]).max())
        assert not guard.process(np.stack([2 * dry, -dry]), dry, newest)


def test_absurd_is_relative_to_the_music() -> None:
    """+60 dB over soft music would still be below full scale."""
    guard, dry = StemGuard(2, 1, RATE), np.full((256, 1), 0.001, np.float32)
    assert not guard.process(np.stack([dry, 0 * dry]), dry, 0.001)
    assert guard.process(np.stack([1000 * dry, -999 * dry]), dry, 0.001)


def test_reset_is_a_new_guard() -> None:
    guard, mix = StemGuard(2, 1, RATE, 500), wave(256)[:, :1]
    guard.process(np.full((2, 256, 1), np.nan, np.float32), mix, 1000.0)
    guard.reset()
    stems = np.stack([mix, 0 * mix])
    before = stems.copy()
    assert not guard.process(stems, mix, 1.0)
    np.testing.assert_array_equal(stems, before)
    guard.reset()
    assert guard.process(np.stack([9 * mix, -8 * mix]), mix, 1.0), "and the level is forgotten"


def test_sanitise_keeps_audio_and_drops_the_rest() -> None:
    audio = np.array([0.0, -0.0, 1e-45, 1.0, -999.0, INPUT_LIMIT, 1.5], np.float32)
    broken = np.array([np.nan, np.inf, -np.inf, 1e38, -3e38, 1001.0, np.nan], np.float32)
    hop = np.stack([audio, broken], axis=1)
    out = np.full_like(hop, 9)
    assert sanitise(hop, out) == (7, 1000)
    np.testing.assert_array_equal(out[:, 0], audio)
    assert not out[:, 1].any()
