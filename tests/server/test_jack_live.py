"""Through a real JACK server: latency to the frame, samples to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audio_servers import JackServer, until
from jack_tape import Tape, calm, disturbed, lag
from songs import a_song

from realtime_sep.offline import separate
from realtime_sep.stream import open_stream
from realtime_sep.types import Float32, StreamConfig

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

RATE = 48000
#: Times to play again when the machine stalled: the guard then fades, which is not bit-exact.
ATTEMPTS = 4


def noise(frames: int, seed: int = 0) -> Float32:
    """Uniform, just below -1 dBFS."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.88, 0.88, (frames, 2)).astype(np.float32)


def loop_without_us(tape: Tape, audio: Float32) -> int:
    """Frames that JACK and PortAudio need for themselves."""
    program = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("pass_through.py"), "tape", str(RATE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        assert program.stdout.readline().strip() == b"ready"
        for _ in range(ATTEMPTS):
            recorded = tape.run(audio)
            delay = lag(recorded, audio)
            if np.array_equal(recorded[delay:], audio[: len(audio) - delay]):
                return delay
    finally:
        program.stdin.close()
        try:
            program.wait(3)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
    pytest.fail("even PortAudio alone does not return what was played")


@pytest.mark.parametrize(("period", "blocksize"), [(64, 64), (128, 128), (256, 64), (512, 1024)])
def test_noise_returns_bit_exact_after_the_latency(
    jack_server: Callable[..., JackServer], period: int, blocksize: int
) -> None:
    server = jack_server(RATE, period)
    audio = noise(RATE // period * period)
    with Tape(server) as tape:
        extra = loop_without_us(tape, audio[: len(audio) // 2 // period * period])
        # What a loop of JACK clients costs: the tape hears in one period what came out in the last.
        assert extra == period

        for hop in (128, 512):
            config = StreamConfig(samplerate=RATE, blocksize=blocksize)
            with open_stream(
                "identity",
                input="tape",
                output="tape",
                config=config,
                separator_options={"hop": hop},
                tap=False,
            ) as stream:
                until(lambda s=stream: s.stats.hops > 8, 5, "the stream")
                assert stream.latency.deadline == period  # the server decides, not `blocksize`
                delay = extra + stream.latency.frames
                for _ in range(ATTEMPTS):
                    before = calm(stream)
                    recorded = tape.run(audio)
                    assert lag(recorded, audio) == delay, f"hop {hop}"
                    exact = np.array_equal(recorded[delay:], audio[: len(audio) - delay])
                    if exact or not disturbed(before, stream.stats, tape):
                        break
            assert exact, f"hop {hop}"
            assert stream.stats.overflow_frames == 0
            assert stream.stats.limited_hops == 0


@pytest.mark.parametrize("profile", ["live", "studio"])
def test_song_live_equals_offline(
    jack_server: Callable[..., JackServer], data: Path, profile: str
) -> None:
    period = 256
    song, samplerate = a_song(data, 4.0)
    song = song[: len(song) // period * period]
    server = jack_server(samplerate, period)
    with Tape(server) as tape:
        audio = np.concatenate([song, np.zeros((samplerate // period * period, 2), np.float32)])
        with open_stream(
            "center",
            input="tape",
            output="tape",
            config=StreamConfig(samplerate=samplerate, blocksize=period),
            vocals=-np.inf,
            separator_options={"profile": profile},
            tap=False,
        ) as stream:
            until(lambda: stream.stats.hops > 8, 10, "the stream")
            hop, delay = stream.stats.hop, stream.latency.frames + period
            # The song may begin at any period, the engine's hops at every hop / period of them.
            candidates = [
                separate(
                    np.concatenate([np.zeros((phase, 2), np.float32), song]),
                    samplerate,
                    "center",
                    profile=profile,
                )["accompaniment"][phase:]
                for phase in range(0, hop, period)
            ]
            for _ in range(ATTEMPTS):
                before = calm(stream)
                recorded = tape.run(audio)[delay : delay + len(song)]
                error = min(float(np.abs(recorded - c).max()) for c in candidates)
                if error <= 1e-6 or not disturbed(before, stream.stats, tape):
                    break
    assert np.abs(candidates[0] - song).max() > 0.05, "nothing was separated"
    assert error <= 1e-6


def test_wrong_rate_is_one_clear_error(jack_server: Callable[..., JackServer]) -> None:
    from realtime_sep.errors import DeviceError

    jack_server(48000, 256)
    with pytest.raises(DeviceError, match=r"JACK.*[Ss]ample rate"):
        open_stream(
            "identity", input="system", output="system", config=StreamConfig(samplerate=44100)
        )


def test_defaults_find_the_server(jack_server: Callable[..., JackServer]) -> None:
    """Nothing named, nothing set: JACK's own devices, at its rate."""
    if any(Path("/proc/asound").glob("card[0-9]*")):
        pytest.skip("this machine has a sound card, which is the default")
    jack_server(44100, 256)
    with open_stream("identity", tap=False) as stream:
        assert stream.info.samplerate == 44100
        until(lambda: stream.stats.frames > 4410, 5, "the stream")
    assert os.environ["JACK_DEFAULT_SERVER"]
