"""Streaming change of sample rate without delay: libsamplerate, with its tail brought out."""

from __future__ import annotations

from math import lcm

import numpy as np
import samplerate

from realtime_sep.types import Float32

#: Rates that separators run at without resampling, lowest and highest, in Hz.
NATIVE_RATES = (44100, 48000)

# 121 dB of signal to noise, flat to 90 % of the lower Nyquist frequency.
_QUALITY = "sinc_medium"


def native_rate(rate: int) -> int:
    """The rate to run a separator at for audio at `rate`, in Hz.

    From 44.1 to 48 kHz it is the same; else whichever of the two has the simpler ratio to it: 8,
    32, 96 and 192 kHz go to 48, 22.05 and 88.2 to 44.1.
    """
    low, high = NATIVE_RATES
    return rate if low <= rate <= high else min(NATIVE_RATES, key=lambda native: lcm(rate, native))


class StreamResampler:
    """Resamples a stream block by block.  Frame 0 of the output is frame 0 of the input.

    Constant memory.  What comes out lags what went in by the length of the filter, until `flush`.
    """

    #: Frames that the filter looks ahead, at the lower of the two rates: half its 91.4 taps, and
    #: the frame or two that it keeps in hand.
    AHEAD = 49

    def __init__(self, source: int, target: int, channels: int) -> None:
        self.source = source
        self.target = target
        self._channels = channels
        self._converter = samplerate.Resampler(_QUALITY, channels)
        self._taken = 0
        self._given = 0

    def process(self, block: Float32) -> Float32:
        """Take `(n, channels)`; return what is ready, `(m, channels)`."""
        self._taken += len(block)
        return self._convert(block)

    def flush(self, frames: int | None = None) -> Float32:
        """The rest, so that the whole output has `frames` frames (default: the exact length,
        rounded up)."""
        if frames is None:
            frames = -(-self._taken * self.target // self.source)
        tail = [np.empty((0, self._channels), np.float32)]
        silence: Float32 = np.zeros((1024, self._channels), np.float32)
        while self._given < frames:
            # The converter's own end-of-input call stops short of the tail; silence pushes it out.
            ready = self._convert(silence)
            excess = self._given - frames
            if excess > 0:
                ready = ready[: len(ready) - excess]
                self._given = frames
            tail.append(ready)
        return np.concatenate(tail)

    def _convert(self, block: Float32) -> Float32:
        out: Float32 = self._converter.process(block, self.target / self.source)
        out = out.reshape(-1, self._channels)
        self._given += len(out)
        return out
