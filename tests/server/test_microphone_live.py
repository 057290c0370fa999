"""A song, a singer and two loudspeakers on a real audio server: four devices, one show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_servers import (
    PipeWireServer,
    Process,
    PulseServer,
    Server,
    environment,
    record,
    refresh_portaudio,
    until,
)

from realtime_sep.companion import Beside
from realtime_sep.io.portaudio import PortAudioSpec
from realtime_sep.stream import Stream, open_stream
from realtime_sep.types import BesideStats, Float32, StreamConfig

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

RATE = 48000
SONG, VOICE = 440, 1000
SINKS = {"song": "Song", "voice": "Voice", "hall": "Hall Speakers", "ear": "Ear Phones"}
#: Seconds in which a device must be back after its return; ours is half a second at most.
BACK = 3.0


def tone(path: Path, hz: float) -> Path:
    t = np.arange(60 * RATE) / RATE
    sound = (0.1 * np.sin(2 * np.pi * hz * t)).astype(np.float32)
    soundfile.write(path, np.stack([sound, sound], axis=1), RATE, subtype="FLOAT")
    return path


def levels(server: Server, sink: str, path: Path) -> dict[int, float]:
    """Of the two tones in what a sink plays, in dB of full scale."""
    record(server, sink, path, rate=RATE, seconds=1.2)
    data: Float32 = np.fromfile(path, np.float32)[::2][-RATE // 2 :]
    if len(data) < RATE // 4:
        return {SONG: -200.0, VOICE: -200.0}
    t = np.arange(len(data)) / RATE
    window = np.hanning(len(data))

    def level(hz: float) -> float:
        """A loop that finds its clock may be 0.1 % off in the meantime."""
        around = [
            abs(np.mean(data * window * np.exp(-2j * np.pi * (hz + off) * t)))
            for off in np.arange(-1.5, 1.6, 0.25)
        ]
        return float(20 * np.log10(4 * max(around) + 1e-10))

    return {hz: level(hz) for hz in (SONG, VOICE)}


def near(found: dict[int, float], song: float, voice: float) -> bool:
    return abs(found[SONG] - song) < 1 and abs(found[VOICE] - voice) < 1


def opened() -> Stream:
    refresh_portaudio()
    return open_stream(
        "identity",
        input="Monitor of Song",
        output="Hall Speakers",
        latency="high",
        config=StreamConfig(blocksize=512),
        microphone=Beside(PortAudioSpec("Monitor of Voice", latency="high", side="input")),
        monitor=Beside(PortAudioSpec(None, "Ear Phones", latency="high", side="output")),
        chains={"mic": []},
        tap=False,
    )


def test_who_hears_what(
    sound_server: Callable[..., PulseServer | PipeWireServer], tmp_path: Path
) -> None:
    """The hall hears song and singer, the ear less of the song; the monitor goes and comes back."""
    server = sound_server(SINKS)
    heard = tmp_path / "heard.raw"
    with environment(server.environment), opened() as stream:

        def player(sink: str, hz: float) -> Process:
            return Process(
                ["pacat", "--latency-msec=50", "--file-format=wav", f"--device={sink}",
                 str(tone(tmp_path / f"{sink}.wav", hz))],
                tmp_path / "player.log",
                server.environment,
            )  # fmt: skip

        players = [player("song", SONG), player("voice", VOICE)]
        try:
            stream.set_many({"mic": -6.0, "monitor.music": -20.0, "monitor.vocals": -20.0})
            until(lambda: near(levels(server, "hall", heard), -20, -26), 40, "song and singer")
            until(lambda: near(levels(server, "ear", heard), -40, -20), 40, "the ear")
            late, mic = stream.latency, stream.microphone_latency
            assert mic is not None
            assert mic.clock > 0
            assert mic.bridge == late.bridge
            pulled_and_put_back(server, stream, heard)
            players[1].stop()  # the server has led it elsewhere
            players[1] = player("voice", VOICE)
            until(lambda: near(levels(server, "ear", heard), -40, -20), 40, "ear and singer again")
            assert stream.stats.reopens == 0
        finally:
            for player in players:
                player.stop()


def pulled_and_put_back(server: PulseServer | PipeWireServer, stream: Stream, heard: Path) -> None:
    """Microphone and monitor: one gap each, the song plays on, both are back within `BACK`."""

    def stats() -> tuple[BesideStats, BesideStats]:
        stream.notices()
        now = stream.stats
        assert now.microphone is not None
        assert now.monitor is not None
        return now.microphone, now.monitor

    listed = server.run("pactl", "list", "short", "modules").splitlines()
    modules = [
        line.split("\t")[0]
        for sink in ("voice", "ear")
        for line in listed
        if f"sink_name={sink}" in line
    ]
    before = stats()
    for module in modules:
        server.run("pactl", "unload-module", module)
    until(lambda: not any(one.there for one in stats()), 5, "the loss")
    stream.wait(0.1)  # until the worker has told
    lost = stats()
    assert [now.gaps - then.gaps for now, then in zip(lost, before, strict=True)] == [1, 1]
    until(lambda: levels(server, "hall", heard)[SONG] > -21, 10, "the song plays on")
    assert not any(one.there for one in stats())
    for sink in ("voice", "ear"):
        server.run(
            *("pactl", "load-module", "module-null-sink", f"sink_name={sink}", f"rate={RATE}"),
            # PulseAudio's null sinks sleep for two seconds at a time unless they never rewind.
            *(["norewinds=1"] if isinstance(server, PulseServer) else []),
            *("channels=2", f"sink_properties=\"device.description='{SINKS[sink]}'\""),
        )
    until(lambda: all(one.there for one in stats()), BACK, "the return")
    # Such a sink comes by every 50 ms, later than the one before: gaps may widen the distance now.
    for now, then in zip(stats(), lost, strict=True):
        assert now.reopens == then.reopens + 1
