"""Segments: their timetable against a plain computation over whole arrays, and their transform."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.dsp.frames import SegmentTransform
from realtime_sep.errors import ModelError, UsageError
from realtime_sep.models.metadata import ModelMetadata
from realtime_sep.models.plan import SegmentPlan, profiles, segment_plan
from realtime_sep.offline import Separation, separate
from realtime_sep.separators.segments import Segments
from realtime_sep.types import Float32
from separators_onnx.test_spectral import noise, run

HOP, LENGTH = 16, 16 * 40
META = ModelMetadata(
    name="pieces",
    family="test",
    kind="segment",
    sample_rates=(44100, 48000),
    n_fft=0,
    hop=HOP,
    channels=2,
    stems=("vocals", "drums"),
    residual="other",
    licence="CC0-1.0",
    training_data="none",
    segment=LENGTH,
)
PLAN = SegmentPlan(step=5, deadline=7, lookahead=3, fade=2)


class FakeNet:
    """Stems that depend on all that they may depend on; as slow as wanted."""

    provider = "fake"

    def __init__(self, seconds: float = 0, metadata: ModelMetadata = META) -> None:
        self.metadata = metadata
        self.seconds = seconds
        self.error: Exception | None = None
        self.segment: Float32 = np.zeros((2, metadata.segment), np.float32)
        self.stems: Float32 = np.zeros((2, 2, metadata.segment), np.float32)

    def run(self) -> None:
        time.sleep(self.seconds)
        if self.error:
            raise self.error
        place = np.linspace(0, 1, self.metadata.segment, dtype=np.float32)
        self.stems[0] = self.segment * place
        self.stems[1] = 0.25 * self.segment + self.segment.mean()


class Half(FakeNet):
    """The first stem is half of the mix, the second none."""

    def run(self) -> None:
        self.stems[0] = 0.5 * self.segment
        self.stems[1] = 0


def offline(plan: SegmentPlan, signal: Float32) -> Float32:
    """The stems by arrays over the whole signal, written from the description in `SegmentPlan`."""
    net = FakeNet()
    step, fade, ahead = (HOP * n for n in (plan.step, plan.fade, plan.lookahead))
    padded = np.concatenate([np.zeros((LENGTH + step + fade + ahead, 2)), signal])
    begin = LENGTH + step + fade + ahead
    out = np.zeros((2, len(padded), 2))
    rise = np.sin(np.pi * (np.arange(fade) + 0.5) / (2 * fade)) ** 2
    window = np.concatenate([rise, np.ones(step - fade), rise[::-1]])[:, None]
    for end in range(begin + step, len(padded) + 1, step):
        net.segment[:] = padded[end - LENGTH : end].T
        net.run()
        taken = slice(end - ahead - step - fade, end - ahead)
        part = net.stems[:, :, LENGTH - ahead - step - fade : LENGTH - ahead]
        out[:, taken] += part.swapaxes(1, 2) * window
    return out[:, begin:].astype(np.float32)


PLANS = [
    PLAN,
    SegmentPlan(1, 1, 0, 0),
    SegmentPlan(4, 4, 0, 4),
    SegmentPlan(3, 11, 9, 1),  # four runs under way
    SegmentPlan(20, 1, 8, 12),
]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_streaming_equals_offline(plan: SegmentPlan) -> None:
    signal = noise(HOP * 200)
    separator = Segments(FakeNet(), plan, samplerate=44100)
    stems = run(separator, signal)
    late = separator.info.latency
    # The last run that came into use before the end of the input.
    valid = len(signal) - late - HOP * plan.step
    expected = offline(plan, signal)
    np.testing.assert_allclose(stems[:2, late : late + valid], expected[:, :valid], atol=1e-6)
    error = stems.sum(axis=0)[late:] - signal[: len(signal) - late]
    assert np.abs(error).max() < 1e-6  # -120 dBFS


@settings(max_examples=20, deadline=None)
@given(
    step=st.integers(1, 8),
    deadline=st.integers(1, 20),
    lookahead=st.integers(0, 9),
    fade=st.integers(0, 8),
)
def test_an_impulse_arrives_at_the_announced_sample(
    step: int, deadline: int, lookahead: int, fade: int
) -> None:
    separator = Segments(
        Half(), SegmentPlan(step, deadline, lookahead, min(fade, step)), samplerate=44100
    )
    signal = np.zeros((HOP * 80, 2), np.float32)
    signal[211] = [1.0, -0.5]
    stems = run(separator, signal)
    expected = 0.5 * np.roll(signal, separator.info.latency, axis=0)
    np.testing.assert_allclose(stems[0], expected, atol=1e-6)
    np.testing.assert_allclose(stems[2], expected, atol=1e-6)


def test_any_blocks_give_the_same_samples() -> None:
    signal = noise(HOP * 90)
    whole = separate(signal, 44100, Segments(FakeNet(), PLAN, samplerate=44100))
    separation = Separation(Segments(FakeNet(), PLAN, samplerate=44100), 44100, 2)
    sizes = [1, HOP - 1, HOP, HOP + 1, 97, 251] * 3
    blocks = np.split(signal, np.cumsum(sizes))
    parts = [separation.process(block) for block in blocks]
    stems = np.concatenate([*parts, separation.flush()], axis=1)
    for name, stem in zip(separation.stems, stems, strict=True):
        np.testing.assert_array_equal(stem, whole[name])


def test_a_slow_network_changes_no_sample_offline() -> None:
    signal = noise(HOP * 60)
    fast = run(Segments(FakeNet(), PLAN, samplerate=48000), signal)
    slow = run(Segments(FakeNet(0.01), PLAN, samplerate=48000), signal)
    np.testing.assert_array_equal(fast, slow)


def test_late_segments_fade_out_and_the_timing_stays() -> None:
    net = Half(0.0)
    plan = SegmentPlan(8, 8, 1, 4)
    separator = Segments(net, plan, samplerate=44100, realtime=True)
    separator._beside.patience = 5.0
    signal = np.full((HOP * 160, 2), 0.5, np.float32)
    separator._beside.patience = 5.0
    first = run(separator, signal)
    late = separator.info.latency
    assert separator.late_segments == 0
    np.testing.assert_allclose(first[0, late + 64 : -64], 0.25, atol=1e-6)

    separator.reset()
    separator._beside.patience = 0.0
    net.run = lambda: time.sleep(0.3)  # type: ignore[method-assign]
    begin = time.perf_counter()
    stems = run(separator, signal)
    assert time.perf_counter() - begin < 2.0  # 20 runs of 0.3 s are not waited for
    assert separator.late_segments > 5
    assert separator.notice is not None
    error = stems.sum(axis=0)[late:] - signal[: len(signal) - late]
    assert np.abs(error).max() < 1e-6
    # A fade of four hops: no step is larger than its steepest place.
    assert np.abs(np.diff(stems[0], axis=0)).max() < 0.25 * np.pi / (2 * 4 * HOP) * 1.1


def test_reset_with_work_in_hand() -> None:
    signal = noise(HOP * 60)
    separator = Segments(FakeNet(0.003), PLAN, samplerate=44100)
    first = run(separator, signal)
    for stop in (1, 4, 5, 6, 33):
        run(separator, signal[: HOP * stop])
        separator.reset()
        np.testing.assert_array_equal(run(separator, signal), first)
        separator.reset()


def test_mono_is_the_same_as_twice_the_same() -> None:
    signal = noise(HOP * 60, 1)
    mono = run(Segments(FakeNet(), PLAN, samplerate=44100, channels=1), signal)
    stereo = run(Segments(FakeNet(), PLAN, samplerate=44100), np.repeat(signal, 2, axis=1))
    np.testing.assert_allclose(mono[..., 0], stereo[..., 1], atol=1e-6)


def test_what_cannot_be() -> None:
    net = FakeNet()
    with pytest.raises(UsageError, match="runs at 44100 to 48000 Hz, not at 32000"):
        Segments(net, PLAN, samplerate=32000)
    with pytest.raises(UsageError, match="fade 6 must not be longer than step 5"):
        replace(PLAN, fade=6)
    with pytest.raises(UsageError, match="deadline must be 1 to 4096 hops, not 0"):
        replace(PLAN, deadline=0)
    with pytest.raises(UsageError, match="together must be at most 40 hops"):
        segment_plan(META, "fast", lookahead=40)
    with pytest.raises(UsageError, match="did you mean 'balanced'"):
        segment_plan(META, "balance")
    separator = Segments(net, PLAN, samplerate=44100)
    net.error = RuntimeError("out of memory")
    with pytest.raises(ModelError, match="failed: out of memory"):
        run(separator, noise(HOP * 40))


def test_every_profile_fits_its_segment() -> None:
    for seconds in (0.5, 2, 6, 12):
        metadata = replace(META, hop=1024, segment=round(44100 * seconds))
        for name in profiles(metadata):
            segment_plan(metadata, name)


def test_too_slow_says_what_helps() -> None:
    plan = SegmentPlan(4, 1, 1, 1)
    separator = Segments(Half(0), plan, samplerate=44100)
    separator.realtime = True
    assert separator.notice is None or "too slow" in separator.notice
    slow = Segments(FakeNet(0.2), plan, samplerate=44100, realtime=True)
    assert slow.notice is not None
    assert "times real time on fake" in slow.notice
    assert "a graphics card" in slow.notice
    assert slow.info.rtf > 50
    long = replace(META, hop=256, segment=44100 * 10)
    other = Segments(FakeNet(0.03, long), SegmentPlan(4, 1, 1, 1), samplerate=44100, realtime=True)
    assert other.notice is not None
    assert "--profile fast has time enough" in other.notice


def plain_frames(audio: Any, n_fft: int, hop: int, lead: int, frames: int) -> Any:
    """Frames by definition: `(channels, bins, T)`."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    padded = np.pad(audio, ((0, 0), (2 * n_fft, 2 * n_fft)), mode="reflect")
    begin = 2 * n_fft - lead
    return np.stack(
        [
            np.fft.rfft(padded[:, begin + t * hop : begin + t * hop + n_fft] * window)
            for t in range(frames)
        ],
        axis=-1,
    )


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("layout", "length", "frames", "lead", "scale"),
    [
        ("centred", 1024, 17, 128, 1.0),
        ("staggered", 1024, 16, 96, 1 / 16),
        ("staggered", 1000, 16, 96, 1 / 16),
    ],
)
def test_the_transform_is_what_it_is_called(
    layout: str,
    length: int,
    frames: int,
    lead: int,
    scale: float,
    channels: int,
) -> None:
    transform = SegmentTransform(256, 64, length, 129, layout)
    assert transform.frames == frames
    audio = np.ascontiguousarray(noise(length, channels).T)
    spec = np.zeros((channels, 2, 129, frames), np.float32)
    transform.forward(audio, spec)
    expected = scale * plain_frames(audio, 256, 64, lead, frames)
    np.testing.assert_allclose(spec[:, 0] + 1j * spec[:, 1], expected, atol=1e-4)
    back = np.zeros_like(audio)
    transform.inverse(spec, back)
    inner = slice(None) if layout == "centred" else slice(160, length - 160)
    np.testing.assert_allclose(back[:, inner], audio[:, inner], atol=1e-5)
