"""Through a real PulseAudio server: names lead to the right places, and the sound arrives."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from audio_servers import PipeWireServer, PulseServer, Server, need, need_portaudio, python, until
from songs import a_song, found

from realtime_sep.errors import DeviceError, UsageError
from realtime_sep.io import pulse
from realtime_sep.offline import separate
from realtime_sep.stream import Stream, open_stream
from realtime_sep.types import Float32, StreamConfig

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

RATE = 48000
SINKS = {"music": "Music Player", "speakers": "Loud Speakers"}
FORMAT = ["--raw", "--format=float32le", f"--rate={RATE}", "--channels=2"]
ATTEMPTS = 4


@contextmanager
def live(separator: str, vocals: float = 0.0, reconnect: float = math.inf) -> Iterator[Stream]:
    """From what "Music Player" plays to "Loud Speakers"; patient buffers, as machines are busy."""
    with open_stream(
        separator,
        input="Monitor of Music Player",
        output="Loud Speakers",
        latency="high",
        config=StreamConfig(blocksize=512, reconnect=reconnect),
        vocals=vocals,
        tap=False,
    ) as stream:
        until(lambda: stream.stats.frames > 9600, 10, "the stream")
        yield stream


def play_and_record(server: Server, audio: Float32, directory: Path) -> Float32:
    """What is heard on the speakers, from before the music begins until after it ends."""
    environment = {**os.environ, **server.environment}
    taken, given = directory / "taken.raw", directory / "given.raw"
    taken.unlink(missing_ok=True)
    given.write_bytes(np.pad(audio, ((0, RATE), (0, 0))).tobytes())
    recorder = subprocess.Popen(
        ["parec", *FORMAT, "--device=speakers.monitor", "--latency-msec=50", taken],
        env=environment,
    )
    try:
        until(lambda: taken.exists() and taken.stat().st_size > 0, 5, "recording begins")
        subprocess.run(
            ["pacat", *FORMAT, "--device=music", "--latency-msec=100", given],
            env=environment,
            timeout=60,
            check=True,
        )
    finally:
        recorder.terminate()
        recorder.wait(5)
    data = np.fromfile(taken, np.float32)
    return data[: len(data) // 2 * 2].reshape(-1, 2)


def likeness(recorded: Float32, expected: Float32, piece: int = RATE // 2) -> tuple[float, float]:
    """How alike they are, piece by piece, each where it fits best.

    A server that runs dry repeats or leaves out some frames, so pieces may shift; in order.

    Returns:
        Median correlation of the pieces, and the part of all samples that are equal to the bit.
    """
    alike, equal = [], 0
    for heard, part, fit in found(recorded, expected, piece):
        alike.append(fit)
        equal += np.count_nonzero((heard == part).all(axis=1))
    return float(np.median(alike)), equal / (len(alike) * piece)


def test_monitor_to_sink_is_bit_exact(sound_server: Callable[..., Server], tmp_path: Path) -> None:
    server = sound_server(SINKS)
    audio = np.random.default_rng(0).uniform(-0.85, 0.85, (3 * RATE, 2)).astype(np.float32)
    with live("identity") as stream:
        assert "Monitor of Music Player ▶ Loud Speakers" in stream.device
        assert stream.info.samplerate == RATE  # the sink's, not ALSA's 44100
        for _ in range(ATTEMPTS):
            alike, equal = likeness(play_and_record(server, audio, tmp_path), audio)
            if alike > 0.999 and equal > 0.9:
                break
    assert alike > 0.999
    assert equal > 0.9, "the sound was converted on its way"


def test_karaoke_of_what_another_program_plays(
    pulse_server: Callable[..., PulseServer], tmp_path: Path, data: Path
) -> None:
    server = pulse_server(SINKS)
    song, _ = a_song(data, 4.0)  # its own rate does not matter here
    karaoke = separate(song, RATE, "center")["accompaniment"]
    with live("center", vocals=-np.inf) as stream:
        for _ in range(ATTEMPTS):
            recorded = play_and_record(server, song, tmp_path)
            alike, _ = likeness(recorded, karaoke)
            unlike, _ = likeness(recorded, song)
            if alike > 0.99:
                break
        assert stream.stats.overflow_frames == 0
    assert alike > 0.99
    assert unlike < alike - 0.05


def test_endpoints_tell_what_they_are(sound_server: Callable[..., Server]) -> None:
    server = sound_server(SINKS)
    server.run("pactl", "set-default-sink", "speakers")
    server.run("pactl", "set-default-source", "music.monitor")
    server.run(
        *("pactl", "load-module", "module-remap-source", "source_name=mic"),
        *("master=speakers.monitor", "source_properties=device.description=Karaoke"),
    )
    known = {e.name: e for e in pulse.endpoints()}
    assert set(known) == {"music", "speakers", "music.monitor", "speakers.monitor", "mic"}
    assert {n for n, e in known.items() if e.monitor} == {"music.monitor", "speakers.monitor"}
    assert {n for n, e in known.items() if e.kind == "output"} == set(SINKS)
    assert {n for n, e in known.items() if e.default} == {"speakers", "music.monitor"}
    assert all(e.virtual for e in known.values())
    assert known["music.monitor"].description == "Monitor of Music Player"
    assert known["mic"].description == "Karaoke"
    assert {(e.samplerate, e.channels) for e in known.values()} == {(RATE, 2)}


def test_pipewire_as_jack(tmp_path: Path) -> None:
    """`pw-jack`: PipeWire's sinks are JACK clients, its quantum the period."""
    need("pw-jack")
    need_portaudio()
    program = (
        "from realtime_sep.stream import open_stream\n"
        "with open_stream('identity', input='Music Player, JACK', output='Loud Speakers, JACK',\n"
        "                 process=False, tap=False) as stream:\n"
        "    stream.wait(1)\n"
        "    stats = stream.stats\n"
        "    print(stream.latency.deadline, stats.frames / stats.callbacks, stats.frames)\n"
    )
    with PipeWireServer(tmp_path, SINKS) as server:
        done = subprocess.run(
            ["pw-jack", "-p", "256", sys.executable, "-c", program],
            env={**os.environ, **server.environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    deadline, block, frames = map(float, done.stdout.split())
    assert deadline == block == 256
    assert frames > RATE / 2


def routes(server: PulseServer) -> tuple[set[str], set[str]]:
    """Sources and sinks that ALSA clients are connected to, by name."""

    def used(streams: str, ends: str) -> set[str]:
        names = {}
        for line in server.run("pactl", "list", "short", ends).splitlines():
            index, name = line.split("\t")[:2]
            names[index] = name
        found = set()
        for block in server.run("pactl", "list", streams).split("\n\n"):
            if "ALSA" in block:
                end = "Source: " if streams == "source-outputs" else "Sink: "
                found.add(names[block.split(end)[1].split()[0]])
        return found

    return used("source-outputs", "sources"), used("sink-inputs", "sinks")


def test_each_stream_of_a_process_goes_its_own_way(
    pulse_server: Callable[..., PulseServer],
) -> None:
    """ALSA's configuration is cached by then, and no route outlives its stream."""
    server = pulse_server(SINKS)
    before = os.environ.copy()
    for source, sink in (("music.monitor", "Loud"), ("Monitor of Loud", "music")):
        with open_stream("identity", input=source, output=sink, process=False, tap=False) as stream:
            until(lambda s=stream: s.stats.frames > 0, 5, "the stream")
            expected = ("music.monitor", "speakers")
            if sink == "music":
                expected = ("speakers.monitor", "music")
            assert routes(server) == ({expected[0]}, {expected[1]})
        assert os.environ == before
    with open_stream("identity", process=False, tap=False) as stream:
        until(lambda: stream.stats.frames > 0, 5, "the stream")
        assert routes(server) == ({"music.monitor"}, {"music"})  # the server's defaults
        assert stream.info.samplerate == RATE


def test_names_that_lead_nowhere(pulse_server: Callable[..., PulseServer]) -> None:
    pulse_server(SINKS)
    with pytest.raises(UsageError, match="did you mean 'Monitor of Music Player'"):
        open_stream("identity", input="Monitr of Music Plaier", process=False)
    with pytest.raises(DeviceError, match=r"fits several devices.*Music Player.*Loud Speakers"):
        open_stream("identity", input="Monitor of", process=False)


def opening(extra: dict[str, str]) -> str:
    """What opening a monitor says, in a process of its own."""
    done = python(
        "-c",
        "from realtime_sep.stream import open_stream\n"
        "from realtime_sep.errors import RealtimeSepError\n"
        "try:\n"
        "    open_stream('identity', input='Monitor of Music Player', process=False)\n"
        "except RealtimeSepError as error:\n"
        "    print(error)\n",
        extra={"JACK_NO_START_SERVER": "1", "JACK_DEFAULT_SERVER": "nobody", **extra},
    )
    return done.stdout.strip() or done.stderr


def test_without_a_server_the_error_says_so() -> None:
    said = opening({"PULSE_SERVER": "unix:/nowhere"})
    assert "\n" not in said
    assert "no PulseAudio or PipeWire server" in said


def test_without_the_alsa_plugin_the_error_says_so(
    pulse_server: Callable[..., PulseServer], tmp_path: Path
) -> None:
    pulse_server(SINKS)
    bare = tmp_path / "alsa.conf"
    bare.write_text("pcm.default { type null }\nctl.default { type null }\n")
    said = opening({"ALSA_CONFIG_PATH": str(bare)})
    assert "\n" not in said
    assert "libasound2-plugins" in said


def test_server_that_hangs_does_not_hang_us(pulse_server: Callable[..., PulseServer]) -> None:
    server = pulse_server(SINKS)
    begin = time.monotonic()
    assert pulse.endpoints()
    assert time.monotonic() - begin < 1, "asking takes no more time than the server"
    server.process.send(signal.SIGSTOP)
    begin = time.monotonic()
    assert pulse.endpoints() == []
    assert time.monotonic() - begin < 3


def test_server_killed_is_one_clear_error(pulse_server: Callable[..., PulseServer]) -> None:
    server = pulse_server(SINKS)
    with live("identity", reconnect=0) as stream:
        server.kill()
        with pytest.raises(DeviceError, match="Music Player ▶ Loud Speakers"):
            stream.wait(3)
