"""The sliding separator: its timetable, checked against a plain computation over whole arrays."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.dsp.wiener import wiener_gains
from realtime_sep.dsp.windows import window_pair
from realtime_sep.errors import ModelError, UsageError
from realtime_sep.models.plan import SlidingPlan, apply_geometry, plan, scaled
from realtime_sep.separators.onnx import load
from realtime_sep.separators.sliding import Sliding
from realtime_sep.types import Float32
from separators_onnx import tiny
from separators_onnx.test_spectral import run

META = replace(tiny.WINDOW, n_fft=256, hop=64, bins=100, frames=4)
PLAN = SlidingPlan(context=8, step=2, lookahead=1, deadline=3, shift=2)


class FakeNet:
    """Masks that depend on everything that a mask may depend on; as slow as wanted."""

    provider = "fake"

    def __init__(self, plan: SlidingPlan = PLAN, metadata: Any = META, seconds: float = 0) -> None:
        self.metadata = metadata
        self.plan = plan
        self.seconds = seconds
        self.error: Exception | None = None
        self.window: Float32 = np.zeros((2, plan.context, metadata.bins), np.float32)

    def reset(self) -> None:
        pass

    def run(self, masks: Float32) -> None:
        time.sleep(self.seconds)
        if self.error:
            raise self.error
        end = self.plan.context - self.plan.lookahead
        newest = self.window[:, end - self.plan.step : end]
        masks[:, 0] = (newest / (newest + self.window.mean(axis=1, keepdims=True) + 1e-6)).swapaxes(
            0, 1
        )


class Constant(FakeNet):
    """The mask is one everywhere."""

    def run(self, masks: Float32) -> None:
        masks[:] = 1


def music(frames: int, channels: int = 2) -> Float32:
    """Noise whose level and colour change, from before the first sample."""
    rng = np.random.default_rng(3)
    white = rng.uniform(-0.5, 0.5, (frames, channels))
    beat = 0.2 + 0.8 * (np.arange(frames) // 300 % 3 == 0)
    signal: Float32 = (white * beat[:, None]).astype(np.float32)
    return signal


def offline(plan: SlidingPlan, signal: Float32) -> Float32:
    """The vocals by arrays over the whole signal, in float64: frames, windows, masks, overlap-add.

    Written from the description in `SlidingPlan`, without a stream or a timetable."""
    n_fft, hop = META.n_fft, META.hop
    small = hop // plan.hops_per_frame
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    count = len(signal) // hop
    padded = np.concatenate([np.zeros((n_fft - hop, 2)), signal])
    frames = np.stack(
        [
            np.abs(np.fft.rfft(padded[i * hop : i * hop + n_fft] * hann[:, None], axis=0))[
                : META.bins
            ]
            for i in range(count)
        ]
    )
    squares = (frames**2).sum(axis=(1, 2)) / 2 * 2 / (n_fft * (hann**2).sum())
    net = FakeNet(plan)
    masks = np.zeros((count, META.bins, 2))
    for window in range(count // plan.step):
        seen = (window + 1) * plan.step
        past = list(range(seen))
        while len(past) < plan.context:
            past = past[::-1] + past if len(past) == seen else past[: 2 * seen] * 8
            past = past[-2 * seen * ((plan.context // (2 * seen)) + 1) :]
        rows = past[-plan.context :]
        level = np.sqrt(squares[max(0, seen - plan.context) : seen].mean() + 1e-12)
        scale = min(10 ** (META.level / 20) / level, 100)
        net.window[:] = (frames[rows] * scale).transpose(2, 0, 1)
        out = np.zeros((plan.step, 1, 2, META.bins), np.float32)
        net.run(out)
        for i in range(plan.step):
            frame = window * plan.step - plan.lookahead + i
            if frame >= 0:
                masks[frame] = out[i, 0].T

    synthesis = plan.overlap * small
    analysis, synth = window_pair(n_fft, synthesis, small)
    hops = len(signal) // small
    result = np.zeros((hops * small + n_fft, 2))
    padded = np.concatenate([np.zeros((n_fft, 2)), signal])
    for i in range(1, hops + 1):
        end = i * small
        place = max(0.0, (end + plan.shift * small) / hop - 1)
        before = int(place)
        if before + 1 >= count:
            break
        mask = masks[before] * (1 - place % 1) + masks[before + 1] * (place % 1)
        spectrum = np.fft.rfft(padded[end : end + n_fft] * analysis[:, None], axis=0)
        spectrum[: META.bins] *= mask
        spectrum[META.bins :] = 0
        tail = np.fft.irfft(spectrum, axis=0)[n_fft - synthesis :] * synth[:, None]
        result[n_fft + end - synthesis : n_fft + end] += tail
    return result[n_fft:].astype(np.float32)


PLANS = [
    PLAN,
    replace(PLAN, lookahead=0, shift=0, deadline=1),
    replace(PLAN, step=1, lookahead=0, deadline=4, shift=4),
    replace(PLAN, step=4, lookahead=3, deadline=16, shift=7),
    replace(PLAN, step=1, lookahead=2, deadline=11, shift=1),  # three windows in the air
    replace(PLAN, hops_per_frame=2, overlap=2, deadline=2),
    replace(PLAN, step=3, deadline=7, shift=-4),
]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_streaming_equals_offline(plan: SlidingPlan) -> None:
    signal = music(64 * 80)
    separator = Sliding(FakeNet(plan), plan, samplerate=44100)
    stems = run(separator, signal)
    late = separator.info.latency
    expected = offline(plan, signal)
    valid = len(signal) - late - 64 * (plan.step + plan.lookahead + plan.deadline + 4)
    first = 64 * 4 * max(0, -plan.shift)
    np.testing.assert_allclose(
        stems[0][late + first : late + valid], expected[first:valid], atol=3e-5
    )
    error = stems.sum(axis=0)[late:] - signal[: len(signal) - late]
    assert np.abs(error).max() < 1e-6  # -120 dBFS


@settings(max_examples=25, deadline=None)
@given(
    step=st.integers(1, 5),
    lookahead=st.integers(0, 3),
    deadline=st.integers(1, 20),
    shift=st.integers(0, 12),
    hops=st.sampled_from([1, 2, 4, 8]),
)
def test_an_impulse_arrives_at_the_announced_sample(
    step: int, lookahead: int, deadline: int, shift: int, hops: int
) -> None:
    plan = SlidingPlan(8, step, lookahead, deadline, shift, hops, min(4, 2 * hops))
    metadata = replace(META, bins=129)
    separator = Sliding(Constant(plan, metadata), plan, samplerate=44100)
    signal = np.zeros((64 * 60, 2), np.float32)
    signal[911] = [1.0, -0.5]
    vocals, rest = run(separator, signal)
    expected = np.roll(signal, separator.info.latency, axis=0)
    np.testing.assert_allclose(vocals, expected, atol=3e-6)
    np.testing.assert_allclose(rest, 0, atol=3e-6)


def test_a_slow_network_changes_no_sample_offline() -> None:
    signal = music(64 * 24)
    fast = run(Sliding(FakeNet(), PLAN, samplerate=44100), signal)
    slow = run(Sliding(FakeNet(seconds=0.02), PLAN, samplerate=44100), signal)
    np.testing.assert_array_equal(fast, slow)


def test_live_equals_offline_when_nothing_is_late() -> None:
    signal = music(64 * 30)
    expected = run(Sliding(FakeNet(), PLAN, samplerate=44100), signal)
    live = Sliding(FakeNet(), PLAN, samplerate=44100, realtime=True)
    live._beside.patience = 5.0  # this machine may be busy; the timetable is what is tested
    np.testing.assert_array_equal(run(live, signal), expected)
    assert live.late_masks == 0


def test_late_masks_are_counted_and_the_timing_stays() -> None:
    signal = music(64 * 40)
    net = FakeNet(seconds=0.05)
    separator = Sliding(net, PLAN, samplerate=44100, realtime=True)
    begin = time.perf_counter()
    stems = run(separator, signal)
    assert time.perf_counter() - begin < 1.0  # 20 windows of 50 ms are not waited for
    assert separator.late_masks > 5
    assert separator.notice is not None
    assert "is too slow here" in separator.notice
    assert separator.info.rtf > 1
    late = separator.info.latency
    error = stems.sum(axis=0)[late:] - signal[: len(signal) - late]
    assert np.abs(error).max() < 1e-6
    # Once the network is quick again, so are the masks.
    net.seconds = 0
    time.sleep(0.5)
    run(separator, signal[: 64 * 8])
    separator._beside.patience = 5.0
    before = separator.late_masks
    run(separator, signal)
    assert separator.late_masks == before


def test_reset_with_work_in_hand() -> None:
    signal = music(64 * 30)
    separator = Sliding(FakeNet(seconds=0.005), PLAN, samplerate=44100)
    first = run(separator, signal)
    for stop in (1, 7, 8, 9, 64):
        run(separator, signal[: 16 * stop])
        separator.reset()
        np.testing.assert_array_equal(run(separator, signal), first)
        separator.reset()


def test_quiet_music_sounds_like_loud_music() -> None:
    signal = music(64 * 40)
    loud = run(Sliding(FakeNet(), PLAN, samplerate=44100), signal)
    quiet = run(Sliding(FakeNet(), PLAN, samplerate=44100), signal * np.float32(2**-6))
    np.testing.assert_allclose(quiet * 2**6, loud, atol=1e-3)


def test_silence_gives_silence() -> None:
    stems = run(Sliding(FakeNet(), PLAN, samplerate=44100), np.zeros((64 * 30, 2), np.float32))
    np.testing.assert_array_equal(stems, 0)


@pytest.mark.parametrize("level", [0.0, 1e-4])
def test_music_after_a_pause_sounds_as_from_the_start(level: float) -> None:
    signal = music(64 * 40)
    expected = run(Sliding(FakeNet(), PLAN, samplerate=44100), signal)
    pause = 64 * 2 * 12
    rng = np.random.default_rng(0)
    noise = rng.uniform(-level, level, (pause, 2)).astype(np.float32)
    late = run(Sliding(FakeNet(), PLAN, samplerate=44100), np.concatenate([noise, signal]))
    np.testing.assert_allclose(late[:, pause:], expected, atol=1e-6 + 2 * level)


def test_mono_is_the_same_as_twice_the_same() -> None:
    signal = music(64 * 40, 1)
    mono = run(Sliding(FakeNet(), PLAN, samplerate=44100, channels=1), signal)
    stereo = run(Sliding(FakeNet(), PLAN, samplerate=44100), np.repeat(signal, 2, axis=1))
    np.testing.assert_allclose(mono[..., 0], stereo[..., 1], atol=1e-5)


def test_a_failing_network_is_an_error() -> None:
    net = FakeNet()
    separator = Sliding(net, PLAN, samplerate=44100)
    net.error = RuntimeError("out of memory")
    with pytest.raises(ModelError, match="failed: out of memory"):
        run(separator, music(64 * 20))


def test_the_helper_ends_with_its_separator() -> None:
    def helpers() -> int:
        return sum(thread.name == "realtime_sep helper" for thread in threading.enumerate())

    gc.collect()
    before = helpers()
    separator = Sliding(FakeNet(), PLAN, samplerate=44100)
    run(separator, music(64 * 4))
    del separator
    gc.collect()
    end = time.monotonic() + 5
    while helpers() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert helpers() <= before


def test_other_rates_scale_the_transform() -> None:
    spleeter = replace(META, n_fft=4096, hop=1024, bins=1024)
    assert scaled(spleeter, 44100) == (4096, 1024)
    assert scaled(spleeter, 48000) == (4480, 1120)
    assert scaled(spleeter, 88200) == (8192, 2048)
    assert scaled(spleeter, 22050) == (2048, 512)
    for rate in range(22050, 192001, 1571):
        n_fft, hop = scaled(spleeter, rate)
        assert n_fft == 4 * hop
        assert n_fft / rate == pytest.approx(4096 / 44100, rel=0.02)
    with pytest.raises(UsageError, match="at least 22028 Hz, not 16000"):
        scaled(spleeter, 16000)


def test_plans_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="must fit into the context"):
        replace(PLAN, lookahead=7)
    with pytest.raises(UsageError, match="step must be a whole number of at most 4096, not '2'"):
        plan(META, "fast", step="2")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="context must be a whole number of at most 4096"):
        plan(META, "fast", context=10**9)
    with pytest.raises(UsageError, match="earlier than the first mask"):
        replace(PLAN, shift=-100)
    with pytest.raises(UsageError, match="did you mean 'balanced'"):
        plan(META, "balance")
    with pytest.raises(UsageError, match="multiple of 4"):
        plan(META, "fast", context=30)
    with pytest.raises(UsageError, match="does not fit"):
        apply_geometry(replace(PLAN, overlap=40), 256, 64)


def test_a_window_model_from_a_file(tmp_path: Any) -> None:
    made = tiny.window_gain(0.25, replace(tiny.WINDOW, bins=257))
    separator = load(tiny.entry(made, tmp_path), samplerate=44100, step=2, profile="fast")
    assert separator.info.provider == "CPUExecutionProvider"
    signal = music(128 * 60)
    vocals, rest = run(separator, signal)
    late = separator.info.latency
    np.testing.assert_allclose(vocals[late:], 0.25 * signal[: len(signal) - late], atol=3e-6)
    np.testing.assert_allclose(rest[late:], 0.75 * signal[: len(signal) - late], atol=3e-6)
    with pytest.raises(UsageError, match="did you mean 'lookahead'"):
        load(tiny.entry(made, tmp_path), samplerate=44100, lokahead=2)


def test_a_wiener_filter_of_one_channel_is_a_ratio_of_energies() -> None:
    rng = np.random.default_rng(4)
    mix = (rng.normal(0, 1, (9, 1, 20)) + 1j * rng.normal(0, 1, (9, 1, 20))).astype(np.complex64)
    masks = rng.uniform(0, 1, (9, 2, 1, 20)).astype(np.float32)
    gains = wiener_gains(masks, mix, 1)
    every = np.concatenate([masks, 1 - masks.sum(axis=1, keepdims=True)], axis=1) ** 2
    expected = every / every.sum(axis=1, keepdims=True)
    # Less where the mix is hardly louder than the noise that is thought to be under everything.
    np.testing.assert_allclose(gains[:, :, 0, 0].real, expected[:, :, 0], atol=2e-2)
    np.testing.assert_allclose(gains.sum(axis=1), 1, atol=2e-2)
    np.testing.assert_array_equal(wiener_gains(masks, mix, 1, first=6), gains[6:])


def test_a_wiener_filter_hears_where_a_stem_is() -> None:
    """A voice on the left, music on the right; a network that cannot tell them apart by level."""

    class Blind(FakeNet):
        def run(self, masks: Float32) -> None:
            masks[:] = 0
            masks[:, :, 0] = 0.8  # but it has an idea of where to look
            masks[:, :, 1] = 0.2

    signal = music(64 * 80)
    signal[:, 1] = np.roll(signal[:, 0], 777)
    plain = run(Sliding(Blind(), PLAN, samplerate=44100), signal)
    separator = Sliding(Blind(), PLAN, samplerate=44100, wiener=2)
    filtered = run(separator, signal)
    late = separator.info.latency
    error = filtered.sum(axis=0)[late:] - signal[:-late]
    assert np.abs(error).max() < 2e-6
    voice = np.zeros_like(signal)
    voice[:, 0] = signal[:, 0]

    def distance(stems: Float32) -> float:
        part = slice(64 * 20, len(signal) - late)
        return float(np.mean((stems[0][late:][part] - voice[part]) ** 2))

    assert distance(filtered) < 0.9 * distance(plain)
    separator.reset()
    np.testing.assert_array_equal(run(separator, signal), filtered)
    mono = run(Sliding(Blind(), PLAN, samplerate=44100, channels=1, wiener=1), signal[:, :1])
    assert np.isfinite(mono).all()


def test_a_wiener_filter_wants_all_frames_of_a_network_without_states() -> None:
    with pytest.raises(UsageError, match="wiener must be 0 to 10 iterations"):
        Sliding(FakeNet(), PLAN, samplerate=44100, wiener=11)
