"""Servers and processes that die or fall silent: one clear error, soon, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audio_servers import JackServer, children, gone, until

from realtime_sep.errors import DeviceError, EngineError
from realtime_sep.io.null import NullSpec
from realtime_sep.stream import open_stream
from realtime_sep.types import StreamConfig

pytestmark = [pytest.mark.server, pytest.mark.timeout(90)]

#: Seconds within which a dead server must be noticed.
SOON = 3.0


def engine_process() -> int:
    """Of the stream that was opened last."""
    engines = (p for p in multiprocessing.active_children() if p.name == "realtime_sep engine")
    return max(p.pid for p in engines if p.pid is not None)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_a_server_that_dies_or_hangs_ends_the_stream(
    jack_server: Callable[..., JackServer], how: signal.Signals
) -> None:
    server = jack_server()
    config = StreamConfig(reconnect=0)
    with open_stream("center", input="system", output="system", config=config, tap=False) as stream:
        until(lambda: stream.stats.frames > 24000, 5, "the stream")
        pid = engine_process()
        server.kill() if how is signal.SIGKILL else server.process.send(how)
        died = time.monotonic()
        with pytest.raises(DeviceError, match="JACK") as caught:
            stream.wait(10)
        assert time.monotonic() - died < SOON
        assert "\n" not in str(caught.value)
        assert not stream.running
        stream.close()
        assert time.monotonic() - died < SOON + 1
        until(lambda: gone(pid), 2, "the engine's process ends")
    assert stream.stats.frames > 24000  # counters stay readable


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_command_line_ends_with_one_line(
    jack_server: Callable[..., JackServer], how: signal.Signals
) -> None:
    server = jack_server()
    command = [sys.executable, "-m", "realtime_sep", "live", "-m", "center", "--json"]
    program = subprocess.Popen(
        [*command, "-i", "system", "-o", "system", "--reconnect", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(
            lambda: "realtime-sep:mix_1" in server.run("jack_lsp"),
            20,
            "the stream is in the server",
        )
        time.sleep(1)
        family = children(program.pid)
        assert family
        server.kill() if how is signal.SIGKILL else server.process.send(how)
        out, err = program.communicate(timeout=10)
    finally:
        program.kill()
    assert program.returncode == 1
    assert not out
    lines = [line for line in err.splitlines() if line.startswith("realtime-sep: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    until(lambda: all(gone(pid) for pid in family), 3, "all its processes end")


def test_no_server_is_a_clear_error() -> None:
    """In a process of its own: PortAudio remembers the servers that it found first."""
    program = (
        "from realtime_sep.stream import open_stream\n"
        "from realtime_sep.errors import DeviceError\n"
        "try:\n"
        "    open_stream('identity', input='tape', output='tape', process=False)\n"
        "except DeviceError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "JACK_DEFAULT_SERVER": "nobody",
            "JACK_NO_START_SERVER": "1",
            "PULSE_SERVER": "unix:/nowhere",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert re.search("device", done.stdout), done.stderr


def test_engine_that_is_killed_is_noticed() -> None:
    silent = NullSpec(np.zeros((48000 * 60, 2), np.float32))
    with open_stream("identity", backend=silent, tap=False) as stream:
        until(lambda: stream.stats.frames > 4800, 5, "the stream")
        os.kill(engine_process(), signal.SIGKILL)
        died = time.monotonic()
        with pytest.raises(EngineError, match="died"):
            stream.wait(10)
        assert time.monotonic() - died < 1


_OWNER = """
import sys, time
from realtime_sep.io.null import NullSpec
from realtime_sep.stream import open_stream

if __name__ == "__main__":
    with open_stream("identity", backend={backend}, tap=False) as stream:
        while stream.stats.frames < 4800:
            time.sleep(0.01)
        print("playing", flush=True)
        stream.wait(60)
"""


@pytest.mark.parametrize("device", ["null", "jack"])
def test_engine_ends_with_its_owner(
    jack_server: Callable[..., JackServer], tmp_path: Path, device: str
) -> None:
    script = tmp_path / "owner.py"
    backend = "NullSpec()" if device == "null" else "None, input='system', output='system'"
    script.write_text(_OWNER.format(backend=backend))
    if device == "jack":
        jack_server()
    owner = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline().strip() == b"playing"
        family = children(owner.pid)
        assert family
    finally:
        owner.kill()
        owner.wait()
    until(lambda: all(gone(pid) for pid in family), 2, "the engine's process ends")


def test_stop_and_close_do_not_depend_on_the_server(
    jack_server: Callable[..., JackServer],
) -> None:
    """Closing right after the server hangs, before anybody noticed."""
    server = jack_server()
    stream = open_stream(
        "identity",
        input="system",
        output="system",
        config=StreamConfig(realtime=False),
        tap=False,
    )
    stream.start()
    until(lambda: stream.stats.frames > 4800, 5, "the stream")
    pid = engine_process()
    server.process.send(signal.SIGSTOP)
    hung = time.monotonic()
    stream.close()
    assert time.monotonic() - hung < 2 * SOON
    until(lambda: gone(pid), 2, "the engine's process ends")
