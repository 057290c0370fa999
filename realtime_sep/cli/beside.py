"""What `--mic` and `--monitor` mean: devices of their own, or channels of the first one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realtime_sep.errors import UsageError

if TYPE_CHECKING:
    from realtime_sep.companion import Beside

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
#: Channels of the first device itself.
MAIN = "main"


@dataclass(frozen=True)
class SecondDevices:
    """For `open_stream` and its `StreamConfig`."""

    options: dict[str, Beside] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def second_devices(
    mic: str | None,
    channels: str | None,
    monitor: str | None,
    *,
    latency: Any = "low",
    api: str | None = None,
    outputs: tuple[str, ...] = ("mix",),
) -> SecondDevices:
    """What to open beside the first device.

    Raises:
        UsageError: channels that are none, or without a microphone.
    """
    from realtime_sep.companion import Beside, named
    from realtime_sep.parameters import MONITOR

    options: dict[str, Beside] = {}
    config: dict[str, Any] = {"outputs": outputs}
    numbers = _numbers(channels)
    if mic is None and numbers:
        raise UsageError("--mic-channels needs --mic")
    if mic == MAIN:
        config["microphone"] = numbers or (3,)
    elif mic is not None:
        options["microphone"] = Beside(named(mic, "input", latency, api), numbers)
    if monitor == MAIN:
        config["outputs"] = (outputs[0], MONITOR, *outputs[1:])
    elif monitor is not None:
        options["monitor"] = Beside(named(monitor, "output", latency, api))
    return SecondDevices(options, config)


def _numbers(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = text.split(",")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--mic-channels {text!r}: give one channel or two, like 3 or 3,4")
    return tuple(int(part) for part in parts)
