"""`realtime-sep bridge`: the engine for the plugins in other programs, and their installation."""

from __future__ import annotations

import os
import signal
from typing import Annotated

import typer

from realtime_sep.cli.options import Model

app = typer.Typer(rich_markup_mode="markdown")


@app.callback(invoke_without_command=True)
def bridge(
    context: typer.Context,
    model: Model = None,
    idle: Annotated[
        float | None,
        typer.Option(
            "--idle",
            metavar="SECONDS",
            min=0.0,
            help="End after so long without a plugin.",
            show_default="serve on",
        ),
    ] = None,
) -> None:
    """Serve the LADSPA and LV2 plugins in other programs.

    The plugins start it themselves; run it to choose the model that they use by default.
    `realtime-sep bridge install` puts the plugins where other programs find them.
    """
    if context.invoked_subcommand is not None:
        return
    # Its engines are forks: libraries must not have started threads that they would lack.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from realtime_sep.bridge.server import Bridge
    from realtime_sep.cli.common import checked_model

    name = None if model is None else checked_model(model)
    with Bridge(lambda: name or checked_model(None), idle) as serving:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, serving.stop)
        typer.echo(f"serving plugins at {serving.path}")
        serving.run()


@app.command()
def install(
    pipewire: Annotated[
        bool,
        typer.Option("--pipewire", help='Also give PipeWire a sink called "Karaoke".'),
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take everything away again.")] = False,
) -> None:
    """Put the plugins where other programs look for them: ~/.ladspa and ~/.lv2."""
    from realtime_sep.bridge import install as plugins

    paths = plugins.remove() if remove else plugins.install(pipewire)
    for path in paths:
        typer.echo(f"{'removed' if remove else 'wrote'} {path}")
    if pipewire and not remove:
        typer.echo("the sink is there after: systemctl --user restart pipewire")
