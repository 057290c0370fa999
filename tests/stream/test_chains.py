"""Chains of a live stream: in time to the sample, and changed across processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from realtime_sep.effects import Parameter
from realtime_sep.errors import UsageError
from realtime_sep.stream import Stream
from realtime_sep.types import Float32

from .faulty import Halves
from .test_latency import measure
from .test_switch import BOTH, opened


class Late:
    """Does nothing, late; importable, so that it travels to another process."""

    parameters: tuple[Parameter, ...] = ()

    def __init__(self, frames: int) -> None:
        self.latency = frames

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None:
        self.reset()

    def set(self, name: str, value: float) -> None: ...

    def reset(self) -> None:
        self._line: Float32 = np.zeros((self.latency, 2), np.float32)

    def process(self, block: Float32) -> None:
        line = np.concatenate([self._line, block])
        block[:] = line[: len(block)]
        self._line = line[len(block) :]


class Bursting(Late):
    """Sends NaN after a while."""

    def process(self, block: Float32) -> None:
        self._blocks = getattr(self, "_blocks", 0) + 1
        if self._blocks > 50:
            block[0] = np.nan


def done(stream: Stream, what: Callable[[], object], seconds: float = 60) -> None:
    """Change something, and wait for it."""
    what()
    deadline = time.monotonic() + seconds
    while stream.editing:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def names(stream: Stream, place: str = "mix") -> list[str]:
    return [slot.name for slot in stream.chains[place]]


@pytest.mark.parametrize("block", [64, 100, 512])
def test_the_latency_of_chains_is_measured_to_the_sample(play: Any, block: int) -> None:
    chains = {"vocals": [Late(333)], "accompaniment": [Late(100), "gain"], "mix": [Late(70)]}
    measured, stream = measure(play, Halves, blocks=(block,), chains=chains)
    assert measured == stream.latency.frames
    assert stream.latency.effects == 403


@BOTH
def test_chains_are_changed_while_it_plays(process: bool) -> None:
    chains = {"mix": "highpass:f=90|!gain:db=-3", "vocals": "gain"}
    with opened(process=process, chains=chains) as stream:
        assert names(stream) == ["highpass", "gain"]
        assert stream.values["gain.db"] == -3
        assert stream.values["highpass.f"] == 90
        assert {"vocals.gain.db", "gain.db"} <= stream.parameters.keys()
        before = stream.latency.frames
        done(stream, lambda: stream.add_effect("vocals", "pitch"))
        assert stream.latency.frames == before + 4096
        done(stream, lambda: stream.add_effect("mix", "compressor|gain:db=-1", 1))
        assert names(stream) == ["highpass", "compressor", "gain2", "gain"]
        stream.set("gain.db", -6)
        done(stream, lambda: stream.move_effect("mix", "gain", 0))
        assert names(stream) == ["gain", "highpass", "compressor", "gain2"]
        done(stream, lambda: stream.bypass_effect("mix", "gain", False))
        assert not stream.chains["mix"][0].bypassed
        done(stream, lambda: stream.remove_effect("mix", "compressor"))
        assert "compressor.ratio" not in stream.parameters
        assert stream.chain_texts == {
            "vocals": "gain|pitch",
            "accompaniment": "",
            "mix": "gain:db=-6|highpass:f=90|gain:db=-1",
        }
        done(stream, lambda: stream.set_chain("vocals", ""))
        done(stream, lambda: stream.set_chain("mix", "gain:db=-20"))
        assert stream.latency.frames == before
        assert stream.values["gain.db"] == -20
        assert stream.notices() == []
        stream.set("gain.db", -40)
        deadline = time.monotonic() + 20
        while abs(stream.stats.output_peak + 42) > 1.5:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_cannot_be_is_told_and_changes_nothing() -> None:
    with opened(process=False, chains={"mix": "gain"}) as stream:
        for wrong, hint in (
            (lambda: stream.add_effect("mix", "gian"), "did you mean 'gain'"),
            (lambda: stream.add_effect("mix", "gain:dd=3"), "did you mean 'db'"),
            (lambda: stream.add_effect("mix", "gain:db=300"), "db goes from"),
            (lambda: stream.remove_effect("mix", "gone"), "unknown slot 'gone'"),
            (lambda: stream.set_chain("mix", "gain|nonsense:x"), "unknown host of plugins"),
        ):
            done(stream, wrong)
            assert hint in stream.notices()[0]
            assert names(stream) == ["gain"]
        with pytest.raises(UsageError, match="did you mean 'mix'"):
            stream.add_effect("mux", "gain")
        with pytest.raises(UsageError, match="is no effect"):
            stream.add_effect("mix", "gain|")
    with pytest.raises(UsageError, match="does not run"):
        stream.add_effect("mix", "gain")


@BOTH
def test_an_effect_that_fails_is_told_and_counted_and_the_stream_lives(process: bool) -> None:
    with opened(process=process, chains={"mix": ["gain:db=-6", Bursting(0)]}) as stream:
        deadline = time.monotonic() + 20
        while not stream.stats.failed_effects:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not stream.wait(0.3)
        notices = stream.notices()
        assert notices == ["bursting (mix) was taken out: it sent NaN or infinity"]
        assert [slot.failed != "" for slot in stream.chains["mix"]] == [False, True]
        done(stream, lambda: stream.bypass_effect("mix", "bursting", False))
        assert "remove it" in stream.notices()[0]
        done(stream, lambda: stream.remove_effect("mix", "bursting"))
        assert names(stream) == ["gain"]
        assert stream.stats.bad_hops == 0
