"""Offline separation: aligned to the sample, as long as the input, in constant memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.errors import UsageError
from realtime_sep.offline import Separation, separate, separate_stream
from realtime_sep.separators.identity import Identity
from realtime_sep.types import Float32, SeparatorInfo


class Late:
    """Gives the mix `latency` frames late: 3/4 of it as vocals, 1/4 as accompaniment."""

    def __init__(self, samplerate: int, channels: int, hop: int = 64, latency: int = 0) -> None:
        self.info = SeparatorInfo(
            name="late",
            stems=("vocals", "accompaniment"),
            samplerate=samplerate,
            channels=channels,
            hop=hop,
            latency=latency,
        )
        self.reset()

    def reset(self) -> None:
        self._past = np.zeros((self.info.latency, self.info.channels), np.float32)

    def process(self, hop: Float32, stems: Float32) -> None:
        line = np.concatenate([self._past, hop])
        stems[0] = 0.75 * line[: len(hop)]
        stems[1] = 0.25 * line[: len(hop)]
        self._past = line[len(hop) :]


def noise(frames: int, channels: int, seed: int = 0) -> Float32:
    generator = np.random.default_rng(seed)
    return (generator.uniform(-0.5, 0.5, (frames, channels))).astype(np.float32)


class Source:
    """Blocks of noise from nowhere: a recording that is never in memory as a whole."""

    samplerate = 44100
    channels = 2

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks

    def blocks(self) -> Iterator[Float32]:
        for seed in range(self._blocks):
            yield noise(8192, 2, seed)


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(0, 3000),
    channels=st.sampled_from([1, 2]),
    hop=st.integers(1, 300),
    latency=st.integers(0, 700),
)
def test_stems_are_aligned_to_the_sample(
    frames: int, channels: int, hop: int, latency: int
) -> None:
    audio = noise(frames, channels)
    stems = separate(audio, 44100, Late(44100, channels, hop, latency))
    np.testing.assert_array_equal(stems["vocals"], 0.75 * audio)
    np.testing.assert_array_equal(stems["accompaniment"], 0.25 * audio)


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), max_size=8), latency=st.integers(0, 300))
def test_block_sizes_do_not_matter(cuts: list[int], latency: int) -> None:
    audio = noise(3000, 2)
    separation = Separation(Late(44100, 2, 128, latency), 44100, 2)
    edges = [0, *sorted(cuts), len(audio)]
    parts = [separation.process(audio[a:b]) for a, b in pairwise(edges)]
    joined = np.concatenate([*parts, separation.flush()], axis=1)
    np.testing.assert_array_equal(joined[0], 0.75 * audio)


@pytest.mark.parametrize("samplerate", [8000, 11025, 16000, 32000, 96000, 192000])
def test_other_rates_are_resampled_without_delay(samplerate: int) -> None:
    seconds = 0.5
    time_axis = np.arange(int(samplerate * seconds)) / samplerate
    # The phase tells alignment: at 1 kHz, a tenth of a sample at 8 kHz is already -22 dB.
    audio = (0.5 * np.sin(2 * np.pi * 1000 * time_axis)).astype(np.float32)[:, np.newaxis]
    engine_rate = 48000 if 48000 % samplerate == 0 or samplerate % 48000 == 0 else 44100
    stems = separate(audio, samplerate, Late(engine_rate, 1, 256, 700))
    assert stems["vocals"].shape == audio.shape
    edge = samplerate // 50
    error = (stems["vocals"] + stems["accompaniment"] - audio)[edge:-edge]
    assert 20 * np.log10(np.abs(error).max() / 0.5) < -90


@pytest.mark.parametrize("frames", [0, 1, 2, 799, 800, 801])
@pytest.mark.parametrize("samplerate", [8000, 192000])
def test_resampled_length_is_exact(frames: int, samplerate: int) -> None:
    stems = separate(noise(frames, 2), samplerate, Late(48000, 2, 256, 100))
    assert stems["vocals"].shape == (frames, 2)


@pytest.mark.parametrize(
    ("dtype", "scale"), [("int16", 32767), ("int32", 2**31 - 1), ("float64", 1.0)]
)
def test_types_of_samples(dtype: str, scale: float) -> None:
    audio = noise(1000, 2)
    given_audio = (audio * scale).astype(dtype)
    stems = separate(given_audio, 44100, Identity(samplerate=44100))
    np.testing.assert_allclose(stems["accompaniment"], audio, atol=1e-4)
    assert stems["accompaniment"].dtype == np.float32


def test_shapes_follow_the_input() -> None:
    assert separate(noise(100, 1)[:, 0], 44100, Identity(samplerate=44100, channels=1))[
        "vocals"
    ].shape == (100,)
    six = noise(100, 6)
    stereo = separate(six, 44100, Identity(samplerate=44100))["accompaniment"]
    left = six[:, 0] + np.sqrt(0.5) * (six[:, 2] + six[:, 4])
    np.testing.assert_allclose(stereo[:, 0], left, atol=1e-6)


@pytest.mark.parametrize(
    "audio", [np.zeros((2, 1000)), np.zeros((2, 2, 2)), np.zeros((5, 0)), np.array(["x"])]
)
def test_what_is_no_audio_is_refused(audio: np.ndarray) -> None:
    with pytest.raises(UsageError, match="audio"):
        separate(audio, 44100, Identity(samplerate=44100))


def test_not_a_number_stays_inside() -> None:
    audio = noise(4000, 2)
    audio[1000, 0] = np.nan
    audio[1500, 1] = np.inf
    stems = separate(audio, 44100, Identity(samplerate=44100))
    assert np.isfinite(stems["accompaniment"]).all()
    np.testing.assert_array_equal(stems["accompaniment"][2000:], audio[2000:])


def test_memory_does_not_grow_with_length() -> None:
    def peak_bytes(blocks: int) -> int:
        tracemalloc.start()
        frames = 0
        for stems in separate_stream(Source(blocks), Late(44100, 2, 256, 768)):
            frames += len(stems["vocals"])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert frames == 8192 * blocks
        return peak

    short = peak_bytes(20)
    long = peak_bytes(400)
    assert long < 1.2 * short + 100_000


def test_much_faster_than_real_time() -> None:
    audio = noise(30 * 44100, 2)
    separate(audio[:44100], 44100, Identity(samplerate=44100))  # compile
    start = time.perf_counter()
    separate(audio, 44100, Identity(samplerate=44100))
    assert time.perf_counter() - start < 15
