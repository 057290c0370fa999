"""Every shipped model loads, runs, and is what its manifest says."""

from __future__ import annotations

import numpy as np
import pytest

from realtime_sep.evaluate.metrics import sdr
from realtime_sep.models import registry
from realtime_sep.offline import separate
from realtime_sep.plugins import load_separator
from training.stream import OnnxStream

SHIPPED = [name for name, entry in registry.entries().items() if entry.origin == "shipped"]


def test_there_is_one() -> None:
    assert SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("rate", [44100, 48000])
def test_it_runs_at_both_rates(name: str, rate: int) -> None:
    separator = load_separator(name, samplerate=rate)
    info = separator.info
    assert info.stems == ("vocals", "accompaniment")
    rng = np.random.default_rng(0)
    hop = rng.uniform(-0.3, 0.3, (info.hop, 2)).astype(np.float32)
    stems = np.zeros((2, info.hop, 2), np.float32)
    for _ in range(50):
        separator.process(hop, stems)
        assert np.isfinite(stems).all()


@pytest.mark.parametrize("name", SHIPPED)
def test_it_plays_what_training_streams(name: str) -> None:
    """`training.stream` is what parity with the network is asserted for, and scores are of."""
    separator, reference = load_separator(name), OnnxStream(registry.entries()[name].path)
    info = separator.info
    rng = np.random.default_rng(2)
    stems = np.zeros((2, info.hop, 2), np.float32)
    for hop in rng.uniform(-0.3, 0.3, (40, info.hop, 2)).astype(np.float32):
        separator.process(hop, stems)
        np.testing.assert_allclose(stems[0], reference.process(hop), atol=2e-5)


@pytest.mark.parametrize("name", SHIPPED)
def test_silence_stays_silent_and_stems_add_up(name: str) -> None:
    silent = separate(np.zeros((44100, 2), np.float32), 44100, name)
    assert all(not stem.any() for stem in silent.values())
    rng = np.random.default_rng(1)
    mix = rng.uniform(-0.3, 0.3, (44100, 2)).astype(np.float32)
    stems = separate(mix, 44100, name)
    error = sum(stem.astype(np.float64) for stem in stems.values()) - mix
    assert np.sqrt(np.mean(error**2)) < 1e-6


@pytest.mark.parametrize("name", SHIPPED)
def test_scores_do_not_depend_on_the_level(name: str) -> None:
    """Within 0.3 dB from -36 to -6 dBFS; full scale is nothing special inside a separator."""
    time = np.arange(3 * 44100) / 44100
    pitch = 2 * np.pi * np.cumsum(300 * (1 + 0.01 * np.sin(2 * np.pi * 5 * time))) / 44100
    voice = sum(np.sin(n * pitch) / n for n in range(1, 9)) * (time % 1 < 0.7)
    rest = np.random.default_rng(3).standard_normal(len(time)) * (1 + np.sin(2 * np.pi * 2 * time))
    vocals = np.stack([voice, voice], 1).astype(np.float32)
    mix = vocals + 0.7 * np.stack([rest, 0.5 * rest], 1).astype(np.float32)
    scores = []
    for level in (-36, -21, -6):
        gain = np.float32(10 ** (level / 20) / np.sqrt(np.mean(mix**2)))
        found = separate(gain * mix, 44100, name)["vocals"]
        scores.append(sdr(gain * vocals, found))
    assert max(scores) - min(scores) < 0.3
