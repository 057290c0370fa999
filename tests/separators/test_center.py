"""Separation by position: what must hold for every input, and what it does to typical ones."""

from __future__ import annotations

import numpy as np
import pytest

from realtime_sep.errors import UsageError
from realtime_sep.separators import Separator
from realtime_sep.separators.center import MONO_NOTICE, Center, PlainCenter
from realtime_sep.types import PROFILES, Float32, Geometry

RATE = 44100


def run(separator: Separator, audio: Float32) -> Float32:
    """Stems `(2, n, channels)` of as many whole hops as `audio` has, not aligned."""
    hop = separator.info.hop
    whole = len(audio) // hop * hop
    stems = np.full((2, whole, audio.shape[1]), np.nan, np.float32)
    part = np.empty((2, hop, audio.shape[1]), np.float32)
    for start in range(0, whole, hop):
        separator.process(audio[start : start + hop], part)
        stems[:, start : start + hop] = part
    return stems


def power_db(audio: Float32) -> float:
    return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64)) + 1e-20))


def noise(seconds: float, *shape: int, seed: int = 0, level: float = 0.1) -> Float32:
    samples = np.random.default_rng(seed).standard_normal((int(seconds * RATE), *shape))
    return (level * samples).astype(np.float32)


def tone(frequency: float, seconds: float = 2.0, level: float = 0.2) -> Float32:
    phase = 2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE
    return (level * np.sin(phase)).astype(np.float32)


def panned(mono: Float32, left: float, right: float) -> Float32:
    return np.stack([left * mono, right * mono], axis=1)


def late(audio: Float32, frames: int) -> Float32:
    """`audio` delayed by `frames`, as long as before."""
    return np.concatenate([np.zeros((frames, audio.shape[1]), np.float32), audio])[: len(audio)]


@pytest.mark.parametrize("make", [Center, PlainCenter])
def test_is_a_separator(make: type) -> None:
    assert isinstance(make(samplerate=RATE), Separator)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("samplerate", [44100, 48000])
def test_stems_add_up_to_the_delayed_mix(profile: str, samplerate: int) -> None:
    separator = Center(samplerate=samplerate, profile=profile)
    audio = noise(0.5, 2) + panned(tone(440, 0.5), 1, 1)
    stems = run(separator, audio)
    delayed = late(audio, separator.info.latency)[: stems.shape[1]]
    assert power_db(stems.sum(axis=0) - delayed) <= -120
    assert power_db(stems[0]) > -40  # and it did separate something


@pytest.mark.parametrize("hop", [1, 64, 250])
def test_plain_stems_add_up_at_once(hop: int) -> None:
    audio = noise(0.1, 2)
    stems = run(PlainCenter(samplerate=RATE, hop=hop), audio)
    audio = audio[: stems.shape[1]]
    assert power_db(stems.sum(axis=0) - audio) <= -120
    np.testing.assert_allclose(stems[0], audio.mean(axis=1, keepdims=True).repeat(2, 1), atol=1e-7)


@pytest.mark.parametrize("profile", PROFILES)
def test_latency_to_the_sample(profile: str) -> None:
    """A click in the centre comes out of `vocals` where `info.latency` says."""
    separator = Center(samplerate=RATE, profile=profile)
    # Some faint width first, or the click alone would be mono.
    audio = 1e-3 * noise(1.0, 2, level=1.0)
    click = 30_011
    audio[click] += 1.0
    stems = run(separator, audio)
    geometry = PROFILES[profile]
    assert separator.info.latency == geometry.synthesis - geometry.hop
    assert int(np.argmax(np.abs(stems[0, :, 0]))) == click + separator.info.latency


def test_a_voice_in_the_centre_goes_and_a_panned_instrument_stays() -> None:
    voice, guitar = tone(440.0), tone(700.0)
    mix = panned(voice, 1, 1) + panned(guitar, 1, 0.2)
    separator = Center(samplerate=RATE)
    stems = run(separator, mix)
    settled = slice(RATE // 2, RATE)
    wanted = late(panned(voice, 1, 1), separator.info.latency)
    assert power_db((stems[0] - wanted[: stems.shape[1]])[settled]) < power_db(wanted[settled]) - 25


def test_music_at_the_side_stays_in_stereo() -> None:
    mix = noise(1.0, 2)  # two independent channels: no centre at all
    separator = Center(samplerate=RATE)
    stems = run(separator, mix)
    wanted = late(mix, separator.info.latency)[: stems.shape[1]]
    assert power_db(stems[1] - wanted) < power_db(wanted) - 15


def test_bass_in_the_centre_stays() -> None:
    mix = panned(tone(60.0), 1, 1) + panned(tone(700.0, level=0.1), 1, 0)
    stems = run(Center(samplerate=RATE), mix)
    assert power_db(stems[0, RATE // 2 :]) < power_db(mix) - 25


@pytest.mark.parametrize("right", [1.0, 0.985, 0.0])
def test_mono_passes_as_accompaniment_and_says_so_once(right: float) -> None:
    """Equal channels, a line input a tenth of a dB off, and one channel alone."""
    mix = panned(noise(4.0), 1, right)
    separator = Center(samplerate=RATE)
    early = run(separator, mix[: 2 * RATE])
    assert separator.notice is None
    rest = run(separator, mix[2 * RATE :])
    assert separator.notice == MONO_NOTICE
    assert not early[0].any()
    assert not rest[0].any()
    separator.notice = None
    run(separator, mix)
    separator.reset()
    assert separator.notice is None


@pytest.mark.parametrize("make", [Center, PlainCenter])
def test_one_channel_passes(make: type) -> None:
    separator = make(samplerate=RATE, channels=1)
    mix = noise(0.2, 1)
    stems = run(separator, mix)
    assert separator.notice == MONO_NOTICE
    assert not stems[0].any()
    wanted = late(mix, separator.info.latency)[: stems.shape[1]]
    np.testing.assert_array_equal(stems[1], wanted)


def test_stereo_is_found_at_once_and_remembered_through_a_solo() -> None:
    voice = panned(tone(440.0, 8.0), 1, 1)
    band = np.concatenate([0.3 * noise(1.0, 2), np.zeros((7 * RATE, 2), np.float32)])
    separator = Center(samplerate=RATE)
    stems = run(separator, voice + band)
    assert separator.notice is None
    assert power_db(stems[1, 3 * RATE :]) < power_db(voice) - 40, "the voice alone is still taken"
    started = slice(RATE // 10, RATE // 2)
    assert power_db(stems[0, started]) > power_db(voice) - 3, "and was from the beginning"


def test_silence_says_nothing_about_the_width() -> None:
    separator = Center(samplerate=RATE)
    stems = run(separator, np.zeros((5 * RATE, 2), np.float32))
    assert separator.notice is None
    assert not stems.any()


def test_same_input_same_output_and_reset_means_new() -> None:
    mix = noise(0.5, 2)
    separator = Center(samplerate=RATE)
    first = run(separator, mix)
    separator.reset()
    np.testing.assert_array_equal(first, run(separator, mix))
    np.testing.assert_array_equal(first, run(Center(samplerate=RATE), mix))


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e25])
def test_recovers_from_impossible_samples(poison: float) -> None:
    mix = noise(1.0, 2) + panned(tone(440, 1.0), 1, 1)
    clean = run(Center(samplerate=RATE), mix)
    bad = mix.copy()
    bad[5000] = poison
    stems = run(Center(samplerate=RATE), bad)
    tail = slice(RATE // 2, None)
    assert np.isfinite(stems[:, tail]).all()
    assert power_db(stems[:, tail] - clean[:, tail]) < power_db(clean[:, tail]) - 30


def test_a_fading_tail_leaves_no_denormals() -> None:
    separator = Center(samplerate=RATE)
    run(separator, noise(0.2, 2))
    run(separator, np.zeros((4 * RATE, 2), np.float32))
    tiny = np.finfo(np.float32).tiny
    for state in (separator._mid_power, separator._side_power):
        assert not ((state > 0) & (state < tiny)).any()


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UsageError, match="did you mean 'stage'"):
        Center(samplerate=RATE, profile="stagee")
    with pytest.raises(UsageError, match="not 6"):
        Center(samplerate=RATE, channels=6)
    with pytest.raises(UsageError, match="hop=4096"):
        Center(samplerate=RATE, geometry=Geometry(2048, 2048, 4096))
    with pytest.raises(UsageError, match="at least 1"):
        PlainCenter(samplerate=RATE, hop=0)
