"""The two branches lag alike, stream as they train, and begin as the U-Net they have grown from."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from training.hybrid import MASK_BOUND, Hybrid  # noqa: E402
from training.networks import Agreement, Geometry, UNet, UNetConfig, inherit  # noqa: E402
from training.spectra import Frames  # noqa: E402
from training.step import step  # noqa: E402

pytestmark = pytest.mark.train

GEOMETRY = Geometry()
CUT = GEOMETRY.synthesis - GEOMETRY.hop
SMALL = UNetConfig(channels=(8, 8, 8, 16), blocks=1, upper=(1,))


def noise(hops: int, seed: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(1, 2, hops * 512, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> Hybrid:
    torch.manual_seed(0)
    made = Hybrid(SMALL, GEOMETRY).eval()
    with torch.no_grad():
        made.waveform.masks.weight.normal_(0, 0.3)
    return made


@torch.no_grad()
def test_frame_by_frame_equals_all_at_once(network: Hybrid) -> None:
    frames = Frames(GEOMETRY)
    audio = noise(20)
    spec, hops = frames.analyse(audio), audio.unflatten(-1, (-1, 512))
    voice, waves, last = network(spec, hops, network.initial_state(1))
    assert waves.any()
    state = network.initial_state(1)
    for t in range(20):
        one, wave, state = network(spec[:, :, t : t + 1], hops[:, :, t : t + 1], state)
        torch.testing.assert_close(one, voice[:, :, t : t + 1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(wave, waves[:, :, t : t + 1], atol=1e-6, rtol=1e-4)
    for a, b in zip(state, last, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_an_open_waveform_branch_passes_its_input(network: Hybrid) -> None:
    """Masks of one: the short windows and the long one sum to one, aligned with the spectra."""
    opened = Hybrid(SMALL, GEOMETRY).eval()
    opened.waveform.masks.bias.fill_(math.atanh(1 / MASK_BOUND))
    closed = Hybrid(SMALL, GEOMETRY).eval()
    closed.load_state_dict(opened.state_dict())
    closed.waveform.masks.bias.zero_()
    frames, audio = Frames(GEOMETRY), noise(20)
    with_waves, _ = frames.separate(opened, audio, opened.initial_state(1))
    without, _ = frames.separate(closed, audio, closed.initial_state(1))
    passed = (with_waves - without)[..., :-CUT]
    torch.testing.assert_close(passed, audio[..., :-CUT], atol=1e-5, rtol=0)


@torch.no_grad()
def test_level_does_not_matter_and_silence_stays_silence(network: Hybrid) -> None:
    frames, audio = Frames(GEOMETRY), noise(16)
    audio[..., 8 * 512 :] = 0
    loud, _ = frames.separate(network, audio, network.initial_state(1))
    soft, _ = frames.separate(network, 0.01 * audio, network.initial_state(1))
    torch.testing.assert_close(100 * soft, loud, atol=1e-4, rtol=1e-3)
    assert not loud[..., 12 * 512 : -CUT].any()


@torch.no_grad()
def test_it_begins_as_the_unet_it_has_grown_from() -> None:
    torch.manual_seed(1)
    small = UNet(SMALL).eval()
    grown = Hybrid(SMALL, GEOMETRY).eval()
    inherit(grown, small.state_dict())
    frames, audio = Frames(GEOMETRY), noise(12)
    expected, _ = frames.separate(small, audio, small.initial_state(1))
    found, _ = frames.separate(grown, audio, grown.initial_state(1))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.fixture(scope="module")
def with_elder() -> Hybrid:
    torch.manual_seed(0)
    made = Hybrid(replace(SMALL, elder=True, accord=0.75), GEOMETRY).eval()
    with torch.no_grad():
        made.waveform.masks.weight.normal_(0, 0.3)
    return made


@torch.no_grad()
def test_both_branches_are_as_loud_as_elder_and_network_agree(
    with_elder: Hybrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, audio = with_elder, noise(8)
    spec, hops = Frames(GEOMETRY).analyse(audio), audio.unflatten(-1, (-1, 512))

    def heard(gain: float) -> tuple[torch.Tensor, torch.Tensor]:
        monkeypatch.setattr(
            Agreement,
            "forward",
            lambda _, __, ___, level, state: (torch.full_like(level, gain), state),
        )
        return network(spec, hops, network.initial_state(1))[:2]

    (voice, waves), (half_voice, half_waves) = heard(1.0), heard(0.5)
    assert waves.any()
    torch.testing.assert_close(half_voice, voice / 2)
    torch.testing.assert_close(half_waves, waves / 2)


@torch.no_grad()
def test_step_by_step_equals_all_at_once_with_an_elder(with_elder: Hybrid) -> None:
    network, one, audio = with_elder, step(with_elder), noise(8)
    spec, hops = Frames(GEOMETRY).analyse(audio), audio.unflatten(-1, (-1, 512))
    voice, waves, _ = network(spec, hops, network.initial_state(1))
    states = [torch.zeros(1, *shape) for shape in one.state_shapes().values()]
    for t in range(8):
        stems, wave, *states = one(spec[:, :, t], hops[:, :, t], *states)
        torch.testing.assert_close(stems[:, 0], voice[:, :, t], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(wave[:, 0], waves[:, :, t], atol=1e-5, rtol=1e-3)
