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

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numba import njit

from realtime_sep.dsp.delay import Delay
from realtime_sep.dsp.stft import Analysis, Synthesis
from realtime_sep.dsp.wiener import wiener_gains
from realtime_sep.errors import UsageError
from realtime_sep.models.metadata import ModelMetadata
from realtime_sep.models.plan import SlidingPlan, apply_geometry, scaled, too_slow
from realtime_sep.separators.beside import PATIENCE, Beside, Job, RunsBeside
from realtime_sep.types import Complex64, Float32, Geometry, SeparatorInfo

#: Most that a window is raised by, so that hiss does not become music.
_MAX_GAIN = 100.0
#: Mean square (-60 dBFS) below which a frame counts as quiet, and how many such frames in a row are
#: a pause, after which the window begins anew: silence in the window costs 0.3 dB.
_QUIET = 1e-6
_PAUSE = 16


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

    def reset(self) -> None:
        """Forget the past, where the network has states."""
        ...

    def run(self, masks: Float32) -> None:
        """Compute, in the calling thread, without the GIL.

        Args:
            masks: `(K, stems, channels, bins)` to fill, 0 or more: of the K frames that end A
                frames before the newest, oldest first; for a Wiener filter, of all T frames.
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
def _look(frames, energies, history, past, place, level, scale, window):  # type: ignore[no-untyped-def]
    """Take `frames` (K, channels, bins) into the circular `history`; lay it out in time.

    `window` becomes the history (channels, T, bins) brought to the RMS `level` (0: as it is), times
    `scale`.  Frames before the first are the mirror image of those since, again and again.
    `place` holds the newest frame, how many count, and how many quiet ones there were in a row.
    """
    size = history.shape[1]
    newest, seen, quiet = place[0], place[1], place[2]
    for i in range(frames.shape[0]):
        newest = (newest + 1) % size
        for c in range(history.shape[0]):
            history[c, newest, :] = frames[i, c]
        past[newest] = energies[i]
        if energies[i] < _QUIET:
            quiet += 1
        else:
            if quiet >= _PAUSE and level > 0:  # what was before the pause tells nothing of this
                seen = 0
            quiet = 0
        seen = min(seen + 1, size)
    place[0], place[1], place[2] = newest, seen, quiet

    gain = np.float32(scale)
    if level > 0:
        total = 0.0
        for back in range(seen):
            total += past[(newest - back) % size]
        gain = np.float32(scale * min(level / np.sqrt(total / seen + 1e-12), _MAX_GAIN))
    for t in range(size):
        back = (size - 1 - t) % (2 * seen)
        if back >= seen:
            back = 2 * seen - 1 - back
        source = (newest - back) % size
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


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _filter(spectrum, before, after, part, out):  # type: ignore[no-untyped-def]
    """The same with a filter (channels, channels, bins) that mixes the channels."""
    rest = np.float32(1) - part
    bins = before.shape[2]
    last = spectrum.shape[0] - 1
    for c in range(out.shape[0]):
        out[c] = 0
        for d in range(before.shape[1]):
            for k in range(bins):
                gain = rest * before[c, d, k] + part * after[c, d, k]
                out[c, k] += gain * spectrum[min(d, last), k]


@njit(cache=True, nogil=True)
def _lay_out(frames, history, place, mix):  # type: ignore[no-untyped-def]
    """As `_look`, after it, for spectra: `mix` (T, channels, bins) becomes the history in time."""
    size = history.shape[1]
    newest, seen = place[0], place[1]
    for i in range(frames.shape[0]):
        at = (newest - frames.shape[0] + 1 + i) % size
        for c in range(history.shape[0]):
            history[c, at, :] = frames[i, c]
    for t in range(size):
        back = (size - 1 - t) % (2 * seen)
        if back >= seen:
            back = 2 * seen - 1 - back
        for c in range(history.shape[0]):
            mix[t, c, :] = history[c, (newest - back) % size]


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


#: `(K, stems, channels, bins)` real masks, or `(K, stems, channels, channels, bins)` filters.
Masks = npt.NDArray[Any]
_NOTHING: Float32 = np.zeros(0, np.float32)


@dataclass
class _Window(Job):
    """K new frames, and the masks that the network gives for them."""

    frames: Float32 = field(default_factory=_NOTHING.copy)  # (K, channels, bins)
    energies: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # mean squares
    spectra: Complex64 | None = None  # (K, channels, bins), for a Wiener filter
    masks: Masks = field(default_factory=_NOTHING.copy)


class _View:
    """What the network sees of the past; of one thread at a time."""

    def __init__(
        self, net: FixedWindowNet, plan: SlidingPlan, scale: float, iterations: int
    ) -> None:
        self._net = net
        self._iterations = iterations
        if iterations:
            channels, frames, bins = net.window.shape
            stems = len(net.metadata.stems)
            self._first = frames - plan.lookahead - plan.step
            self._spectra: Complex64 = np.zeros(net.window.shape, np.complex64)
            self._mix: Complex64 = np.zeros((frames, channels, bins), np.complex64)
            self._all: Float32 = np.zeros((frames, stems, channels, bins), np.float32)
            self._gains: Complex64 = np.zeros(
                (frames - self._first, stems + 1, channels, channels, bins), np.complex64
            )
        self._scale = scale
        level = net.metadata.level
        self._level = 10 ** (level / 20) if level else 0.0
        self._history: Float32 = np.zeros(net.window.shape, np.float32)
        self._energies = np.zeros(net.window.shape[1])
        self._place = np.zeros(3, np.int64)
        self._epoch = -1

    def compute(self, job: _Window) -> None:
        """Take the job's frames into the history, run the network, fill the job's masks."""
        if job.epoch != self._epoch:
            self._epoch = job.epoch
            self._place[:] = -1, 0, 0
            self._net.reset()
        _look(
            job.frames,
            job.energies,
            self._history,
            self._energies,
            self._place,
            self._level,
            self._scale,
            self._net.window,
        )
        if job.spectra is None:
            self._net.run(job.masks)
            return
        self._net.run(self._all)
        _lay_out(job.spectra, self._spectra, self._place, self._mix)
        wiener_gains(self._all, self._mix, self._iterations, first=self._first, out=self._gains)
        count, stems = job.masks.shape[:2]
        job.masks[:] = self._gains[:count, :stems]


class Sliding(RunsBeside):
    """A separator around a fixed-window mask network.

    Live, masks that are not there when their time has come are replaced by the last ones and
    counted in `late_masks`; the timing stays.  Offline (`realtime=False`, the default) it waits for
    them, and gives the same samples as a live stream without late masks.

    Args:
        net: made for this plan.
        plan: the timetable; see `realtime_sep.models.plan`.
        samplerate: Hz; the network's transform is scaled to it.
        channels: 1 or as many as the network has.
        realtime: do without late masks.  May be set later, as an attribute.
        wiener: iterations of a multichannel Wiener filter over the window, which makes filters of
            the masks; 0 for none.  The network must give the masks of all frames then.

    Attributes:
        compute_seconds: how long one run of the network took when this was made (the best of
            three): compare it with `budget_seconds`.
        notice: set when the network is too slow for live work here, and when masks come late.

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
        wiener: int = 0,
    ) -> None:
        meta = net.metadata
        if not 0 <= wiener <= 10 or (wiener and meta.states):
            raise UsageError(
                f"wiener must be 0 to 10 iterations, and 0 for networks with states, not {wiener}"
            )
        meta.check_channels(channels)
        n_fft, net_hop = scaled(meta, samplerate)
        geometry = apply_geometry(plan, n_fft, net_hop)
        self.plan = plan
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
        # A window's masks come into use together; the interpolation looks one frame back.
        shape: tuple[int, ...] = (stems, meta.channels, meta.bins)
        if wiener:
            shape = (stems, meta.channels, meta.channels, meta.bins)
        kind = np.complex64 if wiener else np.float32
        self._masks: Masks = np.zeros((plan.step + 2, *shape), kind)
        self._apply = _filter if wiener else _apply

        def window() -> _Window:
            return _Window(
                frames=np.zeros((plan.step, meta.channels, meta.bins), np.float32),
                energies=np.zeros(plan.step),
                masks=np.zeros((plan.step, *shape), kind),
                spectra=np.zeros((plan.step, meta.channels, meta.bins), np.complex64)
                if wiener
                else None,
            )

        # Windows between submission and use, one being filled, one to spare after a reset.
        flying = -(-plan.deadline // (plan.step * plan.hops_per_frame))
        windows = [window() for _ in range(flying + 2)]
        view = _View(net, plan, meta.n_fft / n_fft, wiener)
        self.compute_seconds = min(_seconds(view, windows[0]) for _ in range(3))
        self.budget_seconds = plan.budget * geometry.hop / samplerate
        self.info = SeparatorInfo(
            name=meta.name,
            stems=meta.all_stems,
            samplerate=samplerate,
            channels=channels,
            hop=geometry.hop,
            latency=plan.latency(net_hop),
            family=meta.family,
            provider=net.provider,
            rtf=self.compute_seconds * samplerate / (plan.step * net_hop),
        )
        self._beside = Beside(
            meta.name,
            windows,
            view.compute,
            PATIENCE * geometry.hop / samplerate,
            keep_late=True,
        )
        self._filling: _Window | None = None
        self._slow = too_slow(
            meta, plan, self.compute_seconds, geometry.hop / samplerate, net.provider
        )
        self.realtime = realtime
        self.reset()

    @property
    def late_masks(self) -> int:
        """Windows that came too late since the last reset."""
        return self._beside.late

    def reset(self) -> None:
        """Return to the state just after construction; the helper's work in hand is dropped."""
        self._hop = 0
        self._filled = 0
        self.notice = self._slow if self.realtime else None
        self._beside.reset()
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
        self._beside.advance(self._hop, self._install, self._hold)

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
            self._apply(spectrum, before[i], after[i], mixing, self._masked)
            synthesis.process(self._masked, stems[i])
            stems[-1] -= stems[i]
        self._hop += 1

    def _take_frame(self) -> None:
        """The net hop is full: transform it; after every K of them, submit the window."""
        spectrum = self._frames.process(self._gathered)
        if self._filling is None:
            self._filling = self._beside.take()
        window = self._filling
        if window is not None:
            energy = _magnitudes(spectrum, window.frames[self._filled])
            window.energies[self._filled] = energy * self._energy_unit
            if window.spectra is not None:
                window.spectra[self._filled] = spectrum[:, : window.spectra.shape[2]]
        self._filled += 1
        if self._filled == self.plan.step:
            self._beside.submit(window, self._hop + self.plan.deadline)
            self._filling = None
            self._filled = 0

    def _install(self, window: _Window) -> None:
        """The masks of a window come into use."""
        first = self._first_frame(window.number)
        for i in range(max(0, -first), self.plan.step):
            self._masks[(first + i) % len(self._masks)] = window.masks[i]

    def _hold(self, number: int) -> None:
        """The masks of a window are not there: the last ones stay."""
        self.notice = self._slow or (
            f"masks came late: a run of {self.info.name!r} takes "
            f"{1e3 * self.compute_seconds:.0f} ms or more and has "
            f"{1e3 * self.budget_seconds:.0f} ms; choose the profile 'light', or raise step and "
            f"deadline"
        )
        first = self._first_frame(number)
        held = self._masks[(first - 1) % len(self._masks)]
        for frame in range(first, first + self.plan.step):
            self._masks[frame % len(self._masks)] = held

    def _first_frame(self, number: int) -> int:
        """The oldest frame that the masks of a window are for; negative before the beginning."""
        return number * self.plan.step - self.plan.lookahead


def _seconds(view: _View, window: _Window) -> float:
    """How long one run takes, on silence, in the calling thread."""
    begin = time.perf_counter()
    view.compute(window)
    return time.perf_counter() - begin
