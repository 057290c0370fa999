"""The thing users hold: a live stream, wherever its engine runs."""

from __future__ import annotations

import pickle
import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any, Literal, Protocol, Self

import numpy as np

from realtime_sep.companion import NAMES, Beside
from realtime_sep.dsp.meters import decibels, percentile
from realtime_sep.effects import Effect
from realtime_sep.effects.slot import SlotInfo
from realtime_sep.effects.syntax import chain_text, parse_chain, parse_slot
from realtime_sep.engine import MIX
from realtime_sep.errors import EngineError, RealtimeSepError, UsageError, unknown
from realtime_sep.host import TICK, Host, Opened, serve
from realtime_sep.io.device import DeviceSpec
from realtime_sep.io.portaudio import PortAudioSpec
from realtime_sep.native import Ring
from realtime_sep.parameters import MICROPHONE, MONITOR, Gains, Parameter, Settings
from realtime_sep.rig import TAP_SECONDS, Plan, Records, SlotPlan, Wish
from realtime_sep.separators import SeparatorFactory
from realtime_sep.types import (
    BesideStats,
    Float32,
    Latency,
    SeparatorInfo,
    StreamConfig,
    StreamStats,
)
from realtime_sep.worker import BUCKET_EDGES, MAX_TAPPED, read_tag

#: Seconds to wait for the engine's process: it imports, compiles on its first run, loads a model.
_OPEN_TIMEOUT = 120.0
_STOP_TIMEOUT = 5.0
#: Seconds between looks at the engine's messages while waiting.
_POLL = 0.1
#: Gains that are further apart than this factor (6 dB) mean that something is to be unheard.
_ALIKE = 2.0


@dataclass(frozen=True)
class Block:
    """One hop of separated audio.

    Attributes:
        start: frame of the input stream that this block begins with.
        mix: `(frames, channels)`, aligned with the stems.
        stems: the same shape each, by name; they add up to the mix.
        output: what the mix bus made of them.
        latency: frames by which all this lags the engine's input; another separator, another lag.
        beside: the same shape each, by name, where they are: "mic", after its chain, before its
            fader, as late as it is in the output; "monitor", as that bus leaves.
    """

    start: int
    mix: Float32
    stems: dict[str, Float32]
    output: Float32
    latency: int
    beside: dict[str, Float32] = field(default_factory=dict)


def open_stream(
    separator: str | SeparatorFactory = "center",
    *,
    input: int | str | None = None,
    output: int | str | None = None,
    latency: Literal["low", "high"] | float = "low",
    backend: DeviceSpec | None = None,
    config: StreamConfig | None = None,
    vocals: float = 0.0,
    music: float = 0.0,
    effects: Sequence[str | Effect] = (),
    chains: Mapping[str, Effects] | None = None,
    separator_options: Mapping[str, Any] | None = None,
    ready: tuple[str, ...] = (),
    microphone: Beside | None = None,
    monitor: Beside | None = None,
    process: bool = True,
    tap: bool = True,
) -> Stream:
    """Open a live stream; audio flows from `start()` on (or within `with`).

    Args:
        separator: a name (`available_separators()`), or a class or function of an importable module
            that makes one (`SeparatorFactory`).
        input, output: device index, or part of its name; None: the default.
        latency: of the device's own buffers: "low", "high" or seconds.
        backend: what to open instead of a PortAudio device, for example `NullSpec(...)`.
        vocals, music: faders in dB; "music" is every stem that is not "vocals".
        effects: on the mix, after its faders: text (`"gain:db=-3"`) or objects, in this order.
        chains: of effects, by place: `{"mix": "compressor|reverb:mix=0.2", "vocals": "gate"}`; a
            place is "mix" or a stem, which passes through its chain before its fader.  For their
            text see `effects.syntax`; lists, as for `effects`, will do as well.
        separator_options: passed to the separator (`{"profile": "stage"}`).
        ready: names of separators that are loaded before audio flows, so that `Stream.switch` to
            them disturbs nothing: loading one meanwhile may make a block late.
        microphone: a second input device, for who sings along: it joins the mix behind the key
            change, through the chain at the place "mic" (unless `chains` says otherwise,
            `MICROPHONE_CHAIN`).  `StreamConfig.microphone` takes channels of the first one instead.
        monitor: a second output device, with levels of its own; "monitor" among
            `StreamConfig.outputs` takes channels of the first one instead.
        process: run the engine in a process of its own.  False keeps it here, for notebooks and
            tests; any other busy Python thread then makes it late (by 5 ms and more).
        tap: make room for `blocks()`.

    Raises:
        UsageError, DeviceError, ModelError: what is asked for cannot be.
        EngineError: the engine's process did not come up.
    """
    spec: DeviceSpec = PortAudioSpec(input, output, latency) if backend is None else backend
    planned = {place: slot_plans(effects) for place, effects in (chains or {}).items()}
    if effects:
        planned[MIX] = (*slot_plans(effects), *planned.get(MIX, ()))
    config = config or StreamConfig()
    if microphone is not None and config.microphone:
        raise UsageError("a microphone is a device, or channels of the first one, not both")
    if microphone is not None or config.microphone:
        planned.setdefault(MICROPHONE, slot_plans(MICROPHONE_CHAIN))
    plan = Plan(
        separator,
        spec,
        config,
        dict(separator_options or {}),
        planned,
        ready,
        microphone,
        monitor,
    )
    return Stream(plan, vocals=vocals, music=music, process=process, tap=tap)


#: What a microphone passes through unless somebody says otherwise: nothing in it makes a howl
#: likelier, and the gate keeps the room out while nobody sings.
MICROPHONE_CHAIN = "highpass:f=90|gate|compressor|!echo|reverb:mix=0.12"


def full_name(place: str, slot: str, parameter: str) -> str:
    """By which a parameter of an effect is turned; those on the mix need no place."""
    return f"{slot}.{parameter}" if place == MIX else f"{place}.{slot}.{parameter}"


#: Effects for a chain: its text, or texts and objects.
Effects = str | Sequence[str | Effect]


def slot_plans(effects: Effects) -> tuple[SlotPlan, ...]:
    """What these effects are to be made from.

    Raises:
        UsageError: text that is no chain.
    """
    planned: list[SlotPlan] = []
    for one in (effects,) if isinstance(effects, str) else effects:
        if isinstance(one, str):
            planned += (SlotPlan(spec, spec.bypassed) for spec in parse_chain(one))
        else:
            planned.append(SlotPlan(one))
    return tuple(planned)


class _Engine(Protocol):
    """A host, here or elsewhere."""

    opened: Opened
    captured: Float32 | None

    def start(self) -> Opened: ...
    def stop(self) -> None: ...
    def refresh(self) -> None: ...
    def switch(self, *wish: Any) -> None: ...
    def edit(self, wish: Wish, number: int) -> None: ...
    def use(self, kind: str, beside: Beside) -> None: ...
    def messages(self, seconds: float) -> Iterator[tuple[str, Any]]: ...


class _Here:
    """The host in this process."""

    def __init__(self, plan: Plan, records: Records, tap: Any) -> None:
        self._host = Host(plan, records, tap)
        self.opened = self._host.opened
        self.captured: Float32 | None = None

    def start(self) -> Opened:
        self._host.start()
        return self._host.opened

    def stop(self) -> None:
        self._host.stop()
        self.captured = self._host.captured

    def refresh(self) -> None:
        self._host.refresh()

    def switch(self, *wish: Any) -> None:
        self._host.switch(*wish)

    def edit(self, wish: Wish, number: int) -> None:
        self._host.edit(wish, number)

    def use(self, kind: str, beside: Beside) -> None:
        self._host.use(kind, beside)

    def messages(self, seconds: float) -> Iterator[tuple[str, Any]]:
        told = False
        try:
            for message in self._host.watch():
                told = True
                yield message
        except RealtimeSepError:
            self._host.stop(fade=False)
            raise
        if not told:
            time.sleep(min(seconds, TICK))


class _Elsewhere:
    """The host in a process of its own."""

    def __init__(self, plan: Plan, records: Records, tap: Any) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(plan, records, tap, theirs), name="realtime_sep engine", daemon=True
        )
        try:
            with _main_module_hidden(unless=plan):
                self._process.start()
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise UsageError(
                f"the engine's process cannot be given this separator, device or effect ({error}); "
                "define it in a module that can be imported, or open the stream with process=False"
            ) from error
        theirs.close()
        self.captured: Float32 | None = None
        self._over = False
        self.opened: Opened = self._expect("opened", _OPEN_TIMEOUT)

    def start(self) -> Opened:
        self._pipe.send("start")
        opened: Opened = self._expect("started", _OPEN_TIMEOUT)
        return opened

    def stop(self) -> None:
        try:
            if not self._over:
                self._pipe.send("stop")
                self.captured = self._expect("closed", _STOP_TIMEOUT)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it failed before and has said so
        finally:
            self._process.join(_STOP_TIMEOUT)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
            self._pipe.close()

    def refresh(self) -> None:
        """The host does so by itself, every tick."""

    def switch(self, *wish: Any) -> None:
        self._pipe.send(("switch", *wish))

    def edit(self, wish: Wish, number: int) -> None:
        try:
            self._pipe.send(("edit", wish, number))
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise UsageError(
                f"the engine's process cannot be given this effect ({error})"
            ) from error

    def use(self, kind: str, beside: Beside) -> None:
        self._pipe.send(("use", kind, beside))

    def messages(self, seconds: float) -> Iterator[tuple[str, Any]]:
        if self._pipe.poll(seconds):
            kind, content = self._receive()
            if kind == "closed":  # ended by a signal, as all processes of a session may be
                self._over, self.captured = True, content
                kind = "ended"
            yield kind, content

    def _expect(self, wanted: str, timeout: float) -> Any:
        """The content of the next message of this kind; others are of no interest any more."""
        deadline = time.monotonic() + timeout
        while self._pipe.poll(max(0.0, deadline - time.monotonic())):
            kind, content = self._receive()
            if kind == wanted:
                return content
        self._process.kill()
        raise EngineError(f"the engine's process did not answer within {timeout:.0f} s")

    def _receive(self) -> tuple[str, Any]:
        try:
            kind, content = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(_STOP_TIMEOUT)
            code = self._process.exitcode
            raise EngineError(
                f"the engine's process died (exit code {code}); "
                "a plugin or a driver may have crashed it"
            ) from None
        if kind == "failed":
            self._process.join(_STOP_TIMEOUT)
            raise content
        return kind, content


@contextmanager
def _main_module_hidden(unless: Plan) -> Iterator[None]:
    """Keep a spawned process from importing the user's script again where nothing needs it.

    With this, a plain script without `if __name__ == "__main__"` may open a stream; only one that
    hands over a class of its own needs the guard (multiprocessing says so).
    """
    effects = [slot.effect for chain in unless.chains.values() for slot in chain]
    beside = [second.spec for second in (unless.microphone, unless.monitor) if second is not None]
    parts = (unless.separator, unless.device, *effects, *beside)
    if any(getattr(part, "__module__", None) == "__main__" for part in parts):
        yield
        return
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class Stream:
    """A live stream.  Use it in a `with` statement, or call `start`, `stop` and `close`.

    It starts once; make another one to start again.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        vocals: float = 0.0,
        music: float = 0.0,
        process: bool = True,
        tap: bool = True,
    ) -> None:
        self._config = plan.config
        self._records = Records()
        memory = _tap_memory(plan.config) if tap else None
        engine = _Elsewhere if process else _Here
        self._engine: _Engine = engine(plan, self._records, memory)
        self._opened = self._engine.opened
        self._tap = Ring.attach(memory) if tap else None
        self._state: Literal["open", "running", "ended", "closed"] = "open"
        self._notices: list[str] = []
        self._attending = threading.Lock()
        self._wished = self._answered = self._edits_wished = self._edits_answered = 0
        self._turning = threading.Lock()
        self._settings = self._new_settings(())
        self._cells: dict[str, int] = {}
        self._furnish()
        self.set_many({"vocals": vocals, "music": music})

    # ---- life

    def start(self) -> None:
        """Let audio flow.

        Raises:
            DeviceError: the device does not start.
        """
        if self._state != "open":
            raise UsageError("a stream starts once; open another one")
        self._opened = self._engine.start()
        self._state = "running"

    def stop(self) -> None:
        """Fade out and stop; does nothing if it does not run.  Counters and captures stay."""
        if self._state in ("running", "ended"):
            self._state = "closed"
            with self._attending:
                self._engine.stop()

    def close(self) -> None:
        """Stop, and let go of everything.  Never raises for what went wrong before."""
        state, self._state = self._state, "closed"
        if state != "closed":
            try:
                with self._attending:
                    self._engine.stop()
            except RealtimeSepError as error:
                self._notices.append(str(error))

    def __enter__(self) -> Self:
        if self._state == "open":
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the device comes to its own end; it must still be stopped or closed.

        Returns:
            True if it ended, False after `timeout` seconds.

        Raises:
            DeviceError: the device is gone.
            EngineError: the engine failed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._state == "running":
            left = _POLL if deadline is None else min(_POLL, deadline - time.monotonic())
            if left <= 0:
                break
            self._attend(left)
        return self._state == "ended"

    def _attend(self, seconds: float = 0.0) -> None:
        """Take in what the engine has to say; one thread at a time."""
        with self._attending:
            if self._state == "closed":
                return
            try:
                for kind, content in self._engine.messages(seconds):
                    self._take_in(kind, content)
            except Exception:
                self._state = "closed"
                raise

    def _take_in(self, kind: str, content: Any) -> None:
        match kind:
            case "ended":
                self._state = "ended"
            case "notice":
                self._notices.append(content)
            case "reopened" | "changed":
                self._opened = content
            case "switched":
                self._answered, self._opened = content
            case "unswitched":
                self._answered, reason = content
                self._notices.append(reason)
            case "edited":
                self._edits_answered, self._opened = content
                self._furnish()
            case "unedited":
                self._edits_answered, reason = content
                self._notices.append(reason)

    # ---- what can be turned

    def set(self, name: str, value: float) -> None:
        """Turn a parameter, smoothly; see `parameters`.

        Args:
            name: "vocals", "music" (every other stem) or the name of a stem, in dB, minus infinity
                (silence) to +6; "master" likewise; "vocals.mute", "music.solo" and the like, and
                "bypass" (the original), on or off; "wet", 0 (the original) to 1; and those of
                effects, such as "reverb.mix".

        Raises:
            UsageError: there is no such parameter, or it does not go so far.
        """
        self.set_many({name: value})

    def set_many(self, values: Mapping[str, float]) -> None:
        """Turn several parameters at once; all of them or, with an error, none."""
        with self._turning:
            trial = self._settings.copy()
            for name, value in values.items():
                trial.set(name, value)
            self._settings = trial
            self._steer(trial.gains(), values)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Descriptions of everything that can be turned, by name."""
        return self._settings.parameters

    @property
    def values(self) -> dict[str, float]:
        """Where everything stands, by name."""
        return dict(self._settings.values)

    @property
    def settings(self) -> Settings:
        """The same with its descriptions; a copy."""
        return self._settings.copy()

    def _new_settings(self, effects: Sequence[Parameter]) -> Settings:
        chains = self._opened.chains
        return Settings(
            self.info.stems,
            effects,
            microphone=MICROPHONE in chains,
            monitor=MONITOR in chains,
        )

    def _furnish(self) -> None:
        """There are parameters for what is in the chains, and for nothing else."""
        with self._turning:
            before = self._settings
            effects: list[Parameter] = []
            cells: dict[str, int] = {}
            made: dict[str, float] = {}
            for place, slots in self._opened.chains.items():
                for slot in slots:
                    for i, p in enumerate(slot.parameters):
                        name = full_name(place, slot.name, p.name)
                        effects.append(
                            replace(p, name=name, label=p.label or f"{slot.name}: {p.name}")
                        )
                        cells[name] = slot.cell + i
                        made[name] = slot.values.get(p.name, p.default)
            self._settings = self._new_settings(effects)
            for name in self._settings.values:
                if name not in cells or self._cells.get(name) == cells[name]:
                    self._settings.values[name] = before.values[name]
                else:
                    self._settings.values[name] = made[name]
            self._cells = cells

    def _steer(self, gains: Gains, turned: Mapping[str, float]) -> None:
        # Late blocks fade to the dry mix only where nothing in it is meant to be unheard.
        heard = gains.heard
        alike = min(heard) > 0 and max(heard) <= _ALIKE * min(heard)
        dry = self._config.fallback == "dry" or (self._config.fallback == "auto" and alike)
        with self._records.controls.writing() as fields:
            fields["gains"][: len(heard)] = gains.stems
            fields["wet"], fields["bypass"], fields["master"] = (
                gains.wet,
                gains.bypass,
                gains.master,
            )
            fields["microphone"] = gains.microphone
            fields["microphone_gain"] = gains.microphone_gain
            fields["monitor"][: len(gains.monitor)] = gains.monitor
            fields["dry"] = max(heard) if dry else 0.0
            for name in turned:
                if (cell := self._cells.get(name)) is not None:
                    fields["turns"][cell] = self._settings.values[name]
                    fields["times"][cell] += 1
                    fields["turned"] += 1

    def switch(self, separator: str | SeparatorFactory, **options: Any) -> None:
        """Let another separator take over while audio flows, by a crossfade.

        Returns at once: it is loaded beside the running one (unless it is `ready`, or was heard
        lately), listens for half a second, and then `info` and `latency` are its own.  The stream
        keeps its stems: what the new one calls otherwise goes to the last of them.  If it cannot be
        had, a notice says why, and the old one goes on.

        Raises:
            UsageError: the stream does not run.
        """
        if self._state != "running":
            raise UsageError("the stream does not run; open it with the separator that you want")
        self._wished += 1
        self._engine.switch(separator, options, self._wished)

    @property
    def switching(self) -> bool:
        """Whether another separator is on its way in."""
        if self._state == "running":
            self._attend()
        return self._answered < self._wished

    def use(self, kind: str, beside: Beside) -> None:
        """Let another device be the microphone ("mic") or the "monitor" while all others play on.

        Returns at once: the device there is fades out, the other one is heard as soon as it is
        open; until then `stats` says that none is `there`.  A notice tells if it cannot be had.

        Raises:
            UsageError: the stream has no such second device, or does not run.
        """
        if self._state != "running":
            raise UsageError("the stream does not run; open it with the device that you want")
        if kind not in self._opened.beside:
            raise UsageError(f"this stream was opened without a {NAMES.get(kind, kind)} of its own")
        self._engine.use(kind, beside)

    # ---- chains of effects

    @property
    def chains(self) -> dict[str, tuple[SlotInfo, ...]]:
        """What is in the chains, by place: "mix" and every stem."""
        if self._state == "running":
            self._attend()
        return dict(self._opened.chains)

    @property
    def chain_texts(self) -> dict[str, str]:
        """What would make the same chains, as they stand now; without what failed."""
        texts = {}
        for place, slots in self.chains.items():
            specs = []
            for slot in slots:
                spec = parse_slot(slot.effect)
                turned = {
                    p.name: value
                    for p in slot.parameters
                    if (value := self.values[full_name(place, slot.name, p.name)]) != p.default
                    or p.name in spec.options
                }
                options = {**spec.options, **turned}
                if not slot.failed:
                    specs.append(replace(spec, options=options, bypassed=slot.bypassed))
            texts[place] = chain_text(specs)
        return texts

    def add_effect(self, place: str, effect: str | Effect, at: int | None = None) -> None:
        """Put effects into a chain while audio flows, heard by a fade.

        Like all that change a chain, this returns at once, and `editing` tells until it has
        happened: the effect is loaded beside the running ones, listens, and is faded to; `latency`
        and `parameters` then are what they have become.  If it cannot be had, a notice says why.

        Args:
            place: "mix" or a stem.
            effect: text, like "reverb:mix=0.2" (or several, with bars), or an object.
            at: before the slot of this number; None: at the end.

        Raises:
            UsageError: there is no such place, or the text is none; or the stream does not run.
        """
        self._edit(Wish("add", place, slots=slot_plans([effect]), at=at))

    def remove_effect(self, place: str, name: str) -> None:
        """Take the slot of this name out of a chain.  Raises as `add_effect`."""
        self._edit(Wish("remove", place, name))

    def move_effect(self, place: str, name: str, at: int) -> None:
        """Put a slot before number `at` of the others.  Raises as `add_effect`."""
        self._edit(Wish("move", place, name, at=at))

    def bypass_effect(self, place: str, name: str, on: bool = True) -> None:
        """Let a slot pass its input, as late as ever, or not.  Raises as `add_effect`."""
        self._edit(Wish("bypass", place, name, on=on))

    def set_chain(self, place: str, effects: Effects) -> None:
        """Put another chain in the place of one.  Raises as `add_effect`."""
        self._edit(Wish("set", place, slots=slot_plans(effects)))

    def _edit(self, wish: Wish) -> None:
        if self._state != "running":
            raise UsageError("the stream does not run; open it with the effects that you want")
        if wish.place not in self._opened.chains:
            raise unknown("place of a chain", wish.place, self._opened.chains)
        self._engine.edit(wish, self._edits_wished + 1)
        self._edits_wished += 1

    @property
    def editing(self) -> bool:
        """Whether chains are yet to become what was wished."""
        if self._state == "running":
            self._attend()
        return self._edits_answered < self._edits_wished

    # ---- what it is and how it does

    @property
    def info(self) -> SeparatorInfo:
        """The separator, as it is."""
        return self._opened.info

    @property
    def latency(self) -> Latency:
        """Delay from input to output; `latency.frames` is exact, `latency.device` is hearsay."""
        return self._opened.latency

    @property
    def microphone_latency(self) -> Latency | None:
        """Delay from a microphone to the output; None: there is none."""
        return self._opened.microphone

    @property
    def monitor_latency(self) -> Latency | None:
        """Delay from the input to the monitor; None: there is none."""
        return self._opened.monitor

    @property
    def beside(self) -> dict[str, str]:
        """Second devices, for people, by "mic" and "monitor"."""
        return dict(self._opened.beside)

    @property
    def device(self) -> str:
        """What plays, for people."""
        return self._opened.device

    @property
    def running(self) -> bool:
        """Whether audio flows."""
        if self._state == "running":
            self._attend()
        return self._state == "running"

    @property
    def captured(self) -> Float32 | None:
        """What a capturing null device played; known after `stop`."""
        return self._engine.captured

    def notices(self) -> list[str]:
        """What separator and device had to say since the last call, for people."""
        if self._state == "running":
            self._attend()
        notices, self._notices = self._notices, []
        return notices

    @property
    def stats(self) -> StreamStats:
        """Counters, now."""
        self._engine.refresh()
        worker, bridge = self._records.counters.read(), self._records.callbacks.read()
        controls = self._records.controls.read()
        stems = self.info.stems
        busy = worker["busy"]
        peaks = [decibels(float(p)) for p in worker["peaks"][: len(stems) + 2]]
        last = max(bridge["last_callback"], bridge["started"])
        return StreamStats(
            samplerate=self.info.samplerate,
            hop=self.info.hop,
            hops=int(worker["hops"]),
            frames=int(bridge["frames"]),
            callbacks=int(bridge["callbacks"]),
            late_blocks=int(bridge["late_blocks"]),
            fades=int(bridge["fades"]),
            xruns=int(bridge["xruns"]),
            dry_frames=int(bridge["dry_frames"]),
            dropped_frames=int(bridge["dropped_frames"]),
            overflow_frames=int(bridge["overflow_frames"]),
            reopens=int(bridge["reopens"]),
            skipped_hops=int(worker["skipped_hops"]),
            epoch=int(worker["epoch"]),
            bad_hops=int(worker["bad_hops"]),
            bad_input=int(worker["bad_input"]),
            limited_hops=int(worker["limited_hops"]),
            failed_effects=int(worker["failed_effects"]),
            tap_overflow=int(worker["tap_overflow"]) if controls["tap"] else 0,
            worker_p50=percentile(busy, BUCKET_EDGES, 0.5),
            worker_p99=percentile(busy, BUCKET_EDGES, 0.99),
            worker_p999=percentile(busy, BUCKET_EDGES, 0.999),
            worker_max=float(worker["max_ns"]) * 1e-9,
            worker_cpu=float(worker["cpu_ns"]) * 1e-9,
            elapsed=float(bridge["now"] - bridge["started"]) * 1e-9 if bridge["started"] else 0.0,
            callback_age=float(bridge["now"] - last) * 1e-9 if bridge["started"] else 0.0,
            callback_max=float(bridge["busy_max"]) * 1e-9,
            last_late=float(bridge["last_late"]) * 1e-9,
            realtime=bool(worker["realtime"]),
            input_peak=peaks[0],
            output_peak=peaks[-1],
            loudness=float(worker["loudness"]),
            stem_peaks=dict(zip(stems, peaks[1:-1], strict=True)),
            microphone=self._beside_stats(MICROPHONE, worker, bridge),
            monitor=self._beside_stats(MONITOR, worker, bridge),
        )

    def _beside_stats(self, kind: str, worker: Any, bridge: Any) -> BesideStats | None:
        if kind not in self._opened.chains:
            return None
        name, own = NAMES[kind], kind in self._opened.beside
        fades = int(bridge["monitor_fades"]) if kind == MONITOR else 0
        return BesideStats(
            peak=decibels(float(worker[f"{name}_peak"])),
            gaps=int(worker[f"{name}_gaps"]) + fades,
            ppm=float(worker[f"{name}_ppm"]),
            reopens=int(bridge[f"{name}_reopens"]),
            there=bool(bridge[f"{name}_there"]) if own else True,
        )

    # ---- the stems themselves

    def blocks(self) -> Iterator[Block]:
        """The separated audio, hop by hop, while the stream runs; ends when it ends.

        Reading begins with this call, which may precede `start`.  A reader that is more than two
        seconds behind loses blocks (`stats.tap_overflow` counts frames, `Block.start` tells where);
        a free-running null device waits for it instead.

        Raises:
            UsageError: the stream was opened with `tap=False`.
            DeviceError, EngineError: as `wait`.
        """
        if self._tap is None:
            raise UsageError("this stream was opened with tap=False; there are no stems to read")
        self._listen(True)
        return self._blocks(self._tap)

    @property
    def buses_beside(self) -> tuple[str, ...]:
        """What a `Block` holds beside the stems: of "mic" and "monitor", those there are."""
        return tuple(name for name in NAMES if name in self._opened.chains)

    def _blocks(self, tap: Ring) -> Iterator[Block]:
        hop, stems, beside = self.info.hop, self.info.stems, self.buses_beside
        try:
            while True:
                view = tap.claim_read(hop + 1)
                if view is None:
                    if self._state in ("ended", "closed"):
                        return
                    self._attend(hop / self.info.samplerate)
                    continue
                (start, latency), frames = read_tag(view[0]), view[1:].copy()
                tap.commit_read(hop + 1)
                parts = iter(np.split(frames, len(stems) + 2 + len(beside), axis=1))
                by_stem = {name: next(parts) for name in stems}
                mix, output = next(parts), next(parts)
                others = dict(zip(beside, parts, strict=True))
                yield Block(start, mix, by_stem, output, latency, others)
        finally:
            self._listen(False)

    def _listen(self, on: bool) -> None:
        with self._turning, self._records.controls.writing() as fields:
            fields["tap"] = on


def _tap_memory(config: StreamConfig) -> Any:
    """Memory for the widest tap that there can be; the host lays out what it needs."""
    frames = round(TAP_SECONDS * (config.samplerate or 48000))
    size = Ring.bytes_needed(frames, MAX_TAPPED * config.channels)
    return get_context("spawn").RawArray("B", size)
