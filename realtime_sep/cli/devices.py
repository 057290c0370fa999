"""`realtime-sep devices`: what can be listened to and played on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from realtime_sep.cli.portaudio import PortAudio
    from realtime_sep.io.pulse import Endpoint


def devices(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List audio devices: what `live` can take as `--input` and `--output`.

    A name may be shortened as long as it stays clear; the index works, too.  On Linux the sources,
    *monitors* (what other programs play) and sinks of PulseAudio or PipeWire are listed first.
    """
    from realtime_sep.cli import common, portaudio
    from realtime_sep.io import pulse

    endpoints = pulse.endpoints()
    library = portaudio.probe()
    if as_json:
        typer.echo(
            common.to_json(
                {
                    "portaudio": {"version": library.version, "error": library.error or None},
                    "host_apis": library.apis,
                    "devices": library.devices,
                    "server": endpoints,
                }
            )
        )
        return

    from rich.console import Console

    console = Console(highlight=False)
    if endpoints:
        console.print(_server_table(endpoints))
    if library.devices:
        console.print(_device_table(library))
        console.print(f"[dim]{library.version}; host APIs: {', '.join(library.apis)}[/]")
    if library.error:
        console.print(library.error, markup=False, soft_wrap=True)
    elif not library.devices and not endpoints:
        console.print(
            "no audio devices: no sound card is visible and no audio server (PipeWire, PulseAudio, "
            "JACK) runs; start one, or try the machine without: realtime-sep live --input null",
            soft_wrap=True,
        )


def _server_table(endpoints: list[Endpoint]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="PulseAudio / PipeWire", title_justify="left", box=None, pad_edge=False)
    for column in ("use with", "name", "kind", "channels", "rate", ""):
        table.add_column(column, justify="right" if column in ("channels", "rate") else "left")
    for endpoint in sorted(endpoints, key=lambda e: (e.kind, not e.default, e.description)):
        table.add_row(
            f"--{endpoint.kind}",
            escape(endpoint.description),
            "monitor" if endpoint.monitor else "virtual" if endpoint.virtual else "hardware",
            str(endpoint.channels),
            str(endpoint.samplerate),
            "default" if endpoint.default else "",
        )
    return table


def _device_table(library: PortAudio) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="PortAudio", title_justify="left", box=None, pad_edge=False)
    for column in ("index", "name", "host API", "in", "out", "rate", "latency ms", "kind", ""):
        right = column in ("index", "in", "out", "rate", "latency ms")
        table.add_column(column, justify="right" if right else "left")
    for device in library.devices:
        sides = [
            f"{1e3 * device[f'{kind}_latency']:.1f}" if device[f"{kind}s"] else "–"
            for kind in ("input", "output")
        ]
        default = [kind for kind in ("input", "output") if device[f"default_{kind}"]]
        table.add_row(
            str(device["index"]),
            escape(device["name"]),
            device["api"],
            str(device["inputs"] or "–"),
            str(device["outputs"] or "–"),
            f"{device['samplerate']:.0f}",
            " / ".join(sides),
            "virtual" if device["virtual"] else "hardware",
            f"default {' and '.join(default)}" if default else "",
        )
    return table
