"""A change of a chain of a running stream: made beside it, in a thread of its own.

It runs at the lowest real-time priority, for the same reason as `switching` does.
"""

from __future__ import annotations

import threading
import time

from realtime_sep import native
from realtime_sep.errors import EngineError, RealtimeSepError
from realtime_sep.rig import Rig, Wish

#: Seconds after which a stream that does not move is no longer waited for.
_PATIENCE = 30.0
_LOOK = 0.005


class Editing(threading.Thread):
    """One wish for one rig.

    Attributes:
        number: of the wish.
        failure: why nothing has changed; None if it has.
    """

    def __init__(self, wish: Wish, number: int, rig: Rig, realtime: bool) -> None:
        super().__init__(name="realtime_sep editing", daemon=True)
        self.number, self._wish, self._rig, self._realtime = number, wish, rig, realtime
        self.failure: RealtimeSepError | None = None
        self._over = threading.Event()

    def give_up(self) -> None:
        """The stream ends; nothing is waited for any more."""
        self._over.set()

    def run(self) -> None:
        if self._realtime:
            native.set_realtime(1)
        native.flush_denormals()
        try:
            for change in self._rig.changes(self._wish):
                self._rig.edit(change)
                self._wait()
            self._rig.edited()
        except RealtimeSepError as error:
            self.failure = error
        except Exception as error:  # a plugin
            self.failure = EngineError(f"the effects cannot be changed: {error!r}")

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while self._rig.editing and not self._over.is_set():
            if time.monotonic() > deadline:
                raise EngineError("the stream stands still; its effects wait for it")
            time.sleep(_LOOK)
