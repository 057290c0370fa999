"""Two clocks: how much faster than its name says one runs, by the other.

A second-order loop on the distance between where a stream is and where it should be, as in
F. Adriaensen, "Using a DLL to filter time" (Linux Audio Conference 2005) and "Controlling adaptive
resampling" (2012): the distance is measured with time stamps, so the size of blocks and the moment
at which somebody looks do not appear in it; what is left is the jitter of the stamps.
"""

from __future__ import annotations

import math

#: Bandwidth in Hz: jitter of a millisecond is then heard as a wobble of a fraction of a cent, and a
#: drift of 500 ppm never leads further away than 28 frames.
BANDWIDTH = 0.05
#: Greatest correction, relative: 1.7 cents.  Crystals are within 200 ppm, bad ones within 500.
MOST = 1e-3
#: Distances are averaged over this time before it is said that they are too great: one late
#: callback is not a lost stream.
_AVERAGE = 0.3


class ClockLoop:
    """Holds a stream at its distance.

    Args:
        samplerate: frames of the stream per second, by its name.
        limit: frames; an average distance beyond it means that the stream has to be found anew.

    Attributes:
        correction: relative; by so much faster (positive) the stream is to be read.
        drift: relative, of the two clocks, as far as it is known.
        error: the average distance.
    """

    def __init__(self, samplerate: float, limit: float) -> None:
        omega = 2 * math.pi * BANDWIDTH
        self._proportional = 2 * omega / samplerate  # critically damped
        self._integral = omega * omega / samplerate
        self._limit = limit
        self.drift = 0.0
        self.correction = self.error = 0.0

    @property
    def lost(self) -> bool:
        """Whether the stream is too far from its place to be led back."""
        return abs(self.error) > self._limit

    def restart(self) -> None:
        """The stream was put to its place; what is known of the clocks still holds."""
        self.error = 0.0
        self.correction = self.drift

    def update(self, distance: float, seconds: float) -> float:
        """Take the next look, `seconds` after the last one; the new correction.

        Args:
            distance: frames that the stream is behind its place; may hold jitter.
        """
        bounded = min(max(distance, -2 * self._limit), 2 * self._limit)
        self.error += (1 - math.exp(-seconds / _AVERAGE)) * (bounded - self.error)
        wanted = self.drift + self._proportional * self.error
        self.correction = min(max(wanted, -MOST), MOST)
        if self.correction == wanted:  # else the integral would run away
            self.drift += self._integral * self.error * seconds
        return self.correction
