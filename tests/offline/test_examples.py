"""The song is what it says, and the demo does what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def song():  # type: ignore[no-untyped-def]
    sys.path.insert(0, str(EXAMPLES))
    try:
        from song import render_song
    finally:
        sys.path.remove(str(EXAMPLES))
    return render_song


def test_the_song(song) -> None:  # type: ignore[no-untyped-def]
    made = song()
    assert len(made.mix) >= 20 * made.samplerate
    assert made.mix.dtype == np.float32
    np.testing.assert_array_equal(made.mix, made.vocals + made.accompaniment)
    assert 20 * np.log10(np.abs(made.mix).max()) == pytest.approx(-3, abs=0.01)
    # The voice is in the centre, the band is wide, and neither drowns the other.
    np.testing.assert_array_equal(made.vocals[:, 0], made.vocals[:, 1])
    side = made.accompaniment[:, 0] - made.accompaniment[:, 1]
    assert np.mean(side**2) > 0.05 * np.mean(made.accompaniment**2)
    assert 0.5 < np.mean(made.vocals**2) / np.mean(made.accompaniment**2) < 2


def test_the_song_is_always_the_same(song) -> None:  # type: ignore[no-untyped-def]
    np.testing.assert_array_equal(song(5.0).mix, song(5.0).mix)
    assert len(song(1.5).mix) == round(1.5 * 44100)


def test_the_demo(song, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    made = song(6.0)
    soundfile.write(tmp_path / "my song.flac", made.mix, made.samplerate)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py"), "my song.flac"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    frames = dict(re.findall(r"^(latency|measured latency) +(\d+) frames", done.stdout, re.M))
    assert frames["latency"] == frames["measured latency"]
    for name in ("karaoke", "vocals"):
        assert soundfile.info(tmp_path / "out" / f"{name}.wav").frames == len(made.mix)


def test_the_demo_says_what_is_wrong(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py"), "missing.mp3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == "demo: missing.mp3: no such file; check the name\n"
