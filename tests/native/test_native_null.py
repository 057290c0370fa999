"""The device without hardware, with a worker written in Python."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from realtime_sep.errors import UsageError
from realtime_sep.native import Bridge, BridgeConfig, NullConfig, NullDevice, Ring, Wake

HOP, BLOCK, GUARD, RATE = 256, 128, 64, 48000
PREFILL = HOP - BLOCK + BLOCK + GUARD


class Worker(threading.Thread):
    """Passes hops through, and can be sent to sleep before a given one."""

    def __init__(self, inputs: Ring, outputs: Ring, wake: Wake) -> None:
        super().__init__(daemon=True)
        self.inputs, self.outputs, self.wake = inputs, outputs, wake
        self.quit = False
        self.sleeps: dict[int, float] = {}
        self.hops = 0

    def run(self) -> None:
        while not self.quit:
            self.wake.wait(0.05)
            while not self.quit and (heard := self.inputs.claim_read(HOP)) is not None:
                time.sleep(self.sleeps.get(self.hops, 0))
                made = self.outputs.claim_write(HOP)
                if made is None:
                    break
                made[:] = heard
                self.outputs.commit_write(HOP)
                self.inputs.commit_read(HOP)
                self.hops += 1


@contextmanager
def scene(prefill: int = PREFILL) -> Iterator[tuple[Bridge, Ring, Worker]]:
    inputs, outputs, wake = Ring(65536, 2), Ring(65536, 2), Wake()
    config = BridgeConfig(2, 2, 2, BLOCK, HOP, GUARD, prefill, prefill)
    worker = Worker(inputs, outputs, wake)
    worker.start()
    try:
        yield Bridge(config, inputs, outputs, wake), inputs, worker
    finally:
        worker.quit = True
        worker.join()


def finish(device: NullDevice, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while device.running:
        assert time.monotonic() < end, "the device does not end"
        time.sleep(0.005)


def song(count: int) -> np.ndarray:
    return np.random.default_rng(4).uniform(-0.5, 0.5, (count, 2)).astype(np.float32)


@pytest.mark.parametrize("more", [0, 1, 100])
def test_latency_is_measured_to_the_frame(more: int) -> None:
    source = np.zeros((20_000, 2), np.float32)
    source[777] = 0.5
    capture = np.full_like(source, np.nan)
    with scene(PREFILL + more) as (bridge, inputs, _):
        config = NullConfig(
            RATE, 2, 2, [BLOCK], source, capture=capture, frames=len(source), clocked=False
        )
        with NullDevice(config, bridge, inputs) as device:
            device.start()
            finish(device)
            assert device.position == len(source)
    assert np.flatnonzero(capture[:, 0]).tolist() == [777 + PREFILL + more]
    assert bridge.stats().late_blocks == 0


@pytest.mark.parametrize("blocks", [[1, 127], [128, 0, 37, 64], [61]])
def test_free_running_is_exact_for_any_blocks(blocks: list[int]) -> None:
    source = song(30_001)
    capture = np.full_like(source, np.nan)
    prefill = HOP - 1 + max(blocks) + GUARD
    with scene(prefill) as (bridge, inputs, _):
        config = NullConfig(
            RATE, 2, 2, blocks, source, capture=capture, frames=len(source), clocked=False
        )
        device = NullDevice(config, bridge, inputs)
        device.start()
        finish(device)
    assert np.array_equal(capture[prefill:], source[:-prefill])
    assert bridge.stats().frames == len(source)


def test_clocked_keeps_the_pace_and_survives_a_sleeping_worker() -> None:
    source = song(RATE)
    capture = np.full_like(source, np.nan)
    with scene() as (bridge, inputs, worker):
        worker.sleeps[40] = 0.1
        config = NullConfig(RATE, 2, 2, [BLOCK], source, capture=capture, frames=len(source))
        with NullDevice(config, bridge, inputs) as device:
            start = time.monotonic()
            device.start()
            finish(device)
            assert time.monotonic() - start >= 1.0
    stats = bridge.stats()
    assert stats.late_blocks > 0
    assert stats.dry_frames > 0
    # The worker passes the input through and dry is the input: whatever was played, wet, dry or
    # between, is the source late by the same prefill.
    assert np.allclose(capture[PREFILL:], source[:-PREFILL], atol=1e-6)
    assert stats.dropped_frames + stats.debt > 0


def test_stop_needs_no_worker_and_start_goes_on() -> None:
    inputs, outputs = Ring(1024, 2), Ring(1024, 2)
    bridge = Bridge(BridgeConfig(2, 2, 2, BLOCK, HOP, GUARD, 0, 0), inputs, outputs)
    device = NullDevice(NullConfig(RATE, 2, 2, [BLOCK], clocked=False), bridge, inputs)
    device.start()
    while device.position < HOP:
        time.sleep(0.001)
    with pytest.raises(OSError, match="busy"):
        device.start()
    device.stop()
    assert not device.running
    position = device.position
    device.start()
    while device.position == position:
        time.sleep(0.001)
    device.close()
    with pytest.raises(TypeError):
        device.start()


def test_a_running_device_may_be_forgotten() -> None:
    inputs, outputs = Ring(1024, 2), Ring(1024, 2)
    bridge = Bridge(BridgeConfig(2, 2, 2, BLOCK, HOP, GUARD, 0, 0), inputs, outputs)
    device = NullDevice(NullConfig(RATE, 2, 2, [BLOCK], song(1000), loop=True), bridge, inputs)
    device.start()
    for ring in (inputs, outputs):
        ring.close()
    bridge.close()
    cycle = [device, bridge]
    cycle.append(cycle)  # type: ignore[arg-type]
    del device, bridge, inputs, outputs, cycle
    gc.collect()


def test_what_does_not_fit_is_refused() -> None:
    with scene() as (bridge, inputs, _):
        for config in (
            NullConfig(RATE, 2, 2, []),
            NullConfig(RATE, 2, 2, [0, 0]),
            NullConfig(0, 2, 2, [BLOCK]),
            NullConfig(RATE, 1, 2, [BLOCK], source=song(10)),
            NullConfig(RATE, 2, 3, [BLOCK], capture=song(10)),
        ):
            with pytest.raises(UsageError):
                NullDevice(config, bridge, inputs)
