"""Real audio servers, without hardware: each with a home and a name of its own, beside all others.

A server is a context manager that also holds the environment its clients need (`environment`).
Every process that is started here dies with the test run, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from pathlib import Path
from typing import Self

import pytest

#: Seconds that a server may take to come up on a busy machine.
START_TIMEOUT = 20.0


def need(*programs: str) -> None:
    """Skip the test by name where a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def need_portaudio() -> None:
    if find_library("portaudio") is None:
        pytest.skip("PortAudio (libportaudio2) is not installed")


def refresh_portaudio() -> None:
    """Let PortAudio look for devices again, if an earlier test has loaded it into this process."""
    sounddevice = sys.modules.get("sounddevice")
    if sounddevice is not None:
        sounddevice._terminate()
        sounddevice._initialize()


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll; fail the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether the process has ended (a zombie has)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def children(pid: int) -> set[int]:
    """The process's children and theirs."""
    parents: dict[int, set[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, set()).add(int(stat.parent.name))
    found: set[int] = set()
    new = {pid}
    while new:
        new = set().union(*(parents.get(p, set()) for p in new)) - found
        found |= new
    return found


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Variables of this process, and so of every process that it spawns."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Process:
    """A child process that ends with this one, writing to a log."""

    def __init__(self, command: list[str], log: Path, extra: dict[str, str] | None = None) -> None:
        if shutil.which("setpriv"):  # the kernel ends it even if this process is killed
            command = ["setpriv", "--pdeathsig", "TERM", "--", *command]
        self.log = log
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(extra or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """As a crash would end it."""
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> None:
        """Politely, then not."""
        if self.running:
            self._popen.send_signal(signal.SIGCONT)
            self._popen.terminate()
            try:
                self._popen.wait(3)
            except subprocess.TimeoutExpired:
                self.kill()


class Server:
    """What all servers have in common."""

    environment: dict[str, str]
    process: Process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.process.stop()

    def _await(self, ready: Callable[[], bool], process: Process) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not ready():
            if not process.running or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"the server did not start:\n{process.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def _answers(self, *command: str) -> bool:
        """Whether a client program ends well."""
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=5,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def run(self, *command: str) -> str:
        """A client program; its output."""
        return subprocess.run(
            command,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout


class JackServer(Server):
    """`jackd -d dummy` under a name of its own, with clocks but no hardware.

    Synchronous mode: the server waits for late clients instead of skipping them.
    """

    def __init__(self, directory: Path, samplerate: int, period: int) -> None:
        need("jackd", "jack_lsp")
        self.samplerate, self.period = samplerate, period
        # The registry of servers has eight places, and a killed one keeps its own until a server of
        # the same name starts: hence one name per test run.
        self.name = f"rtsep{os.getpid()}"
        self.environment = {
            "JACK_DEFAULT_SERVER": self.name,
            "JACK_NO_START_SERVER": "1",
            "JACK_NO_AUDIO_RESERVATION": "1",
        }
        self._log = directory / "jackd.log"
        self._killed = False
        self._start("-R")

    def _start(self, realtime: str) -> None:
        self.process = Process(
            f"jackd -n {self.name} -S {realtime} -d dummy -r {self.samplerate} -p {self.period}"
            " -C 2 -P 2".split(),
            self._log,
            self.environment,
        )
        try:
            self._await(lambda: self._answers("jack_lsp"), self.process)
        except pytest.fail.Exception:
            if realtime == "-r":
                raise
            self._start("-r")  # real-time priority may be refused

    def kill(self) -> None:
        self._killed = True
        self.process.kill()

    def restart(self, samplerate: int | None = None, period: int | None = None) -> None:
        """After `kill`; returns when it answers."""
        self.samplerate, self.period = samplerate or self.samplerate, period or self.period
        self._killed = False
        self._start("-R")

    def stop(self) -> None:
        if self._killed:  # see `name`
            self.restart()
        super().stop()


class PulseServer(Server):
    """PulseAudio with null sinks, each kept running ("pinned") by a client that plays silence."""

    def __init__(self, directory: Path, sinks: dict[str, str], samplerate: int = 48000) -> None:
        need("pulseaudio", "pactl", "pacat", "parec")
        self.samplerate = samplerate
        socket = directory / "native"
        self.environment = {
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory),
            "XDG_CONFIG_HOME": str(directory),
            "PULSE_SERVER": f"unix:{socket}",
            "PULSE_COOKIE": str(directory / "cookie"),
            "DBUS_SESSION_BUS_ADDRESS": "unix:path=/dev/null",
        }
        self._directory, self._sinks = directory, list(sinks)
        arguments = ["pulseaudio", "-n", "--fail=yes", "--daemonize=no", "--use-pid-file=no"]
        arguments += ["--exit-idle-time=-1", "--disable-shm=yes", "--realtime=yes"]
        arguments += ["-L", f"module-native-protocol-unix socket={socket} auth-anonymous=1"]
        for name, description in sinks.items():
            arguments += [
                "-L",
                f"module-null-sink sink_name={name} rate={samplerate} channels=2 format=float32le "
                f"sink_properties=\"device.description='{description}'\"",
            ]
        self._arguments = arguments
        self._pins: dict[str, Process] = {}
        self.restart()

    def restart(self) -> None:
        """Also after `kill`; returns when it answers."""
        log = self._directory / "pulseaudio.log"
        self.process = Process(self._arguments, log, self.environment)
        self._await(lambda: self._answers("pactl", "info"), self.process)
        for name in self._sinks:
            self.pin(name)

    def pin(self, sink: str) -> None:
        """Keep it awake: an idle null sink stalls new streams."""
        self._pins[sink] = Process(
            ["pacat", "--latency-msec=10", f"--device={sink}", "/dev/zero"],
            self._directory / "pin.log",
            self.environment,
        )

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        for pin in self._pins.values():
            pin.stop()
        super().stop()


class PipeWireServer(Server):
    """PipeWire, its session manager and its PulseAudio side, with null sinks."""

    def __init__(self, directory: Path, sinks: dict[str, str], samplerate: int = 48000) -> None:
        need("pipewire", "wireplumber", "pipewire-pulse", "dbus-daemon", "pactl", "pacat", "parec")
        self.samplerate = samplerate
        bus = f"unix:path={directory}/bus"
        self.environment = {
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory),
            "XDG_CONFIG_HOME": str(directory),
            "PIPEWIRE_RUNTIME_DIR": str(directory),
            "PULSE_SERVER": f"unix:{directory}/pulse/native",
            "DBUS_SESSION_BUS_ADDRESS": bus,
        }
        self._directory, self._sinks, self._bus = directory, sinks, bus
        self.restart()

    def restart(self) -> None:
        """Also after `kill`; returns when it answers."""
        directory, bus = self._directory, self._bus
        for left in ("bus", "pipewire-0", "pulse/native"):
            (directory / left).unlink(missing_ok=True)
        self._parts: list[Process] = []
        programs = f"dbus-daemon --session --nofork --nopidfile --address={bus}"
        for command in (programs, "pipewire", "wireplumber", "pipewire-pulse"):
            words = command.split()
            log = directory / f"{words[0]}.log"
            self.process = Process(words, log, self.environment)
            self._parts.append(self.process)
            if words[0] == "dbus-daemon":
                until((directory / "bus").exists, START_TIMEOUT, "D-Bus")
            if words[0] == "pipewire":
                until((directory / "pipewire-0").exists, START_TIMEOUT, "PipeWire")
        self._await(lambda: self._answers("pactl", "info"), self.process)
        for name, description in self._sinks.items():
            self.run(
                *("pactl", "load-module", "module-null-sink", f"sink_name={name}"),
                *(f"rate={self.samplerate}", "channels=2"),
                f"sink_properties=\"device.description='{description}'\"",
            )

    def kill(self) -> None:
        for part in self._parts:
            part.kill()

    def stop(self) -> None:
        for part in reversed(self._parts):
            part.stop()


def record(server: Server, sink: str, path: Path, *, rate: int, seconds: float) -> None:
    """Write what a sink plays: stereo, 32-bit floats without a header."""
    path.unlink(missing_ok=True)
    recorder = subprocess.Popen(
        ["parec", "--raw", "--format=float32le", f"--rate={rate}", "--channels=2",
         f"--device={sink}.monitor", "--latency-msec=50", str(path)],
        env={**os.environ, **server.environment},
    )  # fmt: skip
    time.sleep(seconds)
    recorder.terminate()
    recorder.wait(5)


def python(
    *arguments: str, extra: dict[str, str], seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """This Python in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **extra},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
