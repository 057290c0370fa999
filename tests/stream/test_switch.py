"""Turning everything, and other separators, on a live stream."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from realtime_sep.errors import UsageError
from realtime_sep.io.null import NullSpec
from realtime_sep.stream import Stream, open_stream
from realtime_sep.types import StreamConfig

from .conftest import RATE, smooth
from .faulty import Crashing, Halves

BOTH = pytest.mark.parametrize("process", [False, pytest.param(True, marks=pytest.mark.slow)])


def opened(separator: Any = "identity", seconds: float = 60, **options: Any) -> Stream:
    spec = NullSpec(smooth(2.0), loop=True, frames=round(seconds * RATE))
    options.setdefault("config", StreamConfig(samplerate=RATE))
    return open_stream(separator, backend=spec, **options)


def settled(stream: Stream, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while stream.switching:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@BOTH
def test_a_switch_changes_separator_and_latency(process: bool) -> None:
    with opened("center", process=process) as stream:
        before = stream.latency
        stream.switch("identity")
        settled(stream)
        assert stream.info.name == "identity"
        assert stream.latency.separator == 0
        assert before.separator == 256
        stream.switch("center", profile="studio")
        settled(stream)
        # Its hop of 512 is gathered from two of the stream's.
        assert (stream.info.hop, stream.latency.separator) == (256, 512 + 256)
        assert stream.notices() == []


@BOTH
def test_what_cannot_be_loaded_is_told_and_changes_nothing(process: bool) -> None:
    with opened(process=process) as stream:
        stream.switch("centre")
        settled(stream)
        assert "did you mean 'center'" in stream.notices()[0]
        assert stream.info.name == "identity"
        assert not stream.wait(0.1)
    with pytest.raises(UsageError, match="does not run"):
        stream.switch("center")


def test_the_newest_wish_counts() -> None:
    with opened(process=False) as stream:
        for name in ("center", "center-plain", "center"):
            stream.switch(name)
        settled(stream)
        assert stream.info.name == "center"
        assert not stream.wait(0.3)
        assert stream.info.name == "center"


@pytest.mark.slow
def test_many_switches_leave_nothing_in_the_engine_process() -> None:
    with opened(process=True) as stream:

        def resident() -> int:
            with open(f"/proc/{stream._engine._process.pid}/statm") as file:  # type: ignore[attr-defined]
                return int(file.read().split()[1]) * 4096

        def switch(times: int) -> None:
            for i in range(times):
                stream.switch(("center", "identity")[i % 2])
                settled(stream)

        switch(2)
        before = resident()
        switch(6)
        assert resident() - before < 2_000_000


@pytest.mark.slow
def test_parameters_reach_the_output() -> None:
    with opened(Halves, process=False, vocals=-np.inf) as stream:
        assert not stream.wait(0.6)
        level = stream.stats.output_peak
        for values, change in (
            ({"wet": 0.0}, 2.5),  # all of the mix, not three quarters
            ({"wet": 1.0, "master": -20.0}, -20),
            ({"master": 0.0, "music.mute": 1, "vocals": 0.0}, -9.5),  # a quarter
            ({"music.mute": 0, "vocals.solo": 1}, -9.5),
            ({"bypass": 1}, 2.5),
        ):
            stream.set_many(values)
            wanted = pytest.approx(level + change, abs=0.6)
            deadline = time.monotonic() + 5  # the meter falls by 20 dB a second
            while stream.stats.output_peak != wanted and time.monotonic() < deadline:
                stream.wait(0.02)
            stream.wait(0.2)
            assert stream.stats.output_peak == wanted, values
        assert stream.values["bypass"] == 1
        with pytest.raises(UsageError):
            stream.set_many({"vocals": -3, "master": 99})
        assert stream.values["vocals"] == 0


def test_the_tap_carries_the_mix_bus_in_time_with_the_stems() -> None:
    source = smooth(1.0)
    stream = open_stream(
        Halves,
        backend=NullSpec(source, clocked=False),
        config=StreamConfig(samplerate=RATE),
        vocals=-np.inf,
        process=False,
    )
    with stream:
        blocks = list(stream.blocks())
    for block in blocks:
        begin = max(0, -block.start)
        np.testing.assert_allclose(block.output[begin:], 0.75 * block.mix[begin:], atol=1e-6)
        end = block.start + len(block.mix)
        if block.start >= 0 and end <= len(source):
            np.testing.assert_array_equal(block.mix, source[block.start : end])


def test_a_separator_that_fails_after_a_switch_ends_the_stream_as_ever() -> None:
    with opened(process=False) as stream:
        stream.switch(Crashing)
        with pytest.raises(Exception, match="out of ideas"):
            stream.wait(30)


@BOTH
def test_parameters_of_effects_are_turned_live(process: bool) -> None:
    with opened("identity", process=process, effects=("gain", "reverb", "gain")) as stream:
        names = set(stream.parameters)
        assert {"gain.db", "gain2.db", "reverb.mix"} <= names
        stream.set_many({"reverb.mix": 0, "gain2.db": -6})
        assert not stream.wait(0.8)
        level = stream.stats.output_peak
        stream.set("gain.db", -10)
        assert not stream.wait(1.5)
        assert stream.stats.output_peak - level == pytest.approx(-10, abs=0.5)
        stream.set("bypass", 1)
        assert not stream.wait(1.0)
        assert stream.stats.output_peak - level == pytest.approx(6, abs=0.5)
        with pytest.raises(UsageError, match=r"did you mean 'gain"):
            stream.set("gain3.db", 0)


def test_an_effects_latency_is_reported_and_bypass_keeps_it() -> None:
    with opened("identity", process=False, effects=("pitch",)) as stream:
        assert stream.latency.effects == 4096


def test_what_is_ready_or_was_heard_is_not_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("identity", process=False, ready=("center", "nonsense")) as stream:

        def refuse(name: str, **options: Any) -> None:
            raise UsageError(f"{name} was loaded")

        monkeypatch.setattr("realtime_sep.rig.load_separator", refuse)
        for name in ("center", "identity", "center"):
            stream.switch(name)
            settled(stream)
            assert stream.info.name == name
        assert stream.notices() == []
        stream.switch("center", profile="stage")
        settled(stream)
        assert stream.notices() == ["center was loaded"]
