"""What `realtime-sep models import NAME` asks of an importer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from realtime_sep.errors import ModelError, UsageError, unknown
from realtime_sep.models.registry import ModelEntry


class Progress(Protocol):
    """Told how far an import is."""

    def __call__(self, step: str, part: float) -> None:
        """`part` of `step` is done, 0..1."""
        ...


def silent(step: str, part: float) -> None:
    """No progress bar."""


def declined(question: str) -> bool:
    """Nobody is there to be asked."""
    return False


@dataclass(frozen=True)
class Request:
    """What to import.

    Attributes:
        source: what follows the importer's name: a file, a folder, an address, or the name of known
            weights; None: the importer's own choice.
        settings: further settings by name, as typed.
        describe: a file that describes the model.
        agreed: asks whether a licence is agreed to, before anything is downloaded.
        progress: told how far it is.
    """

    source: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    describe: Path | None = None
    agreed: Callable[[str], bool] = declined
    progress: Progress = silent

    def check(self, *known: str) -> None:
        """Refuse settings that the importer does not have.

        Raises:
            UsageError: the nearest one is suggested.
        """
        for name in self.settings:
            if name not in known:
                raise unknown("setting", name, known)

    def path(self, what: str) -> Path:
        """The file that `source` is.

        Raises:
            UsageError: none was given.
        """
        if self.source is None:
            raise UsageError(f"say which {what} to import, after the importer's name")
        return Path(self.source)

    def agree(self, name: str, licence: str, remark: str = "") -> None:
        """Show a licence and go on only if it is agreed to.

        Raises:
            ModelError: it is not.
        """
        if not self.agreed(f"{name} is licensed under {licence}. {remark}".strip()):
            raise ModelError(
                f"{name} is licensed under {licence}; agree with --accept-licence to download it"
            )


class Importer(Protocol):
    """Brings one model into the user's folder."""

    def __call__(self, request: Request) -> ModelEntry:
        """Import.

        Raises:
            UsageError: a setting or source that makes no sense.
            ModelError: one line: what could not be had, or is not what it should be.
        """
        ...
