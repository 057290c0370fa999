"""The ring's owner against the obvious model, a queue of frames."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
from collections import deque
from multiprocessing import shared_memory

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from realtime_sep.errors import UsageError
from realtime_sep.native import Ring

CHANNELS = 2
COUNTS = st.integers(0, 80)


def frames(start: int, count: int) -> np.ndarray:
    """`count` frames that tell their place on the timeline."""
    place = np.arange(start, start + count, dtype=np.float32) % 65536
    return np.stack([place, -place], axis=1)


class RingMachine(RuleBasedStateMachine):
    @initialize(
        backing=st.sampled_from(["mirrored", "plain", "placed"]),
        start=st.sampled_from([0, 17, 2**32 - 40, 2**63 - 40]),
    )
    def make(self, backing: str, start: int) -> None:
        if backing == "placed":
            self.ring = Ring.place(bytearray(Ring.bytes_needed(50, CHANNELS)), 50, CHANNELS)
        else:
            self.ring = Ring(50, CHANNELS, mirror=backing == "mirrored")
        self.capacity = self.ring.capacity
        self.ring.seek(start)
        self.written = start
        self.queue: deque[tuple[float, ...]] = deque()

    def put(self, data: np.ndarray) -> None:
        self.queue.extend(map(tuple, data.tolist()))
        self.written += len(data)

    def take(self, data: np.ndarray) -> None:
        assert data.tolist() == [list(self.queue.popleft()) for _ in range(len(data))]

    @rule(count=COUNTS)
    def write(self, count: int) -> None:
        data = frames(self.written, count)
        done = self.ring.write(data)
        assert done == min(count, self.capacity - len(self.queue))
        self.put(data[:done])

    @rule(count=COUNTS)
    def read(self, count: int) -> None:
        data = self.ring.read(count)
        assert len(data) == min(count, len(self.queue))
        self.take(data)

    @rule(count=COUNTS, used=st.floats(0, 1))
    def claim_and_write(self, count: int, used: float) -> None:
        view = self.ring.claim_write(count)
        if count > self.capacity - len(self.queue):
            assert view is None
            return
        assert view is not None
        assert view.shape == (count, CHANNELS)
        some = round(used * count)
        view[:some] = frames(self.written, some)
        self.ring.commit_write(some)
        self.put(frames(self.written, some))

    @rule(count=COUNTS, used=st.floats(0, 1))
    def claim_and_read(self, count: int, used: float) -> None:
        view = self.ring.claim_read(count)
        if count > len(self.queue):
            assert view is None
            return
        assert view is not None
        assert view.tolist() == [list(frame) for frame in list(self.queue)[:count]]
        some = round(used * count)
        self.take(view[:some].copy())
        self.ring.commit_read(some)

    @rule()
    def claim_and_think_again(self) -> None:
        self.ring.claim_write(1)
        self.ring.claim_read(1)

    @invariant()
    def counters_agree(self) -> None:
        if hasattr(self, "ring"):
            assert self.ring.written == self.written
            assert self.ring.consumed == self.written - len(self.queue)
            assert self.ring.read_space == len(self.queue)
            assert self.ring.write_space == self.capacity - len(self.queue)


TestRingMachine = RingMachine.TestCase
TestRingMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("mirror", [True, False])
def test_two_threads(mirror: bool) -> None:
    total = 200_000
    ring = Ring(1000, CHANNELS, mirror=mirror)
    random = np.random.default_rng(1)
    sizes = random.integers(1, 400, 10_000)

    def produce() -> None:
        place, turn = 0, 0
        while place < total:
            size = min(int(sizes[turn % len(sizes)]), total - place)
            view = ring.claim_write(size)
            if view is not None:
                view[:] = frames(place, size)
                ring.commit_write(size)
                place += size
                turn += 1
            else:
                time.sleep(0)  # the other's turn

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    place, turn = 0, 3
    while place < total:
        size = min(int(sizes[turn % len(sizes)]), total - place)
        view = ring.claim_read(size)
        if view is not None:
            assert np.array_equal(view, frames(place, size))
            ring.commit_read(size)
            place += size
            turn += 1
        else:
            time.sleep(0)
    thread.join()
    assert ring.consumed == total


def test_mirrored_views_look_into_the_ring() -> None:
    ring = Ring(100, CHANNELS)
    if not ring.mirrored:
        pytest.skip("no mirrored memory on this platform")
    ring.seek(ring.capacity - 10)
    view = ring.claim_write(50)
    assert view is not None
    view[:] = frames(0, 50)
    ring.commit_write(50)
    again = ring.claim_read(50)
    assert again is not None
    assert np.shares_memory(view, again)
    assert np.array_equal(again, frames(0, 50))


@pytest.mark.parametrize("mirror", [True, False])
def test_a_view_keeps_its_ring_alive(mirror: bool) -> None:
    ring = Ring(5000, CHANNELS, mirror=mirror)
    view = ring.claim_write(1000)
    assert view is not None
    ring.close()
    assert ring.closed
    del ring
    gc.collect()
    view[:] = 0.5
    assert view.sum() == 1000


def test_closed_and_wrong_use_are_errors() -> None:
    ring = Ring(64, CHANNELS)
    with pytest.raises(UsageError, match="shape"):
        ring.write(np.zeros((4, 3), np.float32))
    with pytest.raises(UsageError, match="shape"):
        ring.write(np.zeros(8, np.float32))
    with pytest.raises(UsageError):
        Ring(0, 2)
    with pytest.raises(UsageError):
        Ring(64, 0)
    with pytest.raises(OverflowError):
        Ring(-1, 2)
    ring.close()
    ring.close()
    with pytest.raises(TypeError):
        ring.read(1)
    with pytest.raises(TypeError):
        _ = ring.written


def test_what_is_not_float32_is_converted() -> None:
    ring = Ring(64, CHANNELS)
    data = frames(0, 20).astype(np.float64)[::2]
    assert ring.write(data) == 10  # type: ignore[arg-type]
    assert np.array_equal(ring.read(10), data)


def test_garbage_is_not_attached() -> None:
    with pytest.raises(UsageError):
        Ring.attach(bytearray(10_000))
    with pytest.raises(UsageError):
        Ring.attach(bytearray(3))
    with pytest.raises(UsageError):
        Ring.place(bytearray(100), 50, CHANNELS)
    with pytest.raises(BufferError):
        Ring.attach(bytes(10_000))


def produce_elsewhere(name: str, total: int) -> None:
    memory = shared_memory.SharedMemory(name=name)
    ring = Ring.attach(memory.buf)
    place = 0
    while place < total:
        place += ring.write(frames(place, min(100, total - place)))
    ring.close()
    memory.close()


def test_across_processes() -> None:
    total = 50_000
    size = Ring.bytes_needed(1000, CHANNELS)
    memory = shared_memory.SharedMemory(create=True, size=size)
    try:
        ring = Ring.place(memory.buf, 1000, CHANNELS)
        spawn = multiprocessing.get_context("spawn")
        child = spawn.Process(target=produce_elsewhere, args=(memory.name, total))
        child.start()
        place = 0
        while place < total:
            data = ring.read(333)
            assert np.array_equal(data, frames(place, len(data)))
            place += len(data)
            assert place == total or child.is_alive() or ring.read_space
        child.join(30)
        assert child.exitcode == 0
        ring.close()
    finally:
        memory.close()
        memory.unlink()
