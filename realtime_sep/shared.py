"""Fixed records in memory that processes share: the statistics out, the parameters in.

A record is one numpy structured scalar on top of a `multiprocessing` array, so it travels to a
spawned process on every platform.  One side writes, the other reads; a version counter (a seqlock)
lets the reader know that it saw a whole state.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import numpy as np
import numpy.typing as npt

#: Seconds after which a writer that is not done counts as dead: longer than a busy machine lets a
#: live one wait for a processor.
_PATIENCE = 0.25


class SharedRecord:
    """A structured record with one writer and any number of readers.

    Args:
        dtype: a structured dtype; a field `version` is put before its own.
    """

    def __init__(self, dtype: npt.DTypeLike) -> None:
        fields = np.dtype(dtype)
        self._dtype = np.dtype([("version", "u8"), *((n, fields[n]) for n in fields.names or ())])
        self._memory: Any = get_context("spawn").RawArray("B", self._dtype.itemsize)
        self._bind()

    def _bind(self) -> None:
        self.fields: Any = np.frombuffer(self._memory, self._dtype)[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"_dtype": self._dtype, "_memory": self._memory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """The fields, to be written; readers wait until the block ends."""
        self.fields["version"] += 1
        try:
            yield self.fields
        finally:
            self.fields["version"] += 1

    def read(self) -> Any:
        """A consistent copy (the newest possible one if the writer died in the middle)."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            # Read on its own: nobody says in which order a copy takes its bytes.
            version = self.fields["version"]
            copy = self.fields.copy()
            whole = version % 2 == 0 and version == self.fields["version"]
            if whole or time.monotonic() > deadline:
                return copy
            time.sleep(1e-5)
