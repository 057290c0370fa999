"""What `realtime-sep models import NAME` asks of an importer."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from realtime_sep.models.registry import ModelEntry


class Progress(Protocol):
    """Told how far an import is."""

    def __call__(self, step: str, part: float) -> None:
        """`part` of `step` is done, 0..1."""
        ...


class Importer(Protocol):
    """Brings one model into the user's folder."""

    def __call__(self, *, source: Path | None, progress: Progress) -> ModelEntry:
        """Import.

        Args:
            source: a local file to take instead of downloading.

        Raises:
            ModelError: one line: what could not be had, or is not what it should be.
        """
        ...
