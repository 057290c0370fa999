"""The lightest family: a recurrent network over bands, in the spirit of Open-Unmix.

Magnitudes of mid and side in 230 bands (single bins below 2 kHz, broader ones above) are
compressed to one vector a frame, which remembers; a skip leads around the memory: the mask of each
band is made from what is remembered and from the band and its neighbours themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.elder import Elder
from training.networks import (
    SLOPE,
    Agreement,
    Geometry,
    Prior,
    RunningLevel,
    State,
    advised,
    cast,
    elder_shapes,
    scan,
)

BELIEF = 1.75  # logit of the part of the elder
WITHIN = (0.02, 0.98)  # of the dictionary's mask, so that its odds stay finite


@dataclass(frozen=True)
class RecurrentConfig:
    """`width` of what is remembered, `layers` of leaky memory below the gated recurrent unit.

    `detail` channels a band lead back from the memory, `local` are in the convolution that ends it.
    What comes out is one of two opinions, where there is an `elder` (`training.elder`), which makes
    a mask every `pace` hops; their mean is multiplied by how far they agree to the power of
    `accord`.
    """

    width: int = 256
    layers: int = 2
    detail: int = 4
    local: int = 24
    elder: bool = True
    pace: int = 2
    accord: float = 0.75


class Memory(nn.Module):
    """A gated leaky average of every channel, bounded by ±1; residual (see `networks.Block`)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, 3 * width)
        self.back = nn.Linear(width, width)
        with torch.no_grad():
            # Memories from 1 to 200 frames (2.3 s), evenly in the logarithm.
            frames = torch.logspace(0.05, 2.3, width)
            self.into.bias[:width] = -torch.log(frames[torch.randperm(width)] - 1)
            self.back.weight *= 0.3

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """`x` `[batch, frames, width]`; state `[batch, width]`."""
        z, c, gate = self.into(self.norm(x)).split(self.norm.normalized_shape[0], -1)
        h = scan(torch.sigmoid(z.float()), torch.tanh(c.float()), memory)
        return x + self.back(h.to(gate.dtype) * F.leaky_relu(gate, SLOPE)), h[:, -1]


class GatedUnit(nn.GRU):
    """A gated recurrent unit, whose gates see what is remembered; bounded by ±1 likewise.

    Frame by frame it is written out, so that the exported graph has plain products only.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """As `Memory`, without the residual."""
        with torch.autocast(x.device.type, enabled=False):  # a step is too small for bf16 to pay
            x = x.float()
            if x.shape[1] > 1:
                y, last = super().forward(x, memory[None].contiguous())
                return y, last[0]
            width = self.hidden_size
            now = F.linear(x[:, 0], self.weight_ih_l0, self.bias_ih_l0)
            before = F.linear(memory, self.weight_hh_l0, self.bias_hh_l0)
            gates = torch.sigmoid(now[:, : 2 * width] + before[:, : 2 * width])
            reset, update = gates.split(width, -1)
            new = torch.tanh(now[:, 2 * width :] + reset * before[:, 2 * width :])
            h = new + update * (memory - new)
            return h[:, None], h


class Recurrent(nn.Module):
    """Ratio masks for mid and side from 0 to 2, the same for all bins of a band.

    The mask of the dictionary (see `networks.Prior`) is one feature of three, and where the output
    begins: a mask that began anywhere fell to nought within 200 steps, and stayed there.
    """

    features = 3
    waves = False

    def __init__(
        self, config: RecurrentConfig = RecurrentConfig(), geometry: Geometry | None = None
    ) -> None:
        super().__init__()
        geometry = geometry or Geometry()
        self.config = config
        if config.elder:
            self.elder = Elder(geometry, pace=config.pace).requires_grad_(False)
            self.agreement = Agreement(geometry.hop, config.accord)
            self.belief = nn.Parameter(torch.full((geometry.bins,), BELIEF))
        self.level = RunningLevel(geometry.hop)
        self.prior = Prior()
        bands = self.prior.averages.shape[1]
        self.embed = nn.Linear(self.features * bands, config.width)
        self.layers = nn.ModuleList(Memory(config.width) for _ in range(config.layers))
        self.unit_norm = nn.LayerNorm(config.width)
        self.unit = GatedUnit(config.width)
        self.detail_norm = nn.LayerNorm(config.width)
        self.detail = nn.Linear(config.width, config.detail * bands)
        self.local = nn.Conv2d(self.features + config.detail, config.local, (1, 5), padding=(0, 2))
        self.out = nn.Conv2d(config.local, 2, (1, 3), padding=(0, 1))
        with torch.no_grad():  # begins as the dictionary's mask
            self.out.weight.zero_()
            self.out.bias.zero_()

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the states, without the batch axis, in order."""
        shapes: dict[str, tuple[int, ...]] = {"state_level": RunningLevel.state_shape}
        for i in range(self.config.layers):
            shapes[f"state_memory_{i}"] = (self.config.width,)
        shapes["state_unit"] = (self.config.width,)
        if self.config.elder:
            shapes |= elder_shapes(self.elder)
            shapes["state_agreement"] = Agreement.state_shape
        return shapes

    def initial_state(self, batch: int) -> State:
        return [torch.zeros(batch, *shape) for shape in self.state_shapes().values()]

    def forward(self, spec: Tensor, state: State) -> tuple[Tensor, State]:
        """As `networks.UNet`."""
        states = dict(zip(self.state_shapes(), state, strict=True))
        voice, level = self.own(spec, states)
        if not self.config.elder:
            return voice, list(states.values())
        other = spec * advised(self.elder, spec, states)[..., None]
        blend = voice + torch.sigmoid(self.belief)[:, None] * (other - voice)
        if not self.training:
            name = "state_agreement"
            gain, states[name] = self.agreement(voice, other, level, states[name])
            blend = blend * gain[:, None, :, None, None]
        return blend, list(states.values())

    def own(self, spec: Tensor, states: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The vocals' spectra without the elder, and the level; `states` become the next ones."""
        left, right = spec.unbind(1)
        both = torch.stack([left + right, left - right], 1)  # mid and side, twice as loud
        power = both.square().sum(-1)  # [batch, 2, frames, bins]
        level, states["state_level"] = self.level(power.mean((1, 3)) / 2, states["state_level"])
        with torch.no_grad(), torch.autocast(spec.device.type, enabled=False):
            loudness = (power / (2 * level[:, None, :, None]).square()) @ self.prior.averages
            share = self.prior.share(loudness.sum(1))
            # The fourth root of the amplitude: quiet bands count, silent ones stay at the bottom.
            root = torch.sqrt(torch.sqrt(torch.sqrt(loudness + 1e-8)))
            own = torch.cat([root, share[:, None]], 1)  # [batch, features, frames, bands]
        own = cast(own)
        x = self.embed(own.transpose(1, 2).flatten(2))
        for i, layer in enumerate(self.layers):
            x, states[f"state_memory_{i}"] = layer(x, states[f"state_memory_{i}"])
        y, states["state_unit"] = self.unit(self.unit_norm(x), states["state_unit"])
        detail = self.detail(self.detail_norm(x + y.to(x.dtype)))
        detail = detail.unflatten(-1, (self.config.detail, -1)).transpose(1, 2)
        local = F.leaky_relu(self.local(torch.cat([own, detail.to(own.dtype)], 1)), SLOPE)
        # What is learned moves the odds of the dictionary's mask, [batch, 2, frames, bands].
        share = share[:, None].clamp(*WITHIN)
        mask = 2 * torch.sigmoid(self.out(local).float() + torch.log(share / (2 - share)))
        mid, side = (both * self.prior.widened(mask)[..., None] / 2).unbind(1)
        return torch.stack([mid + side, mid - side], 1), level
