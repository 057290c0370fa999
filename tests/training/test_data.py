"""Shards keep what was put in; mixtures are what they claim to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("soxr")
pytest.importorskip("scipy")

from training import mix
from training.band import BARS, chart
from training.mix import Mixer, level_of
from training.shards import SAMPLE_RATE, ShardWriter, clips, read, tracks

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    for kind, channels in (("voice", 1), ("accompaniment", 2)):
        writer = ShardWriter(folder, kind, channels)
        for index in range(3):
            noise = 0.1 * rng.standard_normal((SAMPLE_RATE * 2, channels)).astype(np.float32)
            writer.add(noise, kind, f"group {index}", f"title {index}", "CC0-1.0", "train")
        writer.flush()
    return folder


def test_shards_give_back_what_they_took(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    audio = rng.uniform(-1, 1, (1000, 2)).astype(np.float32)
    writer = ShardWriter(tmp_path, "test", 2)
    writer.add(np.zeros((500, 2), np.float32), "voice", "a", "first", "MIT", "train")
    writer.add(audio, "voice", "b", "second", "MIT", "validation")
    writer.flush()
    (clip,) = clips(tmp_path, split="validation")
    assert (clip.group, clip.frames, clip.start) == ("b", 1000, 500)
    np.testing.assert_allclose(read(tmp_path, clip), audio, atol=1e-4)
    assert not read(tmp_path, clip, 900, 200)[100:].any()  # padded behind the end


def test_an_unfinished_shard_is_no_shard(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "test", 1)
    writer.add(np.zeros((500, 1), np.float32), "voice", "a", "first", "MIT", "train")
    assert clips(tmp_path) == []


def test_mixtures(shards: Path) -> None:
    mixer = Mixer(shards, SAMPLE_RATE, seed=0)
    vocals, rest = mixer.batch(100)
    assert vocals.shape == rest.shape == (100, 2, SAMPLE_RATE)
    assert np.isfinite(vocals).all()
    assert np.abs(vocals + rest).max() <= 1.01
    silent_voice = ~vocals.any(axis=(1, 2))
    silent_rest = ~rest.any(axis=(1, 2))
    assert 0 < silent_voice.sum() < 75  # instrumental only, and silence
    assert 0 < silent_rest.sum() < 75
    mono = np.isclose(vocals[:, 0], vocals[:, 1], atol=1e-7).all(axis=1)
    assert 0 < (mono & ~silent_voice).sum() < 100


def test_equal_seeds_give_equal_mixtures(shards: Path) -> None:
    first = Mixer(shards, SAMPLE_RATE, seed=5).batch(3)
    second = Mixer(shards, SAMPLE_RATE, seed=5).batch(3)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_voice_and_music_slow_down_together(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for share, ratio in ((0.0, 1.0), (1.0, 44.1 / 48)):
        monkeypatch.setattr(mix, "SLOW_SHARE", share)
        mixer = Mixer(shards, SAMPLE_RATE, seed=0)
        mixer.pair()
        assert mixer._stretch(SAMPLE_RATE, (1.0, 1.0))[1] == pytest.approx(ratio)


def test_level_ignores_pauses() -> None:
    tone = np.full((SAMPLE_RATE, 1), 0.5, np.float32)
    paused = np.concatenate([tone, np.zeros((SAMPLE_RATE * 9, 1), np.float32)])
    assert level_of(paused) == pytest.approx(0.5)


def test_a_track_counts_once_at_its_longest(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "excerpt", 2)
    for frames in (SAMPLE_RATE, 3 * SAMPLE_RATE, 2 * SAMPLE_RATE):
        noise = np.full((frames, 2), 0.1, np.float32)
        writer.add(noise, "accompaniment", "package", "song", "CC0-1.0", "validation")
    writer.flush()
    assert [clip.frames for clip in tracks(tmp_path, "validation", 1.0)] == [3 * SAMPLE_RATE]
    assert not tracks(tmp_path, "validation", 4.0)


def test_charts_are_as_long_as_asked_for() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        lines = chart(rng, ["Rock", "RockSus"], 30.0).splitlines()
        tempo = int(lines[0].removeprefix("Tempo "))
        bars = [line for line in lines[1:] if not line.startswith("Groove ")]
        assert 30 < len(bars) * 4 * 60 / tempo < 100
        assert all(chord[0] in "ABCDEFG" for bar in bars for chord in bar.split(" / "))


def test_a_lead_fills_every_bar() -> None:
    for lengths in BARS:
        beats = sum(4 / float(n.rstrip(".")) * (1.5 if n.endswith(".") else 1) for n in lengths)
        assert beats == 4
    lines = chart(np.random.default_rng(0), ["Rock"], 30.0, leads=True).splitlines()
    assert any(line.startswith("Solo Voice ") for line in lines)
    bars = [line for line in lines if line.endswith("}")]
    assert len(bars) * 4 * 60 / int(lines[0].removeprefix("Tempo ")) > 30


def test_singing_follows_the_melody() -> None:
    pytest.importorskip("pyworld")
    from training import sing

    rng = np.random.default_rng(0)
    now = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    vowels = sum(np.sin(2 * np.pi * 150 * k * now) / k for k in range(1, 40))
    vowels = vowels * np.clip(np.sin(2 * np.pi * 2 * now), 0, 1) ** 0.5  # four syllables
    material = sing.analyse(0.1 * vowels + 1e-4 * rng.standard_normal(len(now)))
    assert 3 <= len(material.syllables) <= 5
    assert all(s.onset <= s.begin < s.stop <= s.end for s in material.syllables)
    singer = sing.replace(sing.random_singer(rng), tuned=True, spoken=0.0, growl=0.0, formant=1.0)
    notes = [sing.Note(0.2, 0.8, 57.0), sing.Note(1.0, 0.9, 64.0)]
    audio = sing.perform(rng, material, singer, notes, material.syllables[:2], 2.0)
    assert audio.shape == (2 * SAMPLE_RATE,)
    for start, pitch in ((0.5, 57), (1.4, 64)):
        piece = audio[int(start * SAMPLE_RATE) :][: SAMPLE_RATE // 4] * np.hanning(SAMPLE_RATE // 4)
        spectrum = np.abs(np.fft.rfft(piece, 8 * SAMPLE_RATE))
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        near = spectrum[int(hertz * 8 * 0.97) : int(hertz * 8 * 1.03)].max()
        between = spectrum[int(hertz * 8 * 1.3) : int(hertz * 8 * 1.7)].max()
        assert near > 10 * between


def test_telephones_have_an_edge_and_it_is_mended() -> None:
    pytest.importorskip("pyworld")
    from training.sing import widened

    envelope = np.full((20, 1025), 1e-3)
    envelope[:, 372:] = 1e-9  # 8 kHz
    mended = widened(envelope, np.ones(20, bool), np.arange(20) < 10)
    np.testing.assert_array_equal(mended[:, :370], envelope[:, :370])
    assert (mended[10:, 700] > 100 * envelope[10:, 700]).all()
    assert (mended[:10, 700] < mended[10:, 700]).all()  # vowels fall faster than sibilants
    whole = np.full((20, 1025), 1e-3)
    assert widened(whole, np.ones(20, bool), np.ones(20, bool)) is whole
