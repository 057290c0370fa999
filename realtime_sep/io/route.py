"""What other programs play, led through a stream: virtual devices of PulseAudio and PipeWire.

A route owns a *null sink* that programs are moved to; the engine listens to its monitor and plays
on the real output.  With a microphone the engine plays on a second null sink, from where a remapped
source offers the sound to other programs and a loopback leads it to the output.

Whatever a route changes it puts back (`realtime_sep.io.undo`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

from realtime_sep.errors import DeviceError, UsageError, unknown
from realtime_sep.io import pulse
from realtime_sep.io.programs import MARK, NONE, Choice, Playing, connected, owner, playing
from realtime_sep.io.undo import Found, Record, RecordFile, here, move_back, restore, routes, sweep

#: Seconds that a server may take to move streams along with the default sink.
_SETTLING = 0.5
#: Peaks per second that keep a null sink awake: it then works in chunks of 10 ms, not of 2 s.
_PIN_RATE = 100
#: Of the loopback from the virtual microphone to the output, in ms.  PulseAudio's resamples a bit
#: all the time, because the output may have a clock of its own.
_LOOPBACK_MS = 20


class Route:
    """Virtual devices and moved programs, for as long as the `with` block lasts.

    Usage: open a stream from `source` to `sink` with `environment` in force, start it, `begin()`,
    call `attend()` often, `end()`, and close the stream.

    Args:
        choice: what goes through.
        output: name or description of a sink; None: the default one; "none": only the microphone.
        microphone: whether to offer the result as a source, too.
        follow: whether programs that start later and fit `choice` are moved as well.  New streams
            of processes that were moved always are.

    Attributes:
        source: what the stream is to listen to, and `sink`: what to play on.
        description: of the output, for people; "" if there is none but the microphone.
        environment: variables for the process that plays, by which its streams are known.
    """

    def __init__(
        self,
        choice: Choice,
        *,
        output: str | None = None,
        microphone: bool = False,
        follow: bool = False,
    ) -> None:
        if output == "none" and not microphone:
            raise UsageError("--output none is for --microphone: nobody would hear anything")
        self._choice = choice
        self._wanted = output
        self._with_microphone = microphone
        self._follow = follow
        self._pid = os.getpid()
        self._seen: set[int] = set()  # indexes of streams
        self._processes: set[int] = set()  # whose streams were moved
        self._pins: list[Any] = []
        self._changed = False
        self._stack = ExitStack()
        self.source = self.sink = self.description = ""
        self.environment = {"PULSE_PROP": f"{MARK}={self._pid}"}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._server = stack.enter_context(connected())
            self._set_up(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, value, trace)

    def _set_up(self, stack: ExitStack) -> None:
        server = self._server
        sweep(server)
        others = [route for route in routes(server) if route.alive and route.record is not None]
        output = self._find_output(server, others)
        self._choice = self._settle(server, others)

        self._record = Record(self._pid, here(), server.server_info().cookie)
        self._record.output = "" if output is None else output.name
        if self._with_microphone:
            self._record.microphone = self._name("microphone")
        self._file = RecordFile.create(self._record)
        stack.callback(self._file.close)
        stack.callback(self._put_back)

        rate = 48000 if output is None else output.samplerate
        inlet = self._null_sink("in", f"Into realtime-sep ({self._pid})", rate)
        self._inlet = server.get_sink_by_name(inlet).index
        self.source = f"{inlet}.monitor"
        self.sink = self._record.output
        self.description = "" if output is None else output.description
        if output is not None and output.virtual:
            self._pin(f"{output.name}.monitor")  # who kept it awake may be moved away
        if self._with_microphone:
            self._make_microphone(rate)
        server.event_mask_set("sink_input")
        server.event_callback_set(self._note)

    def _name(self, part: str) -> str:
        return f"realtime_sep.{self._pid}.{part}"

    def _null_sink(self, part: str, description: str, rate: int) -> str:
        name = self._name(part)
        self._server.module_load(
            "module-null-sink",
            f"sink_name={name} rate={rate} channels=2 format=float32le "
            f"sink_properties=\"device.description='{description}'\"",
        )
        self._pin(f"{name}.monitor")
        return name

    def _make_microphone(self, rate: int) -> None:
        self.sink = self._null_sink("out", f"Out of realtime-sep ({self._pid})", rate)
        self._server.module_load(
            "module-remap-source",
            f"master={self.sink}.monitor source_name={self._record.microphone} "
            f"source_properties=\"device.description='realtime-sep microphone ({self._pid})'\"",
        )
        if self._record.output:
            self._server.module_load(
                "module-loopback",
                f"source={self.sink}.monitor sink={self._record.output} latency_msec={_LOOPBACK_MS}"
                " source_dont_move=true sink_dont_move=true",
            )

    def _pin(self, source: str) -> None:
        """Keep a null sink of PulseAudio awake: idle, it works in chunks of two seconds.

        A client that asks for a peak every 10 ms is the cheapest that makes it hurry; it goes when
        the connection goes.  pulsectl has this for one moment only (`get_peak_sample`), so its
        bindings are used directly.  PipeWire has one clock for all.
        """
        if "PipeWire" in self._server.server_info().server_name:
            return
        from pulsectl import _pulsectl as c

        # Mixers do not show what says that it is one.
        properties = c.pa.proplist_from_string("application.id=org.PulseAudio.pavucontrol")
        form = c.PA_SAMPLE_SPEC(format=c.PA_SAMPLE_FLOAT32NE, rate=_PIN_RATE, channels=1)
        stream = c.pa.stream_new_with_proplist(
            self._server._ctx, "realtime-sep pin", c.byref(form), None, properties
        )
        c.pa.proplist_free(properties)

        @c.PA_STREAM_REQUEST_CB_T  # type: ignore[untyped-decorator]
        def drop(stream: Any, size: int, userdata: Any) -> None:
            data, length = c.c_void_p(), c.c_int(0)
            c.pa.stream_peek(stream, data, c.byref(length))
            if length.value:
                c.pa.stream_drop(stream)

        self._pins.append(drop)  # C calls it
        c.pa.stream_set_read_callback(stream, drop, None)
        c.pa.stream_connect_record(
            stream,
            source.encode(),
            c.PA_BUFFER_ATTR(fragsize=4, maxlength=NONE),
            c.PA_STREAM_DONT_MOVE | c.PA_STREAM_PEAK_DETECT | c.PA_STREAM_ADJUST_LATENCY,
        )

    def _find_output(self, server: Any, others: Sequence[Found]) -> pulse.Endpoint | None:
        """The real sink to play on, or None if only the microphone is to be served."""
        wanted = self._wanted
        if wanted == "none":
            return None
        if wanted is None:
            wanted = server.server_info().default_sink_name or ""
            through = {route.pid: route.record for route in others}.get(owner(wanted) or 0)
            if through is not None:
                wanted = through.output  # what comes out of a route need not go through twice
        sinks = [e for e in pulse.endpoints() if e.kind == "output" and owner(e.name) is None]
        named = [sink for sink in sinks if sink.name == wanted]
        if not named and self._wanted is not None:
            route = pulse.resolve(None, wanted)
            named = [s for s in sinks if route is not None and s == route.endpoints.get("output")]
        if named:
            return named[0]
        if not sinks:
            raise DeviceError("the audio server has no output; plug one in")
        raise unknown("output", wanted, [sink.description for sink in sinks])

    def _settle(self, server: Any, others: Sequence[Found]) -> Choice:
        """What to move, unless another route has it."""
        systems = [r.pid for r in others if r.record is not None and r.record.system]
        if self._choice.system and systems:
            raise UsageError(
                f"process {systems[0]} routes all system audio already; end that route first"
            )
        streams = [s for s in playing(server) if s.route is None]
        choice = self._choice.settled(streams, follow=self._follow)
        owners = {r.pid for r in others} - set(systems)
        for stream in streams:
            if not choice.system and choice.fits(stream) and owner(stream.sink) in owners:
                raise UsageError(f"{stream} is routed by process {owner(stream.sink)} already")
        return choice

    @property
    def microphone(self) -> str:
        """Name of the virtual microphone; "" if there is none."""
        return self._record.microphone

    def begin(self) -> list[str]:
        """Move what is to be moved; call it when the stream runs, so that no music stops meanwhile.

        Returns:
            What goes through now, a line each.
        """
        server = self._server
        if self._choice.system:
            self._record.default = server.server_info().default_sink_name
            self._file.write(self._record)
            server.sink_default_set(self._name("in"))
            # The server takes most streams along; those need no moving back either.
            end = time.monotonic() + _SETTLING
            while time.monotonic() < end and any(
                s.sink == self._record.default and s.route is None for s in playing(server)
            ):
                time.sleep(0.02)
        return self._sort(self._choice.fits)

    def attend(self) -> list[str]:
        """Take in what has changed in the server, and move what is new, as `begin` does.

        Raises:
            DeviceError: the output is gone.
        """
        self._server.event_listen(timeout=1e-3)  # 0 would wait for ever
        if not self._changed:
            return []
        late = self._follow or self._choice.system
        return self._sort(lambda stream: late and self._choice.fits(stream))

    def _note(self, event: Any) -> None:
        self._changed = True

    def _sort(self, fits: Callable[[Playing], bool]) -> list[str]:
        """Look at every stream once, and move it if it is to go through."""
        self._changed = False
        streams = playing(self._server)
        self._keep_out([s for s in streams if s.route == self._pid])
        news = []
        for stream in streams:
            known = stream.pid is not None and stream.pid in self._processes
            others = self._choice.system and owner(stream.sink) not in (None, self._pid)
            if stream.route is not None or stream.index in self._seen or others:
                continue
            self._seen.add(stream.index)  # where people move it to later is their business
            if (known or fits(stream)) and self._take(stream):
                news.append(f"{stream} ▶ realtime-sep ▶ {self.description or 'microphone'}")
        return news

    def _keep_out(self, ours: Sequence[Playing]) -> None:
        """What the engine plays goes through no route, though a new default sink takes it along."""
        for stream in ours:
            if stream.sink != self.sink and owner(stream.sink) is not None:
                sinks = {sink.name: sink.index for sink in self._server.sink_list()}
                if self.sink not in sinks:
                    raise DeviceError(f"{self.description}: the output is gone; plug it in again")
                self._server.sink_input_move(stream.index, sinks[self.sink])

    def _take(self, stream: Playing) -> bool:
        import pulsectl

        if owner(stream.sink) != self._pid:
            self._record.moved[stream.index] = stream.sink
            self._file.write(self._record)
            try:
                self._server.sink_input_move(stream.index, self._inlet)
            except pulsectl.PulseError:
                return False  # it has ended, or may not be moved
        if stream.pid is not None:
            self._processes.add(stream.pid)
        return True

    def end(self) -> None:
        """Move everything back, while the stream still plays what is under way.

        On a connection of its own, since a server that hangs would never answer on the old one;
        then the next route puts back what there is.
        """
        with suppress(DeviceError), connected() as server:
            move_back(server, self._record)

    def _put_back(self) -> None:
        """On a connection of its own: the other one may be in the middle of something."""
        try:
            with connected() as server:
                restore(server, self._record)
        except DeviceError:
            return  # gone, or it hangs: the file tells the next route what there may be to do
        self._file.remove()
