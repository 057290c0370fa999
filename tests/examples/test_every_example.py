"""Every example, run as its reader runs it; a new one without a test fails."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

#: Tested where what they show is tested.
ELSEWHERE = {"demo.py", "song.py"}

ENVIRONMENT = {
    **os.environ,
    # `realtime-sep` itself, as a shell script calls it.
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
}


def run(name: str, *arguments: object, typed: str = "", status: int = 0) -> list[str]:
    """Lines that an example prints; what it says on stderr where it fails."""
    script = str(EXAMPLES / name)
    done = subprocess.run(
        [*([sys.executable] if name.endswith(".py") else []), script, *map(str, arguments)],
        env=ENVIRONMENT,
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return (done.stderr if status else done.stdout).splitlines()


def number(pattern: str, line: str) -> float:
    """The number that the group of `pattern` finds."""
    found = re.search(pattern, line)
    assert found, line
    return float(found[1])


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """A second with a tone in the middle and noise at the sides."""
    time = np.arange(44100) / 44100
    voice = 0.3 * np.sin(2 * np.pi * 440 * time)
    band = np.random.default_rng(0).uniform(-0.1, 0.1, (len(time), 2))
    path = tmp_path / "song.flac"
    soundfile.write(path, voice[:, np.newaxis] + band, 44100, subtype="PCM_24")
    return path


def test_every_example_is_tested() -> None:
    """Each name appears in a test here."""
    here = Path(__file__).read_text()
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh", ".ipynb")}
    missing = [name for name in files - ELSEWHERE if f'"{name}"' not in here]
    assert not missing


def test_wire() -> None:
    first, last = run("wire.py", "--null")
    assert number(r"([\d.]+) ms late", first) > 0
    assert number(r"(\d+) frames", last) > 10000  # of 48000, on a machine that may be busy


def test_wire_names_a_device_that_is_not_there() -> None:
    (line,) = run("wire.py", "no such device", status=1)
    assert line.startswith("wire: ")


def test_karaoke() -> None:
    said = run("karaoke.py", "--null", typed="-12\nloud\n9\n-inf\n")
    assert "null device" in said[0]
    assert said[1] == "voice at -12 dB"
    assert "loud" in said[2]
    assert "+6 dB" in said[3]
    assert said[4] == "voice at -inf dB"


def test_separate_file(song: Path) -> None:
    said = run("separate_file.py", song)
    stems = {line.split(":")[0]: song.with_name(f"song.{line.split(':')[0]}.wav") for line in said}
    assert set(stems) == {"vocals", "accompaniment"}
    total = sum(soundfile.read(path)[0] for path in stems.values())
    np.testing.assert_allclose(total, soundfile.read(song)[0], atol=1e-6)
    (line,) = run("separate_file.py", song.with_name("other.flac"), status=1)
    assert "no such file" in line


def test_picture(song: Path, tmp_path: Path) -> None:
    """The voice's tone is red, the noise at the sides blue."""
    plt = pytest.importorskip("PIL.Image", reason="reads PNG")
    target = tmp_path / "picture.png"
    run("picture.py", song, "--out", target)
    pixels = np.asarray(plt.open(target).convert("RGB")).astype(int)
    parts = pixels[len(pixels) // 2 + 6 :]
    red, blue = parts[..., 0] > parts[..., 2] + 60, parts[..., 2] > parts[..., 0] + 60
    tone = np.argmax(red.sum(axis=1))
    assert red[tone].mean() > 0.5
    assert blue[: tone - 20].mean() > 0.2


def test_numpy_blocks() -> None:
    vocals, accompaniment, late, total = run("numpy_blocks.py")
    assert "88200 frames" in vocals
    assert number(r"([-\d.]+) dB", vocals) > number(r"([-\d.]+) dB", accompaniment) + 6
    assert number(r"(\d+) frames late", late) == 256 + 255
    assert number(r"within (\S+)", total) < 1e-6


def test_asyncio_source() -> None:
    lines = run("asyncio_source.py")
    assert len(lines) > 10
    assert number(r"([\d.]+) s", lines[-1]) == pytest.approx(1 + 511 / 48000, abs=1e-3)
    assert number(r"voice ([\d.]+)", lines[-1]) > 0.2


def test_custom_separator() -> None:
    for line in run("custom_separator.py"):
        assert number(r"(-?\d+) dB from", line) < -40


def test_custom_separator_plays_live_too() -> None:
    """As its docstring says: `open_stream(Bass)`; the stems add up."""
    script = (
        "import numpy as np\n"
        "from custom_separator import Bass\n"
        "from realtime_sep import NullSpec, StreamConfig, open_stream\n"
        "song = np.random.default_rng(0).uniform(-.5, .5, (24000, 2)).astype(np.float32)\n"
        "spec = NullSpec(song, capture=True, clocked=False)\n"
        "with open_stream(Bass, backend=spec, config=StreamConfig(samplerate=48000)) as stream:\n"
        "    assert stream.wait(60)\n"
        "    stream.stop()\n"
        "    late = stream.captured[stream.latency.frames:]\n"
        "    print(np.abs(late - song[:len(late)]).max())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=ENVIRONMENT,
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5


def test_discord_like_bot() -> None:
    late, packets = run("discord_like_bot.py")
    # The separator's lag and gathering packets of 960 frames into hops of 256.
    assert number(r"([\d.]+) ms late", late) == pytest.approx(
        1e3 * (256 + 256 - 64) / 48000, abs=0.1
    )
    assert number(r"(\d+) packets", packets) == 50
    assert number(r"([\d.]+) ms of work", packets) < 20


def test_websocket_client(song: Path) -> None:
    """With a server as its docstring starts it; the stems add up to the song."""
    serve = [sys.executable, "-m", "realtime_sep", "serve", "--port", "0", "--model", "center"]
    with subprocess.Popen(
        [*serve, "--clients", "1"], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[0]
        said = run("websocket_client.py", song, "--url", url, "--seconds", "0.5")
        server.terminate()
    assert number(r"([\d.]+) ms late", said[0]) == pytest.approx(1e3 * (256 + 254) / 44100, abs=0.1)
    stems = [
        soundfile.read(song.with_name(f"song.{n}.wav"))[0] for n in ("vocals", "accompaniment")
    ]
    np.testing.assert_allclose(sum(stems), soundfile.read(song)[0][:22050], atol=1e-6)
    (line,) = run("websocket_client.py", song, "--url", url, status=1)
    assert line.startswith("websocket_client: ws://")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
def test_pipe(song: Path) -> None:
    karaoke = song.with_name("karaoke.flac")
    run("pipe.sh", song, karaoke)
    before, after = soundfile.read(song)[0], soundfile.read(karaoke)[0]
    assert after.shape == before.shape
    assert after.std() < 0.5 * before.std()  # the tone in the middle is gone
    assert "usage" in run("pipe.sh", status=2)[0]


# --- the notebook --------------------------------------------------------------------------------


def test_notebook_is_stripped_and_compiles() -> None:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text())
    imported = set()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            tree = ast.parse("".join(cell["source"]))
            imported |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert "realtime_sep" in imported


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("nbclient", "ipykernel", "matplotlib")),
    reason="needs nbclient, ipykernel and matplotlib",
)
def test_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    resources = {"metadata": {"path": str(EXAMPLES)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    text = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    assert len(pictures) == 2
    assert number(r"SDR of the voice: ([-\d.]+) dB", text) > 5
