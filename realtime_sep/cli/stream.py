"""`realtime-sep stream`: from one URL to another, pictures untouched."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realtime_sep.cli import common
from realtime_sep.cli.live import _stop_signal
from realtime_sep.cli.options import (
    Chains,
    Model,
    Music,
    Profile,
    Provider,
    Seconds,
    StemLevels,
    Vocals,
)
from realtime_sep.errors import RelayError, UsageError

if TYPE_CHECKING:
    from realtime_sep.relay.run import Relay, RelayStats


def stream(
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URL",
            help="What to take: a file, http(s):// (radio, HLS), rtmp://, srt://, udp:// …",
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URL",
            help="Where to send it: a file, icecast://, rtmp://, srt://, udp://.",
        ),
    ],
    model: Model = None,
    profile: Profile = None,
    provider: Provider = None,
    vocals: Vocals = None,
    music: Music = None,
    levels: StemLevels = None,
    chain: Chains = None,
    codec: Annotated[
        str | None,
        typer.Option(
            "--codec",
            metavar="NAME",
            help="aac, mp3, opus, flac, pcm, or any encoder of FFmpeg.",
            show_default="what the target usually has",
        ),
    ] = None,
    bitrate: Annotated[
        int | None,
        typer.Option(
            "--bitrate",
            metavar="KBPS",
            min=8,
            max=1000,
            help="Of the sound.",
            show_default="96 for each channel",
        ),
    ] = None,
    reconnect: Annotated[
        float,
        typer.Option(
            "--reconnect",
            metavar="SECONDS",
            min=0.0,
            help="How long a live source or a server may be away; inf for ever.",
        ),
    ] = 60.0,
    seconds: Seconds = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="No status; print one JSON object at the end.")
    ] = False,
) -> None:
    """Separate a stream on its way from one place to another, until it ends or Ctrl-C.

    Video is copied as it is and stays in time with the sound.  While a live source is away, a
    server gets silence; a file appears under its name when it is complete.

        realtime-sep stream --from rtmp://localhost/live/in --to rtmp://localhost/live/out
    """
    from realtime_sep.relay import place
    from realtime_sep.relay.run import Relay

    by_stem = common.stem_levels(levels)
    if vocals is None:
        vocals = -math.inf if music is None and not by_stem else 0.0
    here, there = place.source(source), place.target(target)
    if here.is_file and there.is_file and there.path.exists() and there.path.samefile(here.path):
        raise UsageError(f"{target}: would overwrite the source; choose another name")
    if bitrate is not None:
        bitrate *= 1000
    with (
        _stop_signal() as stopped,
        _status(not as_json) as (tell, watch),
        Relay(
            here,
            there,
            common.checked_model(model),
            vocals=vocals,
            music=0.0 if music is None else music,
            levels=by_stem,
            chains=common.chains(chain),
            codec=codec,
            bitrate=bitrate,
            reconnect=reconnect,
            tell=tell,
            **common.separator_options(profile, provider),
        ) as relay,
    ):
        if relay.live:
            common.offer_another(relay.info)
        failure: RelayError | None = None
        try:
            relay.run(stopped, seconds, lambda stats: watch(relay, stats))
        except RelayError as error:
            failure = error
        stats = relay.stats
    if as_json:
        typer.echo(common.to_json(_report(relay, str(here), str(there), stats, failure)))
    elif failure is None:
        common.complain(_line(relay, stats))
    if failure is not None:
        raise failure


@contextmanager
def _status(
    visible: bool,
) -> Iterator[tuple[Callable[[str], None], Callable[[Relay, RelayStats], None]]]:
    """Gives two functions: one for events, one for the line that shows how it goes."""
    if not (visible and sys.stderr.isatty()):
        yield common.complain, lambda relay, stats: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    with Live(console=console, auto_refresh=False, transient=True) as screen:
        yield (
            lambda line: console.print(f"realtime-sep: {line}", markup=False, soft_wrap=True),
            lambda relay, stats: screen.update(Text(_line(relay, stats)), refresh=True),
        )


def _line(relay: Relay, stats: RelayStats) -> str:
    """How it goes, in one line."""
    minutes, seconds = divmod(stats.seconds, 60)
    parts = [
        f"{minutes:.0f}:{seconds:04.1f}",
        f"in {_bytes(stats.bytes_in)}",
        f"out {_bytes(stats.bytes_out)}",
    ]
    if relay.live:
        parts.append(f"late {stats.late:.2f} s")
    if relay.live or stats.target_losses:
        parts.append(f"reconnects {stats.source_losses} in, {stats.target_losses} out")
    for name, value in (("silence", stats.silent), ("not sent", stats.lost)):
        if value >= 0.05:
            parts.append(f"{name} {value:.1f} s")
    if stats.damaged:
        parts.append(f"damaged {stats.damaged}")
    return "   ".join(parts)


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _report(
    relay: Relay, source: str, target: str, stats: RelayStats, failure: RelayError | None
) -> dict[str, Any]:
    return {
        "from": source,
        "to": target,
        "separator": relay.info,
        "samplerate": relay.samplerate,
        "live": relay.live,
        "video": relay.has_picture,
        "encoding": relay.encoding,
        "stats": stats,
        "error": None if failure is None else str(failure),
    }
