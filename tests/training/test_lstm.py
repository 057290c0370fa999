"""The recurrent network streams as it trains, learns, and stays within bounds for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from training.losses import separation_loss  # noqa: E402
from training.lstm import GatedUnit, Recurrent, RecurrentConfig  # noqa: E402
from training.networks import Geometry  # noqa: E402
from training.optimisers import optimisers  # noqa: E402
from training.spectra import Frames  # noqa: E402

pytestmark = pytest.mark.train

SMALL = RecurrentConfig(width=32, layers=2, local=8, elder=False)


def spectra(frames: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 2, frames, 1025, 2, generator=generator)


@pytest.fixture(scope="module")
def network() -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(SMALL).eval()


def test_frame_by_frame_equals_all_at_once(
    network: Recurrent, streams: Callable[[Any, Any], None]
) -> None:
    streams(network, spectra(40))


def test_frame_by_frame_equals_all_at_once_with_an_elder(
    streams: Callable[[Any, Any], None],
) -> None:
    torch.manual_seed(0)
    streams(Recurrent(replace(SMALL, elder=True)).eval(), spectra(21))


@torch.no_grad()
def test_level_does_not_matter_and_silence_stays_silence(network: Recurrent) -> None:
    spec = spectra(12)
    spec[:, :, 9:] = 0
    loud, _ = network(spec, network.initial_state(1))
    soft, _ = network(0.01 * spec, network.initial_state(1))
    torch.testing.assert_close(100 * soft, loud, atol=1e-3, rtol=1e-3)
    assert loud[:, :, :9].any()
    assert not loud[:, :, 9:].any()


@torch.no_grad()
def test_the_written_out_step_is_the_unit() -> None:
    unit = GatedUnit(16)
    x, memory = torch.randn(3, 9, 16), torch.rand(3, 16) * 2 - 1
    whole, last = unit(x, memory)
    for t in range(9):
        y, memory = unit(x[:, t : t + 1], memory)
        torch.testing.assert_close(y[:, 0], whole[:, t])
    torch.testing.assert_close(memory, last)


@torch.no_grad()
def test_memories_are_bounded(network: Recurrent) -> None:
    """Whatever the weights have become: nothing accumulates."""
    wild = Recurrent(SMALL).eval()
    for weight in wild.parameters():
        weight.mul_(10)
    _, state = wild(100 * spectra(300), wild.initial_state(1))
    assert all(memory.abs().max() <= 1.0 for memory in state[1:])


def test_it_learns_a_batch() -> None:
    torch.manual_seed(0)
    geometry = Geometry()
    frames, cut = Frames(geometry), geometry.synthesis - geometry.hop
    time = torch.arange(60 * geometry.hop) / 44100
    voice = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (523.0, 880.0)])
    voice = 0.2 * (torch.sin(2 * torch.pi * 3 * time) > 0) * voice[:, None].expand(-1, 2, -1)
    mix = voice + 0.2 * torch.randn(2, 2, 60 * geometry.hop)
    network = Recurrent(SMALL)
    crew = optimisers(network)
    picks = torch.Generator().manual_seed(0)
    reached = []
    for _ in range(30):
        spec, _ = network(frames.analyse(mix), network.initial_state(2))
        estimate = frames.synthesise(spec)[..., :-cut]
        loss, parts = separation_loss(estimate, voice[..., :-cut], mix[..., :-cut], picks)
        network.zero_grad()
        loss.backward()
        for optimiser, factor in crew:
            for group in optimiser.param_groups:
                group["lr"] = 8e-3 * factor
            optimiser.step()
        reached.append(parts["sdr"])
    assert reached[-1] > reached[0] + 1
