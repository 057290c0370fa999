"""The scores against cases worked out by hand, and against museval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from realtime_sep.evaluate import metrics
from realtime_sep.evaluate.metrics import ACCOMPANIMENT, LIMIT, METRICS, STEMS, VOCALS
from realtime_sep.types import Float32

from .conftest import RATE, make_stems


def noise(frames: int, channels: int = 2, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((frames, channels)).astype(np.float32)


def test_sdr_by_hand() -> None:
    reference = np.array([[3.0], [4.0]])  # energy 25
    estimate = np.array([[3.0], [3.5]])  # error energy 0.25
    assert metrics.sdr(reference, estimate) == pytest.approx(20.0)


def test_si_sdr_by_hand_and_for_any_level() -> None:
    reference = np.array([[1.0], [1.0]])
    estimate = np.array([[1.1], [0.9]])  # projected to (1, 1); error (0.1, -0.1)
    assert metrics.si_sdr(reference, estimate) == pytest.approx(20.0)
    assert metrics.si_sdr(reference, 7 * estimate) == pytest.approx(20.0)


def test_silence_has_no_score_or_a_finite_one() -> None:
    silence, sound = np.zeros((RATE, 2), np.float32), noise(RATE)
    assert metrics.sdr(silence, sound) is None
    assert metrics.si_sdr(silence, sound) is None
    assert metrics.si_sdr(sound, silence) is None
    assert metrics.sdr(sound, silence) == pytest.approx(0.0)
    assert metrics.decibels(0.0, 0.0) is None
    assert metrics.decibels(1.0, 0.0) == LIMIT
    assert metrics.decibels(0.0, 1.0) == -LIMIT
    assert metrics.decibels(math.nan, 1.0) is None


@pytest.mark.parametrize("voice_is", ["silent", "sounding"])
@pytest.mark.parametrize("estimates_are", ["silent", "the mixture", "the truth"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_score_is_none_or_finite(voice_is: str, estimates_are: str, channels: int) -> None:
    voice, music = (stem[: RATE * 3 // 2, :channels] for stem in make_stems())
    if voice_is == "silent":
        voice = np.zeros_like(voice)
    truth = {VOCALS: voice, ACCOMPANIMENT: music}
    mixture = voice + music
    estimates = {
        "silent": {stem: np.zeros_like(mixture) for stem in STEMS},
        "the mixture": {stem: mixture for stem in STEMS},
        "the truth": truth,
    }[estimates_are]
    scores = metrics.Scorer(mixture, truth, RATE).score(estimates)
    assert {stem: tuple(of_stem) for stem, of_stem in scores.items()} == METRICS
    for of_stem in scores.values():
        for value in of_stem.values():
            assert value is None or (math.isfinite(value) and abs(value) <= LIMIT)


def test_the_truth_scores_above_60_db() -> None:
    voice, music = make_stems()
    truth = {VOCALS: voice, ACCOMPANIMENT: music}
    scores = metrics.Scorer(voice + music, truth, RATE).score(truth)
    for stem in STEMS:
        for metric in ("sdr", "si_sdr", "bss_sdr", "bss_sir", "bss_sar"):
            assert scores[stem][metric] > 60
    assert scores[VOCALS]["leakage"] < -60
    assert scores[ACCOMPANIMENT]["voice_attenuation"] > 60
    assert scores[ACCOMPANIMENT]["music_loss"] == pytest.approx(0, abs=1e-6)


def test_attenuation_and_loss_are_told_apart() -> None:
    """A tenth of the voice and half of the music are left: 20 dB and 6 dB."""
    voice, music = make_stems()
    voice_left, music_left = metrics.shares(voice, music, 0.1 * voice + 0.5 * music, RATE)
    assert voice_left == pytest.approx(-20.0, abs=0.01)
    assert music_left == pytest.approx(-6.02, abs=0.01)


def test_what_is_in_neither_stem_counts_for_neither() -> None:
    voice, music = make_stems(6.0)
    artefacts = 0.03 * noise(len(voice), seed=5)
    voice_left, music_left = metrics.shares(voice, music, music + artefacts, RATE)
    assert voice_left < -20
    assert music_left == pytest.approx(0, abs=0.3)


def test_leakage_is_the_level_while_nobody_sings() -> None:
    voice, music = make_stems()
    mixture = voice + music
    assert metrics.leakage(voice, mixture, voice + 0.1 * music, RATE) == pytest.approx(-20, abs=0.1)
    assert metrics.leakage(voice, mixture, 0 * voice, RATE) is None  # nothing was separated
    always = voice[-RATE:]
    assert metrics.leakage(always, always, always, RATE) is None  # no pause, no figure


@pytest.mark.parametrize(
    ("kind", "seconds", "taps"),
    [
        ("stereo", 2.5, 512),  # as in practice; shorter filters only to be quick
        ("stereo", 0.3, 32),
        ("stereo", 1.0, 32),
        ("mono", 2.5, 64),
        ("two equal channels", 2.5, 64),
        ("partly silent", 2.5, 64),
        ("partly silent", 0.3, 64),
    ],
)
def test_bsseval_is_musevals(
    kind: str, seconds: float, taps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same figures to a hundredth of a dB, window by window, from the same arrays."""
    museval = pytest.importorskip("museval", reason="needs the extra: pip install -e '.[museval]'")
    monkeypatch.setattr(metrics, "_FILTER", taps)
    frames = int(seconds * RATE)
    channels = 1 if kind == "mono" else 2
    # Coloured and related, as music is: the equations must not be trivial.
    smooth = np.hanning(9) / np.hanning(9).sum()
    references = np.array(
        [
            np.stack([np.convolve(c, smooth, "same") for c in noise(frames, channels, seed).T], 1)
            for seed in (1, 2)
        ]
    )
    references[1] += 0.3 * references[0]
    if kind == "two equal channels":
        references = references[:, :, :1].repeat(2, axis=2)
    estimates = np.array(
        [0.8 * references[0] + 0.2 * references[1], 0.1 * references[0] + 0.9 * references[1]]
    )
    estimates += 0.05 * noise(frames, channels, 3)
    if kind == "partly silent":
        references[0, : frames // 2] = 0
    window = RATE // 2
    expected = museval.metrics.bss_eval(
        references, estimates, window=window, hop=window, filters_len=taps
    )
    expected = np.array(expected[:4])
    found = metrics.BssEval(list(references)).frames(list(estimates), window, window)
    np.testing.assert_allclose(found, expected, atol=0.01)
    if kind == "partly silent" and seconds > 1:
        assert np.isnan(found[:, :, 0]).all()
        assert np.isfinite(found[:, :, -1]).all()


def test_bsseval_of_a_silent_stem_is_no_figure() -> None:
    sound = noise(RATE)
    bss = metrics.BssEval([sound, 0 * sound])
    assert np.isnan(bss.frames([sound, sound], RATE, RATE)).all()
    assert bss.medians([sound, sound], RATE)[0].sdr is None
