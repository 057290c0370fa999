"""One description of everything that can be turned, and what it means in gains."""

from __future__ import annotations

import math

import pytest

from realtime_sep.errors import UsageError
from realtime_sep.parameters import Settings, parameters

TWO = ("vocals", "accompaniment")
FOUR = ("vocals", "drums", "bass", "other")


def gains(stems: tuple[str, ...] = TWO, **values: float) -> list[float]:
    settings = Settings(stems)
    for name, value in values.items():
        settings.set(name.replace("_", "."), value)
    return [round(20 * math.log10(g), 3) if g else -math.inf for g in settings.gains().stems]


def test_defaults_change_nothing() -> None:
    settings = Settings(FOUR)
    result = settings.gains()
    assert (result.stems, result.wet, result.bypass, result.master) == ((1,) * 4, 1, False, 1)
    for name, parameter in parameters(FOUR).items():
        assert parameter.name == name
        assert parameter.checked(parameter.default) == parameter.default
        assert parameter.label


def test_music_is_everything_but_the_vocals() -> None:
    assert gains(FOUR, music=-6) == [0, -6, -6, -6]
    assert gains(FOUR, music=-6, bass=-3) == [0, -6, -9, -6]
    assert gains(FOUR, vocals=-math.inf) == [-math.inf, 0, 0, 0]
    assert gains(FOUR, music=-math.inf, bass=6) == [0, *[-math.inf] * 3]


def test_solo_and_mute() -> None:
    off = -math.inf
    assert gains(vocals_solo=1) == [0, off]
    assert gains(music_solo=1, music=-3) == [off, -3]
    assert gains(vocals_solo=1, music_solo=1) == [0, 0]
    assert gains(vocals_mute=1) == [off, 0]
    assert gains(vocals_mute=1, vocals_solo=1) == [off, off], "mute wins"
    assert gains(FOUR, drums_solo=1) == [off, 0, off, off]
    assert gains(FOUR, music_solo=1, bass_mute=1) == [off, 0, off, 0]


def test_what_is_heard_in_the_end() -> None:
    settings = Settings(TWO)
    settings.set("vocals", -math.inf)
    assert settings.gains().heard == (0, 1)
    settings.set("wet", 0.75)
    assert settings.gains().heard == (0.25, 1)
    settings.set("master", -20)
    assert settings.gains().heard == pytest.approx((0.025, 0.1))
    settings.set("bypass", True)
    assert settings.gains().heard == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vocal", 0, "did you mean 'vocals'"),
        ("vocals", 7, "vocals goes from off to \\+6 dB, not to 7"),
        ("vocals", math.nan, "not to nan"),
        ("vocals", math.inf, "not to inf"),
        ("wet", -math.inf, "wet goes from 0 to \\+1, not to -inf"),
        ("bypass", 0.5, "on or off"),
        ("vocals", "loud", "is a number"),
        ("vocals", "3", "is a number"),
        ("vocals", None, "is a number"),
        ("vocals", [1], "is a number"),
    ],
)
def test_what_cannot_be_changes_nothing(name: str, value: object, message: str) -> None:
    settings = Settings(TWO)
    before = dict(settings.values)
    with pytest.raises(UsageError, match=message) as caught:
        settings.set(name, value)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert settings.values == before
