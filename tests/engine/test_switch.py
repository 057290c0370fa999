"""Bypass, wet and dry, solo, and another separator while it plays: without a click, in time."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.engine import CROSSFADE, LISTENING, Engine
from realtime_sep.errors import UsageError
from realtime_sep.parameters import Settings
from realtime_sep.separators.adapted import adapted
from realtime_sep.separators.center import Center
from realtime_sep.types import Float32, SeparatorInfo

from .test_engine import RATE, STEMS, AddLatency, Late, late, noise, run

HOP = 256


class Shares:
    """Gives `share` of the mix as the first stem, the rest as the last; `latency` frames late."""

    def __init__(
        self,
        share: float,
        latency: int = 0,
        hop: int = HOP,
        stems: tuple[str, ...] = STEMS,
        rate: int = RATE,
    ) -> None:
        self.info = SeparatorInfo(f"shares {share}", stems, rate, 2, hop, latency)
        self.share, self.closed = np.float32(share), 0
        self.reset()

    def reset(self) -> None:
        self._past = np.zeros((self.info.latency, 2), np.float32)

    def process(self, hop: Float32, stems: Float32) -> None:
        line = np.concatenate([self._past, hop])
        stems[:] = 0
        stems[0] = self.share * line[: len(hop)]
        stems[-1] = line[: len(hop)] - stems[0]
        self._past = line[len(hop) :]

    def close(self) -> None:
        self.closed += 1


def sines(frames: int) -> Float32:
    """Loud, and so slow that a click stands out."""
    t = np.arange(frames)[:, np.newaxis] / RATE
    return (0.4 * np.sin(2 * np.pi * t * [110, 165])).astype(np.float32)


def jump(signal: Float32) -> float:
    return float(np.abs(np.diff(signal, axis=0)).max())


def test_bypass_is_the_input_at_the_same_latency_bit_for_bit() -> None:
    engine = Engine(Late(hop=HOP, latency=300), effects=[AddLatency(70)], limiter=False)
    state = Settings(STEMS)
    state.set("vocals", -np.inf)
    engine.steer(state.gains())
    audio = noise(100 * HOP)
    run(engine, audio[: 30 * HOP])
    state.set("bypass", 1)
    engine.steer(state.gains())
    out = run(engine, audio[30 * HOP :])
    np.testing.assert_array_equal(
        out[10 * HOP :], late(audio, engine.latency)[40 * HOP :], "settled"
    )
    state.set("bypass", 0)
    engine.steer(state.gains())
    run(engine, audio[: 20 * HOP])
    wet = run(engine, audio)
    np.testing.assert_allclose(
        wet[4 * HOP :], 0.25 * late(audio, engine.latency)[4 * HOP :], atol=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(
                ["vocals", "music", "master", "wet", "bypass", "vocals.solo", "music.mute"]
            ),
            st.floats(0, 1),
        ),
        min_size=1,
        max_size=12,
    ),
    hop=st.sampled_from([64, 128, 256]),
)
def test_nothing_that_is_moved_clicks(moves: list[tuple[str, float]], hop: int) -> None:
    """From sample to sample every gain moves by at most 1/882 (20 ms at 44.1 kHz)."""
    engine = Engine(Shares(0.5, 100, hop), limiter=False)
    state = Settings(STEMS)
    audio = sines(4 * len(moves) * hop + 40 * hop)
    outs = []
    for i, (name, value) in enumerate(moves):
        parameter = state.parameters[name]
        if parameter.kind == "switch":
            state.set(name, round(value))
        elif parameter.kind == "level":
            state.set(name, -np.inf if value < 0.2 else 30 * value - 24)
        else:
            state.set(name, value)
        engine.steer(state.gains())
        outs.append(run(engine, audio[4 * i * hop : 4 * (i + 1) * hop]))
    out = np.concatenate(outs)
    # Two stems and the dry signal may each move in the faders, both ends once more after them.
    peak, steepest = 0.4, jump(audio)
    reach = 1 / (0.02 * RATE)
    loudest = 10 ** (6 / 20)
    bound = loudest**2 * 1.5 * steepest + (3 * loudest + 2 * 1.5 * loudest) * reach * peak
    assert jump(out) <= bound


@pytest.mark.parametrize("before", [0, 300, 1024])
@pytest.mark.parametrize("after", [0, 300, 1024])
def test_another_separator_takes_over_by_a_crossfade(before: int, after: int) -> None:
    audio = sines(40000)
    engine = Engine(Shares(0.25, before), outputs=("mix", *STEMS), limiter=False)
    state = Settings(STEMS)
    state.set("music", -np.inf)
    engine.steer(state.gains())
    engine.faders.settle()
    old, new = engine.separator, Shares(0.75, after)
    strand = engine.strand(new)
    out = [run(engine, audio[:4096])]
    engine.switch(strand)
    assert engine.switching
    with pytest.raises(UsageError, match="one switch"):
        engine.switch(strand)
    out.append(run(engine, audio[4096:]))
    assert not engine.switching
    assert engine.separator is new
    assert (engine.latency, engine.switches) == (after, 1)
    assert [s.separator for s in engine.retired] == [old]

    mix, vocals, rest = np.split(np.concatenate(out), 3, axis=1)
    first, second = 0.25 * late(audio, before)[: len(mix)], 0.75 * late(audio, after)[: len(mix)]
    done = 4096 + after + round((LISTENING + CROSSFADE) * RATE) + 2 * HOP
    begun = done - round(CROSSFADE * RATE) - 4 * HOP
    np.testing.assert_allclose(mix[:begun], first[:begun], atol=1e-6)
    np.testing.assert_allclose(mix[done:], second[done:], atol=1e-6)
    length = round(CROSSFADE * RATE)
    bound = max(jump(first), jump(second)) + float(np.abs(first - second).max()) / length
    assert jump(mix) <= bound + 1e-6
    # The stems add up to something without a gap all along: the crossfade of both delayed mixes.
    weight = np.abs(vocals + rest).reshape(-1, HOP, 2).max(axis=1)
    assert weight[12:].min() > 0.05


def test_a_hundred_switches_leave_nothing_behind() -> None:
    audio = noise(HOP)
    engine = Engine(Center(samplerate=RATE))
    out = np.empty((HOP, 2), np.float32)

    def switch(latency: int) -> None:
        separator = Shares(0.5, latency)
        engine.switch(engine.strand(separator))
        while engine.switching:
            engine.process(audio, out)
        engine.retired.popleft().close()
        assert len(engine.retired) == 0

    for i in range(5):
        switch(i)
    gc.collect()
    tracemalloc.start()
    begin = tracemalloc.get_traced_memory()[0]
    for i in range(95):
        switch(i % 7)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - begin
    tracemalloc.stop()
    assert engine.switches == 100
    assert grown < 50_000


def test_a_strand_of_another_rate_is_refused() -> None:
    engine = Engine(Shares(0.5))
    with pytest.raises(UsageError, match="48000 Hz"):
        engine.strand(Shares(0.5, rate=48000))


@pytest.mark.parametrize("own", [64, 100, 256, 512, 1000])
@pytest.mark.parametrize("hop", [64, 100, 256])
def test_any_hop_fits_any_other(own: int, hop: int) -> None:
    separator = adapted(Shares(0.25, 37, own), hop, STEMS)
    audio = noise(20 * max(own, hop))
    whole = len(audio) // hop * hop
    stems = np.empty((2, hop, 2), np.float32)
    for _ in range(2):
        out = []
        for start in range(0, whole, hop):
            separator.process(audio[start : start + hop], stems)
            out.append(stems.copy())
        done = np.concatenate(out, axis=1)
        delayed = late(audio, separator.info.latency)[:whole]
        np.testing.assert_allclose(done.sum(axis=0), delayed, atol=1e-6)
        np.testing.assert_allclose(done[0], 0.25 * delayed, atol=1e-6)
        separator.reset()
    assert separator.info.hop == hop
    assert separator.info.latency == 37 + (0 if hop % own == 0 else own - np.gcd(own, hop))


def test_stems_that_are_not_known_go_to_the_last_one() -> None:
    four = Shares(0.25, stems=("vocals", "drums", "bass", "other"))
    two = adapted(four, HOP, STEMS)
    stems = np.empty((2, HOP, 2), np.float32)
    audio = noise(HOP)
    two.process(audio, stems)
    np.testing.assert_allclose(stems[0], 0.25 * audio)
    np.testing.assert_allclose(stems[1], 0.75 * audio)
    back = adapted(Shares(0.25), HOP, ("vocals", "drums", "other"))
    stems = np.empty((3, HOP, 2), np.float32)
    back.process(audio, stems)
    np.testing.assert_allclose(stems[0], 0.25 * audio)
    assert not stems[1].any()
    np.testing.assert_allclose(stems[2], 0.75 * audio)
