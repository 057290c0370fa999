"""Every backend that the machine has, behind one face."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

from audio_servers import (
    JackServer,
    PipeWireServer,
    PulseServer,
    environment,
    need_portaudio,
    until,
)

from realtime_sep.io.jack import JackSpec
from realtime_sep.io.null import NullSpec
from realtime_sep.io.portaudio import PortAudioSpec
from realtime_sep.io.pyaudio import PyAudioSpec
from realtime_sep.offline import separate_file
from realtime_sep.stream import Stream, open_stream
from realtime_sep.types import Float32, StreamConfig

RATE = 48000


def noise(seconds: float) -> Float32:
    rng = np.random.default_rng(0)
    return rng.uniform(-0.85, 0.85, (round(seconds * RATE), 2)).astype(np.float32)


class Backend:
    """One way for audio to come in and to go out.

    Attributes:
        exact: whether every sample comes out as it came in.
        blocks: block sizes that it may use; empty where there is no live stream.
    """

    exact = True
    blocks: tuple[int, ...] = ()

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def set_up(self, stack: ExitStack) -> None:
        """Start what it needs, or skip."""

    def spec(self) -> Any:
        """For `open_stream`."""
        raise NotImplementedError

    @contextmanager
    def stream(self, separator: str = "identity", **options: Any) -> Iterator[Stream]:
        """A running one."""
        config = {"samplerate": RATE, "blocksize": self.blocks[0], **options}
        with open_stream(
            separator, backend=self.spec(), config=StreamConfig(**config), tap=False
        ) as stream:
            until(lambda: stream.stats.frames > RATE // 10, 15, "the stream")
            yield stream

    def check_passthrough(self) -> None:
        """Noise comes back, by `identity`, after the latency that is reported."""
        raise NotImplementedError

    def vanish(self) -> None:
        """Take the device, or its server, away."""
        pytest.skip("it cannot go away")


class Null(Backend):
    blocks = (128, 480)
    clocked = True

    def spec(self) -> NullSpec:
        return NullSpec(noise(0.5), loop=True, clocked=self.clocked, blocks=self.blocks)

    def check_passthrough(self) -> None:
        audio = noise(1.0)
        spec = NullSpec(audio, capture=True, clocked=self.clocked, blocks=self.blocks)
        config = StreamConfig(samplerate=RATE, blocksize=max(self.blocks))
        for _ in range(5):
            with open_stream("identity", backend=spec, config=config, tap=False) as stream:
                assert stream.wait(20)
                stream.stop()
            heard, lag = stream.captured, stream.latency.frames
            assert heard is not None
            if np.array_equal(heard[lag:], audio) and not heard[:lag].any():
                return
            assert self.clocked, "nobody is late without a clock"
            assert stream.stats.late_blocks, "other samples, or another latency"
        pytest.fail("the machine never let it play undisturbed")


class FreeNull(Null):
    clocked = False


class File(Backend):
    def check_passthrough(self) -> None:
        audio, song = noise(1.0), self.directory / "song.wav"
        soundfile.write(song, audio, RATE, "FLOAT")
        (path,) = separate_file(song, self.directory, "identity").paths.values()
        heard, samplerate = soundfile.read(path, dtype="float32")
        assert samplerate == RATE
        np.testing.assert_array_equal(heard, audio)


class Pipe(Backend):
    def check_passthrough(self) -> None:
        audio = noise(1.0)
        command = "-m realtime_sep pipe --format f32le --rate 48000 --model identity --music 0"
        done = subprocess.run(
            [sys.executable, *command.split()], input=audio.tobytes(), stdout=-1, timeout=60
        )
        assert done.returncode == 0
        np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32).reshape(-1, 2), audio)


class Jack(Backend):
    """Named ports, connected by hand."""

    blocks = (256,)

    def set_up(self, stack: ExitStack) -> None:
        self.server = stack.enter_context(JackServer(self.directory, RATE, 256))
        stack.enter_context(environment(self.server.environment))

    def spec(self) -> Any:
        return JackSpec()

    def check_passthrough(self) -> None:
        from jack_tape import Tape, assert_exact

        with self.stream() as stream, Tape(self.server) as tape:
            tape.wire("realtime-sep")
            assert_exact(tape, stream, noise(1.0))

    def vanish(self) -> None:
        self.server.kill()


class JackByName(Jack):
    """As PortAudio names its clients."""

    def spec(self) -> Any:
        need_portaudio()
        return PortAudioSpec("system", "system")


SINKS = {"music": "Music Player", "speakers": "Loud Speakers"}


class Sound(Backend):
    """PortAudio over PulseAudio."""

    blocks = (512,)
    exact = False
    server_class: type[PulseServer | PipeWireServer] = PulseServer

    def set_up(self, stack: ExitStack) -> None:
        need_portaudio()
        self.server = stack.enter_context(self.server_class(self.directory, SINKS))
        stack.enter_context(environment(self.server.environment))

    def spec(self) -> Any:
        return PortAudioSpec("Monitor of Music Player", "Loud Speakers", "high")

    def check_passthrough(self) -> None:
        from test_pulse_live import likeness, play_and_record

        audio = noise(1.0)
        with self.stream() as stream:
            assert "Monitor of Music Player ▶ Loud Speakers" in stream.device
            for _ in range(4):
                alike, _ = likeness(play_and_record(self.server, audio, self.directory), audio)
                if alike > 0.99:
                    return
        pytest.fail(f"it sounds otherwise: likeness {alike:.3f}")

    def vanish(self) -> None:
        self.server.kill()


class PipeWireSound(Sound):
    server_class = PipeWireServer


class PyAudioSound(Sound):
    def set_up(self, stack: ExitStack) -> None:
        if importlib.util.find_spec("pyaudio") is None:
            pytest.skip("PyAudio is not installed")
        super().set_up(stack)

    def spec(self) -> Any:
        return PyAudioSpec("Monitor of Music Player", "Loud Speakers")


BACKENDS: dict[str, type[Backend]] = {
    "null": Null,
    "null-free": FreeNull,
    "file": File,
    "pipe": Pipe,
    "jack-ports": Jack,
    "jack-by-name": JackByName,
    "sounddevice-pulseaudio": Sound,
    "sounddevice-pipewire": PipeWireSound,
    "pyaudio-pulseaudio": PyAudioSound,
}


def those(fits: Callable[[type[Backend]], bool]) -> list[Any]:
    """As parameters; those that need a server are marked."""
    return [
        pytest.param(
            kind, id=name, marks=[pytest.mark.server] if issubclass(kind, Jack | Sound) else []
        )
        for name, kind in BACKENDS.items()
        if fits(kind)
    ]


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with ExitStack() as stack:
        made: Backend = request.param(tmp_path)
        made.set_up(stack)
        yield made
