"""Chains of effects: in time with each other, changed without a click, and none can do harm."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep import native
from realtime_sep.effects import Effect, Parameter
from realtime_sep.effects.chain import Chain
from realtime_sep.effects.gain import Gain
from realtime_sep.effects.slot import FADE, Slot
from realtime_sep.engine import Engine
from realtime_sep.errors import UsageError
from realtime_sep.plugins import load_chain
from realtime_sep.types import Float32

from .test_engine import RATE, STEMS, AddLatency, Late, late, noise, run
from .test_switch import jump, sines

HOP = 128
PLACES = (*STEMS, "mix")


class Player:
    """Plays an engine on, and changes its chains as a stream does."""

    def __init__(self, seconds: float, **chains: Sequence[Effect]) -> None:
        self.engine = Engine(
            Late(hop=HOP, latency=300),
            outputs=("mix", *STEMS),
            chains={place: Chain.of(effects) for place, effects in chains.items()},
            limiter=False,
        )
        self.audio = sines(round(seconds * RATE))
        self.outs: list[Float32] = []
        self.at = 0

    def play(self, hops: int = 1) -> Float32:
        assert self.at + hops * HOP <= len(self.audio), "the music is over"
        out = run(self.engine, self.audio[self.at : self.at + hops * HOP])
        self.at += hops * HOP
        self.outs.append(out)
        return out

    def change(self, place: str, after: Sequence[Slot], resting: Sequence[Slot] = ()) -> None:
        chain = self.engine.chains[place]
        for slot in after:
            if slot not in chain.slots:
                chain.fit(slot)
        self.engine.edit(self.engine.change(place, after, resting))
        while self.engine.editing:
            self.play()

    def move(self, place: str, slot: Slot, at: int) -> None:
        slots = [s for s in self.engine.chains[place].slots if s is not slot]
        self.change(place, self.engine.chains[place].slots, resting=[slot])
        self.change(place, [*slots[:at], slot.moved(), *slots[at:]])

    def settled(self) -> Float32:
        """A hop whose past is all of one kind."""
        self.play(2 + self.engine.latency // HOP)
        return self.play()

    def dry(self) -> Float32:
        """What the last hop is of."""
        return late(self.audio, self.engine.latency)[self.at - HOP : self.at]


# ---- in time -------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    frames=st.tuples(*(st.lists(st.integers(0, 300), max_size=3) for _ in PLACES)),
    hop=st.sampled_from([1, 64, 100]),
    dry=st.booleans(),
)
def test_an_impulse_leaves_every_bus_after_exactly_the_latency(
    frames: tuple[list[int], ...], hop: int, dry: bool
) -> None:
    """Whatever the chains of the stems and of the mix: the slowest stem counts, and the mix's."""
    engine = Engine(
        Late(hop=hop, latency=77),
        outputs=("mix", *STEMS),
        chains={
            place: Chain.of([AddLatency(n) for n in each])
            for place, each in zip(PLACES, frames, strict=True)
        },
    )
    vocals, rest, mix = map(sum, frames)
    assert engine.latency == 77 + max(vocals, rest) + mix + 32
    if dry:  # the original, instead of the stems
        engine.faders.targets[:] = 0, 0, 1
        engine.faders.settle()
    audio = np.zeros((200 + engine.latency + 2 * hop, 2), np.float32)
    audio[150] = 0.5
    out = run(engine, audio)
    expected = np.zeros_like(out)
    expected[150 + engine.latency] = np.repeat([0.5, 0.375, 0.125], 2)
    np.testing.assert_array_equal(out, expected)


def test_after_every_change_all_is_in_time_again() -> None:
    player = Player(20)
    engine = player.engine
    a, b, c = (Slot(AddLatency(n), f"late{n}") for n in (700, 333, 0))
    for place, after, latency in [
        ("mix", [a], 1000),
        ("vocals", [b], 1333),
        ("mix", [c, a], 1333),
        ("accompaniment", [Slot(AddLatency(400), "x")], 1400),
        ("mix", [c], 700),
        ("vocals", [], 700),
        ("accompaniment", [], 300),
    ]:
        player.change(place, after)
        assert engine.latency == latency
        mix, vocals, rest = np.split(player.settled(), 3, axis=1)
        np.testing.assert_array_equal(mix, player.dry())
        np.testing.assert_array_equal(vocals + rest, player.dry())
    assert jump(np.concatenate(player.outs)[HOP * 10 :]) < 2 * jump(player.audio)
    assert [s.name for s in engine.chains["mix"].retired] == ["late700"]


def test_a_bypassed_slot_is_its_dry_signal_bit_for_bit() -> None:
    player = Player(10, mix=[AddLatency(200), Gain(), AddLatency(55)])
    late200, gain, late55 = player.engine.chains["mix"].slots
    gain.effect.set("db", -12.0)
    player.play(30)
    np.testing.assert_allclose(player.settled()[:, :2], player.dry() * 10 ** (-12 / 20), rtol=1e-5)
    for slot in (late200, gain, late55):
        slot.bypassed = True
        player.change("mix", player.engine.chains["mix"].slots)
    assert player.engine.latency == 555
    np.testing.assert_array_equal(player.settled()[:, :2], player.dry())
    gain.bypassed = False
    player.change("mix", player.engine.chains["mix"].slots)
    np.testing.assert_allclose(player.settled()[:, :2], player.dry() * 10 ** (-12 / 20), rtol=1e-5)


def test_a_chain_is_an_effect() -> None:
    chain = load_chain("gain:db=-6|!gain:db=-20|highpass")
    assert isinstance(chain, Effect)
    chain.prepare(RATE, 2, 64)
    assert [p.name for p in chain.parameters] == ["gain.db", "gain2.db", "highpass.f"]
    chain.set("gain.db", -12)
    with pytest.raises(UsageError, match="did you mean 'db'"):
        chain.set("gain2.d", 0)
    with pytest.raises(UsageError, match=r"did you mean 'gain"):
        chain.set("gian.db", 0)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("gian", "'gain'"), ("gain:dd=1", "'db'"), ("nonsuch:x", "host of plugins 'nonsuch'")],
)
def test_a_typo_names_the_nearest(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        load_chain(text)


# ---- while it plays ------------------------------------------------------------------------------


def gain(db: float, name: str) -> Slot:
    slot = Slot(Gain(), name)
    slot.effect.set("db", db)
    return slot


@pytest.mark.parametrize("times", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_changes_neither_click_nor_grow(times: int) -> None:
    """No jump beyond those of a crossfade, and no memory that stays."""
    rng = np.random.default_rng(7)
    player = Player(100)
    made = 0

    def operate(times: int) -> None:
        nonlocal made
        for _ in range(times):
            place = PLACES[rng.integers(3)]
            slots = list(player.engine.chains[place].slots)
            slot = slots[rng.integers(len(slots))] if slots else None
            match rng.integers(4):
                case 0 if len(slots) < 3:
                    made += 1
                    new = (
                        gain(rng.uniform(-6, 2), f"gain{made}")
                        if rng.integers(2)
                        else Slot(AddLatency(int(rng.integers(100))), f"late{made}")
                    )
                    new.bypassed = bool(rng.integers(2))
                    slots.insert(rng.integers(len(slots) + 1), new)
                    player.change(place, slots)
                case 1 if slot is not None:
                    slots.remove(slot)
                    player.change(place, slots)
                case 2 if slot is not None:
                    slot.bypassed = not slot.bypassed
                    player.change(place, slots)
                case _ if slot is not None:
                    player.move(place, slot, int(rng.integers(len(slots))))
            player.engine.chains[place].retired.clear()
            outs = np.concatenate(player.outs[-60:])
            player.outs = [outs[-2:]]  # only what is not looked at yet
            jumps.append(jump(outs))

    jumps: list[float] = []
    player.play(20)
    operate(30)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    operate(times)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000
    assert player.engine.failed_effects == 0
    # Three slots of +2 dB in each of two chains; one fade moves by all of that in 20 ms.
    loudest = 10 ** (12 / 20)
    assert max(jumps) <= loudest * (jump(player.audio) + 2 * 0.4 / (FADE * RATE))


def test_what_enters_has_heard_enough_even_where_no_delay_changes() -> None:
    """The other stem is as late already."""
    player = Player(3, vocals=[], accompaniment=[AddLatency(300)])
    player.play(20)
    player.change("vocals", [Slot(AddLatency(300), "late")])
    assert jump(np.concatenate(player.outs)) <= 1.5 * jump(player.audio)


# ---- what an effect may do wrong -----------------------------------------------------------------


class Wicked:
    """Turns the sound round, so that wet is not dry, until it does what `how` says."""

    parameters: tuple[Parameter, ...] = ()

    def __init__(self, how: str) -> None:
        self.how, self.latency, self.blocks, self.at = how, 0, 0, 1 << 30

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None: ...
    def set(self, name: str, value: float) -> None: ...
    def reset(self) -> None: ...

    def process(self, block: Float32) -> None:
        block *= -1
        self.blocks += 1
        if self.blocks < self.at:
            return
        match self.how:
            case "raises":
                block[:] = 7
                raise RuntimeError("out of\nideas")
            case "NaN":
                block[5:] = np.nan
            case "infinity":
                block[7, 1] = -np.inf
            case "wild":
                block *= 1000
            case "moves":
                self.latency = 5
            case "slow":
                begin = native.thread_cpu()
                while native.thread_cpu() - begin < 2.5e6:  # of 2.9 ms
                    pass


@pytest.mark.parametrize("place", ["vocals", "mix"])
@pytest.mark.parametrize("how", ["raises", "NaN", "infinity", "wild", "moves"])
def test_an_effect_that_fails_is_taken_out_by_one_fade(how: str, place: str) -> None:
    wicked = Wicked(how)
    player = Player(5, **{place: [AddLatency(100), wicked, Gain()]})
    player.play(40)
    wicked.at = wicked.blocks + 10
    player.play(100)
    engine, chain = player.engine, player.engine.chains[place]
    assert engine.failed_effects == 1
    assert [slot.failed != "" for slot in chain.slots] == [False, True, False]
    assert list(chain.news) == [chain.slots[1]]
    assert "\n" not in chain.slots[1].failed
    assert wicked.blocks == wicked.at, "it is not asked again"
    np.testing.assert_array_equal(player.settled()[:, :2], player.dry())
    out = np.concatenate(player.outs)[20 * HOP :]
    assert np.all(np.isfinite(out))
    assert jump(out) <= jump(player.audio) + 2 * 0.4 / (FADE * RATE)


def test_an_effect_that_stays_too_slow_is_taken_out_where_a_clock_presses() -> None:
    for paced in (False, True):
        wicked = Wicked("slow")
        player = Player(2, mix=[wicked])
        player.engine.chains["mix"].paced = paced
        wicked.at = wicked.blocks + 10
        player.play(10 + round(0.6 * RATE / HOP))
        assert player.engine.failed_effects == paced
        if paced:
            assert "takes" in player.engine.chains["mix"].slots[0].failed


def test_a_machine_that_stalls_now_and_then_costs_no_effect() -> None:
    class Stalling(Wicked):
        def process(self, block: Float32) -> None:
            self.blocks += 1
            if self.blocks % 8 == 0:
                time.sleep(0.005)

    player = Player(2, mix=[Stalling("")])
    player.engine.chains["mix"].paced = True
    player.play(round(0.6 * RATE / HOP))
    assert player.engine.failed_effects == 0


def test_what_fails_while_it_is_made_ready_is_refused() -> None:
    wicked = Wicked("raises")
    wicked.at = 3
    with pytest.raises(UsageError, match="raised RuntimeError: out of ideas"):
        Chain.of([wicked]).prepare(RATE, 2, HOP)
    for latency in (-1, 10 * RATE, 0.5):
        lying = Wicked("")
        lying.latency = latency  # type: ignore[assignment]
        with pytest.raises(UsageError, match="frames late"):
            Chain.of([lying]).prepare(RATE, 2, HOP)


def test_loud_music_is_no_failure() -> None:
    player = Engine(Late(hop=HOP, latency=0), effects=[Gain(), Gain()], limiter=False)
    for slot in player.chains["mix"].slots:
        slot.effect.set("db", 24.0)
    levels = (1e-5, 1, 0, 1e-3, 30, 0, 1e-7, 0.1)
    run(player, np.concatenate([noise(40 * HOP, seed=i, level=v) for i, v in enumerate(levels)]))
    assert player.failed_effects == 0
