"""`--chain` as people type it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from realtime_sep.cli.common import chains
from realtime_sep.errors import UsageError

from .conftest import Cli


def test_places_and_texts() -> None:
    assert chains(["highpass:f=90|gain"]) == {"mix": "highpass:f=90|gain"}
    assert chains(["vocals=gate", "gain:db=-3"], {"mix": "echo", "drums": "gate"}) == {
        "mix": "gain:db=-3",
        "vocals": "gate",
        "drums": "gate",
    }
    assert chains(None) == {}
    with pytest.raises(UsageError, match="two chains for mix"):
        chains(["gain", "mix=echo"])
    with pytest.raises(UsageError, match="is no effect"):
        chains(["mix=gain||echo"])


def test_a_typo_is_one_line(process: Cli) -> None:
    done = process("live", "--input", "null", "--seconds", "1", "--chain", "gain:dd=3")
    assert done.returncode != 0
    assert "did you mean 'db'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_files_pass_chains_in_time(cli: Cli, tmp_path: Path) -> None:
    """The key change's 4096 frames of latency are gone, and so is nothing else."""
    rng = np.random.default_rng(0)
    audio = rng.uniform(-0.2, 0.2, (30000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", audio, 44100, "FLOAT")
    arguments = ("--model", "identity", "--chain", "accompaniment=pitch|gain:db=-6")
    for more, name, gain in ((("--chain", "gain:db=6"), "mix", 1.0), (("--stems",), "", 0.5)):
        levels = ("--stem", "vocals=off") if name else ()
        done = cli("separate", str(tmp_path / "a.wav"), *arguments, *more, *levels)
        assert done.returncode == 0, done.stderr
        made, _ = soundfile.read(tmp_path / f"a.{name or 'accompaniment'}.wav", dtype="float32")
        assert made.shape == audio.shape
        # What `identity` takes for accompaniment, through the gains.
        wanted = audio * np.float32(10 ** ((0 if gain == 1.0 else -6) / 20))
        if np.abs(made).max() > 0:
            np.testing.assert_allclose(made[2000:-2000], wanted[2000:-2000], atol=2e-3)
