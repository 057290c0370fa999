"""Frames and overlap-add of the streaming runtime, vectorised over a whole segment."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realtime_sep.dsp.windows import window_pair
from training.networks import Geometry


class Frames(nn.Module):
    """Analysis of segments into frames as the runtime sees them, and back.

    Frame `t` covers the newest `n_fft` samples once hop `t` has arrived, with silence before the
    segment.  Synthesis returns the separated samples aligned with the input, for all but the last
    `synthesis - hop` samples, which would need frames that have not arrived.
    """

    analysis: Tensor
    synthesis: Tensor

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        analysis, synthesis = window_pair(geometry.n_fft, geometry.synthesis, geometry.hop)
        self.register_buffer("analysis", torch.from_numpy(analysis), persistent=False)
        self.register_buffer("synthesis", torch.from_numpy(synthesis), persistent=False)

    def analyse(self, audio: Tensor, past: Tensor | None = None) -> Tensor:
        """`[batch, 2, samples]` → `[batch, 2, frames, bins, 2]`; samples a multiple of the hop.

        `past` are the `n_fft - hop` samples before the segment, silence where there are none.
        """
        if past is None:
            audio = F.pad(audio, (self.geometry.n_fft - self.geometry.hop, 0))
        else:
            audio = torch.cat([past, audio], -1)
        frames = audio.unfold(-1, self.geometry.n_fft, self.geometry.hop)
        return torch.view_as_real(torch.fft.rfft(frames * self.analysis))

    def separate(
        self, network: nn.Module, audio: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Vocals of `audio` by a network from `state` on, like `synthesise`; the next state."""
        spec = self.analyse(audio)
        if not network.waves:
            spec, state = network(spec, state)
            return self.synthesise(spec.float()), state
        hops = audio.unflatten(-1, (-1, self.geometry.hop))
        spec, waves, state = network(spec, hops, state)
        lag = self.geometry.synthesis // self.geometry.hop - 1
        return self.synthesise(spec.float()) + F.pad(waves[:, :, lag:], (0, 0, 0, lag)).flatten(
            2
        ), state

    def synthesise(self, spec: Tensor) -> Tensor:
        """`[batch, 2, frames, bins, 2]` → `[batch, 2, samples]`, aligned with the input.

        The last `synthesis - hop` samples are incomplete; callers cut them off.
        """
        length, hop = self.geometry.synthesis, self.geometry.hop
        frames = torch.fft.irfft(torch.view_as_complex(spec.contiguous()), n=self.geometry.n_fft)
        tails = frames[..., -length:] * self.synthesis
        batch, channels, count, _ = tails.shape
        parts = tails.reshape(batch, channels, count, length // hop, hop)
        # Part p of frame t is the hop t - (length / hop - 1) + p.
        lag = length // hop - 1
        out = F.pad(parts[..., 0, :], (0, 0, 0, lag))
        for part in range(1, lag + 1):
            out = out + F.pad(parts[..., part, :], (0, 0, part, lag - part))
        return out[:, :, lag:].flatten(-2)
