"""Converted voices: other formants, the old pitch, in time and drawn with their music."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("soxr")
pytest.importorskip("scipy")
pytest.importorskip("pyworld")

from training import convert, mix
from training.export import sources
from training.formants import Singer, sing
from training.shards import SAMPLE_RATE, Audio, ShardWriter, clips, converted, pairs, place, read

pytestmark = pytest.mark.train

PITCH, FORMANT = 150.0, 1500.0  # Hz


@pytest.fixture(scope="module")
def vowel() -> Audio:
    """Two seconds of partials of `PITCH` below one formant, left louder than right."""
    now = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    mono = sum(
        np.exp(-((np.log(PITCH * k / FORMANT) / 0.3) ** 2)) * np.cos(2 * np.pi * PITCH * k * now)
        for k in range(1, 60)
    )
    return (0.02 * mono[:, None] * np.array([1.0, 0.5])).astype(np.float32)


@pytest.fixture
def song(tmp_path: Path, vowel: Audio) -> Path:
    """Two songs of one title, told apart by their levels."""
    writer = ShardWriter(tmp_path, "song", 2)
    for kind, audio in (("song_vocals", vowel), ("song_accompaniment", 0.5 * vowel)):
        for level in (1.0, 0.5):
            writer.add(level * audio, kind, "act", "same", "CC0-1.0", "train")
    writer.flush()
    return tmp_path


def strengths(audio: Audio) -> tuple[float, np.ndarray]:
    """Centre of the partials in Hz (geometric), and the levels of the first thirty."""
    piece = audio[SAMPLE_RATE // 2 : SAMPLE_RATE * 3 // 2, 0] * np.hanning(SAMPLE_RATE)
    partials = np.abs(np.fft.rfft(piece))[(PITCH * np.arange(1, 31)).astype(int)]
    where = np.log(PITCH * np.arange(1, 31))
    return float(np.exp((partials**2 * where).sum() / (partials**2).sum())), partials


@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_formants_move_and_pitch_stays(vowel: Audio, ratio: float) -> None:
    other = sing(np.random.default_rng(0), vowel, Singer(ratio))
    assert other.shape == vowel.shape
    before, _ = strengths(vowel)
    after, partials = strengths(other)
    assert after / before == pytest.approx(ratio, rel=0.07)
    total = np.abs(
        np.fft.rfft(other[SAMPLE_RATE // 2 :][:SAMPLE_RATE, 0] * np.hanning(SAMPLE_RATE))
    )
    assert (partials**2).sum() * 1.5 > 0.98 * (total**2).sum()  # two neighbours: half as strong
    np.testing.assert_allclose(other[:, 1], 0.5 * other[:, 0], atol=1e-5)  # its place


def test_the_same_singer_is_the_original(vowel: Audio) -> None:
    np.testing.assert_allclose(sing(np.random.default_rng(0), vowel, Singer(1.0)), vowel, atol=1e-5)


def test_vibrato_and_breath_stay_in_time(vowel: Audio) -> None:
    singer = Singer(1.0, breath_db=-10.0, vibrato_semitones=0.5)
    other = sing(np.random.default_rng(0), vowel, singer)
    assert np.abs(other - vowel).max() > 0.1 * np.abs(vowel).max()
    low = np.cos(2 * np.pi * 40 * np.arange(len(vowel)) / SAMPLE_RATE)[:, None] * np.float32([1, 1])
    late = sing(np.random.default_rng(0), low, Singer(1.0, vibrato_semitones=0.5))
    assert np.abs(late - low).max() < 2 * np.pi * 40 * 1e-3  # a millisecond at most


def test_singers_are_others() -> None:
    for seed in range(20):
        ratios = [s.formant for s in convert.random_singers(np.random.default_rng(seed), 6)]
        assert min(ratios) < 0.87 < 1.13 < max(ratios)
        assert all(0.77 < r < 1.29 and abs(np.log(r)) > 0.069 for r in ratios)


def test_what_the_teacher_loses_is_dropped(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([10.0, 9.0, 6.9, 11.0, 7.1, 0.0, 10.0])
    monkeypatch.setattr(convert, "judged", lambda voice, music: next(found))
    pair = pairs(song, "song")[1]
    report = convert.convert(song, "song", pair)
    assert report.count("dropped") == 2
    singers = converted(song, "song", "train")
    assert list(singers) == [place(pair[0])]
    assert [clip.frames for clip in singers[place(pair[0])]] == [pair[0].frames] * 4
    levels = [mix.level_of(read(song, clip)) for clip in singers[place(pair[0])]]
    np.testing.assert_allclose(levels, mix.level_of(read(song, pair[0])), rtol=0.02)
    assert "there already" in convert.convert(song, "song", pair)
    assert any("converted" in line for line in sources(song))


def test_songs_are_drawn_with_their_music_and_other_singers(song: Path) -> None:
    writer = ShardWriter(song, "song_converted-x", 2)
    voice, music = pairs(song, "song")[1]
    for _ in range(2):  # in other polarity, to be known again
        writer.add(-read(song, voice), "song_converted", "act", place(voice) + " x", "CC0", "train")
    writer.flush()
    mixer = mix.Mixer(song, SAMPLE_RATE // 4, seed=0)
    assert mixer.songs[voice] == music
    voices = [clip for clip in clips(song, {"song_vocals"})]
    drawn = []
    for _ in range(200):
        mixer.found["song_vocals"] = [(1.0, [voices[1]])]
        vocals, rest = mixer._song()
        gain = np.sum(vocals * rest) / np.sum(rest * rest)
        assert abs(gain) == pytest.approx(2, rel=0.01)  # of the quieter song, both
        drawn.append(gain > 0)
    assert np.mean(drawn) == pytest.approx(mix.ORIGINAL, abs=0.1)
