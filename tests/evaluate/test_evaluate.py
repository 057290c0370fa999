"""The whole command: what it prints, writes and refuses."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from realtime_sep.errors import AudioFileError, UsageError
from realtime_sep.evaluate import metrics, run
from realtime_sep.evaluate.metrics import METRICS, STEMS
from realtime_sep.evaluate.page import Page
from realtime_sep.evaluate.pictures import png
from realtime_sep.evaluate.tables import markdown
from realtime_sep.separators.center import Center
from realtime_sep.types import Float32, SeparatorInfo

from .conftest import RATE, make_stems, write_song

Cli = Callable[..., str]


@pytest.fixture(autouse=True)
def _short_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """BSSEval is tested elsewhere; here it only has to be quick."""
    monkeypatch.setattr(metrics, "_FILTER", 16)


def check_scores(scores: Any) -> None:
    assert {stem: tuple(scores[stem]) for stem in STEMS} == METRICS
    for stem in STEMS:
        for value in scores[stem].values():
            assert value is None or (isinstance(value, float | int) and math.isfinite(value))


def check_model(result: Any, model: str, songs: list[str]) -> None:
    """The schema that other programs rely on."""
    assert result["model"] == model
    assert result["latency_ms"] > 0
    assert result["samplerate"] in (44100, 48000)
    assert [song["name"] for song in result["songs"]] == songs
    for scores in (*result["songs"], *(song["warm"] for song in result["songs"])):
        check_scores({stem: scores[stem] for stem in STEMS})
    for summary in (result["median"], result["mean"], *result["warm"].values()):
        check_scores(summary)
    assert set(result["worst"]) == set(STEMS)
    assert next(r["model"] for r in result["references"]) == "mixture"
    assert any(r["model"].startswith("ideal-mask") for r in result["references"])
    assert any(r["model"] == "center" for r in result["references"])


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_one_model(song_folder: Path, run_cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    out = run_cli(song_folder, "--model", "center", "--json", target)
    result = strict_json(target.read_text())
    check_model(result, "center", ["song"])
    for word in ("mixture", "ideal-mask-live", "center", "song", "vocals", "accompaniment"):
        assert word in out
    assert "nan" not in out.lower()


def test_several_models_make_a_list(song_folder: Path, run_cli: Cli) -> None:
    out = run_cli(song_folder, "-m", "center:profile=stage", "-m", "center-plain", "--json", "-")
    first, second = strict_json(out)
    check_model(first, "center:profile=stage", ["song"])
    check_model(second, "center-plain", ["song"])
    assert "ideal-mask-stage" in [r["model"] for r in first["references"]]


def test_no_model_gives_the_references(song_folder: Path, run_cli: Cli) -> None:
    names = [r["model"] for r in strict_json(run_cli(song_folder, "--json", "-"))]
    assert names == ["mixture", "ideal-mask-live", "center"]


def test_order_of_quality(song_folder: Path) -> None:
    """Nothing < position < ideal mask, on a song with the voice in the centre."""
    evaluation = run.evaluate(song_folder)
    mixture, ideal, center = (r.median() for r in evaluation.references)
    for stem in STEMS:
        assert mixture[stem]["sdr"] < center[stem]["sdr"] < ideal[stem]["sdr"]
    assert mixture["vocals"]["leakage"] == pytest.approx(0)
    assert center["accompaniment"]["voice_attenuation"] > 6


class _Oracle:
    """Knows the truth: the second channel of its input says how much of the first is voice."""

    latency = 300

    def __init__(self, *, samplerate: int, channels: int) -> None:
        self.info = SeparatorInfo(
            name="oracle",
            stems=("vocals", "accompaniment"),
            samplerate=samplerate,
            channels=channels,
            hop=256,
            latency=self.latency,
        )
        self.reset()

    def reset(self) -> None:
        self._past: Float32 = np.zeros((self.latency, 2), np.float32)

    def process(self, hop: Float32, stems: Float32) -> None:
        both = np.concatenate([self._past, hop])
        now, self._past = both[: len(hop)], both[len(hop) :].copy()
        stems[0] = now
        stems[0, :, 0] = 0
        stems[1] = now - stems[0]


def test_the_truth_scores_high_through_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The voice on the right, the music on the left, a separator with an odd delay."""
    vocals, music = make_stems(1.5)
    vocals[:, 0] = 0
    music[:, 1] = 0
    write_song(tmp_path / "song", vocals, music)
    original = run.load_separator

    def load(name: str, **options: Any) -> Any:
        return _Oracle(**options) if name == "oracle" else original(name, **options)

    monkeypatch.setattr(run, "load_separator", load)
    evaluation = run.evaluate(tmp_path, ["oracle"])
    song = evaluation.models[0].songs[0]
    for scores in (song.cold, song.warm):
        for stem in STEMS:
            assert scores[stem]["sdr"] > 60


def test_warm_is_another_run(song_folder: Path) -> None:
    """`center` must first find out that the song is stereo; warmed up, it knows."""
    song = run.evaluate(song_folder, ["center"]).models[0].songs[0]
    assert song.cold != song.warm


def test_another_rate(song_folder: Path, run_cli: Cli) -> None:
    result = strict_json(run_cli(song_folder, "-m", "center", "--rate", "48000", "--json", "-"))
    assert result["samplerate"] == 48000
    reference = run.evaluate(song_folder, ["center"]).models[0].median()
    for stem in STEMS:
        assert result["median"][stem]["sdr"] == pytest.approx(reference[stem]["sdr"], abs=1.0)


def test_unknown_model_is_said_before_any_song_is_read(tmp_path: Path, run_cli: Cli) -> None:
    with pytest.raises(UsageError, match="did you mean 'center'"):
        run_cli(tmp_path / "missing", "--model", "centre")
    with pytest.raises(UsageError, match="did you mean 'profile'"):
        run_cli(tmp_path, "--model", "center:profil=live")
    with pytest.raises(UsageError, match="key=value"):
        run_cli(tmp_path, "--model", "center:live")


def test_folder_without_songs(tmp_path: Path, run_cli: Cli) -> None:
    with pytest.raises(UsageError, match="holds no songs"):
        run_cli(tmp_path)


def test_target_that_cannot_be_written_is_refused_first(song_folder: Path, run_cli: Cli) -> None:
    with pytest.raises(UsageError, match="make it first"):
        run_cli(song_folder, "--json", song_folder / "no" / "such.json")
    with pytest.raises(UsageError, match="is a directory"):
        run_cli(song_folder, "--html", song_folder)


def test_a_damaged_song_is_left_out_and_said(
    song_folder: Path, run_cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    write_song(song_folder / "another", *make_stems(0.3))
    (song_folder / "another" / "vocals.wav").unlink()
    evaluation = run.evaluate(song_folder, ["center"])
    assert [name for name, _ in evaluation.skipped] == ["another"]
    check_model(run.to_json(evaluation), "center", ["song"])
    (song_folder / "song" / "mixture.wav").write_bytes(b"")
    with pytest.raises(AudioFileError, match="no song can be read"):
        run.evaluate(song_folder)


@pytest.mark.parametrize("what", ["mono", "silence", "silent voice", "very short"])
def test_no_table_holds_a_nan(what: str, tmp_path: Path, run_cli: Cli) -> None:
    vocals, music = make_stems(1.2)
    if what == "mono":
        vocals, music = vocals[:, :1], music[:, :1]
    elif what == "silence":
        vocals, music = 0 * vocals, 0 * music
    elif what == "silent voice":
        vocals = 0 * vocals
    else:
        vocals, music = vocals[-300:], music[-300:]
    write_song(tmp_path / "song", vocals, music)
    page = tmp_path / "page.html"
    out = run_cli(tmp_path, "-m", "center", "-m", "center-plain", "--json", "-", "--html", page)
    for result, name in zip(strict_json(out), ("center", "center-plain"), strict=True):
        check_model(result, name, ["song"])
    visible = re.sub(r"base64,[^\"]*", "", page.read_text())
    assert not re.search(r"\bnan\b|\binf\b", visible, re.IGNORECASE)


def test_page_is_complete_in_itself_and_escapes_names(tmp_path: Path, run_cli: Cli) -> None:
    name = 'a <b>"bold"</b> & [red]song[_]\nof {two} lines'
    write_song(tmp_path / "songs" / name, *make_stems(1.2))
    target = tmp_path / "page.html"
    run_cli(tmp_path / "songs", "-m", "center", "--html", target)
    text = target.read_text()
    visible = re.sub(r"base64,[^\"]*", "", text)
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"(?m)^//.*$", "", visible))
    assert not re.search(r"<(link|script|img|audio|iframe)[^>]+(src|href)=\"(?!data:)", visible)
    assert "<b>&quot;bold" not in visible
    assert '<b>"bold' not in visible
    assert "&lt;b&gt;" in visible
    sounds = re.findall(r"data:audio/mpeg;base64,", text)
    pictures = re.findall(r"data:image/png;base64,", text)
    # The mixture; voice and music of the truth, of the ideal mask and of center; three masks.
    assert (len(sounds), len(pictures)) == (1 + 3 * 2, 1 + 3 * 3)


def test_names_that_are_no_text(tmp_path: Path, run_cli: Cli) -> None:
    """Bytes that are no UTF-8, an escape sequence, and two songs of one name."""
    for name in (b"song \xff", b"song \xfe", b"\x1b[31mred"):
        write_song(tmp_path / "songs" / os.fsdecode(name), *make_stems(0.3))
    out = run_cli(tmp_path / "songs", "--json", tmp_path / "s.json", "--html", tmp_path / "p.html")
    assert "\x1b[31mred" not in out
    evaluation = run.evaluate(tmp_path / "songs")
    names = [song.name for song in evaluation.references[0].songs]
    assert sorted(names) == ["song \ufffd", "song \ufffd (2)", "\ufffd[31mred"]


def test_page_shows_the_part_of_a_long_song_with_most_voice() -> None:
    vocals, music = make_stems(40.0)
    vocals[: 20 * RATE] = 0
    vocals[36 * RATE :] = 0
    song = run.Song("long", RATE, vocals + music, vocals, music)
    page = Page()
    page.add("mixture", song, run.unprocessed(song), {})
    (excerpt,) = page._songs.values()
    assert excerpt.seconds == 15
    assert 19.9 <= excerpt.start <= 21


def test_png_is_one(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = np.arange(36, dtype=np.uint8).reshape(12, 3)
    (tmp_path / "picture.png").write_bytes(png(pixels, palette))
    with av.open(str(tmp_path / "picture.png")) as picture:
        (frame,) = picture.decode(video=0)
    np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), palette[pixels])


def test_ideal_mask_adds_up_and_beats_position(song_folder: Path) -> None:
    song = run.read_song(song_folder / "song", "song")
    estimates = run.ideal_mask(song, Center(samplerate=RATE)._analysis.geometry)
    total = estimates["vocals"] + estimates["accompaniment"]
    np.testing.assert_allclose(total, song.mixture, atol=1e-6)


def test_markdown(song_folder: Path) -> None:
    text = markdown(run.evaluate(song_folder).rows)
    lines = text.splitlines()
    assert lines[0].startswith("| **vocals** | SDR |")
    assert "| `center` |" in text
    for line in lines:
        assert line == "" or (line.startswith("|") and line.endswith("|"))
