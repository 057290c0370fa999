"""Layers that are one node each of an exported graph, where tracing would make several."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class Conv(torch.autograd.Function):
    """A convolution with paddings of its own at the two ends, one node of the graph."""

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        strides: tuple[int, int],
        before: tuple[int, int],
        after: tuple[int, int],
    ) -> Tensor:
        padded = F.pad(x, (before[1], after[1], before[0], after[0]))
        return F.conv2d(padded, weight, bias, strides)

    @staticmethod
    def symbolic(g, x, weight, bias, strides, before, after):
        pads = [*before, *after]
        return g.op("Conv", x, weight, bias, strides_i=list(strides), pads_i=pads)


class ConvTranspose(torch.autograd.Function):
    """A transposed one of stride two that leaves away `before` and `after` what it makes."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, before: int, after: int) -> Tensor:
        y = F.conv_transpose2d(x, weight, bias, (1, 2))
        return y[..., before : y.shape[-1] - after]

    @staticmethod
    def symbolic(g, x, weight, bias, before: int, after: int):
        pads = [0, before, 0, after]
        return g.op("ConvTranspose", x, weight, bias, strides_i=[1, 2], pads_i=pads)
