"""The package in examples/, installed as anybody would, in a process that has never seen it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from realtime_sep.testing import EffectConformance, SeparatorConformance

ROOT = Path(__file__).parents[2]

SCRIPT = """
import json
import numpy as np
import realtime_sep, stage_tricks
from realtime_sep import Engine, UsageError, load_effect, load_separator

separator = load_separator("band-center", samplerate=48000, low=300)
tremolo = load_effect("tremolo", rate=10, depth=1)
stems = Engine(separator, outputs=("vocals", "accompaniment"), limiter=False)

def run(engine, audio):
    hops = audio.reshape(-1, engine.hop, 2)
    out = np.empty((len(hops), engine.hop, engine.out_channels), np.float32)
    for hop, result in zip(hops, out):
        engine.process(hop, result)
    return out.reshape(len(audio), -1)

time = np.arange(48128) / 48000
voice = 0.3 * np.sin(2 * np.pi * 1000 * time)
audio = np.stack([voice, voice], axis=1).astype(np.float32)
bass = 0.3 * np.sin(2 * np.pi * 40 * time)
out = run(stems, audio + np.stack([bass, bass], axis=1).astype(np.float32))
total = out[:, :2] + out[:, 2:]
expected = audio + np.stack([bass, bass], axis=1).astype(np.float32)
spectrum = np.abs(np.fft.rfft(out[-48000:, 0]))

mixed = run(Engine(load_separator("band-center", samplerate=48000), effects=[tremolo]), audio)
level = np.abs(mixed[-48000:, 0]).reshape(-1, 48).max(axis=1)
beat = np.abs(np.fft.rfft(level - level.mean()))
try:
    load_effect("tremolo", depth=3)
    refused = ""
except UsageError as error:
    refused = str(error)
print(json.dumps({
    "from": stage_tricks.__file__,
    "separators": realtime_sep.available_separators(),
    "effects": realtime_sep.available_effects(),
    "sum": float(np.abs(total - expected).max()),
    "voice": float(spectrum[1000] / spectrum[40]),
    "swing": [float(level.min()), float(level.max())],
    "beat": int(beat.argmax()),
    "refused": refused,
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", reason="builds the example package without a download")
    folder = tmp_path_factory.mktemp("plugin")
    # Building leaves things beside the source; not in the repository.
    source, target = folder / "source", folder / "target"
    shutil.copytree(
        ROOT / "examples" / "plugin_template",
        source,
        ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"),
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)),
            str(source),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return target


def test_both_plugins_run_in_the_engine(installed: Path) -> None:
    paths = [str(installed), str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=installed,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert Path(report["from"]).parent == installed
    assert {"band-center", "center"} <= set(report["separators"])
    assert {"tremolo", "gain"} <= set(report["effects"])
    assert report["sum"] <= 1e-6
    assert report["voice"] > 5, "the voice is there, the bass is not"
    low, high = report["swing"]
    assert low < 0.02
    assert high > 0.28
    assert report["beat"] == 10
    assert "depth goes from 0 to +1" in report["refused"]


def test_its_own_tests_pass_and_are_all_of_the_kit(installed: Path) -> None:
    """As whoever copies it would run them."""
    tests = ROOT / "examples" / "plugin_template" / "tests"
    paths = [str(installed), str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull),
            *("--rootdir", str(installed), str(tests)),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=installed,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    assert done.returncode == 0, done.stdout
    checks = [
        name
        for suite in (EffectConformance, SeparatorConformance)
        for name in dir(suite)
        if name.startswith("test_")
    ]
    assert f"{len(checks) + 1} passed" in done.stdout


def test_it_is_as_short_as_it_says() -> None:
    code = (ROOT / "examples" / "plugin_template" / "stage_tricks.py").read_text()
    assert len([line for line in code.splitlines() if line.strip()]) <= 60


def test_the_readme_names_what_is_there() -> None:
    package = ROOT / "examples" / "plugin_template"
    readme = (package / "README.md").read_text()
    entry_points = (package / "pyproject.toml").read_text()
    for name in ("band-center", "tremolo"):
        assert name in readme
        assert name in entry_points
    for path in ("realtime_sep/separators/protocol.py", "realtime_sep/effects/protocol.py"):
        assert path in readme
        assert (ROOT / path).is_file()
