"""Score every installed separator and write the tables into docs/quality.md.

    python benchmarks/scores.py DIR [NAME[:KEY=VALUE,...] ...]      (make scores)

DIR holds songs as `realtime-sep evaluate` takes them.  Named separators replace the default: all
that find a voice; networks on windows or segments in every profile.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from realtime_sep.errors import RealtimeSepError
from realtime_sep.evaluate.run import Estimates, evaluate
from realtime_sep.evaluate.songs import Song
from realtime_sep.evaluate.tables import markdown
from realtime_sep.models import plan, registry
from realtime_sep.models.plan import DEFAULT_PROFILE
from realtime_sep.plugins import available_separators

PAGE = Path(__file__).parent.parent / "docs" / "quality.md"
#: The one separates nothing, the other tones from beats.
WITHOUT_VOICE = ("identity", "hpss")
BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"


def main(arguments: list[str]) -> None:
    if not arguments:
        sys.exit((__doc__ or "").strip())
    directory, *models = arguments
    models = models or everything()
    mono: dict[str, bool] = {}

    def note(model: str, song: Song, estimates: Estimates, scores: object) -> None:
        mono[song.name] = np.array_equal(song.mixture[:, 0], song.mixture[:, -1])

    def show(what: str, done: int, steps: int) -> None:
        print(f"\r\x1b[K[{done}/{steps}] {what}", end="", file=sys.stderr, flush=True)

    evaluation = evaluate(Path(directory), models, progress=show, listener=note)
    print(file=sys.stderr)
    for name, reason in evaluation.skipped:
        print(f"left out {name}: {reason}", file=sys.stderr)
    command = f'make scores MODELS="{" ".join(models)}"'
    count = len(mono)
    text = (
        f"{BEGIN}\n"
        f"Written by `{command}` on {date.today().isoformat()}; {count} songs. dB; "
        "median over songs, (mean), [number of songs with such a score, where not all have].\n\n"
        f"{markdown(evaluation.rows)}\n"
    )
    stereo = [name for name in mono if not mono[name]]
    if 0 < len(stereo) < count:
        rows = [
            replace(row, songs=[song for song in row.songs if song.name in stereo])
            for row in evaluation.rows
        ]
        text += f"### The {len(stereo)} stereo songs among them\n\n{markdown(rows)}"
    text += END
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(before + text + after, encoding="utf-8")
    print(text)


def everything() -> list[str]:
    """All installed separators, models in all their profiles, the default one first."""
    names = [name for name in available_separators() if name not in WITHOUT_VOICE]
    entries = registry.entries()
    found = []
    for name in names:
        found.append(name)
        if name in entries:
            others = [p for p in plan.profiles(entries[name].metadata) if p != DEFAULT_PROFILE]
            found += [f"{name}:profile={profile}" for profile in others]
    if {"nmf", "unet"} <= set(names):
        found.append("nmf+unet")  # they err at different places
    return found


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RealtimeSepError as error:
        sys.exit(f"scores: {error}")
