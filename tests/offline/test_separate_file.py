"""`separate_file`: what the command line stands on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from realtime_sep.errors import AudioFileError, UsageError
from realtime_sep.offline import separate, separate_file


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (30_000, 2)).astype(np.float32)
    soundfile.write(path, audio, 44100, subtype="FLOAT")
    return path


def test_what_it_reports_is_what_it_did(song: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    done = separate_file(song, progress=lambda *call: calls.append(call))
    assert done.paths == {"karaoke": song.with_name("song.karaoke.wav")}
    assert (done.frames, done.samplerate, done.channels) == (30_000, 44100, 2)
    assert (done.clipped, done.damaged, done.notice) == (0, 0, None)
    assert calls[-1] == (30_000, 30_000)
    audio, samplerate = soundfile.read(song, dtype="float32")
    written, _ = soundfile.read(done.paths["karaoke"], dtype="float32")
    np.testing.assert_array_equal(written, separate(audio, samplerate)["accompaniment"])


def test_options_reach_the_separator(song: Path) -> None:
    with pytest.raises(UsageError, match="unknown profile"):
        separate_file(song, profile="none")
    with pytest.raises(UsageError, match="option"):
        separate_file(song, colour="red")
    assert [path.name for path in song.parent.iterdir()] == ["song.wav"]


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_the_source_is_never_replaced(song: Path, link: str) -> None:
    before = song.read_bytes()
    target = song.with_name("song.karaoke.wav")
    getattr(target, link)(song)
    with pytest.raises(UsageError, match="overwrite the source"):
        separate_file(song)
    assert song.read_bytes() == target.read_bytes() == before


def test_an_interruption_leaves_the_old_files(song: Path) -> None:
    target = song.with_name("song.vocals.wav")
    target.write_bytes(b"older")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separate_file(song, stems=True, progress=interrupt)
    assert target.read_bytes() == b"older"
    assert {path.name for path in song.parent.iterdir()} == {"song.wav", "song.vocals.wav"}


def test_no_directory_is_made_for_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "words.wav").write_text("words " * 1000)
    with pytest.raises(AudioFileError, match="not audio"):
        separate_file(tmp_path / "words.wav", tmp_path / "out")
    assert not (tmp_path / "out").exists()
