"""`realtime-sep separate`: files in, files out."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realtime_sep.cli.options import Chains, Model, Profile, Provider, StemLevels
from realtime_sep.errors import RealtimeSepError, UsageError

if TYPE_CHECKING:
    from realtime_sep.offline import Progress, SeparatedFile


class Format(StrEnum):
    wav = "wav"
    flac = "flac"


def separate(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Music or video files, of any format.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where to write.", show_default="beside each file"
        ),
    ] = None,
    model: Model = None,
    stems: Annotated[
        bool, typer.Option("--stems", help="Write every stem instead of the karaoke version.")
    ] = False,
    levels: StemLevels = None,
    chain: Chains = None,
    profile: Profile = None,
    provider: Provider = None,
    format: Annotated[
        Format, typer.Option("--format", "-f", help="WAV: 32-bit float; FLAC: 24 bits.")
    ] = Format.wav,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Separate files with the live engine, faster than they play.

    Writes `NAME.karaoke.wav`, the music without the voice; with `--stems` instead
    `NAME.vocals.wav` and `NAME.accompaniment.wav` (or whatever stems the model has); with
    `--stem drums=-6` instead `NAME.mix.wav`, all stems together at their levels.
    Sample rate and length are those of the file; mono stays mono, surround becomes stereo.
    """
    from realtime_sep.cli import common
    from realtime_sep.offline import output_paths, separate_file
    from realtime_sep.plugins import load_separator

    name = common.checked_model(model)
    options = common.separator_options(profile, provider)
    by_stem = common.stem_levels(levels)
    chains = common.chains(chain)
    if stems and by_stem:
        raise UsageError("--stems gives every stem as it is: leave out --stem")
    if stems:
        names = list(load_separator(name, **options).info.stems)
    else:
        names = ["mix"] if by_stem else ["karaoke"]
    sources = [Path(file) for file in files]
    _check_targets(
        sources, {s: list(output_paths(s, names, output, format.value).values()) for s in sources}
    )

    done: list[SeparatedFile] = []
    failed = 0
    with _interruptible() as check_interrupt, _bars(sources, quiet=as_json) as bars:
        for source in sources:
            advance = bars(source)

            def progress(frames: int, total: int | None, advance: Progress = advance) -> None:
                check_interrupt()
                advance(frames, total)

            try:
                result = separate_file(
                    source,
                    output,
                    name,
                    stems=stems,
                    levels=by_stem or None,
                    chains=chains or None,
                    format=format.value,
                    progress=progress,
                    **options,
                )
            except UsageError:
                raise
            except RealtimeSepError as error:
                failed += 1
                common.complain(str(error))
                continue
            done.append(result)
            _remark(result)
    if as_json:
        typer.echo(common.to_json([_summary(result) for result in done]))
    else:
        for result in done:
            for path in result.paths.values():
                typer.echo(str(path))
    if failed:
        raise typer.Exit(1)


def _check_targets(sources: list[Path], targets: dict[Path, list[Path]]) -> None:
    """Nothing that is read may be written, and nothing written twice.

    Raises:
        UsageError: before anything is touched.
    """
    originals = {source.resolve(): source for source in sources}
    claimed: dict[Path, Path] = {}
    for source, paths in targets.items():
        for path in paths:
            where = path.resolve()
            if where in originals:
                raise UsageError(
                    f"{path}: would overwrite a file that is to be separated; "
                    "choose another directory with -o"
                )
            if claimed.setdefault(where, source) is not source:
                raise UsageError(
                    f"{claimed[where]} and {source} would both be written to {path}; "
                    "separate them into different directories"
                )


@contextmanager
def _interruptible() -> Iterator[Any]:
    """Ctrl-C and SIGTERM are taken between blocks, where no file is in the middle of a write.

    Gives a function that raises KeyboardInterrupt once a signal has come.  A second signal does not
    wait for that.
    """
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bars(sources: list[Path], quiet: bool) -> Iterator[Any]:
    """Progress bars on the terminal: gives a function that makes the one for a file."""
    if quiet or not sys.stderr.isatty():
        yield lambda source: lambda frames, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bars:

        def bar(source: Path) -> Any:
            task = bars.add_task(source.name, total=None)

            def advance(frames: int, total: int | None) -> None:
                if total is not None:
                    total = max(total, frames)  # a header's length is an estimate
                bars.update(task, completed=frames, total=total)

            return advance

        yield bar


def _remark(result: SeparatedFile) -> None:
    from realtime_sep.cli.common import complain

    if result.notice:
        complain(f"{result.source}: {result.notice}")
    if result.damaged:
        complain(f"{result.source}: {result.damaged} damaged packets were left out")
    if result.clipped:
        complain(
            f"{result.source}: {result.clipped} samples beyond full scale were cut off; "
            "--format wav keeps them"
        )


def _summary(result: SeparatedFile) -> dict[str, Any]:
    return {
        "source": str(result.source),
        "files": {name: str(path) for name, path in result.paths.items()},
        "samplerate": result.samplerate,
        "channels": result.channels,
        "frames": result.frames,
        "clipped": result.clipped,
        "damaged": result.damaged,
        "notice": result.notice,
    }
