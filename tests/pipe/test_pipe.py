"""Between two programs: samples, memory, waiting, and every way to go wrong."""

from __future__ import annotations

import io
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from realtime_sep import separate
from realtime_sep.io.pipe import decode, encode
from realtime_sep.types import Float32

from .conftest import COMMAND, ENVIRONMENT, Pipe, song

RAW = ("--format", "f32le", "--rate", "44100")
IDENTITY = (*RAW, "--model", "identity", "--vocals", "0")


def samples(pcm: bytes, channels: int = 2) -> Float32:
    return np.frombuffer(pcm, "<f4").reshape(-1, channels)


def wav(audio: Float32, samplerate: int = 44100, subtype: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio, samplerate, subtype=subtype, format="WAV")
    return file.getvalue()


@pytest.fixture
def six(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed separator of six stems: vocals are half of the mix, drums a quarter."""
    info = tmp_path / "bands-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bands\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[realtime_sep.separators]\nsix = tests.stems.bands:six\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "six"


# --- what comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [0, 1, 8192, 30001])
def test_as_much_comes_out_as_went_in(pipe: Pipe, frames: int) -> None:
    audio = song()[:frames]
    done = pipe(*IDENTITY, audio=audio.tobytes())
    assert done.returncode == 0, done.stderr
    assert done.stdout == audio.tobytes()
    assert done.stderr == b""


def test_karaoke_is_that_of_separate(pipe: Pipe) -> None:
    audio = song()
    done = pipe(*RAW, "--model", "center", audio=audio.tobytes())
    expected = separate(audio, 44100, "center")["accompaniment"]
    np.testing.assert_array_equal(samples(done.stdout), expected)


def test_faders(pipe: Pipe) -> None:
    audio = song()
    stems = separate(audio, 44100, "center")
    done = pipe(*RAW, "--vocals", "-6", "--music", "off", audio=audio.tobytes())
    np.testing.assert_allclose(
        samples(done.stdout), stems["vocals"] * 10 ** (-6 / 20), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((), 0.5),
        (("--stem", "drums=off"), 0.75),
        (("--vocals", "off", "--stem", "drums=off"), 0.25),
        (("--music", "off", "--stem", "piano=0"), 0.5 + 0.03125),
    ],
)
def test_any_stems_are_mixed(
    pipe: Pipe, six: str, levels: tuple[str, ...], expected: float
) -> None:
    audio = song(0.1)
    done = pipe(*RAW, "--model", six, *levels, audio=audio.tobytes())
    np.testing.assert_allclose(samples(done.stdout), expected * audio, atol=1e-6)


def test_a_stem_that_there_is_none_of(pipe: Pipe, six: str) -> None:
    done = pipe(*RAW, "--model", six, "--stem", "pianoo=0")
    assert done.returncode == 2
    assert b"did you mean 'piano'" in done.stderr


def test_stems_stand_side_by_side(pipe: Pipe) -> None:
    audio = song()
    done = pipe(*RAW, "--stems", audio=audio.tobytes())
    stems = separate(audio, 44100, "center")
    expected = np.hstack([stems["vocals"], stems["accompaniment"]])
    np.testing.assert_array_equal(samples(done.stdout, 4), expected)
    assert done.stderr == b"realtime-sep: channels: vocals 1-2, accompaniment 3-4\n"


def test_another_rate_and_mono(pipe: Pipe) -> None:
    audio = song(0.5, 16000, channels=1)
    arguments = ("--rate", 16000, "--channels", 1, "--model", "identity", "--vocals", 0)
    pcm, _ = encode(audio)
    done = pipe("--format", "s16le", *arguments, audio=pcm)
    stems = separate(decode(pcm), 16000, "identity")
    assert done.stdout == encode(stems["accompaniment"])[0]


def test_live_keeps_the_delay(pipe: Pipe) -> None:
    audio = song()[:30001]
    aligned = samples(pipe(*RAW, audio=audio.tobytes()).stdout)
    done = pipe(*RAW, "--live", audio=audio.tobytes())
    late = samples(done.stdout)
    assert done.stderr == b"realtime-sep: output lags input by 256 frames, 5.8 ms\n"
    assert late.shape == audio.shape
    assert not late[:256].any()
    np.testing.assert_array_equal(late[256:], aligned[:-256])


def test_live_at_another_rate(pipe: Pipe) -> None:
    audio = song(0.5, 32000)
    arguments = ("--format", "f32le", "--rate", 32000)
    aligned = samples(pipe(*arguments, audio=audio.tobytes()).stdout)
    done = pipe(*arguments, "--live", audio=audio.tobytes())
    delay = int(done.stderr.split(b" frames")[0].split()[-1])
    late = samples(done.stdout)
    assert late.shape == audio.shape
    np.testing.assert_array_equal(late[delay:], aligned[:-delay])


def test_live_writes_every_hop_at_once() -> None:
    """Every hop is answered while the input waits for the answer: nothing is held back."""
    hop = song()[:256].tobytes()
    with subprocess.Popen(
        [*COMMAND, *RAW, "--live"],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        watchdog = threading.Timer(60, child.kill)
        watchdog.start()
        for _ in range(10):
            child.stdin.write(hop)
            answer = b""
            while len(answer) < len(hop) and (more := child.stdout.read(len(hop) - len(answer))):
                answer += more
            assert len(answer) == len(hop)
        child.stdin.close()
        assert child.stdout.read() == b""
        watchdog.cancel()


def test_a_pipe_that_is_not_blocking(pipe: Pipe) -> None:
    """As a parent in Node or asyncio may leave it: to be waited for, not taken for the end."""
    audio = song(0.05).tobytes()
    source, feed = os.pipe()
    os.set_blocking(source, False)

    def trickle() -> None:
        with open(feed, "wb", buffering=0) as file:
            for half in (audio[:4096], audio[4096:]):
                file.write(half)
                for _ in range(500):  # until it was read
                    if not select.select([source], [], [], 0)[0]:
                        break
                    time.sleep(0.02)
                time.sleep(0.1)

    feeder = threading.Thread(target=trickle)
    feeder.start()
    done = pipe(*IDENTITY, stdin=source)
    feeder.join()
    os.close(source)
    assert done.stdout == audio


# --- WAV -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_wav_through_a_pipe_says_its_true_length(pipe: Pipe, subtype: str) -> None:
    data = wav(song(), subtype=subtype)
    done = pipe("--format", "wav", "--model", "identity", "--vocals", "0", audio=data)
    out, samplerate = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    assert samplerate == 44100
    np.testing.assert_array_equal(out, expected)


def test_what_follows_the_audio_is_taken_too(pipe: Pipe) -> None:
    """Else the program before us dies of it, although all is well."""
    data = wav(song(0.1)) + b"LIST" + (1 << 18).to_bytes(4, "little") + bytes(1 << 18)
    source, feed = os.pipe()
    written: list[int] = []

    def write() -> None:
        with suppress(BrokenPipeError), open(feed, "wb", buffering=0) as file:
            for start in range(0, len(data), 4096):
                written.append(file.write(data[start : start + 4096]))

    feeder = threading.Thread(target=write)
    feeder.start()
    done = pipe("--format", "wav", stdin=source)
    os.close(source)
    feeder.join()
    assert done.returncode == 0
    assert sum(written) == len(data)


def test_wav_of_stems_into_a_file(pipe: Pipe, tmp_path: Path) -> None:
    """Of unknown length when it begins; the file tells it when it is complete."""
    audio = song()
    data = bytearray(wav(audio))
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff" * 4
    path = tmp_path / "stems.wav"
    with path.open("wb") as file:
        done = pipe("--format", "wav", "--stems", audio=bytes(data), stdout=file.fileno())
    assert done.returncode == 0, done.stderr
    out, _ = soundfile.read(path, dtype="float32")
    assert out.shape == (len(audio), 4)
    np.testing.assert_allclose(out[:, :2] + out[:, 2:], audio, atol=1e-6)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize("format", ["wav", "s16le"])
def test_between_two_ffmpegs(tmp_path: Path, format: str) -> None:
    soundfile.write(tmp_path / "song.flac", song(2.0), 44100)
    raw = "" if format == "wav" else "-ar 44100 -ac 2"
    rate = "" if format == "wav" else "--rate 44100 --channels 2"
    script = (
        "set -o pipefail; "
        f"ffmpeg -v error -i song.flac -f {format} {raw} - | "
        f"{' '.join(COMMAND)} --format {format} {rate} --model identity --vocals 0 | "
        f"ffmpeg -v error -f {format} {raw} -i - -c:a flac -sample_fmt s16 out.flac"
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    before, _ = soundfile.read(tmp_path / "song.flac", dtype="int16")
    after, _ = soundfile.read(tmp_path / "out.flac", dtype="int16")
    np.testing.assert_array_equal(after, before)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_ffmpeg_reads_stems_of_unknown_length(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "song.flac", song(1.0), 44100)
    script = (
        "set -o pipefail; ffmpeg -v error -i song.flac -f wav - | "
        f"{' '.join(COMMAND)} --format wav --stems | "
        "ffmpeg -v error -f wav -i - -c:a pcm_f32le out.wav"
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "out.wav").channels == 4
    assert soundfile.info(tmp_path / "out.wav").frames == 44100


# --- what can go wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "audio", "status", "words"),
    [
        ((), b"", 2, ["--format"]),
        (("--format", "mp3"), b"", 2, ["mp3", "s16le"]),
        (("--format", "f32le"), b"", 2, ["--rate"]),
        ((*RAW, "--channels", "6"), b"", 2, ["6", "-ac 2"]),
        ((*RAW, "--rate", "44"), b"", 2, ["44", "1000"]),
        ((*RAW, "--model", "centre"), b"", 2, ["'center'"]),
        ((*RAW, "--profile", "stge"), b"", 2, ["'stage'"]),
        ((*RAW, "--vocals", "loud"), b"", 2, ["loud"]),
        ((*RAW, "--stems", "--vocals", "0"), b"", 2, ["--stems", "leave out"]),
        (RAW, wav(song(0.1)), 1, ["is WAV"]),
        (("--format", "wav"), b"", 1, ["empty"]),
        (("--format", "wav"), b"To be, or not to be, that is the question", 1, ["not WAV"]),
        (("--format", "wav", "--rate", "48000"), wav(song(0.1)), 2, ["48000", "44100"]),
        (("--format", "wav"), wav(song(0.1), 100), 2, ["not 100:"]),
        (("--format", "wav", "--channels", "1"), wav(song(0.1)), 2, ["--channels 1"]),
        (("--format", "wav"), wav(np.zeros((9, 6), np.float32)), 2, ["6", "-ac 2"]),
    ],
)
def test_mistakes_are_explained(
    pipe: Pipe, arguments: tuple[str, ...], audio: bytes, status: int, words: list[str]
) -> None:
    done = pipe(*arguments, audio=audio)
    said = done.stderr.decode()
    assert done.returncode == status, said
    assert all(word in said for word in words), said
    assert done.stdout == b""


def test_half_a_frame_at_the_end_is_not_lost_silently(pipe: Pipe) -> None:
    audio = song(0.1)
    done = pipe(*IDENTITY, audio=audio.tobytes() + b"xyz")
    assert done.stdout == audio.tobytes()
    assert done.stderr.count(b"\n") == 1
    assert b"last 3 bytes" in done.stderr


def test_garbage_is_silence_and_said_so(pipe: Pipe) -> None:
    garbage = np.random.default_rng(0).bytes(80000)
    done = pipe(*RAW, audio=garbage)
    assert done.returncode == 0
    assert len(done.stdout) == len(garbage)
    assert np.isfinite(samples(done.stdout)).all()
    assert b"really f32le" in done.stderr


def test_clipping_is_said(pipe: Pipe) -> None:
    audio = encode(song() * 2)[0]
    arguments = ("--format", "s16le", "--rate", 44100, "--music", 6)
    done = pipe(*arguments, audio=audio)
    assert b"were cut off" in done.stderr
    assert len(done.stdout) == len(audio)


def test_a_full_disk(pipe: Pipe) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "wb") as full:
        done = pipe(*IDENTITY, audio=song().tobytes(), stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr == b"realtime-sep: stdout cannot be written: No space left on device\n"


def test_a_terminal_is_no_audio(pipe: Pipe) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        for side, ends in (("stdin", {"stdin": theirs}), ("stdout", {"stdout": theirs})):
            done = pipe(*IDENTITY, **ends)
            assert done.returncode == 2
            assert done.stderr.startswith(f"realtime-sep: {side} is a terminal".encode())
    finally:
        os.close(ours)
        os.close(theirs)


def test_closed_streams(tmp_path: Path) -> None:
    for closed in ("<&-", ">&-"):
        done = subprocess.run(
            ["bash", "-c", f"{' '.join([*COMMAND, *IDENTITY])} </dev/null {closed}"],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=60,
        )
        assert done.returncode == 2
        assert b"closed" in done.stderr
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("live", [(), ("--live",)])
def test_a_reader_that_goes_away_ends_it_quietly(live: tuple[str, ...]) -> None:
    with subprocess.Popen(
        [*COMMAND, *RAW, *live],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None

        def feed() -> None:
            with suppress(BrokenPipeError):
                while True:
                    child.stdin.write(song().tobytes())  # type: ignore[union-attr]

        feeder = threading.Thread(target=feed)
        feeder.start()
        assert child.stdout.read(1000)
        child.stdout.close()
        assert child.wait(60) == 141  # 128 + SIGPIPE, as every program in a shell's pipeline
        feeder.join(60)
        said = child.stderr.read().decode()
        assert len(said.splitlines()) == len(live), said  # only the delay that --live tells
        with suppress(BrokenPipeError):
            child.stdin.close()


def test_ctrl_c_ends_it_quietly() -> None:
    with subprocess.Popen(
        [*COMMAND, *RAW],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(song(0.2).tobytes())  # a block and what fits into the pipe
        child.stdin.flush()
        assert child.stdout.read(1000)  # it has begun
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
        assert (child.returncode, said) == (130, b"")


def test_who_does_not_read_is_waited_for() -> None:
    """Nobody reads: it takes what fits into the pipes and a block or two, and no more."""
    with subprocess.Popen(
        [*COMMAND, *IDENTITY],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        os.set_blocking(child.stdin.fileno(), False)
        taken = 0
        quiet = time.monotonic()
        began = False
        while time.monotonic() - quiet < (1 if began else 30):
            try:
                taken += os.write(child.stdin.fileno(), b"\0" * 65536)
                quiet = time.monotonic()
                began = taken > 1 << 17  # more than the pipe to it holds: it reads
            except BlockingIOError:
                time.sleep(0.02)
        assert began
        assert taken < 1 << 19
        child.kill()


def test_memory_does_not_grow() -> None:
    """Three minutes take as much memory as five seconds."""
    pytest.importorskip("resource", reason="needs a system that tells the memory of a process")
    second = song().tobytes()

    def peak(seconds: int) -> int:
        with subprocess.Popen(
            [*COMMAND, *IDENTITY],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        ) as child:
            assert child.stdin is not None
            for _ in range(seconds):
                child.stdin.write(second)
            child.stdin.close()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        return usage.ru_maxrss  # KiB, on Linux

    assert peak(180) - peak(5) < 16 << 10  # of 63 MB that went through


def test_what_libraries_print_is_no_audio(tmp_path: Path) -> None:
    """Neither Python's nor C's stdout reaches the audio."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "import realtime_sep.separators.identity as module\n"
        "class Chatty(module.Identity):\n"
        "    def process(self, hop, stems):\n"
        "        print('hello')\n"
        "        os.write(1, b'hello')\n"
        "        super().process(hop, stems)\n"
        "module.Identity = Chatty\n"
    )
    audio = song(0.1).tobytes()
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*COMMAND, *IDENTITY],
        env={**ENVIRONMENT, "PYTHONPATH": path},
        input=audio,
        capture_output=True,
        timeout=60,
    )
    assert done.stdout == audio
    assert b"hello" in done.stderr
