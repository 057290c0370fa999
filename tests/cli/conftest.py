"""The command line as a person meets it: a process, its output, its status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from realtime_sep.cli import main

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run `realtime-sep ARGUMENTS` in an empty directory, within this process, which is quicker.

    An exception that `main` does not foresee fails the test.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = ["realtime-sep", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        capfd.readouterr()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        return subprocess.CompletedProcess(command, status, *capfd.readouterr())

    return run


@pytest.fixture
def process(tmp_path: Path) -> Cli:
    """The same in a process of its own."""

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "realtime_sep", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "TERM": "dumb", "COLUMNS": "120", **options.pop("env", {})},
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Two seconds of stereo: a voice-like tone in the centre, others at the sides."""
    path = tmp_path / "song.wav"
    soundfile.write(path, stereo(44100, 2.0), 44100, subtype="FLOAT")
    return path


def stereo(samplerate: int, seconds: float) -> np.ndarray:
    time = np.arange(round(samplerate * seconds)) / samplerate
    centre, left, right = (0.2 * np.sin(2 * np.pi * f * time) for f in (440, 660, 880))
    return np.stack([centre + left, centre + right], axis=1).astype(np.float32)
