"""More singers for the songs: their voices converted (`training.formants`), in time with the music.

    python -m training.convert --shards SHARDS --workers 1

Each `song_vocals` and `teacher_vocals` clip becomes several `song_converted` and
`teacher_converted` ones, as long as it and in its levels, so that its music is theirs, too (see
`shards.converted`).  Conversions in which the teacher finds the voice much worse than in the
original are dropped.  Can be interrupted and repeated: finished voices are skipped.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from training.formants import EPS, Singer, sing
from training.mix import SONGS, level_of
from training.shards import (
    SAMPLE_RATE,
    Audio,
    Clip,
    ShardWriter,
    finished,
    mark_finished,
    pairs,
    place,
    read,
)
from training.teacher import Teacher

SINGERS = {"song": 6, "teacher": 3}  # of every clip
FORMANTS, SPARED = (0.78, 1.28), 0.07  # range of the ratios; nearer to one (nepers) is no other
# Dropped: those worse by so much than the original, unless they are as good as real songs are to
# the teacher (7.2 dB, docs/training.md; the originals that it made itself, it finds too easily).
DROP_DB, GOOD_DB, JUDGED_S = 3.0, 7.2, 24


def random_singers(rng: np.random.Generator, count: int) -> list[Singer]:
    """`count` singers, their formants spread over the whole range, none like the original's."""
    low, high = np.log(FORMANTS) + np.array([SPARED, -SPARED])
    places = low + (high - low) * (np.arange(count) + rng.random(count)) / count
    return [
        Singer(
            formant=float(np.exp(where + np.copysign(SPARED, where))),
            tilt_db=rng.uniform(-3, 2.5),
            ring_db=rng.uniform(-4, 7) if rng.random() < 0.5 else 0.0,
            breath_db=rng.uniform(-16, -2) if rng.random() < 0.4 else -np.inf,
            vibrato_semitones=rng.uniform(0.1, 0.5) if rng.random() < 0.4 else 0.0,
            vibrato_hz=rng.uniform(4.5, 6.8),
        )
        for where in places
    ]


@cache
def teacher() -> Teacher:
    torch.set_num_threads(1)
    return Teacher()


def judged(voice: Audio, music: Audio) -> float:
    """SDR in dB of what the teacher finds of `voice` in the mixture."""
    error = teacher().separate(voice + music)[0] - voice
    return float(10 * np.log10((np.square(voice).sum() + EPS) / (np.square(error).sum() + EPS)))


def loudest(voice: Audio) -> slice:
    """The `JUDGED_S` seconds with most voice."""
    seconds = np.square(voice[: len(voice) // SAMPLE_RATE * SAMPLE_RATE]).sum(axis=1)
    seconds = seconds.reshape(-1, SAMPLE_RATE).sum(axis=1)
    sums = np.convolve(seconds, np.ones(min(JUDGED_S, len(seconds))), "valid")
    start = int(sums.argmax()) * SAMPLE_RATE
    return slice(start, start + JUDGED_S * SAMPLE_RATE)


def convert(folder: Path, kind: str, pair: tuple[Clip, Clip]) -> str:
    """All singers of one voice into shards of their own; returns what the teacher found, a line."""
    clip = pair[0]
    prefix = f"{kind}_converted-{clip.shard}-{clip.start}"
    if finished(folder, prefix):
        return f"{prefix}: there already"
    rng = np.random.default_rng(crc32(prefix.encode()))
    voice, music = (read(folder, part) for part in pair)
    part = loudest(voice)
    before = judged(voice[part], music[part])
    report = f"{prefix}: {clip.title}, {before:.1f} dB"
    writer = ShardWriter(folder, prefix, 2)
    for index, singer in enumerate(random_singers(rng, SINGERS[kind])):
        other = sing(rng, voice, singer)
        other *= np.float32(level_of(voice) / (level_of(other) + EPS))
        after = judged(other[part], music[part])
        if kept := after > min(before - DROP_DB, GOOD_DB):
            title = f"{place(clip)} {clip.title}, singer {index}"
            writer.add(other, f"{kind}_converted", clip.group, title, clip.licence, clip.split)
        report += f"\n  {after:.1f} dB{'' if kept else ', dropped'}: {singer}"
    writer.flush()
    mark_finished(folder, prefix)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    with ProcessPoolExecutor(args.workers) as crew:
        for kind in SONGS:
            found = pairs(args.shards, kind, "train")
            for report in crew.map(partial(convert, args.shards, kind), found):
                print(report, flush=True)


if __name__ == "__main__":
    main()
