"""An elder's large layers of low rank: what stays of them, and that each is exported as two."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("soxr")
pytest.importorskip("scipy")

from spleeter_like import Noise  # noqa: E402

from training.fitting import RANKS, thin  # noqa: E402
from training.networks import Geometry, UNet, UNetConfig  # noqa: E402
from training.step import settle, step  # noqa: E402

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def network() -> UNet:
    torch.manual_seed(0)
    config = UNetConfig(channels=(8, 8, 8, 16), blocks=1, elder="causal")
    network = UNet(config).eval()
    thin(network, Geometry(), Noise(20), 1)
    for weight in network.parameters():  # as a checkpoint keeps them
        weight.data = weight.data.half().float()
    settle(network.elder)
    return network


def test_large_layers_become_two(network: UNet) -> None:
    made = step(network).elder
    for name, rank in RANKS.items():
        way, place = name.split(".")
        kernel, matrix = {"down": made.thin_down, "up": made.thin_up}[way][int(place)]
        assert rank in (len(kernel), len(matrix))
    assert sum(pair is not None for pair in (*made.thin_down, *made.thin_up)) == len(RANKS)


@torch.no_grad()
def test_together_they_are_the_layer(network: UNet) -> None:
    frames = 5
    spec = torch.randn(1, 2, frames, 1025, 2, generator=torch.Generator().manual_seed(1))
    expected, _ = network(spec, network.initial_state(1))
    single = step(network).eval()
    state = [torch.zeros(1, *shape) for shape in single.state_shapes().values()]
    for t in range(frames):
        found, *state = single(spec[:, :, t], *state)
        torch.testing.assert_close(found[:, 0], expected[:, :, t], atol=1e-4, rtol=1e-4)


def test_full_rank_is_left_alone() -> None:
    torch.manual_seed(0)
    network = UNet(UNetConfig(channels=(8, 8, 8, 16), blocks=1, elder="causal"))
    before = [conv.weight.clone() for conv in (*network.elder.down, *network.elder.up)]
    settle(network.elder)
    after = [conv.weight for conv in (*network.elder.down, *network.elder.up)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
