"""Faders: exact at rest, without zipper noise on the way, and never astray."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.dsp.faders import TRAVEL, Faders
from realtime_sep.types import Float32

RATE = 48000
gains = st.floats(0, 4, width=32)


def mix(faders: Faders, stems: Float32) -> Float32:
    out = np.full(stems.shape[1:], np.nan, np.float32)
    faders.process(stems, out)
    return out


def ones(stems: int, frames: int) -> Float32:
    return np.ones((stems, frames, 1), np.float32)


def test_unity_is_the_bit_exact_sum() -> None:
    stems = np.random.default_rng(0).standard_normal((2, 100, 2)).astype(np.float32)
    np.testing.assert_array_equal(mix(Faders(2, RATE), stems), stems[0] + stems[1])


def test_one_stem_at_unity_passes_bit_for_bit() -> None:
    stems = np.random.default_rng(0).standard_normal((1, 100, 2)).astype(np.float32)
    np.testing.assert_array_equal(mix(Faders(1, RATE), stems), stems[0])


def test_silence_is_silence() -> None:
    """A fader that is down leaves the other stem alone, bit for bit."""
    faders = Faders(2, RATE)
    faders.targets[0] = 0
    faders.settle()
    stems = np.random.default_rng(0).standard_normal((2, 100, 2)).astype(np.float32)
    np.testing.assert_array_equal(mix(faders, stems), stems[1])


@settings(max_examples=100, deadline=None)
@given(
    moves=st.lists(st.tuples(gains, st.integers(1, 5)), min_size=1, max_size=8),
    hop=st.sampled_from([1, 7, 64, 256, 1000]),
)
def test_no_step_is_larger_than_the_travel_allows(moves: list[tuple[float, int]], hop: int) -> None:
    """With a stem of ones the output is the gain: it moves by at most 1 / (20 ms) a sample, also
    where hops meet and where the target turns round on the way."""
    faders = Faders(1, RATE)
    heard = [np.ones((1, 1), np.float32)]
    for target, hops in moves:
        faders.targets[0] = target
        heard += [mix(faders, ones(1, hop)) for _ in range(hops)]
    curve = np.concatenate(heard)[:, 0].astype(np.float64)
    assert np.abs(np.diff(curve)).max() <= 1 / (TRAVEL * RATE) + 5e-7
    assert curve.min() >= min(1, *(target for target, _ in moves)) - 1e-6
    assert curve.max() <= max(1, *(target for target, _ in moves)) + 1e-6


@settings(max_examples=100, deadline=None)
@given(start=gains, target=gains, hop=st.sampled_from([1, 37, 256]))
def test_a_target_is_reached_exactly_and_in_time(start: float, target: float, hop: int) -> None:
    faders = Faders(1, RATE)
    faders.targets[0] = start
    faders.settle()
    faders.targets[0] = target
    hops = int(np.ceil(abs(target - start) * TRAVEL * RATE / hop))
    for _ in range(hops + 2):
        mix(faders, ones(1, hop))
    assert np.all(mix(faders, ones(1, hop)) == np.float32(target))


def test_it_takes_its_time() -> None:
    """Half of the travel after half of the time: neither a jump nor a stall."""
    faders = Faders(1, RATE)
    faders.targets[0] = 0
    frames = int(TRAVEL * RATE / 2)
    assert mix(faders, ones(1, frames))[-1, 0] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("target", [np.nan, np.inf, -np.inf])
def test_a_target_that_is_no_number_moves_nothing(target: float) -> None:
    faders = Faders(2, RATE)
    faders.targets[0] = target
    assert np.all(mix(faders, ones(2, 256)) == 2)
    faders.settle()
    assert np.all(mix(faders, ones(2, 256)) == 2)
    faders.targets[0] = 0
    for _ in range(5):
        out = mix(faders, ones(2, 256))
    assert np.all(out == 1), "and it can still be moved"
