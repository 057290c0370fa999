"""Whether a separator is after half an hour what it is after half a minute.

The last minute of a long stream is compared with the same minute after only 30 s of what precedes
it: SDR against the true voice, and how much of the difference is heard.  Songs of DIR play in a
loop (folders as `realtime-sep evaluate` takes them); without DIR an invented one.  Faster than real
time; exit code 1 where the scores differ by more than 0.2 dB.

    python benchmarks/drift.py [DIR] --model unet --minutes 30
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from realtime_sep.errors import RealtimeSepError
from realtime_sep.evaluate.metrics import sdr
from realtime_sep.evaluate.songs import find_songs, read_song
from realtime_sep.plugins import load_separator
from realtime_sep.separators import Separator
from realtime_sep.types import Float32

RATE = 44100
MINUTE = 60 * RATE
LEAD = 30 * RATE  # of the short stream, before the minute
ALLOWED_DB = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", nargs="?", type=Path, metavar="DIR")
    parser.add_argument("--model", default="unet")
    parser.add_argument("--minutes", type=float, default=30)
    args = parser.parse_args()
    mix, vocals = songs(args.directory) if args.directory else invented()
    separator = load_separator(args.model, samplerate=RATE)
    frames = max(round(args.minutes * MINUTE), LEAD + MINUTE)
    began = time.process_time()
    after_long = last_minute(separator, mix, 0, frames)
    seconds = time.process_time() - began
    after_short = last_minute(separator, mix, frames - MINUTE - LEAD, frames)
    truth = np.take(vocals, np.arange(frames - MINUTE, frames), axis=0, mode="wrap")
    scores = [sdr(truth, found) or -np.inf for found in (after_long, after_short)]
    apart = sdr(after_short, after_long)
    print(
        f"{args.model}: last of {frames / MINUTE:.0f} minutes {scores[0]:.3f} dB, after 30 s "
        f"{scores[1]:.3f} dB, one against the other "
        f"{'the same' if apart is None or np.isinf(apart) else f'{apart:.1f} dB'}; "
        f"{100 * seconds * RATE / frames:.0f} % of a core"
    )
    if abs(scores[0] - scores[1]) > ALLOWED_DB:
        sys.exit(f"drift: more than {ALLOWED_DB} dB")


def last_minute(separator: Separator, song: Float32, begin: int, end: int) -> Float32:
    """The vocals of the minute before `end`, of a fresh stream of the looped song from `begin`."""
    separator.reset()
    info = separator.info
    kept = np.zeros((MINUTE, 2), np.float32)
    stems = np.zeros((len(info.stems), info.hop, 2), np.float32)
    voice = info.stems.index("vocals")
    first = end - MINUTE + info.latency  # of the minute, when it comes out
    length, song = len(song), np.concatenate([song, song[: info.hop]])
    for now in range(begin, end + info.latency, info.hop):
        separator.process(song[now % length :][: info.hop], stems)
        at = now - first
        here = slice(max(at, 0), min(at + info.hop, MINUTE))
        if here.start < here.stop:
            kept[here] = stems[voice, here.start - at : here.stop - at]
    return kept


def songs(directory: Path) -> tuple[Float32, Float32]:
    """All songs one after the other: mixture and vocals `(frames, 2)`."""
    found = [read_song(path, path.name, RATE) for path in find_songs(directory)]
    mix, vocals = (
        np.concatenate([np.repeat(stem, 2, 1)[:, :2] if stem.shape[1] == 1 else stem for stem in s])
        for s in zip(*((song.mixture, song.vocals) for song in found), strict=True)
    )
    return mix, vocals


def invented(seconds: int = 47) -> tuple[Float32, Float32]:
    """A voice in phrases over chords and beats: mixture and vocals `(frames, 2)`."""
    rng = np.random.default_rng(0)
    t = np.arange(seconds * RATE) / RATE
    beat = (2 * t).astype(int)  # 120 a minute
    scale = 220 * 2 ** (np.array([0, 2, 4, 7, 9, 12]) / 12)
    pitch = rng.choice(scale, beat[-1] + 1)[beat] * (1 + 0.01 * np.sin(2 * np.pi * 5.5 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sung = sum(np.sin(n * phase) / n for n in range(1, 12)) * (beat % 16 < 11)
    chord = sum(np.sin(2 * np.pi * f * t) for f in 110 * np.array([1, 1.26, 1.5, 2.52]))
    drums = rng.standard_normal(len(t)) * np.exp(-12 * (2 * t % 1))
    voice = np.repeat(0.1 * sung[:, np.newaxis], 2, 1)
    music = 0.06 * chord[:, np.newaxis] + 0.1 * drums[:, np.newaxis] * [1.0, 0.8]
    return (voice + music).astype(np.float32), voice.astype(np.float32)


if __name__ == "__main__":
    try:
        main()
    except RealtimeSepError as error:
        sys.exit(f"drift: {error}")
