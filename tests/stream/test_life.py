"""Opening, failing, ending, closing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from realtime_sep.errors import DeviceError, EngineError, RealtimeSepError, UsageError
from realtime_sep.io.null import NullSpec
from realtime_sep.stream import Stream, open_stream
from realtime_sep.types import StreamConfig

from .conftest import RATE, noise, smooth
from .faulty import Crashing, Poisoned

BOTH = pytest.mark.parametrize("process", [False, True])


def null(seconds: float = 60, **options: Any) -> NullSpec:
    return NullSpec(noise(0.5), loop=True, frames=round(seconds * RATE), **options)


def opened(separator: Any = "identity", **options: Any) -> Stream:
    options.setdefault("backend", null())
    options.setdefault("config", StreamConfig(samplerate=RATE))
    return open_stream(separator, **options)


@BOTH
def test_counters_move(process: bool) -> None:
    with opened(process=process) as stream:
        assert not stream.wait(0.4)
        first = stream.stats
        assert not stream.wait(0.4)
        second = stream.stats
    assert first.hops > 20
    assert second.hops > first.hops + 20
    assert second.frames > first.frames
    assert second.elapsed > first.elapsed > 0
    assert 0 < second.worker_p50 <= second.worker_p99 <= second.worker_p999
    assert 0 < second.load < 1
    assert -3 < second.input_peak <= -1.9
    assert -3 < second.stem_peaks["accompaniment"] <= -1.9
    assert second.stem_peaks["vocals"] == -np.inf


@BOTH
def test_faders_change_the_level(process: bool) -> None:
    with opened(process=process) as stream:
        stream.set("music", -20)
        assert not stream.wait(1.2)
        assert stream.stats.output_peak == pytest.approx(-1.94 - 20, abs=0.5)
        stream.set("music", float("-inf"))
        assert not stream.wait(1.2)
        assert stream.stats.output_peak < -40


def test_wrong_faders() -> None:
    with opened(process=False) as stream:
        with pytest.raises(UsageError, match="did you mean 'vocals'"):
            stream.set("vocal", 0)
        with pytest.raises(UsageError, match=r"\+6 dB"):
            stream.set("vocals", 20)
        with pytest.raises(UsageError):
            stream.set("vocals", float("nan"))


@BOTH
@pytest.mark.parametrize(
    ("separator", "options", "message"),
    [
        ("centre", {}, "did you mean 'center'"),
        ("identity", {"separator_options": {"hopp": 3}}, "did you mean 'hop'"),
        ("identity", {"config": StreamConfig(samplerate=RATE, guard=5)}, "guard"),
        ("identity", {"config": StreamConfig(samplerate=RATE, outputs=("vocal",))}, "vocals"),
        ("identity", {"config": StreamConfig(samplerate=RATE, blocksize=0)}, "block size"),
        ("identity", {"effects": ("gian",)}, "did you mean 'gain'"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    process: bool, separator: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        opened(separator, process=process, **options)
    assert "\n" not in str(caught.value)


@BOTH
def test_a_separator_that_raises_ends_the_stream_with_its_words(process: bool) -> None:
    with (
        pytest.raises(EngineError, match="out of ideas"),
        opened(Crashing, process=process) as stream,
    ):
        stream.wait(20)


@BOTH
def test_poison_never_reaches_the_output(play: Any, process: bool) -> None:
    out, stream = play(Poisoned, smooth(1.5), process=process)
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 10 ** (-1 / 20)
    assert stream.stats.bad_hops > 10


def test_hostile_input_does_no_lasting_harm(play: Any) -> None:
    source = smooth(1.0)
    source[5000:5100] = np.nan
    source[9000] = np.inf
    source[12000:12010] = 1e30
    out, stream = play("center", source)
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 10 ** (-1 / 20)
    assert stream.stats.bad_input == 2 * (100 + 1 + 10)
    lag = stream.latency.frames
    np.testing.assert_allclose(out[lag + 24000 :], source[24000:], atol=0.2)


def test_killing_the_engine_is_noticed() -> None:
    stream = opened()
    stream.start()
    assert not stream.wait(0.2)
    os.kill(stream._engine._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    begin = time.monotonic()
    with pytest.raises(EngineError, match="died"):
        stream.wait(20)
    assert time.monotonic() - begin < 3
    stream.close()


def test_a_session_that_is_told_to_end_ends_in_order() -> None:
    """SIGTERM to every process at once, as service managers send it, is an end and no crash."""
    with opened() as stream:
        assert not stream.wait(0.3)
        os.kill(stream._engine._process.pid, signal.SIGTERM)  # type: ignore[attr-defined]
        assert stream.wait(5)
        assert stream.stats.hops > 0
        stream.stop()


def test_the_engine_does_not_outlive_its_owner() -> None:
    script = textwrap.dedent("""
        import time
        import numpy as np
        from realtime_sep import NullSpec, StreamConfig, open_stream

        # No `if __name__ == "__main__"`: a plain script may open a stream too.
        stream = open_stream(
            "identity",
            backend=NullSpec(np.zeros((4800, 2), np.float32), loop=True),
            config=StreamConfig(samplerate=48000),
        )
        stream.start()
        print(stream._engine._process.pid, flush=True)
        time.sleep(60)
    """)
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert owner.stdout is not None
    engine = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    deadline = time.monotonic() + 5
    while _alive(engine):
        assert time.monotonic() < deadline, "the engine lives on without its owner"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@BOTH
def test_closing_twice_and_out_of_order(process: bool) -> None:
    never_started = opened(process=process)
    never_started.close()
    never_started.close()
    stream = opened(process=process)
    with stream:
        pass
    stream.stop()
    stream.close()
    assert not stream.running
    with pytest.raises(UsageError, match="starts once"):
        stream.start()


@BOTH
def test_ends_by_itself(process: bool) -> None:
    with opened(process=process, backend=null(0.3, clocked=False)) as stream:
        assert stream.wait(20)
        assert not stream.running


def test_null_device_errors() -> None:
    with pytest.raises(DeviceError, match="needs an end"):
        opened(process=False, backend=NullSpec(capture=True))
    with pytest.raises(DeviceError, match="float32"):
        opened(process=False, backend=NullSpec(np.zeros(100, np.float32)))


def test_no_taps() -> None:
    with opened(process=False, tap=False) as stream, pytest.raises(UsageError, match="tap=False"):
        stream.blocks()


def test_a_listener_that_sleeps_loses_blocks_and_is_told() -> None:
    spec = NullSpec(noise(0.5), loop=True, frames=round(4.5 * RATE))
    stream = opened(backend=spec, process=False)
    blocks = stream.blocks()
    with stream:
        first = next(blocks)
        assert not stream.wait(3.5)
        assert stream.stats.tap_overflow > 0
        starts = [first.start, *(block.start for block in blocks)]
    gaps = [b - a for a, b in pairwise(starts)]
    assert max(gaps) > 256
    assert stream.stats.late_blocks < 100, "the worker waited for the listener"


def test_memory_does_not_grow() -> None:
    """Streams leave nothing behind: no process, no descriptor."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    with opened(backend=null(0.1, clocked=False)) as stream:
        stream.wait(20)
    before = descriptors()
    for _ in range(3):
        with opened(backend=null(0.1, clocked=False)) as stream:
            stream.wait(20)
    del stream
    assert descriptors() <= before + 2


def test_errors_cross_the_process_as_they_are() -> None:
    with pytest.raises(RealtimeSepError) as caught:
        opened("nonsense")
    assert type(caught.value) is UsageError
