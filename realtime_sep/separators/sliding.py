"""Networks that see a fixed window of a spectrogram, run live at the window's right edge.

Networks like Spleeter's were made for whole songs: they take T frames of magnitudes and give T
masks.  `Sliding` runs such a network again and again on the newest T frames and keeps only the
masks of the newest few.  A run takes as long as many hops, so it happens beside the stream, in a
helper thread, on a fixed timetable: the masks of a window come into use exactly D hops after its
last sample came in, whether they were ready long before or only just.  That time is part of the
latency, and what comes out does not depend on how fast the machine is.

    hop ─▶ frame of magnitudes ─▶ every K frames: window ─▶ helper: network ─▶ masks, D hops later
      └──▶ delay ─▶ transform, short synthesis window ─▶ × mask ─▶ stem; mix − stems = residual

Two things made networks of this kind fit for live work (measured in docs/quality.md): the window's
level is brought to what the network learned from, and where there is no past yet, the window is
filled with the mirrored present instead of silence.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from numba import njit

from realtime_sep.dsp.delay import Delay
from realtime_sep.dsp.stft import Analysis, Synthesis
from realtime_sep.errors import ModelError, UsageError
from realtime_sep.models.metadata import ModelMetadata
from realtime_sep.models.plan import SlidingPlan, apply_geometry, scaled
from realtime_sep.types import Complex64, Float32, Geometry, SeparatorInfo

#: RMS level in dBFS that a window is brought to: that of mastered music.  Spleeter takes quiet
#: music for silence: the scoring clips (-30 to -15 dBFS) score 1.1 dB less at their own level.
LEVEL = -14.0
#: Most that a window is raised by, so that hiss does not become music.
_MAX_GAIN = 100.0
#: Mean square (-60 dBFS) below which a frame counts as quiet, and how many such frames in a row are
#: a pause, after which the window begins anew: silence in the window costs 0.3 dB.
_QUIET = 1e-6
_PAUSE = 16
#: Part of a hop that a live worker waits for masks whose time has come before it goes on without.
_PATIENCE = 0.25
#: Seconds for one run of a network above which something hangs.
_HANGS = 60.0


class FixedWindowNet(Protocol):
    """What a network must offer to be run by `Sliding`; made for one plan.

    Attributes:
        metadata: of kind "window".
        provider: who computes.
        window: `(channels, T, bins)` float32, C-contiguous: the magnitudes, oldest frame first, to
            be written before `run`.  They are those of an unnormalised transform under a periodic
            Hann window of full scale 1.
    """

    metadata: ModelMetadata
    provider: str
    window: Float32

    def run(self, masks: Float32) -> None:
        """Compute, in the calling thread, without the GIL.

        Args:
            masks: `(K, stems, channels, bins)` to fill, 0..1: of the K frames that end A frames
                before the newest, oldest first.
        """
        ...


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _magnitudes(spectrum, out):  # type: ignore[no-untyped-def]
    """Fill `out` (net channels, bins) from `spectrum` (channels, more bins); mono goes to all.

    Returns the frame's energy."""
    energy = 0.0
    last = spectrum.shape[0] - 1
    for c in range(out.shape[0]):
        source = spectrum[min(c, last)]
        total = np.float32(0)
        for k in range(out.shape[1]):
            power = source[k].real * source[k].real + source[k].imag * source[k].imag
            out[c, k] = np.sqrt(power)
            total += power
        energy += float(total)
    return energy


@njit(cache=True, nogil=True)
def _unroll(history, newest, seen, gain, window):  # type: ignore[no-untyped-def]
    """Lay the circular `history` (channels, T, bins) out in time, times `gain`.

    Frames before the first are the mirror image of those since, again and again."""
    frames = history.shape[1]
    for t in range(frames):
        back = (frames - 1 - t) % (2 * seen)
        if back >= seen:
            back = 2 * seen - 1 - back
        source = (newest - back) % frames
        for c in range(history.shape[0]):
            for k in range(history.shape[2]):
                window[c, t, k] = gain * history[c, source, k]


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _apply(spectrum, before, after, part, out):  # type: ignore[no-untyped-def]
    """`out` = `spectrum` (channels, bins) times the mask between two frames (channels, fewer)."""
    rest = np.float32(1) - part
    bins = before.shape[1]
    for c in range(out.shape[0]):
        for k in range(bins):
            out[c, k] = spectrum[c, k] * (rest * before[c, k] + part * after[c, k])
        for k in range(bins, out.shape[1]):
            out[c, k] = 0


class _Frames(Analysis):
    """The network's own transform: a periodic Hann window over all of its length."""

    def __init__(self, n_fft: int, hop: int, channels: int) -> None:
        super().__init__(Geometry(n_fft, n_fft, hop), channels)
        # Any rate gives the magnitudes that the network's own length would.
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)

    @property
    def energy_scale(self) -> float:
        """Energy of one channel's bins, per unit of mean square of the signal."""
        return float(self.geometry.n_fft * np.sum(self._window.astype(np.float64) ** 2) / 2)


@dataclass
class _Slot:
    """A window on its way to the helper and back."""

    frames: Float32  # (K, channels, bins): the new ones
    energies: npt.NDArray[np.float64]  # (K,), per unit of mean square
    masks: Float32  # (K, stems, channels, bins)
    epoch: int = 0
    window: int = 0
    failure: BaseException | None = None


class _Helper:
    """The thread that runs the network; it owns the network's view of the past."""

    def __init__(self, net: FixedWindowNet, slots: int, step: int, scale: float) -> None:
        channels, frames, bins = net.window.shape
        stems = len(net.metadata.stems)
        self._net = net
        self._scale = np.float32(scale)
        self._history: Float32 = np.zeros((channels, frames, bins), np.float32)
        self._energies = np.zeros(frames)
        self._epoch = -1
        self._newest = self._seen = self._quiet = 0
        self.slots = [
            _Slot(
                frames=np.zeros((step, channels, bins), np.float32),
                energies=np.zeros(step),
                masks=np.zeros((step, stems, channels, bins), np.float32),
            )
            for _ in range(slots)
        ]
        # C queues: putting neither waits nor allocates more than a node.
        self.todo: queue.SimpleQueue[_Slot | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self.urgent = False

        self._thread = threading.Thread(target=self._work, name="realtime_sep masks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """End after the run in hand: no interpreter may end while a network still computes."""
        self.todo.put(None)
        if self._thread.ident is not None:
            self._thread.join(_HANGS)

    def measure(self) -> float:
        """Seconds that one run takes, on silence, in the calling thread."""
        begin = time.perf_counter()
        self.compute(self.slots[0])
        return time.perf_counter() - begin

    def _work(self) -> None:
        _be_humble()
        urgent = False
        while (slot := self.todo.get()) is not None:
            if self.urgent and not urgent:
                _be_urgent()
                urgent = True
            try:
                self.compute(slot)
            except BaseException as error:  # raised where the masks are waited for
                slot.failure = error
            self.done.put(slot)

    def compute(self, slot: _Slot) -> None:
        """Take the slot's frames into the history, run the network, fill the slot's masks."""
        if slot.epoch != self._epoch:
            self._epoch = slot.epoch
            self._newest = -1
            self._seen = self._quiet = 0
        frames = self._history.shape[1]
        for frame, energy in zip(slot.frames, slot.energies, strict=True):
            self._newest = (self._newest + 1) % frames
            self._history[:, self._newest] = frame
            self._energies[self._newest] = energy
            if energy < _QUIET:
                self._quiet += 1
            else:
                if self._quiet >= _PAUSE:  # what was before the pause tells nothing of this
                    self._seen = 0
                self._quiet = 0
            self._seen = min(self._seen + 1, frames)
        past = (self._newest - np.arange(self._seen)) % frames
        mean_square = float(self._energies[past].mean())
        gain = np.float32(min(10 ** (LEVEL / 20) / np.sqrt(mean_square + 1e-12), _MAX_GAIN))
        _unroll(self._history, self._newest, self._seen, gain * self._scale, self._net.window)
        self._net.run(slot.masks)


class Sliding:
    """A separator around a fixed-window mask network.

    Live, the worker never waits long: masks that are not there when their time has come are
    replaced by the last ones and counted in `late_masks`; the timing stays.  Offline
    (`realtime=False`, the default) it waits for them, and gives the same samples as a live stream
    without late masks.

    Args:
        net: made for this plan.
        plan: the timetable; see `realtime_sep.models.plan`.
        samplerate: Hz; the network's transform is scaled to it.
        channels: 1 or as many as the network has.
        realtime: do without late masks.  May be set later, as an attribute.

    Attributes:
        late_masks: windows that came too late so far.
        compute_seconds: how long one run of the network took when this was made (the best of
            three): compare it with `budget_seconds`.
        notice: set when masks come late.

    Raises:
        UsageError: rate, channels or plan do not fit the network.
    """

    def __init__(
        self,
        net: FixedWindowNet,
        plan: SlidingPlan,
        *,
        samplerate: int,
        channels: int = 2,
        realtime: bool = False,
    ) -> None:
        meta = net.metadata
        if channels not in (1, meta.channels):
            raise UsageError(
                f"model {meta.name!r} separates 1 or {meta.channels} channels, not {channels}"
            )
        n_fft, net_hop = scaled(meta, samplerate)
        geometry = apply_geometry(plan, n_fft, net_hop)
        self.plan = plan
        self.info = SeparatorInfo(
            name=meta.name,
            stems=meta.all_stems,
            samplerate=samplerate,
            channels=channels,
            hop=geometry.hop,
            latency=plan.latency(net_hop),
            family=meta.family,
            provider=net.provider,
        )
        stems = len(meta.stems)
        self._frames = _Frames(n_fft, net_hop, channels)
        self._energy_unit = 1 / (self._frames.energy_scale * meta.channels)
        self._gathered: Float32 = np.zeros((net_hop, channels), np.float32)
        self._wait = Delay(plan.delay * geometry.hop, channels)
        self._rest = Delay((plan.overlap - 1) * geometry.hop, channels)
        self._delayed: Float32 = np.zeros((geometry.hop, channels), np.float32)
        self._analysis = Analysis(geometry, channels)
        self._syntheses = [Synthesis(geometry, channels) for _ in range(stems)]
        self._masked: Complex64 = np.zeros((channels, geometry.bins), np.complex64)

        # Windows between submission and use, one being filled, one to spare after a reset.
        flying = -(-plan.deadline // (plan.step * plan.hops_per_frame))
        self._helper = _Helper(net, flying + 2, plan.step, meta.n_fft / n_fft)
        # A window's masks come into use together; the interpolation looks one frame back.
        self._masks: Float32 = np.zeros(
            (plan.step + 2, stems, meta.channels, meta.bins), np.float32
        )
        self._patience = _PATIENCE * geometry.hop / samplerate
        self.budget_seconds = (
            min(plan.deadline, plan.step * plan.hops_per_frame) * geometry.hop / samplerate
        )
        self.compute_seconds = min(self._helper.measure() for _ in range(3))
        self.realtime = realtime
        self._free = deque(self._helper.slots)
        self._ready: deque[_Slot] = deque()  # done, their time has not come
        self._filling: _Slot | None = None
        self._epoch = 0
        self.reset()
        self._helper.start()
        # The helper must not outlive its stream, and must not keep it alive.
        self._end = weakref.finalize(self, self._helper.end)

    @property
    def realtime(self) -> bool:
        """Whether masks that come late are done without."""
        return self._helper.urgent

    @realtime.setter
    def realtime(self, value: bool) -> None:
        self._helper.urgent = value

    def close(self) -> None:
        """End the helper thread; the separator is of no more use."""
        self._end()

    def reset(self) -> None:
        """Return to the state just after construction; the helper's work in hand is dropped."""
        self._epoch += 1
        self._hop = 0
        self._filled = 0
        self._window = 0
        self._arrived = self._applied = -1
        self._due: deque[tuple[int, int, bool]] = deque()  # hop, window, whether it was submitted
        self._free.extend(self._ready)
        self._ready.clear()
        self.late_masks = 0
        self.notice: str | None = None
        self._masks[:] = 0
        self._frames.reset()
        self._wait.reset()
        self._rest.reset()
        self._analysis.reset()
        for synthesis in self._syntheses:
            synthesis.reset()

    def process(self, hop: Float32, stems: Float32) -> None:
        """Separate `(H, channels)` into `stems` `(stems, H, channels)`, `info.latency` frames late.

        Raises:
            ModelError: the network failed.
        """
        plan = self.plan
        size = len(hop)
        start = self._hop % plan.hops_per_frame * size
        self._gathered[start : start + size] = hop
        if start + size == len(self._gathered):
            self._take_frame()
        if self._due and self._due[0][0] == self._hop:
            self._install()
        elif self._arrived < self._applied:
            self._collect(self._applied, 0)

        self._wait.process(hop, self._delayed)
        spectrum = self._analysis.process(self._delayed)
        # In hops after the end of frame 0; the first hops take frame 0 as it is.
        position = max(0, self._hop + 1 - plan.delay + plan.shift - plan.hops_per_frame)
        frame, part = divmod(position, plan.hops_per_frame)
        before = self._masks[frame % len(self._masks)]
        after = self._masks[(frame + 1) % len(self._masks)]
        mixing = np.float32(part / plan.hops_per_frame)
        self._rest.process(self._delayed, stems[-1])
        for i, synthesis in enumerate(self._syntheses):
            _apply(spectrum, before[i], after[i], mixing, self._masked)
            synthesis.process(self._masked, stems[i])
            stems[-1] -= stems[i]
        self._hop += 1

    def _take_frame(self) -> None:
        """The net hop is full: transform it; after every K of them, submit the window."""
        spectrum = self._frames.process(self._gathered)
        if self._filling is None:
            # There is always a free one, except after a reset, or when the helper is far behind.
            while not self._free and self._receive(0 if self.realtime else _HANGS):
                pass
            self._filling = self._free.popleft() if self._free else None
        slot = self._filling
        if slot is not None:
            energy = _magnitudes(spectrum, slot.frames[self._filled])
            slot.energies[self._filled] = energy * self._energy_unit
        self._filled += 1
        if self._filled < self.plan.step:
            return
        if slot is not None:
            slot.epoch, slot.window = self._epoch, self._window
            self._helper.todo.put(slot)
        self._due.append((self._hop + self.plan.deadline, self._window, slot is not None))
        self._filling = None
        self._filled = 0
        self._window += 1

    def _install(self) -> None:
        """The time of a window's masks has come: have them, or hold the last ones."""
        _, window, submitted = self._due.popleft()
        self._applied = window
        if submitted and self._collect(window, self._patience if self.realtime else _HANGS):
            return
        self.late_masks += 1
        self.notice = (
            f"masks came late: a run of {self.info.name!r} takes "
            f"{1e3 * self.compute_seconds:.0f} ms or more and has "
            f"{1e3 * self.budget_seconds:.0f} ms; choose the profile 'light', or raise step and "
            f"deadline"
        )
        first = self._first_frame(window)
        held = self._masks[(first - 1) % len(self._masks)]
        for frame in range(first, first + self.plan.step):
            self._masks[frame % len(self._masks)] = held

    def _first_frame(self, window: int) -> int:
        """The oldest frame that the masks of a window are for; negative before the beginning."""
        return window * self.plan.step - self.plan.lookahead

    def _collect(self, window: int, timeout: float) -> bool:
        """Bring the masks of `window` into use, once they are there; older ones are of no use."""
        while self._arrived < window:
            if not self._ready and not self._receive(timeout):
                return False
            if self._ready:
                slot = self._ready.popleft()
                self._arrived = slot.window
                if slot.window == window:
                    first = self._first_frame(window)
                    for i in range(max(0, -first), self.plan.step):
                        self._masks[(first + i) % len(self._masks)] = slot.masks[i]
                self._free.append(slot)
        return True

    def _receive(self, timeout: float) -> bool:
        """Take the next window that the helper has done."""
        try:
            slot = self._helper.done.get(timeout > 0, timeout or None)
        except queue.Empty:
            if timeout >= _HANGS:
                raise ModelError(f"model {self.info.name!r} hangs") from None
            return False
        if slot.failure is not None:
            failure, slot.failure = slot.failure, None
            self._free.append(slot)
            raise ModelError(f"model {self.info.name!r} failed: {failure}") from failure
        (self._ready if slot.epoch == self._epoch else self._free).append(slot)
        return True


def _be_humble() -> None:
    """Make the calling thread less urgent than the worker, and rid it of denormals."""
    if sys.platform == "linux":  # elsewhere the number would mean a process, and not this one
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 1)
    with contextlib.suppress(ImportError):
        from realtime_sep import native

        native.flush_denormals()


def _be_urgent() -> None:
    """The lowest real-time priority, where it is allowed: below the worker, above all the rest.

    Now and then the helper holds Python's lock for some microseconds.  An ordinary thread can be
    pushed aside by any program just then, and the worker would wait for its return.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
