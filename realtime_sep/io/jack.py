"""A client of a JACK server, with named ports: `realtime-sep:input_1`, `:mix_1`, `:vocals_1`, ...

JACK calls C (`native/src/jack.c`); Python only opens the client, registers ports and connects them,
through ctypes, so nothing is linked.  PortAudio's own JACK host API is not used: it names no ports,
does not tell the server's period, and neither closes a stream nor ends once the server has died.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from ctypes.util import find_library
from dataclasses import dataclass
from typing import Any

from realtime_sep.errors import DeviceError, SampleRateError, unknown
from realtime_sep.io.ends import Side
from realtime_sep.native import Bridge, JackPorts, Ring
from realtime_sep.types import Float32, StreamConfig

#: Name of the client; the server appends a number if it is taken.
CLIENT = "realtime-sep"
#: Seconds that closing a client may take before it is left behind: a server may hang.
_CLOSE_TIMEOUT = 1.0
#: Longest period that goes through the bridge in one piece.
_MAX_PERIOD = 8192

# <jack/types.h>
_NO_START_SERVER = 0x01
_IS_INPUT, _IS_OUTPUT = 0x1, 0x2
_AUDIO = b"32 bit float mono audio"

_FUNCTIONS: dict[str, Any] = {
    "jack_client_open": ctypes.c_void_p,
    "jack_client_close": ctypes.c_int,
    "jack_get_client_name": ctypes.c_char_p,
    "jack_get_sample_rate": ctypes.c_uint32,
    "jack_get_buffer_size": ctypes.c_uint32,
    "jack_port_register": ctypes.c_void_p,
    "jack_port_name": ctypes.c_char_p,
    "jack_port_get_all_connections": ctypes.c_void_p,
    "jack_get_ports": ctypes.c_void_p,
    "jack_connect": ctypes.c_int,
    "jack_activate": ctypes.c_int,
    "jack_set_process_callback": ctypes.c_int,
    "jack_set_xrun_callback": ctypes.c_int,
    "jack_set_sample_rate_callback": ctypes.c_int,
    "jack_on_shutdown": None,
    "jack_set_error_function": None,
    "jack_set_info_function": None,
    "jack_free": None,
}


def _load() -> Any:
    """libjack.

    Raises:
        DeviceError: it is not installed.
    """
    name = find_library("jack") or find_library("jack64")
    try:
        library = ctypes.CDLL(name or "libjack.so.0")
        for function, result in _FUNCTIONS.items():
            getattr(library, function).restype = result
    except (OSError, AttributeError) as error:
        raise DeviceError(
            f"JACK cannot be loaded ({error}); on Debian/Ubuntu: apt install libjack-jackd2-0"
        ) from error
    for setter in (library.jack_set_error_function, library.jack_set_info_function):
        setter(ctypes.c_void_p(JackPorts.quiet))  # it writes to the terminal otherwise
    return library


def running() -> bool:
    """Whether a server answers."""
    try:
        jack = _load()
    except DeviceError:
        return False
    client = jack.jack_client_open(f"{CLIENT} looks".encode(), _NO_START_SERVER, None)
    if client:
        jack.jack_client_close(ctypes.c_void_p(client))
    return bool(client)


@dataclass(frozen=True)
class JackSpec:
    """A client of the JACK server that `JACK_DEFAULT_SERVER` names.

    Attributes:
        input, output: client to listen to and to play on, in the order of its ports; None: nothing
            is connected, people do it by hand.
        side: "input" or "output" has only those ports, as a second client.
    """

    input: str | None = None
    output: str | None = None
    side: Side = "both"

    def open(self, config: StreamConfig, before: Any = None) -> JackDevice:
        connections = before.connections if isinstance(before, JackDevice) else {}
        return JackDevice(self, config, connections)


class JackDevice:
    """See `realtime_sep.io.device.Device`.

    Attributes:
        spec: what opened it.
        connections: at the last stop, while the server lived: names of the ports that were
            connected to ours, by the short names of ours.
    """

    captured: Float32 | None = None
    finished = False
    paced = True
    silence_hint = ""

    def __init__(
        self, spec: JackSpec, config: StreamConfig, connections: dict[str, list[str]] | None = None
    ) -> None:
        self.spec, self._channels = spec, config.channels
        self._restored = connections or {}
        self.connections: dict[str, list[str]] = {}
        self._jack = _load()
        self._ports: JackPorts | None = None
        self._bridge: Bridge | None = None
        self._closing: threading.Thread | None = None
        self._client = self._jack.jack_client_open(CLIENT.encode(), _NO_START_SERVER, None)
        if not self._client:
            raise DeviceError(
                "no JACK server answers; start one, for example: jackd -d alsa, or run this "
                "command through pw-jack"
            )
        self._client = ctypes.c_void_p(self._client)
        try:
            self._settle(config)
        except BaseException:
            self.stop()
            raise

    def _settle(self, config: StreamConfig) -> None:
        self.name = self._jack.jack_get_client_name(self._client).decode()
        self.samplerate = int(self._jack.jack_get_sample_rate(self._client))
        self.blocks: tuple[int, ...] = (int(self._jack.jack_get_buffer_size(self._client)),)
        side = self.spec.side
        self.in_channels = 0 if side == "output" else config.in_channels
        self.latency = 0
        ends = {"input": self.spec.input or "by hand", "output": self.spec.output or "by hand"}
        which = ends[side] if side != "both" else f"{ends['input']} ▶ {ends['output']}"
        self.description = f"{which} (JACK, {self.samplerate} Hz)"
        if config.samplerate not in (None, self.samplerate):
            raise SampleRateError(
                f"{self.description}: the server's sample rate is {self.samplerate} Hz, "
                f"not {config.samplerate}"
            )
        for client, kind, flags in self._ends():
            if client is not None and not self._of(client, flags):
                known = {name.partition(":")[0] for name in self._all(flags)}
                raise unknown(f"JACK {kind}", client, known - {self.name})

    def _ends(self) -> list[tuple[str | None, str, int]]:
        return [(self.spec.input, "input", _IS_OUTPUT), (self.spec.output, "output", _IS_INPUT)]

    def _all(self, flags: int) -> list[str]:
        """Full names of the audio ports of everybody."""
        return self._names(self._jack.jack_get_ports(self._client, None, _AUDIO, flags))

    def _of(self, client: str, flags: int) -> list[str]:
        return [name for name in self._all(flags) if name.rpartition(":")[0] == client]

    def _names(self, pointer: int | None) -> list[str]:
        """What a list of JACK's holds, which is freed."""
        if not pointer:
            return []
        array = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_char_p))
        names: list[str] = []
        while (name := array[len(names)]) is not None:
            names.append(name.decode())
        self._jack.jack_free(ctypes.c_void_p(pointer))
        return names

    def start(self, bridge: Bridge, ring: Ring | None, buses: Sequence[str]) -> None:
        jack, client = self._jack, self._client
        numbers = range(1, self._channels + 1)
        inputs = [f"input_{number}" for number in range(1, self.in_channels + 1)]
        outputs = [f"{bus}_{number}" for bus in buses for number in numbers]
        self._own = {name: self._register(name, _IS_INPUT) for name in inputs}
        self._own |= {name: self._register(name, _IS_OUTPUT) for name in outputs}
        self._bridge = bridge
        self._ports = ports = JackPorts(
            bridge,
            self._address("jack_port_get_buffer"),
            [self._own[name] for name in inputs],
            [self._own[name] for name in outputs],
            max(_MAX_PERIOD, *self.blocks),
        )
        argument = ctypes.c_void_p(ports.argument)
        for setter, function in (
            (jack.jack_set_process_callback, ports.process),
            (jack.jack_set_xrun_callback, ports.xrun),
            (jack.jack_set_sample_rate_callback, ports.rated),
            (jack.jack_on_shutdown, ports.shut),
        ):
            setter(client, ctypes.c_void_p(function), argument)
        if jack.jack_activate(client) != 0:
            raise DeviceError(f"{self.description}: the server does not let the client play")
        self._connect(inputs, outputs)

    def _address(self, function: str) -> int:
        return ctypes.cast(getattr(self._jack, function), ctypes.c_void_p).value or 0

    def _register(self, name: str, flags: int) -> int:
        port = self._jack.jack_port_register(
            self._client, name.encode(), _AUDIO, ctypes.c_ulong(flags), ctypes.c_ulong(0)
        )
        if not port:
            raise DeviceError(f"{self.description}: the server has no room for a port {name!r}")
        return int(port)

    def _connect(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """As before the device had gone, or else as it was asked for, as far as ports go."""
        pairs = []
        if self.spec.input is not None:
            pairs += list(zip(self._of(self.spec.input, _IS_OUTPUT), inputs, strict=False))
        if self.spec.output is not None:
            pairs += list(zip(outputs, self._of(self.spec.output, _IS_INPUT), strict=False))
        if self._restored:
            pairs = [(other, own) for own in inputs for other in self._restored.get(own, [])]
            pairs += [(own, other) for own in outputs for other in self._restored.get(own, [])]
        for source, sink in pairs:
            source, sink = (
                f"{self.name}:{name}" if name in self._own else name for name in (source, sink)
            )
            # One that has gone, or is connected already, is no reason not to play.
            self._jack.jack_connect(self._client, source.encode(), sink.encode())

    def stop(self) -> None:
        client, self._client = self._client, None
        if not client:
            return
        ports, bridge = self._ports, self._bridge

        def close(needed: Any = (ports, bridge)) -> None:  # what the callbacks use, until they end
            if ports is not None and not ports.gone:
                self._remember(client)
            self._jack.jack_client_close(client)

        # A server that hangs keeps us waiting until it goes on.
        self._closing = threading.Thread(target=close, name="realtime_sep close", daemon=True)
        self._closing.start()
        self._closing.join(_CLOSE_TIMEOUT)

    def _remember(self, client: Any) -> None:
        for name, port in self._own.items():
            others = self._jack.jack_port_get_all_connections(client, ctypes.c_void_p(port))
            self.connections[name] = self._names(others)

    @property
    def trouble(self) -> str:
        ports, bridge = self._ports, self._bridge
        if not self._client or ports is None or bridge is None or ports.gone:
            return "the JACK server is gone"
        if ports.samplerate not in (0, self.samplerate):
            return f"the server's sample rate is now {ports.samplerate} Hz"
        block = bridge.stats().block
        if block not in (0, *self.blocks):
            return f"the server's period is now {block} frames"
        return ""
