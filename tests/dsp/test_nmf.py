"""Non-negative matrix factorisation: the updates are scikit-learn's, and they descend."""

from __future__ import annotations

import itertools
import time
import warnings

import numpy as np
import pytest

from realtime_sep.dsp.nmf import Divergence, factorise
from realtime_sep.errors import UsageError
from realtime_sep.types import Float32

FULL_NAMES = {"kl": "kullback-leibler", "is": "itakura-saito"}


def problem(frames: int, bands: int, atoms: int, seed: int = 0) -> tuple[Float32, ...]:
    """Noisy spectra of so many true atoms, and where to begin: `(spectra, activations, atoms)`."""
    rng = np.random.default_rng(seed)
    model = rng.gamma(0.3, 1, (frames, atoms)) @ rng.gamma(0.3, 1, (atoms, bands))
    spectra = model * rng.gamma(8, 1 / 8, (frames, bands)) + 1e-3
    scale = np.sqrt(spectra.mean() / atoms)
    start = (scale * rng.uniform(0.1, 1.9, shape) for shape in ((frames, atoms), (atoms, bands)))
    return tuple(x.astype(np.float32) for x in (spectra, *start))


def scikit_learn(
    divergence: Divergence, updates: int, spectra: Float32, h: Float32, w: Float32
) -> tuple[float, float]:
    """The divergence that it reaches from the same beginning, and its CPU seconds."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    from sklearn.decomposition._nmf import _beta_divergence
    from threadpoolctl import threadpool_limits

    name = FULL_NAMES[divergence]
    method = decomposition.NMF(
        h.shape[1], solver="mu", beta_loss=name, init="custom", max_iter=updates, tol=0
    )
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it would go on
        started = time.process_time()
        found = method.fit_transform(spectra, W=h.copy(), H=w.copy())
        seconds = time.process_time() - started
    return float(_beta_divergence(spectra, found, method.components_, name)), seconds


@pytest.mark.parametrize("divergence", ["kl", "is"])
@pytest.mark.parametrize("atoms", [3, 8])
def test_the_same_divergence_as_scikit_learn(divergence: Divergence, atoms: int) -> None:
    """Within 1 % after as many updates from the same beginning; an odd number of frames."""
    spectra, h, w = problem(131, 67, atoms)
    theirs, _ = scikit_learn(divergence, 50, spectra, h, w)
    ours = factorise(
        spectra, atoms, divergence=divergence, updates=50, tolerance=0, activations=h, dictionary=w
    )
    assert ours.updates == 50
    assert ours.divergence == pytest.approx(theirs, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("divergence", ["kl", "is"])
def test_faster_than_scikit_learn(divergence: Divergence) -> None:
    """A minute of music; `benchmarks/nmf.py` measures more, a busy machine may take half of it."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    spectra, h, w = problem(5000, 1025, 16)
    factorise(spectra[:32], 16, divergence=divergence, updates=1)
    ratios = []
    for _ in range(3):
        _, theirs = scikit_learn(divergence, 4, spectra, h, w)
        started = time.process_time()
        with threadpoolctl.threadpool_limits(1):
            ours = factorise(
                spectra, 16, divergence=divergence, updates=4, tolerance=0, activations=h,
                dictionary=w,
            )  # fmt: skip
        ratios.append(theirs / (time.process_time() - started))
        assert ours.updates == 4
    assert max(ratios) > 1.0


@pytest.mark.parametrize("divergence", ["kl", "is"])
def test_every_update_descends(divergence: Divergence) -> None:
    spectra, h, w = problem(40, 30, 5)
    steps = [
        factorise(
            spectra, 5, divergence=divergence, updates=n, tolerance=0, activations=h, dictionary=w
        ).divergence
        for n in range(0, 12)
    ]
    assert all(later < earlier for earlier, later in itertools.pairwise(steps))


def test_stops_where_little_is_gained() -> None:
    spectra, h, w = problem(40, 30, 5)
    early = factorise(spectra, 5, tolerance=0.01, updates=500, activations=h, dictionary=w)
    late = factorise(spectra, 5, tolerance=1e-6, updates=500, activations=h, dictionary=w)
    assert early.updates < late.updates
    assert early.updates % 10 == 0


def test_fixed_atoms_stay() -> None:
    spectra, _, w = problem(40, 30, 6)
    found = factorise(spectra, 6, updates=20, dictionary=w, fixed=2)
    np.testing.assert_array_equal(found.dictionary[:2], w[:2])
    assert not np.allclose(found.dictionary[2:], w[2:])


@pytest.mark.parametrize("divergence", ["kl", "is"])
def test_finds_the_parts_of_a_simple_sum(divergence: Divergence) -> None:
    parts = np.zeros((2, 20)) + 1e-3
    parts[0, :6] += 1
    parts[1, 10:15] += 1
    gains = np.abs(np.random.default_rng(0).standard_normal((50, 2))) + 0.01
    found = factorise(gains @ parts, 2, divergence=divergence, updates=500, tolerance=0)
    atoms = found.dictionary / found.dictionary.sum(axis=1, keepdims=True)
    wanted = parts / parts.sum(axis=1, keepdims=True)
    atoms = atoms[np.argsort([-atom[:6].sum() for atom in atoms])]
    np.testing.assert_allclose(atoms, wanted, atol=0.02)


def test_refuses_what_cannot_be_factorised() -> None:
    good = np.ones((4, 5))
    with pytest.raises(UsageError, match="did you mean 'kl'"):
        factorise(good, 2, divergence="kll")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not negative"):
        factorise(-good, 2)
    with pytest.raises(UsageError, match="positive"):
        factorise(0 * good, 2, divergence="is")
    with pytest.raises(UsageError, match="3 fixed"):
        factorise(good, 2, fixed=3)
    with pytest.raises(UsageError, match="activations"):
        factorise(good, 2, activations=np.ones((3, 2)))
