"""What separators by spectral mask share: transform, a mask of their own, overlap-add, the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numba import njit

from realtime_sep.dsp.delay import Delay
from realtime_sep.dsp.stft import Analysis, Synthesis
from realtime_sep.errors import UsageError, unknown
from realtime_sep.latency import overlap_add_lag
from realtime_sep.types import PROFILES, Complex64, Float32, Geometry, SeparatorInfo

#: Magnitudes beyond this are no audio: they would stay in a memory as infinity.
LOUDEST = np.float32(1e15)


@njit(cache=True, nogil=True)
def _split(first, stems):  # type: ignore[no-untyped-def]
    """`stems[1]` holds the mix: take `first` (H, channels) out of it into `stems[0]`."""
    for i in range(first.shape[0]):
        for c in range(first.shape[1]):
            stems[0, i, c] = first[i, c]
            stems[1, i, c] -= first[i, c]


class Masking(ABC):
    """A separator into two stems: one by mask, and what the mask leaves.

    Args:
        name: of the separator.
        stems: their names, the masked one first.
        samplerate: Hz.
        channels: 1 or 2.
        profile: a name of `PROFILES`.
        geometry: instead of a profile.
        lookahead: hops by which the masked spectra lag the newest one.

    Raises:
        UsageError: unknown profile, impossible geometry, more than two channels.
    """

    def __init__(
        self,
        name: str,
        stems: tuple[str, str],
        *,
        samplerate: int,
        channels: int,
        profile: str,
        geometry: Geometry | None,
        family: str,
        lookahead: int = 0,
    ) -> None:
        if channels not in (1, 2):
            raise UsageError(f"{name!r} separates one or two channels, not {channels}")
        if geometry is None:
            if profile not in PROFILES:
                raise unknown("profile", profile, PROFILES)
            geometry = PROFILES[profile]
        try:
            self._analysis = Analysis(geometry, channels)
            self._synthesis = Synthesis(geometry, channels)
        except ValueError as error:
            raise UsageError(str(error)) from error
        self.geometry = geometry
        self.info = SeparatorInfo(
            name=name,
            stems=stems,
            samplerate=samplerate,
            channels=channels,
            hop=geometry.hop,
            latency=overlap_add_lag(geometry, lookahead),
            family=family,
        )
        self._delay = Delay(self.info.latency, channels)
        self._masked: Complex64 = np.zeros((channels, geometry.bins), np.complex64)
        self._first: Float32 = np.zeros((geometry.hop, channels), np.float32)

    def reset(self) -> None:
        """Return to the state just after construction."""
        self._analysis.reset()
        self._synthesis.reset()
        self._delay.reset()

    def process(self, hop: Float32, stems: Float32) -> None:
        """Separate `(H, channels)` into `stems` `(2, H, channels)`, `info.latency` frames late."""
        self._delay.process(hop, stems[1])
        self._mask(self._analysis.process(hop), self._masked)
        self._synthesis.process(self._masked, self._first)
        _split(self._first, stems)

    @abstractmethod
    def _mask(self, spectrum: Complex64, out: Complex64) -> None:
        """Write the first stem's share of `spectrum` `(channels, bins)` to `out`, of that shape."""


def in_range(what: str, value: float, low: float, high: float, unit: str = "") -> float:
    """The value of an option, or a UsageError."""
    if not low <= value <= high:
        raise UsageError(f"{what} is {low:g} to {high:g}{unit and ' ' + unit}, not {value!r}")
    return value
