"""Invented pop songs without a voice: chord charts played by MMA's grooves through fluidsynth.

    python -m training.band --shards SHARDS --songs 60

The collected music is that of games: many strings and synthesizers, few drums and guitars.  What
voices are usually sung over comes from here.  Needs the commands `mma` and `fluidsynth` and the
soundfonts (Debian: mma, fluidsynth, fluid-soundfont-gm, musescore-general-soundfont).  Writes
`band` clips, one group per file of grooves.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from training.corpus import load
from training.shards import SAMPLE_RATE, ShardWriter

GROOVES = Path("/usr/share/mma/lib/stdlib")
SOUNDFONTS = (
    Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3"),
    Path("/usr/share/sounds/sf3/MuseScore_General.sf3"),
)
LICENCE = "grooves of MMA GPL-2+; FluidR3, MuseScore General MIT"
SECONDS = 60.0

NOTES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
MAJOR = ((0, ""), (2, "m"), (4, "m"), (5, ""), (7, ""), (9, "m"))
MINOR = ((0, "m"), (3, ""), (5, "m"), (7, "m"), (8, ""), (10, ""))
COLOURS = {"": ("", "", "", "M7", "6", "7", "sus4", "add9"), "m": ("m", "m", "m", "m7", "m9")}


def progression(rng: np.random.Generator, key: int, bars: int) -> list[str]:
    """The chords of `bars` bars in a major or minor key, one or two a bar."""
    steps = MAJOR if rng.random() < 0.6 else MINOR
    chords = []
    for bar in range(bars):
        degrees = [0] if bar == 0 and rng.random() < 0.7 else [int(rng.integers(len(steps)))]
        if rng.random() < 0.25:
            degrees.append(int(rng.integers(len(steps))))
        names = [
            NOTES[(key + steps[d][0]) % 12] + str(rng.choice(COLOURS[steps[d][1]])) for d in degrees
        ]
        chords.append(" / ".join(names))
    return chords


def chart(rng: np.random.Generator, grooves: list[str], seconds: float) -> str:
    """An MMA file of about `seconds` (in four-four time): sections that come back."""
    tempo = int(np.exp(rng.uniform(*np.log([68, 165]))))
    key = int(rng.integers(12))
    sections = [
        (str(rng.choice(grooves)), progression(rng, key, int(rng.choice([2, 4, 4, 8]))))
        for _ in range(3)
    ]
    lines, bars = [f"Tempo {tempo}"], 0
    while bars * 240 / tempo < seconds + 4:
        groove, chords = sections[int(rng.integers(len(sections)))]
        lines += [f"Groove {groove}", *chords * 2]
        bars += 2 * len(chords)
    return "\n".join(lines) + "\n"


def grooves_of(path: Path) -> list[str]:
    return re.findall(r"^\s*DefGroove\s+(\S+)", path.read_text(errors="replace"), re.M | re.I)


def play(rng: np.random.Generator, song: str, font: Path, work: Path) -> np.ndarray | None:
    """The rendered song `[frames, 2]`, or nothing where MMA does not take the chart."""
    (work / "song.mma").write_text(song)
    (work / "song.mid").unlink(missing_ok=True)
    command = ["mma", "-f", str(work / "song.mid"), str(work / "song.mma")]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    if not (work / "song.mid").exists():
        return None
    wet = ["-R", "1", "-C", "1"] if rng.random() < 0.5 else ["-R", "0", "-C", "0"]
    command = ["fluidsynth", "-ni", "-q", "-g", "0.3", "-r", str(SAMPLE_RATE), *wet]
    command += ["-F", str(work / "song.wav"), str(font), str(work / "song.mid")]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return load(work / "song.wav", 2)[: int(SECONDS * SAMPLE_RATE)]


def record(folder: Path, songs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    files = {path: grooves_of(path) for path in sorted(GROOVES.glob("*.mma"))}
    files = {path: names for path, names in files.items() if names}
    fonts = [font for font in SOUNDFONTS if font.exists()]
    writer = ShardWriter(folder, f"band-{seed}", 2)
    done = 0
    with tempfile.TemporaryDirectory() as work:
        while done < songs:
            path = list(files)[int(rng.integers(len(files)))]
            song = chart(rng, files[path], SECONDS)
            audio = play(rng, song, fonts[int(rng.integers(len(fonts)))], Path(work))
            if audio is None or not audio.any():
                print(f"{path.stem}: not played", flush=True)
                continue
            writer.add(audio, "band", path.stem, f"song {seed}-{done}", LICENCE, "train")
            done += 1
    writer.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--songs", type=int, default=60, help=f"of {SECONDS:.0f} s each")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    record(args.shards, args.songs, args.seed)


if __name__ == "__main__":
    main()
