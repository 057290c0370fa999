"""Invented pop songs without a voice: chord charts played by MMA's grooves through fluidsynth.

    python -m training.band --shards SHARDS --songs 60
    python -m training.band --shards SHARDS --songs 60 --leads

The collected music is that of games: many strings and synthesizers, few drums and guitars.  What
voices are usually sung over comes from here.  With `--leads` a solo instrument plays where a voice
would sing: flutes, saxophones, violins and guitars are what a network mistakes for voices.  Needs
the commands `mma` and `fluidsynth` and the soundfonts (Debian: mma, fluidsynth,
fluid-soundfont-gm, musescore-general-soundfont).  Writes `band` or `lead` clips, one group per file
of grooves.
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
# General MIDI numbers, from 0, of what plays melodies: guitars, bowed strings, brass, reeds, pipes,
# synthesizers.  No choirs or "voices" (52 … 54, 85, 91): who turns voices off may want either.
LEADS = (
    *(11, 16, 18, 21, 22, 23, 25, 26, 27, 28, 29, 29, 30, 30, 31),
    *(40, 40, 41, 42, 44, 48, 50, 56, 56, 57, 59, 60, 61, 62, 64, 65, 65, 66, 66, 67, 68, 69, 71),
    *(
        72,
        73,
        73,
        73,
        74,
        75,
        76,
        77,
        78,
        79,
        80,
        80,
        81,
        81,
        82,
        83,
        84,
        86,
        87,
        104,
        109,
        110,
        111,
    ),
)
SHARPS = ("c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b")
BARS = (  # note lengths that fill a bar of four-four time
    ("2", "2"),
    ("4", "4", "2"),
    ("2.", "4"),
    ("4", "8", "8", "2"),
    ("4.", "8", "4", "4"),
    ("8", "8", "4", "8", "8", "4"),
    ("8", "8", "8", "8", "8", "8", "8", "8"),
    ("1",),
    ("4", "8", "16", "16", "4.", "8"),
)


class Lead:
    """A solo line through the bars of a chart: one scale, a wandering step, some rhythms."""

    def __init__(self, rng: np.random.Generator, key: int, minor: bool) -> None:
        scale = (0, 2, 3, 5, 7, 8, 10) if minor else (0, 2, 4, 5, 7, 9, 11)
        if rng.random() < 0.3:
            scale = (0, 3, 5, 7, 10) if minor else (0, 2, 4, 7, 9)
        self.rng = rng
        self.ladder = [o * 12 + key + note for o in (-1, 0, 1, 2) for note in scale]
        self.ladder = [pitch for pitch in self.ladder if -5 <= pitch <= 24]
        self.step = len(self.ladder) // 2
        self.rhythms = [BARS[int(rng.integers(len(BARS)))] for _ in range(3)]

    def setup(self) -> list[str]:
        """MMA commands that make the track: instrument, octave, loudness, articulation."""
        rng = self.rng
        voice = int(rng.choice(LEADS))
        return [
            f"Solo Voice {voice}",
            f"Solo Octave {rng.choice([4, 5, 5, 6])}",
            f"Solo Volume {rng.choice(['f', 'ff', 'fff'])}",
            f"Solo Articulate {rng.choice([70, 90, 100])}",
        ]

    def bar(self) -> str:
        """The notes of one bar in MMA's notation, sometimes a rest."""
        if self.rng.random() < 0.12:
            return "{1r;}"
        notes = []
        for length in self.rhythms[int(self.rng.integers(3))]:
            move = int(self.rng.choice([-3, -2, -1, 0, 1, 2, 3]))
            self.step = int(np.clip(self.step + move, 0, len(self.ladder) - 1))
            pitch = self.ladder[self.step]
            octave = "-" * max(0, -(pitch // 12)) + "+" * max(0, pitch // 12)
            name = SHARPS[pitch % 12]
            notes.append(f"{length}{name}{octave};" if self.rng.random() > 0.05 else f"{length}r;")
        return "{" + "".join(notes) + "}"


def progression(rng: np.random.Generator, key: int, minor: bool, bars: int) -> list[str]:
    """The chords of `bars` bars in a major or minor key, one or two a bar."""
    steps = MINOR if minor else MAJOR
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


def chart(rng: np.random.Generator, grooves: list[str], seconds: float, leads: bool = False) -> str:
    """An MMA file of about `seconds` (in four-four time): sections that come back."""
    tempo = int(np.exp(rng.uniform(*np.log([68, 165]))))
    key = int(rng.integers(12))
    minor = bool(rng.random() < 0.4)
    sections = []
    for _ in range(3):
        chords = progression(rng, key, minor, int(rng.choice([2, 4, 4, 8])))
        start = [f"Groove {rng.choice(grooves)}"]
        if leads:
            lead = Lead(rng, key, minor)
            start += lead.setup()
            chords = [f"{chord} {lead.bar()}" for chord in chords]
        sections.append((start, chords))
    lines, bars = [f"Tempo {tempo}"], 0
    while bars * 240 / tempo < seconds + 4:
        start, chords = sections[int(rng.integers(len(sections)))]
        lines += [*start, *chords * 2]
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


def record(folder: Path, songs: int, seed: int, leads: bool) -> None:
    rng = np.random.default_rng(seed)
    files = {path: grooves_of(path) for path in sorted(GROOVES.glob("*.mma"))}
    files = {path: names for path, names in files.items() if names}
    fonts = [font for font in SOUNDFONTS if font.exists()]
    kind = "lead" if leads else "band"
    writer = ShardWriter(folder, f"{kind}-{seed}", 2)
    done = 0
    with tempfile.TemporaryDirectory() as work:
        while done < songs:
            path = list(files)[int(rng.integers(len(files)))]
            song = chart(rng, files[path], SECONDS, leads)
            audio = play(rng, song, fonts[int(rng.integers(len(fonts)))], Path(work))
            if audio is None or not audio.any():
                print(f"{path.stem}: not played", flush=True)
                continue
            writer.add(audio, kind, path.stem, f"song {seed}-{done}", LICENCE, "train")
            done += 1
    writer.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--songs", type=int, default=60, help=f"of {SECONDS:.0f} s each")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--leads", action="store_true", help="with a solo instrument")
    args = parser.parse_args()
    record(args.shards, args.songs, args.seed, args.leads)


if __name__ == "__main__":
    main()
