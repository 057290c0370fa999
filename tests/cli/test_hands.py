"""Keys of `live`, and its presets."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from realtime_sep.cli.hands import Hands
from realtime_sep.control import recorder
from realtime_sep.errors import UsageError
from realtime_sep.io.null import NullSpec
from realtime_sep.stream import open_stream
from realtime_sep.types import StreamConfig

from .conftest import Cli


def test_keys_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "recordings", lambda: tmp_path)
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (48000, 2)).astype(np.float32)
    with open_stream(
        "identity",
        backend=NullSpec(noise, loop=True),
        config=StreamConfig(samplerate=48000),
        vocals=-math.inf,
        process=False,
    ) as stream:
        hands = Hands(stream)
        assert "vocals off" in str(hands)
        hands.press("VVm?")
        assert (stream.values["vocals"], stream.values["music"]) == (-38, -2)
        hands.press("v" * 9)
        assert stream.values["vocals"] == -math.inf
        hands.press("M" * 9)
        assert stream.values["music"] == 6
        hands.press("b")
        assert stream.values["bypass"] == 1
        assert "BYPASS" in str(hands)
        hands.press("br")
        assert stream.values["bypass"] == 0
        deadline = time.monotonic() + 20
        while "REC 2 s" not in str(hands):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        hands.press("r")
        assert "REC" not in str(hands)
        (line,) = hands.told()
        (file,) = tmp_path.iterdir()
        assert str(file) in line
        audio, rate = soundfile.read(file)
        assert rate == 48000
        assert len(audio) > 0.8 * rate
        assert np.abs(audio).max() > 0.3
        hands.press("n")
        assert "loading" in str(hands)
        while stream.switching:
            assert time.monotonic() < deadline + 60
            time.sleep(0.02)
        assert stream.info.name != "identity"
        assert hands.told() == []


def test_what_a_key_records_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "recordings", lambda: tmp_path)
    source = np.random.default_rng(0).uniform(-0.2, 0.2, (48000, 3)).astype(np.float32)
    with open_stream(
        "identity",
        backend=NullSpec(source, loop=True),
        config=StreamConfig(samplerate=48000, microphone=(3,)),
        process=False,
    ) as stream:
        with pytest.raises(UsageError, match="unknown bus 'monitor'"):
            Hands(stream, ["mic", "monitor"])
        hands = Hands(stream, ["mic", "output"])
        hands.press("r")
        deadline = time.monotonic() + 20
        while "REC 1 s" not in str(hands):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        hands.press("r")
    assert sorted(path.stem.split()[-1] for path in tmp_path.iterdir()) == ["mic", "output"]


def test_a_preset_sets_the_faders_and_options_win(process: Cli) -> None:
    done = process("live", "--input", "null", "--preset", "practise", "--seconds", "0.2")
    assert done.returncode == 2
    assert done.stderr.startswith("realtime-sep: unknown preset")
    assert "did you mean 'practice'" in done.stderr
    good = process(
        *("live", "--input", "null", "--preset", "practice", "--model", "identity", "--json"),
        *("--seconds", "0.2"),
    )
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["separator"]["name"] == "identity"
