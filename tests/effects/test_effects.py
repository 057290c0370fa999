"""The built-in effects, each against an independent reference.

What all effects promise (any blocks, reset, latency, no clicks) is in tests/testing.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import signal

from realtime_sep.effects import Effect
from realtime_sep.effects.dynamics import Compressor, Deesser, Gate, Limiter
from realtime_sep.effects.filters import (
    HIGH_HZ,
    LOW_HZ,
    MIDDLE_Q,
    Equaliser,
    Highpass,
    Lowpass,
    highpass_coefficients,
    lowpass_coefficients,
)
from realtime_sep.effects.pitch import N_FFT, Pitch
from realtime_sep.effects.space import ALLPASSES, COMBS, SPREAD, Echo, Reverb
from realtime_sep.errors import UsageError
from realtime_sep.plugins import load_effect
from realtime_sep.types import Float32

RATE = 44100
EVERY = {
    "highpass": Highpass, "lowpass": Lowpass, "eq": Equaliser, "gate": Gate,
    "compressor": Compressor, "deesser": Deesser, "limiter": Limiter, "echo": Echo,
    "reverb": Reverb, "pitch": Pitch,
}  # fmt: skip
NAMES = pytest.mark.parametrize("name", EVERY)


def noise(frames: int, channels: int = 2, level: float = 0.3) -> Float32:
    rng = np.random.default_rng(0)
    return rng.uniform(-level, level, (frames, channels)).astype(np.float32)


def sine(frames: int, hz: float, level: float = 0.4, channels: int = 2) -> Float32:
    t = np.arange(frames)[:, np.newaxis] / RATE
    return np.repeat(level * np.sin(2 * np.pi * hz * t), channels, axis=1).astype(np.float32)


def made(name: str, channels: int = 2, rate: int = RATE, **values: float) -> Effect:
    effect: Effect = EVERY[name]()
    for key, value in values.items():
        effect.set(key, value)
    effect.prepare(rate, channels, 4096)
    return effect


def run(effect: Effect, audio: Float32, blocks: tuple[int, ...] = (256,)) -> Float32:
    out, start, i = audio.copy(), 0, 0
    while start < len(out):
        effect.process(out[start : start + blocks[i % len(blocks)]])
        start += blocks[i % len(blocks)]
        i += 1
    return out


@NAMES
def test_names_are_entry_points_and_mistakes_are_named(name: str) -> None:
    effect = load_effect(name)
    assert isinstance(effect, EVERY[name])
    with pytest.raises(UsageError, match=f"unknown parameter of effect '{name}'"):
        effect.set("nonsense", 1)
    first = effect.parameters[0]
    with pytest.raises(UsageError, match="goes from"):
        effect.set(first.name, first.maximum + 1)


@pytest.mark.parametrize("hz", [20.0, 80.0, 1000.0])
@pytest.mark.parametrize("rate", [44100, 48000])
def test_highpass_is_butterworths(hz: float, rate: int) -> None:
    b0, b1, b2, a1, a2 = highpass_coefficients(hz, rate)
    b, a = signal.butter(2, hz, "high", fs=rate)
    np.testing.assert_allclose([b0, b1, b2], b, rtol=1e-9)
    np.testing.assert_allclose([1, a1, a2], a, rtol=1e-9)
    audio = noise(20000)
    expected = signal.lfilter(b, a, audio.astype(np.float64), axis=0)
    np.testing.assert_allclose(run(made("highpass", f=hz, rate=rate), audio), expected, atol=1e-6)


@pytest.mark.parametrize("hz", [200.0, 12000.0, 20000.0])
def test_lowpass_is_butterworths(hz: float) -> None:
    b0, b1, b2, a1, a2 = lowpass_coefficients(hz, RATE)
    b, a = signal.butter(2, hz, "low", fs=RATE)
    np.testing.assert_allclose([b0, b1, b2], b, rtol=1e-9)
    np.testing.assert_allclose([1, a1, a2], a, rtol=1e-9)
    audio = noise(20000)
    expected = signal.lfilter(b, a, audio.astype(np.float64), axis=0)
    np.testing.assert_allclose(run(made("lowpass", f=hz), audio), expected, atol=1e-6)


@pytest.mark.parametrize("db", [-18.0, -3.0, 6.0, 18.0])
def test_the_equaliser_is_everybodys(db: float) -> None:
    """Band by band against JUCE's filters, which pedalboard brings along."""
    pedalboard = pytest.importorskip("pedalboard", reason="the reference")
    audio = noise(20000, 1)
    for values, theirs in (
        ({"low": db}, pedalboard.LowShelfFilter(LOW_HZ, db, math.sqrt(0.5))),
        ({"mid": db, "f": 700.0}, pedalboard.PeakFilter(700, db, MIDDLE_Q)),
        ({"high": db}, pedalboard.HighShelfFilter(HIGH_HZ, db, math.sqrt(0.5))),
    ):
        expected = theirs(audio.T.copy(), RATE).T
        got = run(made("eq", channels=1, **values), audio)
        np.testing.assert_allclose(got, expected, atol=1e-3 * np.abs(expected).max())


def test_an_equaliser_at_rest_is_a_wire() -> None:
    audio = noise(20000)
    np.testing.assert_array_equal(run(made("eq"), audio), audio)


def test_the_gate_closes_and_opens() -> None:
    soft, loud = sine(RATE, 440, 10 ** (-60 / 20)), sine(RATE // 2, 440, 0.1)
    out = run(made("gate", threshold=-50, range=60), np.concatenate([soft, loud, soft]))
    peak = [np.abs(part).max() for part in np.split(out, [RATE, RATE + RATE // 2])]
    assert peak[0] < 1e-5
    assert peak[1] == pytest.approx(0.1, rel=0.01)
    held = out[RATE + RATE // 2 :][: round(0.14 * RATE)]
    assert np.abs(held).max() == pytest.approx(1e-3, rel=0.02)
    assert np.abs(out[-1000:]).max() < 1e-5


@pytest.mark.parametrize("level", [-40.0, -18.0, -6.0, 0.0])
@pytest.mark.parametrize("ratio", [1.0, 4.0, 20.0])
def test_the_compressors_curve(level: float, ratio: float) -> None:
    """A constant level comes out where the textbook says."""
    audio = np.full((RATE, 2), 10 ** (level / 20), np.float32)
    out = run(made("compressor", threshold=-18, ratio=ratio, knee=6, makeup=2), audio)
    over, slope = level + 18, 1 - 1 / ratio
    reduction = slope * (max(over, 0) if abs(over) > 3 else (over + 3) ** 2 / 12)
    got = 20 * np.log10(float(out[-1, 0]))
    assert got == pytest.approx(level - reduction + 2, abs=0.01)


@pytest.mark.parametrize("level", [-40.0, -21.0, -12.0, -1.0])
def test_the_compressors_curve_is_everybodys(level: float) -> None:
    """With a hard knee, at rest, against JUCE's."""
    pedalboard = pytest.importorskip("pedalboard", reason="the reference")
    audio = np.full((RATE, 1), 10 ** (level / 20), np.float32)
    theirs = pedalboard.Compressor(threshold_db=-20, ratio=4, attack_ms=5, release_ms=50)
    expected = theirs(audio.T.copy(), RATE)[0, -1]
    out = run(made("compressor", channels=1, threshold=-20, ratio=4, knee=0, attack=5), audio)
    assert 20 * np.log10(out[-1, 0] / expected) == pytest.approx(0, abs=0.02)


def test_the_compressor_takes_the_time_it_says() -> None:
    """63 % of the reduction after `attack`, 37 % of it are left `release` after the end."""
    step = np.full((RATE, 1), 1.0, np.float32)
    step[: RATE // 4] = step[3 * RATE // 4 :] = 0.01
    effect = made("compressor", channels=1, threshold=-20, ratio=4, attack=10, release=100)
    gain = 20 * np.log10(run(effect, step)[:, 0] / step[:, 0])
    for start, seconds, left in (
        (RATE // 4, 0.01, 1 - 1 / math.e),
        (3 * RATE // 4, 0.1, 1 / math.e),
    ):
        assert gain[start + round(seconds * RATE)] == pytest.approx(-15 * left, abs=0.05)


@pytest.mark.parametrize(("level", "wanted"), [(-40, -40), (-24, -30), (-18, -30), (-6, -18)])
def test_the_deesser_holds_what_is_sharp(level: float, wanted: float) -> None:
    """A sharp tone is held at the threshold, for as long as the range allows; a deep one stays."""
    effect = made("deesser", f=4000, threshold=-30, range=12)
    sharp = run(effect, sine(RATE, 12000, 10 ** (level / 20)))[RATE // 2 :, 0]
    assert 20 * np.log10(np.sqrt(2 * np.mean(sharp**2))) == pytest.approx(wanted, abs=0.5)
    deep = sine(RATE, 200, 10 ** (level / 20))
    out = run(made("deesser", f=4000, threshold=-30, range=12), deep)
    assert np.abs(out - deep).max() < 0.01 * np.abs(deep).max()


def test_the_limiters_ceiling_holds_and_what_is_below_passes() -> None:
    audio = noise(RATE, level=0.49)
    effect = made("limiter", ceiling=-6)
    np.testing.assert_array_equal(run(effect, audio)[32:], audio[:-32])
    loud = run(effect, 20 * audio)
    ceiling = float(np.float32(10 ** (-6 / 20)))
    assert np.abs(loud).max() <= ceiling
    assert np.abs(loud).max() > 0.99 * ceiling
    effect.set("ceiling", -20)
    run(effect, audio)
    assert np.abs(run(effect, 20 * audio)).max() <= 0.1 * (1 + 1e-6)


def test_a_microphone_chain_at_its_defaults_does_not_invite_feedback() -> None:
    """What is there for the level raises nothing; the room, no frequency by more than 6 dB."""
    impulse = np.zeros((6 * RATE, 1), np.float32)
    impulse[0] = 0.01
    for name in EVERY.keys() - {"pitch"}:
        out = run(made(name, channels=1), impulse).astype(np.float64)
        most = 20 * np.log10(np.abs(np.fft.rfft(out[:, 0] / 0.01)).max())
        assert most < (6 if name in ("echo", "reverb") else 0.01), name


def test_echo_is_a_comb() -> None:
    audio = noise(40000)
    delay = round(0.2 * RATE)
    out = run(made("echo", time=200, feedback=0.5, mix=0.4), audio)
    repeats = signal.lfilter(
        [*np.zeros(delay), 1], [1, *np.zeros(delay - 1), -0.5], audio.astype(np.float64), axis=0
    )
    np.testing.assert_allclose(out, audio + 0.4 * repeats, atol=1e-5)


def test_reverb_is_its_filters() -> None:
    """Against scipy, without damping: combs in parallel, all-passes in series."""
    audio = noise(30000)
    out = run(made("reverb", decay=2, damping=0, mix=1), audio)
    x = 0.03 * audio.astype(np.float64).mean(axis=1)
    for c in range(2):
        y = np.zeros_like(x)
        for length in (d + SPREAD * c for d in COMBS):
            gain = 10 ** (-3 * length / (2 * RATE))
            y += signal.lfilter([*np.zeros(length), 1], [1, *np.zeros(length - 1), -gain], x)
        for length in (d + SPREAD * c for d in ALLPASSES):
            b = [-1, *np.zeros(length - 1), 1.5]
            y = signal.lfilter(b, [1, *np.zeros(length - 1), -0.5], y)
        np.testing.assert_allclose(out[:, c] - audio[:, c], y, atol=2e-6)


@pytest.mark.parametrize("decay", [0.5, 2.0])
def test_reverb_dies_as_fast_as_it_says(decay: float) -> None:
    audio = np.zeros((3 * RATE, 2), np.float32)
    audio[0] = 1
    out = run(made("reverb", decay=decay, damping=0), audio).astype(np.float64)
    energy = np.cumsum(out[1:, 0][::-1] ** 2)[::-1]  # Schroeder's integral
    level = 10 * np.log10(energy / energy[0])
    times = [np.argmax(level < db) / RATE for db in (-5, -35)]
    assert 2 * (times[1] - times[0]) == pytest.approx(decay, rel=0.15)


# ---- key change


def test_at_zero_the_sound_passes_after_the_latency() -> None:
    audio = noise(30000)
    effect = made("pitch")
    assert effect.latency == N_FFT
    out = run(effect, audio)
    np.testing.assert_allclose(out[N_FFT:], audio[:-N_FFT], atol=1e-5)


@pytest.mark.parametrize("semitones", [-12, -5, -1, 0.5, 3, 7, 12])
@pytest.mark.parametrize("hz", [110.0, 440.0, 2000.0])
def test_a_tone_goes_where_it_should(semitones: float, hz: float) -> None:
    """Within a cent, at its level, and nothing else 40 dB below it."""
    out = run(made("pitch", semitones=semitones), sine(3 * RATE, hz))[RATE:, 0]
    expected = hz * 2 ** (semitones / 12)
    window = signal.windows.blackmanharris(len(out))
    spectrum = np.abs(np.fft.rfft(out * window))
    peak = int(spectrum.argmax())
    a, b, c = np.log(spectrum[peak - 1 : peak + 2])
    found = (peak + 0.5 * (a - c) / (a - 2 * b + c)) * RATE / len(out)
    assert abs(1200 * np.log2(found / expected)) < 1
    assert 20 * np.log10(np.sqrt(2 * np.mean(out**2)) / 0.4) == pytest.approx(0, abs=1.0)
    spectrum[max(0, peak - 60) : peak + 60] = 0
    assert spectrum.max() < 0.01 * 0.4 * window.sum() / 2


def test_a_chord_stays_a_chord_and_stereo_stays_stereo() -> None:
    audio = sine(3 * RATE, 220) + sine(3 * RATE, 277.18) + sine(3 * RATE, 329.63)
    audio *= np.array([0.6, 0.15], np.float32)
    out = run(made("pitch", semitones=4), audio)[RATE:]
    spectrum = np.abs(np.fft.rfft(out[:, 0] * np.hanning(len(out))))
    for hz in (220, 277.18, 329.63):
        place = round(hz * 2 ** (4 / 12) * len(out) / RATE)
        assert spectrum[place - 3 : place + 4].max() > 0.5 * spectrum.max()
    np.testing.assert_allclose(out[:, 1], 0.25 * out[:, 0], atol=2e-3)


def test_where_a_sound_was_it_stays() -> None:
    """The latency is what is reported: a burst in the middle of silence, moved by a fifth."""
    audio = np.zeros((40000, 2), np.float32)
    audio[20000:22000] = sine(2000, 500) * np.hanning(2000)[:, np.newaxis]
    effect = made("pitch", semitones=7)
    energy = run(effect, audio)[:, 0].astype(np.float64) ** 2
    centre = (energy * np.arange(len(energy))).sum() / energy.sum()
    assert abs(centre - 21000 - effect.latency) < 200
