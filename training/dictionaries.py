"""Learns the dictionaries of the `nmf` separator.

    python -m training.dictionaries --shards SHARDS --references REFERENCES

Mixtures are drawn as for the networks (`training.mix`), in mono.  The atoms begin as cluster
centres of spectra of the voices and of the music, and are then trained through the multiplicative
updates that the separator will make with them, for the separation that comes out ("Deep NMF for
speech separation", Le Roux, Hershey and Weninger, ICASSP 2015; all updates share their atoms here).
Written are the dictionary of each divergence and a card beside them.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from realtime_sep.dsp.bands import band_centres, band_edges
from realtime_sep.dsp.windows import window_pair
from training.mix import BACKINGS, SONGS, VOICES, Mixer
from training.shards import SAMPLE_RATE, Audio, Clip, clips, hours

N_FFT, SYNTHESIS, HOP = 2048, 1024, 512
#: Spectra are powers to this: between an amplitude and a loudness.
EXPONENT = 0.3
SECONDS = 8.0
ATOMS = 96
BATCH, FRAMES = 32, 32
OUT = Path(__file__).parent.parent / "realtime_sep" / "separators" / "dictionaries"


def spectra(mix: Audio, voice: Audio, hop: int) -> npt.NDArray[np.float32]:
    """`(3, frames, bands)`: power of the mix, its product with the voice, power of the voice.

    Of these three the error of any mask with one value a band can be computed exactly.
    """
    window, _ = window_pair(N_FFT, SYNTHESIS, HOP)
    edges = band_edges(N_FFT, SAMPLE_RATE)

    def transform(audio: Audio) -> npt.NDArray[np.complex128]:
        audio = np.concatenate([np.zeros(N_FFT - hop, np.float32), audio])
        frames = np.lib.stride_tricks.sliding_window_view(audio, N_FFT)[::hop]
        return np.fft.rfft(frames * window, axis=1)

    x, s = transform(mix), transform(voice)
    powers = [np.abs(x) ** 2, (x.conj() * s).real, np.abs(s) ** 2]
    return np.stack(
        [np.add.reduceat(p[:, : edges[-1]], edges[:-1], axis=1) for p in powers]
    ).astype(np.float32)


def collect(folder: Path, minutes: float, seed: int) -> Tensor:
    """`(clips, 3, frames, bands)` of mixtures of the training split."""
    mixer = Mixer(folder, int(SECONDS * SAMPLE_RATE), seed)
    out = []
    for _ in range(round(minutes * 60 / SECONDS)):
        voice, music = (stem.mean(axis=1) for stem in mixer.pair())
        out.append(spectra(voice + music, voice, 2 * HOP)[:, 4:])
    return torch.from_numpy(np.stack(out))


def read_references(folder: Path) -> list[Tensor]:
    out = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stems:
            mix, voice = stems["mix"].mean(axis=0), stems["vocals"].mean(axis=0)
        out.append(torch.from_numpy(spectra(mix, voice, 2 * HOP)))
    return out


class Dictionary(torch.nn.Module):
    """Atoms of voice and music, and what turns their shares into a mask."""

    def __init__(self, voice: Tensor, music: Tensor, divergence: str, updates: int) -> None:
        super().__init__()
        self.updates = updates
        atoms = torch.cat([voice, music])
        self.voices = len(voice)
        self.saito = divergence == "is"
        self.logits = torch.nn.Parameter(atoms.clamp_min(1e-7).log())
        self.exponent = torch.nn.Parameter(torch.full(atoms.shape[1:], 2.5))
        self.offset = torch.nn.Parameter(torch.zeros(atoms.shape[1:]))

    @property
    def atoms(self) -> Tensor:
        return torch.softmax(self.logits, 1)

    def forward(self, v: Tensor) -> Tensor:
        """Mask `(frames, bands)` of the voice for compressed spectra of that shape."""
        w = self.atoms
        v = v / (v.mean(1, keepdim=True) + 1e-12)
        h = (v.sum(1, keepdim=True) / len(w)).expand(-1, len(w))
        for _ in range(self.updates):
            model = h @ w + 1e-7
            if self.saito:
                h = h * ((v / model**2 @ w.T) / (1 / model @ w.T)).sqrt()
            else:
                h = h * (v / model @ w.T)
        voice, music = (
            h[:, : self.voices] @ w[: self.voices],
            h[:, self.voices :] @ w[self.voices :],
        )
        ratio = torch.log(voice + 1e-9) - torch.log(music + 1e-9)
        return torch.sigmoid(self.exponent * ratio + self.offset)


def compressed(power: Tensor) -> Tensor:
    width = torch.from_numpy(np.diff(band_edges(N_FFT, SAMPLE_RATE))).float()
    return (power / width).clamp_min(1e-20) ** EXPONENT


def centres(power: Tensor, count: int, rounds: int = 8) -> Tensor:
    """`(count, bands)`: cluster centres of the louder spectra, by angle of roots."""
    loud = power.sum(1)
    power = power[loud > loud.median()]
    points = compressed(power[torch.randperm(len(power))[:12000]])
    points = (points / points.sum(1, keepdim=True)).sqrt()
    centre = points[:count]
    for _ in range(rounds):
        nearest = (points @ centre.T).argmax(1)
        centre = torch.full_like(centre, 1e-6).index_add_(0, nearest, points)
        centre = centre / centre.norm(dim=1, keepdim=True)
    atoms = centre**2
    return atoms / atoms.sum(1, keepdim=True) + 1e-4 / atoms.shape[1]


def error(mask: Tensor, data: Tensor) -> Tensor:
    """Power of the wrong, summed over the last two axes, for `data (..., 3, frames, bands)`."""
    mix, product, voice = data.unbind(-3)
    return (mask * mask * mix - 2 * mask * product + voice).sum((-2, -1))


@torch.no_grad()
def score(model: Dictionary, references: list[Tensor]) -> list[float]:
    """Median SDR in dB of voice and music over the references."""
    pairs = []
    for data in references:
        wrong = error(model(compressed(data[0])), data)
        music = (data[0] - 2 * data[1] + data[2]).sum()
        pairs.append([float(10 * torch.log10(x / wrong)) for x in (data[2].sum(), music)])
    return [round(float(x), 2) for x in np.median(pairs, axis=0)]


def suitable(data: Tensor) -> Tensor:
    """Clip and first frame of stretches in which voice and music both sound, as in songs."""
    powers = data[:, 0].sum(-1).unfold(1, FRAMES, 8), data[:, 2].sum(-1).unfold(1, FRAMES, 8)
    share = powers[1].sum(-1) / (powers[0].sum(-1) + 1e-9)
    usual = data[:, 2].sum(-1).mean(1)[:, None, None]
    sounding = (powers[1] > 0.01 * usual).float().mean(-1)
    return ((share > 0.15) & (share < 0.7) & (sounding > 0.7)).nonzero() * torch.tensor([1, 8])


def train(model: Dictionary, data: Tensor, steps: int, rate: float) -> None:
    """Adam on the logarithm of the error, so that easy and hard mixtures count alike."""
    starts = suitable(data)
    rates = [rate, 0.02, 0.02]
    optimiser = torch.optim.Adam([{"params": [p]} for p in model.parameters()], betas=(0.9, 0.98))
    for step in range(steps):
        ramp = min(1.0, (step + 1) / 10, 2 * (steps - step) / steps)
        for group, full in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = full * ramp
        chosen = starts[torch.randint(len(starts), (BATCH,))]
        batch = torch.stack([data[c, :, t : t + FRAMES] for c, t in chosen.tolist()])
        mask = model(compressed(batch[:, 0]).flatten(0, 1)).view(BATCH, FRAMES, -1)
        total = batch[:, 0].sum((1, 2))
        loss = torch.log(error(mask, batch) / total + 0.03).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def write(model: Dictionary, path: Path, **facts: float | list[float]) -> None:
    atoms = model.atoms.detach().numpy()
    np.savez_compressed(
        path,
        hertz=band_centres(N_FFT, SAMPLE_RATE).astype(np.float32),
        voice=atoms[: model.voices].astype(np.float16),
        music=atoms[model.voices :].astype(np.float16),
        exponent=model.exponent.detach().numpy(),
        offset=model.offset.detach().numpy(),
        updates=np.array(model.updates),
        **{name: np.array(fact) for name, fact in facts.items()},
    )


def card(shards: Path, out: Path) -> str:
    lines = [
        "# Dictionaries of `nmf`",
        "",
        f"{ATOMS} atoms each of voice and music for spectra of {N_FFT} samples at {SAMPLE_RATE} "
        f"Hz, powers to the {EXPONENT:g}, made by `python -m training.dictionaries`. Licence: "
        "CC-BY-SA-4.0, as for the networks (`docs/training.md` says why).",
        "",
        "SDR: median in dB (vocals / accompaniment) over the validation songs, against a network's "
        "separation of them, by masks of one value a band in mono. They also chose the best of so "
        "many beginnings.",
        "",
        "| divergence | updates | minutes of mixtures | steps | beginnings | SDR |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(out.glob("*.npz"), reverse=True):
        with np.load(path) as facts:
            voice, music = facts["score"]
            cells = [f"`{path.stem}`", facts["updates"], f"{facts['minutes']:g}", facts["steps"]]
            cells += [facts["tries"], f"{voice:.2f} / {music:.2f}"]
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    lines += ["", "## Trained on", ""]
    for kind in itertools.chain(VOICES, BACKINGS, (f"{kind}_converted" for kind in SONGS)):
        sources: dict[str, list[Clip]] = {}
        for clip in clips(shards, {kind}, "train"):
            sources.setdefault(clip.group.split("/")[0], []).append(clip)
        for source, members in sources.items():
            licences = ", ".join(sorted({clip.licence for clip in members}))
            lines.append(f"- {kind}: {source}, {hours(members):.2f} h, {licences}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=Path, default=Path("../train_data/shards"))
    parser.add_argument("--references", type=Path, default=Path("../train_data/references"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--only", choices=["kl", "is"], help="make this one alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tries", type=int, default=4, help="beginnings; the best one is kept")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    began = time.monotonic()
    data, references = (
        collect(args.shards, args.minutes, args.seed),
        read_references(args.references),
    )
    print(f"{len(data)} clips, {len(references)} references, {time.monotonic() - began:.0f} s")
    voices = data[:, 2].flatten(0, 1)
    music = (data[:, 0] - 2 * data[:, 1] + data[:, 2]).clamp_min(0).flatten(0, 1)
    args.out.mkdir(parents=True, exist_ok=True)
    for divergence in ("kl", "is") if args.only is None else (args.only,):
        best = [-np.inf, -np.inf]
        for attempt in range(args.tries):
            torch.manual_seed(args.seed + attempt)
            atoms = centres(voices, ATOMS), centres(music, ATOMS)
            model = Dictionary(*atoms, divergence, args.updates)
            before = score(model, references)
            train(model, data, args.steps, args.rate)
            after = score(model, references)
            print(divergence, before, after, f"{time.monotonic() - began:.0f} s", flush=True)
            if sum(after) > sum(best):
                best = after
                facts = {"minutes": args.minutes, "steps": args.steps, "tries": args.tries}
                write(model, args.out / f"{divergence}.npz", score=after, **facts)
    (args.out / "README.md").write_text(card(args.shards, args.out))


if __name__ == "__main__":
    main()
