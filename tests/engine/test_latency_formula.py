"""The latency formula against a model of what it describes, played through frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from math import gcd, lcm

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.latency import overlap_add_lag, stream_latency
from realtime_sep.types import PROFILES, Geometry, Latency


def held_back(blocks: Iterable[int], hop: int, prefill: int) -> Iterator[int]:
    """Frames that are left in the output ring after each callback; below zero it would be dry.

    A callback pushes a block of input and pops a block of output.  The worker is as late as it may
    be: it has turned every full hop into output when the next callback begins, not before.
    """
    waiting, finished = 0, prefill
    for block in blocks:
        while waiting >= hop:
            waiting -= hop
            finished += hop
        waiting += block
        finished -= block
        yield finished


def latency(hop: int, blocks: list[int], guard: int) -> Latency:
    return stream_latency(samplerate=48000, hop=hop, blocks=blocks, guard=guard, separator=0)


BLOCKS = [1, 2, 3, 16, 37, 64, 100, 127, 128, 129, 192, 256, 441, 480, 512, 1000, 1024, 4096]


@pytest.mark.parametrize("hop", [1, 2, 7, 64, 100, 128, 256, 441, 512])
@pytest.mark.parametrize("block", BLOCKS)
def test_the_prefill_is_exactly_enough(block: int, hop: int) -> None:
    """The least that is ever held back is the guard: no frame more, and so none could be spared."""
    callbacks = 2 * lcm(block, hop) // block + 2
    for guard in (0, 1, 64, 200):
        prefill = latency(hop, [block], guard).bridge
        assert min(held_back([block] * callbacks, hop, prefill)) == guard
        assert min(held_back([block] * callbacks, hop, prefill - 1)) == guard - 1


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 600), min_size=1, max_size=4),
    order=st.lists(st.integers(0, 3), min_size=1, max_size=200),
    hop=st.integers(1, 600),
)
def test_a_device_with_several_block_sizes_never_touches_the_guard(
    sizes: list[int], order: list[int], hop: int
) -> None:
    blocks = [sizes[i % len(sizes)] for i in order]
    assert min(held_back(blocks, hop, latency(hop, sizes, 64).bridge)) >= 64


@pytest.mark.parametrize(("sizes", "hop"), [([480, 441], 256), ([64, 96], 128), ([6, 10], 15)])
def test_several_block_sizes_cost_no_frame_too_many(sizes: list[int], hop: int) -> None:
    """Some order of them leaves no more than the guard: first what fills the input ring to its
    worst, as far as the common divisor lets it, then the largest block."""
    orders: dict[int, list[int]] = {0: []}  # by frames that wait for a full hop
    worst = hop - gcd(hop, *sizes)
    while worst not in orders:
        for waiting, order in list(orders.items()):
            for size in sizes:
                orders.setdefault((waiting + size) % hop, [*order, size])
    blocks = [*orders[worst], max(sizes)]
    assert min(held_back(blocks, hop, latency(hop, sizes, 64).bridge)) == 64


def test_where_blocks_divide_hops_the_parts_make_s_and_the_guard() -> None:
    for geometry in PROFILES.values():
        lag = overlap_add_lag(geometry)
        for block in (32, 64, 128):
            made = stream_latency(
                samplerate=44100, hop=geometry.hop, blocks=[block], guard=64, separator=lag
            )
            assert made.engine + made.bridge == geometry.synthesis + 64


def test_overlap_add_lags_by_what_is_not_finished() -> None:
    assert overlap_add_lag(Geometry(2048, 512, 256)) == 256
    assert overlap_add_lag(Geometry(2048, 512, 512)) == 0
    assert overlap_add_lag(Geometry(2048, 512, 128), lookahead=3) == 384 + 3 * 128


def test_every_part_counts_once() -> None:
    made = stream_latency(
        samplerate=1000,
        hop=4,
        blocks=list(islice(cycle([6]), 2)),
        guard=100,
        separator=1000,
        effects=10_000,
        limiter=100_000,
        device=1_000_000,
    )
    assert (made.gathering, made.deadline, made.guard) == (2, 6, 100)
    assert made.engine == 111_000
    assert made.bridge == 108
    assert made.frames == 111_108
    assert made.total == 1_111_108
    assert made.ms() == 1_111_108
    assert made.ms(made.bridge) == 108
