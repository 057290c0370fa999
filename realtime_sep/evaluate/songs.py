"""Songs with known stems, in the layouts that such collections come in.

- `<song>/{mixture,vocals,accompaniment}.(wav|flac)`
- `<song>/{mixture,vocals,drums,bass,other}.(wav|flac)`, as MUSDB18-HQ, perhaps with `guitar` and
  `piano` besides; all but the vocals are added up to the accompaniment
- `<song>.stem.mp4` with the five tracks mixture, drums, bass, other, vocals, as MUSDB18
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import av.error
import numpy as np
import samplerate as libsamplerate

from realtime_sep.errors import AudioFileError, UsageError
from realtime_sep.io.file import downmix, read_audio
from realtime_sep.types import Float32

_SUFFIXES = (".wav", ".flac")
_STEM_FILE = ".stem.mp4"
#: The parts that add up to the accompaniment, and the order of tracks in a stem file.
_PARTS = ("drums", "bass", "other")
#: Parts that some collections tell apart from the others.
_MORE_PARTS = ("guitar", "piano")
_TRACKS = ("mixture", *_PARTS, "vocals")


@dataclass(frozen=True)
class Song:
    """A song in memory: all stems `(frames, channels)` of equal length, 1 or 2 channels.

    Attributes:
        parts: the stems that add up to the accompaniment, by name, where they are known.
        notes: what had to be mended when it was read, for people.
    """

    name: str
    samplerate: int
    mixture: Float32
    vocals: Float32
    accompaniment: Float32
    notes: tuple[str, ...] = field(default=())
    parts: Mapping[str, Float32] = field(default_factory=dict)

    @property
    def references(self) -> dict[str, Float32]:
        """The true stems by name."""
        return {"vocals": self.vocals, "accompaniment": self.accompaniment}


def find_songs(directory: Path) -> list[Path]:
    """Song folders and stem files in `directory`, at any depth, sorted by path.

    A folder is a song if a stem of any of the layouts lies in it; what is missing is found out by
    `read_song`.

    Raises:
        UsageError: no such directory, or no song in it.
    """
    if not directory.is_dir():
        kind = "not a directory" if directory.exists() else "no such directory"
        raise UsageError(f"{directory}: {kind}; give one that holds <song>/vocals.wav and so on")
    known = {*_TRACKS, *_MORE_PARTS, "accompaniment"}
    found: set[Path] = set()
    for path in _files(directory):
        if path.name.lower().endswith(_STEM_FILE):
            found.add(path)
        elif path.suffix.lower() in _SUFFIXES and path.stem.lower() in known:
            found.add(path.parent)
    if not found:
        raise UsageError(
            f"{directory}: holds no songs; they are folders with mixture, vocals and accompaniment "
            "(or drums, bass, other) as .wav or .flac, or .stem.mp4 files"
        )
    return sorted(found)


def _files(directory: Path) -> Iterator[Path]:
    """All files below, through links, too, but no folder twice."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(directory, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(folder, file) for file in files)


def song_name(path: Path, directory: Path) -> str:
    """What to call the song at `path`, found in `directory`."""
    if path == directory:
        return printable(path.resolve().name)
    name = path.relative_to(directory).as_posix()
    return printable(name[: -len(_STEM_FILE)] if name.lower().endswith(_STEM_FILE) else name)


def printable(text: str) -> str:
    """Text that no terminal obeys and every encoding takes: file names may hold anything."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def read_song(path: Path, name: str, rate: int | None = None) -> Song:
    """Read one song that `find_songs` found.

    Args:
        rate: resample it to this many Hz.

    Raises:
        AudioFileError: a stem is missing or cannot be read, or the rates of the stems differ.
    """
    if path.is_dir():
        stems, samplerate = _read_folder(path)
    else:
        stems, samplerate = _read_stem_file(path)
    notes: list[str] = []
    stems = dict(zip(stems, _alike(list(stems.values()), notes), strict=True))
    if not len(stems["mixture"]):
        raise AudioFileError(f"{path}: holds no sound")
    if not all(np.isfinite(stem).all() for stem in stems.values()):
        raise AudioFileError(f"{path}: holds samples that are not numbers; write the files again")
    if rate is not None and rate != samplerate:
        stems = {key: _resampled(stem, rate / samplerate) for key, stem in stems.items()}
        samplerate = rate
    mixture, vocals = stems.pop("mixture"), stems.pop("vocals")
    accompaniment = stems.pop("accompaniment", None)
    if accompaniment is None:
        accompaniment = np.sum(list(stems.values()), axis=0, dtype=np.float32)
    return Song(name, samplerate, mixture, vocals, accompaniment, tuple(notes), stems)


def _read_folder(path: Path) -> tuple[dict[str, Float32], int]:
    files = {
        file.stem.lower(): file
        for file in sorted(path.iterdir())
        if file.suffix.lower() in _SUFFIXES
    }
    wanted = ["mixture", "vocals"]
    parts = [*_PARTS, *(part for part in _MORE_PARTS if part in files)]
    wanted += ["accompaniment"] if "accompaniment" in files else parts
    missing = [stem for stem in wanted if stem not in files]
    if missing == list(_PARTS) == parts:
        missing = ["accompaniment"]
    if missing:
        raise AudioFileError(
            f"{path}: lacks {' and '.join(missing)} (.wav or .flac); a song needs mixture, vocals "
            "and accompaniment"
        )
    stems: dict[str, Float32] = {}
    rates: dict[str, int] = {}
    for stem in wanted:
        audio, rates[stem] = read_audio(files[stem])
        # More than two channels become stereo; one stays one.
        stems[stem] = audio if audio.shape[1] <= 2 else read_audio(files[stem], channels=2)[0]
    if len(set(rates.values())) > 1:
        told = ", ".join(f"{stem} {rate}" for stem, rate in rates.items())
        raise AudioFileError(f"{path}: the stems' sample rates differ ({told}); make them equal")
    return stems, rates["mixture"]


def _read_stem_file(path: Path) -> tuple[dict[str, Float32], int]:
    try:
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            count = len(container.streams.audio)
        if count != len(_TRACKS):
            raise AudioFileError(
                f"{path}: a stem file has {len(_TRACKS)} sound tracks "
                f"({', '.join(_TRACKS)}), this one {count}"
            )
        stems: dict[str, Float32] = {}
        for index, name in enumerate(_TRACKS):
            with av.open(f"file:{path}", metadata_errors="replace") as container:
                stream = container.streams.audio[index]
                rate = stream.rate
                resampler = av.AudioResampler(format="fltp", rate=rate)
                pieces = [
                    piece.to_ndarray()
                    for frame in container.decode(stream)
                    for piece in resampler.resample(frame)
                ]
            if not pieces:
                raise AudioFileError(f"{path}: its track {name} holds no sound")
            audio = np.concatenate(pieces, axis=1).T.astype(np.float32)
            if audio.shape[1] > 2:
                audio = audio @ downmix(("NONE",) * audio.shape[1], 2)
            stems[name] = np.ascontiguousarray(audio)
    except (av.error.FFmpegError, OSError) as error:
        raise AudioFileError(f"{path}: cannot be read as a stem file: {error}") from error
    return stems, rate


def _alike(stems: Sequence[Float32], notes: list[str]) -> list[Float32]:
    """The stems at the shortest one's length and with the most channels of any."""
    lengths = [len(stem) for stem in stems]
    if min(lengths) != max(lengths):
        notes.append(
            f"stems of unequal length, {min(lengths)} to {max(lengths)} frames: cut to the shortest"
        )
    channels = max(stem.shape[1] for stem in stems)
    return [
        np.ascontiguousarray(
            np.broadcast_to(stem[: min(lengths)], (min(lengths), channels))
            if stem.shape[1] == 1
            else stem[: min(lengths)]
        )
        for stem in stems
    ]


def _resampled(audio: Float32, ratio: float) -> Float32:
    if not len(audio):
        return audio
    done: Float32 = libsamplerate.resample(audio, ratio, "sinc_best")
    return np.ascontiguousarray(done.reshape(-1, audio.shape[1]), np.float32)
