"""LADSPA plugins of our own, compiled for the tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from realtime_sep.effects import Effect
from realtime_sep.types import Float32

HERE = Path(__file__).parent
RATE = 48000
BLOCK = 128


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with the plugins of plugins.c."""
    return _compiled(tmp_path_factory.mktemp("ladspa") / "ours.so")


@pytest.fixture(scope="session")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that crashes whoever opens it."""
    return _compiled(tmp_path_factory.mktemp("ladspa") / "crashes.so", "-DCRASHES")


def _compiled(path: Path, *flags: str) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    words = ["cc", "-shared", "-fPIC", "-O1", *flags, "-o", path, HERE / "plugins.c", "-lm"]
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if "ladspa.h" in done.stderr:
        pytest.skip("ladspa.h is not installed (ladspa-sdk)")
    assert done.returncode == 0, done.stderr
    return path


def noise(frames: int, channels: int = 2) -> Float32:
    rng = np.random.default_rng(0)
    return rng.uniform(-0.5, 0.5, (frames, channels)).astype(np.float32)


def run(effect: Effect, audio: Float32, blocks: tuple[int, ...] = (BLOCK,)) -> Float32:
    out, start, i = audio.copy(), 0, 0
    while start < len(out):
        effect.process(out[start : start + blocks[i % len(blocks)]])
        start += blocks[i % len(blocks)]
        i += 1
    return out
