"""`realtime-sep separate`: odd input works, bad input gets one clear line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from realtime_sep.offline import separate

from .conftest import Cli, stereo


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_karaoke_is_written_beside_the_song(process: Cli, song: Path) -> None:
    done = process("separate", song)
    assert done.returncode == 0
    assert done.stdout.strip() == str(song.with_name("song.karaoke.wav"))
    assert names(song.parent) == {"song.wav", "song.karaoke.wav"}


def test_files_equal_the_library(cli: Cli, song: Path) -> None:
    assert cli("separate", song, "-o", "out", "--stems").returncode == 0
    audio, samplerate = soundfile.read(song, dtype="float32")
    expected = separate(audio, samplerate)
    for stem in ("vocals", "accompaniment"):
        written, rate = soundfile.read(song.parent / "out" / f"song.{stem}.wav", dtype="float32")
        assert rate == samplerate
        np.testing.assert_array_equal(written, expected[stem])


def test_the_stems_add_up_to_the_song(cli: Cli, song: Path) -> None:
    assert cli("separate", song, "--stems").returncode == 0
    audio, _ = soundfile.read(song)
    parts = [
        soundfile.read(song.with_name(f"song.{s}.wav"))[0] for s in ("vocals", "accompaniment")
    ]
    assert 20 * np.log10(np.abs(sum(parts) - audio).max()) < -120


@pytest.mark.parametrize(
    ("samplerate", "channels", "seconds"),
    [
        (44100, 1, 2.0),
        (48000, 6, 2.0),
        (8000, 2, 2.0),
        (192000, 2, 2.0),
        (11025, 1, 2.0),
        (44100, 2, 0.1),
        (8000, 2, 0.1),
        (192000, 6, 0.1),
        (44100, 2, 1 / 44100),
    ],
)
def test_odd_input(
    cli: Cli, tmp_path: Path, samplerate: int, channels: int, seconds: float
) -> None:
    audio = np.tile(stereo(samplerate, seconds), (1, 3))[:, :channels] / 3
    soundfile.write(tmp_path / "odd.wav", audio, samplerate)
    done = cli("separate", "odd.wav", "--stems", "-o", "out")
    assert done.returncode == 0, done.stderr
    for stem in ("vocals", "accompaniment"):
        info = soundfile.info(tmp_path / "out" / f"odd.{stem}.wav")
        assert info.samplerate == samplerate
        assert info.frames == len(audio)
        assert info.channels == min(channels, 2)


def test_flac_and_several_files(cli: Cli, tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, stereo(44100, 0.5), 44100)
    done = cli("separate", "a.wav", "b.wav", "-f", "flac", "-o", "out")
    assert done.returncode == 0
    assert names(tmp_path / "out") == {"a.karaoke.flac", "b.karaoke.flac"}


def test_json_says_what_was_done(cli: Cli, song: Path) -> None:
    (result,) = json.loads(cli("separate", song, "--json").stdout)
    assert result["frames"] == 88200
    assert result["files"] == {"karaoke": str(song.with_name("song.karaoke.wav"))}


def test_mono_is_told_and_passes(cli: Cli, tmp_path: Path) -> None:
    audio = stereo(44100, 1.0)[:, 0]
    soundfile.write(tmp_path / "mono.wav", audio, 44100, subtype="FLOAT")
    done = cli("separate", "mono.wav", "--model", "center")
    assert done.returncode == 0
    assert "mono" in done.stderr
    np.testing.assert_array_equal(
        soundfile.read(tmp_path / "mono.karaoke.wav", dtype="float32")[0], audio
    )


# ---- what goes wrong


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_missing(process: Cli) -> None:
    one_line(process("separate", "missing.mp3"), "missing.mp3", "no such file")


@pytest.mark.parametrize("name", ["words.txt", "words.mp3", "words.wav"])
def test_words(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not a song\n" * 500)
    one_line(cli("separate", name, "-o", "out"), name, "not audio")
    assert not (tmp_path / "out").exists() or names(tmp_path / "out") == set()


def test_zero_bytes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    one_line(cli("separate", "empty.wav"), "empty.wav", "zero bytes")


def test_a_directory(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    one_line(cli("separate", "songs"), "songs", "directory")


def test_unknown_model(cli: Cli, song: Path) -> None:
    done = cli("separate", song, "--model", "centre")
    one_line(done, "centre", "did you mean 'center'?")
    assert done.returncode == 2


def test_unknown_profile(cli: Cli, song: Path) -> None:
    one_line(cli("separate", song, "--profile", "stge"), "stge", "did you mean 'stage'?")


def test_output_is_a_file(cli: Cli, song: Path) -> None:
    (song.parent / "taken").touch()
    one_line(cli("separate", song, "-o", "taken"), "taken", "not a directory")


def test_output_may_not_be_written(cli: Cli, song: Path) -> None:
    """/proc refuses even root."""
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    one_line(cli("separate", song, "-o", "/proc/self/out"), "/proc/self/out", "cannot be made")
    one_line(cli("separate", song, "-o", "/proc/self"), "cannot be written")


def test_the_disk_is_full(process: Cli, song: Path) -> None:
    resource = pytest.importorskip("resource")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = process("separate", song, "--stems", "-o", "out", preexec_fn=limit)
    one_line(done, "cannot be written", "File too large")
    assert names(song.parent / "out") == set()


def test_a_device_that_is_always_full(cli: Cli, song: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (song.parent / "out").mkdir()
    (song.parent / "out" / "song.karaoke.wav").symlink_to("/dev/full")
    one_line(cli("separate", song, "-o", "out"), "No space left")


def test_no_source_is_overwritten(cli: Cli, song: Path) -> None:
    before = song.read_bytes()
    other = song.with_name("song.karaoke.wav")
    other.write_bytes(before)
    done = cli("separate", song, other)
    one_line(done, "would overwrite")
    assert done.returncode == 2
    assert song.read_bytes() == other.read_bytes() == before
    other.unlink()
    other.symlink_to(song)
    one_line(cli("separate", song), "would overwrite")
    assert song.read_bytes() == before


def test_two_songs_of_one_name(cli: Cli, song: Path) -> None:
    (song.parent / "b").mkdir()
    (song.parent / "b" / "song.wav").write_bytes(song.read_bytes())
    one_line(cli("separate", song, "b/song.wav", "-o", "out"), "would both be written")


def test_one_bad_file_does_not_stop_the_others(cli: Cli, song: Path) -> None:
    done = cli("separate", "missing.wav", song)
    one_line(done, "missing.wav")
    assert "song.karaoke.wav" in names(song.parent)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, np.tile(stereo(44100, 10.0), (60, 1)), 44100)
    child = subprocess.Popen(
        [sys.executable, "-m", "realtime_sep", "separate", str(long), "--stems", "-o", "out"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    out = tmp_path / "out"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        parts = list(out.glob(".*.part")) if out.exists() else []
        if len(parts) == 2 and all(part.stat().st_size > 100_000 for part in parts):
            break
        time.sleep(0.01)
    else:
        pytest.fail("it never began to write")
    os.kill(child.pid, number)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "Traceback" not in errors
    assert names(out) == set()


@pytest.mark.slow
def test_memory_does_not_grow_and_it_outruns_the_music(tmp_path: Path) -> None:
    """Peak memory of whole processes over one minute and over six, and the time they take."""
    resource = pytest.importorskip("resource")
    assert resource
    peaks, seconds = [], []
    for minutes in (1, 6):
        path = tmp_path / f"{minutes}.flac"
        with soundfile.SoundFile(path, "w", 44100, 2) as writer:
            for _ in range(minutes * 6):
                writer.write(stereo(44100, 10.0))
        code = (
            "import resource, sys, time\n"
            "from realtime_sep.offline import separate_file\n"
            "start = time.perf_counter()\n"
            f"separate_file({str(path)!r}, stems=True)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,"
            " time.perf_counter() - start)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=True
        )
        peak, duration = map(float, done.stdout.split())
        peaks.append(peak / 1024)
        seconds.append(duration)
    assert peaks[1] < peaks[0] + 30  # MiB; six minutes of stereo are 121
    assert seconds[1] < 360 / 2
