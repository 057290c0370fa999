"""The command line: one typer application whose commands import what they need when they run.

`--help` therefore costs nothing but typer.  A command of another module joins by a line in
`_ELSEWHERE`; the module is imported when the command is called.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

from realtime_sep.cli import desk, devices, doctor, live, pipe, route, separate, serve, stream
from realtime_sep.errors import RealtimeSepError, UsageError

PROGRAM = "realtime-sep"

#: Commands that live elsewhere: name -> (module:typer application, one line for the list).
_ELSEWHERE: dict[str, tuple[str, str]] = {
    "models": (
        "realtime_sep.models.cli:app",
        "The networks that separate: list, inspect, import, check and remove them.",
    ),
    "plugins": (
        "realtime_sep.cli.plugins:app",
        "Separators, effects and hosted effects: what there is, and what it takes.",
    ),
    "bridge": (
        "realtime_sep.cli.bridge:app",
        "The LADSPA and LV2 plugins: install them for other programs, and be their engine.",
    ),
    "evaluate": (
        "realtime_sep.evaluate.cli:app",
        "Score separators against true stems, with BSSEval's measures.",
    ),
}

app = typer.Typer(
    name=PROGRAM,
    help="Take the voice out of music, or the music away from the voice, while it plays.",
    epilog="Start with:  realtime-sep devices  and  realtime-sep live",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("live")(live.live)
app.command("route")(route.route)
app.command("separate")(separate.separate)
app.command("pipe")(pipe.pipe)
app.command("stream")(stream.stream)
app.command("serve")(serve.serve)
app.command("desk")(desk.desk)
app.command("devices")(devices.devices)
app.command("doctor")(doctor.doctor)


def _forward(name: str, target: str, summary: str) -> None:
    """Register a command whose own application is imported when it is called."""

    @app.command(
        name,
        help=summary,
        add_help_option=False,
        context_settings={
            "allow_extra_args": True,
            "ignore_unknown_options": True,
            "allow_interspersed_args": False,
        },
    )
    def run(context: typer.Context) -> None:
        module, attribute = target.split(":")
        command = typer.main.get_command(getattr(import_module(module), attribute))
        command(args=context.args, prog_name=f"{PROGRAM} {name}")


for _name, (_target, _summary) in _ELSEWHERE.items():
    _forward(_name, _target, _summary)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version('realtime-sep')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Say the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; every foreseen error is one line on stderr and a status above 0."""
    try:
        app(prog_name=PROGRAM)
    except RealtimeSepError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
