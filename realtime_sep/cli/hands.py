"""What keys do to a stream while it plays in a terminal."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from realtime_sep.errors import RealtimeSepError, UsageError
from realtime_sep.parameters import LOUDEST_DB, MICROPHONE

if TYPE_CHECKING:
    from realtime_sep.control.recorder import Recorder
    from realtime_sep.stream import Stream

#: What a key moves a fader by, and where it ends at the bottom.
_STEP_DB = 2.0
_OFF_BELOW_DB = -42.0


class Hands:
    """Moves the faders of a stream, bypasses, records, and changes its model, by single keys.

    Args:
        buses: what is recorded; empty: the output.

    Raises:
        UsageError: the stream has no such bus.
    """

    HINT = "v V voice  m M music  k K mic  i mutes it  b bypass  r record  n next model  q ends"

    def __init__(self, stream: Stream, buses: Sequence[str] = ()) -> None:
        if buses:
            from realtime_sep.control import recorder

            known = recorder.buses(stream.info.stems, stream.buses_beside)
            recorder.check_buses(buses, known)
        self._stream, self._buses = stream, buses
        self._lines: deque[str] = deque()
        self._recorder: Recorder | None = None
        self._tape: threading.Thread | None = None
        self._model = ""

    def press(self, keys: str) -> None:
        """Do what these keys mean; others mean nothing."""
        for key in keys:
            try:
                self._press(key)
            except RealtimeSepError as error:
                self._lines.append(str(error))

    def _press(self, key: str) -> None:
        match key:
            case "k" | "K" | "i" if MICROPHONE not in self._stream.values:
                raise UsageError("there is no microphone; see --mic")
            case "k" | "K":
                self._move(MICROPHONE, _STEP_DB if key.isupper() else -_STEP_DB)
            case "i":
                self._stream.set("mic.mute", 1 - self._stream.values["mic.mute"])
            case "v" | "V" | "m" | "M":
                name = "vocals" if key.lower() == "v" else "music"
                self._move(name, _STEP_DB if key.isupper() else -_STEP_DB)
            case "b":
                self._stream.set("bypass", 1 - self._stream.values["bypass"])
            case "r":
                self._record()
            case "n":
                self._next_model()

    def _move(self, name: str, step: float) -> None:
        level = max(self._stream.values[name], _OFF_BELOW_DB) + step
        if level <= _OFF_BELOW_DB:
            level = -math.inf
        self._stream.set(name, min(level, LOUDEST_DB))

    def _record(self) -> None:
        from realtime_sep.control.recorder import OUTPUT, Recorder

        if self._recorder is None:
            self._recorder = Recorder(tell=self._lines.append)
        if self._recorder.recording is not None:
            self.stop()
            return
        stream = self._stream
        self._recorder.start(self._buses or [OUTPUT], stream.info, beside=stream.buses_beside)
        self._tape = threading.Thread(
            target=self._roll, args=(self._recorder,), name="realtime_sep tape", daemon=True
        )
        self._tape.start()

    def _roll(self, recorder: Recorder) -> None:
        try:
            for block in self._stream.blocks():
                recorder.write(block)
                if recorder.recording is None:
                    return
        except RealtimeSepError:
            pass  # the other thread meets it as well, and tells

    def told(self) -> list[str]:
        """Lines for people since the last call."""
        return [self._lines.popleft() for _ in range(len(self._lines))]

    def stop(self) -> None:
        """Complete what is being recorded, and say where it is."""
        if self._recorder is not None and (done := self._recorder.stop()) is not None:
            files = ", ".join(map(str, done.files.values()))
            self._lines.append(f"recorded {done.seconds:.1f} s: {files}")
        if self._tape is not None:
            self._tape.join(1)
            self._tape = None

    def _next_model(self) -> None:
        from realtime_sep.plugins import available_separators

        names = available_separators()
        now = self._model or self._stream.info.name
        self._model = names[(names.index(now) + 1) % len(names)] if now in names else names[0]
        self._stream.switch(self._model)

    def __str__(self) -> str:
        values = self._stream.values
        faders = [
            f"{name} {values[name]:+.0f} dB" if math.isfinite(values[name]) else f"{name} off"
            for name in ("vocals", "music", MICROPHONE)
            if name in values
        ]
        signs = ["BYPASS"] if values["bypass"] else []
        if values.get("mic.mute"):
            signs.append("MIC MUTED")
        if self._recorder is not None and (now := self._recorder.recording) is not None:
            signs.append(f"REC {now.seconds:.0f} s")
        if self._stream.switching:
            signs.append(f"loading {self._model}")
        return "   ".join([*faders, *signs])
