"""MIDI learn, without a controller."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from realtime_sep.control.midi import Midi, value_of
from realtime_sep.errors import UsageError
from realtime_sep.parameters import parameters

mido = pytest.importorskip("mido")


class Told:
    """As much of a desk as MIDI needs."""

    def __init__(self) -> None:
        self.parameters = parameters(("vocals", "accompaniment"))
        self.commands: list[Any] = []
        self.lines: list[str] = []

    def command(self, message: Any) -> dict[str, Any]:
        self.commands.append((message["name"], message["value"]))
        return {}

    def tell(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def backend() -> Any:
    before = mido.backend
    mido.set_backend(f"{__package__}.midi_backend")
    from . import midi_backend

    yield midi_backend
    mido.set_backend(before)


def test_what_a_control_means() -> None:
    known = parameters(())
    assert value_of(known["vocals"], 0) == -math.inf
    assert value_of(known["vocals"], 127) == 6
    assert value_of(known["vocals"], 111) == pytest.approx(0, abs=0.2)
    assert [value_of(known["bypass"], v) for v in (0, 63, 64, 127)] == [0, 0, 1, 1]
    assert [value_of(known["wet"], v) for v in (0, 127)] == [0, 1]
    for parameter in known.values():
        for control in range(128):
            parameter.checked(value_of(parameter, control))


def test_learning_and_turning(backend: Any, tmp_path: Path) -> None:
    desk, path = Told(), tmp_path / "state" / "midi.json"
    midi = Midi(desk, "stage pad", path)  # type: ignore[arg-type]
    send = backend.callbacks["Stage Pad 24:0"]

    def move(control: int, value: int) -> None:
        send(mido.Message("control_change", channel=2, control=control, value=value))

    move(7, 100)
    assert desk.commands == [], "nothing was learned yet"
    with pytest.raises(UsageError, match="did you mean 'vocals'"):
        midi.learn("vocal")
    midi.learn("vocals")
    send(mido.Message("note_on", note=60))
    move(7, 127)
    move(8, 3)
    move(7, 0)
    assert desk.commands == [("vocals", 6), ("vocals", -math.inf)]
    assert desk.lines == ["MIDI control 2/7 turns vocals"]
    midi.learn("bypass")
    move(7, 127)
    assert desk.commands[-1] == ("bypass", 1)
    midi.close()
    # The next evening.
    again = Told()
    Midi(again, "pad", path)  # type: ignore[arg-type]
    backend.callbacks["Stage Pad 24:0"](
        mido.Message("control_change", channel=2, control=7, value=1)
    )
    assert again.commands == [("bypass", 0)]


def test_an_input_that_is_not_there(backend: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown MIDI input 'drum'"):
        Midi(Told(), "drum", tmp_path / "midi.json")  # type: ignore[arg-type]
