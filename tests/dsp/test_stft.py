"""Analysis and synthesis: the same numbers as numpy's, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.dsp.stft import Analysis, Synthesis
from realtime_sep.dsp.windows import window_pair
from realtime_sep.types import Complex64, Float32, Geometry

#: Even, odd and prime hops; S = H, S = N, N no power of two, the smallest of all.
GEOMETRIES = [
    Geometry(2048, 512, 256),
    Geometry(512, 256, 128),
    Geometry(512, 512, 37),
    Geometry(600, 300, 101),
    Geometry(64, 16, 16),
    Geometry(64, 16, 1),
    Geometry(2, 2, 1),
]
CHANNELS = [1, 2, 3, 5]


def noise(frames: int, channels: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).uniform(-1, 1, (frames, channels)).astype(np.float32)


def spectra(geometry: Geometry, audio: Float32) -> Complex64:
    """`(hops, channels, bins)` of the streaming analysis."""
    analysis = Analysis(geometry, audio.shape[1])
    hops = audio.reshape(-1, geometry.hop, audio.shape[1])
    return np.array([analysis.process(hop).copy() for hop in hops])


def resynthesis(geometry: Geometry, frames: Complex64) -> Float32:
    synthesis = Synthesis(geometry, frames.shape[1])
    out = np.full((len(frames), geometry.hop, frames.shape[1]), np.nan, np.float32)
    for frame, hop in zip(frames, out, strict=True):
        synthesis.process(frame, hop)
    return out.reshape(-1, frames.shape[1])


def random_spectra(geometry: Geometry, count: int, channels: int, seed: int = 0) -> Complex64:
    """As a separator may send them: complex at zero and at the Nyquist frequency as well."""
    parts = np.random.default_rng(seed).standard_normal((count, channels, geometry.bins, 2))
    return parts.astype(np.float32).view(np.complex64)[..., 0]


def rounding(geometry: Geometry) -> float:
    """What float32 may cost: where frames hardly overlap, the window's edges are amplified."""
    _, window = window_pair(geometry.n_fft, geometry.synthesis, geometry.hop)
    return 6e-7 * max(1.0, float(window.max()))


def by_numpy(geometry: Geometry, frames: Complex64) -> Float32:
    """Overlap-add the slow way; numpy's irfft ignores what cannot be in a real signal."""
    n_fft, tail, hop = geometry.n_fft, geometry.synthesis, geometry.hop
    _, window = window_pair(n_fft, tail, hop)
    out = np.zeros((len(frames) * hop + tail, frames.shape[1]))
    for i, frame in enumerate(frames):
        signal = np.fft.irfft(frame.astype(np.complex128), n_fft, axis=-1)
        out[i * hop : i * hop + tail] += (signal[:, -tail:] * window).T
    return out[: len(frames) * hop].astype(np.float32)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_spectra_are_numpys(geometry: Geometry, channels: int) -> None:
    n_fft, hop = geometry.n_fft, geometry.hop
    count = 3 + 2 * n_fft // hop if hop > 1 else 40
    audio = noise(count * hop, channels)
    got = spectra(geometry, audio)
    window, _ = window_pair(n_fft, geometry.synthesis, hop)
    padded = np.concatenate([np.zeros((n_fft, channels), np.float32), audio])
    for i, spectrum in enumerate(got):
        end = n_fft + (i + 1) * hop
        expected = np.fft.rfft(padded[end - n_fft : end].T * window.astype(np.float64))
        np.testing.assert_allclose(spectrum, expected, atol=2e-6 * n_fft, rtol=0)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_synthesis_is_numpys(geometry: Geometry, channels: int) -> None:
    frames = random_spectra(geometry, 20, channels)
    expected = by_numpy(geometry, frames)
    np.testing.assert_allclose(resynthesis(geometry, frames), expected, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_there_and_back_is_a_delay(geometry: Geometry, channels: int) -> None:
    count = 2 + 2 * geometry.n_fft // geometry.hop
    audio = noise(count * geometry.hop, channels)
    got = resynthesis(geometry, spectra(geometry, audio))
    lag = geometry.synthesis - geometry.hop
    assert np.abs(got[lag:] - audio[: len(audio) - lag]).max() <= rounding(geometry)
    assert np.abs(got[:lag]).max(initial=0) <= rounding(geometry)


@settings(max_examples=30, deadline=None)
@given(
    half=st.integers(1, 100),
    synthesis=st.integers(1, 100),
    hop=st.integers(1, 200),
    channels=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_any_geometry_there_and_back(
    half: int, synthesis: int, hop: int, channels: int, seed: int
) -> None:
    synthesis = 2 * min(synthesis, half)
    geometry = Geometry(2 * half, synthesis, min(hop, synthesis))
    lag = geometry.synthesis - geometry.hop
    audio = noise((10 + lag // geometry.hop) * geometry.hop, channels, seed)
    got = resynthesis(geometry, spectra(geometry, audio))
    assert np.abs(got[lag:] - audio[: len(audio) - lag]).max() <= rounding(geometry)


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_no_channel_hears_another(channels: int) -> None:
    """Two channels share one transform; each sounds as it would alone, to rounding."""
    geometry = Geometry(256, 128, 48)
    frames = random_spectra(geometry, 12, channels)
    together = resynthesis(geometry, frames)
    audio = noise(12 * 48, channels)
    spectrum = spectra(geometry, audio)
    for c in range(channels):
        alone = resynthesis(geometry, np.ascontiguousarray(frames[:, c : c + 1]))
        np.testing.assert_allclose(together[:, c], alone[:, 0], atol=2e-7)
        only = np.zeros_like(audio)
        only[:, c] = audio[:, c]
        quiet = np.delete(spectra(geometry, only), c, axis=1)
        assert np.abs(quiet).max() <= 1e-5
        np.testing.assert_allclose(
            spectrum[:, c], spectra(geometry, np.ascontiguousarray(audio[:, c : c + 1]))[:, 0],
            atol=1e-5,
        )  # fmt: skip


def test_ends_of_the_spectrum_do_not_leak() -> None:
    """An imaginary part at zero or Nyquist frequency is no signal: nothing comes of it."""
    geometry = Geometry(64, 32, 16)
    frames = np.zeros((6, 2, geometry.bins), np.complex64)
    frames[:, 0, 0] = frames[:, 0, -1] = 1j * 100
    assert not resynthesis(geometry, frames).any()
    frames[:, 0] = 0
    frames[:, 1, 0] = frames[:, 1, -1] = 1j * 100
    assert not resynthesis(geometry, frames).any()


@pytest.mark.parametrize("channels", CHANNELS)
def test_reset_is_a_new_object(channels: int) -> None:
    geometry = Geometry(128, 64, 24)
    analysis, synthesis = Analysis(geometry, channels), Synthesis(geometry, channels)
    audio = noise(24 * 20, channels).reshape(20, 24, channels)

    def run() -> Float32:
        out = np.empty_like(audio)
        for hop, finished in zip(audio, out, strict=True):
            synthesis.process(analysis.process(hop), finished)
        return out

    first = run()
    assert not np.array_equal(run(), first), "it remembers"
    analysis.reset()
    synthesis.reset()
    np.testing.assert_array_equal(run(), first)


def test_the_input_is_not_written() -> None:
    geometry = Geometry(64, 32, 16)
    hop, frames = noise(16, 2), random_spectra(geometry, 1, 2)[0]
    hop_before, frames_before = hop.copy(), frames.copy()
    Analysis(geometry, 2).process(hop)
    Synthesis(geometry, 2).process(frames, np.empty((16, 2), np.float32))
    np.testing.assert_array_equal(hop, hop_before)
    np.testing.assert_array_equal(frames, frames_before)
