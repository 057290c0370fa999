"""The mean of separators: their stems, aligned, added up."""

from __future__ import annotations

import numpy as np
import pytest

from realtime_sep import load_separator, separate
from realtime_sep.errors import UsageError
from realtime_sep.types import Float32, SeparatorInfo

RATE = 44100


def song(seconds: float = 1.0) -> Float32:
    rng = np.random.default_rng(0)
    return rng.uniform(-0.5, 0.5, (round(seconds * RATE), 2)).astype(np.float32)


def test_mean_of_different_delays_and_hops() -> None:
    """`center` (hop 256) and `nmf` (hop 512, later) meet at the later one's delay."""
    audio = song()
    mean = load_separator("center+nmf")
    apart = [separate(audio, RATE, name) for name in ("center", "nmf")]
    together = separate(audio, RATE, mean)
    assert mean.info.name == "center+nmf"
    assert mean.info.latency == load_separator("nmf").info.latency
    for stem, audible in together.items():
        expected = (apart[0][stem] + apart[1][stem]) / 2
        np.testing.assert_allclose(audible, expected, atol=1e-6)
    assert np.abs(sum(together.values()) - audio).max() < 1e-6


def test_parts_have_options_of_their_own() -> None:
    assert load_separator("nmf:profile=live+nmf:profile=stage").info.hop == 256


def test_it_begins_anew_after_a_reset() -> None:
    mean = load_separator("center+nmf:memory=0")
    hop = song()[: mean.info.hop]
    stems = np.zeros((2, *hop.shape), np.float32)
    mean.process(hop, stems)
    mean.process(hop, stems)
    later = stems.copy()
    mean.reset()
    mean.process(hop, stems)
    assert not np.array_equal(later, stems)
    mean.process(hop, stems)
    np.testing.assert_array_equal(later, stems)


class Waits:
    """Has a live mode, a notice and something to close."""

    def __init__(self, stems: tuple[str, ...] = ("vocals", "accompaniment")) -> None:
        self.info = SeparatorInfo("waits", stems, RATE, 2, 64, 0)
        self.realtime, self.closed, self.notice = False, False, "said once"

    def reset(self) -> None: ...

    def process(self, hop: Float32, stems: Float32) -> None:
        stems[:] = 0
        stems[-1] = hop

    def close(self) -> None:
        self.closed = True


def test_what_a_member_has_besides_is_passed_on() -> None:
    from realtime_sep.separators.mean import Mean

    member = Waits()
    mean = Mean([load_separator("center"), member])
    mean.realtime = True
    assert member.realtime
    assert mean.notice == "said once"
    mean.close()
    assert member.closed


def test_means_that_cannot_be() -> None:
    from realtime_sep.separators.mean import Mean

    with pytest.raises(UsageError, match="two separators or more"):
        Mean([load_separator("center")])
    with pytest.raises(UsageError, match="different stems"):
        Mean([load_separator("center"), Waits(("vocals", "drums", "other"))])
    with pytest.raises(UsageError, match="did you mean 'nmf'"):
        load_separator("center+nmff")
