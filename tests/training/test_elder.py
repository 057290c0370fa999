"""Spleeter's network as it is, of which only what is new is made with each hop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("soxr")
pytest.importorskip("scipy")

from spleeter_like import Noise, original  # noqa: E402

from training.elder import LINES, Elder, between, take_over  # noqa: E402
from training.fitting import principal  # noqa: E402
from training.networks import Geometry, UNet, UNetConfig, build, inherit  # noqa: E402
from training.spectra import Frames  # noqa: E402

pytestmark = pytest.mark.train


def spectra(frames: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 2, frames, 1025, 2, generator=generator)


class Alone(Elder):
    """An elder as a network by itself."""

    def forward(self, spec: torch.Tensor, state: list[torch.Tensor]) -> Any:
        mask, state = self.ratios(spec, state)
        return spec * mask[..., None], state


@pytest.fixture(scope="module")
def network() -> Alone:
    torch.manual_seed(0)
    network = Alone().eval()
    network.get_used_to([spectra(20, seed=9)])
    return network


@pytest.mark.parametrize("hop", [512, 256])
@torch.no_grad()
def test_magnitudes_between_the_bins_are_those_of_a_longer_transform(hop: int) -> None:
    geometry = Geometry(synthesis=2 * hop, hop=hop)
    frames = Frames(geometry)
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(1, 2, 2048, generator=generator)
    spec = frames.analyse(audio)[:, :, -1:]
    found = between(spec, Elder(geometry).turn, LINES)[:, :, 0]
    longer = torch.fft.rfft(audio * frames.analysis, n=4096).abs()[..., :LINES]
    # The taps are cut off: 36 dB below what is there, which masks do not notice.
    error = (found - longer).square().mean() / longer.square().mean()
    assert 10 * torch.log10(error) < -30


def test_frame_by_frame_equals_all_at_once(
    network: Alone, streams: Callable[[Any, Any], None]
) -> None:
    streams(network, spectra(40))


@pytest.mark.parametrize("late", [0, 1])
@torch.no_grad()
def test_with_a_pace_every_other_mask_is_made_and_heard_twice(late: int) -> None:
    torch.manual_seed(0)
    half = Elder(Geometry(hop=256), pace=2, late=late).eval()
    assert half.every == Elder().every, "as many masks, of twice as many hops"
    spec = spectra(12)
    heard, _ = half.ratios(spec, half.initial_state(1))
    assert not heard[:, :, :late].any(), "nothing has been made yet"
    for t in range(late, 12, 2):
        assert torch.equal(heard[:, :, t], heard[:, :, min(t + 1, 11)])
        assert t < 2 or not torch.equal(heard[:, :, t], heard[:, :, t - 2])


@pytest.mark.parametrize("late", [0, 1])
def test_with_a_pace_frame_by_frame_equals_all_at_once(
    late: int, streams: Callable[[Any, Any], None]
) -> None:
    torch.manual_seed(0)
    streams(Alone(pace=2, late=late).eval(), spectra(21))


def test_the_future_changes_nothing(
    network: Alone, keeps_to_the_past: Callable[[Any, Any, Any], None]
) -> None:
    keeps_to_the_past(network, spectra(9), spectra(3, seed=2))


@torch.no_grad()
def test_each_mask_is_the_last_of_what_the_original_makes_of_the_newest_64_columns() -> None:
    torch.manual_seed(3)
    teacher = original()
    for part in teacher.modules():  # so that of silence comes nought, as beyond the edges
        if hasattr(part, "bias") and part.bias is not None:
            part.bias.zero_()
        if hasattr(part, "running_mean"):
            part.running_mean.zero_()
    network = Elder(lowest=512, thin=512).eval()
    take_over(network, teacher, [(torch.eye(512),) * 2] * 2, {})
    hops = 64 * network.every
    lines = torch.rand(1, 2, hops, LINES)
    states = dict(zip(network.state_shapes(), network.initial_state(1), strict=True))
    found = network.mask(lines, states)
    for hop in (0, 1, 30, hops - 2, hops - 1):
        window = torch.zeros(1, 2, 64, LINES)
        newest = lines[:, :, hop % network.every : hop + 1 : network.every]
        window[:, :, 64 - newest.shape[2] :] = newest
        expected = teacher(window)[:, :, -1]
        torch.testing.assert_close(found[:, :, hop], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_history_of_noughts_stands_for_what_is_usual() -> None:
    torch.manual_seed(7)
    network = Elder().eval()
    frames = 2 * network.history(3)
    steady = spectra(1, seed=3).expand(-1, -1, frames, -1, -1)
    network.get_used_to([steady])
    mask, states = network.ratios(steady, network.initial_state(1))
    for name, state in zip(network.state_shapes(), states, strict=True):
        if name.startswith("state_past"):
            torch.testing.assert_close(state, torch.zeros_like(state), atol=1e-4, rtol=0, msg=name)
    assert (mask[:, :, 0] - mask[:, :, -1]).abs().max() < 1e-3, "as if it had always been there"


@torch.no_grad()
def test_what_is_principal_is_kept() -> None:
    torch.manual_seed(5)
    teacher, lines = original(), torch.rand(1, 2, 140, LINES)

    def made(sizes: tuple[int, int], chance: bool = False) -> torch.Tensor:
        network = Elder(lowest=sizes[0], thin=sizes[1]).eval()
        bases, axes = principal(teacher, Noise(140), 1, sizes)
        if chance:
            turned = [torch.linalg.qr(torch.randn(512, size))[0] for size in sizes]
            bases = [(turn, turn.T) for turn in turned]
        take_over(network, teacher, bases, axes)
        states = dict(zip(network.state_shapes(), network.initial_state(1), strict=True))
        return network.mask(lines, states)[:, :, -8:]

    exact = made((512, 512))
    missed = (made((128, 128)) - exact).square().mean()
    by_chance = (made((128, 128), chance=True) - exact).square().mean()
    assert missed < 0.5 * by_chance


@torch.no_grad()
def test_a_narrow_layer_keeps_what_is_principal_of_its_outputs() -> None:
    torch.manual_seed(6)
    teacher, lines = original(), torch.rand(1, 2, 8, LINES)
    bases, axes = principal(teacher, Noise(140), 1)
    networks = [Elder().eval(), Elder(pace=2).eval()]
    made: list[list[torch.Tensor]] = [[], []]
    for network, outputs in zip(networks, made, strict=True):
        take_over(network, teacher, bases, axes)
        part = network.widen["4"] if network.pace > 1 else network.down[4]
        part.register_forward_hook(lambda _, __, y, outputs=outputs: outputs.append(y))
        states = dict(zip(network.state_shapes(), network.initial_state(1), strict=True))
        network.mask(lines[:, :, :1], states)
    (wide,), (narrow,) = made
    assert narrow.shape == wide.shape
    assert (narrow - wide).square().mean() < 0.5 * wide.var()


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
    network.train()  # whether they agree does not matter then
    voice, _ = network(spec, network.initial_state(1))
    mask, _ = network.elder.ratios(spec, network.elder.initial_state(1))
    elder = spec * mask[..., None]
    network.belief.fill_(-100)
    own, _ = network(spec, network.initial_state(1))
    torch.testing.assert_close(voice, (own + elder) / 2, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_agreement_of_two_opinions() -> None:
    torch.manual_seed(0)
    network = UNet(UNetConfig(channels=(8, 8, 8, 16), blocks=1, elder=True, accord=0.5)).eval()
    level, start = torch.ones(1, 400), torch.zeros(1, 2)
    one, other = (spectra(400, seed)[..., :100, :] for seed in (1, 2))
    same, state = network.agreement(one, one, level, start)
    torch.testing.assert_close(same, torch.ones_like(same))
    split = torch.arange(100)[:, None] < 50
    apart, _ = network.agreement(one * split, other * ~split, level, state)
    assert (apart.diff() < 0).all(), "the longer they differ, the less is heard"
    assert float(apart[0, -1]) < 0.05
    louder, _ = network.agreement(30 * one, 30 * other, 30 * level, start)
    torch.testing.assert_close(louder, network.agreement(one, other, level, start)[0])
    silent, _ = network.agreement(0 * one, 0 * other, level, start)
    torch.testing.assert_close(silent, torch.ones_like(silent))
