"""A recording in the place of a device's input."""

from __future__ import annotations

import numpy as np
import pytest

from realtime_sep.io.null import NullSpec
from realtime_sep.io.song import SongSpec
from realtime_sep.stream import open_stream
from realtime_sep.types import StreamConfig


@pytest.mark.parametrize("rate", [48000, 44100])
def test_the_recording_is_heard_and_the_input_is_not(rate: int) -> None:
    t = np.arange(rate // 2)[:, np.newaxis] / rate
    song = (0.5 * np.sin(2 * np.pi * t * [440, 660])).astype(np.float32)
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (1000, 2)).astype(np.float32)
    device = NullSpec(noise, loop=True, capture=True, clocked=False, frames=60000)
    stream = open_stream(
        "identity",
        backend=SongSpec(song, rate, device),
        config=StreamConfig(samplerate=48000),
        process=False,
    )
    with stream:
        assert stream.wait(60)
        stream.stop()
    out, lag = stream.captured, stream.latency.frames
    assert out is not None
    t = np.arange(20000)[:, np.newaxis] / 48000
    expected = 0.5 * np.sin(2 * np.pi * t * [440, 660])
    np.testing.assert_allclose(out[lag : lag + 20000][200:], expected[200:], atol=1e-3)
    # And again from its beginning.
    again = out[lag + 24000 :][:20000]
    np.testing.assert_allclose(again[200:], expected[200:], atol=1e-3)
