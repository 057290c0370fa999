"""Presets in TOML, the memory of devices, and the token."""

from __future__ import annotations

import math
import stat
from pathlib import Path

import pytest

from realtime_sep.control.memory import Left, Memory, token
from realtime_sep.control.presets import find, presets
from realtime_sep.errors import UsageError
from realtime_sep.parameters import Settings

NOWHERE = Path("/nonexistent/presets.toml")


def test_what_comes_along() -> None:
    known = presets(NOWHERE)
    assert set(known) == {"karaoke", "practice", "acapella", "instrumental", "stream"}
    assert known["practice"].values["vocals"] == -12
    assert known["karaoke"].values["vocals"] == -math.inf
    assert known["acapella"].values["music"] == -math.inf
    for preset in known.values():
        settings = Settings(("vocals", "accompaniment"))
        for name, value in preset.values.items():
            settings.set(name, value)


def test_the_users_own_win(tmp_path: Path) -> None:
    own = tmp_path / "presets.toml"
    own.write_text(
        '[practice]\ntitle = "Choir"\nvocals = -3.5\nmodel = "unet"\n'
        '[practice.chains]\nmix = "compressor|reverb:mix=0.2"\nmic = "gate"\n'
        "[band]\ndrums = 'off'\nvocals.mute = true\n\"music.solo\" = 1\n"
    )
    known = presets(own)
    assert (known["practice"].title, known["practice"].model) == ("Choir", "unet")
    assert known["practice"].values == {"vocals": -3.5}
    assert known["practice"].chains == {"mix": "compressor|reverb:mix=0.2", "mic": "gate"}
    alone = known["practice"].chains_for(microphone=False, monitor=True)
    assert alone == {"mix": "compressor|reverb:mix=0.2"}
    assert known["band"].values == {"drums": -math.inf, "vocals.mute": 1, "music.solo": 1}
    assert list(known)[-1] == "band"
    assert len(known) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[practice\n", "no TOML"),
        ("[a]\nvocal = 3", r"\[a\]: .*did you mean 'vocals'"),
        ("[a]\nvocals = 40", r"\[a\]: vocals goes from off to \+6 dB, not to 40"),
        ("[a]\nvocals = 'loud'", r"\[a\]: vocals is a number"),
        ("[a]\ntitle = 3", "texts"),
        ("a = 3", "a preset is a table"),
        ("[a]\nvocals = [1]", "is a number"),
        ("[a]\nchains = 'gain'", "a table of texts"),
        ("[a.chains]\nmix = 'gain|'", "is no effect"),
    ],
)
def test_nonsense_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    own = tmp_path / "presets.toml"
    own.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        presets(own)
    assert "\n" not in str(caught.value)
    assert str(own) in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    own = tmp_path / "presets.toml"
    own.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        presets(own)


def test_an_unknown_preset_names_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="did you mean 'karaoke'"):
        find("karoke")


def test_a_device_is_remembered(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "deep" / "desk.json")
    assert memory.recall("speakers") == Left()
    speakers = Left("center", {"vocals": -math.inf, "wet": 0.5}, {"mix": "gain|!echo"})
    headphones = Left("unet", {"vocals": -3.0})
    memory.keep("speakers", speakers)
    memory.keep("headphones", headphones)
    again = Memory(tmp_path / "deep" / "desk.json")
    assert again.recall("speakers") == speakers
    assert again.recall("headphones") == headphones


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 3}', '{"a": {"values": {"x": "y"}}}'])
def test_a_damaged_memory_is_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "desk.json"
    path.write_text(text)
    assert Memory(path).recall("a") == Left()
    Memory(path).keep("a", Left("center"))
    assert Memory(path).recall("a") == Left("center")


def test_the_token_is_made_once_and_for_this_user_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = token()
    assert len(first) >= 22
    assert token() == first
    (path,) = tmp_path.rglob("token")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("short")
    assert token() != first
