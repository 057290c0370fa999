"""A song made of tones and noise, short enough to be scored in no time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from realtime_sep.types import Float32

RATE = 44100


def make_stems(seconds: float = 2.5, seed: int = 0) -> tuple[Float32, Float32]:
    """A voice in the centre that pauses for the first second, and music around it."""
    random = np.random.default_rng(seed)
    frames = int(seconds * RATE)
    time = np.arange(frames) / RATE
    voice = sum(
        np.sin(2 * np.pi * 220 * k * time + 3 * np.sin(2 * np.pi * 5 * time)) for k in (1, 2, 3)
    )
    voice = 0.08 * voice * (time > 1.0)
    music = 0.05 * random.standard_normal((frames, 2))
    return (
        np.repeat(voice[:, np.newaxis], 2, axis=1).astype(np.float32),
        music.astype(np.float32),
    )


def write_song(folder: Path, vocals: Float32, music: Float32, suffix: str = "wav") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stems = {"mixture": vocals + music, "vocals": vocals, "accompaniment": music}
    for name, audio in stems.items():
        subtype = "FLOAT" if suffix == "wav" else "PCM_24"
        with (folder / f"{name}.{suffix}").open("wb") as file:  # its name may be no text
            soundfile.write(file, audio, RATE, subtype=subtype, format=suffix.upper())


@pytest.fixture
def song_folder(tmp_path: Path) -> Path:
    """A directory with one song, "song"."""
    write_song(tmp_path / "songs" / "song", *make_stems())
    return tmp_path / "songs"


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `realtime-sep evaluate` in this process; returns its output."""
    from typer.main import get_command

    from realtime_sep.evaluate.cli import app

    def run(*arguments: str | Path) -> str:
        get_command(app).main([str(a) for a in arguments], standalone_mode=False)
        return capsys.readouterr().out

    return run
