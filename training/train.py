"""Train one model; run it again and it goes on from its newest checkpoint.

    python -m training.train unet --minutes 60 --data SHARDS --out runs/unet

Batches come from loader processes.  A checkpoint (weights, averaged weights, optimiser, progress)
is written each minute by an atomic rename; SIGTERM writes one more and ends.  The learning rate
follows the share of `--minutes` gone by, so that the run ends annealed even when it shared the
machine; time in which it stood still (SIGSTOP) does not count.  Validation scores real songs
against the teacher's separation, held-out singers over held-out music, and what of held-out music
leaks into the voice, in dB, with the averaged weights.
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.losses import separation_loss
from training.mix import Mixer
from training.networks import build, inherit
from training.optimisers import optimisers
from training.shards import SAMPLE_RATE, read, tracks
from training.spectra import Frames

MUSIC_S = 6.0  # of each held-out track
LONGEST_STEP = 20.0  # seconds; whatever took longer was stopped meanwhile


class Mixtures(IterableDataset[tuple[np.ndarray, np.ndarray]]):
    """Batches of `(vocals, accompaniment)`, one independent mixer per loader process."""

    def __init__(self, folder: Path, samples: int, batch: int, seed: int) -> None:
        self.folder, self.samples, self.size, self.seed = folder, samples, batch, seed

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        info = get_worker_info()
        worker = info.id if info is not None else 0
        mixer = Mixer(self.folder, self.samples, self.seed + 1000 * worker)
        return mixer.batches(self.size)


def sdr(reference: Tensor, estimate: Tensor) -> Tensor:
    """Plain signal-to-distortion ratio in dB of each item, over all channels and samples."""
    power = reference.square().sum((1, 2))
    return 10 * torch.log10((power + 1e-9) / ((reference - estimate).square().sum((1, 2)) + 1e-9))


class Validation:
    """Median SDR (vocals, accompaniment) on real songs and on held-out synthetic mixes.

    Of held-out music the level of the vocals against the mixture: median and 90th percentile.
    """

    def __init__(self, references: Path, shards: Path, frames: Frames) -> None:
        self.frames = frames
        self.sets: dict[str, tuple[Tensor, Tensor]] = {}
        stored = [np.load(path) for path in sorted(references.glob("*.npz"))]
        if stored:
            mix, vocals = (np.stack([item[key] for item in stored]) for key in ("mix", "vocals"))
            self.sets["songs"] = (torch.from_numpy(mix), torch.from_numpy(vocals))
        mixer = Mixer(shards, 8 * 512 * 86, seed=1, split="validation")
        if {"voice", "accompaniment"} <= set(mixer.found):
            pairs = [pair for pair in (mixer.pair() for _ in range(60)) if _sounding(*pair)][:24]
            vocals = torch.from_numpy(np.stack([v.T for v, _ in pairs]).copy())
            rest = torch.from_numpy(np.stack([a.T for _, a in pairs]).copy())
            self.sets["heldout"] = (vocals + rest, vocals)
        self.music = held_out_music(shards, round(MUSIC_S * SAMPLE_RATE / 512) * 512)

    def _estimate(self, network: nn.Module, mix: Tensor) -> Tensor:
        device = next(network.parameters()).device
        cut = self.frames.geometry.synthesis - self.frames.geometry.hop
        estimates = []
        for item in mix.split(2):
            item = item.to(device)
            with torch.autocast(device.type, torch.bfloat16):
                estimate, _ = self.frames.separate(network, item, _start(network, item))
            estimates.append(estimate.cpu()[..., :-cut])
        return torch.cat(estimates)

    @torch.no_grad()
    def scores(self, network: nn.Module) -> dict[str, float]:
        result = {}
        for name, (mix, vocals) in self.sets.items():
            estimate = self._estimate(network, mix)
            mix, vocals = (x[..., : estimate.shape[-1]] for x in (mix, vocals))
            result[f"{name}_vocals"] = float(sdr(vocals, estimate).median())
            result[f"{name}_rest"] = float(sdr(mix - vocals, mix - estimate).median())
        if len(self.music):
            estimate = self._estimate(network, self.music)
            mix = self.music[..., : estimate.shape[-1]]
            leak = -sdr(mix, mix - estimate)
            result["leak"], result["leak_p90"] = float(leak.median()), float(leak.quantile(0.9))
        return result


def held_out_music(shards: Path, samples: int) -> Tensor:
    """The middle of each held-out instrumental track, `[tracks, 2, samples]`."""
    pieces = [
        read(shards, clip, (clip.frames - samples) // 2, samples).T
        for clip in tracks(shards, "validation", samples / SAMPLE_RATE)
    ]
    sounding = [piece for piece in pieces if np.square(piece).mean() > 1e-7]
    return torch.from_numpy(np.stack(sounding)) if sounding else torch.zeros(0, 2, samples)


def _sounding(vocals: np.ndarray, rest: np.ndarray) -> bool:
    return bool(np.square(vocals).mean() > 1e-7 and np.square(rest).mean() > 1e-7)


def _start(network: nn.Module, audio: Tensor) -> list[Tensor]:
    return [state.to(audio.device) for state in network.initial_state(len(audio))]


def _ignore_signals(_: int) -> None:
    """A signal to the whole group is for the trainer, which ends its loaders itself."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Threads:
    """Keeps to one thread or all of them, whichever makes the faster steps just now.

    Two threads wait for each other at every kernel; on a machine shared with busier processes a
    single one is often faster.  Every `PERIOD` steps both are tried again.
    """

    PERIOD, TRIAL = 60, 3

    def __init__(self, most: int) -> None:
        self.counts = sorted({1, most})
        self.best = most
        self.trial: list[float] = []
        self.step = 0

    def begin(self) -> None:
        phase = self.step % self.PERIOD // self.TRIAL
        count = self.counts[phase] if phase < len(self.counts) else self.best
        torch.set_num_threads(count)

    def end(self, seconds: float) -> None:
        phase = self.step % self.PERIOD // self.TRIAL
        if phase < len(self.counts):
            self.trial.append(seconds)
            if len(self.trial) == self.TRIAL * len(self.counts):
                spans = [
                    min(self.trial[i * self.TRIAL : (i + 1) * self.TRIAL])
                    for i in range(len(self.counts))
                ]
                self.best = self.counts[int(np.argmin(spans))]
                self.trial = []
        self.step += 1


def learning_rate(progress: float, step: int, peak: float, warmup: int = 100) -> float:
    """Warm-up over so many steps, constant, then linear to 2 % over the last 45 % of the time."""
    return peak * min(1.0, (step + 1) / warmup) * min(1.0, max(0.02, (1.0 - progress) / 0.45))


def save(path: Path, content: dict[str, object]) -> None:
    partial = path.with_suffix(".part")
    torch.save(content, partial)
    os.replace(partial, path)


def save_weights(path: Path, average: nn.Module, name: str, steps: int) -> None:
    """Averaged weights only, half precision: small enough to be kept in the repository."""
    weights = {key: value.half() for key, value in average.state_dict().items()}
    save(path, {"model": name, "steps": steps, "weights": weights})


def train(args: argparse.Namespace) -> None:
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, geometry = build(args.model)
    network = network.to(device, memory_format=torch.channels_last)
    frames = Frames(geometry).to(device)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    crew = optimisers(network)
    step, gone, heard = 0, 0.0, 0.0
    newest = out / "checkpoint.pt"
    if newest.exists():
        stored = torch.load(newest, map_location=device, weights_only=True)
        network.load_state_dict(stored["network"])
        average.load_state_dict(stored["average"])
        for (optimiser, _), state in zip(crew, stored["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        step, gone, heard = stored["step"], stored["gone"], stored["heard"]
        print(f"resumed at step {step}, {gone / 60:.1f} min", flush=True)
    elif args.start is not None:
        stored = torch.load(args.start, map_location=device, weights_only=True)
        weights = {key: value.float() for key, value in stored["weights"].items()}
        ratio = geometry.hop / build(stored["model"])[1].hop
        for target in (network, average):
            inherit(target, weights, ratio)
        print(f"weights from {args.start}", flush=True)

    samples = round(args.seconds * SAMPLE_RATE / geometry.hop) * geometry.hop
    cut = geometry.synthesis - geometry.hop
    batches = iter(
        DataLoader(
            Mixtures(args.data, samples, args.batch, args.seed + 7919 * step),
            batch_size=None,
            num_workers=args.workers,
            prefetch_factor=4,
            worker_init_fn=_ignore_signals,
        )
    )
    threads = Threads(args.threads)
    validation = Validation(args.references, args.data, frames)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log_path = out / "log.csv"
    fields = ["step", "minutes", "hours_heard", "rate", "threads"]
    fields += ["loss", "wave", "sdr", "voice", "rest"]
    fields += [f"{name}_{stem}" for name in ("songs", "heldout") for stem in ("vocals", "rest")]
    fields += ["leak", "leak_p90"]
    fresh = not log_path.exists()
    log_file = log_path.open("a", newline="")
    log = csv.DictWriter(log_file, fields)
    if fresh:
        log.writeheader()
    picks = torch.Generator().manual_seed(args.seed + step)
    ticked = time.monotonic()
    saved = scored = logged = time.monotonic()
    sums: dict[str, float] = {}
    count = 0

    def checkpoint() -> None:
        state = {
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser, _ in crew],
            "step": step,
            "gone": gone,
            "heard": heard,
        }
        save(newest, state)
        save_weights(out / "weights.pt", average, args.model, step)

    while not stopping:
        progress = gone / (60 * args.minutes)
        if progress >= 1:
            break
        vocals, rest = (torch.as_tensor(stem).to(device) for stem in next(batches))
        threads.begin()
        started = time.monotonic()
        mix = vocals + rest
        rate = learning_rate(progress, step, args.rate, args.warmup)
        for optimiser, factor in crew:
            for group in optimiser.param_groups:
                group["lr"] = factor * rate
        with torch.autocast(device.type, torch.bfloat16):
            estimate, _ = frames.separate(network, mix, _start(network, mix))
        estimate = estimate[..., :-cut]
        loss, parts = separation_loss(
            estimate, vocals[..., :-cut], mix[..., :-cut], picks, args.plain
        )
        network.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        if torch.isfinite(norm):
            for optimiser, _ in crew:
                optimiser.step()
        threads.end(time.monotonic() - started)
        step += 1
        heard += mix.shape[0] * mix.shape[2] / SAMPLE_RATE / 3600
        decay = min(args.average, (1 + step) / (10 + step))
        with torch.no_grad():
            pairs = zip(average.parameters(), network.parameters(), strict=True)
            for slow, fast in pairs:
                slow.lerp_(fast, 1 - decay)
        for key, value in parts.items():
            sums[key] = sums.get(key, 0.0) + value
        count += 1

        now = time.monotonic()
        gone += min(now - ticked, LONGEST_STEP)
        ticked = now
        scoring = now - scored > 60 * args.score_every
        if now - logged > 60 or scoring:
            row: dict[str, object] = {key: round(value / count, 4) for key, value in sums.items()}
            row |= {"step": step, "minutes": round(gone / 60, 2)}
            row |= {"hours_heard": round(heard, 3), "rate": round(rate, 6)}
            row |= {"threads": threads.best}
            if scoring:
                row |= {key: round(v, 3) for key, v in validation.scores(average).items()}
                scored = time.monotonic()
            log.writerow(row)
            log_file.flush()
            print(row, flush=True)
            sums, count, logged = {}, 0, time.monotonic()
        if now - saved > 60:
            checkpoint()
            saved = time.monotonic()
    checkpoint()
    final = {key: round(value, 3) for key, value in validation.scores(average).items()}
    log.writerow({"step": step, "minutes": round(gone / 60, 2)} | final)
    log_file.close()
    print(f"stopped at step {step}: {final}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=60, help="of the run, without pauses")
    parser.add_argument("--data", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--references", type=Path, default=Path("../train_data/references"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--from", dest="start", type=Path, help="weights to begin with")
    parser.add_argument("--plain", action="store_true", help="nothing but SDR in the loss")
    parser.add_argument("--seconds", type=float, default=4.1)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--rate", type=float, default=8e-3)
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--average", type=float, default=0.99, help="decay of the averaged weights")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--score-every", type=float, default=8, help="minutes between scores")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
