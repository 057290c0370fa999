"""Meters: against the numbers of ITU-R BS.1770, not against ourselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import sosfreqz

from realtime_sep.dsp.meters import Loudness, decibels, k_weighting, linear, peak, percentile
from realtime_sep.types import Float32

#: ITU-R BS.1770-4, tables 1 and 2: b0 b1 b2, a1 a2 at 48 kHz.
STANDARD = np.array(
    [
        [
            1.53512485958697,
            -2.69169618940638,
            1.19839281085285,
            -1.69065929318241,
            0.73248077421585,
        ],
        [1.0, -2.0, 1.0, -1.99004745483398, 0.99007225036621],
    ]
)


def loudness(audio: Float32, rate: int, hop: int = 256) -> float:
    meter = Loudness(rate, audio.shape[1], hop)
    for start in range(0, len(audio) - hop + 1, hop):
        meter.process(audio[start : start + hop])
    return meter.value


def sine(rate: int, frequency: float, seconds: float = 1.0) -> Float32:
    phase = 2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate
    return np.sin(phase).astype(np.float32)[:, np.newaxis]


def response(filters: np.ndarray, frequencies: np.ndarray, rate: int) -> np.ndarray:
    """Magnitude in dB of both biquads."""
    sos = np.insert(filters, 3, 1.0, axis=1)
    _, h = sosfreqz(sos, frequencies, fs=rate)
    return 20 * np.log10(np.abs(h))


def test_k_weighting_at_48_khz_is_the_table_of_the_standard() -> None:
    np.testing.assert_allclose(k_weighting(48000), STANDARD, atol=2e-8)


@pytest.mark.parametrize("rate", [44100, 88200, 96000, 192000])
def test_k_weighting_at_other_rates_sounds_the_same(rate: int) -> None:
    frequencies = np.geomspace(20, 8000, 200)
    expected = response(STANDARD, frequencies, 48000)
    np.testing.assert_allclose(response(k_weighting(rate), frequencies, rate), expected, atol=0.15)


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
@pytest.mark.parametrize("hop", [64, 256, 1000])
@pytest.mark.parametrize("channel", [0, 1])
def test_the_reference_tone(rate: int, hop: int, channel: int) -> None:
    """A 997 Hz sine of full scale on one channel reads -3.01 LUFS, by definition."""
    audio = np.zeros((rate, 2), np.float32)
    audio[:, channel : channel + 1] = sine(rate, 997)
    assert loudness(audio, rate, hop) == pytest.approx(-3.01, abs=0.05)


def test_two_channels_are_three_decibels_more_and_level_is_linear() -> None:
    one = loudness(sine(48000, 997), 48000)
    both = loudness(np.repeat(sine(48000, 997), 2, axis=1), 48000)
    soft = loudness(sine(48000, 997) * np.float32(0.1), 48000)
    assert both - one == pytest.approx(3.01, abs=0.01)
    assert soft - one == pytest.approx(-20, abs=0.01)


def test_it_hears_the_last_400_ms_alone() -> None:
    meter, hop = Loudness(48000, 1, 480), np.float32(0.5) * sine(48000, 1000, 0.01)
    for _ in range(100):
        meter.process(hop)
    full = meter.value
    silence = np.zeros_like(hop)
    for _ in range(20):
        meter.process(silence)
    assert meter.value - full == pytest.approx(-3.01, abs=0.1), "half of the window"
    for _ in range(60):
        meter.process(silence)
    assert meter.value == -math.inf


def test_silence_is_minus_infinity_and_reset_forgets() -> None:
    meter = Loudness(48000, 1, 256)
    assert meter.value == -math.inf
    meter.process(np.ones((256, 1), np.float32))
    assert meter.value > -math.inf
    meter.reset()
    assert meter.value == -math.inf
    meter.process(np.zeros((256, 1), np.float32))
    assert meter.value == -math.inf, "the filters are empty too"


def test_peak_is_the_largest_size_of_any_channel() -> None:
    block = np.zeros((10, 2), np.float32)
    assert peak(block) == 0
    block[3, 1], block[9, 0] = -0.75, 0.5
    assert peak(block) == 0.75


@settings(deadline=None)
@given(st.floats(-120, 40))
def test_decibels_and_back(db: float) -> None:
    assert decibels(linear(db)) == pytest.approx(db, abs=1e-9)


def test_decibels_of_nothing() -> None:
    assert linear(-math.inf) == 0
    assert decibels(0) == -math.inf


@settings(max_examples=200, deadline=None)
@given(
    counts=st.lists(st.integers(0, 50), min_size=1, max_size=20),
    q=st.sampled_from([0.5, 0.9, 0.99, 0.999, 1.0]),
)
def test_percentile_is_the_edge_below_which_that_many_lie(counts: list[int], q: float) -> None:
    edges = np.arange(1.0, len(counts) + 1)
    value = percentile(counts, edges, q)
    if not sum(counts):
        assert value == 0
        return
    below = sum(counts[: int(value)])
    assert below >= q * sum(counts)
    assert below - counts[int(value) - 1] < q * sum(counts), "and no smaller edge will do"
