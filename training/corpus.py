"""Collects the training audio into packed shards.

    python -m training.corpus excerpts --data ../shared/data --out SHARDS   # quick start: 3 h
    python -m training.corpus packages --data ../shared/data --out SHARDS --cache CACHE   # 31 h
    python -m training.corpus speech --out SHARDS --cache CACHE   # 5 h

`excerpts` packs what lies in the data folder: excerpts of instrumental music, sung phonemes, songs
with true stems.  `packages` downloads the Debian packages listed there with `apt-get download`,
unpacks them with `dpkg -x` (nothing is installed) and packs their music in full; `speech` packs the
voices of `SPEECH_PACKAGES` (the Asterisk prompts need the `ffmpeg` command).
Both can be interrupted and repeated: finished packages are skipped.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from training.shards import SAMPLE_RATE, Audio, ShardWriter, finished, mark_finished

VALIDATION_GROUPS = {"hedgewars-data", "singularity-music", "warmux-data", "rei", "vocadito"}

VOICE_LICENCES = {
    "scottpoid": "SCOTTPOID voicebank terms (credit: SCOTTPOID)",
    "yuki": "public domain (UTAU-Yuki)",
    "dorodoro": "free use, author Cerenothoa",
    "rei": "MIT (torone_rei)",
    "erithacus": "CC-BY-4.0 (ErithacusVB)",
    "vocadito": "CC-BY-4.0 (vocadito)",
}
SONG_GROUP, SONG_LICENCE = "software-entwicklungskit", "CC0-1.0"
PACKAGE_LICENCES = {
    "0ad-data": "CC-BY-SA-3.0",
    "fretsonfire-songs-sectoid": "MIT",
    "naev-data": "CC-BY/CC-BY-SA/GPL-3 (debian/copyright)",
    "singularity-music": "CC-BY-SA-3.0",
    "supertuxkart-data": "CC-BY/CC-BY-SA (debian/copyright)",
    "ufoai-music": "CC-BY-SA/GPL-2 (debian/copyright)",
    "flare-game": "CC-BY-SA-3.0",
    "megaglest-data": "CC-BY-SA-3.0",
    "marsshooter-data": "CC-BY-SA-3.0 (Obsidian Shell)",
    "klettres-data": "GPL-2+",
    "ktuberling-data": "GPL-2+",
    "fillets-ng-data-cs": "GPL-2+ (ALTAR interactive)",
    "fillets-ng-data-nl": "GPL-2+",
}
SPEECH_PACKAGES = ["klettres-data", "ktuberling-data"] + [
    f"asterisk-core-sounds-{language}-g722" for language in ("en", "es", "fr", "it", "ru")
]
SPEECH_PACKAGES += ["fillets-ng-data-cs", "fillets-ng-data-nl", "0ad-data"]


def split_of(group: str) -> str:
    return "validation" if group in VALIDATION_GROUPS else "train"


def licence_of(package: str) -> str:
    if package.startswith("asterisk"):
        return "CC-BY-SA-3.0 (debian/copyright)"
    return PACKAGE_LICENCES.get(package, "GPL or freer (debian/copyright)")


def ffmpeg(path: Path, channels: int, rate: int, *options: str) -> Audio:
    command = ["ffmpeg", "-v", "error", *options, "-i", str(path)]
    command += ["-f", "f32le", "-ac", str(channels), "-ar", str(rate), "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.float32).reshape(-1, channels)


def load(path: Path, channels: int) -> Audio:
    """Decode any audio file (also raw G.722) to `[frames, channels]` at 44.1 kHz."""
    if path.suffix == ".g722":
        audio, rate = ffmpeg(path, 1, 16_000, "-f", "g722"), 16_000
    else:
        try:
            audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            # libsndfile stumbles over the last page of a good third of all Opus files.
            audio, rate = ffmpeg(path, channels, SAMPLE_RATE), SAMPLE_RATE
    if channels == 1:
        audio = audio.mean(axis=1, keepdims=True)
    elif audio.shape[1] != channels:
        audio = np.repeat(audio[:, :1], channels, axis=1)
    if rate != SAMPLE_RATE:
        audio = soxr.resample(audio, rate, SAMPLE_RATE)
    return np.ascontiguousarray(audio, dtype=np.float32)


def rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as table:
        yield from csv.DictReader(table, delimiter="\t")


def pack_excerpts(data: Path, out: Path) -> None:
    """Instrumental excerpts, phoneme strings and songs with stems of the data folder."""
    if not finished(out, "voice"):
        writer = ShardWriter(out, "voice", 1)
        for path in sorted((data / "voices").rglob("*.opus")):
            singer = "vocadito" if path.stem.startswith("vocadito") else path.parent.name
            title = f"{singer}/{path.stem}"
            audio = load(path, 1)
            writer.add(audio, "voice", singer, title, VOICE_LICENCES[singer], split_of(singer))
        writer.flush()
        mark_finished(out, "voice")
    if not finished(out, "song"):
        writer = ShardWriter(out, "song", 2)
        for folder in sorted((data / "songs").iterdir()):
            if not (folder / "vocals.opus").exists():
                continue
            vocals = load(folder / "vocals.opus", 2)
            rest = load(folder / "accompaniment.opus", 2)
            frames = min(len(vocals), len(rest))
            for kind, audio in (("song_vocals", vocals), ("song_accompaniment", rest)):
                # Halved so that neither stem is scaled on its own by the writer.
                stem = 0.5 * audio[:frames]
                writer.add(stem, kind, SONG_GROUP, folder.name, SONG_LICENCE, "train")
        writer.flush()
        mark_finished(out, "song")
    if not finished(out, "excerpt"):
        writer = ShardWriter(out, "excerpt", 2)
        for row in rows(data / "accompaniment" / "index.tsv"):
            package = row["package"]
            try:
                audio = load(data / "accompaniment" / row["file"], 2)
            except subprocess.CalledProcessError as error:
                print(f"skipped {row['file']}: {error}", flush=True)
                continue
            writer.add(
                audio, "accompaniment", package, row["path"], licence_of(package), split_of(package)
            )
        writer.flush()
        mark_finished(out, "excerpt")


def unpack(package: str, cache: Path, work: Path) -> None:
    """Download `package` into `cache` unless it is there, and unpack it below `work`."""
    if not list(cache.glob(f"{package}_*.deb")):
        subprocess.run(["apt-get", "download", package], cwd=cache, check=True)
    archive = sorted(cache.glob(f"{package}_*.deb"))[-1]
    subprocess.run(["dpkg", "-x", str(archive), str(work)], check=True)


def locate(work: Path, name: str) -> Path | None:
    """The unpacked file called `name`; `archive!member` is extracted from a zip or pk3."""
    archive_name, _, member = name.partition("!")
    candidates = [path for path in work.rglob(Path(archive_name).name) if path.is_file()]
    candidates = [path for path in candidates if str(path).endswith(archive_name)] or candidates
    if not candidates:
        return None
    if not member:
        return candidates[0]
    with zipfile.ZipFile(candidates[0]) as archive:
        return Path(archive.extract(member, work / "members"))


def pack_music(
    package: str, tracks: list[dict[str, str]], work: Path, out: Path, seconds: float, kind: str
) -> None:
    prefix = f"{kind}-{package}"
    writer = ShardWriter(out, prefix, 2)
    for row in tracks:
        path = locate(work, row["path"])
        if path is None:
            print(f"{package}: {row['path']} not found", flush=True)
            continue
        try:
            audio = load(path, 2)
        except subprocess.CalledProcessError as error:
            print(f"{package}: skipped {row['path']}: {error}", flush=True)
            continue
        surplus = max(0, len(audio) - int(seconds * SAMPLE_RATE))
        audio = audio[surplus // 2 : len(audio) - surplus // 2]
        writer.add(audio, kind, package, row["path"], licence_of(package), split_of(package))
    writer.flush()
    mark_finished(out, prefix)


def speaker_of(package: str, path: Path) -> str | None:
    """The group of a spoken file, as near to one speaker as names tell; None for noises."""
    if package == "klettres-data" or package == "ktuberling-data":
        language = next((p for p in path.parts[::-1][1:] if p not in ("alpha", "syllab")), "")
        # ktuberling's "sounds" are noises, not voices.
        return None if language == "sounds" and package[1] == "t" else f"{package}/{language}"
    if package.startswith("fillets"):
        # The small and the big fish, and the others of each scene.
        role = {"m": "small", "v": "big"}.get([*path.stem.split("-"), ""][1])
        return f"{package}/{role}" if role and path.parent.name == package[-2:] else None
    if package == "0ad-data":
        return f"{package}/{path.parts[-3]}" if "voice" in path.parts else None
    return package


def pack_speech(package: str, work: Path, out: Path) -> None:
    """Every spoken file of a package, one group per language or role, silence left as it is."""
    writer = ShardWriter(out, f"speech-{package}", 1)
    for archive in work.rglob("public.zip"):
        with zipfile.ZipFile(archive) as members:
            spoken = [name for name in members.namelist() if name.startswith("audio/voice/")]
            members.extractall(work / "members", spoken)
    paths = sorted(path for ext in ("ogg", "g722", "wav") for path in work.rglob(f"*.{ext}"))
    for path in paths:
        group = speaker_of(package, path)
        if group is None:
            continue
        try:
            audio = load(path, 1)
        except subprocess.CalledProcessError:
            continue
        if len(audio) < SAMPLE_RATE // 5:
            continue
        title = str(path.relative_to(work))
        writer.add(audio, "speech", group, title, licence_of(package), split_of(group))
    writer.flush()
    mark_finished(out, f"speech-{package}")


def pack_packages(
    data: Path, out: Path, cache: Path, only: list[str], seconds: float, kind: str
) -> None:
    tracks: dict[str, list[dict[str, str]]] = {package: [] for package in SPEECH_PACKAGES}
    if kind != "speech":
        table = "accompaniment.tsv" if kind == "accompaniment" else "suspected_vocals.tsv"
        tracks = {}
        for row in rows(data / table):
            tracks.setdefault(row["package"], []).append(row)
    cache.mkdir(parents=True, exist_ok=True)
    for package in [p for p in tracks if not only or p in only]:
        if finished(out, f"{kind}-{package}"):
            continue
        work = Path(tempfile.mkdtemp(prefix=f"{package}-", dir=cache))
        try:
            unpack(package, cache, work)
            notice = next(work.rglob(f"doc/{package}/copyright"), None)
            if notice is not None:
                shutil.copy(notice, out / f"{package}.copyright")
            if kind == "speech":
                pack_speech(package, work, out)
            else:
                pack_music(package, tracks[package], work, out, seconds, kind)
            print(f"{package}: packed", flush=True)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mode", choices=["excerpts", "packages", "speech", "suspected"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--cache", type=Path, default=Path("../train_cache/debs"))
    parser.add_argument("--seconds", type=float, default=1e9, help="at most so much of a track")
    parser.add_argument("--only", nargs="*", default=[], help="packages; default: all")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if args.mode == "excerpts":
        pack_excerpts(args.data, out)
    else:
        kind = "accompaniment" if args.mode == "packages" else args.mode
        cache = args.cache.resolve()
        pack_packages(args.data, out, cache, args.only, args.seconds, kind)


if __name__ == "__main__":
    main()
