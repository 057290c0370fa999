"""The dictionaries' training: it sees what the separator makes, and it gets better."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("soxr")

from training import dictionaries as d  # noqa: E402

pytestmark = pytest.mark.train


def sounds(seconds: float, seed: int = 0) -> tuple[d.Audio, d.Audio]:
    """A gliding voice of harmonics, and noise in beats: `(samples,)` each."""
    rng = np.random.default_rng(seed)
    now = np.arange(int(seconds * d.SAMPLE_RATE)) / d.SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(250 + 60 * np.sin(2 * np.pi * now)) / d.SAMPLE_RATE
    voice = sum(0.1 / n * np.sin(n * phase) for n in range(1, 9))
    music = 0.2 * np.exp(-20 * (now % 0.3)) * rng.standard_normal(len(now))
    return voice.astype(np.float32), music.astype(np.float32)


def test_the_error_of_a_mask_is_that_of_the_spectra() -> None:
    voice, music = sounds(0.5)
    data = torch.from_numpy(d.spectra(voice + music, voice, d.HOP))
    nothing, all_of_it = torch.zeros_like(data[0]), torch.ones_like(data[0])
    music_power = torch.from_numpy(d.spectra(music, music, d.HOP)[0]).sum()
    assert float(d.error(nothing, data)) == pytest.approx(float(data[2].sum()), rel=1e-4)
    assert float(d.error(all_of_it, data)) == pytest.approx(float(music_power), rel=1e-3)


@pytest.mark.parametrize("divergence", ["kl", "is"])
def test_training_lowers_the_error(divergence: str) -> None:
    torch.manual_seed(0)
    voice, music = sounds(4.0)
    data = torch.from_numpy(d.spectra(voice + music, voice, d.HOP))[np.newaxis]
    others = (data[:, 0] - 2 * data[:, 1] + data[:, 2]).clamp_min(0)
    model = d.Dictionary(
        d.centres(data[:, 2].flatten(0, 1), 8), d.centres(others.flatten(0, 1), 8), divergence, 8
    )
    before = d.score(model, list(data))[0]
    d.train(model, data, steps=20, rate=0.02)
    assert d.score(model, list(data))[0] > before


@pytest.mark.parametrize("divergence", ["kl", "is"])
def test_the_separator_makes_the_mask_that_was_trained(divergence: str) -> None:
    pytest.importorskip("rocket_fft")
    from realtime_sep.separators.nmf import Dictionary, Nmf

    known = Dictionary(divergence, d.N_FFT, d.SAMPLE_RATE)
    atoms = torch.from_numpy(known.atoms)
    voice_atoms, music_atoms = atoms[: known.voices], atoms[known.voices :]
    model = d.Dictionary(voice_atoms, music_atoms, divergence, known.updates)
    with torch.no_grad():
        model.exponent[:] = torch.from_numpy(known.exponent)
        model.offset[:] = torch.from_numpy(known.offset)
    voice, music = sounds(1.0)
    mix = voice + music
    separator = Nmf(samplerate=d.SAMPLE_RATE, channels=1, divergence=divergence, memory=0)  # type: ignore[arg-type]
    stems = np.empty((2, d.HOP, 1), np.float32)
    masks = []
    for start in range(0, len(mix) // d.HOP * d.HOP, d.HOP):
        separator.process(mix[start : start + d.HOP, np.newaxis], stems)
        masks.append(separator._shares.copy())
    with torch.no_grad():
        wanted = model(d.compressed(torch.from_numpy(d.spectra(mix, voice, d.HOP)[0]))).numpy()
    np.testing.assert_allclose(np.stack(masks), wanted[: len(masks)], atol=2e-3)
