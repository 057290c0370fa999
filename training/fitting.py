"""Gives a network its elder: Spleeter's weights, of whose largest layers what is principal is kept.

    python -m training.fitting UNET.pt --data SHARDS --out unet.pt
    python -m training.fitting UNET.pt --as unet-live --data SHARDS --out live.pt

What is principal is found in music (`training.mix`), in a minute or two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from training import elder
from training.elder import CHANNELS, LOWEST, NARROW, THIN, Elder
from training.mix import Mixer
from training.networks import Geometry, build, inherit
from training.shards import SAMPLE_RATE
from training.spectra import Frames
from training.teacher import HOP, Teacher
from training.train import save_weights

SECONDS = 6  # of a mixture


def products(x: Tensor) -> Tensor:
    """Sums of the products of channels of `[batch, channels, columns, lines]`, in pairs."""
    rows = x.float().transpose(1, 3).flatten(0, 2).double()
    return rows.T @ rows


@torch.no_grad()
def principal(
    original: nn.Module, mixer: Mixer, batches: int, sizes: tuple[int, int] = (LOWEST, THIN)
) -> tuple[list[tuple[Tensor, Tensor]], dict[int, Tensor]]:
    """The bases of `elder.take_over`, of as many directions as `sizes`, and its axes.

    Of the inputs of a layer, the directions that hold most of the power of its outputs: those that
    are principal once every one is weighed by what the layer makes of it.
    """
    whole = Elder(lowest=CHANNELS[-1], thin=CHANNELS[-1])
    elder.take_over(whole, original, [(torch.eye(CHANNELS[-1]),) * 2] * 2, {})
    layers = [whole.up[0], whole.thin]
    squares = [torch.zeros(CHANNELS[-1], CHANNELS[-1], dtype=torch.float64) for _ in layers]

    def note(square: Tensor, x: Tensor) -> None:
        square += products(x)

    hooks = [
        layer.register_forward_hook(lambda _, x, __, square=square: note(square, x[0]))
        for layer, square in zip(layers, squares, strict=True)
    ]
    made = {k: torch.zeros(CHANNELS[k + 1], CHANNELS[k + 1], dtype=torch.float64) for k in NARROW}
    hooks += [
        whole.down[k].register_forward_hook(lambda _, __, y, square=square: note(square, y))
        for k, square in made.items()
    ]
    frames = Frames(Geometry())
    for _ in range(batches):
        mix = torch.from_numpy(sum(mixer.batch(4)))
        whole.ratios(frames.analyse(mix), whole.initial_state(len(mix)))
    for hook in hooks:
        hook.remove()
    bases = []
    for layer, square, size in zip(whole.up[:2], squares, sizes, strict=True):
        weight = layer.weight.detach().double()
        power, axes = torch.linalg.eigh(torch.einsum("iotf,jotf->ij", weight, weight))
        power = power.clamp_min(1e-9 * power[-1]).sqrt()
        weigh, back = (axes * power) @ axes.T, (axes / power) @ axes.T
        kept = torch.linalg.eigh(weigh @ square @ weigh)[1][:, -size:]
        bases.append(((weigh @ kept).float(), (kept.T @ back).float()))
    axes = {k: torch.linalg.eigh(made[k])[1][:, -rank:].float() for k, rank in NARROW.items()}
    return bases, axes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--as", dest="name", help="of another family, as unet-live from unet")
    parser.add_argument("--data", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--batches", type=int, default=6, help="of four mixtures")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    stored = torch.load(args.weights, weights_only=True)
    name = args.name or stored["model"]
    network, geometry = build(name)
    ratio = geometry.hop / build(stored["model"])[1].hop
    inherit(network, {key: value.float() for key, value in stored["weights"].items()}, ratio)
    original = Teacher().networks[0]
    mixer = Mixer(args.data, SECONDS * SAMPLE_RATE // HOP * HOP, 0)
    elder.take_over(network.elder, original, *principal(original, mixer, args.batches))
    frames = Frames(geometry)
    network.elder.get_used_to(
        frames.analyse(torch.from_numpy(sum(mixer.batch(4)))) for _ in range(args.batches)
    )
    save_weights(args.out, network, name, stored["steps"])


if __name__ == "__main__":
    main()
