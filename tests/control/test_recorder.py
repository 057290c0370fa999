"""Recordings: what was heard, in files that play whatever happens."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from realtime_sep.control import takes
from realtime_sep.control.recorder import Recorder, buses
from realtime_sep.errors import AudioFileError, UsageError
from realtime_sep.stream import Block
from realtime_sep.types import Float32, SeparatorInfo

RATE, HOP = 48000, 256
INFO = SeparatorInfo("test", ("vocals", "drums", "bass"), RATE, 2, HOP, 100)
FORMATS = pytest.mark.parametrize("format", ["wav", "flac"])


def blocks(count: int, start: int = 0, latency: int = 100) -> list[Block]:
    rng = np.random.default_rng(count)
    made = []
    for i in range(count):
        stems = {name: rng.uniform(-0.3, 0.3, (HOP, 2)).astype(np.float32) for name in INFO.stems}
        mix: Float32 = np.sum(list(stems.values()), axis=0, dtype=np.float32)
        beside = {"mic": 0.25 * mix, "monitor": 0.75 * mix}
        made.append(Block(start + i * HOP, mix, stems, 0.5 * mix, latency, beside))
    return made


def read(path: Path) -> Float32:
    audio, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    return audio  # type: ignore[no-any-return]


@FORMATS
def test_every_bus_is_what_was_heard(tmp_path: Path, format: takes.Format) -> None:
    recorder = Recorder(tmp_path / "new")
    recorder.write(blocks(1)[0])  # nothing is recorded yet
    assert buses(INFO.stems) == ("output", "input", "vocals", "drums", "bass", "music")
    wanted = buses(INFO.stems, ("mic", "monitor"))
    assert wanted == (*buses(INFO.stems), "mic", "monitor")
    recorder.start(wanted, INFO, format, beside=("mic", "monitor"))
    audio = blocks(40)
    for block in audio:
        recorder.write(block)
    done = recorder.stop()
    assert done is not None
    assert recorder.stop() is None
    assert recorder.recording is None
    assert done.seconds == pytest.approx(40 * HOP / RATE)
    truth = {
        "output": [b.output for b in audio],
        "input": [b.mix for b in audio],
        "music": [b.stems["drums"] + b.stems["bass"] for b in audio],
        **{name: [b.stems[name] for b in audio] for name in INFO.stems},
        **{name: [b.beside[name] for b in audio] for name in ("mic", "monitor")},
    }
    assert set(done.files) == set(truth)
    for bus, path in done.files.items():
        tolerance = 0 if format == "wav" else 2**-23
        np.testing.assert_allclose(read(path), np.concatenate(truth[bus]), atol=tolerance, rtol=0)


def test_names_tell_time_and_take(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    names = []
    for _ in range(2):
        names += [path.name for path in recorder.start(["vocals"], INFO).files.values()]
        recorder.stop()
    year = time.strftime("%Y-%m-%d ")
    assert all(name.startswith(year) for name in names)
    assert [name.split(" take ")[1] for name in names] == ["1 vocals.flac", "2 vocals.flac"]


def test_what_was_lost_is_silence_and_another_latency_is_none(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.start(["output"], INFO, "wav")
    first, second = blocks(3), blocks(3, start=10 * HOP)
    # From here on another separator, 50 frames later: nothing was lost.
    third = blocks(2, start=13 * HOP - 50, latency=150)
    for block in (*first, *second, *third):
        recorder.write(block)
    done = recorder.stop()
    assert done is not None
    gap = np.zeros((7 * HOP, 2), np.float32)
    parts = [*(b.output for b in first), gap, *(b.output for b in (*second, *third))]
    np.testing.assert_array_equal(read(done.files["output"]), np.concatenate(parts))


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    with pytest.raises(UsageError, match="did you mean 'vocals'"):
        recorder.start(["vocal"], INFO)
    with pytest.raises(UsageError, match="unknown bus 'monitor'"):
        recorder.start(["monitor"], INFO, beside=["mic"])
    with pytest.raises(UsageError, match="format"):
        recorder.start(["vocals"], INFO, "mp3")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="what to record"):
        recorder.start([], INFO)
    recorder.start(["vocals"], INFO)
    with pytest.raises(UsageError, match="under way"):
        recorder.start(["vocals"], INFO)
    recorder.stop()
    (tmp_path / "file").touch()
    with pytest.raises(AudioFileError, match="cannot be made"):
        Recorder(tmp_path / "file").start(["vocals"], INFO)


CRASH = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from realtime_sep.control.takes import new_take

    take = new_take(Path(sys.argv[1]), 48000, 2, sys.argv[2])
    rng = np.random.default_rng(0)
    for i in range(1000):
        take.write(rng.uniform(-0.5, 0.5, (256, 2)).astype(np.float32))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@FORMATS
def test_a_killed_process_leaves_a_file_that_plays(tmp_path: Path, format: takes.Format) -> None:
    path = tmp_path / f"take.{format}"
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(CRASH), str(path), format])
    assert done.returncode == -signal.SIGKILL
    from realtime_sep.io.file import read_audio

    audio, rate = read_audio(path)  # as every player that uses FFmpeg
    assert rate == RATE
    assert len(audio) > 1000 * 256 - 48000
    truth = np.random.default_rng(0).uniform(-0.5, 0.5, (len(audio), 2))
    np.testing.assert_allclose(audio, truth, atol=2**-22)


FULL = """
    import resource, signal, sys, time
    from pathlib import Path
    from realtime_sep.control.recorder import Recorder
    from tests.control.test_recorder import INFO, blocks

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    lines = []
    recorder = Recorder(Path(sys.argv[1]), lines.append)
    recorder.start(["output"], INFO, sys.argv[2])
    for block in blocks(400):
        recorder.write(block)
    while recorder.recording is not None:
        time.sleep(0.01)
    recorder.write(blocks(1)[0])
    assert recorder.stop() is not None
    print(*lines, sep="\\n")
"""


@FORMATS
@pytest.mark.skipif(os.name == "nt", reason="limits are of POSIX")
def test_a_full_disk_ends_the_recording_with_a_line(tmp_path: Path, format: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path), format],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("recording stopped: ")
    assert "kept" in line
    (path,) = tmp_path.iterdir()
    from realtime_sep.io.file import read_audio

    audio, _ = read_audio(path)
    truth = np.concatenate([b.output for b in blocks(400)])
    assert len(audio) > 20000
    np.testing.assert_allclose(audio, truth[: len(audio)], atol=2**-22)


def test_beyond_four_gigabytes_a_wav_is_rf64(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    take = takes.new_take(path, RATE, 2, "wav")
    take.frames = 600_000_000  # as if they were there
    take.close()
    header = path.read_bytes()[:100]
    assert header[:4] == b"RF64"
    assert header[12:16] == b"ds64"
    riff, data, frames = struct.unpack("<QQQ", header[20:44])
    assert (data, frames) == (8 * 600_000_000, 600_000_000)
    assert riff == data + len(header[:96]) - 8 - 4 + 4 or riff > data
