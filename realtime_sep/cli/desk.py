"""`realtime-sep desk`: the engine, and a page to play it from."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realtime_sep.cli.beside import Mic, MicChannels, Monitor, channel_numbers
from realtime_sep.cli.options import (
    Blocksize,
    Chains,
    DeviceLatency,
    Effects,
    Model,
    PresetName,
    Profile,
)
from realtime_sep.errors import UsageError

if TYPE_CHECKING:
    from realtime_sep.control.desk import Desk
    from realtime_sep.control.osc import OscServer

#: Seconds that open connections may keep the server from ending.
_GRACE = 1


def desk(
    input: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="DEV|FILE|null",
            help="Device to listen to, an audio file to play again and again, or null for silence.",
            show_default="the default device",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DEV|null",
            help="Device to play on, or null for none.",
            show_default="the default device",
        ),
    ] = None,
    model: Model = None,
    profile: Profile = None,
    preset: PresetName = None,
    effects: Effects = None,
    chain: Chains = None,
    mic: Mic = None,
    mic_channels: MicChannels = None,
    monitor: Monitor = None,
    blocksize: Blocksize = 256,
    latency: DeviceLatency = "low",
    full_level: Annotated[
        bool,
        typer.Option(
            "--full-level",
            help="Start at full level even where the output may come back as input.",
        ),
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port of the page; 0: any free one.")
    ] = 8766,
    listen: Annotated[
        str,
        typer.Option(
            "--listen",
            metavar="ADDR",
            help="Address to listen on; other than 127.0.0.1, a token is asked for.",
        ),
    ] = "127.0.0.1",
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            "--tls-cert",
            metavar="FILE",
            help="Speak HTTPS with this certificate (PEM); needs --tls-key.",
            show_default="none",
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option("--tls-key", metavar="FILE", help="Its key (PEM), without a password."),
    ] = None,
    osc: Annotated[
        int | None,
        typer.Option(
            "--osc",
            metavar="PORT",
            min=0,
            max=65535,
            help="Listen to Open Sound Control on this UDP port of 127.0.0.1.",
            show_default="off",
        ),
    ] = None,
    midi: Annotated[
        str | None,
        typer.Option(
            "--midi",
            metavar="NAME",
            help="MIDI controller to listen to: part of its name.",
            show_default="none",
        ),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    recordings: Annotated[
        Path | None,
        typer.Option(
            "--recordings",
            metavar="DIR",
            help="Where recordings go.",
            show_default="realtime-sep in your music folder",
        ),
    ] = None,
) -> None:
    """Play it from a page: faders, meters, presets, recordings, models and devices.

    What was set last on a device is there again the next time, unless `--preset` or `--model` says
    otherwise.  The page's own protocol is open to scripts: see docs/desk.md.
    """
    from realtime_sep.cli import common
    from realtime_sep.control import presets
    from realtime_sep.control.desk import NULL, Choice, Desk
    from realtime_sep.control.memory import Memory, token
    from realtime_sep.control.midi import Midi
    from realtime_sep.control.osc import OscServer
    from realtime_sep.control.recorder import Recorder
    from realtime_sep.engine import MIX
    from realtime_sep.io.portaudio import validate_latency
    from realtime_sep.types import StreamConfig

    chosen = None if preset is None else presets.find(preset)
    for name in (input, mic):
        if name is not None and ("/" in name or "\\" in name) and not Path(name).is_file():
            raise UsageError(f"{name}: no such file")
    if NULL in (input, output) and None in (input, output):
        input, output = input or NULL, output or NULL
    memory = Memory()
    device = Choice(input, output).device
    last = memory.recall(device)
    before = {place: text for place, text in last.chains.items() if place != MIX or not effects}
    chains = common.chains(chain, before if chosen is None else {**before, **chosen.chains})
    if effects:
        chains[MIX] = "|".join([*effects, *filter(None, [chains.get(MIX)])])
    values = dict(last.values)
    if chosen is not None:
        values |= chosen.values
        model = model or chosen.model
    if model is None and last.model is not None and preset is None:
        model = _still_there(last.model)
    choice = Choice(
        input=input,
        output=output,
        model=common.checked_model(model),
        options={} if profile is None else {"profile": profile},
        chains=chains,
        microphone=mic,
        microphone_channels=channel_numbers(mic, mic_channels),
        monitor=monitor,
        config=StreamConfig(blocksize=blocksize),
        latency=validate_latency(latency),
        full_level=full_level,
    )
    choice.check()
    tls = _tls(tls_cert, tls_key)
    try:
        secret = None if _is_loopback(listen) else token()
        sockets = _bind(listen, port)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {listen} port {port}: {error.strerror or error}; choose another one"
        ) from error
    show = Desk(choice, values, preset=preset or "", recorder=Recorder(recordings), memory=memory)
    remote = None if osc is None else OscServer(show, osc)
    controller = None if midi is None else Midi(show, midi)
    if controller is not None:
        show.learn = controller.learn
    try:
        _serve(show, sockets, listen, secret, tls, browser, remote)
    finally:
        if controller is not None:
            controller.close()


def _tls(cert: Path | None, key: Path | None) -> dict[str, Any]:
    """What the server needs to speak HTTPS; tried before anything is opened."""
    if cert is None and key is None:
        return {}
    import ssl

    if cert is None or key is None:
        raise UsageError("--tls-cert and --tls-key go together")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is the first
        missing = next((path for path in (cert, key) if not path.is_file()), None)
        why = "no such file" if missing else "no PEM certificate with the key that belongs to it"
        raise UsageError(f"{missing or f'{cert} and {key}'}: {why}") from error
    return {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}


def _still_there(model: str) -> str | None:
    from realtime_sep.plugins import available_separators

    return model if model in available_separators() else None


def _is_loopback(address: str) -> bool:
    from realtime_sep.control.guard import is_loopback

    return is_loopback(address)


def _bind(address: str, port: int) -> list[socket.socket]:
    family, kind, proto, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, proto)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(place)
        listening.listen(64)
    except OSError:
        listening.close()
        raise
    return [listening]


def _serve(
    show: Desk,
    sockets: list[socket.socket],
    listen: str,
    secret: str | None,
    tls: dict[str, Any],
    browser: bool,
    remote: OscServer | None,
) -> None:
    import uvicorn

    from realtime_sep.control.server import MAX_MESSAGE, app

    port = sockets[0].getsockname()[1]
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(listen, listen)
    name = f"[{name}]" if ":" in name else name
    address = f"{'https' if tls else 'http'}://{name}:{port}/" + (
        "" if secret is None else f"?token={secret}"
    )
    config = uvicorn.Config(
        app(show, secret),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE,
        timeout_graceful_shutdown=_GRACE,
        server_header=False,
        **tls,
    )
    # The server raises the signal that ended it once more when it is done; there is more to do.
    before = {s: signal.signal(s, lambda *_: None) for s in (signal.SIGINT, signal.SIGTERM)}
    show.start()
    try:
        typer.echo(f"desk: {address}")
        if remote is not None:
            remote.start()
            typer.echo(f"OSC: UDP port {remote.port}")
        if browser:
            import webbrowser

            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=sockets)
    finally:
        if remote is not None:
            remote.close()
        show.close()
        for number, handler in before.items():
            signal.signal(number, handler)
