"""In place of Spleeter's networks, whose wheel is not there everywhere, and of a mixer's music."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class Crop(nn.Module):
    """Leaves away what a transposed convolution makes too much."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 1:-2, 1:-2]


class Original(nn.Module):
    """A network shaped like Spleeter's, and with its parts' names; random weights, statistics."""

    def __init__(self) -> None:
        super().__init__()
        widths = [2, 16, 32, 64, 128, 256, 512]
        for k in range(6):
            conv = nn.Conv2d(widths[k], widths[k + 1], 5, 2)
            setattr(self, f"down{k + 1}_conv", nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), conv))
            norm = nn.BatchNorm2d(widths[k + 1], eps=1e-3)
            setattr(self, f"down{k + 1}_act", nn.Sequential(norm, nn.LeakyReLU(0.2)))
        inputs, outputs = [512, 512, 256, 128, 64, 32], [256, 128, 64, 32, 16, 1]
        for k in range(6):
            conv = nn.ConvTranspose2d(inputs[k], outputs[k], 5, 2)
            norm = nn.BatchNorm2d(outputs[k], eps=1e-3)
            setattr(self, f"up{k + 1}", nn.Sequential(conv, Crop(), nn.ReLU(), norm))
        self.up7 = nn.Sequential(nn.Conv2d(1, 2, 4, dilation=2, padding=3))
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for k in range(6):
            skips.append(getattr(self, f"down{k + 1}_conv")(x))
            x = getattr(self, f"down{k + 1}_act")(skips[-1])
        x = skips.pop()
        for k in range(6):
            x = getattr(self, f"up{k + 1}")(x)
            x = torch.cat([skips.pop(), x], 1) if skips else x
        return self.up7(x)


def original() -> nn.Module:
    """One that is done with learning."""
    return Original().eval()


class Noise:
    """In place of a mixer: batches of so many hops."""

    def __init__(self, hops: int) -> None:
        self.rng = np.random.default_rng(0)
        self.samples = 512 * hops

    def batch(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        vocals, music = self.rng.standard_normal((2, size, 2, self.samples)).astype(np.float32)
        return 0.1 * vocals, 0.1 * music
