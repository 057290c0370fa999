"""What every backend promises, asked of every backend that the machine has."""

from __future__ import annotations

import os
import time

import pytest

from realtime_sep.errors import DeviceError
from realtime_sep.latency import stream_latency

from .conftest import RATE, Backend, those

pytestmark = pytest.mark.timeout(120)

EVERY = pytest.mark.parametrize("backend", those(lambda kind: True), indirect=True)
LIVE = pytest.mark.parametrize("backend", those(lambda kind: bool(kind.blocks)), indirect=True)


@EVERY
def test_what_comes_in_comes_out(backend: Backend) -> None:
    backend.check_passthrough()


@LIVE
def test_latency_is_computed_and_counters_tell_what_happens(backend: Backend) -> None:
    with backend.stream() as stream:
        latency, info = stream.latency, stream.info
        assert latency.device >= 0
        assert latency.total == latency.frames + latency.device
        blocks = (latency.deadline, *backend.blocks)
        assert latency.deadline >= max(backend.blocks)
        bursts = latency.deadline not in backend.blocks
        expected = stream_latency(
            samplerate=RATE,
            hop=info.hop,
            blocks=blocks if bursts else backend.blocks,
            guard=64,
            separator=0,
            limiter=32,
            device=latency.device,
        )
        assert latency == expected
        first = stream.stats
        stream.wait(0.5)
        second = stream.stats
        stream.stop()
        third = stream.stats
    assert second.samplerate == RATE
    frames, callbacks = second.frames - first.frames, second.callbacks - first.callbacks
    assert 0 < callbacks <= frames
    assert min(backend.blocks) - 1 <= frames / callbacks <= latency.deadline
    assert 0 <= third.frames - third.hops * third.hop <= RATE / 4, "the worker keeps up"
    assert second.elapsed > first.elapsed
    assert 0 <= second.callback_age < 1
    assert second.overflow_frames == 0
    assert second.reopens == 0


@LIVE
def test_a_stop_is_clean_and_may_be_repeated(backend: Backend) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with backend.stream() as stream:
        begin = time.monotonic()
        stream.stop()
        assert time.monotonic() - begin < 3
        frames = stream.stats.frames
        time.sleep(0.1)
        assert stream.stats.frames == frames
        stream.stop()
        stream.close()
        stream.close()
        assert not stream.running
    assert len(os.listdir("/proc/self/fd")) <= before + 4


@LIVE
def test_a_device_that_goes_is_one_clear_error(backend: Backend) -> None:
    with backend.stream(reconnect=0) as stream:
        backend.vanish()
        begin = time.monotonic()
        with pytest.raises(DeviceError) as caught:
            stream.wait(5)
        assert time.monotonic() - begin < 3
        assert "\n" not in str(caught.value)
        assert not stream.running
