"""The latency that is reported is the latency that is measured, to the sample."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import realtime_sep.rig
from realtime_sep.types import PROFILES

from .conftest import noise
from .faulty import Halves

IMPULSE_AT = 3000


def measure(play: Any, separator: Any, **options: Any) -> tuple[int, Any]:
    """Frames from an impulse in the source to the impulse in the output."""
    rate = options.get("rate", 48000)
    source = np.zeros((IMPULSE_AT + rate // 4, 2), np.float32)
    source[IMPULSE_AT] = (0.5, 0.4)  # not mono: the centre separator would have nothing to do
    out, stream = play(separator, source, **options)
    return int(np.argmax(np.abs(out[:, 0]))) - IMPULSE_AT, stream


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
@pytest.mark.parametrize("hop", [64, 100, 256, 512])
@pytest.mark.parametrize("block", [1, 17, 64, 128, 256, 1024])
def test_impulse_through_identity(play: Any, rate: int, hop: int, block: int) -> None:
    measured, stream = measure(
        play, "identity", rate=rate, blocks=(block,), separator_options={"hop": hop}
    )
    assert measured == stream.latency.frames
    assert stream.stats.late_blocks == 0


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("profile", list(PROFILES))
@pytest.mark.parametrize("block", [64, 240, 512])
def test_impulse_through_center(play: Any, rate: int, profile: str, block: int) -> None:
    measured, stream = measure(
        play, "center", rate=rate, blocks=(block,), separator_options={"profile": profile}
    )
    assert measured == stream.latency.frames
    geometry = PROFILES[profile]
    assert stream.latency.separator == geometry.synthesis - geometry.hop


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    blocks=st.lists(st.integers(1, 700), min_size=1, max_size=6),
    hop=st.sampled_from([32, 128, 100, 255]),
)
def test_a_device_with_changing_blocks(play: Any, blocks: list[int], hop: int) -> None:
    measured, stream = measure(
        play, "identity", blocks=tuple(blocks), separator_options={"hop": hop}
    )
    assert measured == stream.latency.frames
    assert stream.stats.late_blocks == 0


def test_one_frame_of_prefill_is_one_frame_of_latency(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measurement does not come from the formula: it sees what the formula does not."""
    honest = realtime_sep.rig.BridgeConfig

    def longer(**fields: Any) -> Any:
        return honest(**{**fields, "prefill": fields["prefill"] + 1})

    monkeypatch.setattr(realtime_sep.rig, "BridgeConfig", longer)
    measured, stream = measure(play, "identity")
    assert measured == stream.latency.frames + 1


def test_the_prefill_is_not_a_frame_too_long(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one frame less the guard is touched at once: the formula is as small as it can be."""
    honest = realtime_sep.rig.BridgeConfig

    def shorter(**fields: Any) -> Any:
        return honest(**{**fields, "prefill": fields["prefill"] - 1})

    monkeypatch.setattr(realtime_sep.rig, "BridgeConfig", shorter)
    _, stream = play("identity", noise(0.5), blocks=(100,))
    assert stream.stats.late_blocks > 0


def test_in_a_process_and_by_the_clock(play: Any) -> None:
    measured, stream = measure(play, "identity", process=True, clocked=True)
    assert measured == stream.latency.frames


def test_effects_and_limiter_count(play: Any) -> None:
    measured, stream = measure(play, Halves, effects=("gain",), config={"limiter": True})
    assert measured == stream.latency.frames
    without, plain = measure(play, Halves, config={"limiter": False})
    assert without == plain.latency.frames
    assert measured - without == stream.latency.limiter > 0


def test_parts_add_up(play: Any) -> None:
    _, stream = play("center", noise(0.2), blocks=(256,))
    latency = stream.latency
    parts = dataclasses.asdict(latency)
    del parts["samplerate"]
    assert latency.total == sum(parts.values())
    assert latency.ms() == pytest.approx(1000 * latency.total / 48000)
