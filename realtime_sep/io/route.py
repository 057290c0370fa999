"""What other programs play, led through a stream: virtual devices of PulseAudio and PipeWire.

A route owns a *null sink* that programs are moved to; the engine listens to its monitor and plays
on the real output.  With a microphone the engine plays on a second null sink, from where a remapped
source offers the sound to other programs and a loopback leads it to the output.

Whatever a route changes it puts back.  All it makes in the server is named `realtime_sep.PID.*`,
and what it moves is written down *before* it is moved, in a file that the process keeps locked.
The kernel lets go of the lock however the process ends, so the next route knows what was left
behind, and never touches what somebody still uses.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from platformdirs import user_state_path

from realtime_sep.errors import DeviceError, UsageError, unknown
from realtime_sep.io import pulse

#: Names of our sinks and sources: the owner's process id, and the part that they play.
_NAME = re.compile(r"\brealtime_sep\.(\d+)\.\w+")
#: Property of the engine's own streams, whose value is the owner's process id.
_MARK = "realtime_sep.route"
#: Seconds that a server may take to answer at first; one that hangs does not, later either.
_TIMEOUT = 2.0
#: Seconds that a server may take to move streams along with the default sink.
_SETTLING = 0.5
#: Peaks per second that keep a null sink awake: it then works in chunks of 10 ms, not of 2 s.
_PIN_RATE = 100
#: Of the loopback from the virtual microphone to the output, in ms.  PulseAudio's resamples a bit
#: all the time, because the output may have a clock of its own.
_LOOPBACK_MS = 20
#: An index that stands for none (PA_INVALID_INDEX).
_NONE = 0xFFFFFFFF


# ---- the server


@contextmanager
def connected() -> Iterator[Any]:
    """A `pulsectl.Pulse`; what it raises becomes a `DeviceError`.

    Raises:
        DeviceError: no server answers, or it goes away meanwhile.
    """
    try:
        import pulsectl
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"libpulse cannot be loaded ({error}); on Debian/Ubuntu: apt install libpulse0"
        ) from error
    with pulsectl.Pulse("realtime-sep route", connect=False) as server:
        try:
            server.connect(timeout=_TIMEOUT)
        except pulsectl.PulseError:
            raise DeviceError(
                "no PulseAudio or PipeWire server answers; start one, then look with: "
                "realtime-sep devices"
            ) from None
        try:
            yield server
        except Exception as error:
            if not type(error).__module__.startswith("pulsectl"):
                raise
            if not server.connected:
                raise DeviceError("the audio server is gone; start it, and route again") from error
            raise DeviceError(f"the audio server refuses: {error!r}") from error


def _owner(text: str | None) -> int | None:
    """The process whose route made the sink, source or module of this name or arguments."""
    found = _NAME.search(text or "")
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Playing:
    """A stream that a program plays.

    Attributes:
        index: the server's number of it.
        program, binary: what the program calls itself, and its file's name.
        pid: its process; None if it does not tell.
        title: of the stream.
        sink: name of the sink that it plays on.
        route: owner of the route whose engine plays it; None: some other program.
    """

    index: int
    program: str
    binary: str
    pid: int | None
    title: str
    sink: str
    route: int | None = None

    def __str__(self) -> str:
        return self.program if self.pid is None else f"{self.program} (process {self.pid})"


def playing(server: Any) -> list[Playing]:
    """All streams of programs; those that the server's own modules play are left out."""
    sinks = {sink.index: sink.name for sink in server.sink_list()}
    streams = (stream for stream in server.sink_input_list() if stream.client != _NONE)
    return [_playing(stream, sinks.get(stream.sink, "")) for stream in streams]


def _playing(stream: Any, sink: str) -> Playing:
    properties = stream.proplist
    binary = properties.get("application.process.binary", "")
    pid = properties.get("application.process.id", "")
    mark = properties.get(_MARK, "")
    return Playing(
        index=stream.index,
        program=properties.get("application.name") or binary or stream.name,
        binary=binary,
        pid=int(pid) if pid.isdecimal() else None,
        title=stream.name,
        sink=sink,
        route=int(mark) if mark.isdecimal() else None,
    )


# ---- what is to be moved


@dataclass(frozen=True)
class Choice:
    """Which programs go through: by name, by process, or all of them.

    Attributes:
        app: name of the program or of its file; case does not matter.
        pid: process.
        system: everything, and whatever has no other wish plays on our sink from the start.
    """

    app: str | None = None
    pid: int | None = None
    system: bool = False

    def fits(self, stream: Playing) -> bool:
        if self.system:
            return True
        if self.pid is not None:
            return stream.pid == self.pid
        name = (self.app or "").lower()
        return name in (stream.program.lower(), stream.binary.lower())

    def settled(self, streams: Sequence[Playing], *, follow: bool = False) -> Choice:
        """With a shortened name completed by what plays.

        Args:
            follow: what does not play yet may come later.

        Raises:
            UsageError: nothing fits, or several programs do.
        """
        if self.system or any(map(self.fits, streams)):
            return self
        if self.pid is not None:
            if follow:
                return self
            raise UsageError(f"process {self.pid} plays nothing; {_playing_now(streams)}")
        name = (self.app or "").lower()
        near = {s.program for s in streams if name in f"{s.program}\n{s.binary}".lower()}
        if len(near) > 1:
            names = ", ".join(map(repr, sorted(near)))
            raise UsageError(f"{self.app!r} fits several programs ({names}); give more of the name")
        if near:
            return Choice(app=near.pop())
        if follow:
            return self
        known = {s.program for s in streams} | {s.binary for s in streams if s.binary}
        if not known:
            raise UsageError(f"no program plays; start {self.app!r}, or wait for it with --follow")
        raise unknown("program", self.app or "", known)


def _playing_now(streams: Iterable[Playing]) -> str:
    names = sorted({str(stream) for stream in streams})
    return f"playing now: {', '.join(names)}" if names else "no program plays now"


# ---- what is written down


@dataclass
class Record:
    """What a route has changed, so that anybody can put it back.

    Attributes:
        pid: of the owner.
        server: which server (`PULSE_SERVER`), and `cookie`: which run of it.
        output: name of the sink that is played on; "" if none is.
        default: the default sink as it was, where the route has taken its place.
        moved: streams and the sinks that they come from.
        microphone: name of the virtual microphone; "" if there is none.
    """

    pid: int
    server: str
    cookie: int
    output: str = ""
    default: str | None = None
    moved: dict[int, str] = field(default_factory=dict)
    microphone: str = ""

    @property
    def system(self) -> bool:
        return self.default is not None


def _directory() -> Path:
    return user_state_path("realtime-sep") / "routes"


class _File:
    """A record on disk, locked for as long as its owner, or somebody who clears up, lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    @classmethod
    def create(cls, record: Record) -> _File:
        """A file that nobody ever sees unlocked or empty."""
        _directory().mkdir(parents=True, exist_ok=True)
        path = _directory() / f"{record.pid}.new"
        path.touch(0o600)
        file = cls(path)
        file.lock()
        file.write(record)
        file._path = path.rename(path.with_suffix(".json"))
        return file

    def lock(self) -> bool:
        """Whether it is ours now; False if somebody else has it."""
        return self._flock("LOCK_EX")

    def locked(self) -> bool:
        """Whether somebody has it; asking at the same time does not count."""
        return not self._flock("LOCK_SH")

    def _flock(self, how: str) -> bool:
        import fcntl  # not there on Windows, where there is nothing to route either

        try:
            fcntl.flock(self._file, getattr(fcntl, how) | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def write(self, record: Record) -> None:
        data = json.dumps(asdict(record)).encode()
        # In one go, and cut to size afterwards: readable if the process is killed in between.
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))

    def read(self) -> Record | None:
        """None if it cannot be read, as one that was never written."""
        try:
            text = os.pread(self._file, 1 << 20, 0).decode()
            fields = json.JSONDecoder().raw_decode(text)[0]
            fields["moved"] = {int(index): sink for index, sink in fields["moved"].items()}
            return Record(**fields)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._file)


def _here() -> str:
    return os.environ.get("PULSE_SERVER", "")


@dataclass
class Found:
    """A route in this server, of a process that lives or has died.

    Attributes:
        record: what its file says; None where there is no readable file.
        modules: what it has loaded, by index.
        alive: whether the owner still runs.
    """

    pid: int
    alive: bool
    record: Record | None = None
    modules: list[int] = field(default_factory=list)


def _read(path: Path) -> Found | None:
    """What a file says, or None if it has gone or belongs to another server."""
    try:
        file = _File(path)
    except OSError:
        return None
    try:
        record = file.read()
        alive = file.locked()
    finally:
        file.close()
    if record is not None and record.server != _here():
        return None
    return Found(int(path.stem), alive, record)


def routes(server: Any) -> list[Found]:
    """All routes in this server, by their files and by the names of what they loaded."""
    cookie = server.server_info().cookie
    found: dict[int, Found] = {}
    for path in _directory().glob("*.json"):
        route = _read(path) if path.stem.isdecimal() else None
        if route is None:
            continue
        if route.record is None or route.record.cookie == cookie:
            found[route.pid] = route
        elif not route.alive:
            path.unlink(missing_ok=True)  # that run of the server took everything with it
    for module in server.module_list():
        pid = _owner(module.argument)
        if pid is not None:
            route = found.setdefault(pid, Found(pid, alive=Path(f"/proc/{pid}").exists()))
            route.modules.append(module.index)
    return sorted(found.values(), key=lambda route: route.pid)


def sweep(server: Any, *, thorough: bool = False) -> list[int]:
    """Put back what dead processes have changed, and unload what they have loaded.

    Args:
        thorough: also where no file says whose it is (another user's, or a deleted file); then the
            process id in the names has to do.

    Returns:
        The processes that had left something behind.
    """
    swept = []
    for route in routes(server):
        if route.alive or (route.record is None and not thorough):
            continue
        with ExitStack() as closing:
            path = _directory() / f"{route.pid}.json"
            with suppress(OSError):
                file = _File(path)
                closing.callback(file.close)
                if not file.lock():
                    continue  # another one is clearing up
            _restore(server, route.record or Record(route.pid, _here(), 0))
            path.unlink(missing_ok=True)
            swept.append(route.pid)
    return swept


def _restore(server: Any, record: Record) -> None:
    """Undo all that a route has done."""
    _move_back(server, record)
    _unload(server, record.pid)


def _move_back(server: Any, record: Record) -> None:
    """The default sink and every moved stream go back to where they were.

    Where people have decided otherwise meanwhile, that stays.
    """
    import pulsectl

    sinks = {sink.name: sink.index for sink in server.sink_list()}
    # Asked first: with the default sink some go along, and not to where they came from.
    inside = [stream.index for stream in playing(server) if _owner(stream.sink) == record.pid]
    if _owner(server.server_info().default_sink_name) == record.pid and record.default in sinks:
        server.sink_default_set(record.default)
    for index in inside:
        origin = record.moved.get(index)
        if origin in sinks:
            with suppress(pulsectl.PulseError):  # it may end just now
                server.sink_input_move(index, sinks[origin])


def _unload(server: Any, pid: int) -> None:
    """Streams that are left on a sink go to the default one when it goes."""
    import pulsectl

    for module in reversed(server.module_list()):
        if _owner(module.argument) == pid:
            with suppress(pulsectl.PulseError):  # it may have gone with the one before
                server.module_unload(module.index)


# ---- the route itself


class Route:
    """Virtual devices and moved programs, for as long as the `with` block lasts.

    Usage: open a stream from `source` to `sink` with `environment` in force, start it, `begin()`,
    call `attend()` often, `end()`, and close the stream.

    Args:
        choice: what goes through.
        output: name or description of a sink; None: the default one; "none": only the microphone.
        microphone: whether to offer the result as a source, too.
        follow: whether programs that start later and fit `choice` are moved as well.  New streams
            of processes that were moved always are.

    Attributes:
        source: what the stream is to listen to, and `sink`: what to play on.
        description: of the output, for people; "" if there is none but the microphone.
        environment: variables for the process that plays, by which its streams are known.
    """

    def __init__(
        self,
        choice: Choice,
        *,
        output: str | None = None,
        microphone: bool = False,
        follow: bool = False,
    ) -> None:
        if output == "none" and not microphone:
            raise UsageError("--output none is for --microphone: nobody would hear anything")
        self._choice = choice
        self._wanted = output
        self._with_microphone = microphone
        self._follow = follow
        self._pid = os.getpid()
        self._seen: set[int] = set()  # indexes of streams
        self._processes: set[int] = set()  # whose streams were moved
        self._pins: list[Any] = []
        self._changed = False
        self._stack = ExitStack()
        self.source = self.sink = self.description = ""
        self.environment = {"PULSE_PROP": f"{_MARK}={self._pid}"}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._server = stack.enter_context(connected())
            self._set_up(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, value, trace)

    def _set_up(self, stack: ExitStack) -> None:
        server = self._server
        sweep(server)
        others = [route for route in routes(server) if route.alive and route.record is not None]
        output = self._find_output(server, others)
        self._choice = self._settle(server, others)

        self._record = Record(self._pid, _here(), server.server_info().cookie)
        self._record.output = "" if output is None else output.name
        if self._with_microphone:
            self._record.microphone = self._name("microphone")
        self._file = _File.create(self._record)
        stack.callback(self._file.close)
        stack.callback(self._put_back)

        rate = 48000 if output is None else output.samplerate
        inlet = self._null_sink("in", f"Into realtime-sep ({self._pid})", rate)
        self._inlet = server.get_sink_by_name(inlet).index
        self.source = f"{inlet}.monitor"
        self.sink = self._record.output
        self.description = "" if output is None else output.description
        if output is not None and output.virtual:
            self._pin(f"{output.name}.monitor")  # who kept it awake may be moved away
        if self._with_microphone:
            self._make_microphone(rate)
        server.event_mask_set("sink_input")
        server.event_callback_set(self._note)

    def _name(self, part: str) -> str:
        return f"realtime_sep.{self._pid}.{part}"

    def _null_sink(self, part: str, description: str, rate: int) -> str:
        name = self._name(part)
        self._server.module_load(
            "module-null-sink",
            f"sink_name={name} rate={rate} channels=2 format=float32le "
            f"sink_properties=\"device.description='{description}'\"",
        )
        self._pin(f"{name}.monitor")
        return name

    def _make_microphone(self, rate: int) -> None:
        self.sink = self._null_sink("out", f"Out of realtime-sep ({self._pid})", rate)
        self._server.module_load(
            "module-remap-source",
            f"master={self.sink}.monitor source_name={self._record.microphone} "
            f"source_properties=\"device.description='realtime-sep microphone ({self._pid})'\"",
        )
        if self._record.output:
            self._server.module_load(
                "module-loopback",
                f"source={self.sink}.monitor sink={self._record.output} latency_msec={_LOOPBACK_MS}"
                " source_dont_move=true sink_dont_move=true",
            )

    def _pin(self, source: str) -> None:
        """Keep a null sink of PulseAudio awake: idle, it works in chunks of two seconds.

        A client that asks for a peak every 10 ms is the cheapest that makes it hurry; it goes when
        the connection goes.  pulsectl has this for one moment only (`get_peak_sample`), so its
        bindings are used directly.  PipeWire has one clock for all.
        """
        if "PipeWire" in self._server.server_info().server_name:
            return
        from pulsectl import _pulsectl as c

        # Mixers do not show what says that it is one.
        properties = c.pa.proplist_from_string("application.id=org.PulseAudio.pavucontrol")
        form = c.PA_SAMPLE_SPEC(format=c.PA_SAMPLE_FLOAT32NE, rate=_PIN_RATE, channels=1)
        stream = c.pa.stream_new_with_proplist(
            self._server._ctx, "realtime-sep pin", c.byref(form), None, properties
        )
        c.pa.proplist_free(properties)

        @c.PA_STREAM_REQUEST_CB_T  # type: ignore[untyped-decorator]
        def drop(stream: Any, size: int, userdata: Any) -> None:
            data, length = c.c_void_p(), c.c_int(0)
            c.pa.stream_peek(stream, data, c.byref(length))
            if length.value:
                c.pa.stream_drop(stream)

        self._pins.append(drop)  # C calls it
        c.pa.stream_set_read_callback(stream, drop, None)
        c.pa.stream_connect_record(
            stream,
            source.encode(),
            c.PA_BUFFER_ATTR(fragsize=4, maxlength=_NONE),
            c.PA_STREAM_DONT_MOVE | c.PA_STREAM_PEAK_DETECT | c.PA_STREAM_ADJUST_LATENCY,
        )

    def _find_output(self, server: Any, others: Sequence[Found]) -> pulse.Endpoint | None:
        """The real sink to play on, or None if only the microphone is to be served."""
        wanted = self._wanted
        if wanted == "none":
            return None
        if wanted is None:
            wanted = server.server_info().default_sink_name or ""
            through = {route.pid: route.record for route in others}.get(_owner(wanted) or 0)
            if through is not None:
                wanted = through.output  # what comes out of a route need not go through twice
        sinks = [e for e in pulse.endpoints() if e.kind == "output" and _owner(e.name) is None]
        named = [sink for sink in sinks if sink.name == wanted]
        if not named and self._wanted is not None:
            route = pulse.resolve(None, wanted)
            named = [s for s in sinks if route is not None and s == route.endpoints.get("output")]
        if named:
            return named[0]
        if not sinks:
            raise DeviceError("the audio server has no output; plug one in")
        raise unknown("output", wanted, [sink.description for sink in sinks])

    def _settle(self, server: Any, others: Sequence[Found]) -> Choice:
        """What to move, unless another route has it."""
        systems = [r.pid for r in others if r.record is not None and r.record.system]
        if self._choice.system and systems:
            raise UsageError(
                f"process {systems[0]} routes all system audio already; end that route first"
            )
        streams = [s for s in playing(server) if s.route is None]
        choice = self._choice.settled(streams, follow=self._follow)
        owners = {r.pid for r in others} - set(systems)
        for stream in streams:
            if not choice.system and choice.fits(stream) and _owner(stream.sink) in owners:
                raise UsageError(f"{stream} is routed by process {_owner(stream.sink)} already")
        return choice

    @property
    def microphone(self) -> str:
        """Name of the virtual microphone; "" if there is none."""
        return self._record.microphone

    def begin(self) -> list[str]:
        """Move what is to be moved; call it when the stream runs, so that no music stops meanwhile.

        Returns:
            What goes through now, a line each.
        """
        server = self._server
        if self._choice.system:
            self._record.default = server.server_info().default_sink_name
            self._file.write(self._record)
            server.sink_default_set(self._name("in"))
            # The server takes most streams along; those need no moving back either.
            end = time.monotonic() + _SETTLING
            while time.monotonic() < end and any(
                s.sink == self._record.default and s.route is None for s in playing(server)
            ):
                time.sleep(0.02)
        return self._sort(self._choice.fits)

    def attend(self) -> list[str]:
        """Take in what has changed in the server, and move what is new, as `begin` does.

        Raises:
            DeviceError: the output is gone.
        """
        self._server.event_listen(timeout=1e-3)  # 0 would wait for ever
        if not self._changed:
            return []
        late = self._follow or self._choice.system
        return self._sort(lambda stream: late and self._choice.fits(stream))

    def _note(self, event: Any) -> None:
        self._changed = True

    def _sort(self, fits: Callable[[Playing], bool]) -> list[str]:
        """Look at every stream once, and move it if it is to go through."""
        self._changed = False
        streams = playing(self._server)
        self._keep_out([s for s in streams if s.route == self._pid])
        news = []
        for stream in streams:
            known = stream.pid is not None and stream.pid in self._processes
            others = self._choice.system and _owner(stream.sink) not in (None, self._pid)
            if stream.route is not None or stream.index in self._seen or others:
                continue
            self._seen.add(stream.index)  # where people move it to later is their business
            if (known or fits(stream)) and self._take(stream):
                news.append(f"{stream} ▶ realtime-sep ▶ {self.description or 'microphone'}")
        return news

    def _keep_out(self, ours: Sequence[Playing]) -> None:
        """What the engine plays goes through no route, though a new default sink takes it along."""
        for stream in ours:
            if stream.sink != self.sink and _owner(stream.sink) is not None:
                sinks = {sink.name: sink.index for sink in self._server.sink_list()}
                if self.sink not in sinks:
                    raise DeviceError(f"{self.description}: the output is gone; plug it in again")
                self._server.sink_input_move(stream.index, sinks[self.sink])

    def _take(self, stream: Playing) -> bool:
        import pulsectl

        if _owner(stream.sink) != self._pid:
            self._record.moved[stream.index] = stream.sink
            self._file.write(self._record)
            try:
                self._server.sink_input_move(stream.index, self._inlet)
            except pulsectl.PulseError:
                return False  # it has ended, or may not be moved
        if stream.pid is not None:
            self._processes.add(stream.pid)
        return True

    def end(self) -> None:
        """Move everything back, while the stream still plays what is under way."""
        _move_back(self._server, self._record)

    def _put_back(self) -> None:
        """On a connection of its own: the other one may be in the middle of something."""
        try:
            with connected() as server:
                _restore(server, self._record)
        except DeviceError:
            return  # gone, or it hangs: the file tells the next route what there may be to do
        self._file.remove()


# ---- macOS and Windows: programs cannot be moved there, but whatever plays on a cable can be heard


@dataclass(frozen=True)
class Loopback:
    """Devices, by PortAudio's index, through which system audio can be led.

    Attributes:
        input, output: what to listen to and to play on.
        hint: what is still to be done by hand; "" if nothing is.
    """

    input: int
    output: int
    hint: str = ""


@dataclass(frozen=True)
class _Cable:
    """A virtual device whose output comes back as its input.

    Attributes:
        ends: words in the names of its input and output side.
        api: the host API to prefer; "": any.
        missing: what to do where there is none.
        chosen: what people must choose as the system's output.
    """

    ends: tuple[str, str]
    api: str
    missing: str
    chosen: str


_CABLES = {
    "darwin": _Cable(
        ("blackhole", "blackhole"),
        "",
        "macOS lets nobody hear other programs: install BlackHole (brew install blackhole-2ch), "
        "choose it as the output in System Settings > Sound, and start this again",
        "choose BlackHole as the output in System Settings > Sound",
    ),
    "win32": _Cable(
        ("cable output", "cable input"),
        "WASAPI",
        "there is no virtual cable and no loopback device: install VB-CABLE (vb-audio.com/Cable), "
        "choose CABLE Input as the output in Settings > System > Sound, and start this again",
        "choose CABLE Input as the output in Settings > System > Sound",
    ),
}

#: How WASAPI's own loopback devices are named after the output that they listen to.
_WASAPI_LOOPBACK = "[loopback]"


def loopback(
    platform: str, devices: Sequence[Mapping[str, Any]], output: str | None = None
) -> Loopback:
    """How to hear the system's audio, from a list of PortAudio's devices.

    Args:
        platform: as `sys.platform`.
        devices: `index, name, api, inputs, outputs, virtual, default_output` each.
        output: part of the name of what to play on; None: the default, or the only real one.

    Raises:
        DeviceError: something is missing; the message says what.
        UsageError: `output` is unknown, not clear, or what is listened to.
    """
    if platform not in _CABLES:
        raise DeviceError(f"nobody knows how to hear other programs on {platform!r}")
    cable = _CABLES[platform]
    inputs = [d for d in devices if d["inputs"] and cable.ends[0] in d["name"].lower()]
    inputs.sort(key=lambda device: cable.api not in device["api"])
    if inputs:
        source = inputs[0]
        default = any(d["default_output"] and cable.ends[1] in d["name"].lower() for d in devices)
        sink = _output(devices, source, cable.ends[1], output)
        return Loopback(source["index"], sink["index"], "" if default else cable.chosen)
    for source in devices:
        name = source["name"].lower()
        if source["inputs"] and _WASAPI_LOOPBACK in name:
            heard = name.replace(_WASAPI_LOOPBACK, "").strip()
            sink = _output(devices, source, heard, output)
            return Loopback(source["index"], sink["index"])
    raise DeviceError(cable.missing)


def _output(
    devices: Sequence[Mapping[str, Any]], source: Mapping[str, Any], heard: str, wanted: str | None
) -> Mapping[str, Any]:
    """What to play on: in the host API of `source`, and not what `source` hears."""
    sinks = [d for d in devices if d["outputs"] and d["api"] == source["api"]]
    if wanted is not None:
        fits = [
            d for d in sinks if wanted.lower() in d["name"].lower() or wanted == str(d["index"])
        ]
        if not fits:
            raise unknown("output", wanted, [d["name"] for d in sinks])
        if heard in fits[0]["name"].lower():
            raise UsageError(f"{fits[0]['name']} is what is listened to; choose another --output")
        return fits[0]
    free = [d for d in sinks if heard not in d["name"].lower()]
    real = [d for d in free if not d["virtual"]]
    for found in ([d for d in free if d["default_output"]], real, free):
        if len(found) == 1:
            return found[0]
    if not free:
        raise DeviceError(f"there is no output besides the one that {source['name']} listens to")
    names = ", ".join(repr(d["name"]) for d in free)
    raise UsageError(f"there are several outputs; choose one with --output: {names}")
