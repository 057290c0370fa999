"""Muon for the hidden matrices, AdamW for the rest: far fewer steps for the same loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic Newton–Schulz, steep at zero
ITERATIONS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix with singular values about one, by Newton–Schulz iteration."""
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; kernels count as matrices `[outputs, everything else]`.

    Updates are scaled to the root mean square of AdamW's, so that one learning rate serves both.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                average = state["momentum"]
                average.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(average, group["momentum"]).flatten(1)
                update = orthogonalised(ahead) * 0.2 * max(ahead.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(update.view_as(weight), alpha=group["lr"])


def optimisers(network: nn.Module) -> list[tuple[torch.optim.Optimizer, float]]:
    """Optimisers and the factors of their learning rates.

    Muon has the hidden weights; AdamW biases, gains, positions, and the first and last maps.
    """
    hidden, rest = [], []
    for name, weight in network.named_parameters():
        edge = name.startswith(("embed.", "out.", "gate.", "waveform."))
        edge = edge or "position" in name or "bias" in name or name == "trust"
        (rest if edge or weight.ndim < 2 else hidden).append(weight)
    adam = torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    return [(Muon(hidden, lr=1e-3), 1.0), (adam, 0.4)]
