"""Networks that take some seconds of samples at once, run live at the segment's right edge.

Networks like Demucs and MDX-Net were made for whole songs, cut into segments of 5 to 10 seconds.
`Segments` runs such a network every K hops on the newest segment, in a helper thread, and keeps of
the stems K hops that end A hops before the newest sample, and X more to cross over from the run
before.  What a run gives comes into use D hops after its segment was complete.

    hop ─▶ every K hops: segment ─▶ helper: network ─▶ K + X hops of the stems, D hops later
      └──▶ delay ─▶ mix − stems = residual

A run that comes too late is left out: the stems fade to silence, the residual takes the mix.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numba import njit

from realtime_sep.dsp.delay import Delay
from realtime_sep.dsp.windows import hann
from realtime_sep.models.metadata import ModelMetadata
from realtime_sep.models.plan import SegmentPlan, too_slow
from realtime_sep.separators.beside import PATIENCE, Beside, Job, RunsBeside
from realtime_sep.types import Float32, SeparatorInfo


class SegmentNet(Protocol):
    """What a network must offer to be run by `Segments`.

    Attributes:
        metadata: of kind "segment".
        provider: who computes.
        segment: `(channels, L)` float32, C-contiguous: the samples, to be written before `run`.
        stems: `(stems, channels, L)`, filled by `run`.
    """

    metadata: ModelMetadata
    provider: str
    segment: Float32
    stems: Float32

    def run(self) -> None:
        """Compute, in the calling thread, without the GIL."""
        ...


_NOTHING: Float32 = np.zeros(0, np.float32)


@dataclass
class _Piece(Job):
    """K new hops, and the stems that the network gives K + X hops of."""

    samples: Float32 = field(default_factory=_NOTHING.copy)  # (K · H, channels)
    stems: Float32 = field(default_factory=_NOTHING.copy)  # (stems, K · H + X, channels)


@njit(cache=True, nogil=True)
def _move_in(samples, segment):  # type: ignore[no-untyped-def]
    """Shift `segment` (net channels, L) and append `samples` (n, channels); mono goes to all."""
    count = samples.shape[0]
    kept = segment.shape[1] - count
    last = samples.shape[1] - 1
    for c in range(segment.shape[0]):
        row = segment[c]
        for i in range(kept):
            row[i] = row[i + count]
        for i in range(count):
            row[kept + i] = samples[i, min(c, last)]


@njit(cache=True, nogil=True)
def _take_out(stems, end, fade, out):  # type: ignore[no-untyped-def]
    """`out` (stems, n, channels) becomes the n samples of `stems` before `end`, faded at both ends.

    `fade` rises; at the other end it falls."""
    count = out.shape[1]
    length = fade.shape[0]
    for s in range(out.shape[0]):
        for c in range(out.shape[2]):
            row = stems[s, c]
            for i in range(count):
                out[s, i, c] = row[end - count + i]
            for i in range(length):
                out[s, i, c] *= fade[i]
                out[s, count - 1 - i, c] *= fade[i]


class _View:
    """What the network hears of the past; of one thread at a time."""

    def __init__(self, net: SegmentNet, plan: SegmentPlan, hop: int) -> None:
        self._net = net
        self._end = net.segment.shape[1] - plan.lookahead * hop
        # Rising and falling half add up to one.
        self._fade = hann(2 * plan.fade * hop)[: plan.fade * hop].astype(np.float32)
        self._past: Float32 = np.zeros_like(net.segment)
        self._epoch = -1

    def compute(self, piece: _Piece) -> None:
        """Take the piece's samples in, run the network, fill the piece's stems."""
        if piece.epoch != self._epoch:
            self._epoch = piece.epoch
            self._past[:] = 0
        _move_in(piece.samples, self._past)
        self._net.segment[:] = self._past
        self._net.run()
        _take_out(self._net.stems, self._end, self._fade, piece.stems)


class Segments(RunsBeside):
    """A separator around a network on segments of samples.

    Args:
        net: the network.
        plan: the timetable.
        samplerate: Hz; the network gets the samples as they are.
        channels: 1 or as many as the network has.
        realtime: do without late segments.  May be set later, as an attribute.

    Attributes:
        compute_seconds: how long a run of the network took when this was made.
        notice: set when the network is too slow for live work here, and when it comes late.

    Raises:
        UsageError: rate or channels do not fit the network.
    """

    def __init__(
        self,
        net: SegmentNet,
        plan: SegmentPlan,
        *,
        samplerate: int,
        channels: int = 2,
        realtime: bool = False,
    ) -> None:
        meta = net.metadata
        meta.check_stream(samplerate, channels)
        self.plan = plan
        size, stems = meta.hop, len(meta.stems)
        long = (plan.step + plan.fade) * size

        def piece() -> _Piece:
            return _Piece(
                samples=np.zeros((plan.step * size, channels), np.float32),
                stems=np.zeros((stems, long, channels), np.float32),
            )

        pieces = [piece() for _ in range(-(-plan.deadline // plan.step) + 2)]
        view = _View(net, plan, size)
        self.compute_seconds = _seconds(view, pieces[0])
        self.info = SeparatorInfo(
            name=meta.name,
            stems=meta.all_stems,
            samplerate=samplerate,
            channels=channels,
            hop=size,
            latency=plan.latency(size),
            family=meta.family,
            provider=net.provider,
            rtf=self.compute_seconds * samplerate / (plan.step * size),
        )
        self._rest = Delay(self.info.latency, channels)
        # The stems from the hop in which a run comes into use; its end waits for the next one.
        self._coming: Float32 = np.zeros((stems, long, channels), np.float32)
        self._place = 0
        self._filling: _Piece | None = None
        self._beside = Beside(
            meta.name, pieces, view.compute, PATIENCE * size / samplerate, keep_late=False
        )
        self._slow = too_slow(meta, plan, self.compute_seconds, size / samplerate, net.provider)
        self.realtime = realtime
        self.reset()

    @property
    def late_segments(self) -> int:
        """Runs that came too late since the last reset."""
        return self._beside.late

    def reset(self) -> None:
        """Return to the state just after construction; the helper's work in hand is dropped."""
        self._hop = 0
        self._filled = 0
        self.notice = self._slow if self.realtime else None
        self._beside.reset()
        self._coming[:] = 0
        self._place = 0
        self._rest.reset()

    def process(self, hop: Float32, stems: Float32) -> None:
        """Separate `(H, channels)` into `stems` `(stems, H, channels)`, `info.latency` frames late.

        Raises:
            ModelError: the network failed.
        """
        size, plan = len(hop), self.plan
        if self._filled == 0 and self._filling is None:
            self._filling = self._beside.take()
        if self._filling is not None:
            self._filling.samples[self._filled * size : (self._filled + 1) * size] = hop
        self._filled += 1
        if self._filled == plan.step:
            self._beside.submit(self._filling, self._hop + plan.deadline)
            self._filling = None
            self._filled = 0
        self._beside.advance(self._hop, self._use, self._miss)

        self._rest.process(hop, stems[-1])
        now = self._coming[:, self._place : self._place + size]
        self._place = (self._place + size) % (plan.step * size)
        for stem, part in zip(stems, now, strict=False):
            stem[:] = part
            stems[-1] -= part
        self._hop += 1

    def _use(self, piece: _Piece) -> None:
        """The stems of a run come into use, crossing over from those of the one before."""
        self._turn()
        self._coming += piece.stems

    def _miss(self, number: int) -> None:
        """The stems of a run are not there."""
        self._turn()
        self.notice = self._slow or (
            f"stems came late: a run of {self.info.name!r} takes {self.compute_seconds:.2g} s or "
            f"more; choose the profile 'light', or raise step and deadline"
        )

    def _turn(self) -> None:
        """Leave of what is coming only the end of the last run, which fades out."""
        kept = self._coming.shape[1] - self.plan.step * self.info.hop
        self._coming[:, :kept] = self._coming[:, self._coming.shape[1] - kept :]
        self._coming[:, kept:] = 0
        self._place = 0


def _seconds(view: _View, piece: _Piece) -> float:
    """How long one run takes, on silence, in the calling thread."""
    begin = time.perf_counter()
    view.compute(piece)
    return time.perf_counter() - begin
