"""A microphone and a monitor in a live stream: on the same device, and on devices of their own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from realtime_sep.companion import Beside
from realtime_sep.control.recorder import Recorder, buses
from realtime_sep.errors import DeviceError, UsageError
from realtime_sep.feeds import Feed
from realtime_sep.io.null import NullDevice, NullSpec
from realtime_sep.stream import Stream, open_stream
from realtime_sep.types import Float32, StreamConfig

from .cable import Cable
from .conftest import RATE, noise

BLOCK = 128
#: Levels of a tone are measured to this, in dB.
CLOSE = 0.2


def tone(hz: float, seconds: float, level: float = 0.25, channels: int = 2) -> Float32:
    """Whole cycles, so that it can be repeated."""
    t = np.arange(round(seconds * RATE)) / RATE
    sound = level * np.sin(2 * np.pi * round(hz * seconds) / seconds * t)
    return np.repeat(sound.astype(np.float32)[:, None], channels, axis=1)


def level(sound: Float32, hz: float, rate: float = RATE) -> float:
    """Of a tone in mono, in dB of full scale, by its projection."""
    t = np.arange(len(sound)) / rate
    turning = np.exp(-2j * np.pi * hz * t) * np.hanning(len(sound))
    return float(20 * np.log10(4 * abs(np.mean(sound[:, 0] * turning)) + 1e-12))


def open_here(source: NullSpec | Cable, **options: Any) -> Stream:
    config = {"blocksize": BLOCK, **options.pop("config", {})}
    return open_stream(
        "identity",
        backend=source,
        config=StreamConfig(**config),
        process=False,
        tap=False,
        **options,
    )


def test_channels_three_and_four_are_exact() -> None:
    """In the mix at the stated latency, at the stated level; the music as without it."""
    music, voice = noise(1, seed=1) * 0.25, noise(1, seed=2) * 0.25
    source = np.ascontiguousarray(np.concatenate([music, voice], axis=1))
    stream = open_here(
        NullSpec(source, capture=True, clocked=False, blocks=(BLOCK, 100)),
        config={"microphone": (3, 4)},
        chains={"mic": []},
    )
    stream.set("mic", -6.0)  # before it starts: nothing holds back a device without a clock
    with stream:
        assert stream.wait(60)
        late, mic = stream.latency, stream.microphone_latency
        assert mic is not None
        assert mic.frames == mic.limiter + late.bridge
        stream.stop()
    heard = stream.captured
    assert heard is not None
    gain = np.float32(10 ** (-6 / 20))
    expected = np.zeros_like(heard)
    expected[late.frames :] += music[: len(heard) - late.frames]
    expected[mic.frames :][: len(voice)] += gain * voice[: len(heard) - mic.frames]
    settled = slice(RATE // 8, RATE)
    np.testing.assert_allclose(heard[settled], expected[settled], atol=1e-6)


def test_one_channel_is_heard_on_both_sides() -> None:
    source = np.concatenate([noise(0.5) * 0, noise(0.5, channels=1) * 0.2], axis=1)
    stream = open_here(
        NullSpec(np.ascontiguousarray(source), capture=True, clocked=False),
        config={"microphone": (3,), "outputs": ("mix", "monitor")},
        chains={"mic": []},
    )
    stream.set_many({"monitor.mic": -6.0})
    with stream:
        assert stream.wait(60)
        stream.stop()
    heard, mic = stream.captured, stream.microphone_latency
    assert heard is not None
    assert mic is not None
    part = slice(RATE // 8, RATE // 2)
    voice = source[part.start - mic.frames : part.stop - mic.frames, 2]
    for channel, gain in ((0, 1.0), (1, 1.0), (2, 10 ** (-6 / 20)), (3, 10 ** (-6 / 20))):
        np.testing.assert_allclose(heard[part, channel], gain * voice, atol=1e-6)


@pytest.mark.parametrize("beside", [("mic", "monitor"), ("mic",), ("monitor",), ()])
def test_singer_and_ear_are_recorded_exactly(tmp_path: Path, beside: tuple[str, ...]) -> None:
    """At the latencies that are stated, less what lies between engine and device."""
    music, voice = noise(1, seed=1) * 0.25, noise(1, seed=2) * 0.25
    sings, hears = "mic" in beside, "monitor" in beside
    source = np.ascontiguousarray(np.concatenate([music, voice], axis=1)) if sings else music
    recorder = Recorder(tmp_path)
    stream = open_stream(
        "identity",
        backend=NullSpec(source, clocked=False, blocks=(BLOCK, 100)),
        config=StreamConfig(
            blocksize=BLOCK,
            microphone=(3, 4) if sings else (),
            outputs=("mix", "monitor") if hears else ("mix",),
        ),
        chains={"mic": []} if sings else {},
        process=False,
    )
    wanted = {"mic": -6.0, "monitor.mic": -12.0, "monitor.vocals": -6.0, "monitor.music": -6.0}
    stream.set_many({name: db for name, db in wanted.items() if name in stream.values})
    blocks = stream.blocks()  # from the first one on
    with stream:
        assert stream.buses_beside == beside
        everything = buses(stream.info.stems, stream.buses_beside)
        recorder.start(everything, stream.info, "wav", beside=stream.buses_beside)
        for block in blocks:
            recorder.write(block)
        late, mic, ear = stream.latency, stream.microphone_latency, stream.monitor_latency
    done = recorder.stop()
    assert done is not None
    assert set(done.files) == {*everything}
    sound = {bus: soundfile.read(path, dtype="float32")[0] for bus, path in done.files.items()}
    part = slice(RATE // 8, RATE - 1024)

    def at(source: Float32, latency: int) -> Float32:
        before = latency - late.bridge
        return source[part.start - before : part.stop - before]

    def close(bus: str, expected: Float32) -> None:
        np.testing.assert_allclose(sound[bus][part], expected, atol=1e-6)

    close("input", at(music, late.frames))
    output = at(music, late.frames)
    if mic is not None:
        close("mic", at(voice, mic.frames))
        output = output + 10 ** (-6 / 20) * at(voice, mic.frames)
    close("output", output)
    if ear is not None:
        whispered = 10 ** (-6 / 20) * at(music, ear.frames)
        if mic is not None:
            whispered = whispered + 10 ** (-12 / 20) * at(voice, mic.frames)
        close("monitor", whispered)


@pytest.mark.parametrize(
    ("config", "word"), [({"microphone": (2,)}, "3 and above"), ({"microphone": (5,)}, "5")]
)
def test_channels_that_cannot_be(config: dict[str, Any], word: str) -> None:
    source = NullSpec(np.zeros((1000, 4), np.float32))
    with pytest.raises((UsageError, DeviceError), match=word):
        open_here(source, config=config)


def test_a_device_without_a_clock_cannot_be_followed() -> None:
    with pytest.raises(UsageError, match="no clock"):
        open_here(NullSpec(clocked=False), microphone=Beside(NullSpec()))


def test_two_devices_two_clocks() -> None:
    """Both are heard at their level and in tune, though one is 400 ppm fast, the other slow."""
    seconds = 3.0
    song, voice = tone(440, 1.0), tone(1000, 1.0, channels=1)
    frames = 60 * RATE  # it is stopped long before, so that nothing ends by itself
    monitor = NullSpec(capture=True, frames=frames, drift=-400e-6, blocks=(96,))
    with open_here(
        NullSpec(song, loop=True, capture=True, frames=frames),
        microphone=Beside(NullSpec(voice, loop=True, drift=400e-6, blocks=(160,))),
        monitor=Beside(monitor),
        chains={"mic": []},
    ) as stream:
        stream.set_many({"mic": -6.0, "monitor.music": -20.0, "monitor.vocals": -20.0})
        mic, ear = stream.microphone_latency, stream.monitor_latency
        assert mic is not None
        assert ear is not None
        assert 0 < mic.clock < 0.02 * RATE
        until(stream, lambda: stream.stats.frames > seconds * RATE, 30)
        played = stream._engine._host._beside["monitor"]  # type: ignore[attr-defined]
        stats = stream.stats
    heard, whispered = stream.captured, played.device.captured
    assert heard is not None
    assert whispered is not None
    assert stats.microphone is not None
    assert stats.monitor is not None
    assert stats.microphone.peak == pytest.approx(20 * np.log10(0.25), abs=0.2)
    end = round(seconds * RATE)
    if stats.microphone.gaps == stats.late_blocks == 0:
        assert levels(heard[RATE:end], 1000.4) == pytest.approx(-18.06, abs=CLOSE)
        assert levels(heard[RATE:end], 440) == pytest.approx(-12.04, abs=CLOSE)
        assert stats.microphone.ppm == pytest.approx(400, abs=350)
    if stats.monitor.gaps == stats.late_blocks == 0:
        assert levels(whispered[RATE:end], 440.2) == pytest.approx(-32.04, abs=CLOSE)
        assert levels(whispered[RATE:end], 1000.8) == pytest.approx(-12.04, abs=CLOSE)


def levels(sound: Float32, hz: float) -> float:
    """The usual level of a tone: a loop that finds its clock may be a hertz off for a moment, which
    a long look takes for a weak tone."""
    pieces = sound[: len(sound) // 4800 * 4800].reshape(-1, 4800, sound.shape[1])
    return float(np.median([level(piece, hz) for piece in pieces]))


def test_nothing_is_made_while_audio_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows a second clock may have to be compiled: seconds, on a busy machine."""
    made: list[bool] = []
    flows: list[bool] = []
    prepare, begin = Feed._prepare, NullDevice.start

    def watched(self: Feed, link: Any) -> Any:
        made.append(bool(flows))
        return prepare(self, link)

    def started(*arguments: Any) -> None:
        flows.append(True)
        begin(*arguments)

    monkeypatch.setattr(Feed, "_prepare", watched)
    monkeypatch.setattr(NullDevice, "start", started)
    with open_here(NullSpec(), microphone=Beside(NullSpec()), monitor=Beside(NullSpec())) as stream:
        until(stream, lambda: stream.stats.microphone.there)  # type: ignore[union-attr]
    assert made == [False, False]
    assert len(flows) == 3


def until(stream: Stream, condition: Any, seconds: float = 8.0) -> float:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, "it takes too long"
        stream.wait(0.02)
    return time.monotonic() - begin


@pytest.mark.parametrize("kind", ["microphone", "monitor"])
def test_a_second_device_goes_and_comes_back(kind: str) -> None:
    """The first one plays on, bit for bit; the second is back within 3 s of its return."""
    cable = Cable(tone(500, 30.0, channels=2))
    song = noise(2, seed=3) * 0.5
    main = NullSpec(song, loop=True, capture=True, frames=30 * RATE)
    chains: dict[str, Any] = {"mic": []} if kind == "microphone" else {}
    with open_here(main, **{kind: Beside(cable)}, chains=chains) as stream:
        if kind == "microphone":
            stream.set("mic", -np.inf)  # heard or not, the music is what it is

        def stats() -> Any:
            return getattr(stream.stats, kind)

        until(stream, lambda: stream.stats.frames > RATE // 2)
        cable.pull()
        until(stream, lambda: any("waiting" in line for line in stream.notices()))
        assert not stats().there
        frames = stream.stats.frames
        until(stream, lambda: stream.stats.frames > frames + RATE // 4)
        cable.plugged = True
        assert until(stream, lambda: stats().reopens == 1) < 3
        assert any(f"{kind}: cable: back after" in line for line in stream.notices())
        assert stats().there
        device = cable.devices[-1]
        until(stream, lambda: device.position > RATE // 2)
        if kind == "microphone":
            until(stream, lambda: stats().peak > -13)
        else:
            assert np.max(np.abs(device.heard[-RATE // 8 :])) > 0.2
        end, now = stream.stats.frames, stream.stats
        gaps = stats().gaps
    heard, late = stream.captured, stream.latency.frames
    assert heard is not None
    assert now.reopens == 0
    if now.late_blocks == 0:
        assert gaps <= (1 if kind == "microphone" else 0) + 1
        stop = min(end - RATE // 4, 2 * RATE)
        begin = RATE // 8  # until then the microphone's fader falls
        np.testing.assert_allclose(heard[begin:stop], song[begin - late : stop - late], atol=1e-6)


def test_the_first_device_goes_and_comes_back() -> None:
    """The others wait for it, and are found again."""
    cable = Cable(tone(500, 30.0))
    monitor = NullSpec(capture=True, frames=30 * RATE)
    with open_here(
        cable,
        microphone=Beside(NullSpec(tone(1000, 1.0), loop=True)),
        monitor=Beside(monitor),
        chains={"mic": []},
    ) as stream:
        until(stream, lambda: stream.stats.frames > RATE // 2)
        cable.pull()
        until(stream, lambda: any("waiting" in line for line in stream.notices()))
        stream.wait(1.0)
        cable.plugged = True
        until(stream, lambda: stream.stats.reopens == 1)
        device = cable.devices[-1]
        until(stream, lambda: device.position > RATE)
        heard = device.heard[-RATE // 4 :]
    assert level(heard, 1000) == pytest.approx(-12.04, abs=1.5)
    assert level(heard, 500) == pytest.approx(-12.04, abs=1.5)


def test_in_a_process_of_its_own() -> None:
    voice = tone(1000, 0.5)
    with open_stream(
        "identity",
        backend=NullSpec(),
        config=StreamConfig(blocksize=256, outputs=("mix", "monitor")),
        microphone=Beside(NullSpec(voice, loop=True), channels=(2,)),
    ) as stream:
        until(stream, lambda: stream.stats.output_peak > -40, 30)
        stats = stream.stats
        assert stats.microphone is not None
        assert stats.monitor is not None
        assert stream.beside["mic"].startswith("null device")
        assert {"mic", "mic.gain", "mic.highpass.f", "monitor.vocals"} <= stream.parameters.keys()
        stream.set("mic.mute", 1)
        until(stream, lambda: stream.stats.output_peak < -60)
        assert stats.microphone.peak > -40


def test_another_second_device_is_chosen_while_the_first_one_plays_on() -> None:
    """One that is there, one that comes later; the music stays bit for bit what it is."""
    song = noise(2, seed=3) * 0.5
    main = NullSpec(song, loop=True, capture=True, frames=30 * RATE)
    low, high = tone(500, 1.0), tone(1000, 1.0, level=0.1)
    with open_here(
        main,
        microphone=Beside(NullSpec(low, loop=True), channels=(2,)),
        monitor=Beside(NullSpec()),
        chains={"mic": []},
    ) as stream:
        stream.set("mic", -np.inf)

        def mic() -> Any:
            return stream.stats.microphone

        until(stream, lambda: mic().peak == pytest.approx(-12.04, abs=0.3))
        stream.use("mic", Beside(NullSpec(high, loop=True, drift=2e-4)))
        until(stream, lambda: mic().there and mic().peak == pytest.approx(-20, abs=0.3))
        assert any("microphone: null device" in line for line in stream.notices())
        absent = Cable(tone(500, 30.0, channels=2), plugged=False)
        stream.use("monitor", Beside(absent))
        until(stream, lambda: any("monitor: no cable; waiting" in x for x in stream.notices()))
        assert not stream.stats.monitor.there  # type: ignore[union-attr]
        absent.plugged = True
        until(stream, lambda: stream.stats.monitor.there)  # type: ignore[union-attr]
        assert stream.beside["monitor"] == "cable"
        until(stream, lambda: stream.stats.frames > RATE)
        end, now = stream.stats.frames, stream.stats
        with pytest.raises(UsageError, match="without"):
            stream.use("ear", Beside(absent))
    heard, late = stream.captured, stream.latency.frames
    assert heard is not None
    assert now.microphone is not None
    assert now.monitor is not None
    assert (now.reopens, now.microphone.reopens, now.monitor.reopens) == (0, 0, 0)
    if now.late_blocks == 0:
        assert now.microphone.gaps <= 1
        stop = min(end - RATE // 4, 2 * RATE)
        begin = RATE // 8
        np.testing.assert_allclose(heard[begin:stop], song[begin - late : stop - late], atol=1e-6)
