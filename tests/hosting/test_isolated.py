"""An effect in a process of its own: the same samples, a block later, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from realtime_sep.effects.isolated import SLOW, Helper, Isolated
from realtime_sep.effects.ladspa import Ladspa
from realtime_sep.effects.slot import FADE, Slot
from realtime_sep.errors import UsageError
from realtime_sep.testing.base import allocated
from realtime_sep.types import Float32
from tests.hosting.conftest import BLOCK, RATE, noise, run

LADSPA = "realtime_sep.effects.ladspa:Ladspa"
PASS, CRASH, SPIN, NAN, LIE, DENORMAL = range(6)


@pytest.fixture
def fault(plugins: Path) -> Iterator[Isolated]:
    effect = Isolated(Helper(), LADSPA, str(plugins), "fault")
    yield effect
    effect.close()


def gone(pid: int) -> bool:
    """Whether a process is no more, or only a name."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def test_the_same_samples_a_block_later(plugins: Path) -> None:
    """At any block size, with parameters that move, and after a reset."""
    audio = noise(30000)
    both = [Isolated(Helper(), LADSPA, str(plugins), "hints"), Ladspa(str(plugins), "hints")]
    outs = []
    for effect in both:
        effect.set("which", 5)
        effect.set("gain", 3)
        effect.prepare(RATE, 2, BLOCK)
        parts = [run(effect, audio[:10000], (BLOCK, 1, 77))]
        effect.set("gain", -20)
        parts.append(run(effect, audio[10000:20000], (BLOCK, 1, 77)))
        effect.reset()
        parts.append(run(effect, audio[20000:], (50, BLOCK)))
        outs.append(parts)
    isolated, plain = outs
    before = np.concatenate(isolated[:2])
    np.testing.assert_array_equal(before[:BLOCK], 0)
    np.testing.assert_array_equal(before[BLOCK:], np.concatenate(plain[:2])[:-BLOCK])
    np.testing.assert_array_equal(isolated[2][:BLOCK], 0)
    np.testing.assert_array_equal(isolated[2][BLOCK:], plain[2][:-BLOCK])
    both[0].close()  # type: ignore[union-attr]


def test_latency_is_the_plugins_and_a_block(fault: Isolated) -> None:
    for channels, block in ((2, BLOCK), (1, 300)):
        fault.prepare(RATE, channels, block)
        assert fault.latency == 100 + block
        audio = noise(4000, channels)
        late = fault.latency
        np.testing.assert_array_equal(run(fault, audio, (block, 3))[late:], audio[:-late])


class Slow:
    """Does nothing, and takes its time."""

    parameters, latency = (), 0

    def prepare(self, *_: int) -> None: ...

    def process(self, block: Float32) -> None:
        time.sleep(0.02)


def test_it_is_prepared_anew_while_it_works() -> None:
    effect = Isolated(Helper(), f"{__name__}:Slow")
    for channels in (2, 2, 1):
        effect.prepare(RATE, channels, BLOCK)
        audio = noise(2 * BLOCK, channels)
        made = run(effect, audio, (BLOCK // 4,))  # and a block is under way
        np.testing.assert_array_equal(made[BLOCK:], audio[:-BLOCK])
    effect.close()


def test_a_block_allocates_nothing(fault: Isolated) -> None:
    """Its frames are 16 kB."""
    fault.prepare(RATE, 2, 4096)
    audio = noise(4096)

    def play() -> None:
        fault.set("mode", PASS)
        fault.process(audio)

    kept, most = allocated(play, 10)
    assert kept < 500
    assert most < 1000


def test_denormals_are_nothing_there(fault: Isolated) -> None:
    fault.set("mode", DENORMAL)
    fault.prepare(RATE, 2, BLOCK)
    assert not run(fault, noise(1000)).any()


def test_mistakes_are_named_here(fault: Isolated) -> None:
    with pytest.raises(UsageError, match="did you mean 'mode'"):
        fault.set("mood", 1)
    with pytest.raises(UsageError, match="goes from"):
        fault.set("mode", 1000)
    helper = Helper()
    with pytest.raises(UsageError, match="ModuleNotFoundError"):
        Isolated(helper, "no.such:Thing")
    assert gone(helper.pid)


# ---- in a slot, as it plays


class Player:
    """A slot that is played a sine, as fast as it takes it."""

    def __init__(self, effect: Isolated) -> None:
        self.effect = effect
        self.slot = Slot(effect, "fault")
        self.slot.prepare(RATE, 2, BLOCK)
        self.played: list[Float32] = []
        self.slowest = 0.0
        self._place = 0

    def play(self, blocks: int, paced: bool = True) -> None:
        for _ in range(blocks):
            t = (self._place + np.arange(BLOCK)[:, np.newaxis]) / RATE
            block = np.repeat(0.4 * np.sin(2 * np.pi * 220 * t), 2, axis=1).astype(np.float32)
            begin = time.thread_time()
            self.slot.process(block, paced)
            self.slowest = max(self.slowest, time.thread_time() - begin)
            self.played.append(block)
            self._place += BLOCK

    def check(self) -> None:
        """It was the sine all the time, as late as the effect is, but for fades without a jump."""
        out = np.concatenate(self.played)
        t = (np.arange(len(out)) - self.slot.latency) / RATE
        sine = np.where(t >= 0, 0.4 * np.sin(2 * np.pi * 220 * t), 0)[:, np.newaxis]
        assert np.isfinite(out).all()
        slope = 0.4 * 2 * np.pi * 220 / RATE
        assert np.abs(np.diff(out, axis=0)).max() < slope + 1.5 / (FADE * RATE)
        wrong = np.abs(out - sine).max(axis=1) > 1e-6
        assert wrong.sum() <= 2.2 * FADE * RATE, "more than a fade away and back"


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (CRASH, "died"),
        (NAN, "sent NaN or infinity"),
        (LIE, "was 100 frames late, and now says 200"),
        (SPIN, "hangs, or is too slow"),
    ],
)
def test_whatever_it_does_it_costs_one_fade(fault: Isolated, mode: int, words: str) -> None:
    player = Player(fault)
    player.play(20, paced=False)
    fault.set("mode", mode)
    if mode == SPIN:
        player.slot.pace(True)
    player.play(round(2 * SLOW * RATE / BLOCK), paced=mode == SPIN)
    assert words in player.slot.failed
    assert gone(fault.pid)
    player.play(20)
    player.check()


def test_one_that_hangs_does_not_hold_up_the_stream(fault: Isolated) -> None:
    player = Player(fault)
    player.play(20, paced=False)
    player.slot.pace(True)
    os.kill(fault.pid, signal.SIGSTOP)
    player.play(round(1.2 * SLOW * RATE / BLOCK))
    assert "hangs" in player.slot.failed
    assert player.slot.late == pytest.approx(SLOW * RATE / BLOCK, rel=0.05)
    assert player.slowest < 0.1
    assert gone(fault.pid)
    player.check()


def test_one_that_is_late_comes_back(fault: Isolated) -> None:
    """As after a stall of the machine: its frames are where they would have been."""
    player = Player(fault)
    player.play(20, paced=False)
    player.slot.pace(True)
    os.kill(fault.pid, signal.SIGSTOP)
    player.play(40)
    assert player.slot.late >= 30
    os.kill(fault.pid, signal.SIGCONT)
    player.slot.pace(False)
    player.play(60, paced=False)
    assert not player.slot.failed
    assert player.slot.late <= 41
    player.check()
    run(player.slot, noise(BLOCK))  # type: ignore[arg-type]


def test_a_process_that_is_killed_while_nothing_plays(fault: Isolated) -> None:
    player = Player(fault)
    os.kill(fault.pid, signal.SIGKILL)
    player.play(20, paced=False)
    assert player.slot.failed.startswith("died")
    player.check()


# ---- the process


def test_it_ends_with_its_effect_and_with_whoever_made_it(plugins: Path, fault: Isolated) -> None:
    fault.close()
    assert gone(fault.pid)
    code = (
        "import os; from realtime_sep.effects.isolated import *; "
        f"e = Isolated(Helper(), {LADSPA!r}, {str(plugins)!r}, 'fault'); "
        "print(e.pid, flush=True); os._exit(0)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert gone(int(told.stdout))


def test_windows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UsageError, match="not yet on Windows"):
        Helper()


def test_it_imports_little(fault: Isolated) -> None:
    modules = set(fault._helper.call("builtins:eval", "[*__import__('sys').modules]"))
    assert "realtime_sep.effects.ladspa" in modules
    assert not modules & {"numba", "pedalboard", "sounddevice", "realtime_sep.engine"}
