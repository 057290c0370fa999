"""Another separator for a running stream: loaded beside it, in a thread of its own.

Reading a file, building a network and compiling take seconds; the worker only ever takes over what
is ready.  The thread runs at the lowest real-time priority and not at an ordinary one: at times it
holds the interpreter lock, and must not be taken off its core then by what is not urgent.
"""

from __future__ import annotations

import threading
import time

from realtime_sep import native
from realtime_sep.errors import EngineError, RealtimeSepError
from realtime_sep.models import registry
from realtime_sep.rig import Plan, Rig

#: Seconds after which a stream that does not move is no longer waited for.
_PATIENCE = 30.0
_LOOK = 0.02


class Switch(threading.Thread):
    """One switch of one rig.

    Attributes:
        plan: what runs then.
        number: of the wish.
        failure: why the old separator goes on; None if the new one has taken over.
    """

    def __init__(self, plan: Plan, number: int, rig: Rig) -> None:
        super().__init__(name="realtime_sep switch", daemon=True)
        self.plan, self.number, self._rig = plan, number, rig
        self.failure: RealtimeSepError | None = None
        self._over = threading.Event()

    def give_up(self) -> None:
        """The stream ends; nothing is waited for any more."""
        self._over.set()

    def run(self) -> None:
        if self.plan.config.realtime:
            native.set_realtime(1)
        native.flush_denormals()
        try:
            self._switch()
        except RealtimeSepError as error:
            self.failure = error
        except Exception as error:  # a plugin
            self.failure = EngineError(f"{self.plan.separator!r} cannot be loaded: {error!r}")

    def _switch(self) -> None:
        name, profile = self.plan.separator, self.plan.options.get("profile")
        if isinstance(name, str) and not self._rig.keeps(self.plan):
            registry.foresee(name, profile)
        strand = self._rig.prepare(self.plan)
        if self._over.is_set():
            strand.close()
            return
        self._rig.switch(strand)
        deadline = time.monotonic() + _PATIENCE
        while self._rig.switching and not self._over.is_set():
            if time.monotonic() > deadline:
                raise EngineError("the stream stands still; the new model waits for it")
            time.sleep(_LOOK)
        self._rig.switched()
