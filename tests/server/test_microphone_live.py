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
from realtime_sep.types import Float32, StreamConfig

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

RATE = 48000
SONG, VOICE = 440, 1000
SINKS = {"song": "Song", "voice": "Voice", "hall": "Hall Speakers", "ear": "Ear Phones"}
#: Seconds in which a device must be back after its return; PulseAudio wakes idle sinks slowly.
BACK = 15.0


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
        players = [
            Process(
                ["pacat", "--latency-msec=50", "--file-format=wav", f"--device={sink}",
                 str(tone(tmp_path / f"{sink}.wav", hz))],
                tmp_path / "player.log",
                server.environment,
            )
            for sink, hz in (("song", SONG), ("voice", VOICE))
        ]  # fmt: skip
        try:
            stream.set_many({"mic": -6.0, "monitor.music": -20.0, "monitor.vocals": -20.0})
            until(lambda: near(levels(server, "hall", heard), -20, -26), 40, "song and singer")
            until(lambda: near(levels(server, "ear", heard), -40, -20), 40, "the ear")
            late, mic = stream.latency, stream.microphone_latency
            assert mic is not None
            assert mic.clock > 0
            assert mic.bridge == late.bridge
            modules = server.run("pactl", "list", "short", "modules").splitlines()
            (module,) = (line.split("\t")[0] for line in modules if "sink_name=ear" in line)
            reopens = stream.stats.reopens
            server.run("pactl", "unload-module", module)
            until(lambda: not there(stream), 5, "the loss")
            assert stream.running
            until(lambda: near(levels(server, "hall", heard), -20, -26), 10, "the others play on")
            assert not there(stream)
            server.run(
                *("pactl", "load-module", "module-null-sink", "sink_name=ear"),
                *(f"rate={RATE}", "channels=2"),
                "sink_properties=\"device.description='Ear Phones'\"",
            )
            if isinstance(server, PulseServer):
                server.pin("ear")
            until(lambda: there(stream), BACK, "the return")
            until(lambda: near(levels(server, "ear", heard), -40, -20), 40, "the ear again")
            stats = stream.stats
            assert stats.reopens == reopens
            assert stats.monitor is not None
            assert stats.monitor.reopens >= 1
        finally:
            for player in players:
                player.stop()


def there(stream: Stream) -> bool:
    stream.notices()
    monitor = stream.stats.monitor
    return monitor is not None and monitor.there
