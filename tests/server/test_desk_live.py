"""The desk on a real audio server: a file plays to a device, and another device is chosen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from audio_servers import PulseServer, Server, record, until

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

RATE = 48000
SINKS = {"hall": "Hall Speakers", "stage": "Stage Monitor"}


def heard(server: Server, sink: str, path: Path) -> float:
    """Level of what a sink plays, in dB RMS over half a second or so."""
    record(server, sink, path, rate=RATE, seconds=1.0)
    data = np.fromfile(path, np.float32)[-RATE:]
    return float(10 * np.log10(np.mean(np.square(data)) + 1e-20)) if len(data) else -200.0


def test_a_song_plays_in_the_hall_and_then_on_stage(
    pulse_server: Callable[..., PulseServer], tmp_path: Path
) -> None:
    server = pulse_server(SINKS)
    t = np.arange(4 * 44100) / 44100  # not the server's rate
    tone = 0.3 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(tmp_path / "song.wav", np.stack([tone, tone], axis=1), 44100)
    desk = subprocess.Popen(
        [
            *(sys.executable, "-m", "realtime_sep", "desk", "--no-browser", "--port", "0"),
            *("--input", str(tmp_path / "song.wav"), "--output", SINKS["hall"]),
            *("--model", "identity", "--latency", "high"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
    )
    try:
        assert desk.stdout is not None
        found = re.search(r"http://\S+", desk.stdout.readline())
        assert found

        def state() -> dict[str, Any]:
            with urllib.request.urlopen(f"{found.group()}api/state", timeout=20) as answer:
                return json.load(answer)  # type: ignore[no-any-return]

        def command(**message: Any) -> None:
            data = json.dumps(message).encode()
            urllib.request.urlopen(f"{found.group()}api/command", data, timeout=60).close()

        def plays(sink: str) -> bool:
            return heard(server, sink, tmp_path / "heard.raw") == pytest.approx(-13.5, abs=1.5)

        until(lambda: bool(state()["running"]), 60, "the desk runs")
        assert SINKS["hall"] in state()["device"]
        until(lambda: plays("hall"), 20, "the hall hears the song")
        assert heard(server, "stage", tmp_path / "heard.raw") < -100
        command(type="set", name="master", value=None)
        until(lambda: heard(server, "hall", tmp_path / "heard.raw") < -100, 20, "silence")
        command(type="set", name="master", value=0)
        command(type="device", output=SINKS["stage"])
        until(lambda: SINKS["stage"] in state()["device"], 60, "the other device")
        until(lambda: plays("stage"), 20, "the stage hears the song")
        assert heard(server, "hall", tmp_path / "heard.raw") < -100
    finally:
        desk.terminate()
        desk.wait(30)
