"""`realtime-sep serve`: live separation for other programs, over WebSockets."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realtime_sep.cli.options import Profile

if TYPE_CHECKING:
    from realtime_sep.serve.server import ServeConfig


def serve(
    listen: Annotated[
        str,
        typer.Option(
            "--listen", metavar="ADDRESS", help="Where to listen; beyond this machine with a token."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="0 takes any.")
    ] = 8765,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Separator to offer; more than once for a choice, the first for who names none.",
            show_default="the best one",
        ),
    ] = None,
    profile: Profile = None,
    clients: Annotated[
        int,
        typer.Option(
            "--clients", metavar="N", min=1, max=256, help="At most; fewer if they would be late."
        ),
    ] = 32,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TEXT",
            envvar="REALTIME_SEP_TOKEN",
            help="What clients have to know.",
            show_default="beyond this machine: made up and shown",
        ),
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option("--origin", metavar="URL", help="Web pages that may connect; none otherwise."),
    ] = None,
) -> None:
    """Serve live separation to other programs: audio in, stems out, over WebSockets.

    Many clients at once, each with a stream of its own; who would make the others late is refused.
    docs/serve.md tells the protocol, examples/websocket_client.py is a client.
    """
    from realtime_sep.cli.common import checked_model
    from realtime_sep.serve.guard import is_loopback
    from realtime_sep.serve.server import ServeConfig

    names = tuple(dict.fromkeys(map(checked_model, model or (None,))))
    if token is None and not is_loopback(listen):
        from secrets import token_urlsafe

        token = token_urlsafe(16)
        typer.echo(f"token: {token}")
    options: dict[str, Any] = {} if profile is None else {"profile": profile}
    config = ServeConfig(names, listen, port, clients, token, tuple(origin or ()), options)
    asyncio.run(_serve(config))


async def _serve(config: ServeConfig) -> None:
    """Serve until a signal ends it."""
    from realtime_sep.native import PRIORITY, set_realtime
    from realtime_sep.serve.server import serving

    async with serving(config) as server:
        # An event loop that waits for a core makes everybody late; what it has to do is limited.
        set_realtime(PRIORITY - 1)
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(over.set))
        host = f"[{config.host}]" if ":" in config.host else config.host
        names = ", ".join(config.models)
        typer.echo(f"ws://{host}:{server.port} serves {names} to at most {config.clients} clients")
        running = asyncio.create_task(server.run())
        ending = asyncio.create_task(over.wait())
        done, _ = await asyncio.wait([running, ending], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if running in done:
            running.result()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
