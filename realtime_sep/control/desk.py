"""The desk: one stream that goes on whatever happens, and everything that people do to it.

A stream ends when its device, its file or its engine does; the desk opens the next one, and all
that was turned stays as it was.  Hands (the page, scripts) send `command`s; whatever they see comes
from `state` and `meters`, which never touch the audio path: they read shared memory.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from realtime_sep.companion import MAIN, NAMES, SecondDevices, second_devices
from realtime_sep.control import catalogue, presets
from realtime_sep.control.memory import Left, Memory
from realtime_sep.control.recorder import OUTPUT, Recorder, buses
from realtime_sep.control.spectrum import Spectrum
from realtime_sep.effects.slot import SlotInfo
from realtime_sep.effects.syntax import BETWEEN, SlotSpec, parse_chain, parse_slot
from realtime_sep.engine import MIX
from realtime_sep.errors import EngineError, RealtimeSepError, UsageError, unknown
from realtime_sep.io.device import DeviceSpec
from realtime_sep.io.feedback import SAFE_START_DB, feedback, singing
from realtime_sep.io.null import NullSpec
from realtime_sep.io.portaudio import PortAudioSpec
from realtime_sep.io.song import SongSpec
from realtime_sep.parameters import MICROPHONE, MONITOR, MUSIC, VOCALS, Parameter, Settings
from realtime_sep.plugins import available_effects
from realtime_sep.stream import Stream, full_name, open_stream
from realtime_sep.types import Latency, StreamConfig

#: Seconds before a stream that could not be opened is tried again.
_RETRY = 2.0
#: Seconds between looks at what the engine has to say.
_POLL = 0.1
#: Seconds between memories.
_KEEP = 5.0
#: Lines for people that are kept.
_NOTICES = 20
NULL = "null"
#: Which kind of device is chosen for what.
_KINDS = {"input": "input", "output": "output", "microphone": "input", "monitor": "output"}


@dataclass(frozen=True)
class Choice:
    """What the desk plays through.

    Attributes:
        input: a device, "null", or an audio file that is played again and again; None: the default.
        output: a device or "null"; a file plays to "null" only.
        options: of the model.
        chains: of effects, by place, as text; those of places that are not there wait for them.
        microphone: an input device, "null", an audio file that is played again and again, or
            `MAIN`: channels of the first device; None: there is none.
        microphone_channels: counted from 1; empty: the first two as one, of `MAIN` the third.
        monitor: an output device, "null" or `MAIN`; None: there is none.
        full_level: also where the output may come back as input.
    """

    input: str | None = None
    output: str | None = None
    model: str = "center"
    options: Mapping[str, Any] = field(default_factory=dict)
    chains: Mapping[str, str] = field(default_factory=dict)
    microphone: str | None = None
    microphone_channels: tuple[int, ...] = ()
    monitor: str | None = None
    config: StreamConfig = field(default_factory=StreamConfig)
    latency: Any = "low"
    full_level: bool = False

    @property
    def device(self) -> str:
        """Under which name settings are remembered."""
        return f"{self.input or 'default'} > {self.output or 'default'}"

    def check(self) -> None:
        """Say at once what cannot be, before anything is opened.

        Raises:
            UsageError: input and output do not go together.
        """
        if (
            not self.plays_file
            and NULL in (self.input, self.output)
            and {self.input, self.output} != {NULL}
        ):
            raise UsageError("the null device stands alone: give it as input and output")

    @property
    def plays_file(self) -> bool:
        return self.input not in (None, NULL) and Path(str(self.input)).is_file()

    def beside(self) -> SecondDevices:
        """What to open beside it.

        Raises:
            AudioFileError: the microphone is a file that cannot be read.
        """
        return second_devices(
            self.microphone, self.microphone_channels, self.monitor, latency=self.latency
        )

    def own(self, kind: str) -> bool:
        """Whether "microphone" or "monitor" is a device of its own."""
        return getattr(self, kind) not in (None, MAIN)

    def spec(self) -> tuple[DeviceSpec, StreamConfig]:
        """What to open.

        Raises:
            UsageError: input and output do not go together.
            AudioFileError: the file cannot be read.
        """
        self.check()
        if self.plays_file:
            from realtime_sep.io.file import read_audio

            song, samplerate = read_audio(str(self.input), self.config.channels)
            if self.output == NULL:
                return NullSpec(song, loop=True), replace(self.config, samplerate=samplerate)
            player = PortAudioSpec(None, _device(self.output), self.latency)
            return SongSpec(song, samplerate, player), self.config
        if self.input == NULL:
            return NullSpec(), self.config
        return PortAudioSpec(_device(self.input), _device(self.output), self.latency), self.config


def _device(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


class Desk:
    """One desk.

    Args:
        choice: what to begin with.
        values: parameters to begin with, before what is remembered of the device.
        preset: where those come from.
        recorder, memory: where recordings and memories go.

    Attributes:
        version: grows whenever `state` changes.
        learn: lets a MIDI controller learn a parameter, where there is one.
    """

    def __init__(
        self,
        choice: Choice,
        values: Mapping[str, float] | None = None,
        *,
        preset: str = "",
        recorder: Recorder | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.recorder = Recorder() if recorder is None else recorder
        self.recorder.tell = self.tell
        self._memory = Memory() if memory is None else memory
        self._lock = threading.RLock()
        self._choice = choice
        self._settings = Settings((VOCALS, "accompaniment"))
        self._extra: dict[str, float] = {}  # of stems that this stream does not have
        self._stream: Stream | None = None
        self._spectrum: Spectrum | None = None
        self._chains: dict[str, tuple[SlotInfo, ...]] = {}
        self._beside: dict[str, str] = {}
        self._shape: tuple[object, ...] | None = None
        self._trouble = "starting"
        self._wanted_model: str | None = None
        self._preset = preset
        self._notices: deque[tuple[float, str]] = deque(maxlen=_NOTICES)
        self._restarts = 0
        self._anew = threading.Event()
        self._over = threading.Event()
        self.version = self._kept = 0
        self.learn: Callable[[str], None] | None = None
        self._take_values(values or {})
        self._pump = threading.Thread(target=self._run, name="realtime_sep desk", daemon=True)
        self._attendant = threading.Thread(
            target=self._attend, name="realtime_sep desk attendant", daemon=True
        )

    # ---- life

    def start(self) -> None:
        """Open the stream, and open it again whenever it ends."""
        threading.Thread(target=catalogue.models, daemon=True).start()  # before a page asks
        self._pump.start()
        self._attendant.start()

    def close(self) -> None:
        """Stop everything; a recording is completed."""
        self._note_chains()
        self._over.set()
        self._anew.set()
        self._close_stream()
        self._pump.join(15)
        self.recorder.stop()
        self._remember()

    def _close_stream(self) -> None:
        if (stream := self._stream) is not None:
            stream.close()

    def _run(self) -> None:
        while not self._over.is_set():
            self._anew.clear()
            try:
                self._play()
            except RealtimeSepError as error:
                self._fail(str(error))
            except Exception as error:  # whatever it is, the show goes on
                self._fail(f"unexpected: {error!r}")
            finally:
                self._close_stream()
                self._stream = None
                self._changed()
            if self._trouble:
                self._anew.wait(_RETRY)

    def _fail(self, reason: str) -> None:
        if not self._over.is_set() and not self._anew.is_set():
            self._note_chains()
            if reason != self._trouble:
                self.tell(reason)
            self._trouble = reason
            self._restarts += 1

    def _play(self) -> None:
        """One stream from opening to its end."""
        with self._lock:
            choice = self._choice
        stream = self._opened(choice)
        with self._lock:
            if self._over.is_set() or choice != self._choice:
                stream.close()
                return
            everything = {**self._extra, **self._settings.values}
            self._furnish(stream)
            said = {  # by the text of chains, which wins over what is remembered
                full_name(place, slot.name, name)
                for place, slots in self._chains.items()
                for slot in slots
                for name in slot.values
            }
            self._take_values({k: v for k, v in everything.items() if k not in said})
            self._beware(stream, choice)
            stream.set_many(self._settings.values)
            self._end_recording_of_another(stream)
            self._spectrum = spectrum = Spectrum(stream.info.samplerate)
            self._stream, self._wanted_model = stream, None
        blocks = stream.blocks()
        stream.start()
        self._trouble = ""
        self._changed()
        for block in blocks:
            self.recorder.write(block)
            spectrum.push(block)
        if not self._over.is_set() and not self._anew.is_set():
            self._note_chains()
            self._trouble = ""  # a device that came to its own end begins again

    def _opened(self, choice: Choice) -> Stream:
        """The stream for a choice; without effects where those are what keeps it from playing."""
        spec, config = choice.spec()
        second = choice.beside()
        chains = self._fitting(choice)

        def opened(chains: Mapping[str, str]) -> Stream:
            return open_stream(
                choice.model,
                backend=spec,
                config=replace(config, **second.config),
                separator_options=choice.options,
                chains=chains,
                ready=catalogue.quick(),
                **second.options,
            )

        try:
            return opened(chains)
        except UsageError as error:
            if not any(chains.values()):
                raise
            stream = opened({})
            self.tell(f"{error}: it plays without effects")
            return stream

    def _fitting(self, choice: Choice) -> dict[str, str]:
        """Chains of places that there will be."""
        fitting = {}
        for place, text in choice.chains.items():
            if place in NAMES:
                fits = getattr(choice, NAMES[place]) is not None
            elif place == MIX:
                fits = True
            else:
                model = catalogue.models().get(choice.model)
                fits = model is None or place in model["stems"]
                if not fits:
                    self.tell(f"{choice.model} has no {place}: the effects for it wait")
            if fits:
                fitting[place] = text
        return fitting

    def _beware(self, stream: Stream, choice: Choice) -> None:
        """Begin softly where a microphone may hear the loudspeakers."""
        if choice.full_level:
            return
        device = stream.device
        if self._may_howl(stream.beside.get(MICROPHONE), device):
            self._settings.set("mic.mute", 1)
        if choice.plays_file or not (why := feedback(device)):
            return
        if self._settings.values["master"] > SAFE_START_DB:
            self._settings.set("master", SAFE_START_DB)
            self.tell(
                f"{why}, which can howl: the master begins at {SAFE_START_DB:.0f} dB; "
                "use headphones, then raise it"
            )

    def _may_howl(self, microphone: str | None, device: str) -> bool:
        """Whether a microphone may hear the loudspeakers; people are told."""
        if microphone is None or not (why := singing(microphone, device)):
            return False
        self.tell(f"{why}, which can howl: the microphone begins muted; use headphones first")
        return True

    def _end_recording_of_another(self, stream: Stream) -> None:
        """A file has one sample rate, and goes on only if what comes is like what came."""
        info = stream.info
        shape = (info.samplerate, info.channels, info.stems, stream.buses_beside)
        if self._shape not in (None, shape) and self.recorder.stop() is not None:
            self.tell("the recording has ended: the new stream is of another kind")
        self._shape = shape

    def _attend(self) -> None:
        """Bring what the engine says to where people see it."""
        due = time.monotonic() + _KEEP
        while not self._over.wait(_POLL):
            if time.monotonic() > due:
                due = time.monotonic() + _KEEP
                if self._kept != self.version:
                    self._remember()
            stream = self._stream
            if stream is None:
                continue
            with contextlib.suppress(RealtimeSepError):  # the other thread meets it as well
                for line in stream.notices():
                    self.tell(line)
                if stream.chains != self._chains:
                    with self._lock:
                        self._furnish(stream)
                        self._note_chains()
                    self._changed()
                if stream.beside != self._beside:
                    self._beside = stream.beside
                    self._changed()
                if self._wanted_model is not None and not stream.switching:
                    with self._lock:
                        if stream.info.name == self._wanted_model:
                            self._choice = replace(
                                self._choice, model=self._wanted_model, options={}
                            )
                        self._wanted_model = None
                    self._remember()
                    self._changed()

    def _furnish(self, stream: Stream) -> None:
        """Have parameters for what is in the chains, and stand where the stream does."""
        self._chains, self._settings = stream.chains, stream.settings

    def _note_chains(self) -> None:
        """The next stream is to have the chains as they stand now."""
        with self._lock, contextlib.suppress(RealtimeSepError):
            if self._stream is not None and self._stream_runs():
                chains = {**self._choice.chains, **self._stream.chain_texts}
                self._choice = replace(self._choice, chains=chains)

    def _changed(self) -> None:
        self.version += 1

    def tell(self, line: str) -> None:
        """A line for people."""
        self._notices.append((time.time(), line))
        self._changed()

    def _remember(self) -> None:
        self._kept = self.version
        self._note_chains()
        choice = self._choice
        left = Left(choice.model, self._settings.values, choice.chains)
        self._memory.keep(choice.device, left)

    # ---- what people do

    def command(self, message: Any) -> dict[str, Any]:
        """Do what a message asks for; see docs/desk.md.

        Returns:
            What there is to answer beside "ok".

        Raises:
            RealtimeSepError: it cannot be done, and nothing has changed.
        """
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise UsageError("a message is an object with a type")
        name = message["type"]
        actions: dict[str, Callable[..., dict[str, Any]]] = {
            "set": self._on_set,
            "preset": self._on_preset,
            "model": self._on_model,
            "device": self._on_device,
            "devices": self._on_devices,
            "record": self._on_record,
            "effects": self._on_effects,
            "plugins": self._on_plugins,
            "chain": self._on_chain,
            "learn": self._on_learn,
        }
        if name not in actions:
            raise unknown("message type", name, actions)
        return actions[name](_Fields(message))

    def _on_set(self, fields: _Fields) -> dict[str, Any]:
        values = fields.take("values", dict, {})
        if (name := fields.take("name", str, "")) != "":
            values = {**values, name: fields.rest.pop("value", None)}
        fields.done()
        if not values:
            raise UsageError("set needs a name and a value")
        self._set({key: -float("inf") if v is None else v for key, v in values.items()})
        self._preset = ""
        return {}

    def _set(self, values: Mapping[str, float]) -> None:
        with self._lock:
            trial = self._settings.copy()
            for name, value in values.items():
                trial.set(name, value)
            if self._stream is not None:
                self._stream.set_many(trial.values)
            self._settings = trial
        self._changed()

    def _take_values(self, values: Mapping[str, float]) -> None:
        """As many of these as there are parameters for; the others wait for theirs."""
        for name, value in values.items():
            try:
                self._settings.set(name, value)
                self._extra.pop(name, None)
            except UsageError:
                self._extra[name] = value

    def _on_preset(self, fields: _Fields) -> dict[str, Any]:
        name = fields.take("name", str)
        fields.done()
        preset = presets.find(name)
        with self._lock:
            self._set({k: v for k, v in preset.values.items() if k in self._settings.parameters})
            self._preset = name
        if chains := {k: v for k, v in preset.chains.items() if k in self._chains}:
            self._set_chains(chains)
        if preset.model is not None:
            self._switch(preset.model)
        self._remember()
        return {}

    def _on_model(self, fields: _Fields) -> dict[str, Any]:
        name = fields.take("name", str)
        fields.done()
        self._switch(name)
        return {}

    def _switch(self, name: str) -> None:
        known = catalogue.models()
        if name not in known:
            raise unknown("model", name, known)
        with self._lock:
            if self._stream is None or not self._stream_runs():
                self._choose(replace(self._choice, model=name, options={}))
            else:
                self._wanted_model = name
                self._stream.switch(name)
        self._changed()

    def _stream_runs(self) -> bool:
        return not self._trouble

    def _on_device(self, fields: _Fields) -> dict[str, Any]:
        new: dict[str, str | None] = {}
        for side in _KINDS:
            if side in fields.rest:
                value = fields.rest.pop(side)
                if not isinstance(value, str | None):
                    raise UsageError(f"{side} is a text or null")
                new[side] = value or None
        fields.done()
        for side, name in new.items():
            self._allowed(side, name)
        self._remember()
        with self._lock:
            now, both = self._choice, (new.get("input"), new.get("output"))
            source = both[0] if "input" in new else now.input
            sink = both[1] if "output" in new else now.output
            if NULL in both:  # it stands alone
                source = sink = NULL
            elif NULL in (source, sink) and not Choice(source).plays_file:
                source, sink = (None if name == NULL else name for name in (source, sink))
            microphone = new.get("microphone", now.microphone)
            choice = replace(
                now,
                input=source,
                output=sink,
                microphone=microphone,
                microphone_channels=now.microphone_channels if microphone == now.microphone else (),
                monitor=new.get("monitor", now.monitor),
            )
            choice.check()
            if choice.device != now.device or not self._change_beside(choice):
                self._choose(choice)
        return {}

    def _allowed(self, side: str, name: str | None) -> None:
        """A page is no way into the file system: it chooses among what there is.

        Raises:
            UsageError: there is no such device.
        """
        if name in (None, NULL, getattr(self._choice, side)):
            return
        known = {d["use"] for d in catalogue.devices() if _KINDS[side] in d["kinds"]}
        if name not in known:
            raise unknown("device", str(name), known)

    def _change_beside(self, choice: Choice) -> bool:
        """Whether a running stream can take other second devices while the first one plays on."""
        now, stream = self._choice, self._stream
        changed = {n: k for k, n in NAMES.items() if getattr(choice, n) != getattr(now, n)}
        if stream is None or not self._stream_runs():
            return False
        if not all(now.own(name) and choice.own(name) for name in changed):
            return False
        second = choice.beside().options
        if MICROPHONE in changed.values() and not choice.full_level:
            names = {d["use"]: d["name"] for d in catalogue.devices()}
            name = str(choice.microphone)
            if name != NULL and self._may_howl(names.get(name, name), stream.device):
                self._set({"mic.mute": 1})
        for name, kind in changed.items():
            stream.use(kind, second[name])
        self._choice = choice
        self._changed()
        return True

    def _choose(self, choice: Choice) -> None:
        """Open another stream; the old one fades out."""
        self._choice = choice
        self._trouble = "starting"
        self._anew.set()
        threading.Thread(target=self._close_stream, daemon=True).start()
        self._changed()

    def _on_devices(self, fields: _Fields) -> dict[str, Any]:
        fields.done()
        return {"devices": catalogue.devices(anew=True)}

    def _on_learn(self, fields: _Fields) -> dict[str, Any]:
        name = fields.take("name", str)
        fields.done()
        if self.learn is None:
            raise UsageError("no MIDI controller: start the desk with --midi NAME")
        self.learn(name)
        return {}

    def _on_effects(self, fields: _Fields) -> dict[str, Any]:
        names = fields.take("names", list)
        fields.done()
        self._set_chains({MIX: self._allowed_chain(BETWEEN.join(map(str, names)))})
        return {}

    def _on_plugins(self, fields: _Fields) -> dict[str, Any]:
        fields.done()
        return {"plugins": catalogue.hosted(anew=True)}

    def _allowed_chain(self, text: str) -> str:
        """A chain as a client may make it: of effects that are listed, or there, and of numbers.

        Hosts take files, too, of plugins and presets; those are for who starts the desk.

        Raises:
            UsageError: something else, or no chain.
        """
        there = {
            _words(parse_slot(slot.effect)) for slots in self._chains.values() for slot in slots
        }
        for spec in parse_chain(text):
            words = _words(spec)
            if words in there:
                continue
            known = available_effects()
            if spec.scheme:
                known = [d["use"] for d in catalogue.hosted()]
                if spec.source not in known:
                    known = [d["use"] for d in catalogue.hosted(anew=True)]
            if spec.source not in known:
                raise unknown("effect", spec.source, known)
            if len(words) > 1:
                raise UsageError(f"{spec.source}: from here, its parameters are numbers")
        return text

    def _set_chains(self, chains: Mapping[str, str]) -> None:
        """Put other chains in the place of those there are."""
        for chain in chains.values():
            parse_chain(chain)
        with self._lock:
            if self._stream is None or not self._stream_runs():
                together = {**self._choice.chains, **chains}
                self._choose(replace(self._choice, chains=together))
                return
            for place, chain in chains.items():
                self._stream.set_chain(place, chain)

    def _on_chain(self, fields: _Fields) -> dict[str, Any]:
        place, do = fields.take("place", str, MIX), fields.take("do", str)
        stream = self._stream
        if stream is None or not self._stream_runs():
            raise EngineError("nothing plays; its effects cannot be changed")
        actions: dict[str, Callable[[], None]] = {
            "add": lambda: stream.add_effect(
                place, self._allowed_chain(fields.take("text", str)), fields.take("at", int, None)
            ),
            "remove": lambda: stream.remove_effect(place, fields.take("name", str)),
            "move": lambda: stream.move_effect(
                place, fields.take("name", str), fields.take("at", int)
            ),
            "bypass": lambda: stream.bypass_effect(
                place, fields.take("name", str), fields.take("on", bool)
            ),
            "set": lambda: stream.set_chain(place, self._allowed_chain(fields.take("text", str))),
        }
        if do not in actions:
            raise unknown("change of a chain", do, actions)
        actions[do]()
        fields.done()
        return {}

    def _on_record(self, fields: _Fields) -> dict[str, Any]:
        on = fields.take("on", bool)
        wanted = fields.take("buses", list, [OUTPUT])
        format = fields.take("format", str, "flac")
        fields.done()
        if not all(isinstance(bus, str) for bus in wanted):
            raise UsageError("buses are names")
        if on:
            stream = self._stream
            if stream is None:
                raise EngineError("nothing plays; there is nothing to record")
            self.recorder.start(wanted, stream.info, format, beside=stream.buses_beside)
        elif (done := self.recorder.stop()) is not None:
            self.tell(f"recorded {done.seconds:.1f} s: {', '.join(map(str, done.files.values()))}")
        self._changed()
        return {}

    # ---- what people see

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Of the stream that plays, by name."""
        return self._settings.parameters

    def state(self) -> dict[str, Any]:
        """Everything that changes seldom; plain data, silence is None."""
        with self._lock:
            stream, settings, choice = self._stream, self._settings, self._choice
            trouble, wanted = self._trouble, self._wanted_model
        recording = self.recorder.recording
        state: dict[str, Any] = {
            "version": self.version,
            "running": stream is not None and not trouble,
            "trouble": trouble,
            "restarts": self._restarts,
            "values": {k: v if v > -float("inf") else None for k, v in settings.values.items()},
            "parameters": [
                {
                    "name": p.name,
                    "label": p.label,
                    "kind": p.kind,
                    "unit": p.unit,
                    "minimum": p.minimum,
                    "maximum": p.maximum,
                    "default": p.default if p.default > -float("inf") else None,
                    "log": p.log,
                    "step": p.step,
                    "choices": p.choices,
                }
                for p in settings.parameters.values()
            ],
            "preset": self._preset,
            "model": choice.model,
            "switching": wanted,
            "effects": [slot.name for slot in self._chains.get(MIX, ())],
            "chains": {
                place: [
                    {
                        "name": slot.name,
                        "effect": slot.effect,
                        "bypassed": slot.bypassed,
                        "failed": slot.failed or None,
                        "latency": slot.latency,
                        "parameters": [
                            full_name(place, slot.name, p.name) for p in slot.parameters
                        ],
                    }
                    for slot in slots
                ]
                for place, slots in self._chains.items()
            },
            "midi": self.learn is not None,
            "input": choice.input,
            "output": choice.output,
            "second": {name: getattr(choice, name) for name in NAMES.values()},
            "device": "",
            "stems": list(settings.stems),
            "buses": list(buses(settings.stems, [n for n, on in settings.beside.items() if on])),
            "recording": None
            if recording is None
            else {
                "take": recording.take,
                "files": {bus: str(path) for bus, path in recording.files.items()},
            },
            "notices": [{"time": at, "text": text} for at, text in list(self._notices)[-5:]],
        }
        if stream is not None:
            info, latency = stream.info, stream.latency
            state |= {
                "model": info.name,
                "provider": info.provider,
                "device": stream.device,
                "samplerate": info.samplerate,
                "latency": {
                    "frames": latency.frames,
                    "ms": latency.ms(latency.frames),
                    "device_ms": latency.ms(latency.device),
                },
                "microphone": _beside(
                    stream.microphone_latency, stream.beside.get(MICROPHONE, stream.device)
                ),
                "monitor": _beside(
                    stream.monitor_latency, stream.beside.get(MONITOR, stream.device)
                ),
            }
        return state

    def meters(self) -> dict[str, Any]:
        """Levels in dBFS and counters, now; cheap."""
        stream = self._stream
        if stream is None:
            return {"levels": {}}
        stats = stream.stats
        music = [db for stem, db in stats.stem_peaks.items() if stem != VOCALS]
        levels = {
            **stats.stem_peaks,
            "input": stats.input_peak,
            VOCALS: stats.stem_peaks.get(VOCALS, -float("inf")),
            MUSIC: max(music, default=-float("inf")),
            "output": stats.output_peak,
        }
        beside = {MICROPHONE: stats.microphone, MONITOR: stats.monitor}
        levels |= {name: other.peak for name, other in beside.items() if other is not None}
        recording = self.recorder.recording
        return {
            "levels": {k: round(v, 1) if v > -200 else None for k, v in levels.items()},
            "loudness": round(stats.loudness, 1) if stats.loudness > -200 else None,
            "load": round(stats.load, 4),
            "worker_p99_ms": round(1e3 * stats.worker_p99, 3),
            "hop_ms": round(1e3 * stats.hop / stats.samplerate, 3),
            "late": stats.late_blocks,
            "xruns": stats.xruns,
            "elapsed": round(stats.elapsed, 2),
            "beside": {
                name: {"there": other.there, "gaps": other.gaps, "ppm": round(other.ppm, 1)}
                for name, other in beside.items()
                if other is not None
            },
            "recorded": None if recording is None else round(recording.seconds, 1),
        }

    def columns(self, after: int) -> tuple[int, bytes]:
        """Columns of the spectrogram newer than number `after`, and the number of the newest."""
        spectrum = self._spectrum
        if spectrum is None:
            return after, b""
        new = list(spectrum.columns)
        newest = new[-1][0] if new else 0
        if newest < after:  # another stream began
            after = 0
        return newest, b"".join(data for number, data in new if number > after)


def _beside(latency: Latency | None, device: str) -> dict[str, Any] | None:
    """A microphone or a monitor for people; None: there is none."""
    if latency is None:
        return None
    return {
        "device": device,
        "frames": latency.frames,
        "ms": latency.ms(latency.frames),
        "device_ms": latency.ms(latency.device),
    }


def _words(spec: SlotSpec) -> tuple[object, ...]:
    """Which effect that is, and what it is told beside numbers, where it runs included."""
    told = (o for o in spec.options.items() if isinstance(o[1], str) or o[0] == "isolate")
    return (spec.source, *sorted(told, key=str))


class _Fields:
    """The fields of a message, taken out one by one; what is left at the end is a mistake."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        self.rest = {k: v for k, v in message.items() if k not in ("type", "id")}

    def take(self, name: str, kind: type, *default: Any) -> Any:
        if name not in self.rest and default:
            return default[0]
        value = self.rest.pop(name, None)
        if not isinstance(value, kind):
            raise UsageError(f"{name} is missing or is no {kind.__name__}")
        return value

    def done(self) -> None:
        if self.rest:
            raise UsageError(f"not understood: {', '.join(map(str, self.rest))}")
