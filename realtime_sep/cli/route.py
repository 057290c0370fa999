"""`realtime-sep route`: what other programs play, separated on its way to the loudspeakers."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realtime_sep.cli import common
from realtime_sep.cli.hands import Hands
from realtime_sep.cli.live import _stop_signal, play, report, summary_table
from realtime_sep.cli.options import (
    Blocksize,
    Chains,
    DeviceLatency,
    Model,
    Music,
    Profile,
    Provider,
    Reconnect,
    Seconds,
    StemLevels,
    Vocals,
)
from realtime_sep.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from realtime_sep.io.programs import Choice
    from realtime_sep.io.route import Route
    from realtime_sep.stream import Stream


def route(
    app: Annotated[
        str | None,
        typer.Option("--app", "-a", metavar="NAME", help="Program to lead through, by name."),
    ] = None,
    pid: Annotated[
        int | None, typer.Option("--pid", metavar="N", min=1, help="The same, by process id.")
    ] = None,
    system: Annotated[
        bool, typer.Option("--system", help="All programs, those that start later, too.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DEV",
            help="Device to play on: part of its name; none with --microphone for no other.",
            show_default="the default device",
        ),
    ] = None,
    microphone: Annotated[
        bool,
        typer.Option(
            "--microphone", help="Offer the result to other programs as a microphone, too."
        ),
    ] = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Also lead through what starts later and is named so."),
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Show what plays, what is routed and what is left over.")
    ] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Put back what killed routes have left, and end.")
    ] = False,
    model: Model = None,
    profile: Profile = None,
    provider: Provider = None,
    vocals: Vocals = None,
    music: Music = None,
    levels: StemLevels = None,
    chain: Chains = None,
    blocksize: Blocksize = 256,
    latency: DeviceLatency = "low",
    reconnect: Reconnect = None,
    seconds: Seconds = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="No meters; print one JSON object at the end.")
    ] = False,
) -> None:
    """Lead what other programs play through the separator, until Ctrl-C.

    Linux, with PulseAudio or PipeWire: one program (`--app firefox`, `--pid`, or picked from a
    list), or everything (`--system`).  When it ends, all is as it was before; what a killed route
    has left is put back when the next one starts, or by `--clean`.  Routes of several programs live
    side by side, but only one is for the system.

    macOS and Windows: plays what BlackHole or VB-CABLE hear, or says what is missing.
    """
    if list_ or clean:
        _need_linux("--list and --clean are")
        _show(clean, as_json)
        return
    by_stem = common.stem_levels(levels)
    if vocals is None:
        vocals = -math.inf if music is None and not by_stem else 0.0
    session = _Session(
        model,
        common.separator_options(profile, provider),
        by_stem,
        common.chains(chain),
        vocals,
        0.0 if music is None else music,
        blocksize,
        latency,
        math.inf if reconnect is None else reconnect,
        seconds,
        as_json,
    )
    if sys.platform.startswith("linux"):
        _route(_choice(app, pid, system), output, microphone, follow, session)
        return
    if app is not None or pid is not None or microphone or follow:
        _need_linux("--app, --pid, --microphone and --follow are")
    _cable(output, session)


@dataclass(frozen=True)
class _Session:
    """How to play, as `live` understands it."""

    model: str | None
    options: dict[str, Any]
    by_stem: dict[str, float]
    chains: dict[str, str]
    vocals: float
    music: float
    blocksize: int
    latency: str
    reconnect: float
    seconds: float | None
    as_json: bool

    def __post_init__(self) -> None:
        from realtime_sep.io.portaudio import validate_latency

        common.checked_model(self.model)  # before anything is made or moved
        validate_latency(self.latency)

    def open(self, input: int | str, output: int | str) -> Stream:
        from realtime_sep.io.portaudio import validate_latency
        from realtime_sep.stream import open_stream
        from realtime_sep.types import StreamConfig

        stream = open_stream(
            common.checked_model(self.model),
            input=input,
            output=output,
            latency=validate_latency(self.latency),
            config=StreamConfig(blocksize=self.blocksize, reconnect=self.reconnect),
            vocals=self.vocals,
            music=self.music,
            chains=self.chains,
            separator_options=self.options,
        )
        try:
            stream.set_many(self.by_stem)
        except UsageError:
            stream.close()
            raise
        common.offer_another(stream.info)
        return stream

    def play(self, stream: Stream, stopped: Callable[[], bool]) -> None:
        hands = Hands(stream)
        play(stream, self.seconds, stopped, hands=hands, meters=not self.as_json)
        hands.stop()
        for line in hands.told():
            common.complain(line)

    def stop(self, stream: Stream, **more: Any) -> None:
        """Stop, and say how it was; `more` goes into the report."""
        stats = stream.stats
        stream.stop()
        for notice in stream.notices():
            common.complain(notice)
        if self.as_json:
            typer.echo(common.to_json({**report(stream, stats), **more}))
        else:
            from rich.console import Console

            Console(highlight=False).print(summary_table(stream, stats))


def _need_linux(what: str) -> None:
    if not sys.platform.startswith("linux"):
        raise UsageError(
            f"{what} for Linux; here you choose a virtual cable as a program's output instead: "
            "realtime-sep route --system says how"
        )


# ---- Linux


def _choice(app: str | None, pid: int | None, system: bool) -> Choice:
    from realtime_sep.io.programs import Choice

    if (app is not None) + (pid is not None) + system > 1:
        raise UsageError("choose one of --app, --pid and --system")
    if app is None and pid is None and not system:
        return _pick()
    return Choice(app=app, pid=pid, system=system)


def _pick() -> Choice:
    """Let a person choose from what plays."""
    from realtime_sep.io.programs import Choice, connected, playing

    with connected() as server:
        streams = [stream for stream in playing(server) if stream.route is None]
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        names = ", ".join(sorted({stream.program for stream in streams})) or "nothing"
        raise UsageError(f"choose with --app NAME, --pid N or --system; playing now: {names}")
    for number, stream in enumerate(streams, 1):
        typer.echo(f"{number:3}  {stream}: {stream.title}")
    typer.echo("  0  everything, also what starts later")
    number = -1
    while not 0 <= number <= len(streams):
        number = typer.prompt("Which", type=int)
    if number == 0:
        return Choice(system=True)
    stream = streams[number - 1]
    return Choice(app=stream.program) if stream.pid is None else Choice(pid=stream.pid)


def _route(
    choice: Choice, output: str | None, microphone: bool, follow: bool, session: _Session
) -> None:
    from realtime_sep.io.route import Route

    routed: list[str] = []

    def tell(news: list[str]) -> None:
        routed.extend(news)
        for line in news:
            typer.echo(line, err=True)

    with (
        _stopping() as stopped,
        Route(choice, output=output, microphone=microphone, follow=follow) as path,
        closing(_opened(path, session)) as stream,
    ):
        if stopped():
            return
        stream.start()
        tell(path.begin())
        if not routed:
            typer.echo("nothing plays that goes through; waiting for it", err=True)
        if microphone:
            typer.echo(f"other programs find the result as microphone {path.microphone}", err=True)

        def attend() -> bool:
            tell(path.attend())
            return stopped()

        session.play(stream, attend)
        path.end()
        session.stop(
            stream, routed=routed, output=path.description or None, microphone=path.microphone
        )


def _opened(path: Route, session: _Session) -> Stream:
    """The stream, whose process inherits the variables by which its sound is known."""
    before = {name: os.environ.get(name) for name in path.environment}
    os.environ.update(path.environment)
    try:
        return session.open(path.source, path.sink)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """As in `live`, and a terminal that is closed asks to stop, too."""
    with _stop_signal() as stopped:
        before = signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
        try:
            yield stopped
        finally:
            signal.signal(signal.SIGHUP, before)


def _show(clean: bool, as_json: bool) -> None:
    """What plays, what is routed, and what is left over or was cleaned up."""
    from realtime_sep.io.programs import connected, playing
    from realtime_sep.io.undo import routes, sweep

    with connected() as server:
        cleaned = sweep(server, thorough=True) if clean else []
        found = routes(server)
        streams = [stream for stream in playing(server) if stream.route is None]
        sinks = {sink.name: sink.description for sink in server.sink_list()}
    alive = [route for route in found if route.alive]
    dead = [route.pid for route in found if not route.alive]
    if as_json:
        typer.echo(
            common.to_json(
                {
                    "playing": streams,
                    "routes": [route.record or {"pid": route.pid} for route in alive],
                    "left_over": dead,
                    "cleaned": cleaned,
                }
            )
        )
        return
    for pid in cleaned:
        typer.echo(f"process {pid} was killed; what it had changed is put back")
    if clean:
        if not cleaned:
            typer.echo("nothing was left over")
        return
    for stream in streams:
        typer.echo(f"playing   {stream}: {stream.title} ▶ {sinks.get(stream.sink, stream.sink)}")
    for route in alive:
        record = route.record
        output = "" if record is None else sinks.get(record.output, record.output)
        kind = "everything" if record is not None and record.system else "programs"
        typer.echo(f"route     process {route.pid}: {kind} ▶ {output or 'microphone'}")
    for pid in dead:
        typer.echo(
            f"left over process {pid} was killed; put it back with: realtime-sep route --clean"
        )
    if not (streams or found):
        typer.echo("nothing plays, nothing is routed, nothing is left over")


# ---- macOS and Windows


def _cable(output: str | None, session: _Session) -> None:
    from realtime_sep.cli.portaudio import probe
    from realtime_sep.io.cables import loopback

    library = probe()
    if library.error:
        raise DeviceError(library.error)
    found = loopback(sys.platform, library.devices, output)
    if found.hint:
        common.complain(f"nothing will be heard yet: {found.hint}")
    with (
        _stop_signal() as stopped,
        closing(session.open(found.input, found.output)) as stream,
    ):
        stream.start()
        session.play(stream, stopped)
        session.stop(stream)
