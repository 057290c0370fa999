"""A song whose voice and music are known, and a desk that plays it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from realtime_sep.types import Float32

RATE = 44100


def song(seconds: float = 4.0) -> Float32:
    """A voice in the middle, an instrument on each side; loops without a step."""
    t = np.arange(round(seconds * RATE)) / RATE
    voice = 0.25 * sum(np.sin(2 * np.pi * 440 * k * t) / k for k in (1, 2, 3))
    left = 0.2 * np.sin(2 * np.pi * 1250 * t)
    right = 0.2 * np.sin(2 * np.pi * 3125 * t)
    return np.stack([voice + left, voice + right], axis=1).astype(np.float32)


def level(audio: Float32) -> float:
    """RMS in dB."""
    return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64)) + 1e-20))


@dataclass
class Running:
    """A desk in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    recordings: Path
    log: Path

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.address}api/state", timeout=10) as answer:
            result: dict[str, Any] = json.load(answer)
        return result

    def command(self, **message: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.address}api/command", json.dumps(message).encode(), method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                result: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            result = json.load(error)
        return result

    def until(self, good: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        """The first state that is good."""
        deadline = time.monotonic() + seconds
        while not good(state := self.state()):
            assert time.monotonic() < deadline, (state, self.log.read_text())
            time.sleep(0.05)
        return state

    def engines(self) -> list[int]:
        """Processes of engines: those children that run the spawned main."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    line = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if parent == self.process.pid and b"spawn_main" in line:
                    found.append(int(entry.name))
        return found


def start_desk(folder: Path, *arguments: str) -> Running:
    """Start one; the caller stops it."""
    tune = folder / "song.wav"
    if not tune.exists():
        soundfile.write(tune, song(), RATE)
    log = folder / "log"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "realtime_sep", "desk", "--input", str(tune)),
            *("--output", "null", "--no-browser"),
            *("--port", "0", "--recordings", str(folder / "recordings"), *arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
        start_new_session=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"https?://\S+", line)
    assert found, (line, log.read_text())
    return Running(process, found.group(), folder / "recordings", log)


def stop_desk(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)
    try:
        assert running.process.wait(30) == 0, running.log.read_text()
    finally:
        if running.process.poll() is None:
            os.killpg(running.process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A desk that plays the song with `center`."""
    made = start_desk(tmp_path_factory.mktemp("desk"), "--model", "center")
    try:
        made.until(lambda state: state["running"])
        yield made
    finally:
        stop_desk(made)
    assert "Traceback" not in made.log.read_text()
