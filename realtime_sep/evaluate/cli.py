"""`realtime-sep evaluate`: a table in the terminal, JSON for machines, a page for ears and eyes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from realtime_sep.evaluate.run import Evaluation, Progress

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def evaluate(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Holds songs: folders with mixture, vocals and accompaniment (or drums, bass, "
            "other) as .wav or .flac, or .stem.mp4 files.",
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME[:KEY=VALUE,...]",
            help="A separator to score, with its options; repeat it to compare.",
            show_default="the references alone",
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write all scores as JSON; - for the output."),
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one page to see and hear."),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            "--rate", metavar="HZ", min=8000, max=192000, help="Resample the songs to this rate."
        ),
    ] = None,
) -> None:
    """Score separators on songs whose stems are known.

    Every model runs as it does live, hop by hop and at its own delay, which is then taken out.
    The unprocessed mixture, the ideal mask and `center` are always in the table.  All scores are in
    dB; more is better, but for leakage and music loss.
    """
    from rich.console import Console

    from realtime_sep.evaluate import run
    from realtime_sep.evaluate.tables import print_tables

    to_stdout = json_file is not None and str(json_file) == "-"
    for file in (json_file, html_file):
        if file is not None and not (to_stdout and file is json_file):
            _check_target(file)
    page = None
    if html_file is not None:
        from realtime_sep.evaluate.page import Page

        page = Page()
    console = Console(stderr=to_stdout)
    with _progress_bar() as progress:
        evaluation = run.evaluate(
            directory,
            model or [],
            rate=rate,
            progress=progress,
            listener=None if page is None else page.add,
        )
    _warn(evaluation)
    print_tables(evaluation, console)
    if to_stdout:
        json.dump(run.to_json(evaluation), sys.stdout, indent=2, allow_nan=False)
        print()
    elif json_file is not None:
        text = json.dumps(run.to_json(evaluation), indent=2, allow_nan=False)
        _write(json_file, text + "\n", console)
    if html_file is not None and page is not None:
        _write(html_file, page.render(evaluation, str(directory)), console)


def _check_target(path: Path) -> None:
    """Refuse before the work what could not be written after it."""
    from realtime_sep.errors import UsageError

    if path.is_dir():
        raise UsageError(f"{path}: is a directory; give the name of a file")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no directory {path.parent}; make it first")


def _write(path: Path, text: str, console: Console) -> None:
    from rich.text import Text

    from realtime_sep.errors import UsageError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
    console.print(Text(f"wrote {path}", style="dim"))


def _warn(evaluation: Evaluation) -> None:
    for name, reason in evaluation.skipped:
        print(f"realtime-sep: left out {name!r}: {reason}", file=sys.stderr)
    for name, note in evaluation.notes:
        print(f"realtime-sep: {name!r}: {note}", file=sys.stderr)


@contextmanager
def _progress_bar() -> Iterator[Progress | None]:
    """A bar on a terminal's stderr, nothing elsewhere."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("reading", total=None)

        def show(what: str, done: int, total: int) -> None:
            bars.update(task, description=escape(what), completed=done, total=total)

        yield show


if __name__ == "__main__":
    app()
