"""The live engine's life: opened, started, watched, brought back, stopped; and its own process.

The process exists so that no other Python thread shares the worker's interpreter lock: beside one
busy thread the worker would wait for the 5 ms switch interval at every hop.  Statistics, faders and
stems travel in shared memory; the pipe carries only what is rare: ready, errors, notices, stop.
"""

from __future__ import annotations

import gc
import math
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from multiprocessing.connection import Connection
from typing import Any

from realtime_sep import native
from realtime_sep.companion import NAMES, Beside, Companion, check
from realtime_sep.editing import Editing
from realtime_sep.effects.slot import SlotInfo
from realtime_sep.errors import DeviceError, EngineError, RealtimeSepError, UsageError
from realtime_sep.feeds import Feed
from realtime_sep.native import BridgeStats
from realtime_sep.parameters import MICROPHONE, MONITOR
from realtime_sep.recovery import Recovery
from realtime_sep.rig import CALLBACKS, Plan, Records, Rig, Wish
from realtime_sep.separators import SeparatorFactory
from realtime_sep.switching import Switch
from realtime_sep.types import Float32, Latency, SeparatorInfo, StreamConfig

#: Seconds between looks at the device and copies of the callback's counters.
TICK = 0.05
#: Seconds of exact silence after which the device may have an explanation.
_SUSPICIOUS = 2.0
#: Seconds for which a thread of the engine's process may keep the interpreter lock if another one
#: wants it.
_SWITCH_INTERVAL = 1e-4
#: Seconds that whoever brings a device back may take to see that nobody wants it any more.
_GIVE_UP_TIMEOUT = 1.0

_COPIED = tuple(
    name for name in CALLBACKS.names or () if name in {entry.name for entry in fields(BridgeStats)}
)


@dataclass(frozen=True)
class Opened:
    """What is settled once a host is built, and may change: with the device, the separator, or
    the chains of effects, by place.

    Attributes:
        microphone, monitor: their own latencies, input to output; None: there is none.
        beside: descriptions of second devices, by "mic" and "monitor".
    """

    info: SeparatorInfo
    latency: Latency
    device: str
    chains: Mapping[str, tuple[SlotInfo, ...]] = field(default_factory=dict)
    microphone: Latency | None = None
    monitor: Latency | None = None
    beside: Mapping[str, str] = field(default_factory=dict)


class Host:
    """One live stream in this process.

    Args:
        plan: what to run.
        records: where to write counters to and read controls from.
        tap: zeroed memory in which to lay out a ring for the stems; or None.

    Raises:
        RealtimeSepError: anything that keeps it from being built.
    """

    def __init__(self, plan: Plan, records: Records, tap: Any = None) -> None:
        _check(plan.config)
        self._plan, self._records = plan, records
        self._device = plan.device.open(plan.config)
        self._rig = Rig(plan, self._device, records, tap)
        self._beside: dict[str, Companion] = {}
        self._late_beside: dict[str, int] = {}  # as they were told last
        try:
            self._open_beside(plan)
        except BaseException:
            self._stop_beside()
            self._device.stop()
            raise
        self._recovery: Recovery | None = None
        self._switch: Switch | None = None
        self._wanted: tuple[Plan, int] | None = None
        self._editing: Editing | None = None
        self._wishes: deque[tuple[Wish, int]] = deque()
        self._reopens = 0
        self._notice: str | None = None
        self._started = self._flowing_since = 0
        self._suspicious = True

    @property
    def opened(self) -> Opened:
        """Separator, latency and device; the device's own part is known after `start`."""
        rig, device = self._rig, self._device
        return Opened(
            rig.info,
            replace(rig.latency, device=device.latency),
            device.description,
            rig.chains,
            self._late(MICROPHONE, rig.microphone_latency, rig.microphone),
            self._late(MONITOR, rig.monitor_latency, rig.monitor),
            {kind: companion.device.description for kind, companion in self._beside.items()},
        )

    def _late(self, kind: str, latency: Latency | None, feed: Feed | None) -> Latency | None:
        """With the two clocks, and what devices report: both, where there are two."""
        if latency is None:
            return None
        late = replace(latency, device=self._device.latency)
        if feed is None:
            return late
        companion = self._beside[kind]
        second = companion.device.latency * latency.samplerate / companion.device.samplerate
        return replace(late, device=late.device + round(second), clock=companion.latency)

    # ---- second devices

    def _open_beside(self, plan: Plan) -> None:
        wanted = {MICROPHONE: plan.microphone, MONITOR: plan.monitor}
        found = {kind: beside for kind, beside in wanted.items() if beside is not None}
        check(self._device, list(found))
        for kind, beside in found.items():
            self._beside[kind] = Companion(kind, beside, plan.config)
        self._attach()

    def _attach(self) -> None:
        """Second devices serve the rig that runs."""
        for kind, feed in ((MICROPHONE, self._rig.microphone), (MONITOR, self._rig.monitor)):
            if kind in self._beside and feed is not None:
                self._beside[kind].attach(feed)

    def _watch_beside(self) -> Iterator[tuple[str, Any]]:
        for kind, companion in self._beside.items():
            before = companion.device
            told = list(companion.watch())
            wider = abs(companion.latency - self._late_beside.get(kind, 0))
            if companion.device is not before or wider > 1e-3 * self._rig.info.samplerate:
                self._late_beside[kind] = companion.latency
                yield "changed", self.opened
            for line in told:
                yield "notice", line

    def use(self, kind: str, beside: Beside) -> None:
        """Let another device be the microphone, or the monitor, as soon as it is there."""
        changed: dict[str, Any] = {NAMES[kind]: beside}
        self._plan = replace(self._plan, **changed)
        self._beside[kind].use(beside)

    def _stop_beside(self) -> None:
        for companion in self._beside.values():
            companion.stop()

    @property
    def captured(self) -> Float32 | None:
        """What the device played, where it keeps that."""
        return self._device.captured

    def start(self) -> None:
        """Warm everything up, then let audio flow."""
        gc.collect()
        self._started = self._flowing_since = native.now()
        self._rig.start()
        for companion in self._beside.values():
            companion.start()
        gc.freeze()
        self.refresh()

    def stop(self, fade: bool = True) -> None:
        """Fade out, stop the device, then the worker.

        Raises:
            EngineError: the worker had failed.
        """
        if self._recovery is not None:
            self._recovery.give_up()
            self._recovery.join(_GIVE_UP_TIMEOUT)
        elif fade and self._flows():
            self._rig.finish()
            for companion in self._beside.values():
                companion.finish()
            deadline = time.monotonic() + 0.5
            while self._flows() and not self._rig.finished and time.monotonic() < deadline:
                time.sleep(0.005)
        self._stop_beside()
        self._rig.stop()
        for helper in (self._switch, self._editing):
            if helper is not None:
                helper.give_up()
                helper.join(_GIVE_UP_TIMEOUT)
        self._rig.close()
        self.refresh()

    def switch(
        self, separator: str | SeparatorFactory, options: Mapping[str, Any], number: int
    ) -> None:
        """Let another separator take over as soon as it is loaded; the newest wish counts.

        Args:
            number: of the wish, for the answer.
        """
        self._wanted = replace(self._plan, separator=separator, options=dict(options)), number

    def _attend_switch(self) -> Iterator[tuple[str, Any]]:
        if (switch := self._switch) is not None and not switch.is_alive():
            self._switch = None
            if switch.failure is None:
                made = switch.plan
                self._plan = replace(self._plan, separator=made.separator, options=made.options)
                yield "switched", (switch.number, self.opened)
            else:
                yield "unswitched", (switch.number, str(switch.failure))
        if self._wanted is not None and self._switch is None and self._recovery is None:
            self._switch, self._wanted = Switch(*self._wanted, self._rig), None
            self._switch.start()

    def edit(self, wish: Wish, number: int) -> None:
        """Change a chain of effects as soon as that is prepared; one wish after another.

        Args:
            number: of the wish, for the answer.
        """
        self._wishes.append((wish, number))

    def _attend_edits(self) -> Iterator[tuple[str, Any]]:
        if news := self._rig.news():
            yield "changed", self.opened
            for line in news:
                yield "notice", line
        if (editing := self._editing) is not None and not editing.is_alive():
            self._editing = None
            self._plan = replace(self._plan, chains=self._rig.planned_chains)
            if editing.failure is None:
                yield "edited", (editing.number, self.opened)
            else:
                yield "unedited", (editing.number, str(editing.failure))
        if self._wishes and self._editing is None and self._recovery is None:
            wish, number = self._wishes.popleft()
            self._editing = Editing(wish, number, self._rig, self._plan.config.realtime)
            self._editing.start()

    def _flows(self) -> bool:
        return self._started > 0 and not (self._device.finished or self._device.trouble)

    def refresh(self) -> None:
        """Copy the callback's counters to where the other side reads them."""
        stats = self._rig.stats()
        with self._records.callbacks.writing() as fields:
            for name in _COPIED:
                fields[name] = getattr(stats, name)
            fields["xruns"] = stats.xruns_in + stats.xruns_out
            fields["started"] = self._started
            fields["now"] = native.now()
            fields["reopens"] = self._reopens
            for kind, companion in self._beside.items():
                name = NAMES[kind]
                fields[f"{name}_reopens"] = companion.reopens
                fields[f"{name}_there"] = companion.there
            if MONITOR in self._beside:
                fields["monitor_fades"] = self._beside[MONITOR].fades

    def watch(self) -> Iterator[tuple[str, Any]]:
        """Look after the stream; call it every `TICK`, and take all that it yields.

        Yields:
            `("notice", str)` for people; `("reopened", Opened)` when a device has come back;
            `("switched", (number, Opened))` when another separator has taken over, `("unswitched",
            (number, str))` when it cannot; `("edited", (number, Opened))` and `("unedited",
            (number, str))` likewise for chains of effects, `("changed", Opened)` when an effect was
            taken out or a second device is another one, or later; `("ended", None)` when the device
            came to its own end.

        Raises:
            EngineError: the separator raised.
            DeviceError: the device is gone for good.
        """
        self.refresh()
        failure = self._rig.failure
        if failure is not None:
            raise EngineError(f"separator {self._rig.info.name!r} failed: {failure!r}")
        if self._recovery is not None:
            yield from self._await(self._recovery)
        elif self._device.finished:
            yield "ended", None
        elif trouble := self._device.trouble or self._too_quiet():
            yield from self._lose(trouble)
        else:
            yield from self._suspect()
        yield from self._watch_beside()
        yield from self._attend_switch()
        yield from self._attend_edits()
        if (notice := self._rig.notice) is not None and notice != self._notice:
            self._notice = notice
            yield "notice", notice

    def _too_quiet(self) -> str:
        """Why the callbacks are missed, or ""."""
        if not self._device.paced:
            return ""
        last = max(self._rig.stats().last_callback, self._flowing_since)
        age = (native.now() - last) * 1e-9
        if age <= self._rig.silence:
            return ""
        return f"no audio for {age:.1f} s; is the device, or the audio server, still there?"

    def _suspect(self) -> Iterator[tuple[str, Any]]:
        """Not one sample but zeros: some systems let those hear nothing who have not asked."""
        if self._suspicious and self._device.silence_hint:
            if self._records.counters.read()["peaks"][0] > 0:
                self._suspicious = False
            elif native.now() - self._flowing_since > _SUSPICIOUS * 1e9:
                self._suspicious = False
                yield "notice", self._device.silence_hint

    def _lose(self, trouble: str) -> Iterator[tuple[str, Any]]:
        trouble = f"{self._device.description}: {trouble}"
        if self._plan.config.reconnect <= 0:
            raise DeviceError(trouble)
        self._recovery = Recovery(self._plan, self._device, self._rig, self._records)
        self._recovery.start()
        patience = self._plan.config.reconnect
        how_long = "" if math.isinf(patience) else f" for {patience:g} s"
        yield "notice", f"{trouble.partition(';')[0]}; waiting for it{how_long}"

    def _await(self, recovery: Recovery) -> Iterator[tuple[str, Any]]:
        age = time.monotonic() - recovery.since
        if recovery.is_alive():
            if age <= self._plan.config.reconnect:
                return
            recovery.give_up()
            raise DeviceError(
                f"{self._device.description}: the device, or its audio server, is gone, "
                f"and has not come back within {self._plan.config.reconnect:g} s"
            )
        self._recovery = None
        self._device, self._rig = recovery.device, recovery.rig
        self._attach()
        if recovery.failure is not None:
            raise recovery.failure
        self._flowing_since = native.now()
        self._reopens += 1
        self.refresh()
        yield "reopened", self.opened
        yield "notice", f"{self._device.description}: back after {age:.1f} s"


def _check(config: StreamConfig) -> None:
    if config.guard < 64:
        raise UsageError(f"a guard of {config.guard} frames is too short to fade; at least 64")
    if config.channels not in (1, 2):
        raise UsageError(f"the engine runs 1 or 2 channels, not {config.channels}")
    if not 1 <= config.blocksize <= 65536:
        raise UsageError(f"a block size of {config.blocksize} frames makes no sense; try 256")
    if any(channel <= config.channels for channel in config.microphone):
        raise UsageError(
            f"the music is on channels 1 to {config.channels}; "
            f"the microphone can be on {config.channels + 1} and above"
        )


def serve(plan: Plan, records: Records, tap: Any, pipe: Connection) -> None:
    """Run a host as the life of this process; the target of the process that `Stream` spawns.

    Messages out: `("opened", Opened)`, `("started", Opened)`, what `Host.watch` yields,
    `("failed", error)`, `("closed", captured)`.
    Messages in: `"start"`, `("switch", separator, options, number)`, `("edit", wish, number)`,
    `("use", kind, beside)`, `"stop"`; a closed pipe means that nobody is there any more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that owns the terminal
    told_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told_to_end.append(number))
    host: Host | None = None
    try:
        host = Host(plan, records, tap)
        pipe.send(("opened", host.opened))
        if pipe.recv() == "start":
            if plan.config.realtime:
                native.lock_memory()
                # This thread does little, but whoever takes it off its core while it holds the
                # interpreter lock makes the worker wait: it must not be the one that can be.
                native.set_realtime(native.PRIORITY - 1)
            gc.disable()
            # A thread that loads another separator gives the lock back to the worker at once.
            sys.setswitchinterval(_SWITCH_INTERVAL)
            host.start()
            pipe.send(("started", host.opened))
            _attend(host, pipe, told_to_end)
        host.stop()
        pipe.send(("closed", host.captured))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        if host is not None:
            host.stop()
    except Exception as error:
        known = isinstance(error, RealtimeSepError)
        pipe.send(("failed", error if known else EngineError(f"the engine failed: {error!r}")))
        if host is not None:
            host.stop(fade=False)


def _attend(host: Host, pipe: Connection, told_to_end: list[int]) -> None:
    """Watch until told to stop, by the pipe or by a signal."""
    ended = False
    while not told_to_end:
        if pipe.poll(TICK):
            match pipe.recv():
                case ("switch", *wish):
                    host.switch(*wish)
                case ("edit", wish, number):
                    host.edit(wish, number)
                case ("use", kind, beside):
                    host.use(kind, beside)
                case _:
                    return
        elif not ended:
            for kind, content in host.watch():
                pipe.send((kind, content))
                ended |= kind == "ended"
