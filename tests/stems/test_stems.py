"""One to six named stems: engine, faders, live stream, files, pipe and scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from realtime_sep import NullSpec, StreamConfig, open_stream
from realtime_sep.engine import Engine
from realtime_sep.errors import UsageError
from realtime_sep.evaluate import metrics, run
from realtime_sep.evaluate.songs import find_songs, read_song
from realtime_sep.evaluate.tables import markdown
from realtime_sep.offline import separate, separate_file
from realtime_sep.types import Float32

from .bands import HOP, SHARES, STEMS, Bands, four, six

RATE = 44100


def shares(count: int) -> list[float]:
    return [*SHARES[: count - 1], 1 - sum(SHARES[: count - 1])]


def noise(frames: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).uniform(-0.4, 0.4, (frames, 2)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_every_stem_comes_out_in_its_place(count: int) -> None:
    mix = noise(5000)
    stems = separate(mix, RATE, Bands(samplerate=RATE, channels=2, stems=count))
    assert tuple(stems) == STEMS[:count]
    for name, share in zip(STEMS, shares(count), strict=False):
        np.testing.assert_allclose(stems[name], share * mix, atol=1e-6)
    assert np.abs(sum(stems.values()) - mix).max() < 1e-6


@pytest.mark.parametrize("make", [four, six])
def test_a_live_stream_has_a_fader_for_each(make: Callable[..., Any]) -> None:
    count = 4 if make is four else 6
    # A fader travels for 20 ms, long before the end; what comes before the sound is silent.
    mix = np.concatenate([np.zeros((RATE // 5, 2), np.float32), noise(RATE // 5)])
    stream = open_stream(
        make,
        backend=NullSpec(mix, capture=True),
        config=StreamConfig(samplerate=RATE, blocksize=128, limiter=False),
        process=False,
    )
    assert stream.info.stems == STEMS[:count]
    stream.set("drums", -6.0)
    stream.set("bass", -math.inf)
    with stream:
        assert stream.wait(30)
        assert len(stream.stats.stem_peaks) == count
        stream.stop()
        played, late = stream.captured, stream.latency.frames
    part = dict(zip(STEMS, shares(count), strict=False))
    gain = 1 - part["bass"] - part["drums"] * (1 - 10 ** (-6 / 20))
    assert played is not None
    length = min(len(mix), len(played) - late) - RATE // 5 - 2048
    sound = slice(RATE // 5, RATE // 5 + length)
    np.testing.assert_allclose(played[late:][sound], gain * mix[sound], atol=1e-5)


def test_music_is_everything_but_the_vocals() -> None:
    stream = open_stream(
        four, backend=NullSpec(noise(64)), config=StreamConfig(samplerate=RATE), process=False
    )
    try:
        for name in ("drums", "bass", "other"):
            stream.set("music", -3.0)
            stream.set(name, 0.0)  # one of them alone
        with pytest.raises(UsageError, match="did you mean 'drums'"):
            stream.set("drumms", 0.0)
    finally:
        stream.close()


def test_any_stem_can_be_an_output() -> None:
    engine = Engine(
        Bands(samplerate=RATE, channels=2, stems=6),
        outputs=("piano", "mix", "drums"),
        limiter=False,
    )
    mix = noise(HOP * 4)
    out = np.zeros((HOP * 4, 6), np.float32)
    for start in range(0, len(mix), HOP):
        engine.process(mix[start : start + HOP], out[start : start + HOP])
    past = mix[:-HOP]
    np.testing.assert_allclose(out[HOP:, :2], shares(6)[5] * past, atol=1e-6)
    np.testing.assert_allclose(out[HOP:, 2:4], past, atol=1e-6)
    np.testing.assert_allclose(out[HOP:, 4:], 0.25 * past, atol=1e-6)


@pytest.fixture
def bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load_separator("bands", stems=...)`."""
    import realtime_sep.offline as offline

    def load(name: str, *, samplerate: int, channels: int, **options: Any) -> Bands:
        assert name == "bands"
        return Bands(samplerate=samplerate, channels=channels, **options)

    monkeypatch.setattr(offline, "load_separator", load)


@pytest.mark.usefixtures("bands")
def test_files_of_stems_and_mixes(tmp_path: Path) -> None:
    mix = noise(3000)
    source = tmp_path / "song.wav"
    soundfile.write(source, mix, RATE, subtype="FLOAT")

    def written(**options: Any) -> dict[str, Float32]:
        done = separate_file(source, None, "bands", **options)
        return {n: soundfile.read(p, dtype="float32")[0] for n, p in done.paths.items()}

    found = written(
        stems=True,
    )
    assert tuple(found) == STEMS[:4]
    np.testing.assert_allclose(found["bass"], 0.125 * mix, atol=1e-6)
    # Karaoke is everything but the vocals.
    np.testing.assert_allclose(written()["karaoke"], 0.5 * mix, atol=1e-6)
    made = written(levels={"drums": -math.inf, "bass": 6.0})["mix"]
    np.testing.assert_allclose(made, (0.75 + 0.125 * (10**0.3 - 1)) * mix, atol=1e-6)
    with pytest.raises(UsageError, match="unknown stem 'drum'"):
        written(levels={"drum": 0.0})


def write_song(folder: Path, names: tuple[str, ...]) -> dict[str, Float32]:
    folder.mkdir(parents=True)
    stems = {name: noise(RATE, i + 1) for i, name in enumerate(names)}
    stems["mixture"] = np.sum(list(stems.values()), axis=0)
    for name, audio in stems.items():
        soundfile.write(folder / f"{name}.wav", audio, RATE, subtype="FLOAT")
    return stems


@pytest.mark.parametrize("count", [4, 6])
def test_scores_per_stem(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_FILTER", 16)
    names = STEMS[:count]
    stems = write_song(tmp_path / "songs" / "one", names)
    (path,) = find_songs(tmp_path / "songs")
    song = read_song(path, "one")
    assert set(song.parts) == set(names[1:])
    np.testing.assert_allclose(song.accompaniment, stems["mixture"] - stems["vocals"], atol=1e-5)

    real = run.load_separator

    def load(name: str, *, samplerate: int, channels: int, **_: Any) -> Any:
        if name == "center":
            return real(name, samplerate=samplerate, channels=channels)
        return Bands(samplerate=samplerate, channels=channels, stems=count)

    monkeypatch.setattr(run, "load_separator", load)
    evaluation = run.evaluate(tmp_path / "songs", ["bands"])
    (result,) = evaluation.models
    assert set(result.parts) == set(names[1:])
    scores = result.songs[0].cold
    mixture = stems["mixture"].astype(np.float64)
    for name, share in list(zip(names, shares(count), strict=True))[1:]:
        true = stems[name].astype(np.float64)
        expected = 10 * np.log10(np.mean(true**2) / np.mean((true - share * mixture) ** 2))
        assert scores[name]["sdr"] == pytest.approx(expected, abs=0.01)
        assert scores[name]["bss_sdr"] is not None
    assert set(run.to_json(evaluation)["median"]) == {"vocals", "accompaniment", *names[1:]}
    table = markdown(evaluation.rows)
    assert "**SDR of other stems**" in table
    assert "ideal-mask" in table.split("**SDR of other stems**")[1]
    # The ideal mask is better than nothing for every stem.
    ideal, nothing = evaluation.references[1], evaluation.references[0]
    for name in names:
        assert ideal.median()[name]["sdr"] > nothing.median()[name]["sdr"] + 3  # type: ignore[operator]


def test_levels_as_typed() -> None:
    import typer

    from realtime_sep.cli.common import stem_levels

    assert stem_levels(["drums=-6", "bass=off"]) == {"drums": -6.0, "bass": -math.inf}
    assert stem_levels(None) == {}
    for text in ("drums", "=3", "drums=loud", "drums=20"):
        with pytest.raises(typer.BadParameter):
            stem_levels([text])
