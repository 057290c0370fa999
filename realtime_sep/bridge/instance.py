"""One plugin's engine, as the life of a process of its own.

There is one thread, so nobody shares its interpreter lock: it waits for hops, runs the engine, and
ends when the plugin does.
"""

from __future__ import annotations

import gc
import select
import socket
from collections.abc import Callable
from typing import Any

import numpy as np

from realtime_sep import native
from realtime_sep.bridge.resampled import Resampled
from realtime_sep.bridge.segment import STEMS, Segment, agree, closed, refuse
from realtime_sep.dsp.resample import native_rate
from realtime_sep.engine import Engine
from realtime_sep.errors import EngineError, RealtimeSepError
from realtime_sep.plugins import load_separator
from realtime_sep.separators import Separator
from realtime_sep.separators.adapted import adapted
from realtime_sep.types import Float32

#: Seconds in which a plugin has to say what it wants.
_GREETING = 5.0
#: Milliseconds between looks at a plugin that is silent.
_LOOK = 1000


def serve(link: socket.socket, default: Callable[[], str]) -> None:
    """Serve one plugin until it is gone.

    Args:
        link: a connection that it has just made.
        default: which model to use if it does not say.
    """
    try:
        link.settimeout(_GREETING)
        segment = Segment.receive(link)
        link.settimeout(None)
        service = Service(segment, segment.model or default())
    except RealtimeSepError as error:
        refuse(link, str(error))
        return
    except Exception as error:  # a plugin of ours may raise anything
        refuse(link, f"the engine failed: {error!r}")
        return
    gc.collect()
    gc.freeze()
    gc.disable()
    native.lock_memory()
    native.set_realtime(native.PRIORITY)
    agree(link, service.engine.hop, service.engine.latency)
    service.run(link)


class Service:
    """Engine and rings of one plugin.

    Raises:
        RealtimeSepError: there is no such model, or it cannot run at the plugin's rate.
    """

    def __init__(self, segment: Segment, model: str) -> None:
        self._segment = segment
        self._separator = _load(model, segment.samplerate)
        self._live = hasattr(self._separator, "realtime")
        # Only the buses leave; the plugin's host brings its own limiter, or wants none.
        self.engine = Engine(
            adapted(self._separator, self._separator.info.hop, STEMS),
            outputs=segment.outputs,
            limiter=False,
        )
        if 4 * self.engine.hop > segment.audio.capacity:
            raise EngineError(f"{model!r} takes hops that are too long for a plugin")
        self._late = 2 * self.engine.hop + self.engine.latency
        self._warm_up()

    def _warm_up(self, hops: int = 8) -> None:
        """Compile and touch everything; `run` forgets it."""
        engine = self.engine
        rng = np.random.default_rng(0)
        out: Float32 = np.zeros((engine.hop, engine.out_channels), np.float32)
        with native.denormals_flushed():
            for _ in range(hops):
                noise = rng.uniform(-0.1, 0.1, (engine.hop, engine.channels))
                engine.process(noise.astype(np.float32), out)

    def _steer(self) -> None:
        self.engine.steer(self._segment.gains)
        if self._live:
            separator: Any = self._separator
            separator.realtime = not self._segment.waits

    def run(self, link: socket.socket) -> None:
        """Hop after hop until the plugin is gone."""
        native.flush_denormals()
        poller = select.poll()
        poller.register(self._segment.bell, select.POLLIN)
        poller.register(link, 0)
        began = False
        while not closed(link):
            poller.poll(_LOOK)
            self._segment.heard()
            if not began and self._segment.audio.written:
                began = True
                self._steer()
                self.engine.reset()  # the faders stand where the host has put them
            while self._hop():
                pass
        if (close := getattr(self._separator, "close", None)) is not None:
            close()

    def _hop(self) -> bool:
        """One hop, if there is one and room for what becomes of it."""
        segment, engine, hop = self._segment, self.engine, self.engine.hop
        source = segment.audio.claim_read(hop)
        target = segment.sound.claim_write(hop)
        if source is None or target is None:
            return False
        # What would come so late that nothing of it, and of what it leaves in the engine, could be
        # heard any more is skipped: so one that fell behind catches up.
        if segment.audio.read_space >= segment.prefill + self._late:
            target[:] = 0
        else:
            self._steer()
            engine.process(source, target)
        # Output first: an input ring with less than a hop then means that all output is there.
        segment.sound.commit_write(hop)
        segment.audio.commit_read(hop)
        segment.answer_hop()
        return True


def _load(model: str, samplerate: int) -> Separator:
    rate = native_rate(samplerate)
    separator = load_separator(model, samplerate=rate, channels=2)
    return separator if rate == samplerate else Resampled(separator, samplerate)
