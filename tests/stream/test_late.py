"""Late work never makes noise, and never makes latency grow."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from realtime_sep.io.null import NullSpec
from realtime_sep.stream import open_stream
from realtime_sep.types import Float32, StreamConfig

from .conftest import RATE, smooth
from .faulty import Sleepy

GUARD = 64


def jump(signal: Float32) -> float:
    """Largest step from one sample to the next, in any channel."""
    return float(np.abs(np.diff(signal, axis=0)).max())


def check_fades(out: Float32, wet: Float32, dry: Float32, fades: int = 1) -> None:
    """The law: no larger step than in wet and dry, plus 1/64 of their difference (per fade)."""
    allowed = max(jump(wet), jump(dry)) + fades * float(np.abs(wet - dry).max()) / GUARD
    assert jump(out) <= allowed + 1e-6


def sleepy(play: Any, seconds: float, **options: Any) -> tuple[Float32, Float32, Float32, Any]:
    """A second of music, a nap, and a second and a half after it. Returns out, wet, dry, stream."""
    source = smooth(2.5 + seconds)
    out, stream = play(
        Sleepy,
        source,
        clocked=True,
        separator_options={"at": (190,), "seconds": seconds, "hop": 256},
        vocals=options.get("vocals", 0.0),
        music=options.get("music", -20.0),
        config={"fallback": options.get("fallback", "dry")},
    )
    lag = stream.latency.frames
    delayed = np.zeros_like(out)
    delayed[lag:] = source[: len(out) - lag]
    gains = [10 ** (options.get(k, d) / 20) for k, d in (("vocals", 0.0), ("music", -20.0))]
    wet = (0.25 * gains[0] + 0.75 * gains[1]) * delayed
    dry = max(gains) * delayed if options.get("fallback", "dry") == "dry" else 0 * delayed
    return out, wet, np.clip(dry, -0.8913, 0.8913), stream


@pytest.mark.parametrize("fallback", ["dry", "silence"])
@pytest.mark.parametrize("seconds", [0.005, 0.05, 0.5])
def test_a_worker_that_sleeps(play: Any, seconds: float, fallback: str) -> None:
    out, wet, dry, stream = sleepy(play, seconds, fallback=fallback)
    stats = stream.stats
    check_fades(out, wet, dry)
    assert stats.fades >= (seconds > 0.02)

    if seconds > 0.02:
        missed = round(seconds * RATE)
        assert stats.late_blocks >= 1
        assert stats.dry_frames >= missed - stream.latency.bridge - 2 * stats.hop
        # Every frame that was played dry was dropped when it came: nothing is owed at the end.
        assert abs(stats.dry_frames - stats.dropped_frames) <= 2 * stats.fades


def test_half_a_second_is_not_computed_twice(play: Any) -> None:
    """What nobody would hear any more is skipped, so that the worker catches up at once."""
    _, _, _, stream = sleepy(play, 0.5)
    assert stream.stats.skipped_hops > 50
    assert stream.stats.epoch >= 1


def test_longer_than_the_rings(play: Any) -> None:
    """Three seconds away: input is lost, and counted; the timeline holds."""
    out, wet, dry, stream = sleepy(play, 3.0)
    stats = stream.stats
    # The input itself fades in after the gap, perhaps while the output still fades back.
    check_fades(out, wet, dry, fades=2)
    assert stats.overflow_frames > 0


@pytest.mark.parametrize("seconds", [0.005, 0.05, 0.5, 3.0])
def test_afterwards_the_latency_is_what_it_was(play: Any, seconds: float) -> None:
    """Half a second after the nap every sample is what and where it would have been."""
    for _ in range(4):
        out, wet, _, stream = sleepy(play, seconds)
        ended = time.monotonic()
        if ended - stream.stats.last_late > 0.8:
            tail = slice(-RATE // 2, -stream.latency.frames)
            np.testing.assert_allclose(out[tail], wet[tail], atol=1e-6)
            return
    pytest.skip("the machine stalled in the last half second of four runs")


@pytest.mark.parametrize(
    ("vocals", "music", "dry"),
    [(0, 0, True), (-3, 0, True), (float("-inf"), 0, False), (-12, 0, False), (0, -40, False)],
)
def test_auto_fallback_never_leaks_what_is_turned_down(
    play: Any, vocals: float, music: float, dry: bool
) -> None:
    source = smooth(1.6)
    out, stream = play(
        Sleepy,
        source,
        clocked=True,
        separator_options={"at": (120,), "seconds": 0.3, "hop": 256},
        vocals=vocals,
        music=music,
    )
    assert stream.stats.fades >= 1
    # Hop 120 never came in time: look at the middle of the gap that follows it.
    gap = slice(round(0.75 * RATE), round(0.85 * RATE))
    level = float(np.abs(out[gap]).max())
    assert (level > 0.1) == dry
    assert dry or level == 0


def test_two_naps_in_a_row(play: Any) -> None:
    """A second lateness while the first one fades back."""
    source = smooth(2.0)
    out, stream = play(
        Sleepy,
        source,
        clocked=True,
        separator_options={"at": (100, 101, 103, 106, 110, 111), "seconds": 0.02, "hop": 256},
        vocals=0.0,
        music=-20.0,
        config={"fallback": "dry"},
    )
    lag = stream.latency.frames
    delayed = np.zeros_like(out)
    delayed[lag:] = source[: len(out) - lag]
    check_fades(out, (0.25 + 0.075) * delayed, np.clip(delayed, -0.8913, 0.8913))


def test_in_its_own_process_too(play: Any) -> None:
    source = smooth(1.5)
    out, stream = play(
        Sleepy,
        source,
        clocked=True,
        process=True,
        separator_options={"at": (100,), "seconds": 0.1, "hop": 256},
        config={"fallback": "silence"},
    )
    lag = stream.latency.frames
    delayed = np.zeros_like(out)
    delayed[lag:] = source[: len(out) - lag]
    check_fades(out, delayed, 0 * delayed)
    assert stream.stats.late_blocks >= 1


def test_stopping_fades_out() -> None:
    """A stream that is stopped in full sound ends without a click."""
    source = smooth(5)
    spec = NullSpec(source, capture=True, frames=len(source))
    stream = open_stream(
        "identity", backend=spec, config=StreamConfig(samplerate=RATE), process=False
    )
    stream.start()
    assert not stream.wait(0.7)
    stream.stop()
    out = stream.captured
    assert out is not None
    assert np.abs(out).max() > 0.5
    assert jump(out) <= jump(source) + 1 / GUARD
