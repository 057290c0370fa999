"""Non-negative matrix factorisation by multiplicative updates, live and of whole recordings.

    spectra (frames, bands)  ≈  activations (frames, atoms) @ dictionary (atoms, bands)

The updates are Lee and Seung's for the Kullback-Leibler divergence ("Algorithms for non-negative
matrix factorization", NIPS 2000), and for Itakura-Saito those of Févotte, Bertin and Durrieu
(Neural Computation 21, 2009) with the exponent 1/2, which makes them descend for certain.  All is
float32.  Live, `activate` is numba without the GIL: its inner loops run along contiguous bands,
four atoms at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from realtime_sep.errors import UsageError, unknown
from realtime_sep.types import Float32

Divergence = Literal["kl", "is"]
DIVERGENCES = ("kl", "is")

_FAST = {"contract", "nsz", "reassoc", "arcp"}
#: Models are never smaller, so that nothing is divided by zero.  Its square is no denormal.
_FLOOR = np.float32(1e-12)
#: Frames that go through all steps of an update together, so that their models stay in the cache.
_TILE = 96
#: Updates between two looks at the divergence.
_LOOK = 10


@njit(cache=True, nogil=True, fastmath=_FAST)
def expand(activations, dictionary, model):  # type: ignore[no-untyped-def]
    """`model (T, F) = activations (T, K) @ dictionary (K, F)`, plus a floor."""
    frames, atoms = activations.shape
    bands = dictionary.shape[1]
    for t in range(frames):
        row = model[t]
        for f in range(bands):
            row[f] = _FLOOR
    k = 0
    while k + 4 <= atoms:
        a0, a1, a2, a3 = dictionary[k], dictionary[k + 1], dictionary[k + 2], dictionary[k + 3]
        for t in range(frames):
            row = model[t]
            h0, h1 = activations[t, k], activations[t, k + 1]
            h2, h3 = activations[t, k + 2], activations[t, k + 3]
            for f in range(bands):
                row[f] += h0 * a0[f] + h1 * a1[f] + h2 * a2[f] + h3 * a3[f]
        k += 4
    while k < atoms:
        a0 = dictionary[k]
        for t in range(frames):
            row = model[t]
            h0 = activations[t, k]
            for f in range(bands):
                row[f] += h0 * a0[f]
        k += 1


@njit(cache=True, nogil=True, fastmath=_FAST)
def project(ratio, dictionary, out):  # type: ignore[no-untyped-def]
    """`out (T, K) = ratio (T, F) @ dictionary.T (F, K)`."""
    frames, bands = ratio.shape
    atoms = dictionary.shape[0]
    zero = np.float32(0)
    k = 0
    while k + 4 <= atoms:
        a0, a1, a2, a3 = dictionary[k], dictionary[k + 1], dictionary[k + 2], dictionary[k + 3]
        t = 0
        while t + 2 <= frames:  # two frames share every load of the four atoms
            one, two = ratio[t], ratio[t + 1]
            g0 = g1 = g2 = g3 = h0 = h1 = h2 = h3 = zero
            for f in range(bands):
                x, y = one[f], two[f]
                g0 += x * a0[f]
                g1 += x * a1[f]
                g2 += x * a2[f]
                g3 += x * a3[f]
                h0 += y * a0[f]
                h1 += y * a1[f]
                h2 += y * a2[f]
                h3 += y * a3[f]
            out[t, k], out[t, k + 1], out[t, k + 2], out[t, k + 3] = g0, g1, g2, g3
            t += 1
            out[t, k], out[t, k + 1], out[t, k + 2], out[t, k + 3] = h0, h1, h2, h3
            t += 1
        while t < frames:
            one = ratio[t]
            g0 = g1 = g2 = g3 = zero
            for f in range(bands):
                x = one[f]
                g0 += x * a0[f]
                g1 += x * a1[f]
                g2 += x * a2[f]
                g3 += x * a3[f]
            out[t, k], out[t, k + 1], out[t, k + 2], out[t, k + 3] = g0, g1, g2, g3
            t += 1
        k += 4
    while k < atoms:
        a0 = dictionary[k]
        for t in range(frames):
            one = ratio[t]
            g0 = zero
            for f in range(bands):
                g0 += one[f] * a0[f]
            out[t, k] = g0
        k += 1


@njit(cache=True, nogil=True, fastmath=_FAST)
def _ratios(spectra, model, saito, above):  # type: ignore[no-untyped-def]
    """From spectra v and `model` m the factors of the updates, in place.

    Kullback-Leibler: `above` = v / m.  Itakura-Saito: `above` = v / m², and `model` = 1 / m.
    """
    one = np.float32(1)
    for t in range(spectra.shape[0]):
        v, m, a = spectra[t], model[t], above[t]
        if saito:
            for f in range(v.shape[0]):
                inverse = one / max(m[f], _FLOOR)
                m[f] = inverse
                a[f] = v[f] * inverse * inverse
        else:
            for f in range(v.shape[0]):
                a[f] = v[f] / max(m[f], _FLOOR)


@njit(cache=True, nogil=True, fastmath=_FAST)
def activate(spectra, activations, dictionary, sums, saito, model, above, up, down):  # type: ignore[no-untyped-def]
    """One multiplicative update of `activations` in place.

    Args:
        sums: `(K,)` of every atom over the bands, the denominator under Kullback-Leibler.
        model, above: `(T, F)`, overwritten.
        up, down: `(T, K)`, overwritten.
    """
    expand(activations, dictionary, model)
    _ratios(spectra, model, saito, above)
    project(above, dictionary, up)
    if saito:
        project(model, dictionary, down)
        for t in range(up.shape[0]):
            for k in range(up.shape[1]):
                activations[t, k] *= np.sqrt(up[t, k] / (down[t, k] + _FLOOR))
    else:
        for t in range(up.shape[0]):
            for k in range(up.shape[1]):
                activations[t, k] *= up[t, k] / (sums[k] + _FLOOR)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _scale(values, up, down, root):  # type: ignore[no-untyped-def]
    """Multiply `values` by `up / down`, or by its root; `down` may be one row for all."""
    for i in range(values.shape[0]):
        row, u, d = values[i], up[i], down[min(i, down.shape[0] - 1)]
        if root:
            for j in range(row.shape[0]):
                row[j] *= np.sqrt(u[j] / (d[j] + _FLOOR))
        else:
            for j in range(row.shape[0]):
                row[j] *= u[j] / (d[j] + _FLOOR)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _distance(spectra, model, saito):  # type: ignore[no-untyped-def]
    """The divergence of the spectra from their model, summed in float64."""
    total = 0.0
    for t in range(spectra.shape[0]):
        for f in range(spectra.shape[1]):
            v, m = np.float64(spectra[t, f]), np.float64(max(model[t, f], _FLOOR))
            if saito:
                total += v / m - np.log(v / m) - 1
            else:
                total += m - v + (v * np.log(v / m) if v > 0 else 0.0)
    return total


class _Whole:
    """Updates over whole spectra.

    Many frames at once are products of matrices, which the library behind numpy does best; a tile
    of frames goes through all steps while its model is in the cache.
    """

    def __init__(self, v: Float32, h: Float32, w: Float32, fixed: int, saito: bool) -> None:
        self.v, self.h, self.w, self.fixed, self.saito = v, h, w, fixed, saito
        atoms, bands = w.shape
        self._model, self._above = (np.empty((_TILE, bands), np.float32) for _ in range(2))
        self._up, self._down = (np.empty((_TILE, atoms), np.float32) for _ in range(2))
        learned = atoms - fixed
        self._upper, self._lower, self._sum = (
            np.empty((learned, bands), np.float32) for _ in range(3)
        )

    def _tiles(self) -> Iterator[tuple[Float32, Float32, Float32, Float32]]:
        for start in range(0, len(self.v), _TILE):
            v, h = self.v[start : start + _TILE], self.h[start : start + _TILE]
            yield v, h, self._model[: len(v)], self._above[: len(v)]

    def distance(self) -> float:
        total = 0.0
        for v, h, model, _ in self._tiles():
            np.matmul(h, self.w, out=model)
            total += _distance(v, model, self.saito)
        return total

    def error(self) -> float:
        """What scikit-learn stops by: the divergence as if it were a squared distance."""
        return math.sqrt(2 * max(self.distance(), 0.0))

    def update(self) -> None:
        """All activations, then all atoms but the fixed ones: one pass over the spectra."""
        sums = self.w.sum(axis=1)[np.newaxis]
        learned = self.w[self.fixed :]
        self._upper[:] = self._lower[:] = 0
        for v, h, model, above in self._tiles():
            up, down = self._up[: len(v)], self._down[: len(v)]
            np.matmul(h, self.w, out=model)
            _ratios(v, model, self.saito, above)
            np.matmul(above, self.w.T, out=up)
            if self.saito:
                np.matmul(model, self.w.T, out=down)
            _scale(h, up, down if self.saito else sums, self.saito)
            if not len(learned):
                continue
            np.matmul(h, self.w, out=model)
            _ratios(v, model, self.saito, above)
            self._upper += np.matmul(h[:, self.fixed :].T, above, out=self._sum)
            if self.saito:
                self._lower += np.matmul(h[:, self.fixed :].T, model, out=self._sum)
        if not self.saito:
            self._lower[:] = self.h[:, self.fixed :].sum(axis=0)[:, np.newaxis]
        _scale(learned, self._upper, self._lower, self.saito)


@dataclass(frozen=True)
class Factors:
    """What `factorise` found.

    Attributes:
        activations: `(frames, atoms)`.
        dictionary: `(atoms, bands)`.
        divergence: of the spectra from their model, summed over all frames and bands.
        updates: that were made.
    """

    activations: Float32
    dictionary: Float32
    divergence: float
    updates: int


def factorise(
    spectra: npt.ArrayLike,
    atoms: int,
    *,
    divergence: Divergence = "kl",
    updates: int = 200,
    tolerance: float = 1e-4,
    activations: npt.ArrayLike | None = None,
    dictionary: npt.ArrayLike | None = None,
    fixed: int = 0,
    seed: int = 0,
) -> Factors:
    """Factorise whole spectra, activations and atoms in turn.

    The same sequence of updates as scikit-learn's `NMF(solver="mu")`, with the same rule to stop.

    Args:
        spectra: `(frames, bands)`, not negative; for "is" also not zero.
        divergence: "kl" (suits magnitudes) or "is" (suits powers).
        updates: at most; each is one of the activations and one of the dictionary.
        tolerance: stop when ten updates have gained less than this part of the first error (the
            root of twice the divergence); 0: never.
        activations: `(frames, atoms)` to begin with; random if left out.
        dictionary: `(atoms, bands)` likewise.
        fixed: so many atoms, the first ones, are not changed.

    Raises:
        UsageError: unknown divergence, shapes that do not fit, or negative spectra.
    """
    if divergence not in DIVERGENCES:
        raise unknown("divergence", divergence, DIVERGENCES)
    v = np.ascontiguousarray(spectra, dtype=np.float32)
    if v.ndim != 2 or v.size == 0 or atoms < 1 or not 0 <= fixed <= atoms:
        raise UsageError(
            f"spectra of shape {v.shape} cannot be factorised into {atoms} atoms, {fixed} fixed"
        )
    saito = divergence == "is"
    if not (v.min() > 0 if saito else v.min() >= 0) or not np.isfinite(v).all():
        raise UsageError(f"spectra are finite and {'positive' if saito else 'not negative'}")
    rng = np.random.default_rng(seed)
    scale = np.sqrt(v.mean(dtype=np.float64) / atoms) + 1e-12
    h = _start("activations", activations, (len(v), atoms), scale, rng)
    w = _start("dictionary", dictionary, (atoms, v.shape[1]), scale, rng)
    whole = _Whole(v, h, w, fixed, saito)
    first = last = whole.error() if tolerance > 0 else 0.0
    done = 0
    while done < updates:
        whole.update()
        done += 1
        if tolerance > 0 and done % _LOOK == 0:
            now = whole.error()
            if last - now < tolerance * first:
                break
            last = now
    return Factors(h, w, whole.distance(), done)


def _start(
    name: str,
    given: npt.ArrayLike | None,
    shape: tuple[int, int],
    scale: float,
    rng: np.random.Generator,
) -> Float32:
    """A copy of what was given, or something random."""
    if given is None:
        return (scale * rng.uniform(0.1, 1.9, shape)).astype(np.float32)
    start = np.array(given, dtype=np.float32, order="C")
    if start.shape != shape or start.min() < 0:
        raise UsageError(f"{name}: {shape} of numbers that are not negative, not {start.shape}")
    return start
