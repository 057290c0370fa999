"""Live equals offline; what goes in comes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime_sep.engine import Engine
from realtime_sep.io.null import NullSpec
from realtime_sep.plugins import load_separator
from realtime_sep.stream import open_stream
from realtime_sep.types import Float32, StreamConfig

from .conftest import RATE, noise


def offline(name: str, source: Float32, rate: int = RATE, **options: Any) -> Float32:
    """The engine called hop by hop, no device, no rings; not compensated for its latency."""
    engine = Engine(load_separator(name, samplerate=rate, channels=2, **options))
    hops = -(-len(source) // engine.hop)
    padded = np.zeros((hops * engine.hop, 2), np.float32)
    padded[: len(source)] = source
    out = np.empty_like(padded)
    for start in range(0, len(padded), engine.hop):
        stop = start + engine.hop
        engine.process(padded[start:stop], out[start:stop])
    return out[: len(source)]


@pytest.mark.parametrize("name", ["identity", "center"])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(blocks=st.lists(st.integers(1, 4096), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_streaming_equals_offline(play: Any, name: str, blocks: list[int], seed: int) -> None:
    source = noise(0.5, seed)
    out, stream = play(name, source, blocks=tuple(blocks))
    bridge = stream.latency.bridge
    expected = offline(name, source)
    length = len(source) - bridge
    assert np.array_equal(out[bridge : bridge + length], expected[:length])
    assert not out[:bridge].any()


@pytest.mark.parametrize("block", [1, 255, 256, 257, 4096])
def test_blocks_around_the_hop(play: Any, block: int) -> None:
    source = noise(0.3, block)
    out, stream = play("identity", source, blocks=(block,))
    lag = stream.latency.frames
    assert np.array_equal(out[lag:], source)


def test_stem_buses_are_aligned_and_add_up(play: Any) -> None:
    source = noise(0.5)
    out, stream = play(
        "center", source, config={"outputs": ("vocals", "accompaniment", "mix"), "limiter": True}
    )
    lag = stream.latency.frames
    vocals, music = out[lag:, 0:2].astype(np.float64), out[lag:, 2:4].astype(np.float64)
    error = vocals + music - source
    assert 20 * np.log10(np.sqrt(np.mean(error**2)) + 1e-30) < -120


def song() -> tuple[Float32, int]:
    """A real song where the development set is at hand."""
    soundfile = pytest.importorskip("soundfile")
    root = os.environ.get("REALTIME_SEP_DATA") or Path(__file__).parents[3] / "shared" / "data"
    path = Path(root) / "eval" / "musdb18_0" / "mixture.flac"
    found = sorted(Path(root).glob("eval/musdb18*/mixture.*"))
    if not found:
        pytest.skip(f"no development songs at {path.parent.parent}; set REALTIME_SEP_DATA")
    data, rate = soundfile.read(found[0], dtype="float32", always_2d=True)
    return np.ascontiguousarray(data), rate


@pytest.mark.slow
def test_a_real_song_live_equals_offline(play: Any) -> None:
    source, rate = song()
    expected = offline("center", source, rate)
    for attempt in range(3):
        out, stream = play("center", source, rate=rate, clocked=True, process=True)
        if stream.stats.late_blocks == 0:
            break
        assert attempt < 2, "late blocks in three runs of six seconds"
    bridge = stream.latency.bridge
    length = len(source) - bridge
    assert np.array_equal(out[bridge : bridge + length], expected[:length])


@pytest.mark.parametrize("process", [False, True])
def test_blocks_yield_every_stem(process: bool) -> None:
    source = noise(1.0)
    stream = open_stream(
        "center",
        backend=NullSpec(source, clocked=False, frames=len(source)),
        config=StreamConfig(samplerate=RATE, blocksize=128),
        process=process,
    )
    blocks = stream.blocks()
    seen = 0
    with stream:
        for block in blocks:
            hop = len(block.mix)
            assert set(block.stems) == {"vocals", "accompaniment"}
            total = block.stems["vocals"] + block.stems["accompaniment"]
            np.testing.assert_allclose(total, block.mix, atol=1e-6)
            if 0 <= block.start <= len(source) - hop:
                assert np.array_equal(block.mix, source[block.start : block.start + hop])
            seen += hop
    assert seen == len(source) // 256 * 256
    assert stream.stats.tap_overflow == 0
