"""What `--mic` and `--monitor` mean: devices of their own, or channels of the first one."""

from __future__ import annotations

from typing import Annotated

import typer

from realtime_sep.errors import UsageError

Mic = Annotated[
    str | None,
    typer.Option(
        "--mic",
        metavar="DEV|FILE|main",
        help="Microphone of who sings along: a second input device, a file played again and "
        "again, or main: channels of the first device.",
        show_default="none",
    ),
]
MicChannels = Annotated[
    str | None,
    typer.Option(
        "--mic-channels",
        metavar="N[,N]",
        help="Its channels, counted from 1: one for both ears, or two.",
        show_default="the first two as one; of main, 3",
    ),
]
Monitor = Annotated[
    str | None,
    typer.Option(
        "--monitor",
        metavar="DEV|main",
        help="Monitor with levels of its own: a second output device, or main: the channels of "
        "the first one behind the mix.",
        show_default="none",
    ),
]


def channel_numbers(mic: str | None, text: str | None) -> tuple[int, ...]:
    """What `--mic-channels` says.

    Raises:
        UsageError: channels that are none, or without a microphone.
    """
    if text is None:
        return ()
    if mic is None:
        raise UsageError("--mic-channels needs --mic")
    parts = text.split(",")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--mic-channels {text!r}: give one channel or two, like 3 or 3,4")
    return tuple(int(part) for part in parts)
