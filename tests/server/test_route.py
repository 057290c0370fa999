"""`realtime-sep route` with real servers: what is moved, what is heard, and all is put back."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_servers import (
    PipeWireServer,
    PulseServer,
    Server,
    environment,
    gone,
    need_portaudio,
    until,
)
from songs import a_song, found

from realtime_sep.cli import main
from realtime_sep.errors import DeviceError, UsageError
from realtime_sep.io.cables import loopback
from realtime_sep.io.programs import Choice, Playing
from realtime_sep.offline import separate
from realtime_sep.types import Float32

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

RATE = 48000
SINKS = {"speakers": "Loud Speakers", "headphones": "Head Phones"}
FORMAT = ["--raw", "--format=float32le", f"--rate={RATE}", "--channels=2"]
#: Machines are busy: patient buffers, and one try more.
PATIENT = ("--latency", "high", "--blocksize", "512")
ATTEMPTS = 4
#: Seconds that a busy server may take to do what it is told.
SOON = 5.0


@contextlib.contextmanager
def serving(kind: type[PulseServer | PipeWireServer], directory: Path) -> Iterator[Any]:
    """A server with "Loud Speakers" (the default) and "Head Phones"; its environment is ours."""
    need_portaudio()
    with (
        environment({"XDG_STATE_HOME": str(directory / "state")}),
        kind(directory, SINKS) as running,
        environment(running.environment),
    ):
        running.run("pactl", "set-default-sink", "speakers")
        yield running


@pytest.fixture(params=[PulseServer, PipeWireServer], ids=["pulseaudio", "pipewire"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """One that speaks PulseAudio's protocol, each in turn."""
    with serving(request.param, tmp_path) as running:
        yield running


@pytest.fixture
def pulseaudio(tmp_path: Path) -> Iterator[PulseServer]:
    """For what does not depend on the kind of server."""
    with serving(PulseServer, tmp_path) as running:
        yield running


class State:
    """What a route may change in a server, as `pactl` tells it."""

    def __init__(self, server: Server) -> None:
        info = json.loads(server.run("pactl", "-f", "json", "info"))
        self.default = info["default_sink_name"]
        self.modules = self._short(server, "modules", slice(1, 3))
        self.sources = self._short(server, "sources", slice(1, 2))
        names = {
            sink["index"]: sink["name"]
            for sink in json.loads(server.run("pactl", "-f", "json", "list", "sinks"))
        }
        inputs = json.loads(server.run("pactl", "-f", "json", "list", "sink-inputs"))
        #: Sinks of all streams, by the process that plays them.
        self.sinks = {
            int(each["properties"].get("application.process.id", 0)): names.get(each["sink"])
            for each in inputs
            if each["client"] != "n/a"
        }

    @staticmethod
    def _short(server: Server, what: str, columns: slice) -> list[list[str]]:
        lines = server.run("pactl", "list", "short", what).splitlines()
        return sorted(line.split("\t")[columns] for line in lines)

    def equal(self, other: State) -> bool:
        return not self.differences(other)

    def differences(self, other: State) -> dict[str, tuple[Any, Any]]:
        """By attribute, what is here and what is there."""
        here, there = vars(self), vars(other)
        return {name: (here[name], there[name]) for name in here if here[name] != there[name]}


@contextlib.contextmanager
def player(
    sink: str | None = None, *, audio: Path | str = "/dev/zero", name: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that plays, on the default sink unless told otherwise."""
    options = [f"--device={sink}"] if sink else []
    options += [f"--client-name={name}"] if name else []
    program = subprocess.Popen(["pacat", *FORMAT, "--latency-msec=100", *options, audio])
    try:
        yield program
    finally:
        program.kill()
        program.wait()


class Command:
    """`realtime-sep route ...`, running."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._out, self._err = directory / "route.out", directory / "route.err"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "realtime_sep", "route", "--json", "-m", "identity", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._out.open("w"),
            stderr=self._err.open("w"),
        )
        self.pid = self.process.pid

    @property
    def errors(self) -> str:
        return self._err.read_text()

    @property
    def inlet(self) -> str:
        return f"realtime_sep.{self.pid}.in"

    def routes(self, text: str = "▶ realtime-sep ▶") -> None:
        """Wait until it says that something goes through."""
        until(lambda: text in self.errors or self.process.poll() is not None, 60, text)
        assert self.process.poll() is None, self.errors

    def end(self, number: signal.Signals = signal.SIGINT) -> dict[str, Any]:
        """Its report."""
        self.process.send_signal(number)
        assert self.process.wait(30) == 0, self.errors
        text = self._out.read_text()
        return json.loads(text) if text else {}


@contextlib.contextmanager
def route(directory: Path, *arguments: str) -> Iterator[Command]:
    command = Command(directory, *arguments)
    try:
        yield command
    finally:
        command.process.kill()
        command.process.wait()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A route that ends by itself, in this process, which is quicker."""
    out, errors = io.StringIO(), io.StringIO()
    status: Any = 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["realtime-sep", "route", *arguments])
        try:
            main()
        except SystemExit as end:
            status = end.code
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), errors.getvalue())


def settled(server: Server, before: State, what: str) -> None:
    try:
        until(lambda: State(server).equal(before), SOON, what)
    except AssertionError as error:
        raise AssertionError(f"{error}: {State(server).differences(before)}") from None


def plays(server: Server, pid: int, sink: str) -> None:
    until(lambda: State(server).sinks.get(pid) == sink, SOON, f"{pid} plays on {sink}")


# ---- what is heard


def record(monitor: str, audio: Float32, directory: Path, name: str, route_: Command) -> Float32:
    """What is heard at `monitor` while a program plays `audio` through the route."""
    taken, given = directory / "taken.raw", directory / "given.raw"
    taken.unlink(missing_ok=True)
    given.write_bytes(np.pad(audio, ((RATE, 2 * RATE), (0, 0))).tobytes())
    recorder = subprocess.Popen(
        ["parec", *FORMAT, f"--device={monitor}", "--latency-msec=50", taken]
    )
    try:
        until(lambda: taken.exists() and taken.stat().st_size > 0, 10, "recording begins")
        with player(audio=given, name=name) as program:
            route_.routes(f"process {program.pid}")
            program.wait(60)
    finally:
        recorder.terminate()
        recorder.wait(5)
    data = np.fromfile(taken, np.float32)
    return data[: len(data) // 2 * 2].reshape(-1, 2)


def likeness(recorded: Float32, expected: Float32, piece: int = RATE // 4) -> float:
    """Median correlation of pieces, each where it fits best: servers that run dry shift them."""
    return float(np.median([alike for _, _, alike in found(recorded, expected, piece)]))


@pytest.mark.parametrize(
    ("server", "monitor"),
    [
        (PulseServer, "speakers.monitor"),
        (PulseServer, "microphone"),
        (PipeWireServer, "microphone"),
    ],
    indirect=["server"],
)
def test_karaoke_arrives(server: Server, tmp_path: Path, data: Path, monitor: str) -> None:
    song, _ = a_song(data, 5.0)  # its own rate does not matter here
    karaoke = separate(song, RATE, "center")["accompaniment"]
    before = State(server)
    microphone = ["--microphone"] if monitor == "microphone" else []
    with route(
        tmp_path, "-m", "center", "--app", "singer", "--follow", *microphone, *PATIENT
    ) as command:
        command.routes("waiting")
        if microphone:
            monitor = f"realtime_sep.{command.pid}.microphone"
            assert [monitor] in State(server).sources
        for _ in range(ATTEMPTS):
            heard = record(monitor, song, tmp_path, "singer", command)
            alike, unlike = likeness(heard, karaoke), likeness(heard, song)
            if alike > 0.99:
                break
        command.end()
    assert alike > 0.99
    assert unlike < alike - 0.05
    settled(server, before, "all is as before")


def test_speakers_hear_it_beside_the_microphone(
    pulseaudio: PulseServer, tmp_path: Path, data: Path
) -> None:
    """Through the server's loopback, which stretches time a little to hold its latency."""
    song, _ = a_song(data, 4.0)
    arguments = ("--app", "singer", "--follow", "--microphone", "--vocals", "0")
    with route(tmp_path, *arguments, *PATIENT) as command:
        command.routes("waiting")
        for _ in range(ATTEMPTS):
            heard = record("speakers.monitor", song, tmp_path, "singer", command)
            alike = likeness(heard, song, piece=RATE // 20)
            if alike > 0.99:
                break
        command.end()
    assert alike > 0.99


def test_microphone_alone(pulseaudio: PulseServer, tmp_path: Path) -> None:
    with (
        player(name="singer") as program,
        route(tmp_path, "--app", "singer", "--microphone", "--output", "none", *PATIENT) as command,
    ):
        command.routes()
        state = State(pulseaudio)
        assert state.sinks[program.pid] == command.inlet
        assert not any("loopback" in name for name, _ in state.modules)
        report = command.end()
    assert report["output"] is None


# ---- what is moved, and put back


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_program_goes_through_and_back(
    pulseaudio: PulseServer, tmp_path: Path, number: signal.Signals
) -> None:
    with player("headphones", name="singer") as program, player(name="other") as other:
        plays(pulseaudio, program.pid, "headphones")
        plays(pulseaudio, other.pid, "speakers")
        before = State(pulseaudio)
        with route(tmp_path, "--app", "Singer", *PATIENT) as command:
            command.routes()
            state = State(pulseaudio)
            assert state.sinks[program.pid] == command.inlet
            assert state.sinks[other.pid] == "speakers"
            assert state.default == "speakers"
            listed = json.loads(run("--list", "--json").stdout)
            assert [r["pid"] for r in listed["routes"]] == [command.pid]
            assert listed["left_over"] == []
            report = command.end(number)
        assert report["routed"] == [
            f"singer (process {program.pid}) ▶ realtime-sep ▶ Loud Speakers"
        ]
        assert report["output"] == "Loud Speakers"
        assert State(pulseaudio).equal(before)


def test_on_both_servers_all_is_put_back(server: Server, tmp_path: Path) -> None:
    """By process; and everything, where one program had an output of its own."""
    with player("headphones", name="singer") as program, player(name="other") as other:
        plays(server, program.pid, "headphones")
        plays(server, other.pid, "speakers")
        before = State(server)
        with route(tmp_path, "--pid", str(program.pid), *PATIENT) as command:
            command.routes()
            plays(server, program.pid, command.inlet)
            plays(server, other.pid, "speakers")
            command.end()
        settled(server, before, "the program is back")
        with route(tmp_path, "--system", *PATIENT) as command:
            command.routes()
            plays(server, program.pid, command.inlet)
            plays(server, other.pid, command.inlet)
            assert State(server).default == command.inlet
            with player(name="later") as later:
                plays(server, later.pid, command.inlet)
            command.end(signal.SIGTERM)
        settled(server, before, "everything is back")


def test_killed_route_is_swept(pulseaudio: PulseServer, tmp_path: Path) -> None:
    server = pulseaudio
    with player("headphones", name="singer") as program, player(name="other"):
        plays(server, program.pid, "headphones")
        before = State(server)
        with route(tmp_path, "--system", "--microphone", *PATIENT) as command:
            command.routes()
            plays(server, program.pid, command.inlet)
            # A living route is nobody's to sweep.
            assert "nothing was left over" in run("--clean").stdout
            plays(server, program.pid, command.inlet)
            command.process.kill()
            command.process.wait()
            assert State(server).default == command.inlet
            assert f"left over process {command.pid}" in run("--list").stdout
            cleaned = run("--clean")
        assert f"process {command.pid} was killed" in cleaned.stdout
        settled(server, before, "all is as before")
        assert "nothing was left over" in run("--clean").stdout


def test_next_route_sweeps(pulseaudio: PulseServer, tmp_path: Path) -> None:
    with player(name="singer") as program:
        plays(pulseaudio, program.pid, "speakers")
        before = State(pulseaudio)
        with route(tmp_path, "--app", "singer", *PATIENT) as killed:
            killed.routes()
        assert State(pulseaudio).sinks[program.pid] == killed.inlet
        with route(tmp_path, "--app", "singer", *PATIENT) as command:
            command.routes()
            text = pulseaudio.run("pactl", "list", "short", "modules")
            assert killed.inlet not in text
            assert command.inlet in text
            command.end()
        assert State(pulseaudio).equal(before)
    assert not list(tmp_path.glob("state/realtime-sep/routes/*"))


def test_without_a_file_only_cleaning_sweeps(pulseaudio: PulseServer, tmp_path: Path) -> None:
    before = State(pulseaudio)
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid in (dead.pid, os.getpid()):
        pulseaudio.run(
            "pactl", "load-module", "module-null-sink", f"sink_name=realtime_sep.{pid}.in"
        )
    assert str(dead.pid) in run("--list").stdout
    cleaned = json.loads(run("--clean", "--json").stdout)
    assert cleaned["cleaned"] == [dead.pid]
    modules = pulseaudio.run("pactl", "list", "short", "modules")
    assert f"realtime_sep.{os.getpid()}.in" in modules
    assert len(State(pulseaudio).modules) == len(before.modules) + 1


def test_what_people_decide_meanwhile_stays(pulseaudio: PulseServer, tmp_path: Path) -> None:
    with player(name="singer") as program:
        with route(tmp_path, "--system", *PATIENT) as command:
            command.routes()
            pulseaudio.run("pactl", "set-default-sink", "headphones")
            plays(pulseaudio, program.pid, "headphones")
            command.end()
        state = State(pulseaudio)
        assert state.default == "headphones"
        assert state.sinks[program.pid] == "headphones"


def test_follow(server: Server, tmp_path: Path) -> None:
    before = State(server)
    with route(tmp_path, "--app", "singer", "--follow", *PATIENT) as command:
        command.routes("waiting")
        for _ in range(2):
            with player(name="singer") as program, player(name="other") as other:
                plays(server, program.pid, command.inlet)
                plays(server, other.pid, "speakers")
        with player(name="singer") as program:
            plays(server, program.pid, command.inlet)
            command.end()
            plays(server, program.pid, "speakers")
    settled(server, before, "all is as before")


def engines(server: Server) -> dict[int, int]:
    """Processes that play for a route, and the index of what they play."""
    inputs = json.loads(server.run("pactl", "-f", "json", "list", "sink-inputs"))
    return {
        int(each["properties"]["application.process.id"]): each["index"]
        for each in inputs
        if "realtime_sep.route" in each["properties"]
    }


def test_what_the_engine_plays_does_not_come_back(pulseaudio: PulseServer, tmp_path: Path) -> None:
    with player(name="singer"), route(tmp_path, "--system", *PATIENT) as command:
        command.routes()
        ((pid, index),) = engines(pulseaudio).items()
        plays(pulseaudio, pid, "speakers")
        pulseaudio.run("pactl", "move-sink-input", str(index), command.inlet)
        plays(pulseaudio, pid, "speakers")
        command.end()


# ---- side by side


def test_two_programs_two_routes_and_one_system(pulseaudio: PulseServer, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    with player(name="singer") as singer, player(name="other") as other:
        plays(pulseaudio, singer.pid, "speakers")
        plays(pulseaudio, other.pid, "speakers")
        before = State(pulseaudio)
        with (
            route(tmp_path, "--app", "singer", *PATIENT) as one,
            route(second, "--system", *PATIENT) as all_,
        ):
            one.routes()
            all_.routes()
            plays(pulseaudio, singer.pid, one.inlet)
            plays(pulseaudio, other.pid, all_.inlet)
            assert len(engines(pulseaudio)) == 2
            for pid in engines(pulseaudio):  # what one has separated, the other need not
                plays(pulseaudio, pid, "speakers")
            taken = run("-m", "identity", "--app", "singer", "--seconds", "1")
            assert (taken.returncode, taken.stdout) == (2, "")
            assert f"routed by process {one.pid} already" in taken.stderr
            refused = run("-m", "identity", "--system", "--seconds", "1")
            assert refused.returncode == 2
            assert f"process {all_.pid} routes all system audio already" in refused.stderr
            # A program of the system route may have one of its own, on the real output.
            third = tmp_path / "third"
            third.mkdir()
            with route(third, "--app", "other", *PATIENT) as own:
                own.routes("other")
                assert "▶ Loud Speakers" in own.errors
                plays(pulseaudio, other.pid, own.inlet)
                own.end()
            plays(pulseaudio, other.pid, all_.inlet)
            one.end()
            all_.end()
        assert State(pulseaudio).equal(before)


# ---- what goes wrong


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_server_that_dies_is_one_clear_error(
    pulseaudio: PulseServer, tmp_path: Path, how: signal.Signals
) -> None:
    arguments = ("--app", "singer", "--reconnect", "0", *PATIENT)
    with player(name="singer"), route(tmp_path, *arguments) as command:
        command.routes()
        time.sleep(1)
        pulseaudio.kill() if how is signal.SIGKILL else pulseaudio.process.send(how)
        assert command.process.wait(20) == 1
        complaints = [e for e in command.errors.splitlines() if e.startswith("realtime-sep: ")]
        assert len(complaints) == 1, command.errors
        assert "Traceback" not in command.errors
        if how is signal.SIGSTOP:  # what could not be put back then is put back by the next one
            pulseaudio.process.send(signal.SIGCONT)
            until(lambda: gone(command.pid), 5, "its end")
            assert f"process {command.pid} was killed" in run("--clean").stdout


def test_server_that_hangs_is_waited_for_until_ctrl_c(
    pulseaudio: PulseServer, tmp_path: Path
) -> None:
    with player(name="singer"), route(tmp_path, "--app", "singer", *PATIENT) as command:
        command.routes()
        time.sleep(1)
        pulseaudio.process.send(signal.SIGSTOP)
        until(lambda: "waiting for it" in command.errors, 10, "its notice")
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait(20) in (0, 1)
        assert "Traceback" not in command.errors
        pulseaudio.process.send(signal.SIGCONT)


def test_stopped_while_it_opens(pulseaudio: PulseServer, tmp_path: Path) -> None:
    with player(name="singer") as program:
        plays(pulseaudio, program.pid, "speakers")
        before = State(pulseaudio)
        with route(tmp_path, "--app", "singer", *PATIENT) as command:
            until(
                lambda: command.inlet in pulseaudio.run("pactl", "list", "short", "sinks"),
                30,
                "its sink",
            )
            command.end(signal.SIGTERM)
        assert State(pulseaudio).equal(before)


def test_errors_are_one_line_and_change_nothing(pulseaudio: PulseServer) -> None:
    with player(name="singer") as program:
        plays(pulseaudio, program.pid, "speakers")
        before = State(pulseaudio)
        for arguments, status, text in (
            (("--app", "sniger"), 2, "did you mean 'singer'?"),
            (("--pid", "1"), 2, "process 1 plays nothing; playing now: "),
            ((), 2, "choose with --app NAME"),
            (("--app", "singer", "--system"), 2, "choose one of"),
            (("--app", "singer", "-o", "Laud Speekers"), 2, "did you mean 'Loud Speakers'?"),
            (("--app", "singer", "-o", "none"), 2, "nobody would hear"),
            (("--app", "singer", "-m", "nope"), 2, "nope"),
            (("--app", "singer", "--profile", "nope"), 2, "nope"),
        ):
            done = run("--seconds", "1", *arguments)
            assert done.returncode == status, done.stderr
            assert text in done.stderr
            assert len(done.stderr.splitlines()) == 1
            assert not done.stdout
        assert State(pulseaudio).equal(before)


def test_no_server_is_a_clear_error() -> None:
    with environment({"PULSE_SERVER": "unix:/nowhere"}):
        for arguments in (["--system"], ["--list"], ["--clean"], []):
            done = run(*arguments)
            assert done.returncode == 1
            assert "no PulseAudio or PipeWire server answers" in done.stderr
            assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(shutil.which("script") is None, reason="script is not installed")
def test_pick_from_a_list(pulseaudio: PulseServer) -> None:
    with player(name="singer") as program:
        plays(pulseaudio, program.pid, "speakers")
        command = f"{sys.executable} -m realtime_sep route -m identity --seconds 1 --json"
        with subprocess.Popen(
            ["script", "-qefc", command, "/dev/null"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as terminal:
            assert terminal.stdin is not None
            assert terminal.stdout is not None
            menu = {}
            for line in terminal.stdout:
                number, _, what = line.strip().partition("  ")
                menu[what] = number
                if number == "0":
                    break
            (number,) = (n for what, n in menu.items() if f"process {program.pid}" in what)
            terminal.stdin.write(f"{number}\n")
            terminal.stdin.flush()
            rest = terminal.stdout.read()
        assert terminal.returncode == 0, rest
        assert f"singer (process {program.pid}) ▶ realtime-sep ▶ Loud Speakers" in rest


# ---- decisions, without a server


def stream(program: str, binary: str = "", pid: int = 7) -> Playing:
    return Playing(0, program, binary, pid, "song", "speakers")


def test_choosing() -> None:
    streams = [stream("Firefox", "firefox-bin"), stream("mpv Media Player", "mpv"), stream("mpvx")]
    assert Choice(app="FIREFOX").settled(streams).app == "FIREFOX"
    assert Choice(app="mpv").settled(streams).fits(streams[1])
    assert not Choice(app="mpv").settled(streams).fits(streams[2])
    assert Choice(app="media").settled(streams).app == "mpv Media Player"
    with pytest.raises(UsageError, match="fits several programs"):
        Choice(app="m").settled([stream("mpv"), stream("mplayer")])
    with pytest.raises(UsageError, match="did you mean 'Firefox'"):
        Choice(app="firfox").settled(streams)
    assert Choice(app="later").settled(streams, follow=True).app == "later"


def device(index: int, name: str, api: str = "Core Audio", **more: Any) -> dict[str, Any]:
    sides = {"inputs": 0, "outputs": 2, "virtual": False, "default_output": False}
    return {"index": index, "name": name, "api": api, **sides, **more}


MAC = [
    device(0, "MacBook Pro Microphone", inputs=1, outputs=0),
    device(1, "MacBook Pro Speakers", default_output=True),
    device(2, "BlackHole 2ch", inputs=2, virtual=True),
]
WINDOWS = [
    device(0, "CABLE Output (VB-Audio Virtual ", "MME", inputs=2, outputs=0, virtual=True),
    device(1, "CABLE Input (VB-Audio Virtual C", "MME", virtual=True),
    device(2, "Speakers (Realtek)", "MME", default_output=True),
    device(3, "Speakers (Realtek)", "Windows WASAPI"),
    device(4, "Headset (USB)", "Windows WASAPI"),
    device(5, "CABLE Input (VB-Audio Virtual Cable)", "Windows WASAPI", virtual=True),
    device(6, "CABLE Output (VB-Audio Virtual Cable)", "Windows WASAPI", inputs=2, outputs=0,
           virtual=True),
]  # fmt: skip


def test_blackhole_on_macos() -> None:
    found = loopback("darwin", MAC)
    assert (found.input, found.output) == (2, 1)
    assert "choose BlackHole" in found.hint
    chosen = [
        {**d, "default_output": d["name"].startswith("BlackHole")} for d in MAC
    ]  # as it is to be
    found = loopback("darwin", chosen)
    assert (found.input, found.output, found.hint) == (2, 1, "")
    with pytest.raises(DeviceError, match="install BlackHole"):
        loopback("darwin", MAC[:2])
    with pytest.raises(UsageError, match="listened to"):
        loopback("darwin", MAC, "blackhole")
    with pytest.raises(UsageError, match="did you mean 'MacBook Pro Speakers'"):
        loopback("darwin", MAC, "MacBok Speakers")
    with pytest.raises(DeviceError, match="no output besides"):
        loopback("darwin", [MAC[0], MAC[2]])


def test_cable_on_windows() -> None:
    found = loopback("win32", WINDOWS, "headset")
    assert (found.input, found.output) == (6, 4)
    with pytest.raises(UsageError, match=r"several outputs.*Realtek.*Headset"):
        loopback("win32", WINDOWS)
    assert loopback("win32", WINDOWS[:3]).output == 2
    with pytest.raises(DeviceError, match="install VB-CABLE"):
        loopback("win32", WINDOWS[2:5])


def test_loopback_of_windows_itself() -> None:
    looped = device(9, "Speakers (Realtek) [Loopback]", "Windows WASAPI", inputs=2, outputs=0)
    devices = [*WINDOWS[2:5], looped]
    assert loopback("win32", devices) == loopback("win32", devices, "Headset")
    assert loopback("win32", devices).output == 4
    with pytest.raises(UsageError, match="listened to"):
        loopback("win32", devices, "Speakers")


def test_other_platforms() -> None:
    with pytest.raises(DeviceError, match="freebsd14"):
        loopback("freebsd14", [])
