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

from training.elder_step import WholeStep, between, extended, parted
from training.networks import (
    AGREED,
    FAST_HEADROOM,
    LEVEL_FLOOR,
    SLOPE,
    Block,
    Kept,
    Prior,
    RunningLevel,
    UNet,
    constant,
)
from training.nodes import Conv, ConvTranspose
from training.spleeter import BINS, LOUDNESS, Causal, Past

Shapes = dict[str, tuple[int, ...]]
States = dict[str, Tensor]
ELDER = "state_elder_"
# Of the largest singular value: what half precision and what single leaves of noughts.
HALF_NOISE, NOISE = 3e-3, 1e-5


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
    return UNetStep(network) if isinstance(network, UNet) else Step(network)


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


class PastStep(nn.Module):
    """As `Past`, of one frame.

    The state `[batch, delays * width, 1, bands]` holds the averages divided by their rates.  What
    follows is given the newest column and the *next* state, from both of which it could tell the
    one before: `weights` are those that do.
    """

    rates: Tensor

    def __init__(self, past: Past, copies: int = 1) -> None:
        super().__init__()
        self.count = len(past.rates) // past.width
        self.register_buffer("rates", past.rates.repeat_interleave(copies, 0)[..., None])

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """`x` `[batch, width, 1, bands]` → the same with the state below it; the next state."""
        now = torch.cat([x] * self.count, 1) if self.count > 1 else x
        state = state * (1 - self.rates) + now
        return torch.cat([x, state], 1), state

    def weights(self, weight: Tensor, inputs: int = 1) -> Tensor:
        """Those of a convolution of `Past`'s output, whose axis of inputs is named."""
        width = len(self.rates) // self.count
        now, *past = weight.transpose(0, inputs).split(width)
        rates = (self.rates[::width, 0, 0] / (1 - self.rates[::width, 0, 0])).tolist()
        past = [part * rate for part, rate in zip(past, rates, strict=True)]
        return torch.cat([now - sum(past), *past]).transpose(0, inputs)


def _singular(weight: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """Singular vectors and values of `weight.flatten(1)`; None where its rank is too high."""
    rows = weight.flatten(1)
    left, sizes, right = torch.linalg.svd(rows, full_matrices=False)
    rank = int((sizes > noise * sizes[0]).sum())
    if rank * sum(rows.shape) > 0.9 * rows.numel():
        return None
    return left[:, :rank], sizes[:rank], right[:rank]


@torch.no_grad()
def settle(elder: Causal) -> None:
    """Where weights are of low rank but for rounding (`fitting thin`), make them exactly so."""
    for conv in (*elder.down, *elder.up):
        if (found := _singular(conv.weight, HALF_NOISE)) is not None:
            left, sizes, right = found
            conv.weight.copy_((left * sizes @ right).view_as(conv.weight))


def factors(weight: Tensor, inputs: int) -> tuple[Tensor, Tensor] | None:
    """A kernel of low rank as a thinner one and a matrix; None where that would be no cheaper.

    `weight` `[a, b, 1, taps]`, of which the axis named is that of the `inputs`: the matrix follows
    a convolution (1), and comes before a transposed one (0).
    """
    if (found := _singular(weight, NOISE)) is None:
        return None
    left, sizes, right = found
    kernel = (sizes[:, None] * right).view(-1, *weight.shape[1:])
    matrix = left if inputs else left.T
    return kernel.contiguous(), matrix[..., None, None].contiguous()


class ElderStep(nn.Module):
    """As `spleeter.Causal`, of one frame; the level comes from outside.

    Of its bins, those half-way between the spectrum's (odd ones) are channels of their own, and on
    the last level the only ones computed: no mask depends on the others.
    """

    loudness = LOUDNESS

    def __init__(self, elder: Causal) -> None:
        super().__init__()
        self.elder = elder
        self.past_down = nn.ModuleList(
            PastStep(past, 1 if k else 2) for k, past in enumerate(elder.past_down)
        )
        self.past_up = nn.ModuleList(map(PastStep, elder.past_up))
        self.past_out = PastStep(elder.past_out)
        self.register_buffer("first", parted(elder.down[0].weight))
        self.register_buffer("top", elder.up[-1].weight[:, 0, 0, ::2].flip(-1).T.contiguous())
        self.thin_down = [
            factors(past.weights(conv.weight), 1) if k else None
            for k, (conv, past) in enumerate(zip(elder.down, self.past_down, strict=True))
        ]
        self.thin_up = [
            factors(past.weights(conv.weight, 0), 0)
            for conv, past in zip(elder.up, self.past_up, strict=True)
        ]

    def state_shapes(self) -> Shapes:
        shapes = {}
        for k, past in enumerate(self.past_down):
            shapes[f"down_{k}"] = (len(past.rates), 1, BINS >> max(k, 1))
        for k, past in enumerate(self.past_up):
            shapes[f"up_{k}"] = (len(past.rates), 1, BINS >> len(self.past_up) - k)
        return shapes | {"out": (1, 1, BINS // 2)}

    def forward(self, planes: Tensor, scale: Tensor, states: States) -> Tensor:
        """Masks `[batch, 2, bins]` of left and right, whose real and imaginary `planes` are given.

        `planes` `[batch, 2, 2, bins]`; `scale` `[batch, 1, 1, 1]` makes the magnitudes those of the
        usual loudness; `states`, without the "elder", are replaced by the next ones.
        """
        elder = self.elder
        x = between(planes, elder.turn, BINS // 2) * scale
        skips = []
        for k, (conv, past) in enumerate(zip(elder.down, self.past_down, strict=True)):
            x, states[f"down_{k}"] = past(x, states[f"down_{k}"])
            stride = 2 if k else 1
            if (thin := self.thin_down[k]) is not None:
                kernel, matrix = thin
                y = Conv.apply(
                    x, kernel, torch.zeros(len(kernel)), (1, stride), (0, 1), (0, stride)
                )
                y = F.conv2d(y, matrix, conv.bias)
            else:
                weight = past.weights(conv.weight if k else self.first)
                y = Conv.apply(x, weight, conv.bias, (1, stride), (0, 1), (0, stride))
            if k < len(elder.down_affine):
                skips.append(y)
                x = F.leaky_relu(elder.down_affine[k](y), 0.2)
        for k, (conv, past) in enumerate(zip(elder.up, self.past_up, strict=True)):
            x, states[f"up_{k}"] = past(y, states[f"up_{k}"])
            if skips:
                if (thin := self.thin_up[k]) is not None:
                    weight, matrix = thin
                    x = F.conv2d(x, matrix)
                else:
                    weight = past.weights(conv.weight, 0)
                y = ConvTranspose.apply(x, weight, conv.bias, 1, 2)
                y = F.relu(y if k else y + elder.below_bias)
                y = torch.cat([skips.pop(), elder.up_affine[k](y)], 1)
        # A single channel is quicker as products, which are then added up shifted.
        taps = past.weights(self.top)
        products = taps @ x.reshape(-1, taps.shape[1], BINS // 2)
        y = F.relu(
            Conv.apply(
                products.unsqueeze(2),
                torch.eye(3)[None, :, None],
                conv.bias,
                (1, 1),
                (0, 1),
                (0, 1),
            )
        )
        x, states["out"] = self.past_out(elder.up_affine[k](y), states["out"])
        weight = self.past_out.weights(elder.out.weight)
        mask = torch.sigmoid(Conv.apply(x, weight, elder.out.bias, (1, 1), (0, 2), (0, 1)))
        return extended(mask, planes)


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
        kinds = {"causal": ElderStep, "whole": WholeStep}
        self.elder = kinds[config.elder](network.elder) if config.elder else None
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
        if self.elder is None:
            return shapes
        shapes = {key: shape for key, shape in shapes.items() if not key.startswith(ELDER)}
        own = self.elder.state_shapes()
        return shapes | {f"{ELDER}{key}": shape for key, shape in own.items()}

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
            own = {key.removeprefix(ELDER): states[key] for key in states if key.startswith(ELDER)}
            elder = self.elder(planes, 2 * self.elder.loudness * inverse.unsqueeze(3), own)
            states |= {f"{ELDER}{key}": value for key, value in own.items()}
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
            if network.agreeing:
                gain = self.agreement(voice, other, kept.level, states)
                blend = blend * gain
            voice = blend
        return voice.reshape(-1, 2, bins).transpose(1, 2).reshape(-1, 1, 2, bins, 2), gain

    def agreement(self, one: Tensor, other: Tensor, level: Tensor, states: States) -> Tensor:
        """As `UNet.agreement`, of planes `[batch, 2, 2, bins]`: `[batch, 1, 1, 1]`."""
        powers = torch.stack([one, other]).square().sum(3) + 1e-20
        one, other = torch.sqrt(powers).split(1)
        both = torch.cat([one * other, ((one + other) / 2).square()]).sum((2, 3))
        both = both.T / level.square() + AGREED
        name, rate = "state_agreement", self.network.agreeing
        states[name] = states[name] + rate * (both - states[name])
        product, mean = states[name].split(1, 1)
        return ((product / mean) ** self.network.config.accord).reshape(-1, 1, 1, 1)


def _apart(spec: Tensor) -> Tensor:
    """`[batch, 2, bins, 2]` → `[batch, 2, 2, bins]`."""
    (bins,) = constant(spec.shape[2:3])
    # Were it not for these shapes, the runtime would put the transposition elsewhere.
    return spec.reshape(-1, bins, 2).transpose(1, 2).reshape(-1, 2, 2, bins)


def _turned(sides: Tensor) -> Tensor:
    """Left and right as mid and side, twice as loud, or mid and side as left and right."""
    one, other = sides.split(1, 1)
    return torch.cat([one + other, one - other], 1)
