"""When a sliding separator computes what: the one place that its latency follows from.

A network that sees T frames of a spectrogram at once runs on the newest T again and again
(`SlidingPlan`).  Times are counted in *net hops* (the network's own hop, 23 ms for Spleeter) and in
*hops* (the shorter step in which the masks are applied, `hops_per_frame` of them to a net hop).
One that sees some seconds of samples runs likewise on the newest of them (`SegmentPlan`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from realtime_sep.errors import UsageError, unknown
from realtime_sep.models.metadata import ModelMetadata
from realtime_sep.types import Geometry

#: Frames or hops of anything in a plan; 95 s of Spleeter's frames.
_MOST = 4096
#: Part of the time that there is for a run which a network may take and still be trusted with it.
_TRUSTED = 0.8


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

    @property
    def budget(self) -> int:
        """Hops in which a run must be done."""
        return min(self.deadline, self.step * self.hops_per_frame)

    def latency(self, net_hop: int) -> int:
        """Samples by which the stems lag the input."""
        return (self.delay + self.overlap - 1) * (net_hop // self.hops_per_frame)


@dataclass(frozen=True)
class SegmentPlan:
    """The same for networks that take a segment of samples; all in hops.

    Attributes:
        step: K, between two runs, each giving K hops of the stems.
        deadline: D, from the submission of a segment to the use of its stems.
        lookahead: A, that the newest sample taken lies behind the newest one seen.
        fade: X, over which the stems of two runs cross.
    """

    step: int
    deadline: int
    lookahead: int
    fade: int

    def __post_init__(self) -> None:
        """Refuse what cannot run.

        Raises:
            UsageError: names the option and its bounds.
        """
        for name, least in (("step", 1), ("deadline", 1), ("lookahead", 0), ("fade", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= _MOST:
                raise UsageError(f"{name} must be {least} to {_MOST} hops, not {value!r}")
        if self.fade > self.step:
            raise UsageError(f"fade {self.fade} must not be longer than step {self.step}")

    @property
    def budget(self) -> int:
        """Hops in which a run must be done."""
        return min(self.deadline, self.step)

    def latency(self, hop: int) -> int:
        """Samples by which the stems lag the input.

        The oldest sample that a run is the first to give waits for the K hops since, the look-ahead
        and the fade, and D for the network.  The hop in which it comes out is free: minus one.
        """
        return (self.step + self.deadline - 1 + self.lookahead + self.fade) * hop


Plan = SlidingPlan | SegmentPlan


#: By model family: measured in docs/quality.md, section Spleeter.
PROFILES: dict[str, dict[str, SlidingPlan]] = {
    "spleeter": {
        "fast": SlidingPlan(context=64, step=1, lookahead=0, deadline=5, shift=6, overlap=4),
        "balanced": SlidingPlan(context=64, step=2, lookahead=1, deadline=6, shift=4, overlap=8),
        "light": SlidingPlan(context=64, step=4, lookahead=0, deadline=12, shift=4, overlap=8),
        "best": SlidingPlan(context=64, step=2, lookahead=4, deadline=7, shift=5, overlap=8),
    },
    # The shapes of Spleeter's plans, with as much time as three networks of the original's size
    # need (measured in docs/quality.md); nobody has listened to them.
    "openunmix": {
        "fast": SlidingPlan(context=96, step=2, lookahead=1, deadline=8, shift=4, overlap=8),
        "balanced": SlidingPlan(context=128, step=4, lookahead=2, deadline=16, shift=4, overlap=8),
        "light": SlidingPlan(context=128, step=8, lookahead=0, deadline=24, shift=4, overlap=8),
        "best": SlidingPlan(context=256, step=8, lookahead=8, deadline=32, shift=5, overlap=8),
    },
    "openunmix-stateful": {
        "fast": SlidingPlan(context=1, step=1, lookahead=0, deadline=4, shift=6, overlap=4),
        "balanced": SlidingPlan(context=1, step=1, lookahead=0, deadline=4, shift=4, overlap=8),
        "light": SlidingPlan(context=4, step=4, lookahead=0, deadline=12, shift=4, overlap=8),
    },
}
#: Of segment models, in seconds: step, deadline, look-ahead, fade.
SEGMENT_SECONDS = {
    "fast": (0.25, 0.125, 0.125, 0.05),
    "balanced": (1.0, 1.0, 0.25, 0.1),
    "light": (3.0, 3.0, 0.25, 0.1),
    "best": (1.0, 1.0, 1.0, 0.25),
}
#: Seconds of a segment below which these are shortened in proportion.
_SHORT = 4.0
#: What is taken when none is asked for: on a processor, and where a graphics card computes.
DEFAULT_PROFILE = "balanced"
GPU_PROFILE = "fast"


def scaled(metadata: ModelMetadata, samplerate: int) -> tuple[int, int]:
    """The transform of a window model at another rate: `(n_fft, net hop)`, in samples.

    The network learned what a frame of so many milliseconds and a bin of so many hertz look like.
    So at another rate the transform is scaled (`ModelMetadata.n_fft_at`), and no resampler is
    needed.

    Raises:
        UsageError: a rate at which the network's bins reach beyond half the rate.
    """
    base = metadata.sample_rates[0]
    n_fft = metadata.n_fft_at(samplerate)
    if metadata.bins > n_fft // 2 + 1:
        lowest = 2 * (metadata.bins - 1) * base // metadata.n_fft
        raise UsageError(
            f"model {metadata.name!r} needs a sample rate of at least {lowest} Hz, not {samplerate}"
        )
    return n_fft, n_fft * metadata.hop // metadata.n_fft


def profiles(metadata: ModelMetadata) -> Mapping[str, Plan]:
    """The plans that a model can be asked for by name; none for one that runs hop by hop."""
    if metadata.kind == "window":
        return _window_profiles(metadata)
    return _segment_profiles(metadata) if metadata.kind == "segment" else {}


def _window_profiles(metadata: ModelMetadata) -> Mapping[str, SlidingPlan]:
    family = f"{metadata.family}-stateful" if metadata.states else metadata.family
    return PROFILES.get(family, PROFILES["spleeter"])


def _segment_profiles(metadata: ModelMetadata) -> Mapping[str, SegmentPlan]:
    rate = metadata.sample_rates[0]
    # Short segments have short plans.
    unit = min(1.0, metadata.segment / (_SHORT * rate)) * rate / metadata.hop
    return {
        name: SegmentPlan(*(max(1, round(unit * seconds)) for seconds in times))
        for name, times in SEGMENT_SECONDS.items()
    }


def segment_plan(
    metadata: ModelMetadata, profile: str = DEFAULT_PROFILE, **changes: int
) -> SegmentPlan:
    """The plan of a profile of a segment model, with fields replaced.

    Raises:
        UsageError: unknown profile, or values that contradict or do not fit the segment.
    """
    known = _segment_profiles(metadata)
    if profile not in known:
        raise unknown("profile", profile, known)
    chosen = replace(known[profile], **changes)
    most = metadata.segment // metadata.hop
    if chosen.step + chosen.lookahead + chosen.fade > most:
        raise UsageError(f"step, lookahead and fade together must be at most {most} hops")
    return chosen


def too_slow(
    metadata: ModelMetadata, plan: Plan, seconds: float, hop: float, provider: str
) -> str | None:
    """What to tell people whose machine is too slow for a plan; None where it is not.

    Args:
        seconds: that a run takes.
        hop: seconds of a hop.
    """
    if seconds <= plan.budget * hop:
        return None
    step = plan.step * hop * (plan.hops_per_frame if isinstance(plan, SlidingPlan) else 1)
    text = (
        f"{metadata.name!r} is too slow here: a run takes {seconds:.2g} s and has "
        f"{plan.budget * hop:.2g} s ({seconds / step:.2g} times real time on {provider})"
    )
    if fits := fitting(metadata, seconds, hop, plan):
        return f"{text}; --profile {fits} has time enough"
    help = "" if provider.startswith("CUDA") else "a graphics card (--provider cuda), "
    return f"{text}; what helps: {help}a longer step and deadline, a smaller or quantised network"


def fitting(metadata: ModelMetadata, seconds: float, hop: float, plan: Plan) -> str | None:
    """The quickest profile that a network keeps up with which takes `seconds` under `plan`."""
    found = {}
    for name, other in profiles(metadata).items():
        part = 1.0  # of the time, where less is seen
        if isinstance(plan, SlidingPlan) and isinstance(other, SlidingPlan):
            part = other.context / plan.context
        if seconds * part <= _TRUSTED * other.budget * hop:
            found[name] = other.latency(metadata.hop)
    return min(found, key=found.__getitem__, default=None)


def plan(metadata: ModelMetadata, profile: str = DEFAULT_PROFILE, **changes: int) -> SlidingPlan:
    """The plan of a profile of a window model, with fields replaced.

    Raises:
        UsageError: unknown profile, a context the network does not take, or values that contradict.
    """
    known = _window_profiles(metadata)
    if profile not in known:
        raise unknown("profile", profile, known)
    chosen = replace(known[profile], **changes)
    if metadata.states and (chosen.context != chosen.step or chosen.lookahead):
        raise UsageError("a network with states sees each frame once: context = step, lookahead 0")
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
