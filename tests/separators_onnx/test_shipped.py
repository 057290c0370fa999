"""Every shipped model loads, runs, and is what its manifest says."""

from __future__ import annotations

import numpy as np
import pytest

from realtime_sep.models import registry
from realtime_sep.offline import separate
from realtime_sep.plugins import load_separator

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
def test_silence_stays_silent_and_stems_add_up(name: str) -> None:
    silent = separate(np.zeros((44100, 2), np.float32), 44100, name)
    assert all(not stem.any() for stem in silent.values())
    rng = np.random.default_rng(1)
    mix = rng.uniform(-0.3, 0.3, (44100, 2)).astype(np.float32)
    stems = separate(mix, 44100, name)
    error = sum(stem.astype(np.float64) for stem in stems.values()) - mix
    assert np.sqrt(np.mean(error**2)) < 1e-6
