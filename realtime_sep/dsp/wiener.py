"""Multichannel Wiener filtering of stems by expectation maximisation.

Magnitudes that a network estimates for each stem say nothing of where in the stereo image it is.
Here each stem is a Gaussian of a level per frame and bin and of a spatial covariance per bin; both
are estimated from the stems themselves, the mix is filtered by them, and so again.

Nugraha, Liutkus, Vincent, "Multichannel audio source separation with deep neural networks", IEEE
TASLP 24 (2016); Uhlich et al., ICASSP 2017.  The tests compare it with Open-Unmix's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from realtime_sep.types import Complex64, Float32

#: Energy of the noise that is thought to be under everything, and the level that the loudest bin is
#: brought to before: together they say what is too soft to matter.
_EPSILON = 1e-10
_SCALE = 10.0


@njit(cache=True, nogil=True)
def _gains(masks, mix, iterations, first, loudest, gains):  # type: ignore[no-untyped-def]
    """Fill `gains` (frames from `first`, stems, channels, channels, bins); see `wiener_gains`."""
    frames, given, channels, bins = masks.shape
    stems = gains.shape[1]
    scale = 1 / max(1.0, loudest / _SCALE)
    root = np.sqrt(_EPSILON)
    x = np.zeros((frames, channels), np.complex128)
    y = np.zeros((frames, stems, channels), np.complex128)
    level = np.zeros((frames, stems))
    place = np.zeros((stems, channels, channels), np.complex128)
    inverse = np.zeros((channels, channels), np.complex128)
    gain = np.zeros((channels, channels), np.complex128)
    for k in range(bins):
        for t in range(frames):
            for c in range(channels):
                x[t, c] = mix[t, c, k] * scale
                rest = x[t, c]
                for j in range(given):
                    y[t, j, c] = masks[t, j, c, k] * x[t, c]
                    rest -= y[t, j, c]
                if stems > given:
                    y[t, given, c] = rest
        for iteration in range(iterations):
            place[:] = 0
            for j in range(stems):
                weight = _EPSILON
                for t in range(frames):
                    energy = 0.0
                    for c in range(channels):
                        energy += y[t, j, c].real ** 2 + y[t, j, c].imag ** 2
                        for d in range(channels):
                            place[j, c, d] += y[t, j, c] * np.conj(y[t, j, d])
                    level[t, j] = energy / channels
                    weight += level[t, j]
                place[j] /= weight
            last = iteration == iterations - 1
            for t in range(first if last else 0, frames):
                inverse[:] = 0
                for c in range(channels):
                    inverse[c, c] = root
                    for d in range(channels):
                        for j in range(stems):
                            inverse[c, d] += level[t, j] * place[j, c, d]
                if channels == 1:
                    inverse[0, 0] = 1 / inverse[0, 0]
                else:
                    a, b, c2, d2 = inverse[0, 0], inverse[0, 1], inverse[1, 0], inverse[1, 1]
                    determinant = a * d2 - b * c2
                    inverse[0, 0] = d2 / determinant
                    inverse[0, 1] = -b / determinant
                    inverse[1, 0] = -c2 / determinant
                    inverse[1, 1] = a / determinant
                for j in range(stems):
                    for c in range(channels):
                        for d in range(channels):
                            total = 0j
                            for e in range(channels):
                                total += place[j, c, e] * inverse[e, d]
                            gain[c, d] = level[t, j] * total
                            if last:
                                gains[t - first, j, c, d, k] = gain[c, d]
                    for c in range(channels):
                        total = 0j
                        for d in range(channels):
                            total += gain[c, d] * x[t, d]
                        y[t, j, c] = total


def wiener_gains(
    masks: Float32,
    mix: Complex64,
    iterations: int,
    *,
    residual: bool = True,
    first: int = 0,
    out: Complex64 | None = None,
) -> npt.NDArray[np.complex64]:
    """Filters that turn the mix into the stems: `stem = gain @ mix` in every frame and bin.

    Args:
        masks: `(frames, stems, channels, bins)`: each stem's magnitude over the mix's.
        mix: `(frames, channels, bins)`; of any level: what is loud says what is too soft.
        iterations: at least 1.
        residual: add a stem, which is at first what the others leave of the mix.
        first: the first frame that filters are wanted of.
        out: to be filled, `(frames - first, stems, channels, channels, bins)`.

    Returns:
        `out`, or a new array of its shape.
    """
    frames, stems, channels, bins = masks.shape
    if out is None:
        shape = (frames - first, stems + residual, channels, channels, bins)
        out = np.zeros(shape, np.complex64)
    _gains(masks, mix, iterations, first, float(np.abs(mix).max()), out)
    return out
