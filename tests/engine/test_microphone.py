"""The microphone and the monitor: who hears what, how loud, and how late, to the sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from realtime_sep.effects.chain import Chain
from realtime_sep.effects.slot import Slot
from realtime_sep.engine import MIX, MONITOR, Engine
from realtime_sep.errors import UsageError
from realtime_sep.parameters import Settings
from realtime_sep.plugins import load_effect
from realtime_sep.separators.center import Center
from realtime_sep.types import Float32

RATE, HOP, HOPS = 48000, 256, 60
STEMS = ("vocals", "accompaniment")


def engine(**options: Any) -> Engine:
    separator = Center(samplerate=RATE, channels=2, profile="live")
    return Engine(separator, **{"microphone": True, "outputs": (MIX, MONITOR), **options})


def noise(seed: int, level: float = 0.1) -> Float32:
    rng = np.random.default_rng(seed)
    return rng.uniform(-level, level, (HOPS * HOP, 2)).astype(np.float32)


def play(
    engine: Engine, music: Float32, voice: Float32, **values: float
) -> tuple[Float32, Float32, Float32]:
    """Mix bus, monitor bus, and the stems added up."""
    settings = Settings(STEMS, microphone=True, monitor=True)
    for name, value in values.items():
        settings.set(name.replace("_", "."), value)
    engine.steer(settings.gains())
    engine.reset()
    out = np.zeros((len(music), engine.out_channels), np.float32)
    stems = np.zeros_like(music)
    for start in range(0, len(music), HOP):
        part = slice(start, start + HOP)
        assert engine.microphone is not None
        engine.microphone[:] = voice[part]
        engine.process(music[part], out[part])
        stems[part] = engine.stems.sum(axis=0)
    return out[:, :2], out[:, 2:], stems


def late(sound: Float32, frames: int) -> Float32:
    return np.concatenate([np.zeros((frames, 2), np.float32), sound])[: len(sound)]


def test_a_singer_does_not_wait_for_the_separator() -> None:
    """In the mix at the stated latency and level, and in no stem."""
    one = engine()
    voice, silence = noise(1), np.zeros((HOPS * HOP, 2), np.float32)
    mix, _, stems = play(one, silence, voice, mic=-6.0, mic_gain=3.0)
    gain = np.float32(10 ** (-6 / 20)) * np.float32(10 ** (3 / 20))
    assert one.microphone_latency == one.limiter_latency == 32
    assert one.microphone_latency < one.latency
    np.testing.assert_allclose(mix, late(voice, 32) * gain, atol=1e-6)
    assert not stems.any()


@pytest.mark.parametrize("limiter", [True, False])
def test_a_voice_to_be_recorded_is_as_late_as_in_the_mix(limiter: bool) -> None:
    """And as loud as before its fader."""
    one, voice = engine(limiter=limiter), noise(1)
    play(one, voice, voice, mic_mute=1)  # a past, to be forgotten
    settings = Settings(STEMS, microphone=True, monitor=True)
    settings.set("mic", -20.0)
    settings.set("mic.gain", 6.0)
    one.steer(settings.gains())
    one.reset()
    sung = np.zeros_like(voice)
    out = np.zeros((HOP, one.out_channels), np.float32)
    for start in range(0, len(voice), HOP):
        assert one.microphone is not None
        assert one.sung is not None
        one.microphone[:] = voice[start : start + HOP]
        one.process(voice[start : start + HOP], out)
        sung[start : start + HOP] = one.sung
    gain = np.float32(10 ** (6 / 20))
    np.testing.assert_allclose(sung, late(voice, one.microphone_latency) * gain, atol=1e-6)


@pytest.mark.parametrize("values", [{"mic.mute": 1}, {"mic": -math.inf}, {"master": -math.inf}])
def test_what_is_off_is_silent(values: dict[str, float]) -> None:
    mix, _, _ = play(engine(), np.zeros((HOPS * HOP, 2), np.float32), noise(1), **values)
    assert not mix.any()


def test_bypass_and_key_change_leave_the_singer_alone() -> None:
    chains = {MIX: Chain([Slot(load_effect("pitch"), "pitch")])}
    one = engine(chains=chains)
    voice, silence = noise(1), np.zeros((HOPS * HOP, 2), np.float32)
    for bypass in (0, 1):
        mix, _, _ = play(one, silence, voice, bypass=bypass)
        np.testing.assert_allclose(mix, late(voice, 32), atol=1e-6)
    assert one.latency > 4096


def test_the_monitor_has_levels_of_its_own() -> None:
    """The hall hears no vocals, the ear hears them 12 dB down and the singer 3 dB up."""
    one = engine()
    music, voice = noise(2), noise(3)
    silence = np.zeros_like(music)
    _, alone, _ = play(one, music, silence, vocals=-math.inf, monitor_mic=-math.inf)
    np.testing.assert_allclose(alone, late(music, one.latency), atol=1e-5)
    assert one.monitor_latency == one.latency

    def level(**values: float) -> float:
        _, ear, _ = play(one, music, voice, **values)
        return float(10 * np.log10(np.mean(np.square(ear[RATE // 8 :]))))

    off = -math.inf
    quiet = {"monitor_vocals": off, "monitor_music": off, "monitor_mic": off}
    original = level(**quiet, monitor_dry=0.0)
    assert original == pytest.approx(10 * np.log10(np.mean(np.square(music))), abs=0.1)
    assert level(**quiet, monitor_dry=-12.0) == pytest.approx(original - 12, abs=0.01)
    assert level(**quiet, monitor_dry=0.0, monitor=-20.0) == pytest.approx(original - 20, abs=0.01)
    singer = level(**{**quiet, "monitor_mic": 0.0})
    assert level(**{**quiet, "monitor_mic": 3.0}) == pytest.approx(singer + 3, abs=0.01)
    assert level(**{**quiet, "monitor_mic": 0.0}, mic_mute=1) == pytest.approx(singer, abs=0.01)
    vocals = level(**{**quiet, "monitor_vocals": 0.0})
    assert level(**{**quiet, "monitor_vocals": -12.0}, vocals=off) == pytest.approx(
        vocals - 12, abs=0.01
    )


def test_the_ear_waits_for_the_key_of_the_hall() -> None:
    """With the key change in both chains both are equally late; without it the ear waits."""
    for places in ((MIX,), (MIX, MONITOR)):
        chains = {place: Chain([Slot(load_effect("pitch"), "pitch")]) for place in places}
        one = engine(chains=chains)
        music = noise(2)
        _, ear, _ = play(one, music, np.zeros_like(music), monitor_mic=-math.inf)
        assert one.monitor_latency == one.latency
        expected = late(music, one.latency)
        np.testing.assert_allclose(
            ear[one.latency + 4096 :], expected[one.latency + 4096 :], atol=1e-3
        )


def test_nonsense_from_the_microphone_does_not_come_out() -> None:
    voice = noise(1)
    voice[1000:1100] = np.nan
    voice[2000] = 1e30
    one = engine()
    mix, ear, _ = play(one, noise(2), voice)
    assert np.all(np.isfinite(mix))
    assert np.all(np.isfinite(ear))
    assert max(np.max(np.abs(mix)), np.max(np.abs(ear))) <= np.float32(10 ** (-1 / 20))
    assert one.bad_input > 0


def test_without_them_nothing_is_to_be_turned() -> None:
    assert not {"mic", "monitor"} & set(Settings(STEMS).parameters)
    with pytest.raises(UsageError, match="mic"):
        Settings(STEMS).set("mic", 0.0)
    one = engine(microphone=False, outputs=(MIX,))
    assert one.microphone is None
    assert one.sung is None
    assert one.monitor is None
    assert set(one.chains) == {*STEMS, MIX}
