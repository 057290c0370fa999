"""When a sliding separator computes what: the one place that its latency follows from.

A network that sees T frames of a spectrogram at once runs on the newest T again and again.  Times
are counted in *net hops* (the network's own hop, 23 ms for Spleeter) and in *hops* (the shorter
step in which the masks are applied, `hops_per_frame` of them to a net hop).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from realtime_sep.errors import UsageError, unknown
from realtime_sep.models.metadata import ModelMetadata
from realtime_sep.types import Geometry

#: Frames or hops of anything in a plan; 95 s of Spleeter's frames.
_MOST = 4096


@dataclass(frozen=True)
class SlidingPlan:
    """One trade of delay and computing time against quality.

    Attributes:
        context: T, net hops that the network sees.
        step: K, net hops between two runs, each giving the masks of K frames.
        lookahead: A, net hops that the newest mask taken lies behind the newest frame.
        deadline: D, hops from the submission of a window to the use of its masks.
        shift: hops by which a mask's frame ends later than the frame it is applied to.
        hops_per_frame: hops in a net hop.
        overlap: synthesis length S in hops.
    """

    context: int
    step: int
    lookahead: int
    deadline: int
    shift: int
    hops_per_frame: int = 4
    overlap: int = 4

    def __post_init__(self) -> None:
        """Refuse what cannot run.

        Raises:
            UsageError: names the option and its bounds.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or not -_MOST <= value <= _MOST:
                raise UsageError(
                    f"{field.name} must be a whole number of at most {_MOST}, not {value!r}"
                )
        if (
            not 1 <= self.step <= self.context
            or not 0 <= self.lookahead <= self.context - self.step
        ):
            raise UsageError(
                f"step {self.step} and lookahead {self.lookahead} must fit into the context of "
                f"{self.context} frames"
            )
        if self.deadline < 1 or self.overlap < 1 or self.hops_per_frame < 1:
            raise UsageError("deadline, overlap and hops_per_frame must be at least 1 hop")
        if self.delay < 0:
            raise UsageError(f"shift {self.shift} is earlier than the first mask can be")

    @property
    def delay(self) -> int:
        """Hops by which the signal waits for its masks.

        The oldest frame of a window is applied first; it waits for the K + A frames after it, and
        D for the network.  The hop in which its mask begins to count is free: minus one.
        """
        frames = self.step + self.lookahead
        return frames * self.hops_per_frame + self.deadline - 1 + self.shift

    def latency(self, net_hop: int) -> int:
        """Samples by which the stems lag the input."""
        return (self.delay + self.overlap - 1) * (net_hop // self.hops_per_frame)


#: By model family: measured in docs/quality.md, section Spleeter.
PROFILES: dict[str, dict[str, SlidingPlan]] = {
    "spleeter": {
        "fast": SlidingPlan(context=64, step=1, lookahead=0, deadline=5, shift=6, overlap=4),
        "balanced": SlidingPlan(context=64, step=2, lookahead=1, deadline=6, shift=4, overlap=8),
        "light": SlidingPlan(context=64, step=4, lookahead=0, deadline=12, shift=4, overlap=8),
        "best": SlidingPlan(context=64, step=2, lookahead=4, deadline=7, shift=5, overlap=8),
    }
}
#: What is taken when none is asked for: on a processor, and where a graphics card computes.
DEFAULT_PROFILE = "balanced"
GPU_PROFILE = "fast"


def scaled(metadata: ModelMetadata, samplerate: int) -> tuple[int, int]:
    """The transform of a window model at another rate: `(n_fft, net hop)`, in samples.

    The network learned what a frame of so many milliseconds and a bin of so many hertz look like.
    So at another rate the transform is scaled, and no resampler is needed; lengths are rounded to
    multiples of 64 (error below 2 %), which keeps them quick to transform.

    Raises:
        UsageError: a rate at which the network's bins reach beyond half the rate.
    """
    base = metadata.sample_rates[0]
    if samplerate == base:
        return metadata.n_fft, metadata.hop
    unit = round(metadata.n_fft * samplerate / base / 64)
    n_fft = 64 * unit
    if metadata.bins > n_fft // 2 + 1:
        lowest = 2 * (metadata.bins - 1) * base // metadata.n_fft
        raise UsageError(
            f"model {metadata.name!r} needs a sample rate of at least {lowest} Hz, not {samplerate}"
        )
    return n_fft, n_fft * metadata.hop // metadata.n_fft


def profiles(metadata: ModelMetadata) -> dict[str, SlidingPlan]:
    """The plans that a window model can be asked for by name."""
    return PROFILES.get(metadata.family, PROFILES["spleeter"])


def plan(metadata: ModelMetadata, profile: str = DEFAULT_PROFILE, **changes: int) -> SlidingPlan:
    """The plan of a profile, with fields replaced.

    Raises:
        UsageError: unknown profile, a context the network does not take, or values that contradict.
    """
    known = profiles(metadata)
    if profile not in known:
        raise unknown("profile", profile, known)
    chosen = replace(known[profile], **changes)
    if chosen.context % metadata.frames:
        raise UsageError(
            f"context must be a multiple of {metadata.frames} frames, not {chosen.context}"
        )
    if metadata.hop % chosen.hops_per_frame:
        raise UsageError(f"hops_per_frame must divide {metadata.hop}, not {chosen.hops_per_frame}")
    return chosen


def apply_geometry(plan: SlidingPlan, n_fft: int, net_hop: int) -> Geometry:
    """The transform in which the masks are applied.

    Raises:
        UsageError: the overlap does not fit.
    """
    hop = net_hop // plan.hops_per_frame
    synthesis = plan.overlap * hop
    if synthesis > n_fft or synthesis % 2:
        raise UsageError(f"an overlap of {plan.overlap} hops does not fit {n_fft} samples")
    return Geometry(n_fft, synthesis, hop)
