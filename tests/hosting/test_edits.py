"""Chains of effects in processes of their own, changed while they play."""

from __future__ import annotations

import gc
import os
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from realtime_sep.effects.isolated import Helper, Isolated
from realtime_sep.effects.slot import FADE, Slot
from tests.engine.test_chains import PLACES, RATE, Player
from tests.engine.test_switch import jump

LOUDER = 1.2
#: At once, in all chains.
MOST = 4


def resident(pid: int | str = "self") -> int:
    """Bytes of a process in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Edits:
    """Adds, removes, bypasses and moves slots of a playing engine.

    A process that has been removed waits for its effect to be added again, and is replaced by a new
    one now and then.
    """

    def __init__(self, plugins: Path) -> None:
        self.player = Player(150)
        self.library = str(plugins)
        self.rng = np.random.default_rng(5)
        self.jumps: list[float] = []
        self.made = self.added = 0
        self.resting = deque(self.make() for _ in range(MOST))

    def make(self) -> Isolated:
        self.made += 1
        if self.made % 2:
            return Isolated(Helper(), "tests.hosting.far:Louder", LOUDER)
        return Isolated(Helper(), "realtime_sep.effects.ladspa:Ladspa", self.library, "fault")

    def effect(self) -> Isolated:
        self.added += 1
        if self.added % 20 == 0:
            self.resting.popleft().close()
            self.resting.append(self.make())
        return self.resting.popleft()

    def operate(self, times: int) -> None:
        player, rng = self.player, self.rng
        for _ in range(times):
            place = PLACES[rng.integers(3)]
            slots = list(player.engine.chains[place].slots)
            kind = rng.integers(4)
            if self.resting and (not slots or (kind == 0 and len(slots) < 3)):
                slot = Slot(self.effect(), f"slot{self.added}")
                slot.bypassed = bool(rng.integers(2))
                slots.insert(rng.integers(len(slots) + 1), slot)
                player.change(place, slots)
            elif slots:
                slot = slots[rng.integers(len(slots))]
                if kind == 1:
                    slots.remove(slot)
                    player.change(place, slots)
                    self.resting.append(slot.effect)  # type: ignore[arg-type]
                elif kind == 2 and len(slots) > 1:
                    player.move(place, slot, int(rng.integers(len(slots))))
                else:
                    slot.bypassed = not slot.bypassed
                    player.change(place, slots)
            else:
                player.play()
            player.engine.chains[place].retired.clear()
            outs = np.concatenate(player.outs)
            player.outs = [outs[-2:]]  # only what is not looked at yet
            self.jumps.append(jump(outs))

    def close(self) -> None:
        slots = [slot for chain in self.player.engine.chains.values() for slot in chain.slots]
        for effect in (*self.resting, *(slot.effect for slot in slots)):
            effect.close()  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_thousand_edits_across_processes_neither_click_nor_grow(plugins: Path) -> None:
    edits = Edits(plugins)
    edits.player.play(20)
    edits.operate(100)
    gc.collect()
    files, before = len(os.listdir("/proc/self/fd")), resident()
    edits.operate(1000)
    gc.collect()
    assert edits.made >= 10
    assert edits.player.engine.failed_effects == 0
    assert len(os.listdir("/proc/self/fd")) <= files
    assert resident() - before < 8 << 20
    processes = [effect.pid for effect in edits.resting]
    assert all(resident(pid) < 100 << 20 for pid in processes)
    loudest = LOUDER**MOST
    bound = loudest * (jump(edits.player.audio) + 2 * 0.4 / (FADE * RATE))
    assert max(edits.jumps) <= bound
    edits.close()
