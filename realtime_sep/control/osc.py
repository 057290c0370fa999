"""Open Sound Control: faders of stage programs and phones turn what the page turns.

    /set/vocals -12.0      any parameter; "off" is silence     /preset "karaoke"
    /bypass 1              the same, shorter                   /model "unet"
    /vocals/mute 1         a dot of a name may be a slash      /record 1

Loopback only: OSC knows no passwords.
"""

from __future__ import annotations

import math
import threading
from typing import Any

from realtime_sep.control.desk import Desk
from realtime_sep.errors import RealtimeSepError, UsageError


class OscServer:
    """Listens on 127.0.0.1 in a thread of its own.

    Args:
        port: UDP; 0: any free one.

    Attributes:
        port: that it listens on.

    Raises:
        UsageError: python-osc is missing, or the port is taken.
    """

    def __init__(self, desk: Desk, port: int) -> None:
        try:
            from pythonosc.dispatcher import Dispatcher
            from pythonosc.osc_server import BlockingOSCUDPServer
        except ImportError as error:
            raise UsageError("OSC needs python-osc: pip install 'realtime-sep[osc]'") from error
        self._desk = desk
        dispatcher = Dispatcher()
        dispatcher.set_default_handler(self._take)
        try:
            self._server = BlockingOSCUDPServer(("127.0.0.1", port), dispatcher)
        except OSError as error:
            raise UsageError(f"OSC cannot have UDP port {port}: {error.strerror}") from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="realtime_sep OSC", daemon=True
        )
        self._complaint = ""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def _take(self, address: str, *arguments: Any) -> None:
        try:
            self._desk.command(command(address, arguments))
        except RealtimeSepError as error:
            complaint = f"OSC {address}: {error}"
            if complaint != self._complaint:  # a fader sends hundreds
                self._complaint = complaint
                self._desk.tell(complaint)


def command(address: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The desk's command that an OSC message means.

    Raises:
        UsageError: it has no argument, or more than one.
    """
    if len(arguments) != 1:
        raise UsageError("one argument, please")
    (value,) = arguments
    name = address.strip("/").removeprefix("set/").replace("/", ".")
    if name in ("preset", "model"):
        return {"type": name, "name": value}
    if name == "record":
        return {"type": "record", "on": bool(value)}
    silent = value == "off" or (isinstance(value, float) and value == -math.inf)
    return {"type": "set", "name": name, "value": None if silent else value}
