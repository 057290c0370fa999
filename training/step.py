"""One frame of a network, as it is exported: the same sums in fewer and larger operations.

A frame is small, so that what its graph costs is half overhead: of the hundreds of nodes, of copies
and of loops over pairs.  Here real and imaginary parts lie apart, bins next to each other; what is
constant is folded into the weights; nothing is computed that no one hears.  `training.export`
proves that the outcome is that of the network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.elder import Elder
from training.elder_step import PacedStep, WholeStep
from training.lstm import Recurrent
from training.networks import (
    AGREED,
    FAST_HEADROOM,
    LEVEL_FLOOR,
    SLOPE,
    Agreement,
    Block,
    Kept,
    Prior,
    RunningLevel,
    UNet,
    constant,
)

Shapes = dict[str, tuple[int, ...]]
States = dict[str, Tensor]
ELDER = "state_elder_"


class Step(nn.Module):
    """`spec [batch, 2, bins, 2]` and states in, `stems [batch, 1, 2, bins, 2]` and states out.

    A network with a waveform branch takes `samples [batch, 2, hop]` besides, and gives `waves
    [batch, 1, 2, hop]`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.waves = network.waves

    def state_shapes(self) -> Shapes:
        """Names and shapes of the states, without the batch axis, in order."""
        return self.network.state_shapes()

    def forward(self, spec: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        voice, after = self.network(spec.unsqueeze(2), list(rest))
        return voice.transpose(1, 2), *after


def step(network: nn.Module) -> Step:
    """The step of a network."""
    if isinstance(network, UNet):
        return UNetStep(network)
    if isinstance(network, Recurrent) and network.config.elder:
        return RecurrentStep(network)
    return Step(network)


def elder_step(elder: Elder) -> WholeStep | PacedStep:
    """The step of an elder."""
    return PacedStep(elder) if elder.pace > 1 else WholeStep(elder)


def with_elder(shapes: Shapes, elder: nn.Module) -> Shapes:
    """Those of a network's states, of which the elder's step has others."""
    shapes = {key: shape for key, shape in shapes.items() if not key.startswith(ELDER)}
    return shapes | {f"{ELDER}{key}": shape for key, shape in elder.state_shapes().items()}


def heard(elder: nn.Module, planes: Tensor, level: Tensor, states: States) -> Tensor:
    """An elder's mask `[batch, 2, bins]`, of music of a level `[batch, 1]`."""
    own = {key.removeprefix(ELDER): states[key] for key in states if key.startswith(ELDER)}
    mask = elder(planes, (elder.loudness / level)[..., None, None], own)
    states |= {f"{ELDER}{key}": value for key, value in own.items()}
    return mask


class LevelStep(nn.Module):
    """As `RunningLevel`, of one frame."""

    def __init__(self, level: RunningLevel) -> None:
        super().__init__()
        rates = torch.tensor([level.slow, level.slow, level.fast])
        self.register_buffer("keep", 1 - rates)
        self.register_buffer("gain", rates * torch.tensor([1.0, 0.0, 1.0]))
        self.register_buffer("rise", rates * torch.tensor([0.0, 1.0, 0.0]))

    def forward(self, power: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """`power` `[batch, 1]` → amplitude reference `[batch, 1]`, next state."""
        state = state * self.keep + (power * self.gain + self.rise)
        slow, weight, fast = state.split(1, -1)
        return torch.sqrt(torch.maximum(slow / weight, fast / FAST_HEADROOM) + LEVEL_FLOOR), state


def _block(block: Block, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """As `block`, of `x` `[batch, positions, width]`."""
    z, c, gate = block.time_in(block.time_norm(x)).split(block.width, -1)
    h = memory + torch.sigmoid(z) * (torch.tanh(c) - memory)
    x = x + block.time_out(h * F.leaky_relu(gate, SLOPE))
    mixed = block.place_in @ block.place_norm(x) + block.place_bias
    x = x + block.place_out @ F.leaky_relu(mixed, SLOPE)
    up, gate = block.channel_in(block.channel_norm(x)).split(2 * block.width, -1)
    return x + block.channel_out(up * F.leaky_relu(gate, SLOPE)), h


class PriorStep(nn.Module):
    """As `Prior`; only bands of several bins are averaged by a matrix."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior
        used = prior.averages.sum(1).nonzero().squeeze(1).tolist()
        single = int((prior.averages.count_nonzero(0) == 1).cumprod(0).sum())
        self.split = used[0], single, len(used) - single, len(prior.band) - used[-1] - 1
        averages = prior.averages[used[0] + single : used[-1] + 1, single:]
        self.register_buffer("averages", averages.clone())

    def forward(self, power: Tensor) -> Tensor:
        _, single, several, _ = power.split(self.split, -1)
        return self.prior.widened(
            self.prior.share(torch.cat([single, several @ self.averages], -1))
        )


def _by_plane(weight: Tensor, size: int, order: Sequence[int]) -> Tensor:
    """Columns of a patch's features, bin by bin, as columns feature by feature in the `order`."""
    return weight.unflatten(1, (size, -1))[:, :, list(order)].transpose(1, 2).flatten(1)


class AgreementStep(nn.Module):
    """As `Agreement`, of one frame."""

    def __init__(self, agreement: Agreement) -> None:
        super().__init__()
        self.rate, self.accord = agreement.rate, agreement.accord

    def forward(
        self, one: Tensor, other: Tensor, level: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Planes `[batch, 2, 2, bins]`, level `[batch, 1]` → `[batch, 1, 1, 1]`; the next state."""
        powers = torch.stack([one, other]).square().sum(3) + 1e-20
        one, other = torch.sqrt(powers).split(1)
        both = torch.cat([one * other, ((one + other) / 2).square()]).sum((2, 3))
        both = both.T / level.square() + AGREED
        state = state + self.rate * (both - state)
        product, mean = state.split(1, 1)
        return ((product / mean) ** self.accord).reshape(-1, 1, 1, 1), state


class UNetStep(Step):
    """One frame of a U-Net, or of a hybrid."""

    # Per bin: roots of mid and side, real and imaginary part of mid and of side, prior, elder.
    ORDER = (0, 3, 1, 2, 4, 5, 6, 7)

    @torch.no_grad()
    def __init__(self, network: UNet) -> None:
        super().__init__(network)
        config, (first, *_) = network.config, network.config.channels
        self.level = LevelStep(network.level)
        self.prior = PriorStep(network.prior) if config.prior else None
        self.elder = elder_step(network.elder) if config.elder else None
        agreement = network.agreement if config.elder else None
        self.agreement = None if agreement is None else AgreementStep(agreement)
        order = self.ORDER[: config.features]
        self.embed, self.out, self.out_bias = (nn.ParameterList() for _ in range(3))
        for i, (_, _, size) in enumerate(config.patches):
            self.embed.append(_by_plane(network.embed[i].weight, size, order))
            weight = network.out[i].weight
            weight = torch.cat([weight[:, :first], _by_plane(weight[:, first:], size, order)], 1)
            weight, bias = (
                tensor.unflatten(0, (size, 4)).transpose(0, 1).flatten(0, 1)
                for tensor in (weight, network.out[i].bias)
            )
            if config.elder:  # how far it is believed is a fifth plane
                gate = network.gate[i]
                weight = torch.cat([weight, F.pad(gate.weight, (0, weight.shape[1] - first))])
                bias = torch.cat([bias, gate.bias])
            self.out.append(weight)
            self.out_bias.append(bias)
        self.down = nn.ParameterList(
            torch.cat(down.conv.weight.split(1, 2), 1) for down in network.down
        )
        if config.prior:
            # Its part of the mask, of what is twice as loud: real, and of the heard bins only.
            part = torch.sigmoid(network.trust[:, 0])
            part = F.pad(part, (0, len(network.prior.band) - len(part)))
            self.register_buffer("trust", torch.stack([part / 2, torch.zeros_like(part)]))

    def state_shapes(self) -> Shapes:
        shapes = self.network.state_shapes()
        return shapes if self.elder is None else with_elder(shapes, self.elder)

    def forward(self, spec: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        given = list(rest)
        samples = given.pop(0) if self.waves else None
        states = dict(zip(self.state_shapes(), given, strict=True))
        network = self.network
        x, kept = self.encode(spec, states)
        if samples is None:
            stems, _ = self.decode(self.remember(x, states), kept, states)
            return stems, *states.values()
        bottom = int(x.shape[1])
        both = _turned(samples).unsqueeze(2) / 2
        own, windows = network.waveform(both, kept.level, states)
        x = self.remember(torch.cat([x, own.squeeze(1)], 1), states)
        x, own = x.split([bottom, network.waveform.positions], 1)
        stems, gain = self.decode(x, kept, states)
        if gain is not None:
            windows = windows * gain.unsqueeze(4)
        own = network.waveform.back(own.unsqueeze(1), windows, states)
        return stems, _turned(own.squeeze(2)).unsqueeze(1), *states.values()

    def encode(self, spec: Tensor, states: States) -> tuple[Tensor, Kept]:
        """Down to `[batch, positions, width]`, and what `decode` needs besides."""
        network, config = self.network, self.network.config
        (bins,) = constant(spec.shape[2:3])
        planes = _apart(spec)
        both = _turned(planes)
        power = both.square().sum(2)
        mean = power.mean((1, 2)).unsqueeze(1) / 2
        level, states["state_level"] = self.level(mean, states["state_level"])
        inverse = (0.5 / level).unsqueeze(2)
        loudness = power * inverse.square()
        root = torch.sqrt(torch.sqrt(loudness + 1e-8))
        features = [root, (both * (inverse / root).unsqueeze(2)).reshape(-1, 4, bins)]
        prior = elder = None
        if self.prior is not None:
            prior = self.prior(loudness.sum(1, keepdim=True))
            features.append(prior)
        if self.elder is not None:
            elder = heard(self.elder, planes, level, states)
            features.append(elder.mean(1, keepdim=True))
        counts = [(end - start) // size for start, end, size in config.patches]
        sizes = [end - start for start, end, _ in config.patches]
        pieces = torch.cat(features, 1).split([*sizes, bins - sum(sizes)], -1)
        folded = [
            piece.reshape(-1, config.features, count, size)
            .transpose(1, 2)
            .reshape(-1, count, config.features * size)
            for piece, count, (_, _, size) in zip(pieces, counts, config.patches, strict=False)
        ]
        biases = [
            layer.bias.expand(count, -1) for layer, count in zip(network.embed, counts, strict=True)
        ]
        position = network.position + torch.cat(biases)
        embedded = [F.linear(x, weight) for x, weight in zip(folded, self.embed, strict=True)]
        x = (torch.cat(embedded, 1) + position).transpose(1, 2).unsqueeze(2)
        skips = []
        for i, (weight, down) in enumerate(zip(self.down, network.down, strict=True)):
            before, states[f"state_down_{i}"] = states[f"state_down_{i}"], x
            conv = down.conv
            x = F.conv2d(torch.cat([before, x], 1), weight, conv.bias, conv.stride, conv.padding)
            x = F.leaky_relu(x, SLOPE)
            if str(i) in network.upper:
                name = f"state_upper_{i}"
                x, states[name] = _block(
                    network.upper[str(i)], x.squeeze(2).transpose(1, 2), states[name]
                )
                x = x.transpose(1, 2).unsqueeze(2)
            skips.append(x)
        x = skips.pop().squeeze(2).transpose(1, 2) + network.bottom_position
        return x, Kept(planes, both, level, prior, elder, folded, skips)

    def remember(self, x: Tensor, states: States) -> Tensor:
        """Through the blocks at the bottom."""
        for i, block in enumerate(self.network.blocks):
            x, states[f"state_memory_{i}"] = _block(block, x, states[f"state_memory_{i}"])
        return x

    def decode(self, x: Tensor, kept: Kept, states: States) -> tuple[Tensor, Tensor | None]:
        """The stems from the bottom; and by what they were multiplied, if by anything."""
        network, config = self.network, self.network.config
        x = x.transpose(1, 2).unsqueeze(2)
        for up, skip in zip(network.up, reversed(kept.skips), strict=True):
            width, positions = constant([skip.shape[1], x.shape[3]])
            wide = up.conv(x).reshape(-1, 2, width, positions).permute(0, 2, 3, 1)
            x = F.leaky_relu(wide.reshape(-1, width, 1, 2 * positions) + skip, SLOPE)
        refine = network.refine
        x = F.conv2d(x, refine.weight, refine.bias, 1, refine.padding)
        x = F.leaky_relu(x, SLOPE).reshape(-1, config.channels[0], config.positions).transpose(1, 2)
        counts = [(end - start) // size for start, end, size in config.patches]
        parts = []
        for place, own, weight, bias, count, (_, _, size) in zip(
            x.split(counts, 1),
            kept.folded,
            self.out,
            self.out_bias,
            counts,
            config.patches,
            strict=True,
        ):
            out = F.linear(torch.cat([place, own], 2), weight, bias)
            planes = len(bias) // size
            out = out.reshape(-1, count, planes, size).transpose(1, 2)
            parts.append(out.reshape(-1, planes, count * size))
        (bins,) = constant(kept.both.shape[3:])
        out = F.pad(torch.cat(parts, 2), (0, bins - config.patches[-1][1]))
        mask, belief = out.split([4, 1], 1) if self.elder is not None else (out, None)
        mask = torch.tanh(mask).reshape(-1, 2, 2, bins)
        if kept.prior is not None:
            part = self.trust
            mask = mask * (1 - 2 * part[0]) + kept.prior.unsqueeze(1) * part
        # The complex product, by real and by imaginary part of the spectra.
        real, imaginary = kept.both.split(1, 2)
        mask_real, mask_imaginary = mask.split(1, 2)
        voice = real * mask + imaginary * torch.cat([-mask_imaginary, mask_real], 2)
        voice = _turned(voice)
        gain = None
        if belief is not None:
            part = torch.sigmoid(belief + network.belief).unsqueeze(1)
            other = kept.spec * kept.elder.unsqueeze(2)
            blend = voice + part * (other - voice)
            if self.agreement is not None:
                name = "state_agreement"
                gain, states[name] = self.agreement(voice, other, kept.level, states[name])
                blend = blend * gain
            voice = blend
        return voice.reshape(-1, 2, bins).transpose(1, 2).reshape(-1, 1, 2, bins, 2), gain


class RecurrentStep(Step):
    """One frame of a recurrent network that has an elder."""

    def __init__(self, network: Recurrent) -> None:
        super().__init__(network)
        self.elder = elder_step(network.elder)
        self.agreement = AgreementStep(network.agreement)

    def state_shapes(self) -> Shapes:
        return with_elder(self.network.state_shapes(), self.elder)

    def forward(self, spec: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        states = dict(zip(self.state_shapes(), rest, strict=True))
        network = self.network
        voice, level = network.own(spec.unsqueeze(2), states)
        one, planes = _apart(voice.squeeze(2)), _apart(spec)
        mask = heard(self.elder, planes, level, states)
        other = planes * mask.unsqueeze(2)
        part = torch.sigmoid(network.belief)
        name = "state_agreement"
        gain, states[name] = self.agreement(one, other, level, states[name])
        blend = (one + part * (other - one)) * gain
        (bins,) = constant(spec.shape[2:3])
        stems = blend.transpose(2, 3).reshape(-1, 1, 2, bins, 2)
        return stems, *states.values()


def _apart(spec: Tensor) -> Tensor:
    """`[batch, 2, bins, 2]` → `[batch, 2, 2, bins]`."""
    (bins,) = constant(spec.shape[2:3])
    # Were it not for these shapes, the runtime would put the transposition elsewhere.
    return spec.reshape(-1, bins, 2).transpose(1, 2).reshape(-1, 2, 2, bins)


def _turned(sides: Tensor) -> Tensor:
    """Left and right as mid and side, twice as loud, or mid and side as left and right."""
    one, other = sides.split(1, 1)
    return torch.cat([one + other, one - other], 1)
