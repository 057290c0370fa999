"""The network is causal, streams as it trains, and forgets nothing on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from training.networks import (  # noqa: E402
    Geometry,
    RunningLevel,
    UNet,
    UNetConfig,
    build,
    complex_product,
    inherit,
    scan,
)
from training.spectra import Frames  # noqa: E402

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(UNetConfig(channels=(8, 8, 8, 16), blocks=1, upper=(1,))).eval()


def spectra(frames: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 2, frames, 1025, 2, generator=generator)


def test_frame_by_frame_equals_all_at_once(
    network: UNet, streams: Callable[[Any, Any], None]
) -> None:
    streams(network, spectra(20))


def test_the_future_changes_nothing(
    network: UNet, keeps_to_the_past: Callable[[Any, Any, Any], None]
) -> None:
    keeps_to_the_past(network, spectra(12), spectra(4, seed=2))


@torch.no_grad()
def test_level_does_not_matter(network: UNet) -> None:
    spec = spectra(12)
    loud, _ = network(spec, network.initial_state(1))
    soft, _ = network(0.01 * spec, network.initial_state(1))
    torch.testing.assert_close(100 * soft, loud, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_silence_stays_silence(network: UNet) -> None:
    spec = spectra(6)
    spec[:, :, 3:] = 0
    voice, _ = network(spec, network.initial_state(1))
    assert not voice[:, :, 3:].any()


def test_states_have_the_declared_shapes() -> None:
    network, geometry = build("unet")
    _, state = network(torch.zeros(2, 2, 1, geometry.bins, 2), network.initial_state(2))
    shapes = [(2, *shape) for shape in network.state_shapes().values()]
    assert [tuple(s.shape) for s in state] == shapes


def test_scan_has_the_gradient_of_its_recurrence() -> None:
    torch.manual_seed(0)
    z = torch.rand(2, 6, 3, dtype=torch.float64, requires_grad=True)
    c = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    first = torch.randn(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z, c: scan(z, c, first), (z, c))


def test_running_level_is_right_from_the_first_frame() -> None:
    level, _ = RunningLevel()(torch.full((1, 50), 4.0), torch.zeros(1, 3))
    torch.testing.assert_close(level, torch.full((1, 50), 2.0))


def test_complex_product_is_one() -> None:
    a, b = torch.randn(5, 2), torch.randn(5, 2)
    expected = torch.view_as_real(torch.view_as_complex(a) * torch.view_as_complex(b))
    torch.testing.assert_close(complex_product(a, b), expected)


@pytest.mark.parametrize(
    "geometry", [Geometry(), Geometry(2048, 512, 256), Geometry(1024, 512, 128)]
)
def test_frames_reconstruct_the_segment(geometry: Geometry) -> None:
    audio = torch.randn(2, 2, 40 * geometry.hop)
    frames = Frames(geometry)
    again = frames.synthesise(frames.analyse(audio))
    cut = geometry.synthesis - geometry.hop
    torch.testing.assert_close(again[..., :-cut], audio[..., :-cut], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_grown_network_starts_where_the_small_one_ended() -> None:
    torch.manual_seed(0)
    small = UNet(UNetConfig(channels=(8, 8, 8, 16), blocks=1)).eval()
    grown = UNet(UNetConfig(channels=(8, 8, 8, 16), blocks=2, upper=(1, 2))).eval()
    inherit(grown, small.state_dict())
    spec = spectra(6)
    expected, _ = small(spec, small.initial_state(1))
    torch.testing.assert_close(grown(spec, grown.initial_state(1))[0], expected)
    with pytest.raises(ValueError, match="another network"):
        inherit(small, grown.state_dict())


@torch.no_grad()
def test_half_the_hop_keeps_the_memories_as_long() -> None:
    small = UNet(UNetConfig(channels=(8, 8, 8, 16), blocks=1))
    live = UNet(UNetConfig(channels=(8, 8, 8, 16), blocks=1), Geometry(hop=256))
    inherit(live, small.state_dict(), 0.5)
    frames = [1 / torch.sigmoid(n.blocks[0].time_in.bias[:16]).min() for n in (small, live)]
    assert float(frames[1] / frames[0]) == pytest.approx(2, rel=0.02)
    assert live.level.slow == small.level.slow / 2
