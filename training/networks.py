"""Causal separation networks that run alike over a whole segment and frame by frame.

Every network maps mixture spectra `[batch, 2, frames, bins, 2]` (stereo; real, imaginary) and a
list of states to vocal spectra of the same shape and the next states, of hundreds of frames or of
one.  What is exported is `training.step`: the same sums, arranged for a single frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realtime_sep.dsp.bands import band_edges

State = list[Tensor]

LEVEL_FLOOR = 1e-7  # power per bin: about −100 dBFS, so that silence is not blown up
SLOW, FAST = 102_400, 2_560  # time constants of the two running powers, samples (2.3 s, 58 ms)
FAST_HEADROOM = 8.0  # a sudden onset exceeds the reference by at most 9 dB
AGREEING = 25_600  # time constant of the agreement, samples (0.6 s)
AGREED = 1e-3  # power, in parts of the level, that counts as agreed: more than nothing is heard
SLOPE = 0.1  # of the leaky rectifiers: a third of the cost of SiLU backwards on a CPU


@dataclass(frozen=True)
class Geometry:
    """Analysis length, synthesis length and hop in samples; look-ahead in frames."""

    n_fft: int = 2048
    synthesis: int = 1024
    hop: int = 512
    lookahead: int = 0

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1


class _Scan(torch.autograd.Function):
    """`h[t] = h[t-1] + z[t] (c[t] - h[t-1])` over the second axis, one kernel a step each way."""

    @staticmethod
    def forward(ctx, z: Tensor, c: Tensor, first: Tensor) -> Tensor:
        states = torch.empty_like(c)
        last = first
        for rate, candidate, state in zip(z.unbind(1), c.unbind(1), states.unbind(1), strict=True):
            last = torch.lerp(last, candidate, rate, out=state)
        ctx.save_for_backward(z, c, first, states)
        return states

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        z, c, first, states = ctx.saved_tensors
        keep, total = 1 - z, torch.empty_like(states)
        total[:, -1] = gradient[:, -1]
        for t in range(c.shape[1] - 2, -1, -1):
            torch.addcmul(gradient[:, t], total[:, t + 1], keep[:, t + 1], out=total[:, t])
        to_z = torch.empty_like(total)
        torch.sub(c[:, 1:], states[:, :-1], out=to_z[:, 1:])
        torch.sub(c[:, 0], first, out=to_z[:, 0])
        return to_z.mul_(total), total.mul_(z), None


def scan(z: Tensor, c: Tensor, first: Tensor) -> Tensor:
    """Leaky average of `c` with rates `z`, both `[batch, frames, …]`, from the state `first`."""
    if c.shape[1] == 1:
        return (first + z[:, 0] * (c[:, 0] - first))[:, None]
    return _Scan.apply(z.contiguous(), c.contiguous(), first)


class RunningLevel(nn.Module):
    """Causal reference level: slow running power, lifted quickly at onsets.

    The slow power is bias-corrected (its weight is part of the state), so that it is right from
    the first frame on and needs no initial value but zero.
    """

    state_shape = (3,)

    def __init__(self, hop: int = 512) -> None:
        super().__init__()
        self.slow, self.fast = hop / SLOW, hop / FAST  # shares of the newest frame

    def forward(self, power: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """`power` `[batch, frames]` → amplitude reference of the same shape, next state.

        No gradient: the input alone decides.
        """
        power = power.detach().float()
        slow, weight, fast = state.unbind(-1)
        levels = []
        for t in range(power.shape[1]):
            now = power[:, t]
            slow = slow + self.slow * (now - slow)
            weight = weight + self.slow * (1 - weight)
            fast = fast + self.fast * (now - fast)
            levels.append(torch.maximum(slow / weight, fast / FAST_HEADROOM))
        reference = torch.sqrt(torch.stack(levels, 1) + LEVEL_FLOOR)
        return reference, torch.stack([slow, weight, fast], -1)


def complex_product(a: Tensor, b: Tensor) -> Tensor:
    """Product of complex numbers kept as a last axis of two."""
    product = torch.view_as_complex(a.contiguous()) * torch.view_as_complex(b.contiguous())
    return torch.view_as_real(product)


def constant(sizes: Sequence[int]) -> list[int]:
    """Sizes as plain numbers: constants of the exported graph, which is for one frame at a time."""
    return [int(size) for size in sizes]


def cast(x: Tensor) -> Tensor:
    """`x` in the type of the matrix products: bf16 under autocast, once instead of in each."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class Block(nn.Module):
    """Memory over time per position, then mixing over positions and channels; all residual.

    The memory is a gated leaky average: its gates depend on the input alone, so that all frames
    of a segment go through the large matrices at once, and it is bounded by ±1 for ever.
    """

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.time_norm = nn.LayerNorm(width)
        self.time_in = nn.Linear(width, 3 * width)
        self.time_out = nn.Linear(width, width)
        self.place_norm = nn.LayerNorm(width)
        self.place_in = nn.Parameter(torch.randn(2 * positions, positions) / math.sqrt(positions))
        self.place_bias = nn.Parameter(torch.zeros(2 * positions, 1))
        self.place_out = nn.Parameter(
            torch.randn(positions, 2 * positions) * 0.3 / math.sqrt(2 * positions)
        )
        self.channel_norm = nn.LayerNorm(width)
        self.channel_in = nn.Linear(width, 4 * width)
        self.channel_out = nn.Linear(2 * width, width)
        with torch.no_grad():
            # Memories from 1 to 200 frames (2.3 s), evenly in the logarithm.
            frames = torch.logspace(0.05, 2.3, width)
            self.time_in.bias[:width] = -torch.log(frames[torch.randperm(width)] - 1)
            for layer in (self.time_out, self.channel_out):
                layer.weight *= 0.3

    @torch.no_grad()
    def silence(self) -> None:
        """Make it the identity: it still learns, from the outputs inwards."""
        for layer in (self.time_out, self.channel_out):
            layer.weight.zero_()
            layer.bias.zero_()
        self.place_out.zero_()

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """`x` `[batch, frames, positions, width]`; state `[batch, positions, width]`."""
        z, c, gate = self.time_in(self.time_norm(x)).split(self.width, -1)
        h = scan(torch.sigmoid(z.float()), torch.tanh(c.float()), memory)
        x = x + self.time_out(h.to(gate.dtype) * F.leaky_relu(gate, SLOPE))
        places = self.place_norm(x).transpose(-1, -2)
        mixed = F.leaky_relu(F.linear(places, self.place_in, self.place_bias.squeeze(1)), SLOPE)
        x = x + F.linear(mixed, self.place_out).transpose(-1, -2)
        up, gate = self.channel_in(self.channel_norm(x)).split(2 * self.width, -1)
        return x + self.channel_out(up * F.leaky_relu(gate, SLOPE)), h[:, -1]


class Prior(nn.Module):
    """The mask that the trained dictionary of the `nmf` separator finds for a frame by itself.

    Sums of known spectra cannot learn an act by heart, so this mask errs at other places than a
    network's.  It is frozen: neither its atoms nor its input get a gradient.
    """

    EXPONENT, LEAST = 0.3, 1e-20  # as in `separators.nmf`

    def __init__(self, n_fft: int = 2048, samplerate: int = 44100) -> None:
        super().__init__()
        path = files("realtime_sep.separators") / "dictionaries" / "kl.npz"
        with path.open("rb") as file, np.load(file) as stored:
            self.updates, self.voices = int(stored["updates"]), len(stored["voice"])
            atoms = np.concatenate([stored["voice"], stored["music"]]).astype(np.float32)
            exponent, offset = stored["exponent"], stored["offset"]
        edges = band_edges(n_fft, samplerate)
        # Band of every bin; the last goes on to the end, and bin 0 is no voice's.
        band = np.searchsorted(edges, np.arange(n_fft // 2 + 1), "right") - 1
        averages = np.zeros((n_fft // 2 + 1, len(edges) - 1), np.float32)
        inside = (np.arange(len(band)) >= edges[0]) & (np.arange(len(band)) < edges[-1])
        averages[np.flatnonzero(inside), band[inside]] = 1
        sounding = (np.arange(len(band)) >= edges[0]).astype(np.float32)
        for name, value in {
            "atoms": atoms / atoms.sum(1, keepdims=True),
            "exponent": exponent,
            "offset": offset,
            "averages": averages / averages.sum(0),
            "sounding": sounding,
            "band": np.clip(band, 0, len(edges) - 2),
        }.items():
            self.register_buffer(name, torch.from_numpy(value))

    @torch.no_grad()
    def forward(self, power: Tensor) -> Tensor:
        """`power` `[batch, frames, bins]` of a level about one → mask of the same shape, 0 to 1."""
        with torch.autocast(power.device.type, enabled=False):
            return self.widened(self.share(power.float() @ self.averages))

    def share(self, bands: Tensor) -> Tensor:
        """Mean power of every band, float32 `[…, bands]` → the voice's share of it."""
        v = bands.clamp_min(self.LEAST) ** self.EXPONENT
        v = v / v.mean(-1, keepdim=True)
        h = v.sum(-1, keepdim=True) / len(self.atoms) * self.atoms.new_ones(len(self.atoms))
        for _ in range(self.updates):
            h = h * ((v / (h @ self.atoms + 1e-7)) @ self.atoms.T)
        voice = h[..., : self.voices] @ self.atoms[: self.voices]
        music = h[..., self.voices :] @ self.atoms[self.voices :]
        odds = torch.log(voice + 1e-9) - torch.log(music + 1e-9)
        return torch.sigmoid(self.exponent * odds + self.offset)

    def widened(self, bands: Tensor) -> Tensor:
        """A value of every bin `[…, bins]` from one of every band: nought in bin 0."""
        return bands[..., self.band] * self.sounding


@dataclass(frozen=True)
class UNetConfig:
    """Patches as (first bin, end bin, bins per patch); channels of the four levels.

    `blocks` with memory are at the bottom, and one more on each of the `upper` levels.  With a
    `prior`, the dictionary's mask is one more feature of every bin, and a part of the output.  With
    an `elder`, so is the mask of Spleeter's network, made every `pace` hops and heard `late` hops
    on (`training.elder`).  What both say is multiplied by how far they agree to the power of
    `accord`.
    """

    patches: tuple[tuple[int, int, int], ...] = ((0, 512, 4), (512, 1024, 16))
    channels: tuple[int, ...] = (32, 48, 64, 96)
    blocks: int = 3
    upper: tuple[int, ...] = ()
    prior: bool = False
    elder: bool = False
    accord: float = 0.0
    pace: int = 1
    late: int = 0

    @property
    def features(self) -> int:
        """Per bin, of the input."""
        return 6 + self.prior + self.elder

    @property
    def positions(self) -> int:
        return sum((end - start) // size for start, end, size in self.patches)


class Down(nn.Module):
    """Causal convolution over two frames; `stride` thins out the frequency axis."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        kernel = 3 if stride == 1 else 4
        self.conv = nn.Conv2d(inputs, outputs, (2, kernel), (1, stride), (0, 1))

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """`x` `[batch, channels, frames, positions]`; state: the frame before it."""
        after = x[:, :, -1:].float()
        if x.shape[2] == 1:
            return F.leaky_relu(self.conv(torch.cat([before.to(x.dtype), x], 2)), SLOPE), after
        # The same over a segment, without copying it: padded, and the frame before put in.
        conv = self.conv
        stride, pad = conv.stride, conv.padding[1]
        y = F.conv2d(x, conv.weight, conv.bias, stride, (1, pad))[:, :, :-1]
        y[:, :, :1] += F.conv2d(before, conv.weight[:, :, :1], None, stride, (0, pad))
        return F.leaky_relu(y, SLOPE), after


class Up(nn.Module):
    """Sub-pixel upsampling of the frequency axis by two, added to the skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 2 * outputs, (1, 3), padding=(0, 1))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        wide = self.conv(x).permute(0, 2, 3, 1)
        frames, positions, channels = constant(wide.shape[1:])
        wide = wide.reshape(-1, frames, 2 * positions, channels // 2).permute(0, 3, 1, 2)
        return F.leaky_relu(wide + skip, SLOPE)


class Kept(NamedTuple):
    """What leads around the bottom of the network.

    The spectra; those of mid and side, twice as loud; the level they are divided by; the prior's
    mask; the elder's, of left and right; the features of each patch; the levels of the U.
    """

    spec: Tensor
    both: Tensor
    level: Tensor
    prior: Tensor | None
    elder: Tensor | None
    folded: list[Tensor]
    skips: list[Tensor]


def elder_shapes(elder: nn.Module) -> dict[str, tuple[int, ...]]:
    """An elder's states, by their names in the network that has it."""
    shapes = elder.state_shapes()
    return {key.replace("state", "state_elder"): shapes[key] for key in shapes}


@torch.no_grad()
def advised(elder: nn.Module, spec: Tensor, states: dict[str, Tensor]) -> Tensor:
    """An elder's mask `[batch, 2, frames, bins]`; the network's `states` become the next ones."""
    names = list(elder_shapes(elder))
    mask, after = elder.ratios(spec, [states[key] for key in names])
    states |= dict(zip(names, after, strict=True))
    return mask


class Agreement(nn.Module):
    """How far two opinions on the voice agree, 0 to 1.

    Where there is a voice they do, and each errs in its own way where there is none.  It is the
    ratio of the magnitudes' product to the power of their mean, each a running one, to the power of
    `accord`.
    """

    state_shape = (2,)

    def __init__(self, hop: int, accord: float) -> None:
        super().__init__()
        self.rate, self.accord = hop / AGREEING, accord

    def forward(
        self, one: Tensor, other: Tensor, level: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Spectra `[batch, 2, frames, bins, 2]`, level `[batch, frames]` → `[batch, frames]`."""
        one, other = (
            torch.sqrt(x.square().sum(-1) + 1e-20) / level[:, None, :, None] for x in (one, other)
        )
        both = torch.stack([one * other, ((one + other) / 2).square()], -1).sum((1, 3)) + AGREED
        line = scan(both.new_full(both.shape, self.rate), both, state)
        return (line[..., 0] / line[..., 1]) ** self.accord, line[:, -1]


class UNet(nn.Module):
    """Causal U-Net over frequency with gated linear recurrences at the bottom.

    Spectra are divided by a running level and folded into patches of neighbouring bins, fine below
    11 kHz and coarse above, so that no layer works at full resolution.  The output is one complex
    mask per bin for the mid and one for the side signal, real and imaginary part bounded by 2.
    """

    waves = False  # does not take samples beside spectra

    def __init__(self, config: UNetConfig = UNetConfig(), geometry: Geometry = Geometry()) -> None:
        super().__init__()
        self.config = config
        if config.elder:
            from training.elder import Elder

            self.elder = Elder(geometry, pace=config.pace, late=config.late).requires_grad_(False)
            self.agreement = Agreement(geometry.hop, config.accord) if config.accord else None
            self.belief = nn.Parameter(torch.zeros(geometry.bins))  # logit of the elder's part
            self.gate = nn.ModuleList(
                nn.Linear(config.channels[0], size) for _, _, size in config.patches
            )
            for layer in self.gate:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        if config.prior:
            self.prior = Prior()
            bins = sum(end - start for start, end, _ in config.patches)
            self.trust = nn.Parameter(torch.zeros(bins, 1))  # logit of the prior's part
        first, *rest = config.channels
        self.level = RunningLevel(geometry.hop)
        self.embed = nn.ModuleList(
            nn.Linear(size * config.features, first) for _, _, size in config.patches
        )
        self.position = nn.Parameter(torch.randn(config.positions, first) * 0.1)
        pairs = list(zip(config.channels, rest, strict=False))
        self.down = nn.ModuleList([Down(first, first, 1)])
        self.down.extend(Down(wide, narrow, 2) for wide, narrow in pairs)
        bottom = config.positions // 2 ** len(rest)
        self.bottom_position = nn.Parameter(torch.randn(bottom, rest[-1]) * 0.1)
        self.blocks = nn.ModuleList(Block(bottom, rest[-1]) for _ in range(config.blocks))
        self.upper = nn.ModuleDict(
            {
                str(level): Block(config.positions >> level, config.channels[level])
                for level in config.upper
            }
        )
        self.up = nn.ModuleList(Up(narrow, wide) for wide, narrow in reversed(pairs))
        self.refine = nn.Conv2d(first, first, (1, 3), padding=(0, 1))
        self.out = nn.ModuleList(
            nn.Linear(first + size * config.features, 4 * size) for _, _, size in config.patches
        )
        with torch.no_grad():
            for layer in self.out:
                layer.weight *= 0.3

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the states, without the batch axis, in order."""
        shapes: dict[str, tuple[int, ...]] = {"state_level": RunningLevel.state_shape}
        positions = self.config.positions
        for i, down in enumerate(self.down):
            shapes[f"state_down_{i}"] = (down.conv.in_channels, 1, positions)
            positions //= down.conv.stride[1]
        for i in self.config.upper:
            shape = (self.config.positions >> i, self.config.channels[i])
            shapes[f"state_upper_{i}"] = shape
        for i in range(self.config.blocks):
            shapes[f"state_memory_{i}"] = tuple(self.bottom_position.shape)
        if self.config.elder:
            shapes |= elder_shapes(self.elder)
            if self.agreement is not None:
                shapes["state_agreement"] = Agreement.state_shape
        return shapes

    def initial_state(self, batch: int) -> State:
        return [torch.zeros(batch, *shape) for shape in self.state_shapes().values()]

    def forward(self, spec: Tensor, state: State) -> tuple[Tensor, State]:
        states = dict(zip(self.state_shapes(), state, strict=True))
        x, kept = self.encode(spec, states)
        for i, block in enumerate(self.blocks):
            x, states[f"state_memory_{i}"] = block(x, states[f"state_memory_{i}"])
        return self.decode(x, kept, states)[0], list(states.values())

    def encode(self, spec: Tensor, states: dict[str, Tensor]) -> tuple[Tensor, Kept]:
        """Down to `[batch, frames, positions, width]`, and what `decode` needs besides.

        `states` are replaced by the next ones.
        """
        (frames,) = constant(spec.shape[2:3])
        left, right = spec.unbind(1)
        both = torch.stack([left + right, left - right], -2)  # mid and side, twice as loud
        power = both.square().sum(-1, keepdim=True)
        level, states["state_level"] = self.level(power.mean((2, 3, 4)) / 2, states["state_level"])
        twice = 2 * level[:, :, None, None, None]
        root = torch.sqrt(torch.sqrt(power / twice.square() + 1e-8))
        features = torch.cat([root, both / (twice * root)], -1).flatten(-2)
        prior = None
        if self.config.prior:
            # Mean power of the two channels, in parts of the running level.
            loudness = power.sum((-1, -2)) / twice.squeeze(-1).squeeze(-1).square()
            prior = self.prior(loudness)
            features = torch.cat([features, prior[..., None]], -1)
        elder = None
        if self.config.elder:
            elder = advised(self.elder, spec, states)
            features = torch.cat([features, elder.mean(1)[..., None]], -1)
        features = cast(features)
        folded = [
            features[:, :, start:end].reshape(
                -1, frames, (end - start) // size, size * self.config.features
            )
            for start, end, size in self.config.patches
        ]
        embedded = [layer(x) for layer, x in zip(self.embed, folded, strict=True)]
        # [batch, frames, positions, channels] is what a convolution in channels_last wants.
        x = torch.cat(embedded, 2)
        x = (x + self.position.to(x.dtype)).permute(0, 3, 1, 2)
        skips = []
        for i, down in enumerate(self.down):
            x, states[f"state_down_{i}"] = down(x, states[f"state_down_{i}"])
            if str(i) in self.upper:
                x, memory = self.upper[str(i)](x.permute(0, 2, 3, 1), states[f"state_upper_{i}"])
                x, states[f"state_upper_{i}"] = x.permute(0, 3, 1, 2), memory
            skips.append(x)
        x = x.permute(0, 2, 3, 1) + self.bottom_position.to(x.dtype)
        return x, Kept(spec, both, level, prior, elder, folded, skips[:-1])

    def decode(
        self, x: Tensor, kept: Kept, states: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """The vocals' spectra from the bottom; `states` are replaced by the next ones.

        Returns:
            They; and by what they were multiplied, `[batch, frames]`, if by anything.
        """
        frames, bins = constant(kept.both.shape[1:3])
        x = x.permute(0, 3, 1, 2)
        for up, skip in zip(self.up, reversed(kept.skips), strict=True):
            x = up(x, skip)
        x = F.leaky_relu(self.refine(x), SLOPE).permute(0, 2, 3, 1)
        parts, first = [], 0
        sizes = [size for _, _, size in self.config.patches]
        for layer, own, size in zip(self.out, kept.folded, sizes, strict=True):
            (count,), (width,) = constant(own.shape[2:3]), constant(x.shape[3:])
            from_x = F.linear(x[:, :, first : first + count], layer.weight[:, :width], layer.bias)
            from_own = F.linear(own, layer.weight[:, width:])
            parts.append((from_x + from_own).reshape(-1, frames, count * size, 4))
            first += count
        mask = torch.tanh(torch.cat(parts, 2)).float()  # of what is twice as loud: bounded by 2
        sounding = self.config.patches[-1][1]
        mask = mask.reshape(-1, frames, sounding, 2, 2)
        if kept.prior is not None:
            part = torch.sigmoid(self.trust)
            known = part * kept.prior[:, :, :sounding, None] / 2
            known = torch.stack([known, torch.zeros_like(known)], -1)  # no imaginary part
            mask = (1 - part[..., None]) * mask + known
        mask = F.pad(mask, (0, 0, 0, 0, 0, bins - sounding))
        voice = complex_product(kept.both, mask)
        mid, side = voice.unbind(-2)
        voice = torch.stack([mid + side, mid - side], 1)
        if kept.elder is None:
            return voice, None
        # How far the elder is believed is a matter of the bin and of what goes on.
        parts, first = [], 0
        for layer, (start, end, size) in zip(self.gate, self.config.patches, strict=True):
            count = (end - start) // size
            parts.append(layer(x[:, :, first : first + count]).flatten(2))
            first += count
        moves = F.pad(torch.cat(parts, 2).float(), (0, bins - sounding))
        part = torch.sigmoid(self.belief + moves)[:, None, ..., None]
        other = kept.spec * kept.elder[..., None]
        blend = voice + part * (other - voice)
        if self.agreement is None or self.training:  # it is to learn what it would say by itself
            return blend, None
        gain, states["state_agreement"] = self.agreement(
            voice, other, kept.level, states["state_agreement"]
        )
        return blend * gain[:, None, :, None, None], gain


CONFIG = UNetConfig(blocks=4, upper=(2,), prior=True, elder=True, accord=0.5)
MODELS = {
    "unet": (CONFIG, Geometry()),
    "unet-live": (replace(CONFIG, accord=0.35, pace=2, late=1), Geometry(synthesis=512, hop=256)),
}


def build(name: str) -> tuple[nn.Module, Geometry]:
    """A fresh network of a named model and the geometry of its frames."""
    # These two are made of the parts above.
    if name == "lstm":
        from training.lstm import Recurrent

        return Recurrent(), Geometry()
    if name == "hybrid":
        from training.hybrid import Hybrid

        config, geometry = MODELS["unet"]
        # Its second branch leaks, too, and it has more to lose.
        return Hybrid(replace(config, accord=0.75), geometry), geometry
    config, geometry = MODELS[name]
    return UNet(config, geometry), geometry


def _new_feature(weights: dict[str, Tensor], patch: int, size: int, features: int) -> None:
    """Room for one feature more than `features` in each bin; it has no weight yet."""
    for key in (f"embed.{patch}.weight", f"out.{patch}.weight"):
        own = weights[key]
        inner = own.shape[1] - features * size
        bins = own[:, inner:].unflatten(1, (size, features))
        weights[key] = torch.cat([own[:, :inner], F.pad(bins, (0, 1)).flatten(1)], 1)


@torch.no_grad()
def inherit(network: UNet, weights: dict[str, Tensor], hop_ratio: float = 1.0) -> None:
    """Take over the weights of the same network, or of a smaller one that this has grown from.

    Blocks that `weights` lack begin as the identity, so that the grown network starts with the
    small one's output; one that is given a prior or an elder starts with the mean of the two.
    `hop_ratio` is this hop over the other's: the memories keep their lengths in seconds (nearly:
    their gates, as functions of the input, are shifted, not rescaled).
    """
    weights = dict(weights)
    config = network.config
    if network.waves and "waveform.basis" not in weights:
        weights = network.grown(weights)
    if getattr(config, "prior", False) and "trust" not in weights:
        for i, (_, _, size) in enumerate(config.patches):
            _new_feature(weights, i, size, 6)
        weights["trust"] = torch.zeros_like(network.trust)
        weights |= {f"prior.{key}": value for key, value in network.prior.state_dict().items()}
    if getattr(config, "elder", False) and "belief" not in weights:
        for i, (_, _, size) in enumerate(getattr(config, "patches", ())):
            _new_feature(weights, i, size, config.features - 1)
        fresh = network.state_dict()
        weights |= {key: fresh[key] for key in fresh if key.startswith(("gate.", "belief"))}
    if getattr(config, "elder", False):
        own = {f"elder.{key}": value for key, value in network.elder.state_dict().items()}
        if any(key not in weights or weights[key].shape != own[key].shape for key in own):
            # It had none, or one with another pace: this one is for `training.fitting` to put in.
            weights = {key: value for key, value in weights.items() if not key.startswith("elder.")}
            weights |= own
    missing, unexpected = network.load_state_dict(weights, strict=False)
    for name, part in network.named_modules():
        if isinstance(part, Block):
            own = [f"{name}.{key}" in missing for key in part.state_dict()]
            if all(own):
                part.silence()
            else:
                part.time_in.bias[: part.time_in.in_features] += math.log(hop_ratio)
            missing = [key for key in missing if not key.startswith(f"{name}.")]
    if missing or unexpected:
        raise ValueError(f"weights of another network: {', '.join([*missing, *unexpected])}")
