"""What every separator promises."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np

from realtime_sep.plugins import load_separator
from realtime_sep.separators import API_VERSION, Separator
from realtime_sep.testing.base import (
    Conformance,
    allocated,
    check,
    decibels,
    lag,
    noise,
    poison,
    quickest,
)
from realtime_sep.types import Float32, SeparatorInfo

#: A stem that is softer than the mix by more dB than this is not asked for its latency.
_SOFT = 30.0


def check_separator(plugin: Any, *, skip: Collection[str] = (), **settings: Any) -> None:
    """Run all checks of `SeparatorConformance`.

    Args:
        plugin: a name for `load_separator`, or a class or function that makes a separator from
            `samplerate` and `channels`.
        skip: checks that do not apply, by name.
        settings: attributes of the suite, such as `rates=(44100,)` or `options={"low": 100}`.

    Raises:
        AssertionError: with a line for each promise that is broken.
        UsageError: no such check or setting.
    """
    __tracebackhide__ = True
    check(SeparatorConformance, plugin, skip, settings)


class SeparatorConformance(Conformance):
    """One test for each promise of a separator.

    The engine cuts audio into hops, so a separator cannot depend on the device's blocks.

    Attributes:
        options: what the factory takes besides sample rate and channels.
    """

    options: ClassVar[dict[str, Any]] = {}
    realtime: ClassVar[float] = 0.5
    tail: ClassVar[float] = 2.0

    def make(self, samplerate: int = 0, channels: int = 0) -> Separator:
        """A new separator."""
        plugin = self._factory()
        rate, channels = samplerate or self.samplerate, channels or self.channels
        made: Separator
        if isinstance(plugin, str):
            made = load_separator(plugin, samplerate=rate, channels=channels, **self.options)
        else:
            made = plugin(samplerate=rate, channels=channels, **self.options)
        self._open.append(made)
        return made

    def _mix(self, seconds: float | None = None, channels: int = 0, seed: int = 0) -> Float32:
        """Noise in the middle and other noise at the sides."""
        channels, frames = channels or self.channels, self._frames(seconds)
        middle = noise(frames, 1, 2 * seed + 1, 0.15)
        return middle + noise(frames, channels, 2 * seed, 0.1)

    def test_it_is_a_separator(self) -> None:
        separator = self.make()
        missing = [name for name in ("info", "reset", "process") if not hasattr(separator, name)]
        assert not missing, f"it lacks {', '.join(missing)} of realtime_sep.separators.Separator"
        info = separator.info
        assert isinstance(info, SeparatorInfo), "info must be a realtime_sep.types.SeparatorInfo"
        assert len({*info.stems, ""}) > len(info.stems) > 0, (
            f"stems need different names, not {info.stems}"
        )
        assert min(info.hop - 1, info.latency) >= 0, (
            f"a hop of {info.hop} frames and a latency of {info.latency} cannot be"
        )
        version = getattr(self._factory(), "api_version", API_VERSION)
        assert version == API_VERSION, (
            f"its api_version is {version}, but this realtime_sep speaks {API_VERSION}"
        )

    def test_it_runs_at_every_rate_and_layout(self) -> None:
        for rate in self.rates:
            for channels in self.layouts:
                separator = self.make(rate, channels)
                info = separator.info
                assert (info.samplerate, info.channels) == (rate, channels), (
                    f"asked for {rate} Hz and {channels} channel(s), its info says "
                    f"{info.samplerate} and {info.channels}; raise UsageError for what cannot be"
                )
                out = _run(separator, self._mix(channels=channels))
                assert np.isfinite(out).all(), (
                    f"at {rate} Hz with {channels} channel(s) NaN or Inf come out, or parts of "
                    "stems are never written; fill stems[...] whole in every call"
                )

    def test_stems_add_up(self) -> None:
        """To the mix, however late; whether as late as they say is another question."""
        separator = self.make()
        audio = self._mix(self.seconds + 2 * separator.info.latency / self.samplerate)
        total = _run(separator, audio).sum(axis=0)
        found = lag(total, audio)
        assert found is not None, "the sum of the stems is nothing like the mix"
        level = decibels(total[found:] - audio[: len(total) - found])
        assert level <= -120, (
            f"the sum of the stems is {level:.0f} dBFS off the mix, not -120; make the last stem "
            "the delayed mix minus the others"
        )

    def test_latency_is_true(self) -> None:
        """Found by correlating what comes out with what went in, each stem by itself."""
        for rate in self.rates:
            separator = self.make(rate)
            info = separator.info
            audio = self._mix(2.0 + 2 * info.latency / rate)
            stems = _run(separator, audio)
            heard = {
                "the sum of the stems": stems.sum(axis=0),
                **dict(zip(info.stems, stems, strict=True)),
            }
            for name, stem in heard.items():
                measured = lag(stem, audio)
                if decibels(stem) < decibels(audio) - _SOFT or measured is None:
                    continue
                assert measured == info.latency, (
                    f"at {rate} Hz {name} lags by {measured} frames, not by {info.latency} as "
                    "info.latency says"
                )

    def test_reset_is_like_new(self) -> None:
        separator = self.make()
        _run(separator, self._mix(seed=1))
        separator.reset()
        audio = self._mix(seed=2)
        self._same(
            _run(separator, audio),
            _run(self.make(), audio),
            "after reset() it separates unlike a new one; clear every state there",
        )

    def test_buffers_are_only_lent(self) -> None:
        audio = self._mix()
        expected = _run(self.make(), audio)
        separator = self.make()
        info = separator.info
        hop = np.empty((info.hop, self.channels), np.float32)
        stems = np.empty((len(info.stems), *hop.shape), np.float32)
        out = np.empty_like(expected)
        for start in range(0, out.shape[1], info.hop):
            hop[:] = part = audio[start : start + info.hop]
            separator.process(hop, stems)
            assert np.array_equal(hop, part), "it writes into the hop, which others still read"
            out[:, start : start + info.hop] = stems
            hop[:], stems[:] = 0.9, -0.9
        self._same(
            out,
            expected,
            "it looks into the hop or the stems after process() has returned; copy what is needed",
        )

    def test_instances_keep_apart(self) -> None:
        audio = self._mix()
        expected = _run(self.make(), audio)
        separator, other = self.make(), self.make()
        out = np.empty_like(expected)
        hop = separator.info.hop
        for start in range(0, out.shape[1], hop):
            part = audio[start : start + hop]
            out[:, start : start + hop] = _run(separator, part)
            _run(other, part[::-1].copy())
        self._same(
            out,
            expected,
            "another instance, running beside it, changes its stems; keep state in self, not in "
            "the class or module, and draw nothing at random",
        )

    def test_loud_and_broken_input_does_no_harm(self) -> None:
        audio = self._mix()
        separator = self.make()
        with np.errstate(all="ignore"):
            loud = _run(separator, 1000 * audio)
            assert np.isfinite(loud).all(), "input 60 dB too loud makes it give NaN or Inf"
            _run(separator, poison(len(audio), self.channels))
        separator.reset()
        self._same(
            _run(separator, audio),
            _run(self.make(), audio),
            "after NaN and Inf, reset() does not heal it; clear every state there",
        )

    def test_silence_stays_silent_and_the_tail_ends(self) -> None:
        separator = self.make()
        silence = np.zeros_like(self._mix())
        level = decibels(_run(separator, silence))
        assert level < -120, f"silence in gives {level:.0f} dBFS out"
        _run(separator, self._mix())
        seconds = self.tail + separator.info.latency / self.samplerate
        _run(separator, np.zeros_like(self._mix(seconds)))
        level = decibels(_run(separator, silence))
        assert level < -100, (
            f"{self.tail:g} s after the mix has ended {level:.0f} dBFS are left; if that is meant, "
            "say so: tail = seconds"
        )

    def test_it_allocates_nothing_at_work(self) -> None:
        separator = self.make()
        info = separator.info
        hop = self._mix(info.hop / self.samplerate)
        stems = np.empty((len(info.stems), *hop.shape), np.float32)
        kept, most = allocated(lambda: separator.process(hop, stems), 50)
        assert kept <= 1024, f"50 hops leave {kept} bytes behind; keep nothing in process()"
        assert most <= self.scratch, (
            f"a hop of {hop.nbytes} bytes allocates {most} bytes; make arrays in __init__ and "
            "compute into them (out=..., in place, or compiled)"
        )

    def test_it_keeps_up(self) -> None:
        separator = self.make()
        info = separator.info
        hop = self._mix(info.hop / self.samplerate)
        stems = np.empty((len(info.stems), *hop.shape), np.float32)
        separator.process(hop, stems)
        times = -(-self._frames(0.25) // info.hop)
        seconds = quickest(lambda: separator.process(hop, stems), times)
        part = seconds / (times * info.hop / self.samplerate)
        assert part <= self.realtime, (
            f"it takes {part:.1%} of a core, more than {self.realtime:.1%}; realtime = ... sets "
            "the limit"
        )


def _run(separator: Separator, audio: Float32) -> Float32:
    """Stems `(stems, frames, channels)` of as many whole hops as there are.

    Every hop and every hop's stems are arrays of their own; what is not filled is NaN.
    """
    info = separator.info
    parts = []
    for start in range(0, len(audio) - info.hop + 1, info.hop):
        hop = audio[start : start + info.hop].copy()
        stems = np.full((len(info.stems), *hop.shape), np.nan, np.float32)
        separator.process(hop, stems)
        parts.append(stems)
    assert parts, f"its hop of {info.hop} frames is longer than the test's sound: seconds = more"
    return np.concatenate(parts, axis=1)
