"""What tests of the plugins need: a home of their own, and an engine that is theirs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from realtime_sep.bridge import install
from realtime_sep.errors import EngineError

RATE = 44100


def built(face: str) -> Path:
    """The compiled plugins, or a skipped test."""
    try:
        path = install.library()
    except EngineError as error:
        pytest.skip(str(error))
    if face not in install.faces(path):
        pytest.skip(f"built without {face} (ladspa-sdk, lv2-dev)")
    return path


def song(frames: int) -> npt.NDArray[np.float32]:
    """A voice in the middle, and a band beside it, below the ceiling of 16 bits."""
    rng = np.random.default_rng(5)
    time_ = np.arange(frames) / RATE
    voice = 0.3 * np.sin(2 * np.pi * 440 * time_) * np.sin(2 * np.pi * 1.5 * time_) ** 2
    band = 0.1 * rng.standard_normal((frames, 2)) * np.sin(2 * np.pi * time_)[:, None] ** 2
    return np.clip(voice[:, None] + band, -0.9, 0.9).astype(np.float32)


class Engine:
    """`realtime-sep bridge` with a runtime directory of its own.

    Attributes:
        environment: what a host needs to find it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        script = directory / "program"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m realtime_sep "$@"\n')
        script.chmod(0o755)
        self.environment = {
            "XDG_RUNTIME_DIR": str(directory),
            "REALTIME_SEP_COMMAND": str(script),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self._directory / "realtime-sep" / "bridge"

    def start(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "realtime_sep", "bridge", "--idle", "60", *options],
            env={**os.environ, **self.environment},
            stdout=subprocess.DEVNULL,
        )
        running = self._process
        until(lambda: self.socket.exists() or running.poll() is not None, 60, "the engine listens")
        assert running.poll() is None

    def instances(self) -> list[int]:
        """Processes that serve a plugin each."""
        assert self._process is not None
        done = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)], capture_output=True, text=True
        )
        return [int(word) for word in done.stdout.split()]

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def end_others(self) -> None:
        """What plugins have started."""
        home = f"XDG_RUNTIME_DIR={self._directory}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if b"bridge" in words and home in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGTERM)

    def kill(self) -> None:
        """As crashes would, with everything that it serves."""
        assert self._process is not None
        served = self.instances()
        self._process.kill()
        self._process.wait()
        self._process = None
        for number in served:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


@contextlib.contextmanager
def engine(directory: Path) -> Iterator[Engine]:
    directory.mkdir(mode=0o700, exist_ok=True)
    made = Engine(directory)
    try:
        yield made
    finally:
        made.stop()
        made.end_others()


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll; fail the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)
