"""Named ports for the mix and every stem, connected by hand."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from audio_servers import JackServer, until
from jack_tape import Tape, assert_exact, calm, disturbed

from realtime_sep.errors import DeviceError, SampleRateError, UsageError
from realtime_sep.io.jack import JackSpec
from realtime_sep.offline import separate
from realtime_sep.stream import open_stream
from realtime_sep.types import Float32, StreamConfig

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

RATE = 48000
EVERYTHING = StreamConfig(outputs=("mix", "*"))
PORTS = {
    f"realtime-sep:{name}_{number}"
    for name in ("input", "mix", "vocals", "accompaniment")
    for number in (1, 2)
}


def noise(frames: int) -> Float32:
    return np.random.default_rng(0).uniform(-0.85, 0.85, (frames, 2)).astype(np.float32)


@pytest.mark.parametrize("period", [64, 256, 1024])
def test_mix_and_stem_come_back_bit_exact(
    jack_server: Callable[..., JackServer], period: int
) -> None:
    server = jack_server(RATE, period)
    with open_stream("identity", backend=JackSpec(), config=EVERYTHING, tap=False) as stream:
        until(lambda: stream.stats.hops > 8, 5, "the stream")
        assert set(server.run("jack_lsp").split()) >= PORTS
        assert stream.latency.deadline == period
        for bus in ("mix", "accompaniment"):
            with Tape(server) as tape:
                tape.wire("realtime-sep", bus)
                assert_exact(tape, stream, noise(RATE // 2))


def test_every_stem_has_its_port(jack_server: Callable[..., JackServer]) -> None:
    """Voice in the middle, music at the sides: the stems are aligned, and add up to the mix."""
    period, attempts = 256, 4
    server = jack_server(RATE, period)
    t = np.arange(2 * RATE // period * period) / RATE
    voice = 0.3 * np.sin(2 * np.pi * 440 * t) * (1 + np.sin(2 * np.pi * 3 * t))
    music = 0.2 * np.sin(2 * np.pi * 1500 * t)
    audio = np.stack([voice + music, voice - music], axis=1).astype(np.float32)
    with (
        open_stream("center", backend=JackSpec(), config=EVERYTHING, tap=False) as stream,
        Tape(server, heard=4) as tape,
    ):
        until(lambda: stream.stats.hops > 8, 10, "the stream")
        tape.wire("realtime-sep", "vocals", "accompaniment")
        hop, delay = stream.stats.hop, stream.latency.frames + period
        # The tape may begin at any period, the engine's hops at every hop / period of them.
        expected = []
        for phase in range(0, hop, period):
            padded = np.concatenate([np.zeros((phase, 2), np.float32), audio])
            stems = separate(padded, RATE, "center")
            expected.append(np.hstack([stems["vocals"], stems["accompaniment"]])[phase:])
        for _ in range(attempts):
            before = calm(stream)
            heard = tape.run(audio)[delay:]
            error = min(np.abs(heard - stems[: len(heard)]).max() for stems in expected)
            if error < 1e-6 or not disturbed(before, stream.stats, tape):
                break
    assert error < 1e-6
    mix = heard[:, :2] + heard[:, 2:]
    np.testing.assert_allclose(mix, audio[: len(mix)], atol=1e-6)
    apart = np.abs(heard[RATE // 2 :, :2] - heard[RATE // 2 :, 2:]).max()
    assert apart > 0.1, "nothing was separated"


def test_clients_by_name_are_connected(jack_server: Callable[..., JackServer]) -> None:
    server = jack_server(RATE, 256)
    with open_stream("identity", backend=JackSpec("system", "system"), tap=False) as stream:
        assert stream.device == "system ▶ system (JACK, 48000 Hz)"
        wires = server.run("jack_lsp", "-c").splitlines()
        for ours, theirs in (("input_2", "capture_2"), ("mix_1", "playback_1")):
            place = wires.index(f"realtime-sep:{ours}")
            assert wires[place + 1].strip() == f"system:{theirs}"


def test_what_cannot_be(
    jack_server: Callable[..., JackServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JACK_DEFAULT_SERVER", "nobody")
    with pytest.raises(DeviceError, match="no JACK server"):
        open_stream("identity", backend=JackSpec(), process=False)
    jack_server(RATE, 256)
    with pytest.raises(UsageError, match="did you mean 'system'"):
        open_stream("identity", backend=JackSpec("sistem"), process=False)
    with pytest.raises(SampleRateError, match="48000 Hz, not 44100"):
        open_stream("identity", backend=JackSpec(), config=StreamConfig(44100), process=False)


def test_command_line(jack_server: Callable[..., JackServer]) -> None:
    server = jack_server(RATE, 256)
    program = subprocess.Popen(
        [sys.executable, "-m", "realtime_sep", "live", "-m", "center", "--api", "jack", "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: set(server.run("jack_lsp").split()) >= PORTS, 20, "its ports")
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=10)
    finally:
        program.kill()
    assert program.returncode == 0, err
    assert not err
    assert "by hand ▶ by hand" in json.loads(out)["device"]
