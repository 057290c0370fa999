"""`realtime-sep live`: what plays, separated while it plays."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from realtime_sep.cli.beside import Mic, MicChannels, Monitor, channel_numbers
from realtime_sep.cli.hands import Hands
from realtime_sep.cli.options import (
    Blocksize,
    Chains,
    DeviceLatency,
    Model,
    Music,
    PresetName,
    Profile,
    Provider,
    Reconnect,
    Seconds,
    StemLevels,
    Vocals,
)
from realtime_sep.errors import UsageError
from realtime_sep.io.feedback import SAFE_START_DB, feedback

if TYPE_CHECKING:
    from rich.console import RenderableType

    from realtime_sep.io.device import DeviceSpec
    from realtime_sep.stream import Stream
    from realtime_sep.types import Latency, StreamStats

#: Display updates per second: quicker than the eye reads, slow enough to cost nothing.
_REFRESH = 12
#: The meters' left end.
_FLOOR_DB = -60.0


def live(
    input: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="DEV",
            help="Device to listen to: index or part of its name; null for none.",
            show_default="the default device",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DEV",
            help="Device to play on, likewise.",
            show_default="the default device",
        ),
    ] = None,
    model: Model = None,
    profile: Profile = None,
    preset: PresetName = None,
    provider: Provider = None,
    vocals: Vocals = None,
    music: Music = None,
    levels: StemLevels = None,
    chain: Chains = None,
    mic: Mic = None,
    mic_channels: MicChannels = None,
    monitor: Monitor = None,
    samplerate: Annotated[
        int | None,
        typer.Option(
            "--samplerate",
            metavar="HZ",
            min=1000,
            help="Sample rate.",
            show_default="the device's own",
        ),
    ] = None,
    blocksize: Blocksize = 256,
    latency: DeviceLatency = "low",
    api: Annotated[
        str | None,
        typer.Option(
            "--api",
            metavar="NAME",
            help="jack: named ports for every stem; pyaudio: blocking streams; or the host API "
            "to look for devices in.",
            show_default="any",
        ),
    ] = None,
    reconnect: Reconnect = None,
    seconds: Seconds = None,
    record: Annotated[
        list[str] | None,
        typer.Option(
            "--record",
            metavar="BUS",
            help="What the key r records: output, input, mic, monitor or a stem; repeatable.",
            show_default="output",
        ),
    ] = None,
    full_level: Annotated[
        bool,
        typer.Option(
            "--full-level",
            help="Start at full level even where the output may come back as input.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="No meters; print one JSON object at the end.")
    ] = False,
) -> None:
    """Separate what is playing, live, until Ctrl-C.

    Without `--vocals` and `--music` the voice is taken out.  To hear the voice alone:
    `--music off`; to make it quieter, not silent: `--vocals -12`.

    A device that goes away is waited for, and faded in when it comes back.  With `--api jack` the
    mix and every stem have named ports, to be connected by hand unless `--input` and `--output`
    name clients of the server.
    """
    from realtime_sep.cli import common
    from realtime_sep.companion import second_devices
    from realtime_sep.io.portaudio import validate_latency
    from realtime_sep.stream import open_stream
    from realtime_sep.types import EVERY_STEM, StreamConfig

    beside = second_devices(
        mic,
        channel_numbers(mic, mic_channels),
        monitor,
        latency=validate_latency(latency),
        api=api,
        outputs=("mix", EVERY_STEM) if _is_jack(api) else ("mix",),
    )
    by_stem = common.stem_levels(levels)
    values: dict[str, float] = {}
    preset_chains: Mapping[str, str] = {}
    if preset is not None:
        from realtime_sep.control.presets import find

        chosen = find(preset)
        model, values = model or chosen.model, dict(chosen.values)
        preset_chains = chosen.chains_for(microphone=mic is not None, monitor=monitor is not None)
    if vocals is None:
        unasked = music is None and not by_stem and preset is None
        vocals = values.get("vocals", -math.inf if unasked else 0.0)
    if music is None:
        music = values.get("music", 0.0)
    values |= {"vocals": vocals, "music": music}
    model = common.checked_model(model)
    with (
        _stop_signal() as stopped,
        closing(
            open_stream(
                model,
                input=_device(input),
                output=_device(output),
                latency=validate_latency(latency),
                backend=_backend(input, output, validate_latency(latency), api),
                config=StreamConfig(
                    samplerate=samplerate,
                    blocksize=blocksize,
                    reconnect=math.inf if reconnect is None else reconnect,
                    **beside.config,
                ),
                vocals=vocals,
                music=music,
                chains=common.chains(chain, preset_chains),
                separator_options=common.separator_options(profile, provider),
                microphone=beside.options.get("microphone"),
                monitor=beside.options.get("monitor"),
            )
        ) as stream,
    ):
        common.offer_another(stream.info)
        values |= by_stem
        known = stream.parameters
        stream.set_many({k: v for k, v in values.items() if k in known or k in by_stem})
        if not full_level and (why := feedback(stream.device)):
            vocals, music = min(vocals, SAFE_START_DB), min(music, SAFE_START_DB)
            stream.set("vocals", vocals)
            stream.set("music", music)
            for name, level in by_stem.items():
                stream.set(name, min(level, SAFE_START_DB))
            common.complain(
                f"{stream.device}: {why}, which can howl; starting at {SAFE_START_DB:.0f} dB. "
                "Use headphones or another --input or --output, and then --full-level"
            )
        if not full_level and (why := _singing(stream)):
            stream.set("mic.mute", 1)
            common.complain(
                f"{why}, which can howl: the microphone begins muted; use headphones, then press i "
                "(or give --full-level)"
            )
        hands = Hands(stream, record or ())
        stream.start()
        play(stream, seconds, stopped, hands=hands, meters=not as_json)
        hands.stop()
        stats = stream.stats
        stream.stop()
        for notice in (*stream.notices(), *hands.told()):
            common.complain(notice)
    if as_json:
        typer.echo(common.to_json(report(stream, stats)))
    else:
        _print_summary(stream, stats)


def _singing(stream: Stream) -> str:
    from realtime_sep.io.feedback import singing

    if "mic" not in stream.parameters:
        return ""
    if (microphone := stream.beside.get("mic")) is None:
        return feedback(stream.device)
    return singing(microphone, stream.device)


def _device(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _is_jack(api: str | None) -> bool:
    return api is not None and api.lower() == "jack"


def _backend(
    input: str | None, output: str | None, latency: Literal["low", "high"] | float, api: str | None
) -> DeviceSpec | None:
    """What to open; None: a pair of PortAudio's devices, in whichever host API."""
    sides = [side for side in (input, output) if side is not None]
    if "null" in sides:  # silence in, nothing out, by the clock
        if any(side != "null" for side in sides):
            raise UsageError("the null device stands alone: give it as input and output")
        from realtime_sep.io.null import NullSpec

        return NullSpec()
    if api is None:
        return None
    if _is_jack(api):
        from realtime_sep.io.jack import JackSpec

        return JackSpec(input, output)
    if api.lower() == "pyaudio":
        from realtime_sep.io.pyaudio import PyAudioSpec

        if latency != "low":
            raise UsageError("PyAudio knows no --latency: it always asks for low buffers")
        return PyAudioSpec(_device(input), _device(output))
    from realtime_sep.io.portaudio import PortAudioSpec

    return PortAudioSpec(_device(input), _device(output), latency, api)


@contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask to stop, a second one insists; gives the question whether they did."""
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def play(
    stream: Stream,
    seconds: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
    *,
    hands: Hands | None = None,
    meters: bool = True,
) -> None:
    """Let a started stream play until it ends, the time is over, or somebody asks to stop.

    Args:
        hands: what keys do.
        meters: show them, if there is a terminal to show them on.
    """
    end = math.inf if seconds is None else time.monotonic() + seconds
    meters = meters and sys.stdout.isatty()
    with _keys(meters and hands is not None) as keys, _display(stream, hands, meters) as update:
        while not stopped():
            left = end - time.monotonic()
            if left <= 0 or stream.wait(min(left, 1 / _REFRESH)):
                break
            typed = keys()
            if "q" in typed:
                break
            if hands is not None:
                hands.press(typed)
            update()


def _keys(wanted: bool) -> AbstractContextManager[Callable[[], str]]:
    from realtime_sep.cli.keys import pressed

    return pressed() if wanted else nullcontext(lambda: "")


@contextmanager
def _display(stream: Stream, hands: Hands | None, visible: bool) -> Iterator[Callable[[], None]]:
    if not visible:
        from realtime_sep.cli.common import complain

        def tell() -> None:
            for notice in stream.notices():
                complain(notice)

        yield tell
        return
    from rich.live import Live

    notices: list[str] = []
    with Live(auto_refresh=False, transient=True) as screen:

        def update() -> None:
            notices.extend(stream.notices())
            if hands is not None:
                notices.extend(hands.told())
            screen.update(_panel(stream, stream.stats, hands, notices), refresh=True)

        update()
        yield update
    for notice in notices:
        print(notice, file=sys.stderr)


def _panel(
    stream: Stream, stats: StreamStats, hands: Hands | None, notices: list[str]
) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    info, latency = stream.info, stream.latency
    head = Text.assemble(
        (f"{info.name}", "bold"),
        f" ({info.provider})   {stream.device}   ",
        (f"{latency.ms():.1f} ms", "bold"),
        " latency" if latency.device else " latency, without the device's own",
        *(f"   {name} {late.ms():.1f} ms" for name, late in _late(stream).items()),
    )
    levels = Table.grid(padding=(0, 1))
    levels.add_row("input", _bar(stats.input_peak), _db(stats.input_peak))
    for name, peak in stats.stem_peaks.items():
        levels.add_row(name, _bar(peak), _db(peak))
    levels.add_row("output", _bar(stats.output_peak), _db(stats.output_peak))
    for name, beside in (("mic", stats.microphone), ("monitor", stats.monitor)):
        if beside is not None:
            gone = "" if beside.there else "  gone"
            gaps = f"  gaps {beside.gaps}" if beside.gaps else ""
            levels.add_row(name, _bar(beside.peak), _db(beside.peak) + gaps + gone)
    loudness = f"{stats.loudness:.1f} LUFS" if math.isfinite(stats.loudness) else "–"
    counters = Text(
        f"{stats.elapsed:7.1f} s   load {100 * stats.load:4.1f} %   "
        f"worker p99 {1e3 * stats.worker_p99:.2f} of {1e3 * stats.hop / stats.samplerate:.1f} ms   "
        f"late {stats.late_blocks}   xruns {stats.xruns}   reopens {stats.reopens}   "
        f"loudness {loudness}"
    )
    foot = [] if hands is None else [Text(str(hands), style="bold"), Text(hands.HINT, style="dim")]
    return Group(
        head, levels, counters, *foot, *(Text(notice, style="yellow") for notice in notices)
    )


def _late(stream: Stream) -> dict[str, Latency]:
    """Latencies of microphone and monitor, where they are."""
    both = {"mic": stream.microphone_latency, "monitor": stream.monitor_latency}
    return {name: late for name, late in both.items() if late is not None}


def _bar(db: float, width: int = 40) -> RenderableType:
    from rich.text import Text

    filled = round(width * min(1.0, max(0.0, 1 - db / _FLOOR_DB))) if math.isfinite(db) else 0
    style = "red" if db > -1 else "yellow" if db > -6 else "green"
    return Text.assemble(("█" * filled, style), ("·" * (width - filled), "dim"))


def _db(db: float) -> str:
    return f"{db:6.1f} dB" if math.isfinite(db) else "     – dB"


def report(stream: Stream, stats: StreamStats) -> dict[str, Any]:
    """Everything about a stream that has ended, as plain data."""
    from dataclasses import asdict

    latency = stream.latency
    return {
        "separator": asdict(stream.info),
        "device": stream.device,
        "latency": {
            **asdict(latency),
            "frames": latency.frames,
            "total": latency.total,
            "ms": latency.ms(),
        },
        **{
            name: {**asdict(late), "frames": late.frames, "total": late.total, "ms": late.ms()}
            for name, late in _late(stream).items()
        },
        "stats": {**asdict(stats), "load": stats.load},
    }


def _print_summary(stream: Stream, stats: StreamStats) -> None:
    from rich.console import Console

    Console(highlight=False).print(summary_table(stream, stats))


def summary_table(
    stream: Stream, stats: StreamStats, extra: dict[str, str] | None = None
) -> RenderableType:
    """The figures of a stream that has ended; `extra` rows follow the latency."""
    from rich.table import Table

    latency = stream.latency
    rate = stats.samplerate
    hop_ms = 1e3 * stats.hop / rate
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "separator": f"{stream.info.name} ({stream.info.provider})",
        "device": stream.device,
        "sample rate": f"{rate} Hz",
        "hop": f"{stats.hop} frames, {hop_ms:.2f} ms",
        "latency": f"{latency.frames} frames, {latency.ms(latency.frames):.2f} ms"
        + (f", and {latency.ms(latency.device):.1f} ms in the device" if latency.device else ""),
        **{
            name: f"{late.frames} frames, {late.ms(late.frames):.2f} ms"
            + (f", and {late.ms(late.device):.1f} ms in devices" if late.device else "")
            for name, late in _late(stream).items()
        },
        **(extra or {}),
        "played": f"{stats.frames / rate:.1f} s, {stats.hops} hops",
        "worker per hop": " · ".join(
            f"{name} {1e3 * seconds:.3f}"
            for name, seconds in (
                ("p50", stats.worker_p50),
                ("p99", stats.worker_p99),
                ("p99.9", stats.worker_p999),
                ("max", stats.worker_max),
            )
        )
        + " ms",
        "p99 of the hop": f"{1e5 * stats.worker_p99 / hop_ms:.1f} %",
        "load of a core": f"{100 * stats.load:.1f} %",
        "late blocks": str(stats.late_blocks),
        "xruns": str(stats.xruns),
        **({"reopens": str(stats.reopens)} if stats.reopens else {}),
        "real-time priority": "yes" if stats.realtime else "no (see: realtime-sep doctor)",
    }
    if stats.bad_hops or stats.bad_input:
        rows["mended"] = f"{stats.bad_hops} hops of the separator, {stats.bad_input} of the input"
    table.add_column(style="dim")
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, value)
    return table
