"""The one formula.

    separator = S - H + lookahead * H      lag of overlap-add (zero for S = H)
    bridge    = H - gcd(B, H)              gathering blocks into hops
              + B                          the worker's deadline
              + guard                      finished frames held back for fading
    total     = separator + effects + limiter + bridge + device

The output ring is prefilled with `bridge` frames, so the formula is not a prediction but a setting:
see `docs/architecture.md` for why each term is as small as it can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from realtime_sep.types import Geometry, Latency


def overlap_add_lag(geometry: Geometry, lookahead: int = 0) -> int:
    """Frames by which overlap-add output lags its input, `lookahead` hops included."""
    return geometry.synthesis - geometry.hop + lookahead * geometry.hop


def stream_latency(
    *,
    samplerate: int,
    hop: int,
    blocks: Sequence[int],
    guard: int,
    separator: int,
    effects: int = 0,
    limiter: int = 0,
    device: int = 0,
) -> Latency:
    """Latency of a live stream.

    Args:
        blocks: every block size the device may use; one for an ordinary device.
    """
    return Latency(
        samplerate=samplerate,
        separator=separator,
        effects=effects,
        limiter=limiter,
        gathering=hop - gcd(hop, *blocks),
        deadline=max(blocks),
        guard=guard,
        device=device,
    )
