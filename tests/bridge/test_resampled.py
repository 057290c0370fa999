"""A separator in a host at 96 kHz: what a separator promises, it promises there as well."""

from __future__ import annotations

from realtime_sep.bridge.instance import _load
from realtime_sep.bridge.resampled import Resampled
from realtime_sep.dsp.resample import native_rate
from realtime_sep.separators import Separator
from realtime_sep.separators.center import Center
from realtime_sep.testing import SeparatorConformance


def center(samplerate: int, channels: int) -> Separator:
    return Resampled(Center(samplerate=native_rate(samplerate), channels=channels), samplerate)


class TestResampled(SeparatorConformance):
    plugin = center
    samplerate = 96000
    rates = (32000, 88200, 96000, 192000)
    scratch = 1 << 16  # the resampler answers with new arrays


def test_it_is_what_a_host_at_such_a_rate_gets() -> None:
    for rate, kind in ((48000, Center), (96000, Resampled), (22050, Resampled)):
        made = _load("center", rate)
        assert isinstance(made, kind)
        assert made.info.samplerate == rate
