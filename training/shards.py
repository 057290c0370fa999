"""Packed audio: int16 `.npy` shards of at most 60 MB, each with a JSON manifest beside it.

A shard is one array `[frames, channels]` at 44.1 kHz; its manifest lists the clips inside it, with
source, licence and split.  A shard exists once its manifest does, so that an interrupted writer
leaves nothing half-finished behind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 44_100
SHARD_BYTES = 60_000_000

Audio = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """A continuous stretch of audio inside a shard."""

    shard: str
    start: int
    frames: int
    kind: str  # accompaniment | voice | speech | singing | song_vocals | song_accompaniment | …
    group: str  # package, singer or act: never on both sides of the split
    title: str
    licence: str
    split: str  # train | validation


class ShardWriter:
    """Collects clips with equal channel counts and writes them as `PREFIX-000.npy`, `-001.npy`…"""

    def __init__(self, folder: Path, prefix: str, channels: int) -> None:
        self.folder, self.prefix, self.channels = folder, prefix, channels
        self.count = 0
        self.audio: list[npt.NDArray[np.int16]] = []
        self.clips: list[Clip] = []
        self.frames = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(
        self, audio: Audio, kind: str, group: str, title: str, licence: str, split: str
    ) -> None:
        """Append `audio` `[frames, channels]`; what is too loud is scaled down, not clipped."""
        limit = SHARD_BYTES // (2 * self.channels)
        audio = audio / max(1.0, float(np.abs(audio).max(initial=0.0)))
        packed = np.round(audio * 32767).astype(np.int16).reshape(-1, self.channels)
        for piece in (packed[i : i + limit] for i in range(0, len(packed), limit)):
            if self.frames + len(piece) > limit:
                self.flush()
            name = f"{self.prefix}-{self.count:03d}"
            self.clips.append(
                Clip(name, self.frames, len(piece), kind, group, title, licence, split)
            )
            self.audio.append(piece)
            self.frames += len(piece)

    def flush(self) -> None:
        """Write the shard collected so far, if any; the manifest comes last."""
        if not self.audio:
            return
        name = f"{self.prefix}-{self.count:03d}"
        np.save(self.folder / f"{name}.npy", np.concatenate(self.audio))
        partial = self.folder / f"{name}.json.part"
        partial.write_text(json.dumps([asdict(clip) for clip in self.clips], indent=0))
        os.replace(partial, self.folder / f"{name}.json")
        self.count += 1
        self.audio, self.clips, self.frames = [], [], 0


def clips(folder: Path, kinds: set[str] | None = None, split: str | None = None) -> list[Clip]:
    """All clips of the finished shards in `folder`, in a stable order."""
    return [
        clip
        for path in sorted(folder.glob("*.json"))
        for clip in (Clip(**entry) for entry in json.loads(path.read_text()))
        if (kinds is None or clip.kind in kinds) and (split is None or clip.split == split)
    ]


def place(clip: Clip) -> str:
    """Names a clip among all; titles may come twice."""
    return f"{clip.shard}:{clip.start}"


def pairs(folder: Path, kind: str, split: str | None = None) -> list[tuple[Clip, Clip]]:
    """Voice and music of every song; `kind` is `song` or `teacher`.

    Raises:
        ValueError: where a voice has no music, or music of another length.
    """
    voices, musics = (clips(folder, {f"{kind}_{s}"}, split) for s in ("vocals", "accompaniment"))
    found = list(zip(voices, musics, strict=True))
    for voice, music in found:
        if (voice.title, voice.frames) != (music.title, music.frames):
            raise ValueError(f"{place(voice)} is not the voice of {place(music)}")
    return found


def converted(folder: Path, kind: str, split: str | None = None) -> dict[str, list[Clip]]:
    """The converted voices (`training.convert`) of a song's voice, by the `place` of that."""
    found: dict[str, list[Clip]] = {}
    for clip in clips(folder, {f"{kind}_converted"}, split):
        found.setdefault(clip.title.split(" ")[0], []).append(clip)
    return found


def tracks(folder: Path, split: str, seconds: float) -> list[Clip]:
    """Instrumental tracks, each once, that are at least so long; excerpts of others left out."""
    longest: dict[tuple[str, str], Clip] = {}
    for clip in clips(folder, {"accompaniment"}, split):
        known = longest.get((clip.group, clip.title))
        if known is None or clip.frames > known.frames:
            longest[clip.group, clip.title] = clip
    return [clip for clip in longest.values() if clip.frames >= seconds * SAMPLE_RATE]


@lru_cache(maxsize=4096)
def _opened(path: Path) -> npt.NDArray[np.int16]:
    return np.load(path, mmap_mode="r")


def read(folder: Path, clip: Clip, start: int = 0, frames: int | None = None) -> Audio:
    """Samples `start … start + frames` of a clip, `[frames, channels]`, ±1, zero-padded."""
    frames = clip.frames - start if frames is None else frames
    shard = _opened(folder / f"{clip.shard}.npy")
    end = min(start + frames, clip.frames)
    piece = np.asarray(shard[clip.start + start : clip.start + end], dtype=np.float32)
    piece *= np.float32(1 / 32768)
    return np.pad(piece, ((0, frames - len(piece)), (0, 0)))


def hours(items: list[Clip]) -> float:
    return sum(clip.frames for clip in items) / SAMPLE_RATE / 3600


def finished(folder: Path, prefix: str) -> bool:
    """Whether `prefix` was packed to its end (see `mark_finished`)."""
    return (folder / f"{prefix}.done").exists()


def mark_finished(folder: Path, prefix: str) -> None:
    (folder / f"{prefix}.done").touch()


def groups(items: list[Clip]) -> Iterator[tuple[str, list[Clip]]]:
    """Clips gathered by group, in order of the first appearance."""
    gathered: dict[str, list[Clip]] = {}
    for clip in items:
        gathered.setdefault(clip.group, []).append(clip)
    yield from gathered.items()
