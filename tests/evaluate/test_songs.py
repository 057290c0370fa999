"""Songs are found and read in every layout, and what is wrong with them is said in one line."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from realtime_sep.errors import AudioFileError, UsageError
from realtime_sep.evaluate.songs import find_songs, read_song, song_name

from .conftest import RATE, make_stems, write_song


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_our_layout(tmp_path: Path, suffix: str) -> None:
    vocals, music = make_stems(0.2)
    write_song(tmp_path / "a song", vocals, music, suffix)
    (path,) = find_songs(tmp_path)
    song = read_song(path, song_name(path, tmp_path))
    assert (song.name, song.samplerate, song.notes) == ("a song", RATE, ())
    np.testing.assert_allclose(song.vocals, vocals, atol=1e-6)
    np.testing.assert_allclose(song.accompaniment, music, atol=1e-6)
    np.testing.assert_allclose(song.mixture, vocals + music, atol=1e-6)


def test_a_song_itself_and_songs_in_folders(tmp_path: Path) -> None:
    for name in ("test/b", "train/a"):
        write_song(tmp_path / name, *make_stems(0.1))
    (tmp_path / "train" / "notes.txt").write_text("no song")
    assert [song_name(p, tmp_path) for p in find_songs(tmp_path)] == ["test/b", "train/a"]
    inside = tmp_path / "test" / "b"
    assert [song_name(p, inside) for p in find_songs(inside)] == ["b"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write_song(tmp_path / "elsewhere" / "song", *make_stems(0.1))
    songs = tmp_path / "songs"
    songs.mkdir()
    (songs / "linked").symlink_to(tmp_path / "elsewhere" / "song")
    (songs / "circle").symlink_to(songs)
    assert [song_name(p, songs) for p in find_songs(songs)] == ["linked"]


def test_musdb_layout_adds_up_the_rest(tmp_path: Path) -> None:
    vocals, music = make_stems(0.2)
    write_song(tmp_path / "song", vocals, music)
    (tmp_path / "song" / "accompaniment.wav").unlink()
    for name, part in (("drums", 0.5), ("bass", 0.3), ("other", 0.2)):
        path = tmp_path / "song" / f"{name}.wav"
        soundfile.write(path, part * music, RATE, subtype="FLOAT")
    song = read_song(tmp_path / "song", "song")
    np.testing.assert_allclose(song.accompaniment, music, atol=1e-6)


def test_stem_file(tmp_path: Path) -> None:
    vocals, music = make_stems(1.5)
    path = tmp_path / "Artist - Title.stem.mp4"
    # Mixture, drums, bass, other, vocals.
    parts = [vocals + music, 0.5 * music, 0.3 * music, 0.2 * music, vocals]
    with av.open(str(path), "w", format="mp4") as container:
        streams = [container.add_stream("aac", rate=RATE, layout="stereo") for _ in parts]
        for stream in streams:
            stream.bit_rate = 256_000
        for stream, part in zip(streams, parts, strict=True):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(part.T), format="fltp", layout="stereo"
            )
            frame.sample_rate = RATE
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)
    assert find_songs(tmp_path) == [path]
    assert song_name(path, tmp_path) == "Artist - Title"
    song = read_song(path, "song")
    assert song.samplerate == RATE
    level = np.abs(vocals[RATE:]).mean()
    assert np.abs(song.vocals[RATE : len(vocals)]).mean() == pytest.approx(level, rel=0.1)
    error = song.mixture - song.vocals - song.accompaniment
    assert np.sqrt(np.mean(error**2)) < 0.5 * np.sqrt(np.mean(song.mixture**2))


def test_mono_stays_mono_and_joins_stereo(tmp_path: Path) -> None:
    vocals, music = make_stems(0.2)
    write_song(tmp_path / "mono", vocals[:, :1], music[:, :1])
    assert read_song(tmp_path / "mono", "mono").mixture.shape[1] == 1
    write_song(tmp_path / "both", vocals, music)
    soundfile.write(tmp_path / "both" / "vocals.wav", vocals[:, 0], RATE, subtype="FLOAT")
    song = read_song(tmp_path / "both", "both")
    np.testing.assert_array_equal(song.vocals, vocals)


def test_unequal_lengths_are_cut_and_said(tmp_path: Path) -> None:
    vocals, music = make_stems(0.5)
    write_song(tmp_path, vocals, music)
    soundfile.write(tmp_path / "vocals.wav", vocals[: RATE // 4], RATE, subtype="FLOAT")
    song = read_song(tmp_path, "song")
    assert len(song.mixture) == len(song.vocals) == len(song.accompaniment) == RATE // 4
    assert len(song.notes) == 1
    assert "unequal" in song.notes[0]


def test_resampling(tmp_path: Path) -> None:
    write_song(tmp_path, *make_stems(0.5))
    song = read_song(tmp_path, "song", rate=48000)
    assert song.samplerate == 48000
    assert len(song.mixture) == pytest.approx(24000, abs=2)
    error = song.mixture - song.vocals - song.accompaniment
    assert np.abs(error).max() < 1e-4


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no songs"):
        find_songs(tmp_path)
    with pytest.raises(UsageError, match="no such directory"):
        find_songs(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not a directory"):
        find_songs(tmp_path / "file")


@pytest.mark.parametrize("stem", ["mixture", "vocals", "accompaniment"])
def test_missing_stem(tmp_path: Path, stem: str) -> None:
    write_song(tmp_path, *make_stems(0.1))
    (tmp_path / f"{stem}.wav").unlink()
    with pytest.raises(AudioFileError, match=f"lacks {stem}"):
        read_song(tmp_path, "song")


def test_missing_part(tmp_path: Path) -> None:
    write_song(tmp_path, *make_stems(0.1))
    (tmp_path / "accompaniment.wav").rename(tmp_path / "drums.wav")
    with pytest.raises(AudioFileError, match="lacks bass and other"):
        read_song(tmp_path, "song")


def test_unreadable_files(tmp_path: Path) -> None:
    vocals, music = make_stems(0.1)
    write_song(tmp_path, vocals, music)
    (tmp_path / "vocals.wav").write_bytes(b"this is no sound")
    with pytest.raises(AudioFileError, match="not audio"):
        read_song(tmp_path, "song")
    soundfile.write(tmp_path / "vocals.wav", vocals, 48000)
    with pytest.raises(AudioFileError, match="sample rates differ"):
        read_song(tmp_path, "song")
    soundfile.write(tmp_path / "vocals.wav", vocals * np.nan, RATE, subtype="FLOAT")
    with pytest.raises(AudioFileError, match="not numbers"):
        read_song(tmp_path, "song")
    bad = tmp_path / "bad.stem.mp4"
    bad.write_bytes(b"no film")
    with pytest.raises(AudioFileError, match="stem file"):
        read_song(bad, "bad")
