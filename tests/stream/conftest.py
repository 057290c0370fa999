"""Signals and streams for the tests of the live path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from realtime_sep.io.null import NullSpec
from realtime_sep.stream import Stream, open_stream
from realtime_sep.types import Float32, StreamConfig

RATE = 48000


def noise(seconds: float, seed: int = 0, channels: int = 2) -> Float32:
    """White noise below -1 dBFS."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.8, 0.8, (round(seconds * RATE), channels)).astype(np.float32)


def smooth(seconds: float) -> Float32:
    """Slow sines, loud, with small steps from sample to sample: a click stands out."""
    t = np.arange(round(seconds * RATE)) / RATE
    left = 0.6 * np.sin(2 * np.pi * 110 * t) + 0.2 * np.sin(2 * np.pi * 220 * t)
    right = 0.7 * np.sin(2 * np.pi * 165 * t)
    return np.stack([left, right], axis=1).astype(np.float32)


@pytest.fixture
def play() -> Callable[..., tuple[Float32, Stream]]:
    """Play a source through the null device to its end; what came out, and the closed stream."""

    def run(
        separator: Any,
        source: Float32,
        *,
        blocks: tuple[int, ...] = (128,),
        clocked: bool = False,
        process: bool = False,
        frames: int | None = None,
        rate: int = RATE,
        config: dict[str, Any] | None = None,
        **options: Any,
    ) -> tuple[Float32, Stream]:
        spec = NullSpec(source, capture=True, clocked=clocked, blocks=blocks, frames=frames)
        stream = open_stream(
            separator,
            backend=spec,
            config=StreamConfig(samplerate=rate, blocksize=max(blocks), **(config or {})),
            process=process,
            **options,
        )
        with stream:
            assert stream.wait(60), "the null device did not come to its end"
            stream.stop()
        assert stream.captured is not None
        return stream.captured, stream

    return run
