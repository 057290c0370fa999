"""A device that has gone comes back: waited for, opened and started in a thread of its own.

Whatever asks a dead or hanging audio server may wait for ever, so all that does happens here, and
the thread that watches over the stream stays free to end it.
"""

from __future__ import annotations

import threading
import time

from realtime_sep.errors import (
    DeviceError,
    EngineError,
    RealtimeSepError,
    SampleRateError,
    UsageError,
)
from realtime_sep.io.device import Device
from realtime_sep.rig import Plan, Records, Rig

#: Seconds in which callbacks may go on by themselves, as after a suspended server, before the
#: device is opened anew.
_PATIENCE = 2.0
#: Seconds between attempts to open it: PortAudio needs some 50 ms of a core to look around.
_RETRY = 0.5
_LOOK = 0.02


class Recovery(threading.Thread):
    """Brings back the device of one rig.

    Attributes:
        since: when it was lost, in seconds of the monotonic clock.
        device, rig: what runs now, once the thread has ended.
        failure: what makes it hopeless; None if it has come back.
    """

    def __init__(self, plan: Plan, device: Device, rig: Rig, records: Records) -> None:
        super().__init__(name="realtime_sep recovery", daemon=True)
        self._plan, self._records = plan, records
        self.device, self.rig = device, rig
        self.since = time.monotonic()
        self.failure: RealtimeSepError | None = None
        self._given_up = threading.Event()

    def give_up(self) -> None:
        """Nobody waits any more; whatever comes back is closed again."""
        self._given_up.set()

    def run(self) -> None:
        try:
            if not self._resumes():
                self.rig.stop()
                while not self._given_up.is_set() and not self._opens():
                    self._given_up.wait(_RETRY)
        except RealtimeSepError as error:
            self.failure = error
        except Exception as error:  # a plugin, a driver
            self.failure = EngineError(f"the device could not be opened again: {error!r}")
        if self._given_up.is_set():
            self.rig.stop()

    def _resumes(self) -> bool:
        """Whether the callbacks go on by themselves."""
        before = self.rig.stats().callbacks
        deadline = self.since + _PATIENCE
        while not (self.device.trouble or self._given_up.is_set()):
            if self.rig.stats().callbacks > before:
                return True
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK)
        return False

    def _opens(self) -> bool:
        """One attempt; False if the device is not there, or not ready.

        Raises:
            RealtimeSepError: it is there, and will not do.
        """
        try:
            device = self._plan.device.open(self._plan.config, before=self.device)
        except SampleRateError:
            raise
        except (DeviceError, UsageError):
            return False
        try:
            rig = Rig(self._plan, device, self._records, before=self.rig)
        except RealtimeSepError as error:
            raise SampleRateError(
                f"{device.description} is back at {device.samplerate} Hz, but {error}"
            ) from error
        if rig.info.samplerate != self.rig.info.samplerate:
            self.rig.close()
        self.device, self.rig = device, rig
        try:
            rig.start()
        except DeviceError:
            rig.stop()
            return False
        return True
