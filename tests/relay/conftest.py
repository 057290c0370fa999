"""`realtime-sep stream`, within this process or as one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from realtime_sep.cli import main

# The servers of tests/server and what starts them.
sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

Stream = Callable[..., subprocess.CompletedProcess[str]]

COMMAND = [sys.executable, "-m", "realtime_sep", "stream"]
ENVIRONMENT = {**os.environ, "TERM": "dumb", "COLUMNS": "120"}


@pytest.fixture
def stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Stream:
    """Run `realtime-sep stream --from A --to B …` in an empty directory, within this process.

    An exception that `main` does not foresee fails the test.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "120")

    def run(source: object, target: object, *more: object) -> subprocess.CompletedProcess[str]:
        command = ["realtime-sep", "stream", "--from", str(source), "--to", str(target)]
        command += map(str, more)
        monkeypatch.setattr(sys, "argv", command)
        capfd.readouterr()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        return subprocess.CompletedProcess(command, status, *capfd.readouterr())

    return run
