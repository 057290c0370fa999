"""Spleeter's network made causal: what it takes over, and that it streams as it learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from training.fitting import example, fit  # noqa: E402
from training.networks import Geometry, build, inherit  # noqa: E402
from training.spectra import Frames  # noqa: E402
from training.spleeter import BINS, CHANNELS, Causal, Past, take_over  # noqa: E402

pytestmark = pytest.mark.train


def spectra(frames: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 2, frames, 1025, 2, generator=generator)


@pytest.fixture(scope="module")
def network() -> Causal:
    torch.manual_seed(0)
    return Causal().eval()


@pytest.mark.parametrize("hop", [512, 256])
@torch.no_grad()
def test_magnitudes_between_the_bins_are_those_of_a_longer_transform(hop: int) -> None:
    geometry = Geometry(synthesis=2 * hop, hop=hop)
    frames = Frames(geometry)
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(1, 2, 2048, generator=generator)
    spec = frames.analyse(audio)[:, :, -1:]
    found = Causal(geometry).between(spec)[:, :, 0]
    longer = torch.fft.rfft(audio * frames.analysis, n=4096).abs()[..., :BINS]
    # The taps are cut off: 36 dB below what is there, which masks do not notice.
    error = (found - longer).square().mean() / longer.square().mean()
    assert 10 * torch.log10(error) < -30


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


class Crop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 1:-2, 1:-2]


class Original(nn.Module):
    """A network shaped like Spleeter's, and with its parts' names; random weights, statistics."""

    def __init__(self) -> None:
        super().__init__()
        widths = [*CHANNELS, 512]
        for k in range(6):
            conv = nn.Conv2d(widths[k], widths[k + 1], 5, 2)
            setattr(self, f"down{k + 1}_conv", nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), conv))
            norm = nn.BatchNorm2d(widths[k + 1], eps=1e-3)
            setattr(self, f"down{k + 1}_act", nn.Sequential(norm, nn.LeakyReLU(0.2)))
        inputs, outputs = [512, 512, 256, 128, 64, 32], [256, 128, 64, 32, 16, 1]
        for k in range(6):
            conv = nn.ConvTranspose2d(inputs[k], outputs[k], 5, 2)
            norm = nn.BatchNorm2d(outputs[k], eps=1e-3)
            setattr(self, f"up{k + 1}", nn.Sequential(conv, Crop(), nn.ReLU(), norm))
        self.up7 = nn.Sequential(nn.Conv2d(1, 2, 4, dilation=2, padding=3))
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for k in range(6):
            skips.append(getattr(self, f"down{k + 1}_conv")(x))
            x = getattr(self, f"down{k + 1}_act")(skips[-1])
        x = skips.pop()
        for k in range(6):
            x = getattr(self, f"up{k + 1}")(x)
            x = torch.cat([skips.pop(), x], 1) if skips else x
        return self.up7(x)


def original() -> nn.Module:
    return Original().eval()


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


@torch.no_grad()
def test_a_network_that_is_given_an_elder_starts_with_the_mean_of_the_two() -> None:
    torch.manual_seed(4)
    network, _ = build("unet")
    weights = {
        key: value
        for key, value in network.state_dict().items()
        if not key.startswith(("elder.", "gate.")) and key != "belief"
    }
    for i, (_, _, size) in enumerate(network.config.patches):
        for key in (f"embed.{i}.weight", f"out.{i}.weight"):
            own = weights[key]
            inner = own.shape[1] - 8 * size
            weights[key] = torch.cat(
                [own[:, :inner], own[:, inner:].unflatten(1, (size, 8))[..., :7].flatten(1)], 1
            )
    inherit(network, weights)
    spec = spectra(3)
    voice, _ = network.eval()(spec, network.initial_state(1))
    elder, _ = network.elder(spec, network.elder.initial_state(1))
    network.belief.fill_(-100)
    own, _ = network(spec, network.initial_state(1))
    torch.testing.assert_close(voice, (own + elder) / 2, atol=1e-4, rtol=1e-4)
