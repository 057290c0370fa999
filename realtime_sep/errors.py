"""One family of errors.  Each message is one line: what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RealtimeSepError(Exception):
    """Base of everything that this package raises on purpose."""


class UsageError(RealtimeSepError, ValueError):
    """The caller asked for something that cannot be: a bad value, an unknown name."""


class AudioFileError(RealtimeSepError):
    """A file cannot be read or written as audio."""


class RelayError(RealtimeSepError):
    """A stream cannot be reached, read or written."""


class DeviceError(RealtimeSepError):
    """A device cannot be opened, or has gone away."""


class SampleRateError(DeviceError):
    """A device is there, but not at a sample rate that the stream can run at."""


class ModelError(RealtimeSepError):
    """A model is missing, damaged, foreign, or not what its metadata says."""


class EngineError(RealtimeSepError):
    """The live engine stopped or could not start."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist, with the nearest that does."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return UsageError(f"unknown {kind} {name!r}; {hint}")
