"""Owners for what the compiled part makes: rings, wakes, bridges, hatches, null devices, watches.

Each object holds its C counterpart through a `cdata` that frees it when the last one who needs it
is gone: a bridge keeps its rings alive, a device its bridge, a view the ring that it looks into.
`close()` lets go at once; calling anything on a closed object raises TypeError, never crashes.

Units are those of `native/include/realtime_sep.h`: frames, interleaved float32 of shape `(frames,
channels)`, nanoseconds of the monotonic clock.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from types import TracebackType
from typing import Any, Self

import numpy as np

from realtime_sep.errors import UsageError
from realtime_sep.types import Float32

try:
    from realtime_sep._native import ffi, lib
except ImportError as error:  # pragma: no cover - the message is the point
    raise ImportError(
        f"the compiled part of realtime_sep is missing ({error}); "
        "run `pip install -e .` with a C compiler at hand"
    ) from error


def _own(pointer: Any, free: Callable[[Any], None], what: str, *needs: object) -> Any:
    """`pointer` as a cdata that frees itself first and then lets go of what it needs."""
    if pointer == ffi.NULL:
        code = ffi.errno
        if code == errno.EINVAL:
            raise UsageError(f"{what}: the values do not fit together")
        raise OSError(code, f"{what}: {os.strerror(code)}")

    def release(dead: Any, needs: tuple[object, ...] = needs) -> None:
        free(dead)

    return ffi.gc(pointer, release)


def _reason(code: int) -> str | None:
    return None if code == 0 else os.strerror(code)


def _frames(array: Float32, channels: int, what: str) -> Float32:
    """`array` as what C reads; a copy only if it must be."""
    ready = np.ascontiguousarray(array, dtype=np.float32)
    if ready.ndim != 2 or ready.shape[1] != channels:
        raise UsageError(f"{what} needs the shape (frames, {channels}), not {array.shape}")
    return ready


def _writable(array: Float32, channels: int, what: str) -> Any:
    """The memory of `array`, for C to write to; never that of a copy."""
    if _frames(array, channels, what) is not array:
        raise UsageError(f"{what} must be float32 and contiguous")
    return ffi.from_buffer("float[]", array, require_writable=True)


class _Owner:
    """Something with a C counterpart, usable in a `with` statement."""

    _handle: Any = None

    def close(self) -> None:
        """Let go of the C side: it ends here unless something else still needs it."""
        self._handle = None

    @property
    def closed(self) -> bool:
        return self._handle is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Ring(_Owner):
    """A lock-free ring of frames between one producer thread and one consumer thread.

    Args:
        frames: capacity wanted; rounded up to a power of two, and to pages if mirrored.
        channels: samples per frame.
        mirror: map the storage twice in a row, so that every stretch is one numpy view.  Where
            the platform cannot, stretches that wrap around go through a buffer made beforehand.

    Claimed views are valid until the commit, and belong to one thread each.
    """

    def __init__(self, frames: int, channels: int, *, mirror: bool = True) -> None:
        self._open(_own(lib.rs_ring_new(frames, channels, mirror), lib.rs_ring_free, "ring"))

    @staticmethod
    def bytes_needed(frames: int, channels: int) -> int:
        """Bytes of shared memory that `place` needs."""
        return int(lib.rs_ring_bytes(frames, channels))

    @classmethod
    def place(cls, memory: Any, frames: int, channels: int) -> Ring:
        """Lay out a ring in `memory`, a writable buffer that begins on a page (or any 16 bytes)."""
        held = ffi.from_buffer("char[]", memory, require_writable=True)
        pointer = lib.rs_ring_place(held, len(held), frames, channels)
        return cls._around(_own(pointer, lib.rs_ring_free, "ring in shared memory", held))

    @classmethod
    def attach(cls, memory: Any) -> Ring:
        """Open the ring that another process has laid out in `memory`."""
        held = ffi.from_buffer("char[]", memory, require_writable=True)
        pointer = lib.rs_ring_attach(held, len(held))
        return cls._around(_own(pointer, lib.rs_ring_free, "no ring in this memory", held))

    @classmethod
    def _around(cls, handle: Any) -> Ring:
        ring = cls.__new__(cls)
        ring._open(handle)
        return ring

    def _open(self, handle: Any) -> None:
        self._handle = handle
        self.capacity = int(lib.rs_ring_capacity(handle))
        self.channels = int(lib.rs_ring_channels(handle))
        self.mirrored = bool(lib.rs_ring_mirrored(handle))
        self._mask = self.capacity - 1
        self._straight = self.capacity * (2 if self.mirrored else 1)

        # The views keep the buffer, the buffer its pointer, and the pointer the ring.
        def keep(_: Any, ring: Any = handle) -> None:
            pass

        storage = ffi.gc(lib.rs_ring_storage(handle), keep)
        size = self._straight * self.channels * 4
        self._storage: Float32 | None = np.frombuffer(
            ffi.buffer(storage, size), dtype=np.float32
        ).reshape(self._straight, self.channels)

        # One span and one staging buffer for each side: they are two threads.
        self._read_span = ffi.new("rs_span *")
        self._write_span = ffi.new("rs_span *")
        staging = 0 if self.mirrored else self.capacity
        self._read_staging = np.zeros((staging, self.channels), np.float32)
        self._write_staging = np.zeros((staging, self.channels), np.float32)
        self._staged_at = -1

    def close(self) -> None:
        self._storage = None
        super().close()

    @property
    def written(self) -> int:
        """Frames ever written: the producer's place on the timeline."""
        return int(lib.rs_ring_written(self._handle))

    @property
    def consumed(self) -> int:
        """Frames ever read: the consumer's place on the timeline."""
        return int(lib.rs_ring_consumed(self._handle))

    @property
    def read_space(self) -> int:
        return int(lib.rs_ring_read_space(self._handle))

    @property
    def write_space(self) -> int:
        return int(lib.rs_ring_write_space(self._handle))

    def seek(self, frames: int) -> None:
        """Set both counters.  Only while neither side runs."""
        lib.rs_ring_seek(self._handle, frames)

    def claim_read(self, frames: int) -> Float32 | None:
        """The next `frames` frames as an array, or None while there are fewer."""
        if lib.rs_ring_claim_read(self._handle, frames, self._read_span) < frames:
            return None
        storage: Any = self._storage
        start = lib.rs_ring_consumed(self._handle) & self._mask
        stop = start + frames
        if stop <= self._straight:
            return storage[start:stop]  # type: ignore[no-any-return]
        first = self._straight - start
        staging = self._read_staging[:frames]
        staging[:first] = storage[start:]
        staging[first:] = storage[: frames - first]
        return staging

    def commit_read(self, frames: int) -> None:
        """Give back `frames` frames, at most what was claimed."""
        lib.rs_ring_commit_read(self._handle, frames)

    def claim_write(self, frames: int) -> Float32 | None:
        """Room for `frames` frames as an array to be filled, or None while there is less."""
        if lib.rs_ring_claim_write(self._handle, frames, self._write_span) < frames:
            return None
        storage: Any = self._storage
        start = lib.rs_ring_written(self._handle) & self._mask
        stop = start + frames
        if stop <= self._straight:
            self._staged_at = -1
            return storage[start:stop]  # type: ignore[no-any-return]
        self._staged_at = start
        return self._write_staging[:frames]

    def commit_write(self, frames: int) -> None:
        """Publish `frames` frames, at most what was claimed."""
        if self._staged_at >= 0:
            storage: Any = self._storage
            first = min(frames, self._straight - self._staged_at)
            storage[self._staged_at : self._staged_at + first] = self._write_staging[:first]
            storage[: frames - first] = self._write_staging[first:frames]
            self._staged_at = -1
        lib.rs_ring_commit_write(self._handle, frames)

    def write(self, array: Float32) -> int:
        """Copy in as many frames of `array` as fit; how many."""
        data = _frames(array, self.channels, "Ring.write")
        pointer = ffi.from_buffer("float[]", data)
        return int(lib.rs_ring_write(self._handle, pointer, len(data)))

    def write_silence(self, frames: int) -> int:
        """Write as many frames of silence as fit; how many."""
        return int(lib.rs_ring_write(self._handle, ffi.NULL, frames))

    def read(self, frames: int) -> Float32:
        """Copy out at most `frames` frames."""
        data = np.empty((min(frames, self.read_space), self.channels), np.float32)
        pointer = ffi.from_buffer("float[]", data)
        return data[: lib.rs_ring_read(self._handle, pointer, len(data))]


class Wake(_Owner):
    """A semaphore that the audio callback posts."""

    def __init__(self) -> None:
        self._handle = _own(lib.rs_wake_new(), lib.rs_wake_free, "wake")

    def post(self) -> None:
        lib.rs_wake_post(self._handle)

    def wait(self, seconds: float) -> bool:
        """True if posted (all posts so far are taken at once), False after `seconds`."""
        return bool(lib.rs_wake_wait(self._handle, seconds))


@dataclass(frozen=True)
class BridgeConfig:
    """See `rs_bridge_config` in the header; the fields are the same, in the same order."""

    in_channels: int
    channels: int
    out_channels: int
    max_block: int
    hop: int
    guard: int
    prefill: int
    latency: int
    ceiling: float = 10 ** (-1 / 20)
    longest: int = 0
    music: int = 0
    lossy: bool = False


@dataclass(frozen=True)
class BridgeStats:
    """See `rs_bridge_stats` in the header; the fields are the same."""

    callbacks: int
    frames: int
    xruns_in: int
    xruns_out: int
    late_blocks: int
    fades: int
    dry_frames: int
    dropped_frames: int
    overflow_frames: int
    debt: int
    last_callback: int
    last_late: int
    pauses: int
    block: int
    busy_max: int
    busy_total: int


_STATS = tuple(entry.name for entry in fields(BridgeStats))


class Bridge(_Owner):
    """The audio callback between a device and two rings.

    Args:
        config: sizes and delays.
        inputs: ring that the callback fills; None if the device records nothing.
        outputs: ring that it empties; None if the device plays nothing.
        wake: posted whenever `inputs` holds a hop.
    """

    #: The C function as an address, for PortAudio.
    callback_pointer = int(ffi.cast("uintptr_t", ffi.addressof(lib, "rs_bridge_callback")))

    def __init__(
        self,
        config: BridgeConfig,
        inputs: Ring | None,
        outputs: Ring | None = None,
        wake: Wake | None = None,
    ) -> None:
        self.config = config
        ins = ffi.NULL if inputs is None else inputs._handle
        outs = ffi.NULL if outputs is None else outputs._handle
        wakes = ffi.NULL if wake is None else wake._handle
        made = lib.rs_bridge_new(ffi.new("rs_bridge_config *", astuple(config)), ins, outs, wakes)
        self._held: list[object] = []  # as long as the C side may use it
        self._handle = _own(made, lib.rs_bridge_free, "bridge", ins, outs, wakes, self._held)
        self._stats = ffi.new("rs_bridge_stats *")
        self._mark = ffi.new("rs_mark *")
        self._buckets = np.zeros(128, np.uint64)

    @property
    def user_data_pointer(self) -> int:
        """What the callback wants as its last argument.  Valid until the bridge is closed."""
        return int(ffi.cast("uintptr_t", self._handle))

    def callback(
        self, inputs: Float32 | None, outputs: Float32 | None, frames: int, flags: int = 0
    ) -> int:
        """Call the callback as a host would: 0 to continue, 1 when complete."""
        source = target = ffi.NULL
        if inputs is not None:
            inputs = _frames(inputs, self.config.in_channels, "input")
            source = ffi.from_buffer(inputs)
        if outputs is not None:
            target = _writable(outputs, self.config.out_channels, "output")
        if any(array is not None and len(array) < frames for array in (inputs, outputs)):
            raise UsageError(f"an array has fewer than {frames} frames")
        return int(lib.rs_bridge_callback(source, target, frames, ffi.NULL, flags, self._handle))

    def set_dry(self, gain: float) -> None:
        """Gain of the dry signal that late blocks fade to; 0 is silence.  1 at first."""
        lib.rs_bridge_set_dry(self._handle, gain)

    def set_latency(self, frames: int) -> None:
        """What comes out is now so far behind what comes in: the dry signal is to be, too."""
        lib.rs_bridge_set_latency(self._handle, frames)

    def play(self, source: Float32) -> None:
        """Let `source` `(frames, channels)` enter instead of the device's input (or, of more
        channels than the music's, instead of the music), again and again.

        Only before the first callback.
        """
        channels = self.config.music or self.config.channels
        source = ffi.from_buffer("float[]", _frames(source, channels, "source"))
        self._held.append(source)
        lib.rs_bridge_play(self._handle, source, len(source) // channels)

    def enter(self, *, pause: float = 0.0, now: bool = False) -> None:
        """Fade in once what comes in comes out; only before the first callback.

        Args:
            pause: seconds without a callback after which to do so; 0: never.
            now: also at the start.
        """
        lib.rs_bridge_enter(self._handle, round(pause * 1e9), now)

    def finish(self) -> None:
        """Fade to silence over the guard, then let the callback say that it is complete."""
        lib.rs_bridge_finish(self._handle)

    @property
    def finished(self) -> bool:
        return bool(lib.rs_bridge_finished(self._handle))

    @property
    def debt(self) -> int:
        """Frames that will be dropped on arrival, because their time has passed."""
        return int(lib.rs_bridge_debt(self._handle))

    def mark(self) -> tuple[int, int] | None:
        """The device's clock: where it was on its ring's timeline, and when, in ns; one reader.

        None before the first callback.  See `rs_mark` in the header.
        """
        if not lib.rs_bridge_mark(self._handle, self._mark):
            return None
        return int(self._mark.frames), int(self._mark.time)

    def stats(self) -> BridgeStats:
        lib.rs_bridge_read_stats(self._handle, self._stats)
        return BridgeStats(*(int(getattr(self._stats, name)) for name in _STATS))

    def busy_percentiles(self, percents: Sequence[float] = (50, 99, 99.9)) -> tuple[float, ...]:
        """Durations in ns that so many percent of the callbacks stayed below (within 19 %)."""
        lib.rs_bridge_read_busy(self._handle, ffi.from_buffer("uint64_t[]", self._buckets))
        longest = self.stats().busy_max
        running = np.cumsum(self._buckets)
        result = []
        for percent in percents:
            place = int(np.searchsorted(running, percent / 100 * float(running[-1])))
            result.append(min(2.0 ** (min(place, 127) / 4), float(longest)))
        return tuple(result)


@dataclass(frozen=True)
class NullConfig:
    """How the device without hardware behaves.

    Attributes:
        samplerate: Hz, for the clock.
        in_channels: channels that it records; 0: none.
        out_channels: channels that it plays; 0: none.
        blocks: block sizes, used in turn, again and again.
        source: what it records, `(frames, in_channels)`; None is silence.
        loop: repeat the source, else silence follows it.
        capture: filled with what it plays, `(frames, out_channels)`.
        frames: stop after as many; 0: run until stopped.
        clocked: keep the pace of the clock, else go as fast as the worker delivers.
        priority: SCHED_FIFO priority to try for; 0: none.
    """

    samplerate: float
    in_channels: int
    out_channels: int
    blocks: Sequence[int]
    source: Float32 | None = None
    loop: bool = False
    capture: Float32 | None = None
    frames: int = 0
    clocked: bool = True
    priority: int = 0


class NullDevice(_Owner):
    """A thread that calls a bridge as a sound card would.  `inputs` is the bridge's input ring."""

    def __init__(self, config: NullConfig, bridge: Bridge, inputs: Ring | None) -> None:
        self.config = config
        source, capture = config.source, config.capture
        record = play = ffi.NULL
        if source is not None:
            source = _frames(source, config.in_channels, "source")
            record = ffi.from_buffer("float[]", source)
        if capture is not None:
            play = _writable(capture, config.out_channels, "capture")
        blocks = ffi.new("uint32_t[]", list(config.blocks))
        made = lib.rs_null_new(
            ffi.new(
                "rs_null_config *",
                {
                    "samplerate": config.samplerate,
                    "in_channels": config.in_channels,
                    "out_channels": config.out_channels,
                    "blocks": blocks,
                    "block_count": len(blocks),
                    "source": record,
                    "source_frames": 0 if source is None else len(source),
                    "loop": config.loop,
                    "capture": play,
                    "capture_frames": 0 if capture is None else len(capture),
                    "frames": config.frames,
                    "clocked": config.clocked,
                    "priority": config.priority,
                },
            ),
            bridge._handle,
            ffi.NULL if inputs is None else inputs._handle,
        )
        needs = (bridge._handle, inputs and inputs._handle, record, play)
        self._handle = _own(made, lib.rs_null_free, "null device", *needs)

    def start(self) -> None:
        code = lib.rs_null_start(self._handle)
        if code != 0:
            raise OSError(code, f"null device: {os.strerror(code)}")

    def stop(self) -> None:
        """At once; returns when the thread has ended."""
        lib.rs_null_stop(self._handle)

    def close(self) -> None:
        if self._handle is not None:
            self.stop()
        super().close()

    @property
    def running(self) -> bool:
        return bool(lib.rs_null_running(self._handle))

    @property
    def position(self) -> int:
        """Frames so far."""
        return int(lib.rs_null_position(self._handle))


class JackPorts(_Owner):
    """What a JACK server calls: moves frames between ports and a bridge, without Python.

    Args:
        buffer: address of libjack's `jack_port_get_buffer`.
        inputs, outputs: ports, as many as the bridge has channels of the device.
        block: most frames that are given to the bridge at once.

    Attributes:
        argument: address that every callback wants as its last argument.
    """

    #: Addresses of the C functions.
    process, xrun, rated, shut, quiet = (
        int(ffi.cast("uintptr_t", ffi.addressof(lib, f"rs_jack_{name}")))
        for name in ("process", "xrun", "rated", "shut", "quiet")
    )

    def __init__(
        self, bridge: Bridge, buffer: int, inputs: Sequence[int], outputs: Sequence[int], block: int
    ) -> None:
        ins, outs = bridge.config.in_channels, bridge.config.out_channels
        if (len(inputs), len(outputs)) != (ins, outs):
            raise UsageError(f"the bridge has {ins} channels in and {outs} out")
        ports = [[ffi.cast("void *", port) for port in some] for some in (inputs, outputs)]
        made = lib.rs_jack_new(
            bridge._handle,
            ffi.cast("rs_jack_buffer", buffer),
            *(ffi.new("void *[]", some) for some in ports),
            block,
        )
        self._handle = _own(made, lib.rs_jack_free, "JACK ports", bridge._handle)
        self.argument = int(ffi.cast("uintptr_t", self._handle))

    @property
    def samplerate(self) -> int:
        """Of the server, as it told last; 0 if it never did."""
        return int(lib.rs_jack_samplerate(self._handle))

    @property
    def gone(self) -> bool:
        """Whether the server has let go of the client."""
        return bool(lib.rs_jack_gone(self._handle))


class LadspaPlugin(_Owner):
    """One LADSPA plugin, made for a stream.

    Args:
        descriptor: from `ladspa_descriptors`.
        channels: of the stream, 1 or 2; see `rs_ladspa_new` for what becomes of them.

    Attributes:
        controls: one value per port: write those of control inputs, read those of outputs.
    """

    def __init__(self, descriptor: Any, samplerate: int, channels: int, max_frames: int) -> None:
        made = lib.rs_ladspa_new(descriptor, samplerate, channels, max_frames)
        self._handle = _own(made, lib.rs_ladspa_free, "LADSPA plugin")
        self._channels = channels

        # The view keeps the buffer, the buffer its pointer, and the pointer the plugin.
        def keep(_: Any, plugin: Any = self._handle) -> None:
            pass

        pointer = ffi.gc(lib.rs_ladspa_controls(made), keep)
        size = 4 * descriptor.port_count
        self.controls: Float32 = np.frombuffer(ffi.buffer(pointer, size), np.float32)

    def reset(self) -> None:
        """Forget the past."""
        lib.rs_ladspa_reset(self._handle)

    def run(self, block: Float32) -> None:
        """Change `(frames, channels)` in place, without the interpreter lock."""
        lib.rs_ladspa_run(
            self._handle, _writable(block, self._channels, "LADSPA plugin"), len(block)
        )


class Hatch(_Owner):
    """Blocks to another process, and what it makes of them back; see `rs_hatch` in the header.

    Args:
        memory: shared, a writable buffer that begins on a page.
        frames: of audio that it holds at least.
        blocks: that it holds at most.
        values: numbers that go with each block.
    """

    @staticmethod
    def bytes_needed(frames: int, channels: int, blocks: int, values: int) -> int:
        """Bytes of shared memory that `place` needs."""
        return int(lib.rs_hatch_bytes(frames, channels, blocks, values))

    @classmethod
    def place(cls, memory: Any, frames: int, channels: int, blocks: int, values: int) -> Hatch:
        """Lay it out; for the one who hands in."""
        held = ffi.from_buffer("char[]", memory, require_writable=True)
        pointer = lib.rs_hatch_place(held, len(held), frames, channels, blocks, values)
        return cls(_own(pointer, lib.rs_hatch_free, "shared memory", held), channels, values)

    @classmethod
    def attach(cls, memory: Any, channels: int, values: int) -> Hatch:
        """Open what another process has laid out; for the one who serves."""
        held = ffi.from_buffer("char[]", memory, require_writable=True)
        pointer = lib.rs_hatch_attach(held, len(held))
        return cls(_own(pointer, lib.rs_hatch_free, "shared memory", held), channels, values)

    def __init__(self, handle: Any, channels: int, values: int) -> None:
        self._handle, self._channels = handle, channels
        #: What goes with a block: to be filled before `put`, filled by `next`.
        self.order = np.zeros(values)
        self._order = ffi.from_buffer("double[]", self.order)

    @staticmethod
    def call(memory: Any) -> None:
        """Call the one who serves for something else; the first page of the memory suffices."""
        lib.rs_hatch_call(ffi.from_buffer(memory))

    @staticmethod
    def called(memory: Any, seconds: float) -> bool:
        """Wait for that, while there is no hatch yet."""
        return bool(lib.rs_hatch_called(ffi.from_buffer(memory), seconds))

    def put(self, block: Float32) -> bool:
        """Hand in `(frames, channels)` with the order; False if there is no room."""
        data = _writable(block, self._channels, "Hatch.put")
        return bool(lib.rs_hatch_put(self._handle, data, len(block), self._order))

    def take(self, block: Float32, start: int, silent: int) -> int:
        """Fill `block` with what begins at `start`, with silence before `silent`.

        Returns:
            1; 0 if it is not all there; -1 if it is not finite.
        """
        data = _writable(block, self._channels, "Hatch.take")
        return int(lib.rs_hatch_take(self._handle, data, len(block), start, silent))

    def wait(self, frames: int, seconds: float) -> bool:
        """Until so many frames have been made in all; whether they have."""
        return bool(lib.rs_hatch_await(self._handle, frames, seconds))

    @property
    def made(self) -> int:
        """When the last result was there, in ns."""
        return int(lib.rs_hatch_made(self._handle))

    def next(self, block: Float32, seconds: float) -> int:
        """Wait for the next block: its frames; 0 after `seconds` or a call."""
        data = _writable(block, self._channels, "Hatch.next")
        return int(lib.rs_hatch_next(self._handle, data, len(block), self._order, seconds))

    def give(self, block: Float32) -> bool:
        """What was made of it; False if there is no room."""
        data = _writable(block, self._channels, "Hatch.give")
        return bool(lib.rs_hatch_give(self._handle, data, len(block)))

    def give_silence(self, frames: int) -> None:
        """Let results begin with silence; before anybody serves."""
        lib.rs_hatch_give(self._handle, ffi.NULL, frames)


def ladspa_descriptors(path: str) -> list[Any]:
    """`rs_ladspa_descriptor`s of all plugins in a library.

    Raises:
        UsageError: it is none, or cannot be loaded.
    """
    why = ffi.new("const char **")
    found: list[Any] = []
    while True:
        descriptor = lib.rs_ladspa_find(os.fsencode(path), len(found), why)
        if descriptor == ffi.NULL:
            break
        found.append(descriptor)
    if why[0] != ffi.NULL:
        raise UsageError(f"{path}: {_text(why[0])}")
    return found


def ladspa_ports(descriptor: Any) -> Iterator[tuple[int, str, int, float, float]]:
    """Bits, name, hints, lower and upper bound of every port, in order."""
    for p in range(descriptor.port_count):
        hint = descriptor.ranges[p]
        name = _text(descriptor.port_names[p])
        yield int(descriptor.ports[p]), name, int(hint.hints), hint.lower, hint.upper


def ladspa_texts(descriptor: Any) -> tuple[int, str, str]:
    """Id, label and name of a plugin."""
    return int(descriptor.id), _text(descriptor.label), _text(descriptor.name)


def _text(string: Any) -> str:
    return "" if string == ffi.NULL else ffi.string(string).decode(errors="replace")


@dataclass(frozen=True)
class Stall:
    """The machine did not run a real-time thread from `start` to `end` (ns)."""

    start: int
    end: int


class Watch(_Owner):
    """A real-time thread that notes when it wakes late, so that stalls of the machine are known.

    Args:
        period: seconds between looks.
        threshold: seconds of lateness that count as a stall.
        priority: SCHED_FIFO priority to try for; `realtime` says whether it was granted.
    """

    def __init__(self, period: float = 1e-3, threshold: float = 1e-3, priority: int = 90) -> None:
        made = lib.rs_watch_new(round(period * 1e9), round(threshold * 1e9), priority)
        self._handle = _own(made, lib.rs_watch_free, "watch")

    @property
    def realtime(self) -> bool:
        return bool(lib.rs_watch_realtime(self._handle))

    @property
    def count(self) -> int:
        return int(lib.rs_watch_count(self._handle))

    def stalls(self) -> list[Stall]:
        """The newest stalls, oldest first; the last 4096 are kept."""
        room = ffi.new("rs_stall[]", 4096)
        some = lib.rs_watch_read(self._handle, room, len(room))
        return [Stall(int(room[i].start), int(room[i].end)) for i in range(some)]


def now() -> int:
    """Nanoseconds of the monotonic clock that the callback also reads."""
    return int(lib.rs_now())


def thread_cpu() -> int:
    """Nanoseconds of CPU time that the calling thread has used."""
    return int(lib.rs_thread_cpu())


#: Real-time priority of whoever computes audio: below callbacks and the threads of hosts, which it
#: must not hold up (JACK runs the callbacks of its clients at 5).
PRIORITY = 4


def set_realtime(priority: int) -> str | None:
    """Real-time priority for the calling thread; None, or why not."""
    return _reason(lib.rs_thread_realtime(priority))


def flush_denormals(flush: bool = True) -> bool | None:
    """Denormals are zero in the calling thread from now on, or no more.

    Returns:
        Whether they were before; None where that cannot be set.
    """
    before = int(lib.rs_thread_flush_denormals(flush))
    return None if before < 0 else bool(before)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Within the block denormals are zero in the calling thread; after it all is as before."""
    before = flush_denormals()
    try:
        yield
    finally:
        if before is not None:
            flush_denormals(before)


def lock_memory() -> str | None:
    """Keep this process's pages in memory; None, or why not."""
    return _reason(lib.rs_lock_memory())
