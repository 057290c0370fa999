"""Options that several commands share: one name, one meaning, one wording."""

from __future__ import annotations

from typing import Annotated

import typer

from realtime_sep.cli.common import decibels

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME[:KEY=VALUE,...]",
        help="Separator to use, with its options.",
        show_default="the best one",
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="Quality against delay: studio, live or stage; of most networks fast, balanced, "
        "light or best.",
        show_default="the separator's own",
    ),
]
PresetName = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="karaoke, practice, acapella, instrumental, stream, or one of your own.",
        show_default=False,
    ),
]
Effects = Annotated[
    list[str] | None,
    typer.Option(
        "--effect",
        metavar="NAME",
        help="Effect on the mix: pitch (key change), highpass, eq, gate, compressor, reverb, ...; "
        "repeat it, in their order.",
        show_default=False,
    ),
]
Chains = Annotated[
    list[str] | None,
    typer.Option(
        "--chain",
        metavar="[WHERE=]TEXT",
        help="Effects on the mix, or on a stem: highpass:f=90|compressor, "
        "vocals=gate|reverb:mix=0.2; repeat it.",
        show_default=False,
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
Provider = Annotated[
    str | None,
    typer.Option(
        "--provider",
        metavar="auto|cpu|cuda",
        help="Who computes a network.",
        show_default="a graphics card, if it can",
    ),
]
StemLevels = Annotated[
    list[str] | None,
    typer.Option(
        "--stem",
        metavar="NAME=DB",
        help="Level of one stem, like drums=-6 or bass=off; repeat it.",
        show_default=False,
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
Reconnect = Annotated[
    float | None,
    typer.Option(
        "--reconnect",
        metavar="SECONDS",
        min=0.0,
        help="Wait so long for a device that has gone; 0 ends at once.",
        show_default="for ever",
    ),
]
