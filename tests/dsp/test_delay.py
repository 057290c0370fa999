"""A delay of zero, one, and more frames than a block has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.dsp.delay import Delay
from realtime_sep.types import Float32


def noise(frames: int, channels: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).uniform(-1, 1, (frames, channels)).astype(np.float32)


def late(audio: Float32, frames: int) -> Float32:
    return np.concatenate([np.zeros((frames, audio.shape[1]), np.float32), audio])[: len(audio)]


@settings(max_examples=80, deadline=None)
@given(
    frames=st.integers(0, 300),
    channels=st.integers(1, 3),
    blocks=st.lists(st.integers(0, 200), min_size=1, max_size=12),
    in_place=st.booleans(),
)
def test_every_frame_comes_out_later_and_unchanged(
    frames: int, channels: int, blocks: list[int], in_place: bool
) -> None:
    audio = noise(sum(blocks), channels)
    delay = Delay(frames, channels)
    got = []
    for block in np.split(audio, np.cumsum(blocks)[:-1]):
        block = block.copy()
        out = block if in_place else np.full_like(block, np.nan)
        delay.process(block, out)
        got.append(out)
    np.testing.assert_array_equal(np.concatenate(got), late(audio, frames))


@pytest.mark.parametrize("frames", [0, 1, 7, 100])
def test_it_writes_into_columns_of_a_wider_block(frames: int) -> None:
    audio = noise(64, 2)
    wide = np.full((64, 6), 9, np.float32)
    Delay(frames, 2).process(audio, wide[:, 2:4])
    np.testing.assert_array_equal(wide[:, 2:4], late(audio, frames))
    assert np.all(wide[:, [0, 1, 4, 5]] == 9)


@pytest.mark.parametrize("frames", [0, 1, 100])
def test_reset_forgets(frames: int) -> None:
    delay, out = Delay(frames, 1), np.empty((33, 1), np.float32)
    delay.process(noise(33, 1, seed=1), out)
    delay.reset()
    audio = noise(33, 1, seed=2)
    delay.process(audio, out)
    np.testing.assert_array_equal(out, late(audio, frames))
