"""Losses and optimisers do what their words say."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from training.losses import separation_loss  # noqa: E402
from training.networks import build  # noqa: E402
from training.optimisers import optimisers, orthogonalised  # noqa: E402

pytestmark = pytest.mark.train


def loss_of(estimate: torch.Tensor, vocals: torch.Tensor, mix: torch.Tensor) -> float:
    generator = torch.Generator().manual_seed(0)
    return float(separation_loss(estimate, vocals, mix, generator)[0])


def test_the_truth_is_best_at_any_level() -> None:
    torch.manual_seed(0)
    vocals, rest = 0.1 * torch.randn(2, 2, 2, 8192)
    mix = vocals + rest
    best = loss_of(vocals, vocals, mix)
    assert best < loss_of(0.8 * vocals, vocals, mix) < loss_of(mix, vocals, mix)
    soft = loss_of(0.03 * mix, 0.03 * vocals, 0.03 * mix)
    assert soft == pytest.approx(loss_of(mix, vocals, mix), abs=0.1)


def test_music_alone_is_asked_for_less_leakage() -> None:
    torch.manual_seed(0)
    mix = 0.1 * torch.randn(2, 2, 8192)
    nothing = torch.zeros_like(mix)
    leaks = [loss_of(10 ** (level / 20) * mix, nothing, mix) for level in (-15, -25, -35)]
    assert leaks[0] - leaks[1] > 0.2
    assert leaks[1] - leaks[2] > 0.05


def test_silence_has_a_loss_and_a_gradient() -> None:
    silence = torch.zeros(1, 2, 8192)
    estimate = torch.zeros(1, 2, 8192, requires_grad=True)
    loss, _ = separation_loss(estimate, silence, silence, torch.Generator().manual_seed(0))
    loss.backward()
    assert estimate.grad is not None
    assert torch.isfinite(estimate.grad).all()


def test_orthogonalised_matrices_have_singular_values_about_one() -> None:
    torch.manual_seed(0)
    for shape in ((16, 64), (64, 16)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.4


def test_every_parameter_has_exactly_one_optimiser() -> None:
    network, _ = build("unet")
    held = [
        id(weight)
        for optimiser, _ in optimisers(network)
        for group in optimiser.param_groups
        for weight in group["params"]
    ]
    assert sorted(held) == sorted(id(weight) for weight in network.parameters())
