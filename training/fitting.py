"""Where causal training begins: each layer fitted to what the original's makes of the same music.

Taking over weights alone leaves little: two of five taps would see the future, the averages of the
past are no taps, and what each layer lacks, all above it miss.  So the layers are fitted from the
bottom up, each to the original's output at the same time of the same music by linear least squares
with the causal layers below it already in place.  That takes minutes, and needs no gradient.

    python -m training.fitting begin --data SHARDS --out begun.pt
    python -m training.train causal --plain --rate 1e-3 --warmup 20 --batch 4 --from begun.pt ...
    python -m training.fitting grow LIVE.pt CAUSAL.pt --out live.pt    # a U-Net with an elder
    python -m training.fitting thin LIVE.pt --data SHARDS --out thin.pt    # a cheaper one

The network as it is (`training.elder`) needs none of that, only what is principal of its two
largest layers; a U-Net that has one made causal may be given it instead:

    python -m training.fitting whole UNET.pt --data SHARDS --out unet.pt
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training import elder
from training.elder import CHANNELS, LOWEST, THIN, Elder
from training.mix import Mixer
from training.networks import Geometry, build, inherit
from training.shards import SAMPLE_RATE, Audio
from training.spectra import Frames
from training.spleeter import BINS, COLUMN, LOUDNESS, Causal, take_over
from training.teacher import HOP, N_FFT, Teacher
from training.train import save_weights

SECONDS = 12  # of a mixture
FIRST = 24  # columns; the averages of the past hold little before
CENTRE = 700  # samples between the middle of the original's frame and the end of the causal one
RIDGE = 1e-4  # of the mean power of the inputs
MOST = 60_000  # rows of one layer and batch
# Ranks of the elder's largest layers, of 128, 256, 512 and 512, when it has to be cheap.
RANKS = {"down.3": 80, "down.4": 128, "up.0": 160, "up.1": 160}
LIMIT = 5.0  # of the logits: what is certain need not be more so


@dataclass
class Example:
    """One batch of mixtures: causal input, and what the original makes of it from `shift` on.

    `columns` `[batch, frames, bands, channels]` is the input of the layer that comes next.
    """

    columns: Tensor
    shift: int
    outputs: dict[str, Tensor]

    def times(self, name: str, every: int) -> Tensor:
        """Frames at which columns of the original end whose hop is `every` frames."""
        count = self.outputs[name].shape[2]
        return self.shift + every * (torch.arange(count) + 1) - 1


class Fit:
    """Linear least squares from sums over batches; the last row of the solution is the bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.square = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64)
        self.product = torch.zeros(inputs + 1, outputs, dtype=torch.float64)

    def add(self, rows: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        if len(rows) > MOST:
            pick = torch.randperm(len(rows))[:MOST]
            rows, target = rows[pick], target[pick]
            weight = weight if weight is None else weight[pick]
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        weighed = rows if weight is None else rows * weight[:, None]
        self.square += (weighed.T @ rows).double()
        self.product += (weighed.T @ target).double()

    def solution(self) -> Tensor:
        ridge = RIDGE * self.square.diagonal().mean() * torch.ones(len(self.square))
        ridge[-1] = 0
        return torch.linalg.solve(self.square + torch.diag(ridge.double()), self.product).float()


def patches(x: Tensor, pad: tuple[int, int], taps: int, stride: int = 1, step: int = 1) -> Tensor:
    """`[columns, bands, channels]` → a row for each place of a kernel, `[…, channels * taps]`."""
    line = F.pad(x.transpose(1, 2)[:, :, None], pad)
    rows = F.unfold(line, (1, taps), dilation=(1, step), stride=(1, stride))
    return rows.transpose(1, 2).flatten(0, 1)


def example(mix: Audio, frames: Frames, network: Causal, original: nn.Module) -> list[Example]:
    """Two examples, differently shifted, of mixtures `[batch, 2, samples]`."""
    audio = torch.from_numpy(mix)
    hop = frames.geometry.hop
    spec, every = frames.analyse(audio), COLUMN // hop
    power = spec.square().sum(-1).mean((1, 3))
    level, _ = network.level(power, torch.zeros(len(mix), 3))
    scale = (LOUDNESS / level)[:, None, ::every, None]
    columns = elder.between(spec[:, :, ::every], network.turn, BINS) * scale
    window = torch.hann_window(N_FFT)
    louder = (frames.analysis.square().sum() / window.square().sum()).sqrt()
    later = F.pad(audio, (CENTRE - hop, 0)).flatten(0, 1)
    whole = torch.stft(later, N_FFT, HOP, window=window, return_complex=True, pad_mode="constant")
    magnitude = whole.abs().unflatten(0, (-1, 2))[:, :, :BINS, : columns.shape[2]].transpose(2, 3)
    magnitude = magnitude * scale * louder

    outputs: dict[str, Tensor] = {}
    parts = {f"down{k}": getattr(original, f"down{k + 1}_conv") for k in range(5)}
    parts |= {f"up{k}": getattr(original, f"up{k + 2}")[1] for k in range(5)}
    parts["out"] = original.up7[0]
    hooks = [
        part.register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
        for name, part in parts.items()
    ]
    found = []
    for shift in (0, int(torch.randint(1, 32, ()))):
        count = (magnitude.shape[2] - shift) // 64 * 64
        original(magnitude[:, :, shift : shift + count])
        kept = {name: out.bfloat16() for name, out in outputs.items()}
        found.append(Example(columns.permute(0, 2, 3, 1), shift, kept))
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def fit(network: Causal, original: nn.Module, mixer: Mixer, batches: int) -> None:
    """Fit `network`, which has taken over the weights of `original`, to that."""
    frames = Frames(Geometry())
    every = COLUMN // frames.geometry.hop
    examples: list[Example] = []
    while len(examples) < 2 * batches:
        vocals, rest = mixer.batch(4)
        both = [i for i in range(4) if min(np.square(s[i]).mean() for s in (vocals, rest)) > 1e-7]
        if both:
            examples += example((vocals + rest)[both], frames, network, original)
    pasts: list[Tensor] = []

    def remember(past: nn.Module, inputs: list[Tensor]) -> None:
        """The inputs with their averages."""
        pasts.clear()
        for x in inputs:
            start = torch.zeros(len(x), len(past.rates), x.shape[2])
            pasts.append(past(x.permute(0, 3, 1, 2), start, every)[0].permute(0, 2, 3, 1))

    def rows_of(index: int, name: str, hop: int, share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Columns, the original's outputs `[columns, bands, channels]`, and which frames."""
        item = examples[index]
        times = item.times(name, hop)
        chosen = (times >= FIRST) & (torch.rand(len(times)) < share)
        columns = pasts[index][:, times[chosen]].flatten(0, 1)
        target = item.outputs[name][:, :, chosen].float().permute(0, 2, 3, 1).flatten(0, 1)
        return columns, target, times[chosen]

    skips: list[list[Tensor]] = [[] for _ in examples]
    current = [item.columns for item in examples]
    for k, conv in enumerate(network.down):
        remember(network.past_down[k], current)
        fitted = Fit(conv.in_channels * 5, conv.out_channels)
        for index in range(len(examples)):
            # The upper levels have more columns than they need.
            columns, target, _ = rows_of(index, f"down{k}", 2 ** (k + 1), min(1, 0.06 * 2**k))
            fitted.add(patches(columns, (1, 2), 5, stride=2), target.flatten(0, 1))
        solution = fitted.solution()
        conv.weight.copy_(solution[:-1].T.view_as(conv.weight))
        conv.bias.copy_(solution[-1])
        for index, x in enumerate(pasts):
            y = conv(F.pad(x.permute(0, 3, 1, 2), (1, 2)))
            skips[index].append(y)
            if k < len(network.down_affine):
                y = F.leaky_relu(network.down_affine[k](y), 0.2)
            current[index] = y.permute(0, 2, 3, 1)
    current = [kept.pop().permute(0, 2, 3, 1) for kept in skips]
    for k, conv in enumerate(network.up):
        remember(network.past_up[k], current)
        fitted = Fit(conv.in_channels * 5, conv.out_channels)
        for index in range(len(examples)):
            columns, target, _ = rows_of(index, f"up{k}", 2 ** (4 - k), 0.5 / 2**k)
            # A transposed convolution is a plain one of what noughts are put between.
            stuffed = torch.stack([columns, torch.zeros_like(columns)], 2).flatten(1, 2)
            fitted.add(patches(stuffed, (3, 1), 5), target.flatten(0, 1))
        solution = fitted.solution()
        kernel = solution[:-1].view(conv.in_channels, 5, conv.out_channels)
        conv.weight.copy_(kernel.permute(0, 2, 1).flip(-1)[:, :, None])
        conv.bias.copy_(solution[-1])
        for index, x in enumerate(pasts):
            y = network.up_affine[k](F.relu(conv(x.permute(0, 3, 1, 2))[..., 1:-2]))
            y = torch.cat([skips[index].pop(), y], 1) if skips[index] else y
            current[index] = y.permute(0, 2, 3, 1)
    remember(network.past_out, current)
    fitted = Fit(8, 2)
    for index, item in enumerate(examples):
        columns, target, times = rows_of(index, "out", 1, 0.1)
        loudness = item.columns[:, times].mean(3).flatten()
        rows = patches(columns, (3, 3), 4, step=2)
        fitted.add(rows, target.flatten(0, 1).clamp(-LIMIT, LIMIT), loudness)
    solution = fitted.solution()
    network.out.weight.copy_(solution[:-1].T.view_as(network.out.weight))
    network.out.bias.copy_(solution[-1])


def products(x: Tensor) -> Tensor:
    """Sums of the products of channels of `[batch, channels, columns, lines]`, in pairs."""
    rows = x.float().transpose(1, 3).flatten(0, 2).double()
    return rows.T @ rows


@torch.no_grad()
def thin(network: nn.Module, geometry: Geometry, mixer: Mixer, batches: int) -> None:
    """Leave to the large layers of a U-Net's elder what is principal in their music.

    Of convolutions the outputs are projected onto their principal directions, of transposed ones
    the inputs; `training.step` makes two small layers of each.
    """
    causal, frames = network.elder, Frames(geometry)
    squares: dict[str, Tensor] = {}

    def note(name: str, x: Tensor) -> None:
        squares[name] = squares.get(name, 0) + products(x)

    hooks = [
        causal.get_submodule(name).register_forward_hook(
            lambda _, x, y, name=name: note(name, y if name.startswith("down") else x[0])
        )
        for name in RANKS
    ]
    for _ in range(batches):
        mix = torch.from_numpy(sum(mixer.batch(4)))
        causal.ratios(frames.analyse(mix), causal.initial_state(len(mix)))
    for hook in hooks:
        hook.remove()
    for name, rank in RANKS.items():
        layer = causal.get_submodule(name)
        kept = torch.linalg.eigh(squares[name])[1][:, -rank:].float()
        kept = kept @ kept.T
        layer.weight.copy_(torch.einsum("op,p...->o...", kept, layer.weight))
        if name.startswith("down"):
            layer.bias.copy_(kept @ layer.bias)


@torch.no_grad()
def principal(
    original: nn.Module, mixer: Mixer, batches: int, sizes: tuple[int, int] = (LOWEST, THIN)
) -> list[tuple[Tensor, Tensor]]:
    """The bases of `elder.take_over`, of as many directions as `sizes`.

    Of the inputs of a layer, the directions that hold most of the power of its outputs: those that
    are principal once every one is weighed by what the layer makes of it.
    """
    whole = Elder(lowest=CHANNELS[-1], thin=CHANNELS[-1])
    elder.take_over(whole, original, [(torch.eye(CHANNELS[-1]),) * 2] * 2)
    layers = [whole.up[0], whole.thin]
    squares = [torch.zeros(CHANNELS[-1], CHANNELS[-1], dtype=torch.float64) for _ in layers]

    def note(square: Tensor, x: Tensor) -> None:
        square += products(x)

    hooks = [
        layer.register_forward_hook(lambda _, x, __, square=square: note(square, x[0]))
        for layer, square in zip(layers, squares, strict=True)
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
    return bases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    fresh = commands.add_parser("begin", help="causal weights to begin training with")
    fresh.add_argument("--data", type=Path, required=True, help="folder of the shards")
    fresh.add_argument("--batches", type=int, default=10, help="of four mixtures")
    grow = commands.add_parser("grow", help="give a U-Net an elder")
    grow.add_argument("unet", type=Path)
    grow.add_argument("causal", type=Path)
    cheap = commands.add_parser("thin", help="large layers of a U-Net's elder of low rank")
    cheap.add_argument("unet", type=Path)
    cheap.add_argument("--data", type=Path, required=True, help="folder of the shards")
    cheap.add_argument("--batches", type=int, default=8, help="of four mixtures")
    entire = commands.add_parser("whole", help="give a U-Net the whole network as its elder")
    entire.add_argument("unet", type=Path)
    entire.add_argument("--data", type=Path, required=True, help="folder of the shards")
    entire.add_argument("--batches", type=int, default=6, help="of four mixtures")
    for command in (fresh, grow, cheap, entire):
        command.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "begin":
        torch.manual_seed(0)
        original = Teacher().networks[0]
        network = Causal().eval()
        take_over(network, original)
        samples = SECONDS * SAMPLE_RATE // (64 * COLUMN) * 64 * COLUMN
        fit(network, original, Mixer(args.data, samples, 0), args.batches)
        save_weights(args.out, network, "causal", 0)
        return
    unet = torch.load(args.unet, weights_only=True)
    network, geometry = build(unet["model"])
    inherit(network, {key: value.float() for key, value in unet["weights"].items()})
    if isinstance(network.elder, Elder) != (args.command == "whole"):
        parser.error(f"the elder of {unet['model']} is of the other kind")
    if args.command == "whole":
        original = Teacher().networks[0]
        mixer = Mixer(args.data, 6 * SAMPLE_RATE // HOP * HOP, 0)
        elder.take_over(network.elder, original, principal(original, mixer, args.batches))
        frames = Frames(geometry)
        network.elder.get_used_to(
            frames.analyse(torch.from_numpy(sum(mixer.batch(4)))) for _ in range(args.batches)
        )
    elif args.command == "thin":
        thin(
            network.eval(),
            geometry,
            Mixer(args.data, 4 * SAMPLE_RATE // HOP * HOP, 0),
            args.batches,
        )
    else:
        network.elder.load_state_dict(torch.load(args.causal, weights_only=True)["weights"])
    save_weights(args.out, network, unet["model"], unet["steps"])


if __name__ == "__main__":
    main()
