"""The bridge's owner: the C callback called with numpy arrays."""

from __future__ import annotations

import ctypes
import gc
from dataclasses import replace

import numpy as np
import pytest

from realtime_sep.errors import UsageError
from realtime_sep.native import Bridge, BridgeConfig, Ring, Wake, now

HOP, BLOCK, GUARD = 128, 64, 64
PREFILL = HOP - BLOCK + BLOCK + GUARD
CONFIG = BridgeConfig(
    in_channels=2,
    channels=2,
    out_channels=2,
    max_block=BLOCK,
    hop=HOP,
    guard=GUARD,
    prefill=PREFILL,
    latency=PREFILL,
)


class Scene:
    """A bridge whose worker negates what it hears, when asked to."""

    def __init__(self, config: BridgeConfig = CONFIG, mirror: bool = True) -> None:
        self.inputs = Ring(2048, config.channels, mirror=mirror)
        self.outputs = Ring(2048, config.out_channels, mirror=mirror)
        self.wake = Wake()
        self.bridge = Bridge(config, self.inputs, self.outputs, self.wake)

    def work(self) -> None:
        while (heard := self.inputs.claim_read(HOP)) is not None:
            made = self.outputs.claim_write(HOP)
            assert made is not None
            np.negative(heard, out=made)
            self.outputs.commit_write(HOP)
            self.inputs.commit_read(HOP)

    def play(self, source: np.ndarray, block: int = BLOCK, prompt: bool = True) -> np.ndarray:
        result = np.full_like(source, np.nan)
        for start in range(0, len(source), block):
            some = source[start : start + block]
            out = result[start : start + block]
            assert self.bridge.callback(some, out, len(some)) == 0
            if prompt:
                self.work()
        return result


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 2)).astype(np.float32)


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("block", [1, 7, BLOCK, 200])
def test_delay_is_the_prefill_to_the_frame(block: int, mirror: bool) -> None:
    prefill = HOP - 1 + block + GUARD
    scene = Scene(BridgeConfig(2, 2, 2, BLOCK, HOP, GUARD, prefill, prefill), mirror=mirror)
    source = noise(3000)
    played = scene.play(source, block)
    assert np.array_equal(played[prefill:], -source[:-prefill])
    assert not played[:prefill].any()
    stats = scene.bridge.stats()
    assert (stats.frames, stats.late_blocks, stats.dry_frames) == (3000, 0, 0)


def test_late_work_fades_to_dry_and_back_at_the_old_delay() -> None:
    scene = Scene()
    source = noise(20 * BLOCK, 1)
    scene.play(source)
    late = scene.play(source, prompt=False)[-10 * BLOCK :]
    # All dry by now: the input, late by the latency.
    assert np.array_equal(late, source[-10 * BLOCK - PREFILL : -PREFILL])
    stats = scene.bridge.stats()
    assert stats.fades == 1
    assert 0 < stats.late_blocks <= 4
    assert stats.debt == scene.bridge.debt > 0
    assert 0 < stats.last_late <= stats.last_callback <= now()
    scene.work()
    back = scene.play(source)
    assert np.array_equal(back[-10 * BLOCK :], -source[-10 * BLOCK - PREFILL : -PREFILL])
    after = scene.bridge.stats()
    assert after.debt == 0
    assert after.dropped_frames == stats.debt
    assert (after.fades, after.late_blocks) == (1, stats.late_blocks)


def test_dry_gain_of_zero_is_silence() -> None:
    scene = Scene()
    scene.bridge.set_dry(0)
    scene.play(noise(20 * BLOCK))
    late = scene.play(noise(20 * BLOCK), prompt=False)
    assert not late[-10 * BLOCK :].any()


def test_finish() -> None:
    scene = Scene()
    scene.play(noise(10 * BLOCK))
    scene.bridge.finish()
    assert not scene.bridge.finished
    out = np.ones((BLOCK, 2), np.float32)
    assert scene.bridge.callback(noise(BLOCK), out, BLOCK) == 1  # the guard is one block
    assert scene.bridge.finished
    assert not out[-1].any()
    assert scene.bridge.callback(noise(BLOCK), out, BLOCK) == 1
    assert not out.any()


def test_flags_and_times_are_counted() -> None:
    scene = Scene()
    for flags in (0x1, 0x2, 0x3, 0x4, 0x8, 0x10, 0x6):
        scene.bridge.callback(None, None, BLOCK, flags)
        scene.work()
    stats = scene.bridge.stats()
    assert (stats.callbacks, stats.xruns_in, stats.xruns_out) == (7, 4, 3)
    assert 0 < stats.busy_max <= stats.busy_total
    half, most = scene.bridge.busy_percentiles((50, 100))
    assert 0 < half <= most <= stats.busy_max * 1.19
    assert scene.wake.wait(0)


def test_addresses_are_what_a_host_calls() -> None:
    scene = Scene()
    prototype = ctypes.CFUNCTYPE(
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.c_void_p,
    )
    callback = prototype(Bridge.callback_pointer)
    source, out = noise(BLOCK), np.ones((BLOCK, 2), np.float32)
    result = callback(
        source.ctypes.data, out.ctypes.data, BLOCK, None, 0, scene.bridge.user_data_pointer
    )
    assert result == 0
    assert not out.any()
    assert np.array_equal(scene.inputs.read(BLOCK), source)


def test_a_bridge_keeps_its_rings_alive() -> None:
    scene = Scene()
    scene.inputs.close()
    scene.outputs.close()
    scene.wake.close()
    bridge = scene.bridge
    del scene
    gc.collect()
    out = np.ones((BLOCK, 2), np.float32)
    for _ in range(200):
        bridge.callback(noise(BLOCK), out, BLOCK)
    assert bridge.stats().overflow_frames > 0
    bridge.close()
    with pytest.raises(TypeError):
        bridge.stats()


def test_what_does_not_fit_is_refused() -> None:
    inputs, outputs = Ring(256, 2, mirror=False), Ring(256, 2, mirror=False)
    with pytest.raises(UsageError):
        Bridge(BridgeConfig(2, 1, 2, 64, 64, 64, 0, 0), inputs, outputs)
    with pytest.raises(UsageError):
        Bridge(BridgeConfig(2, 2, 2, 64, 64, 64, 257, 0), inputs, outputs)
    with pytest.raises(UsageError):
        Bridge(BridgeConfig(2, 2, 2, 64, 64, 0, 0, 0), inputs, outputs)
    with pytest.raises(UsageError):
        Bridge(BridgeConfig(2, 2, 2, 64, 64, 64, 0, 0), inputs)
    bridge = Bridge(BridgeConfig(2, 2, 2, 64, 64, 64, 0, 0), inputs, outputs)
    with pytest.raises(UsageError, match="fewer"):
        bridge.callback(noise(10), None, 11)
    with pytest.raises(UsageError, match="contiguous"):
        bridge.callback(None, np.zeros((11, 4), np.float32)[:, ::2], 11)


def test_the_dry_signal_follows_another_latency_once_it_is_not_heard() -> None:
    longer = 1000
    config = replace(CONFIG, longest=longer)
    scene = Scene(config)
    source = noise(200 * BLOCK)
    half = 100 * BLOCK
    scene.play(source[:half])
    scene.bridge.set_latency(longer)
    scene.play(source[half : half + BLOCK])
    out = scene.play(source[half + BLOCK :], prompt=False)
    whole = source[half + BLOCK - longer : -longer]
    np.testing.assert_array_equal(out[10 * BLOCK :], whole[10 * BLOCK :])
    # Beyond what there is room for it stays within the room.
    scene = Scene(config)
    scene.bridge.set_latency(1 << 40)
    assert np.isfinite(scene.play(source, prompt=False)).all()


@pytest.mark.parametrize("length", [1, 7, BLOCK, 1000])
def test_a_recording_enters_instead_of_the_input(length: int) -> None:
    scene = Scene()
    song = noise(length, seed=1)
    scene.bridge.play(song.copy())
    gc.collect()
    out = scene.play(noise(40 * BLOCK))
    expected = -np.tile(song, (40 * BLOCK // length + 1, 1))[: len(out) - PREFILL]
    np.testing.assert_array_equal(out[PREFILL:], expected)
