"""Windows: whatever the geometry, frames that nobody touched add up to the input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.dsp.windows import hann, window_pair

halves = st.integers(1, 600)


@st.composite
def geometries(draw: st.DrawFn) -> tuple[int, int, int]:
    n_fft = 2 * draw(halves)
    synthesis = 2 * draw(st.integers(1, n_fft // 2))
    return n_fft, synthesis, draw(st.integers(1, synthesis))


@settings(max_examples=200, deadline=None)
@given(geometries())
def test_the_product_of_the_pair_adds_up_to_one(geometry: tuple[int, int, int]) -> None:
    n_fft, synthesis, hop = geometry
    analysis, synth = window_pair(n_fft, synthesis, hop)
    assert analysis.shape == (n_fft,)
    assert synth.shape == (synthesis,)
    assert analysis.dtype == synth.dtype == np.float32
    product = analysis[-synthesis:].astype(np.float64) * synth
    total = np.zeros(hop)
    for start in range(0, synthesis, hop):
        part = product[start : start + hop]
        total[: len(part)] += part
    np.testing.assert_allclose(total, 1, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(geometries())
def test_no_window_amplifies_or_is_blind(geometry: tuple[int, int, int]) -> None:
    """Analysis stays within (0, 1]; synthesis is what is left of a raised cosine: never negative,
    and zero at its edges as far as a sampled window can be."""
    n_fft, synthesis, hop = geometry
    analysis, synth = window_pair(n_fft, synthesis, hop)
    assert np.all(analysis > 0)
    assert np.all(analysis <= 1)
    assert np.all(synth > 0)
    assert np.all(np.isfinite(synth))
    peak = int(np.argmax(analysis))
    assert abs(peak - (n_fft - synthesis // 2)) <= 1, "it looks longest at the newest samples"
    assert np.all(np.diff(analysis[: peak + 1]) >= 0)
    assert np.all(np.diff(analysis[peak:]) <= 0)


def test_half_hop_is_the_textbook_pair() -> None:
    """At N = S = 2H the pair is the symmetric square-root Hann window, twice."""
    analysis, synth = window_pair(512, 512, 256)
    np.testing.assert_allclose(analysis, np.sqrt(hann(512)), atol=1e-7)
    np.testing.assert_allclose(synth, analysis, atol=1e-6)


@pytest.mark.parametrize(
    ("n_fft", "synthesis", "hop"),
    [(512, 256, 0), (512, 256, 257), (256, 512, 128), (512, 255, 64), (511, 256, 64), (0, 0, 0)],
)
def test_impossible_geometry_is_refused(n_fft: int, synthesis: int, hop: int) -> None:
    with pytest.raises(ValueError, match="1 <= hop <= synthesis <= n_fft"):
        window_pair(n_fft, synthesis, hop)
