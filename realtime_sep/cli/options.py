"""Options that several commands share: one name, one meaning, one wording."""

from __future__ import annotations

from typing import Annotated

import typer

from realtime_sep.cli.common import decibels

Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="NAME", help="Separator to use.", show_default="the best one"
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="studio, live or stage: quality against delay.",
        show_default="the separator's own",
    ),
]
Vocals = Annotated[
    float | None,
    typer.Option(
        "--vocals",
        metavar="DB",
        parser=decibels,
        help="Level of the voice in dB, or off.",
        show_default="off",
    ),
]
Music = Annotated[
    float | None,
    typer.Option(
        "--music",
        metavar="DB",
        parser=decibels,
        help="Level of everything else in dB, or off.",
        show_default="0",
    ),
]
Blocksize = Annotated[
    int, typer.Option("--blocksize", metavar="FRAMES", min=1, help="Frames per callback.")
]
DeviceLatency = Annotated[
    str,
    typer.Option("--latency", metavar="low|high|SECONDS", help="The device's own buffers."),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds", metavar="N", min=0.0, help="Stop after so long.", show_default="play on"
    ),
]
