"""A backend for mido without hardware: tests put messages into `callbacks`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mido

NAMES = ["Other Keys 20:0", "Stage Pad 24:0"]
callbacks: dict[str, Callable[[Any], None]] = {}


def get_devices(**_: Any) -> list[dict[str, Any]]:
    return [{"name": name, "is_input": True, "is_output": False} for name in NAMES]


class Input(mido.ports.BaseInput):
    def _open(self, callback: Callable[[Any], None] | None = None, **_: Any) -> None:
        assert self.name is not None
        assert callback is not None
        callbacks[self.name] = callback

    def _receive(self, block: bool = True) -> None:
        return None
