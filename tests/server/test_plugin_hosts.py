"""The plugins of ours in other programs: offline to the bit, and live."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_servers import JackServer, PipeWireServer, Process, environment, need, until

from realtime_sep.bridge import install
from realtime_sep.errors import EngineError
from realtime_sep.offline import separate
from realtime_sep.types import Float32

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bridge"))
from hosts import RATE, Engine, built, engine, song

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

#: Numbers of the models in the control of that name.
MODELS = {"center": 1, "unet": 2}


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Engine]:
    with engine(tmp_path / "run") as made, environment(made.environment):
        yield made


def run(*command: str | Path, extra: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **(extra or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def latency(block: int, hop: int, separator: int) -> int:
    """What the plugin reports for blocks like this."""
    return separator + hop - np.gcd(hop, block) + block + 64


@pytest.mark.parametrize("model", ["center", "unet"])
def test_ffmpeg_gives_what_separate_gives(serving: Engine, tmp_path: Path, model: str) -> None:
    """To the bit, in 32-bit floats."""
    need("ffmpeg")
    if model == "unet":
        pytest.importorskip("onnxruntime")
    library = built("LADSPA")
    serving.start()
    audio = song(3 * RATE + 77)
    soundfile.write(tmp_path / "in.wav", audio, RATE, subtype="FLOAT")
    # Blocks as ffmpeg likes them, and no compensation of the latency.
    controls = f"c0=-60|c1=0|c2=0|c3={MODELS[model]}|c4=1"
    graph = f"asetnsamples=512:p=0,ladspa=file={library}:plugin=karaoke:c={controls}"
    command = ("ffmpeg", "-hide_banner", "-y", "-i", tmp_path / "in.wav", "-af", graph)
    run(*command, "-c:a", "pcm_f32le", tmp_path / "out.wav")
    out, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    expected = separate(audio, RATE, model)["accompaniment"]
    lag = latency(512, *((256, 256) if model == "center" else (512, 512)))
    assert len(out) == len(audio)
    assert np.array_equal(out[lag:], expected[:-lag])


def test_applyplugin_gives_what_separate_gives(serving: Engine, tmp_path: Path) -> None:
    """To the last of 16 bits, which is all that this program reads and writes."""
    need("applyplugin", "analyseplugin")
    library = built("LADSPA")
    assert '"karaoke"' in run("analyseplugin", library)
    serving.start()
    soundfile.write(tmp_path / "in.wav", song(2 * RATE), RATE, subtype="PCM_16")
    audio, _ = soundfile.read(tmp_path / "in.wav", dtype="float32")
    files = (tmp_path / "in.wav", tmp_path / "out.wav")
    run("applyplugin", *files, library, "karaoke", "-60", "0", "0", "1", "1")
    out, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    lag = latency(2048, 256, 256)
    expected = separate(audio, RATE, "center")["accompaniment"]
    assert np.abs(out[lag:] - expected[: len(out) - lag]).max() <= 1.01 / 32768


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A user who has installed everything; the variables that say so."""
    built("LV2")
    values = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    with environment(values):
        try:
            install.install(pipewire=True)
        except EngineError as error:
            pytest.skip(str(error))
        yield values


@pytest.mark.parametrize(
    "plugin", ["-eli:7500656,-60,0,0,1,1", "-elv2:urn:realtime-sep:karaoke,-60,0,1,1,1"]
)
def test_ecasound_gives_what_separate_gives(
    serving: Engine, home: dict[str, str], tmp_path: Path, plugin: str
) -> None:
    """To the bit, through either kind."""
    need("ecasound")
    serving.start()
    audio = song(2 * RATE)
    soundfile.write(tmp_path / "in.wav", audio, RATE, subtype="FLOAT")
    files = ("-i", tmp_path / "in.wav", "-o", tmp_path / "out.wav")
    paths = {"LADSPA_PATH": str(tmp_path / ".ladspa"), "LV2_PATH": str(tmp_path / ".lv2")}
    run("ecasound", "-q", "-b:1024", f"-f:f32_le,2,{RATE}", *files, plugin, extra=paths)
    out, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    lag = latency(1024, 256, 256)
    expected = separate(audio, RATE, "center")["accompaniment"]
    assert np.array_equal(out[lag:], expected[: len(out) - lag])


def test_the_bundle_is_valid(home: dict[str, str], tmp_path: Path) -> None:
    need("lv2_validate", "lv2info")
    bundle = tmp_path / ".lv2" / install.BUNDLE
    report = run("lv2_validate", bundle / "manifest.ttl", bundle / "realtime_sep.ttl")
    assert "Found 0 errors" in report
    for name, ports in (("karaoke", 10), ("stems", 14)):
        told = run("lv2info", f"urn:realtime-sep:{name}", extra=home)
        assert f"Port {ports - 1}:" in told
        assert f"Port {ports}:" not in told
        assert "Has latency:       yes, reported by port 9" in told


def test_lv2bench_runs_it(home: dict[str, str], serving: Engine) -> None:
    """What instantiates every plugin that there is, and feeds it noise."""
    need("lv2bench")
    serving.start()
    assert "urn:realtime-sep:stems" in run("lv2bench", "-b", "256", "-n", "8192", extra=home)


def _karaoke_of(recorded: Float32, audio: Float32, model: str = "center") -> float:
    """How alike what was recorded and the accompaniment are, where they fit best."""
    expected = separate(audio, RATE, model)["accompaniment"][RATE:, 0]
    size = 1 << (len(recorded) + len(expected)).bit_length()
    spectrum = np.fft.rfft(recorded[:, 0], size) * np.conj(np.fft.rfft(expected, size))
    place = int(np.argmax(np.fft.irfft(spectrum)))
    heard = recorded[place : place + len(expected), 0]
    part = expected[: len(heard)]
    return float(np.vdot(heard, part) / (np.linalg.norm(heard) * np.linalg.norm(part) + 1e-9))


def _voice(audio: Float32) -> float:
    """Power of the song's voice, which is a tone in the middle, against that of the sides.

    It does not mind what a busy sound server leaves out, or repeats.
    """
    middle = np.abs(np.fft.rfft(audio.sum(axis=1))) ** 2
    frequencies = np.fft.rfftfreq(len(audio), 1 / RATE)
    near = (frequencies > 380) & (frequencies < 500)
    sides = np.square(audio[:, 0] - audio[:, 1]).sum() * len(audio)
    return float(middle[near].sum() / (sides + 1e-9))


def test_jalv_plays_it_live(
    home: dict[str, str],
    serving: Engine,
    jack_server: Callable[..., JackServer],
) -> None:
    need("jalv")
    from jack_tape import Tape

    serving.start("--model", "center")
    server = jack_server(samplerate=RATE, period=256)
    name = f"jalv{os.getpid()}"
    command = ["jalv", "-x", "-n", name, "urn:realtime-sep:karaoke"]
    host = subprocess.Popen(  # it ends with its input
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: f"{name}:out_right" in server.run("jack_lsp"), 30, "jalv's ports")
        with Tape(server) as tape:
            for c, side in enumerate(("left", "right")):
                tape._connect(tape._outs[c], f"{name}:in_{side}")
                tape._connect(f"{name}:out_{side}", tape._ins[c])
            audio = song(4 * RATE)[: 4 * RATE // 256 * 256]
            until(lambda: len(serving.instances()) == 1, 60, "jalv is served")
            for _ in range(5):  # the machine may have stalled
                if (alike := _karaoke_of(tape.run(audio), audio)) > 0.98:
                    break
        assert alike > 0.98
    finally:
        host.kill()
        host.communicate()
    until(lambda: not serving.instances(), 20, "its place is free")


def test_pipewire_has_a_karaoke_sink(home: dict[str, str], tmp_path: Path) -> None:
    """With the shipped file where `install` puts it, and an engine that the plugin starts."""
    sound = ["--raw", "--format=float32le", f"--rate={RATE}", "--channels=2"]
    given, taken = tmp_path / "given.raw", tmp_path / "taken.raw"
    audio = song(5 * RATE)
    given.write_bytes(audio.tobytes())
    with (
        engine(tmp_path) as made,
        environment({**made.environment, "REALTIME_SEP_MODEL": "center"}),
        PipeWireServer(tmp_path, {"speakers": "Speakers"}, RATE) as server,
        environment(server.environment),
    ):
        assert "Description: Karaoke" in server.run("pactl", "list", "sinks")
        server.run("pactl", "set-default-sink", "speakers")
        left = 1.0
        for _ in range(5):  # the first time wakes the engine
            recorder = Process(
                ["sh", "-c", f"exec parec {' '.join(sound)} -d speakers.monitor >{taken}"],
                tmp_path / "parec.log",
            )
            run("pacat", *sound, "--device=realtime-sep-karaoke", given)
            recorder.stop()
            data = np.fromfile(taken, np.float32)
            recorded = data[: len(data) // 2 * 2].reshape(-1, 2)
            assert np.square(recorded).sum() > 0.1 * np.square(audio - audio.mean(1)[:, None]).sum()
            left = _voice(recorded) / _voice(audio)
            if left < 0.1:
                break
        assert left < 0.1
