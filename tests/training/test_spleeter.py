"""Spleeter's network made causal: what it takes over, and that it streams as it learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spleeter_like import original  # noqa: E402
from torch import nn  # noqa: E402

from training.fitting import example, fit  # noqa: E402
from training.networks import Geometry  # noqa: E402
from training.spectra import Frames  # noqa: E402
from training.spleeter import BINS, Causal, Past, take_over  # noqa: E402

pytestmark = pytest.mark.train


def spectra(frames: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 2, frames, 1025, 2, generator=generator)


@pytest.fixture(scope="module")
def network() -> Causal:
    torch.manual_seed(0)
    return Causal().eval()


@torch.no_grad()
def test_averages_of_the_past_have_the_delay_of_the_taps() -> None:
    past = Past(1, (4.0, 20.0))
    pulse = torch.zeros(1, 1, 400, 1)
    pulse[:, :, 0] = 1
    out, _ = past(pulse, torch.zeros(1, 2, 1))
    now, *averages = out[0, :, :, 0].unbind(0)
    assert torch.equal(now, pulse[0, 0, :, 0])
    frames = torch.arange(400.0)
    for average, delay in zip(averages, (4.0, 20.0), strict=True):
        torch.testing.assert_close(average.sum(), torch.tensor(1.0), atol=1e-3, rtol=0)
        mean = (frames * average).sum() / average.sum()
        torch.testing.assert_close(mean, torch.tensor(delay), atol=0.01, rtol=0)


def test_gradient_of_the_averages() -> None:
    past = Past(2, (3.0,))
    x = torch.randn(1, 2, 7, 2, dtype=torch.float64, requires_grad=True)
    start = torch.zeros(1, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: past(x, start)[0], x)


def test_frame_by_frame_equals_all_at_once(
    network: Causal, streams: Callable[[Any, Any], None]
) -> None:
    streams(network, spectra(12))


def test_the_future_changes_nothing(
    network: Causal, keeps_to_the_past: Callable[[Any, Any, Any], None]
) -> None:
    keeps_to_the_past(network, spectra(9), spectra(3, seed=2))


@torch.no_grad()
def test_of_one_column_it_makes_what_the_original_makes() -> None:
    """With silence before it, the newest column's way down is the original's last column's."""
    torch.manual_seed(3)
    teacher, network = original(), Causal()
    take_over(network, teacher)
    x = torch.rand(1, 2, 64, BINS)
    x[:, :, :63] = 0
    first = teacher.down1_conv(x)[:, :, -1]
    wide, _ = network.past_down[0](x[:, :, 63:], torch.zeros(1, 4, BINS))
    own = network.down[0](nn.functional.pad(wide, (1, 2)))[:, :, 0]
    torch.testing.assert_close(own, first, atol=1e-5, rtol=1e-4)


class Noises:
    """A mixer of coloured noises that come and go."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(5)

    def batch(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        noise = self.rng.standard_normal((2, size, 2, 3 * 65536)).astype(np.float32)
        swell = 1 + np.sin(np.linspace(0, 40, noise.shape[-1], dtype=np.float32))
        vocals, rest = 0.1 * np.cumsum(noise * swell, -1) % 1 - 0.5
        return vocals, rest


@torch.no_grad()
def test_fitted_layers_make_what_the_originals_make() -> None:
    torch.manual_seed(6)
    teacher, network = original(), Causal().eval()
    take_over(network, teacher)
    frames = Frames(Geometry())
    unseen, *_ = example(np.add(*Noises().batch(2)), frames, network, teacher)

    def error() -> float:
        """Of the lowest level, relative to what the original makes there."""
        x = unseen.columns.permute(0, 3, 1, 2)
        for k, conv in enumerate(network.down):
            start = torch.zeros(len(x), 2 * x.shape[1], x.shape[3])
            x, _ = network.past_down[k](x, start, 2)
            y = conv(nn.functional.pad(x, (1, 2)))
            if k < 4:
                x = nn.functional.leaky_relu(network.down_affine[k](y), 0.2)
        times = unseen.times("down4", 32)
        target = unseen.outputs["down4"].float()[:, :, times >= 64]
        missed = y[:, :, times[times >= 64]] - target
        return float(missed.square().mean() / target.var())

    before = error()
    fit(network, teacher, Noises(), 1)
    assert error() < 0.5 * before
