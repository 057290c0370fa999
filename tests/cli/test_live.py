"""`realtime-sep live` on the null device, and what it makes of device names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from realtime_sep.cli.live import _backend, feedback
from realtime_sep.errors import UsageError
from realtime_sep.io.jack import JackSpec
from realtime_sep.io.null import NullSpec
from realtime_sep.io.portaudio import PortAudioSpec
from realtime_sep.io.pyaudio import PyAudioSpec

from .conftest import Cli


def test_json_tells_everything(process: Cli) -> None:
    done = process("live", "--input", "null", "--seconds", "1", "--json", "--samplerate", "44100")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["separator"]["samplerate"] == 44100
    assert result["stats"]["hops"] > 50
    assert result["stats"]["bad_hops"] == 0
    latency = result["latency"]
    assert latency["frames"] == sum(
        latency[part]
        for part in ("separator", "effects", "limiter", "gathering", "deadline", "guard")
    )


def test_summary_reads_well(process: Cli) -> None:
    done = process("live", "--input", "null", "--seconds", "0.5", "--profile", "stage")
    assert done.returncode == 0, done.stderr
    for row in ("separator", "sample rate", "128 frames", "late blocks", "xruns"):
        assert row in done.stdout


def test_stems_and_options_of_a_model(process: Cli) -> None:
    model = ("--model", "center:profile=stage")
    done = process(
        *("live", "--input", "null", "--seconds", "0.3", "--json", *model),
        *("--stem", "vocals=-6", "--stem", "accompaniment=off"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["separator"]["hop"] == 128
    done = process("live", "--input", "null", *model, "--stem", "drums=-6")
    assert done.returncode == 2
    assert "'drums'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def engine_runs(pid: int) -> bool:
    """Whether the process has a child that Ctrl-C does not end; where there is no /proc: later."""
    if not Path("/proc/self/status").exists():
        return False
    for path in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            status = dict(line.split(":", 1) for line in path.read_text().splitlines())
            ignored = int(status["SigIgn"], 16) >> (signal.SIGINT - 1) & 1
            spawned = b"spawn_main" in (path.parent / "cmdline").read_bytes()
            if int(status["PPid"]) == pid and ignored and spawned:
                return True
    return False


@pytest.mark.parametrize(
    ("send", "number"), [(os.killpg, signal.SIGINT), (os.kill, signal.SIGTERM)]
)
def test_a_signal_ends_it_with_the_summary(
    send: Callable[[int, int], None], number: signal.Signals
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "realtime_sep", "live", "--input", "null", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 15
    while not engine_runs(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    send(child.pid, number)  # a terminal's Ctrl-C goes to the engine's process, too
    out, errors = child.communicate(timeout=30)
    assert child.returncode == 0, errors
    assert errors == ""
    assert json.loads(out)["stats"]["hops"] >= 0


def test_meters_and_keys_in_a_terminal() -> None:
    pty = pytest.importorskip("pty")
    terminal, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "realtime_sep", "live", "--input", "null"],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"},
        start_new_session=True,
    )
    os.close(theirs)

    def read_until(words: str) -> str:
        seen = ""
        deadline = time.monotonic() + 60
        while words not in seen:
            assert time.monotonic() < deadline, seen[-2000:]
            try:
                seen += os.read(terminal, 65536).decode(errors="ignore")
            except OSError:  # how Linux says that the other side is closed
                pytest.fail(f"it ended: {seen[-2000:]}")
        return seen

    read_until("vocals off")
    os.write(terminal, b"VVm")
    read_until("vocals -38 dB")
    read_until("music -2 dB")
    os.write(terminal, b"q")
    read_until("late blocks")  # the summary
    assert child.wait(30) == 0
    assert child.stderr is not None
    assert child.stderr.read() == b""
    os.close(terminal)


@pytest.mark.parametrize(
    ("description", "danger"),
    [
        (
            "HDA Intel PCH: ALC257 Analog (hw:0,0) ▶ HDA Intel PCH: ALC257 Analog (ALSA, 48000 Hz)",
            1,
        ),
        ("MacBook Pro Microphone ▶ MacBook Pro Speakers (Core Audio, 48000 Hz)", 1),
        ("USB Microphone ▶ USB Headphones (Windows WASAPI, 48000 Hz)", 0),
        ("Monitor of Built-in Audio ▶ Built-in Audio (ALSA, 48000 Hz)", 1),
        ("Monitor of Music ▶ Built-in Audio (ALSA, 48000 Hz)", 0),
        ("BlackHole 2ch ▶ MacBook Pro Speakers (Core Audio, 48000 Hz)", 0),
        ("Line In (Realtek) ▶ Speakers (Realtek) (Windows WASAPI, 48000 Hz)", 0),
        ("Microphone (Realtek) ▶ CABLE Input (VB-Audio) (Windows WASAPI, 48000 Hz)", 0),
        ("null device, clocked, 48000 Hz", 0),
        ("system ▶ system (JACK, 48000 Hz)", 0),
    ],
)
def test_feedback_is_foreseen(description: str, danger: int) -> None:
    assert bool(feedback(description)) == bool(danger)


def test_backends_by_name() -> None:
    assert _backend("mic", None, "low", None) is None
    assert isinstance(_backend("null", None, "low", "jack"), NullSpec)
    assert _backend(None, "system", "low", "JACK") == JackSpec(None, "system")
    assert _backend("3", "pulse", "low", "pyaudio") == PyAudioSpec(3, "pulse")
    assert _backend("mic", None, 0.1, "alsa") == PortAudioSpec("mic", None, 0.1, "alsa")
    with pytest.raises(UsageError, match="stands alone"):
        _backend("null", "speakers", "low", None)
    with pytest.raises(UsageError, match="PyAudio knows no --latency"):
        _backend(None, None, "high", "pyaudio")
