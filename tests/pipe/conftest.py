"""`realtime-sep pipe` as a shell runs it, with pipes or files at its ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from realtime_sep.cli import main
from realtime_sep.types import Float32

Pipe = Callable[..., subprocess.CompletedProcess[bytes]]

COMMAND = [sys.executable, "-m", "realtime_sep", "pipe"]
ENVIRONMENT = {**os.environ, "TERM": "dumb", "COLUMNS": "120"}


@pytest.fixture
def pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Pipe:
    """Run it on the bytes `audio`, within this process, which is quicker.

    An exception that `main` does not foresee fails the test.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "120")

    def run(
        *arguments: object,
        audio: bytes = b"",
        stdin: int | None = None,
        stdout: int | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        command = ["realtime-sep", "pipe", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        source, feed = os.pipe()
        collect, sink = os.pipe()
        written: list[bytes] = []
        feeder = threading.Thread(target=_feed, args=(feed, audio))
        reader = threading.Thread(target=_collect, args=(collect, written))
        capfd.readouterr()
        status = 0
        with _at(0, source if stdin is None else stdin), _at(1, sink if stdout is None else stdout):
            os.close(sink)
            feeder.start()
            reader.start()
            try:
                main()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
        os.close(source)
        feeder.join()
        reader.join()
        said = capfd.readouterr().err.encode()
        return subprocess.CompletedProcess(command, status, b"".join(written), said)

    return run


@contextmanager
def _at(number: int, descriptor: int) -> Iterator[None]:
    """`descriptor` is this process's stdin or stdout."""
    before = os.dup(number)
    os.dup2(descriptor, number)
    try:
        yield
    finally:
        os.dup2(before, number)
        os.close(before)


def _feed(descriptor: int, audio: bytes) -> None:
    with suppress(BrokenPipeError), open(descriptor, "wb") as file:
        file.write(audio)  # as much as anybody has use for


def _collect(descriptor: int, written: list[bytes]) -> None:
    with open(descriptor, "rb") as file:
        written.append(file.read())


def song(seconds: float = 1.0, samplerate: int = 44100, channels: int = 2) -> Float32:
    """A tone that both channels share, tones that they do not, and noise: all below full scale."""
    time = np.arange(round(seconds * samplerate)) / samplerate
    tones = [0.2 * np.sin(2 * np.pi * f * time) for f in (440, 660, 880)]
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (len(time), 2))
    stereo = np.stack([tones[0] + tones[1], tones[0] + tones[2]], axis=1) + noise
    return stereo[:, :channels].astype(np.float32)
