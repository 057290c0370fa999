"""`--mic` and `--monitor`, without hardware."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from realtime_sep.cli.beside import channel_numbers
from realtime_sep.companion import second_devices, spread
from realtime_sep.errors import UsageError
from realtime_sep.io.feedback import singing
from realtime_sep.io.null import NullSpec


def test_second_devices_are_played_and_told(process: Callable[..., Any]) -> None:
    done = process(
        *("live", "--input", "null", "--model", "identity", "--seconds", "1", "--json"),
        *("--mic", "null", "--monitor", "null"),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["mic"]["separator"] == 0 < told["mic"]["clock"]
    assert told["monitor"]["clock"] > 0
    assert told["stats"]["microphone"]["there"]
    assert told["stats"]["monitor"]["there"]


def test_what_the_words_mean() -> None:
    assert second_devices(None, (), None).config == {"outputs": ("mix",)}
    main = second_devices("main", channel_numbers("main", "3, 4"), "main", outputs=("mix", "*"))
    assert main.config == {"outputs": ("mix", "monitor", "*"), "microphone": (3, 4)}
    assert not main.options
    assert second_devices("main", (), None).config["microphone"] == (3,)
    own = second_devices("null", channel_numbers("null", "2"), "null").options
    assert own["microphone"].channels == (2,)
    assert isinstance(own["monitor"].spec, NullSpec)
    assert spread((), 2) == spread((1,), 2) == (0, 0)
    assert spread((4, 2), 2) == (3, 1)


@pytest.mark.parametrize(
    ("mic", "channels", "word"),
    [(None, "3", "needs --mic"), ("null", "0", "one channel or two"), ("null", "x", "like 3")],
)
def test_nonsense(mic: str | None, channels: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        channel_numbers(mic, channels)


def test_a_microphone_that_hears_loudspeakers() -> None:
    song = "Music Player ▶ Built-in Audio (ALSA, 48000 Hz)"
    assert singing("Webcam (ALSA, 48000 Hz)", song)
    assert not singing("Webcam (ALSA, 48000 Hz)", "Music ▶ USB Headset (ALSA, 48000 Hz)")
    assert not singing("null device, clocked, 48000 Hz", song)
