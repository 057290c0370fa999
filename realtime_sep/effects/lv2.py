"""LV2: plugins that are described by Turtle files and found by liblilv.

What a plugin may ask for: `urid:map` and `unmap`, `options` and `buf-size:boundedBlockLength`; a
plugin that requires more is refused by the name of what it lacks.  Ports may be audio, controls,
and events, to which nothing is sent.  Presets set controls; state beyond that is not restored.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cffi import FFI

from realtime_sep.effects.base import BaseEffect
from realtime_sep.effects.foreign import RATE, parameter
from realtime_sep.effects.hosts import HostedInfo
from realtime_sep.effects.isolated import Helper, Isolated
from realtime_sep.effects.protocol import Effect
from realtime_sep.errors import UsageError, unknown
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32

ffi = FFI()
ffi.cdef(
    """
    typedef struct LilvWorld LilvWorld;
    typedef struct LilvNode LilvNode;
    typedef struct LilvPlugin LilvPlugin;
    typedef struct LilvPort LilvPort;
    typedef struct LilvState LilvState;
    typedef struct {
        const char *uri;
        void *(*instantiate)(const void *, double, const char *, const void *const *);
        void (*connect_port)(void *, uint32_t, void *);
        void (*activate)(void *);
        void (*run)(void *, uint32_t);
        void (*deactivate)(void *);
        void (*cleanup)(void *);
        const void *(*extension_data)(const char *);
    } LV2_Descriptor;
    typedef struct { const LV2_Descriptor *descriptor; void *handle; void *pimpl; } LilvInstance;
    typedef struct { const char *uri; void *data; } LV2_Feature;
    typedef struct { void *handle; uint32_t (*map)(void *, const char *); } LV2_URID_Map;
    typedef struct { void *handle; const char *(*unmap)(void *, uint32_t); } LV2_URID_Unmap;
    typedef struct {
        int context; uint32_t subject; uint32_t key; uint32_t size; uint32_t type;
        const void *value;
    } LV2_Option;

    LilvWorld *lilv_world_new(void);
    void lilv_world_load_all(LilvWorld *);
    int lilv_world_load_resource(LilvWorld *, const LilvNode *);
    LilvNode *lilv_world_get(LilvWorld *, const LilvNode *, const LilvNode *, const LilvNode *);
    const void *lilv_world_get_all_plugins(const LilvWorld *);
    void *lilv_plugins_begin(const void *);
    void *lilv_plugins_next(const void *, void *);
    bool lilv_plugins_is_end(const void *, void *);
    const LilvPlugin *lilv_plugins_get(const void *, void *);
    LilvNode *lilv_new_uri(LilvWorld *, const char *);
    void lilv_node_free(LilvNode *);
    const char *lilv_node_as_string(const LilvNode *);
    bool lilv_node_is_float(const LilvNode *);
    bool lilv_node_is_int(const LilvNode *);
    bool lilv_node_is_bool(const LilvNode *);
    float lilv_node_as_float(const LilvNode *);
    bool lilv_node_as_bool(const LilvNode *);
    void *lilv_nodes_begin(const void *);
    void *lilv_nodes_next(const void *, void *);
    bool lilv_nodes_is_end(const void *, void *);
    const LilvNode *lilv_nodes_get(const void *, void *);
    void lilv_nodes_free(void *);
    const LilvNode *lilv_plugin_get_uri(const LilvPlugin *);
    const LilvNode *lilv_plugin_get_bundle_uri(const LilvPlugin *);
    LilvNode *lilv_plugin_get_name(const LilvPlugin *);
    uint32_t lilv_plugin_get_num_ports(const LilvPlugin *);
    const LilvPort *lilv_plugin_get_port_by_index(const LilvPlugin *, uint32_t);
    void *lilv_plugin_get_required_features(const LilvPlugin *);
    void *lilv_plugin_get_related(const LilvPlugin *, const LilvNode *);
    bool lilv_plugin_has_latency(const LilvPlugin *);
    uint32_t lilv_plugin_get_latency_port_index(const LilvPlugin *);
    LilvInstance *lilv_plugin_instantiate(const LilvPlugin *, double, const LV2_Feature *const *);
    void lilv_instance_free(LilvInstance *);
    const LilvNode *lilv_port_get_symbol(const LilvPlugin *, const LilvPort *);
    LilvNode *lilv_port_get_name(const LilvPlugin *, const LilvPort *);
    LilvNode *lilv_port_get(const LilvPlugin *, const LilvPort *, const LilvNode *);
    bool lilv_port_is_a(const LilvPlugin *, const LilvPort *, const LilvNode *);
    bool lilv_port_has_property(const LilvPlugin *, const LilvPort *, const LilvNode *);
    void lilv_port_get_range(const LilvPlugin *, const LilvPort *, LilvNode **, LilvNode **,
                             LilvNode **);
    void *lilv_port_get_scale_points(const LilvPlugin *, const LilvPort *);
    void *lilv_scale_points_begin(const void *);
    void *lilv_scale_points_next(const void *, void *);
    bool lilv_scale_points_is_end(const void *, void *);
    const void *lilv_scale_points_get(const void *, void *);
    const LilvNode *lilv_scale_point_get_label(const void *);
    const LilvNode *lilv_scale_point_get_value(const void *);
    LilvState *lilv_state_new_from_world(LilvWorld *, LV2_URID_Map *, const LilvNode *);
    void lilv_state_emit_port_values(const LilvState *,
        void (*)(const char *, void *, const void *, uint32_t, uint32_t), void *);
    void lilv_state_free(LilvState *);
    """
)

_LV2 = "http://lv2plug.in/ns/lv2core#"
_EXT = "http://lv2plug.in/ns/ext/"
_ATOM = f"{_EXT}atom#"
_BUFFERS = f"{_EXT}buf-size#"
#: What a plugin may require; those of the core are promises that are kept anyway.
FEATURES = (
    f"{_EXT}urid#map",
    f"{_EXT}urid#unmap",
    f"{_EXT}options#options",
    f"{_BUFFERS}boundedBlockLength",
    f"{_LV2}inPlaceBroken",
    f"{_LV2}isLive",
    f"{_LV2}hardRTCapable",
)
_UNITS = {
    "db": "dB", "hz": "Hz", "khz": "kHz", "ms": "ms", "s": "s", "pc": "%", "bpm": "BPM",
    "semitone12TET": "st", "cent": "ct",
}  # fmt: skip
_NUMBERS = {"Float": np.float32, "Double": np.float64, "Int": np.int32, "Long": np.int64}
#: Bytes that a plugin may fill with events, which nobody reads.
_EVENTS = 65536


@functools.cache
def _library() -> Any:
    """liblilv, or None."""
    for name in ("liblilv-0.so.0", "liblilv-0.dylib", "lilv-0.dll"):
        try:
            return ffi.dlopen(name)
        except OSError:
            continue
    return None


@dataclass(frozen=True)
class Port:
    """What is to be connected."""

    kind: str  # "audio", "control", "event", "other"
    input: bool
    symbol: str
    optional: bool
    parameter: Parameter | None
    bounds: tuple[float | None, float | None] = (None, None)
    rated: bool = False


class World:
    """Everything that liblilv has found; of one process, and never let go of."""

    def __init__(self) -> None:
        self.lilv = _library()
        if self.lilv is None:
            raise UsageError("LV2 plugins need liblilv; on Debian/Ubuntu: apt install liblilv-0-0")
        self.world = self.lilv.lilv_world_new()
        self.lilv.lilv_world_load_all(self.world)
        self._ids: dict[bytes, int] = {}
        self._texts: list[Any] = [ffi.NULL]
        self._nodes: dict[str, Any] = {}
        self._map = ffi.callback("uint32_t(void *, const char *)", lambda _, uri: self._id(uri))
        self._unmap = ffi.callback("const char *(void *, uint32_t)", lambda _, n: self._text(n))
        self.map = ffi.new("LV2_URID_Map *", {"map": self._map})
        self._unmapping = ffi.new("LV2_URID_Unmap *", {"unmap": self._unmap})

    def _id(self, uri: Any) -> int:
        text = ffi.string(uri)
        if text not in self._ids:
            self._ids[text] = len(self._texts)
            self._texts.append(ffi.new("char[]", text))
        return self._ids[text]

    def _text(self, number: int) -> Any:
        return self._texts[number] if number < len(self._texts) else ffi.NULL

    def id(self, uri: str) -> int:
        """The number of a URI."""
        return self._id(ffi.new("char[]", uri.encode()))

    def node(self, uri: str) -> Any:
        """A URI as lilv wants it."""
        if uri not in self._nodes:
            self._nodes[uri] = self.lilv.lilv_new_uri(self.world, uri.encode())
        return self._nodes[uri]

    def text(self, node: Any, *, own: bool = False) -> str:
        """What a node says; of one that is ours, to be freed, if `own`."""
        if node == ffi.NULL:
            return ""
        text = ffi.string(self.lilv.lilv_node_as_string(node)).decode(errors="replace")
        if own:
            self.lilv.lilv_node_free(node)
        return str(text)

    def number(self, node: Any) -> float | None:
        """What a node says, if that is a number."""
        lilv = self.lilv
        if node != ffi.NULL and lilv.lilv_node_is_bool(node):
            return float(lilv.lilv_node_as_bool(node))
        if node == ffi.NULL or not (lilv.lilv_node_is_float(node) or lilv.lilv_node_is_int(node)):
            return None
        return float(lilv.lilv_node_as_float(node))

    def walk(self, kind: str, collection: Any) -> Iterator[Any]:
        """The members of a collection of lilv's."""
        if collection == ffi.NULL:
            return
        begin, following, is_end, get = (
            getattr(self.lilv, f"lilv_{kind}_{name}") for name in ("begin", "next", "is_end", "get")
        )
        place = begin(collection)
        while not is_end(collection, place):
            yield get(collection, place)
            place = following(collection, place)

    def plugins(self) -> dict[str, Any]:
        """By URI."""
        every = self.lilv.lilv_world_get_all_plugins(self.world)
        found = self.walk("plugins", every)
        return {self.text(self.lilv.lilv_plugin_get_uri(plugin)): plugin for plugin in found}

    def lacks(self, plugin: Any) -> list[str]:
        """Features that a plugin requires in vain."""
        nodes = self.lilv.lilv_plugin_get_required_features(plugin)
        required = [self.text(node) for node in self.walk("nodes", nodes)]
        self.lilv.lilv_nodes_free(nodes)
        return [feature for feature in required if feature not in FEATURES]

    def presets(self, plugin: Any) -> dict[str, Any]:
        """Nodes by label."""
        nodes = self.lilv.lilv_plugin_get_related(plugin, self.node(f"{_EXT}presets#Preset"))
        label = self.node("http://www.w3.org/2000/01/rdf-schema#label")
        found = {}
        for node in self.walk("nodes", nodes):
            self.lilv.lilv_world_load_resource(self.world, node)
            name = self.lilv.lilv_world_get(self.world, node, label, ffi.NULL)
            found[self.text(name, own=True) or self.text(node)] = node
        return found

    def preset(self, plugin: Any, name: str) -> dict[str, float]:
        """The values of a preset, by symbol.

        Raises:
            UsageError: there is none of this name.
        """
        presets = self.presets(plugin)
        if name not in presets:
            raise unknown("preset", name, presets)
        values: dict[str, float] = {}
        types = {self.id(_ATOM + kind): number for kind, number in _NUMBERS.items()}

        @ffi.callback("void(const char *, void *, const void *, uint32_t, uint32_t)")  # type: ignore[untyped-decorator]
        def take(symbol: Any, _: Any, value: Any, size: int, kind: int) -> None:
            if kind in types:
                number = np.frombuffer(ffi.buffer(value, size), types[kind])[0]
                values[ffi.string(symbol).decode()] = float(number)

        state = self.lilv.lilv_state_new_from_world(self.world, self.map, presets[name])
        if state != ffi.NULL:
            self.lilv.lilv_state_emit_port_values(state, take, ffi.NULL)
            self.lilv.lilv_state_free(state)
        return values

    def ports(self, plugin: Any) -> list[Port]:
        """Of a plugin, in order."""
        ports: list[Port] = []
        for i in range(self.lilv.lilv_plugin_get_num_ports(plugin)):
            taken = [p.parameter.name for p in ports if p.parameter is not None]
            port = self.lilv.lilv_plugin_get_port_by_index(plugin, i)
            ports.append(self._port(plugin, port, taken))
        return ports

    def _port(self, plugin: Any, port: Any, taken: Sequence[str]) -> Port:
        lilv = self.lilv

        def is_a(uri: str) -> bool:
            return bool(lilv.lilv_port_is_a(plugin, port, self.node(uri)))

        def has(uri: str) -> bool:
            return bool(lilv.lilv_port_has_property(plugin, port, self.node(uri)))

        symbol = self.text(lilv.lilv_port_get_symbol(plugin, port))
        inward, optional = is_a(f"{_LV2}InputPort"), has(f"{_LV2}connectionOptional")
        kinds = {"audio": f"{_LV2}AudioPort", "control": f"{_LV2}ControlPort"}
        kinds["event"] = f"{_ATOM}AtomPort"
        kind = next((kind for kind, uri in kinds.items() if is_a(uri)), "other")
        if kind != "control" or not inward:
            return Port(kind, inward, symbol, optional, None)
        three = ffi.new("LilvNode *[3]")
        lilv.lilv_port_get_range(plugin, port, *(ffi.addressof(three, i) for i in range(3)))
        default, low, high = (self.number(node) for node in three)
        for node in three:
            lilv.lilv_node_free(node)
        rated = has(f"{_LV2}sampleRate")
        scale = RATE if rated else 1
        unit = lilv.lilv_port_get(
            plugin, port, self.node("http://lv2plug.in/ns/extensions/units#unit")
        )
        points = self.walk("scale_points", lilv.lilv_port_get_scale_points(plugin, port))
        choices = [
            (self.text(lilv.lilv_scale_point_get_label(p)), self.number(value))
            for p in points
            if (value := lilv.lilv_scale_point_get_value(p)) != ffi.NULL
        ]
        made = parameter(
            self.text(lilv.lilv_port_get_name(plugin, port), own=True),
            taken,
            default=default,
            lower=None if low is None else low * scale,
            upper=None if high is None else high * scale,
            log=has(f"{_EXT}port-props#logarithmic"),
            switch=has(f"{_LV2}toggled"),
            whole=has(f"{_LV2}integer") or has(f"{_LV2}enumeration"),
            unit_=_UNITS.get(self.text(unit, own=True).rpartition("#")[2], ""),
            name=symbol,
            choices=tuple((text, value) for text, value in choices if value is not None),
        )
        return Port(kind, inward, symbol, optional, made, (low, high), rated)

    def latency_port(self, plugin: Any) -> int | None:
        """The number of the port that tells the latency."""
        if not self.lilv.lilv_plugin_has_latency(plugin):
            return None
        return int(self.lilv.lilv_plugin_get_latency_port_index(plugin))

    def features(self, samplerate: int, max_frames: int) -> tuple[Any, list[Any]]:
        """What `instantiate` wants, and what must live as long as the plugin."""
        number, rate = ffi.new("int32_t *", max_frames), ffi.new("float *", samplerate)
        least = ffi.new("int32_t *", 1)
        whole, real = self.id(f"{_ATOM}Int"), self.id(f"{_ATOM}Float")
        said = [
            (f"{_BUFFERS}minBlockLength", whole, least),
            (f"{_BUFFERS}maxBlockLength", whole, number),
            (f"{_BUFFERS}nominalBlockLength", whole, number),
            (f"{_EXT}parameters#sampleRate", real, rate),
        ]
        options = ffi.new("LV2_Option[]", len(said) + 1)
        for option, (key, kind, value) in zip(options, said, strict=False):
            option.key, option.size, option.type, option.value = self.id(key), 4, kind, value
        given = [
            (f"{_EXT}urid#map", self.map),
            (f"{_EXT}urid#unmap", self._unmapping),
            (f"{_EXT}options#options", options),
            (f"{_BUFFERS}boundedBlockLength", ffi.NULL),
        ]
        texts = [ffi.new("char[]", uri.encode()) for uri, _ in given]
        structs = [
            ffi.new("LV2_Feature *", {"uri": text, "data": data})
            for text, (_, data) in zip(texts, given, strict=True)
        ]
        array = ffi.new("LV2_Feature *[]", [*structs, ffi.NULL])
        return array, [array, structs, texts, options, number, least, rate]


@functools.cache
def world() -> World:
    """The only one of this process."""
    return World()


def describe() -> list[HostedInfo]:
    """Every plugin that can be an effect."""
    found = []
    for uri, plugin in world().plugins().items():
        ports = world().ports(plugin)
        if not _misfit(uri, ports) and not world().lacks(plugin):
            found.append(_info(uri, plugin, ports))
    return sorted(found, key=lambda info: info.name)


def find(name: str) -> str:
    """The URI of a plugin; its last part will do if no other plugin has the same.

    Raises:
        UsageError: there is none of this name.
    """
    uris = list(world().plugins())
    short = {uri: uri.rstrip("/").rpartition("/")[2] for uri in uris}
    alike = [uri for uri in uris if name in (uri, short[uri])]
    if name in uris or len(alike) == 1:
        return name if name in uris else alike[0]
    raise unknown("LV2 plugin", name, [*uris, *short.values()])


def _audio(ports: Sequence[Port], inward: bool) -> int:
    return sum(p.kind == "audio" and p.input == inward for p in ports)


def _misfit(uri: str, ports: Sequence[Port]) -> str:
    """Why it cannot be an effect, or ""."""
    inputs, outputs = _audio(ports, True), _audio(ports, False)
    if not (1 <= inputs <= 2 and 1 <= outputs <= 2):
        return (
            f"LV2 plugin {uri} has {inputs} audio inputs and {outputs} outputs; "
            "an effect has one or two of each"
        )
    for port in ports:
        if port.kind == "other" and not port.optional:
            return f"LV2 plugin {uri} has a port {port.symbol!r} of a kind that is not supported"
    return ""


def _info(uri: str, plugin: Any, ports: Sequence[Port]) -> HostedInfo:
    lilv = world().lilv
    return HostedInfo(
        uri,
        world().text(lilv.lilv_plugin_get_name(plugin), own=True),
        world().text(lilv.lilv_plugin_get_bundle_uri(plugin)).removeprefix("file://"),
        max(_audio(ports, True), _audio(ports, False)),
        tuple(port.parameter for port in ports if port.parameter is not None),
        0 if world().latency_port(plugin) is None else None,
        tuple(sorted(world().presets(plugin))),
    )


class Lv2(BaseEffect):
    """One plugin, in this process: whatever it does wrong, it does here.

    Args:
        uri: of the plugin, or what `find` takes.
        preset: label of one.

    Raises:
        UsageError: there is none, or it needs what there is not.
    """

    def __init__(self, uri: str, preset: str | None = None) -> None:
        self._world, self.name = world(), find(uri)
        self._plugin = self._world.plugins()[self.name]
        self._ports = self._world.ports(self._plugin)
        if misfit := _misfit(self.name, self._ports):
            raise UsageError(misfit)
        if lacks := self._world.lacks(self._plugin):
            raise UsageError(f"LV2 plugin {self.name} needs {', '.join(lacks)}: not supported")
        self.parameters = tuple(p.parameter for p in self._ports if p.parameter is not None)
        super().__init__()
        if preset is not None:
            for symbol, value in self._world.preset(self._plugin, preset).items():
                self._preset(symbol, value)
        self._latency_port = self._world.latency_port(self._plugin)
        self._controls: Float32 = np.zeros(len(self._ports), np.float32)
        self._instances: list[Any] = []

    def _preset(self, symbol: str, value: float) -> None:
        for port in self._ports:
            if port.symbol == symbol and (p := port.parameter) is not None:
                self.targets[p.name] = p.checked(min(max(value, p.minimum), p.maximum))

    @property
    def latency(self) -> int:  # type: ignore[override]
        """As the plugin says, now."""
        if self._latency_port is None:
            return 0
        return round(float(self._controls[self._latency_port]))

    def allocate(self, channels: int, max_frames: int) -> None:
        self.close()
        inputs, outputs = _audio(self._ports, True), _audio(self._ports, False)
        count = channels if inputs == outputs == 1 else 1
        self._in: Float32 = np.zeros((inputs * count, max_frames), np.float32)
        self._out: Float32 = np.zeros((outputs * count, max_frames), np.float32)
        self._events = [np.zeros(_EVENTS, np.uint8) for p in self._ports if p.kind == "event"]
        self._make(count, max_frames)
        if self._latency_port is not None:
            # Only a plugin that has run says how late it is, and not every one can forget that.
            self.reset()
            self.run(np.zeros((max_frames, channels), np.float32))
            self.close()
            self._make(count, max_frames)

    def _make(self, count: int, max_frames: int) -> None:
        inputs, outputs = len(self._in) // count, len(self._out) // count
        features, self._held = self._world.features(self.samplerate, max_frames)
        for number in range(count):
            made = self._world.lilv.lilv_plugin_instantiate(
                self._plugin, float(self.samplerate), features
            )
            if made == ffi.NULL:
                raise UsageError(f"LV2 plugin {self.name} cannot be made")
            self._instances.append(ffi.gc(made, self._world.lilv.lilv_instance_free))
            self._connect(made, self._in[number * inputs :], self._out[number * outputs :])
        self._runs = [(i.descriptor.run, i.handle) for i in self._instances]
        self._active = False

    def _connect(self, instance: Any, ins: Float32, outs: Float32) -> None:
        audio = {True: iter(ins), False: iter(outs)}
        events = iter(self._events)
        for i, port in enumerate(self._ports):
            if port.kind == "audio":
                where = ffi.from_buffer(next(audio[port.input]))
            elif port.kind == "control":
                where = ffi.from_buffer(self._controls[i : i + 1])
            else:
                where = ffi.from_buffer(next(events)) if port.kind == "event" else ffi.NULL
            instance.descriptor.connect_port(instance.handle, i, where)

    def reset(self) -> None:
        super().reset()
        self.tune()
        for instance in self._instances:
            if self._active and instance.descriptor.deactivate != ffi.NULL:
                instance.descriptor.deactivate(instance.handle)
            if instance.descriptor.activate != ffi.NULL:
                instance.descriptor.activate(instance.handle)
        self._active = True

    def tune(self) -> None:
        for i, port in enumerate(self._ports):
            if (p := port.parameter) is not None:
                jumps = p.step or p.kind == "switch"  # there is nothing between
                value = self.targets[p.name] if jumps else self.values[p.name]
                scale = self.samplerate if port.rated else 1
                low, high = port.bounds
                value = value if low is None else max(value, low * scale)
                self._controls[i] = value if high is None else min(value, high * scale)

    def run(self, block: Float32) -> None:
        frames = len(block)
        ins, outs = self._in[:, :frames], self._out[:, :frames]
        if len(ins) < block.shape[1]:
            np.add(block[:, 0], block[:, 1], out=ins[0])
            ins *= 0.5
        else:
            ins[:] = block.T
        self._clear_events()
        for function, handle in self._runs:
            function(handle, frames)
        if len(outs) > block.shape[1]:
            np.add(outs[0], outs[1], out=block[:, 0])
            block *= 0.5
        else:
            block[:] = outs.T

    def _clear_events(self) -> None:
        """Nothing comes in, and there is room for what goes out."""
        events = (p for p in self._ports if p.kind == "event")
        for port, room in zip(events, self._events, strict=True):
            head = room[:16].view(np.uint32)
            kind = "Sequence" if port.input else "Chunk"
            head[:] = 8 if port.input else _EVENTS - 8, self._world.id(_ATOM + kind), 0, 0

    def close(self) -> None:
        """End the plugin."""
        if self._instances and self._active:
            for instance in self._instances:
                if instance.descriptor.deactivate != ffi.NULL:
                    instance.descriptor.deactivate(instance.handle)
        self._instances = []


class Lv2Host:
    """See `effects.hosts.Host`."""

    scheme = "lv2"

    def available(self) -> list[HostedInfo]:
        if _library() is None:
            return []
        with Helper() as helper:
            found: list[HostedInfo] = helper.call("realtime_sep.effects.lv2:describe")
        return found

    def load(self, name: str, *, isolate: bool = True, preset: str | None = None) -> Effect:
        """See `Host.load`.

        Args:
            name: URI, or its last part.
        """
        if not isolate:
            return Lv2(name, preset)
        return Isolated(Helper(), "realtime_sep.effects.lv2:Lv2", name, preset)


host = Lv2Host()
