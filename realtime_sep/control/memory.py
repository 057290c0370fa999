"""What the desk remembers from one evening to the next, by device; and its token."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs


def state_dir() -> Path:
    """Where programs of this user keep what they remember."""
    return Path(platformdirs.user_state_dir("realtime-sep"))


@dataclass(frozen=True)
class Left:
    """How a device was left.

    Attributes:
        model: by name; None: nobody knows.
        values: of parameters.
        chains: of effects, by place, as text.
    """

    model: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    chains: Mapping[str, str] = field(default_factory=dict)


class Memory:
    """What each device was left with.  Damaged or unwritable, it is merely empty."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = state_dir() / "desk.json" if path is None else path

    def recall(self, device: str) -> Left:
        """What this device was left with."""
        entry = self._read().get(device)
        if not isinstance(entry, dict) or not isinstance(entry.get("values"), dict):
            return Left()
        values = {
            name: -math.inf if value is None else float(value)
            for name, value in entry["values"].items()
            if value is None or isinstance(value, int | float)
        }
        model, chains = entry.get("model"), entry.get("chains")
        return Left(
            model if isinstance(model, str) else None,
            values,
            {
                place: text
                for place, text in (chains if isinstance(chains, dict) else {}).items()
                if isinstance(text, str)
            },
        )

    def keep(self, device: str, left: Left) -> None:
        """Remember it; silently not, where nothing can be written."""
        entries = self._read()
        plain = {n: value if math.isfinite(value) else None for n, value in left.values.items()}
        entries[device] = {"model": left.model, "values": plain, "chains": dict(left.chains)}
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(entries, indent=1), encoding="utf-8")
            temporary.replace(self.path)
        except OSError:
            temporary.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def token() -> str:
    """The secret that another machine must show; made when it is first asked for.

    Raises:
        OSError: it can neither be read nor kept.
    """
    path = state_dir() / "token"
    try:
        known = path.read_text(encoding="ascii").strip()
        if len(known) >= 22:
            return known
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    made = secrets.token_urlsafe(24)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(made + "\n")
    return made
