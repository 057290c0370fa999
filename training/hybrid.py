"""Two branches and one memory, in the spirit of HS-TasNet and Hybrid Demucs.

The spectral branch is the U-Net: long windows, fine in frequency.  The waveform branch cuts the
same samples into windows of 256, in a basis of its own (learned; a Fourier basis at first), and
masks those: fine in time, and with the phase that the spectral branch may not see.  Each short
window is one more position at the bottom of the U-Net: the same blocks remember and mix both.

Both lag alike: a frame's waveform part covers its newest `synthesis` samples and is overlap-added
as the spectra are.  The basis has no biases: silence stays silence, and the level does not matter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realtime_sep.dsp.windows import window_pair
from training.networks import Block, Geometry, State, UNet, UNetConfig, cast, constant

LENGTH, STRIDE = 256, 128  # of the short windows, samples
MASK_BOUND = 2.0


class Waveform(nn.Module):
    """Samples in short windows, as positions of `width` channels, and masked back to samples."""

    def __init__(self, geometry: Geometry, width: int) -> None:
        super().__init__()
        if geometry.synthesis != 2 * geometry.hop or geometry.hop % STRIDE:
            raise ValueError("the waveform branch overlaps two hops of whole strides")
        self.hop = geometry.hop
        self.per_hop = geometry.hop // STRIDE
        self.positions = 2 * self.per_hop - 1  # of a frame
        analysis, synthesis = window_pair(geometry.n_fft, geometry.synthesis, geometry.hop)
        # Sums to one over frames; at both ends of one, where a single short window reaches, more.
        product = torch.from_numpy(analysis[-geometry.synthesis :] * synthesis)
        short = _sine_window().square()
        product[:STRIDE] /= short[:STRIDE]
        product[-STRIDE:] /= short[-STRIDE:]
        self.register_buffer("window", product, persistent=False)
        # The level is that of the spectra: this makes it one of samples.
        self.scale = math.sqrt(float((analysis**2).sum()))
        basis = _fourier_basis()
        self.basis = nn.Parameter(basis)
        self.inverse = nn.Parameter(basis.T.contiguous())
        self.into = nn.Linear(2 * LENGTH, width)
        self.place = nn.Parameter(torch.randn(self.positions, width) * 0.1)
        self.masks = nn.Linear(width, 2 * LENGTH)
        with torch.no_grad():
            self.masks.weight.zero_()
            self.masks.bias.zero_()

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Samples of the short window that goes on, the windows of the last hop, the open sums."""
        return {
            "state_samples": (2, STRIDE),
            "state_windows": (2, self.per_hop, LENGTH),
            "state_sums": (2, self.hop),
        }

    def forward(
        self, samples: Tensor, level: Tensor, states: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Hops of mid and side `[batch, 2, frames, hop]`, the level `[batch, frames]` of spectra.

        Returns:
            The positions `[batch, frames, positions, width]`, and the short windows in the basis,
            `[batch, 2, frames, positions, LENGTH]`.
        """
        (frames,) = constant(samples.shape[2:3])
        with torch.autocast(samples.device.type, enabled=False):  # bf16 would be heard
            strides = torch.cat([states["state_samples"], samples.flatten(2)], 2)
            strides = strides.reshape(-1, 2, frames * self.per_hop + 1, STRIDE)
            states["state_samples"] = strides[:, :, -1]
            windows = F.linear(torch.cat([strides[:, :, :-1], strides[:, :, 1:]], -1), self.basis)
            windows = windows.reshape(-1, 2, frames, self.per_hop, LENGTH)
            before = torch.cat([states["state_windows"][:, :, None], windows[:, :, :-1]], 2)
            states["state_windows"] = windows[:, :, -1]
            windows = torch.cat([before[:, :, :, 1:], windows], 3)
            loudness = (windows * (self.scale / level[:, None, :, None, None])).square()
            root = torch.sqrt(torch.sqrt(loudness + 1e-8))
        features = cast(torch.cat(root.unbind(1), -1))
        return self.into(features) + self.place, windows

    def back(self, x: Tensor, windows: Tensor, states: dict[str, Tensor]) -> Tensor:
        """Hops of the vocals' mid and side `[batch, 2, frames, hop]`, one hop late."""
        mask = MASK_BOUND * torch.tanh(self.masks(x).float())
        with torch.autocast(x.device.type, enabled=False):
            mask = torch.stack(mask.split(LENGTH, -1), 1)
            pieces = F.linear(windows * mask, self.inverse)
            first, second = pieces.split(STRIDE, -1)
            whole = F.pad(first, (0, 0, 0, 1)) + F.pad(second, (0, 0, 1, 0))
            whole = whole.flatten(3) * self.window  # [batch, 2, frames, synthesis]
            early, late = whole.split(self.hop, -1)
            sums = torch.cat([states["state_sums"][:, :, None], late[:, :, :-1]], 2)
            states["state_sums"] = late[:, :, -1]
            return early + sums


def _sine_window() -> Tensor:
    return torch.sin(math.pi * (torch.arange(LENGTH) + 0.5) / LENGTH)


def _fourier_basis() -> Tensor:
    """Rows are cosines and sines under a sine window: at half overlap its transpose inverts it."""
    time = torch.arange(LENGTH) + 0.5
    turns = torch.arange(LENGTH // 2)[:, None] + 0.5
    angle = 2 * math.pi * turns * time / LENGTH
    return torch.cat([torch.cos(angle), torch.sin(angle)]) * _sine_window() * math.sqrt(2 / LENGTH)


class Hybrid(UNet):
    """Spectra and samples in, the vocals' spectra and samples out; what is heard is their sum."""

    waves = True

    def __init__(self, config: UNetConfig, geometry: Geometry) -> None:
        super().__init__(config, geometry)
        bottom, width = self.bottom_position.shape
        self.waveform = Waveform(geometry, width)
        positions = bottom + self.waveform.positions
        self.blocks = nn.ModuleList(Block(positions, width) for _ in range(config.blocks))

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = super().state_shapes() | self.waveform.state_shapes()
        bottom, width = self.bottom_position.shape
        for i in range(self.config.blocks):
            shapes[f"state_memory_{i}"] = (bottom + self.waveform.positions, width)
        return shapes

    def forward(  # type: ignore[override]
        self, spec: Tensor, samples: Tensor, state: State
    ) -> tuple[Tensor, Tensor, State]:
        """As `UNet`, with the newest hop of each frame `[batch, 2, frames, hop]`.

        Returns:
            The vocals' spectra; their samples, one hop late, like the latter; the next states.
        """
        states = dict(zip(self.state_shapes(), state, strict=True))
        x, kept = self.encode(spec, states)
        left, right = samples.unbind(1)
        both = torch.stack([left + right, left - right], 1) / 2
        own, windows = self.waveform(both, kept.level, states)
        (bottom,) = constant(x.shape[2:3])
        x = torch.cat([x, own.to(x.dtype)], 2)
        for i, block in enumerate(self.blocks):
            x, states[f"state_memory_{i}"] = block(x, states[f"state_memory_{i}"])
        voice, gain = self.decode(x[:, :, :bottom], kept, states)
        if gain is not None:
            windows = windows * gain[:, None, :, None, None]
        mid, side = self.waveform.back(x[:, :, bottom:], windows, states).unbind(1)
        return voice, torch.stack([mid + side, mid - side], 1), list(states.values())

    def grown(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a `UNet` as those of this: it begins with that one's output.

        Its blocks do not see the positions of the waveform branch yet, but these see them.
        """
        weights = dict(weights)
        fresh = self.state_dict()
        old = len(weights["bottom_position"])
        for i in range(self.config.blocks):
            for part, row, column in (
                ("place_in", 2 * old, old),
                ("place_out", old, 2 * old),
                ("place_bias", 2 * old, 1),
            ):
                key = f"blocks.{i}.{part}"
                if key not in weights:
                    continue
                wider = fresh[key].clone()
                wider[:row] = 0
                wider[:row, :column] = weights[key]
                weights[key] = wider
        own = {key: value for key, value in fresh.items() if key.startswith("waveform.")}
        return own | weights
