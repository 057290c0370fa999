"""One frame of `training.elder`, as it is exported: see `training.step`.

Half of what a transposed convolution over columns would make is left away at once, and no tap of a
convolution meets a column that is never there.  So on the way up columns lie next to each other as
channels, each output's weights taken from the taps that reach it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.elder import LEVELS, LINES, LOUDNESS, SEEN, TAPS, Elder
from training.networks import constant
from training.nodes import Conv, ConvTranspose
from training.sometimes import Sometimes

States = dict[str, Tensor]


class WholeStep(nn.Module):
    """As `Elder`, of one frame; the level comes from outside.

    Of its lines, those half-way between the spectrum's bins (odd ones) are channels of their own,
    and on the last level the only ones computed: no mask depends on the others.
    """

    loudness = LOUDNESS

    @torch.no_grad()
    def __init__(self, elder: Elder) -> None:
        super().__init__()
        self.elder = elder
        self.histories = [name for name in self.state_shapes() if name.startswith("past")]
        self.register_buffer("first", parted(elder.down[0].weight))
        self.up = nn.ParameterList()
        for k, conv in enumerate(elder.up):
            weight = conv.weight  # [inputs, outputs, columns, lines]
            if k == 0:  # of one column, two: the newest comes first here, and last there
                made = [torch.cat([weight[:, :, 1:], weight[:, :, :1]], 1)]
            elif k == 1:
                made = [_reaching(weight, 2, (0, 1, 2))]
            elif k < LEVELS - 1:
                made = [_reaching(weight, 2, (0, 1)), _reaching(weight, 3, (2,))]
            else:  # odd lines only, as a plain convolution
                odd = _reaching(weight, 3, (1, 3))[..., ::2].flip(-1)
                made = [odd.transpose(0, 1).contiguous()]
            self.up.append(nn.ParameterList(made))
        # From the columns at -1 and at -3, in this order.
        self.register_buffer("out", elder.out.weight[:, 0].flip(1)[:, :, None].contiguous())

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = self.elder.state_shapes()
        del shapes["state_level"]
        shapes["state_past_0"] = (4, self.elder.history(0), LINES // 2)
        if self.elder.pace > 1:
            shapes["state_mask"] = (2, 1, LINES // 2)
        return {key.removeprefix("state_"): shape for key, shape in shapes.items()}

    def forward(self, planes: Tensor, scale: Tensor, states: States) -> Tensor:
        """Masks `[batch, 2, bins]` of left and right, whose real and imaginary `planes` are given.

        `planes` `[batch, 2, 2, bins]`; `scale` `[batch, 1, 1, 1]` makes the magnitudes those of the
        usual loudness; `states`, without the "elder", are replaced by the next ones.
        """
        return extended(self.ascend(self.descend(planes, scale, states)), planes)

    def descend(self, planes: Tensor, scale: Tensor, states: States) -> list[Tensor]:
        """The newest columns of every level but that of the input."""
        elder = self.elder
        x = between(planes, elder.turn, LINES // 2) * scale
        levels = []
        for k, conv in enumerate(elder.down):
            if k:
                x = F.leaky_relu(elder.down_affine[k - 1](x), 0.2)
            if elder.history(k):
                x = self._with_past(k, x, states)
            if k == LEVELS - 1:
                x = Conv.apply(x, conv.weight, conv.bias, (1, 2), (0, 1), (0, 2))
            else:
                weight, lines = (conv.weight, 2) if k else (self.first, 1)
                x = Conv.apply(x, weight, conv.bias, (2, lines), (1 - SEEN[k] % 2, 1), (2, lines))
            x = elder.widen[str(k)](x) if str(k) in elder.widen else x
            levels.append(x)
        return levels

    def ascend(self, levels: Sequence[Tensor]) -> Tensor:
        """The mask `[batch, 2, 1, LINES // 2]` from what `descend` made."""
        elder = self.elder
        *skips, x = levels
        for k, conv in enumerate(elder.up[:-1]):
            if k == 1:
                x = self._thinned(x)
            parts = [x] if k < 2 else [x.split(2 * x.shape[1] // 3, 1)[0], x]
            made = []
            for part, weight in zip(parts, self.up[k], strict=True):
                copies = weight.shape[1] // len(conv.bias)
                made.append(
                    ConvTranspose.apply(part, weight, torch.cat([conv.bias] * copies), 1, 2)
                )
            y = F.relu(torch.cat(made, 1) if len(made) > 1 else made[0])
            ups = [elder.up_affine[k](part) for part in y.split(len(conv.bias), 1)]
            columns = skips.pop().split(1, 2)[::-1]
            x = torch.cat([part for pair in zip(columns, ups, strict=False) for part in pair], 1)
        bias = torch.cat([elder.up[-1].bias] * 2)
        y = F.relu(Conv.apply(x, self.up[-1][0], bias, (1, 1), (0, 1), (0, 1)))
        y = elder.up_affine[-1](y)
        return torch.sigmoid(Conv.apply(y, self.out, elder.out.bias, (1, 1), (0, 2), (0, 1)))

    def _with_past(self, k: int, x: Tensor, states: States) -> Tensor:
        """The columns of level `k` that the next one sees, of which `x` are the newest."""
        name, apart = f"past_{k}", self.elder.every << k
        past, newest = states[name], x[:, :, :1]
        columns = past[:, :, ::apart]
        usual = getattr(self.elder, f"usual_{k}")
        if k == 0:  # even and odd lines apart
            usual = usual.unflatten(2, (-1, 2)).permute(0, 3, 1, 2).flatten(0, 1)
        states[name] = torch.cat([past[:, :, 1:], newest - usual], 2)
        return torch.cat([columns + usual, x], 2)

    def _thinned(self, x: Tensor) -> Tensor:
        """`Elder.thin` of two columns next to each other."""
        width = self.elder.thin.in_channels
        lines = x.shape[3]
        both = self.elder.thin.weight.flatten(1) @ x.reshape(-1, 2, width, lines)
        return both.reshape(-1, 2 * len(self.elder.thin.weight), 1, lines)


class _Descent(nn.Module):
    """Down a `WholeStep`: planes, scale, histories, levels → histories, levels."""

    def __init__(self, step: WholeStep) -> None:
        super().__init__()
        self.step = step

    def forward(self, planes: Tensor, scale: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        states = dict(zip(self.step.histories, kept, strict=False))
        levels = self.step.descend(planes, scale, states)
        return *states.values(), *levels


class _Whole(_Descent):
    """Down and up: planes, scale, histories, mask → histories, mask."""

    def forward(self, planes: Tensor, scale: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        made, count = super().forward(planes, scale, *kept), len(self.step.histories)
        return *made[:count], self.step.ascend(made[count:])


class _Ascent(nn.Module):
    """Up again: levels, mask → mask."""

    def __init__(self, step: WholeStep) -> None:
        super().__init__()
        self.step = step

    def forward(self, *levels: Tensor) -> tuple[Tensor, ...]:
        return (self.step.ascend(levels[:-1]),)


class PacedStep(nn.Module):
    """As `WholeStep`, of an elder that is not to make a mask with every hop.

    Is it late, what its way down has made waits for the hop of its way up.
    """

    loudness = LOUDNESS

    @torch.no_grad()
    def __init__(self, elder: Elder) -> None:
        super().__init__()
        self.pace, self.late = elder.pace, elder.late
        step = WholeStep(elder)
        self.shapes = step.state_shapes()
        self.histories = step.histories
        self.waiting: list[str] = []
        if not self.late:
            self.parts = nn.ModuleList([Sometimes(_Whole(step), "elder")])
            return
        self.parts = nn.ModuleList(
            [Sometimes(_Descent(step), "elder_down"), Sometimes(_Ascent(step), "elder_up")]
        )
        states = {name: torch.zeros(1, *self.shapes[name]) for name in self.histories}
        planes, scale = torch.zeros(1, 2, 2, LINES), torch.zeros(1, 1, 1, 1)
        for k, level in enumerate(step.descend(planes, scale, states)):
            self.waiting.append(f"level_{k}")
            self.shapes[self.waiting[-1]] = tuple(level.shape[1:])

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.shapes

    def forward(self, planes: Tensor, scale: Tensor, states: States) -> Tensor:
        """As that of `WholeStep`."""
        turn = states["turn"]
        now = (turn < 0.5).float()
        states["turn"] = (turn + 1) * (turn < self.pace - 1.5).float()
        kept = [*self.histories, *(self.waiting or ["mask"])]
        made = self.parts[0](now, [planes, scale], [states[name] for name in kept])
        states |= dict(zip(kept, made, strict=True))
        if self.late:
            now = ((turn - self.late).abs() < 0.5).float()
            levels = [states[name] for name in self.waiting]
            (states["mask"],) = self.parts[1](now, levels, [states["mask"]])
        return extended(states["mask"], planes)


def _reaching(weight: Tensor, inputs: int, outputs: Sequence[int]) -> Tensor:
    """Weights from columns of the ages 0 … `inputs - 1` to those of the ages `outputs`, above.

    Tap t of column i leads to column 2i + t - 1: counted back from the newest, from age a to age
    2a + 2 - t.
    """
    rows = []
    for age in range(inputs):
        taps = [2 + 2 * age - to for to in outputs]
        none = torch.zeros_like(weight[:, :, :1])
        parts = [weight[:, :, t : t + 1] if 0 <= t < 5 else none for t in taps]
        rows.append(torch.cat(parts, 1))
    return torch.cat(rows)


def parted(weight: Tensor) -> Tensor:
    """Taps at the lines 2j - 1 … 2j + 3, as those at j - 1, j, j + 1 of even and of odd lines.

    Even and odd lines are channels of their own: `[outputs, 2 * inputs, columns, 3]`.
    """
    even = F.pad(weight[..., 1::2], (1, 0))
    return torch.stack([even, weight[..., ::2]], 2).flatten(1, 2)


def extended(mask: Tensor, planes: Tensor) -> Tensor:
    """A mask `[batch, 2, 1, known]` of as many bins as `planes`: its upper half's mean goes on."""
    known, bins = constant([mask.shape[-1], planes.shape[-1]])
    mask = mask.reshape(-1, 2, known)
    top = mask.split(known // 2, -1)[1].mean(-1, keepdim=True)
    return torch.cat([mask, top * torch.ones(bins - known)], -1)


def between(planes: Tensor, turn: Tensor, half: int) -> Tensor:
    """Magnitudes `[batch, 4, 1, half]`: at the bins and half-way between them, of each side."""
    reach = TAPS // 2
    (bins,) = constant(planes.shape[3:])
    low = planes[..., list(range(reach - 1, 0, -1))]  # those below nought, but for their sign
    own, above, _ = planes.split([half, reach, bins - half - reach], -1)
    line = torch.cat([low * torch.tensor([[1.0], [-1.0]]), own, above], -1)
    line = line.reshape(-1, 2, half + 2 * reach - 1)
    turned = F.conv1d(line, turn).reshape(-1, 2, 2, half)
    both = torch.cat([own, turned], 2).reshape(-1, 4, 2, half)
    return torch.sqrt(both.square().sum(2, keepdim=True) + 1e-12)
