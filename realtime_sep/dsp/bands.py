"""Bands of a short-time spectrum: single bins where harmonics lie apart, broader ones above."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from realtime_sep.types import Float32

#: Bands are no broader than this part of their frequency: a bin up to 96 bins (2 kHz at 44.1 kHz).
_PART = 64
#: Above this frequency in Hz there are no bands.
_TOP = 17000.0


def band_edges(n_fft: int, samplerate: int) -> npt.NDArray[np.int64]:
    """First bin of every band, and the end of the last one: `(bands + 1,)`; bin 0 is in none."""
    edges = [1]
    while edges[-1] * samplerate / n_fft < _TOP and edges[-1] < n_fft // 2:
        edges.append(min(edges[-1] + max(1, round(edges[-1] / _PART)), n_fft // 2 + 1))
    return np.array(edges, dtype=np.int64)


def band_centres(n_fft: int, samplerate: int) -> npt.NDArray[np.float64]:
    """Middle of every band in Hz, `(bands,)`."""
    edges = band_edges(n_fft, samplerate)
    middles: npt.NDArray[np.float64] = (edges[:-1] + edges[1:] - 1) / 2 * (samplerate / n_fft)
    return middles


def to_bands(values: npt.ArrayLike, at: npt.ArrayLike, to: npt.ArrayLike) -> Float32:
    """`values (..., bands)` of bands with centres `at`, as those of bands with centres `to`, Hz."""
    at, to = np.asarray(at, dtype=np.float64), np.asarray(to, dtype=np.float64)
    rows = np.asarray(values, dtype=np.float64).reshape(-1, len(at))
    out = np.stack([np.interp(to, at, row) for row in rows])
    shaped: Float32 = out.reshape(*np.shape(values)[:-1], -1).astype(np.float32)
    return shaped
