"""Asymmetric analysis and synthesis windows for low-delay overlap-add.

A long analysis window resolves harmonics; a short synthesis window at its right edge keeps the
delay small.  The pair follows Mauler and Martin, "A low delay, variable resolution, perfect
reconstruction spectral analysis-synthesis system for speech enhancement", EUSIPCO 2007,
generalised from a hop of half the synthesis length to any hop.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def hann(length: int) -> npt.NDArray[np.float64]:
    """Hann window shifted by half a sample: symmetric, never zero, sums to one at hop length/2."""
    return np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2


def window_pair(
    n_fft: int, synthesis: int, hop: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Analysis window of `n_fft` samples and synthesis window of the last `synthesis` samples.

    The product of the two over the last `synthesis` samples, shifted by `hop` and summed, is one
    at every sample, so unmodified frames reconstruct the input delayed by `synthesis - hop`.

    Returns:
        `(analysis, synth)` of shapes `(n_fft,)` and `(synthesis,)`, float32.

    Raises:
        ValueError: unless `1 <= hop <= synthesis <= n_fft`, the latter two even.
    """
    if not 1 <= hop <= synthesis <= n_fft or synthesis % 2 or n_fft % 2:
        raise ValueError(
            f"windows need 1 <= hop <= synthesis <= n_fft, the latter two even, "
            f"not hop={hop}, synthesis={synthesis}, n_fft={n_fft}"
        )
    half = synthesis // 2
    rise = np.sqrt(hann(2 * (n_fft - half))[: n_fft - half])
    fall = np.sqrt(hann(synthesis)[half:])
    analysis = np.concatenate([rise, fall])

    product = hann(synthesis)
    overlap = np.zeros(hop)
    for start in range(0, synthesis, hop):
        segment = product[start : start + hop]
        overlap[: len(segment)] += segment
    product /= np.resize(overlap, synthesis)

    return analysis.astype(np.float32), (product / analysis[-synthesis:]).astype(np.float32)
