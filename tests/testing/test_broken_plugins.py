"""Each check of the kit finds the plugin that breaks its promise, and finds nothing else wrong."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from realtime_sep.dsp.delay import Delay
from realtime_sep.effects.filters import Highpass
from realtime_sep.effects.gain import Gain
from realtime_sep.errors import UsageError
from realtime_sep.testing import (
    EffectConformance,
    SeparatorConformance,
    check_effect,
    check_separator,
)
from realtime_sep.testing.base import failures
from realtime_sep.types import Float32, SeparatorInfo

QUICK = {"seconds": 0.1, "tail": 0.3, "realtime": 0.05, "rates": (44100,)}

# ---- effects


class OtherVersion(Highpass):
    api_version = 2


class Clips(Highpass):
    def set(self, name: str, value: float) -> None:
        for p in self.parameters:
            if p.name == name:
                return super().set(name, min(max(value, p.minimum), p.maximum))
        return super().set(name, value)


class StereoOnly(Highpass):
    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None:
        self._mono = channels == 1 and samplerate == 44100
        super().prepare(samplerate, channels, max_frames)

    def process(self, block: Float32) -> None:
        super().process(block)
        if self._mono:
            block[:] = np.nan


class OncePerBlock(Highpass):
    def process(self, block: Float32) -> None:
        super().process(block)
        block[0] *= np.float32(0.9)


class Keeps(Highpass):
    """Looks into the last block again."""

    def reset(self) -> None:
        super().reset()
        self._kept: Float32 | None = None

    def process(self, block: Float32) -> None:
        super().process(block)
        if self._kept is not None and self._kept[-1, 0] != self._was:
            block *= np.float32(0.5)
        self._kept, self._was = block, block[-1, 0]


class Shares(Highpass):
    """One state for all."""

    _states: dict[int, Any] = {}  # noqa: RUF012

    def allocate(self, channels: int, max_frames: int) -> None:
        self._state = self._states.setdefault(channels, np.zeros((channels, 2)))


class Lies(Highpass):
    latency = 1


class LearnsLatency(Highpass):
    """Says it only once it has run."""

    latency = 3

    def process(self, block: Float32) -> None:
        super().process(block)
        self.latency = 0


class Remembers(Highpass):
    def reset(self) -> None:
        state = self._state.copy()
        super().reset()
        if np.isfinite(state).all():
            self._state[:] = state


class StaysIll(Highpass):
    def reset(self) -> None:
        state = self._state.copy()
        super().reset()
        if not np.isfinite(state).all():
            self._state[:] = np.nan


class Overflows(Highpass):
    def process(self, block: Float32) -> None:
        super().process(block)
        if block.max() > 100:
            block[0] = np.nan


class Hums(Highpass):
    def process(self, block: Float32) -> None:
        super().process(block)
        block += np.float32(1e-5)


class NeverEnds(Highpass):
    def reset(self) -> None:
        super().reset()
        self._heard = False

    def process(self, block: Float32) -> None:
        self._heard = self._heard or bool(block.max() > 0)
        super().process(block)
        if self._heard:
            block += np.float32(1e-4)


class Allocates(Highpass):
    def process(self, block: Float32) -> None:
        super().process(block)
        block *= np.ones_like(block)


class Hoards(Highpass):
    def __init__(self) -> None:
        super().__init__()
        self._hoard: list[bytes] = []

    def process(self, block: Float32) -> None:
        super().process(block)
        self._hoard.append(bytes(64))


class Sleeps(Highpass):
    def process(self, block: Float32) -> None:
        super().process(block)
        time.sleep(0.08 * len(block) / self.samplerate if len(block) > 7 else 0)


class Jumps(Gain):
    def process(self, block: Float32) -> None:
        assert self._faders is not None
        self._faders.settle()
        super().process(block)


EFFECTS = {
    OtherVersion: "it_is_an_effect",
    Clips: "parameters_are_described_and_checked",
    StereoOnly: "it_runs_at_every_rate_and_layout",
    OncePerBlock: "blocks_of_any_size_give_the_same_samples",
    Keeps: "blocks_are_only_lent",
    Shares: "instances_keep_apart",
    Lies: "latency_is_true",
    LearnsLatency: "latency_is_true",
    Remembers: "reset_is_like_new",
    StaysIll: "loud_and_broken_input_does_no_harm",
    Overflows: "loud_and_broken_input_does_no_harm",
    Hums: "silence_stays_silent_and_the_tail_ends",
    NeverEnds: "silence_stays_silent_and_the_tail_ends",
    Allocates: "it_allocates_nothing_at_work",
    Hoards: "it_allocates_nothing_at_work",
    Sleeps: "it_keeps_up",
    Jumps: "parameters_move_without_a_click",
}


@pytest.mark.parametrize("plugin", EFFECTS, ids=lambda p: p.__name__)
def test_each_broken_effect_fails_its_own_check(plugin: type) -> None:
    settings = {**QUICK, "plugin": plugin}
    wrong = failures(type("Suite", (EffectConformance,), settings))
    assert [*wrong] == [f"test_{EFFECTS[plugin]}"], wrong


# ---- separators


class Late:
    """Half of the mix is the voice; 32 frames late.  Nothing is wrong with it."""

    def __init__(self, *, samplerate: int, channels: int) -> None:
        self.info = SeparatorInfo(
            name="late",
            stems=("vocals", "accompaniment"),
            samplerate=samplerate,
            channels=channels,
            hop=128,
            latency=32,
        )
        self.start()

    def start(self) -> None:
        self._delay = Delay(32, self.info.channels)

    def reset(self) -> None:
        self._delay.reset()

    def process(self, hop: Float32, stems: Float32) -> None:
        vocals, rest = stems
        self._delay.process(hop, rest)
        np.multiply(rest, np.float32(0.5), out=vocals)
        np.subtract(rest, vocals, out=rest)


class LateOther(Late):
    api_version = 0


class LateAt44(Late):
    def __init__(self, *, samplerate: int, channels: int) -> None:
        super().__init__(samplerate=samplerate, channels=channels)
        self.info = replace(self.info, samplerate=48000)


class LateUnfilled(Late):
    """Mono is forgotten."""

    def process(self, hop: Float32, stems: Float32) -> None:
        before = np.float32(stems[0, 0, 0])
        super().process(hop, stems)
        if hop.shape[1] == 1:
            stems[0, 0, 0] = before


class LateLeaks(Late):
    def process(self, hop: Float32, stems: Float32) -> None:
        super().process(hop, stems)
        stems[1] *= np.float32(0.999)


class LateLies(Late):
    def __init__(self, *, samplerate: int, channels: int) -> None:
        super().__init__(samplerate=samplerate, channels=channels)
        self.info = replace(self.info, latency=31)


class LateVoice(Late):
    """It adds up, but the voice is later than the rest."""

    def start(self) -> None:
        super().start()
        self._more = Delay(5, self.info.channels)
        self._buffer: Float32 = np.zeros((self.info.hop, self.info.channels), np.float32)

    def reset(self) -> None:
        super().reset()
        self._more.reset()

    def process(self, hop: Float32, stems: Float32) -> None:
        super().process(hop, stems)
        vocals, rest = stems
        rest += vocals
        self._more.process(vocals, self._buffer)
        vocals[:] = self._buffer
        rest -= vocals


class LateRemembers(Late):
    def reset(self) -> None:
        out = np.zeros((32, self.info.channels), np.float32)
        self._delay.process(out.copy(), out)
        if np.isfinite(out).all():
            self._delay.process(out, out.copy())


class LateStaysIll(Late):
    def start(self) -> None:
        super().start()
        self._ill = False

    def process(self, hop: Float32, stems: Float32) -> None:
        super().process(hop, stems)
        self._ill = self._ill or not stems[0].max() < 1e9
        if self._ill:
            stems[:] = 0


class LateOverflows(Late):
    def process(self, hop: Float32, stems: Float32) -> None:
        super().process(hop, stems)
        if stems[0].max() > 20:
            stems[0, 0] = np.inf


class LateKeeps(Late):
    def start(self) -> None:
        super().start()
        self._kept: Float32 | None = None

    def reset(self) -> None:
        super().reset()
        self._kept = None

    def process(self, hop: Float32, stems: Float32) -> None:
        if self._kept is not None and self._kept[-1, 0] != self._was:
            self._delay.reset()
        super().process(hop, stems)
        self._kept, self._was = hop, hop[-1, 0]


class LateWrites(Late):
    def process(self, hop: Float32, stems: Float32) -> None:
        super().process(hop, stems)
        hop[:] = 0


class LateShares(Late):
    _delays: dict[int, Delay] = {}  # noqa: RUF012

    def start(self) -> None:
        channels = self.info.channels
        self._delay = self._delays.setdefault(channels, Delay(32, channels))
        self._delay.reset()


class LateHums(Late):
    def process(self, hop: Float32, stems: Float32) -> None:
        super().process(hop, stems)
        stems[0] += np.float32(1e-4)
        stems[1] -= np.float32(1e-4)


class LateAllocates(Late):
    def process(self, hop: Float32, stems: Float32) -> None:
        super().process(hop, stems)
        stems *= np.ones_like(stems)


class LateSleeps(Late):
    def process(self, hop: Float32, stems: Float32) -> None:
        super().process(hop, stems)
        time.sleep(0.08 * len(hop) / self.info.samplerate)


SEPARATORS = {
    LateOther: "it_is_a_separator",
    LateAt44: "it_runs_at_every_rate_and_layout",
    LateUnfilled: "it_runs_at_every_rate_and_layout",
    LateLeaks: "stems_add_up",
    LateLies: "latency_is_true",
    LateVoice: "latency_is_true",
    LateRemembers: "reset_is_like_new",
    LateStaysIll: "loud_and_broken_input_does_no_harm",
    LateOverflows: "loud_and_broken_input_does_no_harm",
    LateKeeps: "buffers_are_only_lent",
    LateWrites: "buffers_are_only_lent",
    LateShares: "instances_keep_apart",
    LateHums: "silence_stays_silent_and_the_tail_ends",
    LateAllocates: "it_allocates_nothing_at_work",
    LateSleeps: "it_keeps_up",
}


@pytest.mark.parametrize("plugin", SEPARATORS, ids=lambda p: p.__name__)
def test_each_broken_separator_fails_its_own_check(plugin: type) -> None:
    settings = {**QUICK, "plugin": plugin}
    wrong = failures(type("Suite", (SeparatorConformance,), settings))
    assert [*wrong] == [f"test_{SEPARATORS[plugin]}"], wrong


def test_every_check_has_its_broken_plugin() -> None:
    for suite, broken in ((EffectConformance, EFFECTS), (SeparatorConformance, SEPARATORS)):
        checks = {name for name in dir(suite) if name.startswith("test_")}
        assert checks == {f"test_{name}" for name in broken.values()}


# ---- how it is used


def test_a_good_plugin_passes_and_a_name_will_do() -> None:
    check_separator(Late, seconds=0.1)
    check_effect("gain", seconds=0.1, tail=0.1)


def test_the_message_says_which_promise_and_what_to_do() -> None:
    with pytest.raises(AssertionError) as caught:
        check_effect(Lies, seconds=0.1, tail=0.1)
    message = str(caught.value)
    assert message.startswith("Lies breaks 1 promise(s):")
    assert "test_latency_is_true: at 44100 Hz it says 1 frames of latency" in message
    assert "but 0 were measured" in message
    check_effect(Lies, seconds=0.1, tail=0.1, skip=["test_latency_is_true"])


def test_something_else_altogether_is_told_what_it_lacks() -> None:
    with pytest.raises(AssertionError, match=r"it lacks parameters, latency.* of realtime_sep\."):
        check_effect(dict, seconds=0.1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: check_effect("gain", tails=3), "unknown setting 'tails'; did you mean 'tail'"),
        (lambda: check_separator(Late, make=3), "unknown setting 'make'"),
        (lambda: check_effect("gain", skip=["latency"]), "unknown check 'latency'"),
    ],
)
def test_a_mistaken_setting_is_named(call: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()


def test_a_function_and_a_method_make_plugins_too() -> None:
    class ByFunction(EffectConformance):
        def plugin() -> Highpass:  # type: ignore[misc]
            return Highpass()

    class ByMethod(SeparatorConformance):
        def make(self, samplerate: int = 0, channels: int = 0) -> Late:
            return Late(
                samplerate=samplerate or self.samplerate, channels=channels or self.channels
            )

    ByFunction.seconds = ByMethod.seconds = 0.1
    ByFunction.tail = 0.5
    assert failures(ByFunction) == {}
    assert failures(ByMethod) == {}


def test_it_needs_no_pytest() -> None:
    import subprocess
    import sys

    code = "import realtime_sep.testing, sys; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
