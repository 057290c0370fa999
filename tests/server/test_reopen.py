"""Real servers that die, hang, come back, and come back otherwise; the stream outlives it all."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_servers import (
    JackServer,
    PipeWireServer,
    PulseServer,
    environment,
    need,
    need_portaudio,
    refresh_portaudio,
    until,
)
from jack_tape import Tape, assert_exact
from test_pulse_live import SINKS, likeness, live, play_and_record

from realtime_sep.errors import SampleRateError
from realtime_sep.stream import Stream, open_stream
from realtime_sep.types import Float32, StreamConfig

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

RATE = 48000
#: Seconds in which a loss must be noticed, and in which the sound must be back.
NOTICED, BACK = 1.0, 3.0
#: PulseAudio and PipeWire first bring their own clients and idle sinks up again.
PATIENT = 15.0
ATTEMPTS = 4


def noise(seconds: float = 0.5) -> Float32:
    rng = np.random.default_rng(0)
    return rng.uniform(-0.85, 0.85, (round(seconds * RATE), 2)).astype(np.float32)


def hear(stream: Stream, word: str, seconds: float) -> float:
    """Attend until a notice has this word; the seconds that it took."""
    begin = time.monotonic()
    while not any(word in notice for notice in stream.notices()):
        assert time.monotonic() - begin < seconds, f"no {word!r} within {seconds} s"
        stream.wait(0.02)
    return time.monotonic() - begin


def wait_flowing(stream: Stream) -> None:
    before = stream.stats.frames
    until(lambda: stream.stats.frames > before + RATE // 5, 10, "the stream")


@contextmanager
def jack_stream(separator: str = "identity", **config: Any) -> Any:
    with open_stream(
        separator,
        input="system",
        output="system",
        config=StreamConfig(**config),
        tap=False,
    ) as stream:
        wait_flowing(stream)
        yield stream


def test_jack_dies_and_comes_back_otherwise(jack_server: Callable[..., JackServer]) -> None:
    """Another period, then another rate: noticed, opened, computed again, and exact again."""
    server = jack_server(RATE, 256)
    audio = noise()
    with jack_stream() as stream:
        for count, (samplerate, period) in enumerate([(RATE, 512), (44100, 256)], 1):
            server.kill()
            hear(stream, "waiting", NOTICED)
            stream.wait(0.3)
            server.restart(samplerate, period)
            hear(stream, "back", BACK)
            assert stream.stats.reopens == count
            assert stream.info.samplerate == samplerate
            assert stream.latency.deadline == period
            wait_flowing(stream)
            with Tape(server) as tape:
                tape.wire("realtime-sep")
                assert_exact(tape, stream, audio)


@pytest.mark.parametrize(("seconds", "anew"), [(1.2, False), (4.0, True)])
def test_jack_is_suspended(
    jack_server: Callable[..., JackServer], seconds: float, anew: bool
) -> None:
    server = jack_server(RATE, 256)
    with jack_stream() as stream, Tape(server) as tape:
        tape.wire("realtime-sep")
        assert_exact(tape, stream, noise())
        server.process.send(signal.SIGSTOP)
        hear(stream, "waiting", NOTICED)
        stream.wait(seconds - 0.7)
        epoch = stream.stats.epoch
        server.process.send(signal.SIGCONT)
        hear(stream, "back", BACK)
        wait_flowing(stream)
        assert stream.stats.reopens == 1
        assert (stream.stats.epoch > epoch) == anew
        if anew:
            tape.wire("realtime-sep")
        assert_exact(tape, stream, noise())


def test_jack_changes_its_period(jack_server: Callable[..., JackServer]) -> None:
    """Connections that were made by hand stay."""
    server = jack_server(RATE, 256)
    with jack_stream() as stream, Tape(server) as tape:
        tape.wire("realtime-sep")
        for period in (512, 128):
            server.run("jack_bufsize", str(period))
            hear(stream, "back", NOTICED + BACK)
            assert stream.latency.deadline == period
            wait_flowing(stream)
            assert_exact(tape, stream, noise())


def test_a_rate_that_cannot_be(jack_server: Callable[..., JackServer]) -> None:
    server = jack_server(RATE, 256)
    with jack_stream(samplerate=RATE) as stream:
        server.kill()
        hear(stream, "waiting", NOTICED)
        server.restart(44100)
        with pytest.raises(SampleRateError, match="44100 Hz") as caught:
            stream.wait(BACK)
        assert "\n" not in str(caught.value)


def test_the_command_line_tells(jack_server: Callable[..., JackServer]) -> None:
    server = jack_server(RATE, 256)
    command = [sys.executable, "-m", "realtime_sep", "live", "-m", "center", "--json"]
    program = subprocess.Popen(
        [*command, "-i", "system", "-o", "system"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told: list[str] = []
    assert program.stderr is not None
    listener = threading.Thread(target=lambda: told.extend(program.stderr), daemon=True)  # type: ignore[arg-type]
    listener.start()
    try:
        until(lambda: "realtime-sep:mix_1" in server.run("jack_lsp"), 20, "the stream")
        server.kill()
        until(lambda: any("waiting for it" in line for line in told), 3, "the loss")
        server.restart()
        until(lambda: any("back after" in line for line in told), 5, "the return")
        program.send_signal(signal.SIGINT)
        program.wait(10)
    finally:
        program.kill()
    assert program.stdout is not None
    assert '"reopens": 1' in program.stdout.read()
    assert program.returncode == 0
    listener.join(2)
    assert all(line.startswith("realtime-sep: ") for line in told), told


# ---- PulseAudio and PipeWire


def arrives(server: Any, stream: Stream, directory: Path) -> None:
    audio = noise(2.5)  # a sink that is young or idle may swallow a piece
    for _ in range(ATTEMPTS):
        alike, _ = likeness(play_and_record(server, audio, directory), audio)
        if alike > 0.99:
            return
    pytest.fail(f"the sound does not arrive: likeness {alike:.3f}")


def test_a_sound_server_dies_and_comes_back(
    sound_server: Callable[..., PulseServer | PipeWireServer], tmp_path: Path
) -> None:
    server = sound_server(SINKS)
    with live("identity") as stream:
        server.kill()
        hear(stream, "waiting", NOTICED)
        stream.wait(0.5)
        server.restart()
        hear(stream, "back", PATIENT)
        wait_flowing(stream)
        assert stream.stats.reopens == 1
        arrives(server, stream, tmp_path)


def test_a_sound_server_is_suspended(
    pulse_server: Callable[..., PulseServer], tmp_path: Path
) -> None:
    server = pulse_server(SINKS)
    with live("identity") as stream:
        server.process.send(signal.SIGSTOP)
        hear(stream, "waiting", NOTICED)
        stream.wait(3)
        server.process.send(signal.SIGCONT)
        hear(stream, "back", PATIENT)
        wait_flowing(stream)
        arrives(server, stream, tmp_path)


def test_a_sink_goes_and_comes_back(
    sound_server: Callable[..., PulseServer | PipeWireServer], tmp_path: Path
) -> None:
    """The server would move the stream elsewhere, where it plays on for nobody."""
    server = sound_server({**SINKS, "other": "Other Speakers"})
    with live("identity") as stream:
        modules = server.run("pactl", "list", "short", "modules").splitlines()
        (module,) = (line.split("\t")[0] for line in modules if "sink_name=speakers" in line)
        server.run("pactl", "unload-module", module)
        hear(stream, "waiting", NOTICED)
        stream.wait(0.5)
        description = "sink_properties=\"device.description='Loud Speakers'\""
        server.run(
            *("pactl", "load-module", "module-null-sink", "sink_name=speakers"),
            *(f"rate={RATE}", "channels=2", description),
        )
        if isinstance(server, PulseServer):
            server.pin("speakers")
        hear(stream, "back", PATIENT)
        assert stream.device.startswith("Monitor of Music Player ▶ Loud Speakers")
        arrives(server, stream, tmp_path)


def test_another_default_sink_is_followed(
    sound_server: Callable[..., PulseServer | PipeWireServer], tmp_path: Path
) -> None:
    """The server moves a stream that named none; it plays on without a break."""
    server = sound_server({**SINKS, "other": "Other Speakers"})
    server.run("pactl", "set-default-sink", "other")
    with open_stream(
        "identity",
        input="Monitor of Music Player",
        latency="high",
        config=StreamConfig(blocksize=512),
        tap=False,
    ) as stream:
        wait_flowing(stream)
        server.run("pactl", "set-default-sink", "speakers")
        stream.wait(0.5)
        wait_flowing(stream)
        arrives(server, stream, tmp_path)
        assert stream.stats.reopens == 0


def test_pipewire_changes_its_rate(tmp_path: Path) -> None:
    """Its PulseAudio side resamples, and nobody hears it; its JACK side tells: all opens anew."""
    need("pw-jack", "pw-metadata")
    need_portaudio()
    force = ("pw-metadata", "-n", "settings", "0", "clock.force-rate")
    program = (
        "import time\n"
        "from realtime_sep.io.jack import JackSpec\n"
        "from realtime_sep.stream import open_stream\n"
        "with open_stream('center', backend=JackSpec('Music Player', 'Loud Speakers'),\n"
        "                 process=False, tap=False) as stream:\n"
        "    print('playing', stream.info.samplerate, flush=True)\n"
        "    end = time.monotonic() + 20\n"
        "    while stream.stats.reopens == 0 and time.monotonic() < end:\n"
        "        stream.wait(0.05)\n"
        "    frames = stream.stats.frames + 22050\n"
        "    while stream.stats.frames < frames and time.monotonic() < end:\n"
        "        stream.wait(0.05)\n"
        "    print(stream.info.samplerate, stream.stats.frames >= frames)\n"
    )
    with PipeWireServer(tmp_path, SINKS) as server, environment(server.environment):
        refresh_portaudio()
        with live("identity") as stream:
            client = subprocess.Popen(
                ["pw-jack", sys.executable, "-c", program],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                assert client.stdout is not None
                assert client.stdout.readline().split() == ["playing", "48000"]
                server.run(*force, "44100")
                out, err = client.communicate(timeout=40)
            finally:
                client.kill()
            assert out, err
            assert out.split() == ["44100", "True"]
            wait_flowing(stream)
            assert stream.stats.reopens == 0
