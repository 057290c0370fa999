"""Scores a model file by streaming it: plain full-clip SDR in dB of vocals and accompaniment.

    python -m training.score onnx_models/unet.onnx --eval ../shared/data/eval --json scores.json

Each clip is scored cold (from zero states) and warmed (the clip is played once before).  The level
is varied on request, and instrumental music scored by what is left in the vocals.  These are
development scores: nothing here is trained on, nor used to pick a checkpoint.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from training.corpus import load
from training.shards import SAMPLE_RATE, read, tracks
from training.stream import OnnxStream

INSTRUMENTAL_S = 10.0  # from the middle of each held-out track, from zero states

Audio = npt.NDArray[np.float32]


def sdr(reference: Audio, estimate: Audio) -> float:
    signal = np.sum(reference.astype(np.float64) ** 2)
    error = np.sum((reference - estimate).astype(np.float64) ** 2)
    return float(10 * np.log10((signal + 1e-12) / (error + 1e-12)))


def evaluate(
    stream: OnnxStream, folder: Path, rate: int = SAMPLE_RATE, level: float | None = None
) -> dict[str, dict[str, list[float]]]:
    """Per song and condition: `[vocals, accompaniment, unprocessed vocals]` in dB.

    `level`, where given, is the level in dBFS the mixture is brought to before.
    """
    result: dict[str, dict[str, list[float]]] = {}
    for song in sorted(path for path in folder.iterdir() if path.is_dir()):
        mix, vocals = (load(song / f"{stem}.flac", 2) for stem in ("mixture", "vocals"))
        if rate != SAMPLE_RATE:
            mix, vocals = (soxr.resample(x, SAMPLE_RATE, rate) for x in (mix, vocals))
        if level is not None:
            scale = np.float32(10 ** (level / 20) / np.sqrt(np.mean(mix**2)))
            mix, vocals = mix * scale, vocals * scale
        rest = mix - vocals
        stream.reset()
        scores = {}
        for condition in ("cold", "warm"):
            voice = stream.separate(mix)
            scores[condition] = [sdr(vocals, voice), sdr(rest, mix - voice), sdr(vocals, mix)]
        result[song.name] = scores
    return result


def medians(result: dict[str, dict[str, list[float]]]) -> dict[str, list[float]]:
    return {
        condition: [
            round(float(np.median([scores[condition][i] for scores in result.values()])), 2)
            for i in (0, 1)
        ]
        for condition in ("cold", "warm")
    }


def instrumental(stream: OnnxStream, shards: Path, seconds: float) -> list[float]:
    """Vocals' level relative to the mixture, in dB, on each held-out instrumental track."""
    levels = []
    for clip in tracks(shards, "validation", seconds):
        samples = int(seconds * SAMPLE_RATE)
        mix = read(shards, clip, (clip.frames - samples) // 2, samples)
        if not mix.any():
            continue
        stream.reset()
        levels.append(-sdr(mix, mix - stream.separate(mix)))
    # -sdr(mix, mix - voice) is the energy of the voice over that of the mixture.
    return levels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--eval", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--levels", type=float, nargs="*", default=[], help="dBFS, RMS")
    parser.add_argument("--rate", type=int, default=SAMPLE_RATE)
    parser.add_argument("--shards", type=Path, help="also score held-out instrumental music")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    stream = OnnxStream(args.model, args.rate)
    result = evaluate(stream, args.eval, rate=args.rate)
    for name, scores in result.items():
        cold, warm = scores["cold"], scores["warm"]
        print(f"{name:40s} {warm[0]:6.2f} {warm[1]:6.2f}   cold {cold[0]:6.2f} {cold[1]:6.2f}")
    summary: dict[str, object] = {"songs": len(result), "rate": args.rate, **medians(result)}
    summary["unprocessed"] = round(float(np.median([s["warm"][2] for s in result.values()])), 2)
    summary["by_song"] = {
        name: [round(value, 2) for value in scores["warm"][:2]] for name, scores in result.items()
    }
    for level in args.levels:
        at_level = evaluate(stream, args.eval, rate=args.rate, level=level)
        summary[f"{level:g} dBFS"] = medians(at_level)["warm"]
    if args.shards is not None:
        levels = instrumental(OnnxStream(args.model), args.shards, INSTRUMENTAL_S)
        summary["instrumental"] = {
            "tracks": len(levels),
            "median": round(float(np.median(levels)), 1),
            "p90": round(float(np.quantile(levels, 0.9)), 1),
        }
    print(json.dumps(summary))
    if args.json is not None:
        args.json.write_text(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
