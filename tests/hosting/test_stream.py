"""A foreign plugin in a stream: named as text, as late as is said, and the stream outlives it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from realtime_sep import NullSpec, StreamConfig, open_stream
from realtime_sep.effects.isolated import Isolated
from realtime_sep.errors import UsageError
from realtime_sep.plugins import load_effect
from tests.hosting.conftest import RATE, noise


def test_text_makes_an_effect(plugins: Path) -> None:
    effect = load_effect(f"ladspa:{plugins}/hints:which=5,gain=-3")
    assert isinstance(effect, Isolated)
    effect.close()
    near = load_effect(f"ladspa:{plugins}/fault", isolate=False)
    assert not isinstance(near, Isolated)
    with pytest.raises(UsageError, match="did you mean 'gain'"):
        load_effect(f"ladspa:{plugins}/hints:gian=1")


@pytest.mark.slow
def test_its_latency_is_the_streams(plugins: Path) -> None:
    """In the engine's process; and a crash there is a notice, and the dry signal."""
    source = noise(RATE)
    spec = NullSpec(source, capture=True, clocked=False)
    config = StreamConfig(samplerate=RATE, limiter=False)
    chains = {"mix": f"ladspa:{plugins}/fault"}
    with open_stream("identity", backend=spec, config=config, chains=chains) as stream:
        latency = stream.latency
        stream.wait()
    played, late = stream.captured, latency.frames
    assert latency.effects > 100
    assert played is not None
    np.testing.assert_array_equal(played[late : len(source)], source[:-late])


@pytest.mark.slow
def test_a_crash_is_heard_of_and_the_stream_goes_on(plugins: Path) -> None:
    config = StreamConfig(samplerate=RATE)
    chains = {"mix": f"ladspa:{plugins}/fault"}
    spec = NullSpec(noise(RATE), loop=True)
    with open_stream("identity", backend=spec, config=config, chains=chains) as stream:
        (slot,) = stream.chains["mix"]
        stream.set(f"{slot.name}.mode", 1)
        deadline = time.monotonic() + 20
        while not (failed := stream.chains["mix"][0].failed) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "died" in failed
        frames = stream.stats.frames
        time.sleep(0.3)
        assert stream.stats.frames > frames
