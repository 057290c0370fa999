"""A device that goes away and comes back, with the null device behind a cable."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from realtime_sep.errors import DeviceError, SampleRateError
from realtime_sep.io.portaudio import silence_hint
from realtime_sep.latency import stream_latency
from realtime_sep.rig import SILENCE
from realtime_sep.stream import Stream, open_stream
from realtime_sep.types import StreamConfig

from .cable import Cable
from .conftest import RATE, noise

GUARD = 64


def opened(cable: Cable, separator: str = "identity", **config: object) -> Stream:
    return open_stream(
        separator,
        backend=cable,
        config=StreamConfig(blocksize=max(cable.blocks), **config),  # type: ignore[arg-type]
        process=False,
        tap=False,
    )


def play_until(stream: Stream, condition: Callable[[], bool], seconds: float = 8.0) -> float:
    """Attend to the stream; the seconds that it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, "it takes too long"
        stream.wait(0.02)
    return time.monotonic() - begin


def test_a_device_that_comes_back_is_opened_faded_in_and_counted() -> None:
    cable = Cable(noise(30))
    with opened(cable) as stream:
        before = stream.latency
        play_until(stream, lambda: cable.devices[0].position > RATE // 4)
        cable.pull()
        noticed = play_until(stream, lambda: any("waiting" in n for n in stream.notices()))
        assert noticed < 1
        frames = stream.stats.frames
        stream.wait(0.6)  # at least one attempt fails
        assert stream.stats.frames == frames
        assert stream.stats.callback_age > 0.5
        cable.plugged = True
        assert play_until(stream, lambda: stream.stats.reopens == 1) < 3
        play_until(stream, lambda: any("back after" in n for n in stream.notices()))
        second = cable.devices[-1]
        play_until(stream, lambda: second.position > RATE // 4)
        assert stream.stats.frames > frames, "counters go on"
        assert stream.stats.epoch >= 1
        late = stream.stats.late_blocks
    assert stream.latency == before
    heard, lag = second.heard, before.frames
    assert not heard[:lag].any()
    rising = np.arange(1, GUARD + 1, dtype=np.float32)[:, None] / np.float32(GUARD)
    if late == 0:
        np.testing.assert_array_equal(heard[lag : lag + GUARD], cable.source[:GUARD] * rising)
        end = min(len(heard), RATE // 4) - 4 * GUARD  # closing fades out
        np.testing.assert_array_equal(
            heard[lag + GUARD : end], cable.source[GUARD : end - lag], "latency or samples changed"
        )


def test_a_device_that_only_stood_still_goes_on_in_place() -> None:
    cable = Cable(noise(30))
    with opened(cable) as stream:
        device = cable.devices[0]
        play_until(stream, lambda: device.position > RATE // 4)
        cable.hang()
        assert play_until(stream, lambda: any("waiting" in n for n in stream.notices())) < 1
        stood = device.position
        cable.go_on()
        assert play_until(stream, lambda: stream.stats.reopens == 1) < 1
        play_until(stream, lambda: device.position > stood + RATE // 4)
        late = stream.stats.late_blocks
    assert len(cable.devices) == 1, "it was not opened anew"
    heard, lag = device.heard, stream.latency.frames
    assert not heard[stood : stood + lag].any(), "what was before does not belong to what follows"
    after = slice(stood + lag + GUARD, stood + RATE // 8)
    if late == 0:
        np.testing.assert_array_equal(
            heard[after], cable.source[after.start - lag : after.stop - lag]
        )


def test_other_blocks_are_another_latency() -> None:
    cable = Cable(noise(30))
    with opened(cable) as stream:
        play_until(stream, lambda: stream.stats.frames > RATE // 4)
        cable.pull()
        cable.blocks = (480,)
        cable.plugged = True
        play_until(stream, lambda: stream.stats.reopens == 1)
        expected = stream_latency(
            samplerate=RATE, hop=256, blocks=(480,), guard=GUARD, separator=0, limiter=32
        )
        assert stream.latency == expected
        second = cable.devices[-1]
        play_until(stream, lambda: second.position > RATE // 4)
        late = stream.stats.late_blocks
    lag, stop = expected.frames, RATE // 8
    if late == 0:
        np.testing.assert_array_equal(
            second.heard[lag + GUARD : stop], cable.source[GUARD:][: stop - lag - GUARD]
        )


def test_another_rate_is_another_separator() -> None:
    cable = Cable(noise(30))
    with opened(cable, "center") as stream:
        play_until(stream, lambda: stream.stats.frames > RATE // 4)
        hops = stream.stats.hops
        cable.pull()
        cable.samplerate, cable.plugged = 44100, True
        play_until(stream, lambda: stream.stats.reopens == 1)
        assert stream.info.samplerate == stream.latency.samplerate == 44100
        play_until(stream, lambda: stream.stats.hops > hops + 20)


def test_a_rate_that_cannot_be_is_one_clear_error() -> None:
    cable = Cable(noise(30))
    with opened(cable, samplerate=RATE) as stream:
        play_until(stream, lambda: stream.stats.frames > RATE // 8)
        cable.pull()
        cable.samplerate, cable.plugged = 44100, True
        with pytest.raises(SampleRateError, match="44100 Hz") as caught:
            stream.wait(8)
    assert "\n" not in str(caught.value)
    assert not stream.running


def test_patience_ends() -> None:
    cable = Cable(noise(30))
    with opened(cable, reconnect=0.5) as stream:
        play_until(stream, lambda: stream.stats.frames > RATE // 8)
        cable.pull()
        begin = time.monotonic()
        with pytest.raises(DeviceError, match=r"cable.*not come back within 0.5 s"):
            stream.wait(8)
        assert 0.4 < time.monotonic() - begin < 2


def test_without_patience_the_stream_ends() -> None:
    cable = Cable(noise(30))
    with opened(cable, reconnect=0) as stream:
        play_until(stream, lambda: stream.stats.frames > RATE // 8)
        cable.pull()
        with pytest.raises(DeviceError, match="cable is out"):
            stream.wait(1)
    cable = Cable(noise(30))
    with opened(cable, reconnect=0) as stream:
        play_until(stream, lambda: stream.stats.frames > RATE // 8)
        cable.hang()
        begin = time.monotonic()
        with pytest.raises(DeviceError, match="no audio for"):
            stream.wait(3)
        assert SILENCE / 2 < time.monotonic() - begin < SILENCE + 0.5


def test_closing_while_the_device_is_gone() -> None:
    cable = Cable(noise(30))
    stream = opened(cable)
    stream.start()
    play_until(stream, lambda: stream.stats.frames > RATE // 8)
    cable.pull()
    play_until(stream, lambda: bool(stream.notices()))
    begin = time.monotonic()
    stream.stop()
    stream.close()
    assert time.monotonic() - begin < 2
    cable.plugged = True
    time.sleep(0.7)
    assert len(cable.devices) == 1, "nobody opens it any more"


def test_blocks_go_on_counting() -> None:
    """The stems that are read have one timeline, though a device has gone in between."""
    cable = Cable(noise(30))
    stream = open_stream(
        "identity", backend=cable, config=StreamConfig(blocksize=128), process=False
    )
    blocks = stream.blocks()
    with stream:
        starts = [next(blocks).start for _ in range(50)]
        cable.pull()
        cable.plugged = True
        while stream.stats.reopens == 0:
            starts.append(next(blocks).start)
        starts += [next(blocks).start for _ in range(50)]
    assert all(later > earlier for earlier, later in pairwise(starts))


@pytest.mark.parametrize(
    ("platform", "level", "hinted"),
    [("darwin", 0.0, True), ("darwin", 0.1, False), ("linux", 0.0, False)],
)
def test_silence_on_macos_may_be_a_missing_permission(
    platform: str, level: float, hinted: bool
) -> None:
    cable = Cable(noise(30) * np.float32(level), silence_hint=silence_hint(platform))
    with opened(cable) as stream:
        stream.wait(1.6)
        assert not stream.notices()
        stream.wait(0.8)
        assert any("Privacy & Security" in notice for notice in stream.notices()) == hinted
        stream.wait(0.2)
        assert not stream.notices()
