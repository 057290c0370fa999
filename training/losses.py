"""Losses on the deployed waveform, for both stems at once.

Vocals and accompaniment sum to the mixture, so one error waveform serves both; what differs is
the compressed spectrum it is seen against.
"""

from __future__ import annotations

import torch
from torch import Tensor

RESOLUTIONS = (512, 1024, 2048, 4096)
# Errors 15 dB below the mixture are good enough: with a lower floor the gradients of the easy items
# (music alone, voice alone) drown those of the mixtures, and the loss stands still.
SDR_FLOOR = 0.03
# Music alone is asked for more: what leaks into an empty voice is heard, down to −23 dB; less
# weight keeps its steeper gradient from drowning the rest.  With half the weight, a floor at −28 dB
# and as many songs in which hardly anybody sings, networks learned to be silent.
LEAK_FLOOR, LEAK_WEIGHT = 0.005, 0.2
# Of the SDR in dB: it is what scores ask for, and what the compressed spectra would trade away.
SDR_WEIGHT = 0.15


def compressed(spec: Tensor) -> tuple[Tensor, Tensor]:
    """Square-root compressed magnitude and complex spectrum (real, imaginary last)."""
    parts = torch.view_as_real(spec)
    root = (parts.square().sum(-1) + 1e-5).sqrt().sqrt()
    return root, parts / root[..., None]


def spectral_distance(estimate: Tensor, target: Tensor) -> Tensor:
    root_estimate, parts_estimate = compressed(estimate)
    root_target, parts_target = compressed(target)
    distance = (parts_estimate - parts_target).abs().mean()
    return distance + (root_estimate - root_target).abs().mean()


def separation_loss(
    estimate: Tensor,
    vocals: Tensor,
    mix: Tensor,
    generator: torch.Generator,
    plain: bool = False,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of estimated vocals against the true ones, all `[batch, 2, samples]`.

    Every item counts alike whatever its level.  The spectra are taken at one resolution, drawn
    anew each step, of one channel or the middle: cheap, and unbiased over many steps.

    `plain`, only the signal-to-distortion ratio counts.  Absolute differences ask for medians, and
    the median of a voice that may or may not be there is silence: a network that is unsure is
    drawn towards it, by the other terms, not by this one.
    """
    scale = mix.square().mean((1, 2), keepdim=True).sqrt() + 1e-4
    estimate, vocals, mix = estimate / scale, vocals / scale, mix / scale
    error = estimate - vocals
    wave = error.abs().mean()
    empty = vocals.square().mean((1, 2)) < 1e-6
    floor = torch.where(empty, LEAK_FLOOR, SDR_FLOOR)
    weight = torch.where(empty, LEAK_WEIGHT, 1.0)
    sdr = (weight * 10 * torch.log10(error.square().mean((1, 2)) + floor)).mean()

    n_fft = RESOLUTIONS[int(torch.randint(len(RESOLUTIONS), (), generator=generator))]
    pick = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    weights = pick[int(torch.randint(len(pick), (), generator=generator))].to(mix.device)
    window = torch.hann_window(n_fft, device=mix.device)
    estimate_spec, vocal_spec, mix_spec = (
        torch.stft(
            torch.einsum("bcn,c->bn", signal, weights),
            n_fft,
            n_fft // 2,
            window=window / window.square().sum().sqrt(),
            center=False,
            return_complex=True,
        )
        for signal in (estimate, vocals, mix)
    )
    voice = spectral_distance(estimate_spec, vocal_spec)
    rest = spectral_distance(mix_spec - estimate_spec, mix_spec - vocal_spec)
    loss = SDR_WEIGHT * sdr
    if not plain:
        loss = loss + wave + 0.5 * voice + 0.25 * rest
    return loss, {
        "loss": float(loss.detach()),
        "wave": float(wave.detach()),
        "sdr": -float(sdr.detach()),
        "voice": float(voice.detach()),
        "rest": float(rest.detach()),
    }
