"""Open Sound Control."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from realtime_sep.control.osc import command
from realtime_sep.errors import UsageError

from .conftest import start_desk, stop_desk


@pytest.mark.parametrize(
    ("address", "argument", "expected"),
    [
        ("/set/vocals", -12.0, {"type": "set", "name": "vocals", "value": -12.0}),
        ("/vocals", "off", {"type": "set", "name": "vocals", "value": None}),
        ("/music", -math.inf, {"type": "set", "name": "music", "value": None}),
        ("/vocals/mute", 1, {"type": "set", "name": "vocals.mute", "value": 1}),
        ("/pitch/semitones", 2, {"type": "set", "name": "pitch.semitones", "value": 2}),
        ("/preset", "karaoke", {"type": "preset", "name": "karaoke"}),
        ("/model", "center", {"type": "model", "name": "center"}),
        ("/record", 0, {"type": "record", "on": False}),
    ],
)
def test_what_messages_mean(address: str, argument: Any, expected: dict[str, Any]) -> None:
    assert command(address, (argument,)) == expected


def test_one_argument() -> None:
    for arguments in ((), (1, 2)):
        with pytest.raises(UsageError, match="one argument"):
            command("/vocals", arguments)


@pytest.mark.slow
def test_a_fader_of_another_program_moves_ours(tmp_path: Path) -> None:
    client = pytest.importorskip("pythonosc.udp_client")
    made = start_desk(tmp_path, "--model", "identity", "--osc", "0")
    try:
        assert made.process.stdout is not None
        port = int(made.process.stdout.readline().rsplit(" ", 1)[1])
        made.until(lambda state: state["running"])
        remote = client.SimpleUDPClient("127.0.0.1", port)
        remote.send_message("/vocals", -12.0)
        remote.send_message("/bypass", 1)
        made.until(
            lambda state: state["values"]["vocals"] == -12 and state["values"]["bypass"] == 1
        )
        for _ in range(20):
            remote.send_message("/vocal", 3.0)
        state = made.until(lambda state: bool(state["notices"]))
        assert [n["text"] for n in state["notices"]] == [
            "OSC /vocal: unknown parameter 'vocal'; did you mean 'vocals'?"
        ]
    finally:
        stop_desk(made)
