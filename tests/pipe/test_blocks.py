"""Push and pull: the blocks do not matter, the latency is what it says, at any rate."""

from __future__ import annotations

from math import gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep import BlockSeparator, UsageError, separate
from realtime_sep.dsp.resample import native_rate
from realtime_sep.separators.identity import Identity
from realtime_sep.types import Float32

from .conftest import song

RATE = 44100


def run(separator: BlockSeparator, audio: Float32, sizes: list[int]) -> dict[str, Float32]:
    """Everything that comes out, `flush` included; `sizes` are used in turn."""
    parts, start, turn = [], 0, 0
    while start < len(audio):
        block = audio[start : start + sizes[turn % len(sizes)]]
        parts.append(separator.process(block))
        assert all(stem.shape == block.shape for stem in parts[-1].values())
        start, turn = start + len(block), turn + 1
    parts.append(separator.flush())
    return {name: np.concatenate([part[name] for part in parts]) for name in separator.stems}


@pytest.mark.parametrize(
    "sizes", [[1], [255], [256], [257], [97, 1, 1009], [0, 960], [100000], [3, 5, 512, 7000]]
)
def test_blocks_do_not_matter_and_latency_is_exact(sizes: list[int]) -> None:
    audio = song(0.2)
    offline = separate(audio, RATE, "center")
    with BlockSeparator("center", RATE) as separator:
        stems = run(separator, audio, sizes)
        late = separator.latency
    assert late == 256 + 255
    for name, stem in stems.items():
        assert len(stem) == len(audio) + late
        assert not stem[:late].any()
        np.testing.assert_array_equal(stem[late:], offline[name])


@settings(max_examples=40, deadline=None)
@given(
    hop=st.integers(1, 300),
    blocksize=st.integers(1, 700),
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=8),
)
def test_latency_is_the_gathering(hop: int, blocksize: int, counts: list[int]) -> None:
    """With a separator that has no latency, all of it is from gathering blocks into hops."""
    separator = BlockSeparator(Identity(samplerate=RATE, hop=hop), RATE, blocksize=blocksize)
    assert separator.latency == hop - gcd(blocksize, hop)
    audio = song(0.7)[: blocksize * sum(counts)]  # at most 700 · 5 · 8 = 28 000 frames
    out = []
    start = 0
    for count in counts:
        block = audio[start : start + count * blocksize]
        out.append(separator.process(block)["accompaniment"])
        start += len(block)
    out.append(separator.flush()["accompaniment"])
    np.testing.assert_array_equal(np.concatenate(out)[separator.latency :], audio)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 37123, 88200, 96000, 192000])
def test_other_rates_have_an_exact_latency_too(rate: int) -> None:
    audio = song(0.1, rate)
    offline = separate(audio, rate, Identity(samplerate=native_rate(rate)))
    for sizes in ([1], [7, 900, 33]):
        separator = BlockSeparator(Identity(samplerate=native_rate(rate)), rate)
        stem = run(separator, audio, sizes)["accompaniment"]
        late = separator.latency
        np.testing.assert_array_equal(stem[late:], offline["accompaniment"])
        # Filters of 46 frames each way and the hop, with little to spare.
        least = 256 * rate / native_rate(rate) + 2 * 46 * max(1, rate / native_rate(rate))
        assert late < least + 10 * max(1, rate / native_rate(rate))


def test_after_flush_and_after_reset_it_is_as_new() -> None:
    audio = song(0.1)
    with BlockSeparator("center", RATE) as separator:
        first = run(separator, audio, [480])
        second = run(separator, audio, [481])
        separator.process(audio[:1234])
        separator.reset()
        third = run(separator, audio, [482])
    for name in separator.stems:
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_array_equal(first[name], third[name])


def test_mono() -> None:
    audio = song(0.1, channels=1)
    stems = run(BlockSeparator("identity", RATE, 1), audio, [77])
    np.testing.assert_array_equal(stems["accompaniment"][255:], audio)


def test_what_it_gives_stays_as_it_is() -> None:
    """No block is written to after it was given away, and writing to it spoils nothing."""
    audio = song(0.1)
    separator = BlockSeparator("identity", RATE)
    before = separator.process(audio[:1000])["accompaniment"]
    kept = before.copy()
    before[:] = 7
    after = separator.process(audio[1000:])["accompaniment"]
    assert (before == 7).all()
    np.testing.assert_array_equal(np.concatenate([kept, after])[255:], audio[:-255])


def test_bad_input_is_explained() -> None:
    separator = BlockSeparator("identity", RATE, blocksize=4)
    for block, words in (
        (np.zeros(8, np.float32), r"\(frames, 2\)"),
        (np.zeros((8, 1), np.float32), r"\(frames, 2\)"),
        (np.zeros((8, 2), np.int16), "int16"),
        (np.zeros((7, 2), np.float32), "blocksize=4"),
    ):
        with pytest.raises(UsageError, match=words):
            separator.process(block)
    with pytest.raises(UsageError, match="positive"):
        BlockSeparator("identity", RATE, blocksize=0)
    for rate in (0, 44, 2**31):
        with pytest.raises(UsageError, match=f"not {rate}"):
            BlockSeparator("identity", rate)
    with pytest.raises(UsageError, match="'center'"):
        BlockSeparator("centre", RATE)


def test_closes_only_what_it_made() -> None:
    closed = []

    class Closing(Identity):
        def close(self) -> None:
            closed.append(self)

    with BlockSeparator(Closing(samplerate=RATE), RATE):
        pass
    assert not closed
