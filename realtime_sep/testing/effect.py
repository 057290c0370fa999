"""What every effect promises."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np

from realtime_sep.effects import API_VERSION, Effect, Parameter
from realtime_sep.errors import UsageError
from realtime_sep.plugins import load_effect
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
from realtime_sep.types import Float32

#: What effects are prepared for, and the block that most checks use.
MAX_FRAMES, BLOCK = 1024, 256
#: What the text of a chain takes for the name of a parameter.
_TYPED = re.compile(r"\w[\w.-]*")
#: A step between two samples is a click where it is this many times the steepest one of the sound
#: at rest, and this much of its peak.
_STEEPER, _JUMP = 4.0, 0.06


def check_effect(plugin: Any, *, skip: Collection[str] = (), **settings: Any) -> None:
    """Run all checks of `EffectConformance`.

    Args:
        plugin: a name for `load_effect`, or a class or function that makes an effect.
        skip: checks that do not apply, by name.
        settings: attributes of the suite, such as `tail=20` or `transparent={"depth": 0}`.

    Raises:
        AssertionError: with a line for each promise that is broken.
        UsageError: no such check or setting.
    """
    __tracebackhide__ = True
    check(EffectConformance, plugin, skip, settings)


class EffectConformance(Conformance):
    """One test for each promise of an effect.

    Attributes:
        values: parameters that the effect is set to in all checks; the rest is at its default.
        transparent: parameters besides, with which what goes in can be recognised in what comes
            out; the latency is measured with them.
    """

    values: ClassVar[dict[str, float]] = {}
    transparent: ClassVar[dict[str, float]] = {}

    def make(self) -> Effect:
        """A new effect."""
        plugin = self._factory()
        made: Effect = load_effect(plugin) if isinstance(plugin, str) else plugin()
        self._open.append(made)
        return made

    def prepared(
        self,
        values: Mapping[str, float] | None = None,
        *,
        samplerate: int = 0,
        channels: int = 0,
        max_frames: int = MAX_FRAMES,
    ) -> Effect:
        """A new effect that is ready to process."""
        effect = self.make()
        for name, value in {**self.values, **(values or {})}.items():
            effect.set(name, value)
        effect.prepare(samplerate or self.samplerate, channels or self.channels, max_frames)
        return effect

    def _turned(self) -> dict[str, float]:
        """Every parameter half-way to the end that is farther from its default."""
        return {p.name: _half_way(p) for p in self.make().parameters if p.name not in self.values}

    def test_it_is_an_effect(self) -> None:
        effect = self.make()
        missing = [
            name
            for name in ("parameters", "latency", "prepare", "set", "reset", "process")
            if not hasattr(effect, name)
        ]
        assert not missing, f"it lacks {', '.join(missing)} of realtime_sep.effects.Effect"
        version = getattr(self._factory(), "api_version", API_VERSION)
        assert version == API_VERSION, (
            f"its api_version is {version}, but this realtime_sep speaks {API_VERSION}"
        )

    def test_parameters_are_described_and_checked(self) -> None:
        effect = self.make()
        names = [p.name for p in effect.parameters]
        assert len(set(names)) == len(names), f"parameters need different names, not {names}"
        for p in effect.parameters:
            assert _TYPED.fullmatch(p.name), (
                f"{p.name!r} cannot be typed in effect:key=value; use letters, digits, underscores"
            )
            assert -math.inf < p.minimum < p.maximum < math.inf, (
                f"{p.name} needs a range, not {p.minimum} to {p.maximum}"
            )
            assert p.minimum <= p.default <= p.maximum, (
                f"the default of {p.name}, {p.default}, is out of its range"
            )
            for value in (p.minimum, p.maximum, p.default):
                effect.set(p.name, value)
            span = p.maximum - p.minimum
            for value in (p.minimum - span, p.maximum + span, math.nan):
                self._refuses(effect, p.name, value)
        self._refuses(effect, "no_such_parameter", 0.0)

    def _refuses(self, effect: Effect, name: str, value: float) -> None:
        """Fail unless a value is the user's mistake."""
        try:
            effect.set(name, value)
        except UsageError:
            return
        except Exception as error:
            raise AssertionError(
                f"set({name!r}, {value:g}) must raise UsageError, not {error!r}"
            ) from error
        raise AssertionError(
            f"set({name!r}, {value:g}) must raise UsageError; Parameter.checked(value) does"
        )

    def test_it_runs_at_every_rate_and_layout(self) -> None:
        for rate in self.rates:
            for channels in self.layouts:
                out = _run(
                    self.prepared(samplerate=rate, channels=channels), noise(rate // 10, channels)
                )
                assert np.isfinite(out).all(), f"at {rate} Hz, {channels} channel(s): NaN or Inf"

    def test_blocks_of_any_size_give_the_same_samples(self) -> None:
        for channels in self.layouts:
            audio = noise(self._frames(), channels)
            for values in ({}, self._turned()):
                expected = _run(self.prepared(values, channels=channels), audio)
                for blocks in ((1, 7, 441), (MAX_FRAMES,), (BLOCK - 1, BLOCK, BLOCK + 1)):
                    self._same(
                        _run(self.prepared(values, channels=channels), audio, blocks),
                        expected,
                        f"blocks of {blocks} frames give other samples than blocks of {BLOCK}; "
                        "carry state from block to block, and do nothing once a block",
                    )

    def test_blocks_are_only_lent(self) -> None:
        audio = noise(self._frames(), self.channels)
        expected = _run(self.prepared(), audio)
        effect, lent = self.prepared(), np.empty((BLOCK, self.channels), np.float32)
        out = np.empty_like(audio)
        for start in range(0, len(audio), BLOCK):
            part = lent[: len(audio[start : start + BLOCK])]
            part[:] = audio[start : start + BLOCK]
            effect.process(part)
            out[start : start + BLOCK] = part
            lent[:] = 0.9
        self._same(
            out,
            expected,
            "it looks into a block after process() has returned; copy what is needed later",
        )

    def test_instances_keep_apart(self) -> None:
        audio = noise(self._frames(), self.channels)
        expected = _run(self.prepared(), audio)
        effect, other = self.prepared(), self.prepared()
        out = audio.copy()
        for start in range(0, len(audio), BLOCK):
            effect.process(out[start : start + BLOCK])
            other.process(audio[start : start + BLOCK][::-1].copy())
        self._same(
            out,
            expected,
            "another instance, running beside it, changes its samples; keep state in self, not in "
            "the class or module, and draw nothing at random",
        )

    def test_latency_is_true(self) -> None:
        """Found by correlating what came out with noise that went in."""
        for rate in self.rates:
            effect = self.prepared(self.transparent, samplerate=rate)
            told = effect.latency
            audio = noise(2 * rate, self.channels)
            measured = lag(_run(effect, audio), audio)
            assert measured is not None, (
                "the sound that went in is not recognised in what came out within 2 seconds; name "
                "parameters with which it is: transparent = {...}"
            )
            assert (told, effect.latency) == (measured, measured), (
                f"at {rate} Hz it says {told} frames of latency before it runs and "
                f"{effect.latency} after, but {measured} were measured"
            )

    def test_reset_is_like_new(self) -> None:
        before, after = (noise(self._frames(), self.channels, seed) for seed in (1, 2))
        for values in ({}, self._turned()):
            effect = self.prepared()
            _run(effect, before)
            for name, value in values.items():
                effect.set(name, value)
            effect.reset()
            self._same(
                _run(effect, after),
                _run(self.prepared(values), after),
                "after reset() it sounds unlike a new one with the same parameters; all sound "
                "must be forgotten there, and parameters be where they were set",
            )

    def test_loud_and_broken_input_does_no_harm(self) -> None:
        audio = noise(self._frames(), self.channels)
        effect = self.prepared()
        with np.errstate(all="ignore"):
            loud = _run(effect, 1000 * audio)
            assert np.isfinite(loud).all(), "input 60 dB too loud makes it give NaN or Inf"
            _run(effect, poison(self._frames(), self.channels))
        effect.reset()
        self._same(
            _run(effect, audio),
            _run(self.prepared(), audio),
            "after NaN and Inf, reset() does not heal it; clear every state there",
        )

    def test_silence_stays_silent_and_the_tail_ends(self) -> None:
        effect = self.prepared()
        silence = np.zeros((self._frames(), self.channels), np.float32)
        level = decibels(_run(effect, silence))
        assert level < -120, f"silence in gives {level:.0f} dBFS out"
        _run(effect, noise(self._frames(), self.channels))
        _run(
            effect, np.zeros((self._frames(self.tail) + effect.latency, self.channels), np.float32)
        )
        level = decibels(_run(effect, silence))
        assert level < -100, (
            f"{self.tail:g} s after the sound has ended {level:.0f} dBFS are left; if that is "
            "meant, say so: tail = seconds"
        )

    def test_it_allocates_nothing_at_work(self) -> None:
        frames = 4096
        effect = self.prepared(max_frames=frames)
        block = noise(frames, self.channels)
        quiet = block.copy()

        def call() -> None:
            block[:] = quiet
            effect.process(block)

        kept, most = allocated(call, 50)
        assert kept <= 1024, f"50 blocks leave {kept} bytes behind; keep nothing in process()"
        assert most <= self.scratch, (
            f"a block of {quiet.nbytes} bytes allocates {most} bytes; make arrays in prepare() and "
            "compute into them (out=..., in place, or compiled)"
        )

    def test_it_keeps_up(self) -> None:
        effect = self.prepared()
        block, sound = np.empty((2, BLOCK, self.channels), np.float32)
        sound[:] = noise(BLOCK, self.channels)

        def call() -> None:
            block[:] = sound
            effect.process(block)

        times = -(-self._frames(0.25) // BLOCK)
        call()
        part = quickest(call, times) / (times * BLOCK / self.samplerate)
        assert part <= self.realtime, (
            f"it takes {part:.1%} of a core in blocks of {BLOCK} frames, more than "
            f"{self.realtime:.1%}; realtime = ... sets the limit"
        )

    def test_parameters_move_without_a_click(self) -> None:
        """Each is thrown from end to end and back, at different places of a low tone."""
        frames, some = self._frames(0.25), self._frames(1 / 16) + 37
        phase = 2 * np.pi * 110 / self.samplerate * np.arange(2 * frames + 16 * some)
        tone = (0.4 * np.sin(phase)[:, np.newaxis]).astype(np.float32).repeat(self.channels, 1)
        for p in self.make().parameters:
            steepest = loudest = 0.0
            for value in (p.minimum, p.maximum):
                out = _run(self.prepared({p.name: value}), tone[: 2 * frames])[frames:]
                steepest = max(steepest, float(np.abs(np.diff(out, axis=0)).max()))
                loudest = max(loudest, float(np.abs(out).max()))
            effect = self.prepared()
            parts = [_run(effect, tone[: 2 * frames])]
            for i, start in enumerate(range(2 * frames, len(tone), some)):
                effect.set(p.name, p.minimum if i % 2 else p.maximum)
                parts.append(_run(effect, tone[start : start + some]))
            out = np.concatenate(parts)
            jump = float(np.abs(np.diff(out, axis=0)).max())
            loudest = max(loudest, float(np.abs(out).max()))
            assert jump <= max(_STEEPER * steepest, _JUMP * loudest), (
                f"{p.name}, turned from end to end, makes a step of {jump:.3g} between two "
                f"samples; at rest the steepest is {steepest:.3g}: glide to the new value"
            )


def _half_way(p: Parameter) -> float:
    far = p.maximum if p.maximum - p.default >= p.default - p.minimum else p.minimum
    return far if p.kind == "switch" else (p.default + far) / 2


def _run(effect: Effect, audio: Float32, blocks: tuple[int, ...] = (BLOCK,)) -> Float32:
    """What comes out, in blocks of these lengths by turns; every block is an array of its own."""
    parts, start, i = [], 0, 0
    while start < len(audio):
        part = audio[start : start + blocks[i % len(blocks)]].copy()
        effect.process(part)
        parts.append(part)
        start += len(part)
        i += 1
    return np.concatenate(parts)
