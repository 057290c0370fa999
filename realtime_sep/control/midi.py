"""MIDI: knobs and faders of a controller turn what they have learned to turn.

Learning: the page (or a script) names a parameter, the next control that is moved is it, and stays
it until it learns another one.  What was learned is kept by the name of the controller.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from realtime_sep.control.desk import Desk
from realtime_sep.control.memory import state_dir
from realtime_sep.errors import RealtimeSepError, UsageError, unknown
from realtime_sep.parameters import Parameter

#: dB at the lowest step of a control that is not silence; the highest is the fader's own end.
_SOFTEST_DB = -42.0


def value_of(parameter: Parameter, control: int) -> float:
    """What a control's 0..127 means for a parameter."""
    if parameter.kind == "switch":
        return float(control >= 64)
    low = _SOFTEST_DB if parameter.kind == "level" else parameter.minimum
    if parameter.kind == "level" and control == 0:
        return -math.inf
    return low + (parameter.maximum - low) * control / 127


class Midi:
    """Listens to one controller, in a thread of its driver's.

    Args:
        name: of an input, or part of it.
        path: where to keep what was learned.

    Raises:
        UsageError: mido or its driver is missing, or there is no such input.
    """

    def __init__(self, desk: Desk, name: str, path: Path | None = None) -> None:
        try:
            import mido

            names = list(dict.fromkeys(mido.get_input_names()))
        except ImportError as error:
            raise UsageError(f"MIDI needs pip install 'realtime-sep[midi]' ({error})") from error
        except Exception as error:  # the driver's own
            raise UsageError(f"MIDI is not there: {' '.join(str(error).split())}") from error
        found = [known for known in names if name.lower() in known.lower()]
        if not found:
            raise unknown("MIDI input", name, names)
        self.name = found[0]
        self._desk = desk
        self._path = state_dir() / "midi.json" if path is None else path
        self._learned = self._read().get(self.name, {})
        self._learning: str | None = None
        self._port: Any = mido.open_input(self.name, callback=self.take)

    def learn(self, name: str) -> None:
        """The next control that is moved turns this parameter.

        Raises:
            UsageError: there is no such parameter.
        """
        known = self._desk.parameters
        if name not in known:
            raise unknown("parameter", name, known)
        self._learning = name

    def take(self, message: Any) -> None:
        """A message of the controller."""
        if message.type != "control_change":
            return
        key = f"{message.channel}/{message.control}"
        if self._learning is not None:
            self._learned[key], self._learning = self._learning, None
            self._keep()
            self._desk.tell(f"MIDI control {key} turns {self._learned[key]}")
        parameter = self._desk.parameters.get(self._learned.get(key, ""))
        if parameter is None:
            return
        value = value_of(parameter, message.value)
        try:
            self._desk.command({"type": "set", "name": parameter.name, "value": value})
        except RealtimeSepError as error:
            self._desk.tell(f"MIDI: {error}")

    def close(self) -> None:
        self._port.close()

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(k): {str(a): str(b) for a, b in v.items()} for k, v in known.items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def _keep(self) -> None:
        everything = {**self._read(), self.name: self._learned}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(everything, indent=1), encoding="utf-8")
        except OSError as error:
            self._desk.tell(f"what MIDI has learned cannot be kept: {error.strerror}")
