"""The scores as tables: in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from realtime_sep.evaluate.metrics import ACCOMPANIMENT, METRICS, STEMS, VOCALS, Score
from realtime_sep.evaluate.run import Evaluation, ModelResult

#: How metrics are called in tables.
TITLES = {
    "sdr": "SDR",
    "si_sdr": "SI-SDR",
    "bss_sdr": "BSS SDR",
    "bss_sir": "SIR",
    "bss_sar": "SAR",
    "leakage": "leakage",
    "voice_attenuation": "voice att.",
    "music_loss": "music loss",
}


def number(score: Score) -> str:
    """A score for people; those at the limit of measurement are shown as such."""
    if score is None:
        return "–"
    if abs(score) >= 99.95:
        return "≥ 100" if score > 0 else "≤ −100"
    return f"{score:.1f}".replace("-", "−").replace("−0.0", "0.0")


def print_tables(evaluation: Evaluation, console: Console) -> None:
    """Medians (and means) of each stem, then the SDR of each song."""
    rows = evaluation.rows
    for stem in STEMS:
        table = _table(f"{stem} — median over songs, mean below, dB")
        for metric in METRICS[stem]:
            table.add_column(TITLES[metric], justify="right", no_wrap=True)
        table.add_column("worst", justify="right", style="dim")
        for result in rows:
            cells = _stem_cells(result, stem, "{}\n[dim]{}[/]")
            table.add_row(Text(result.model), *cells, number(_worst_sdr(result, stem)))
        console.print(table)

    table = _table("speed, and SDR of vocals / accompaniment once warmed up")
    table.add_column("latency ms", justify="right")
    table.add_column("CPU", justify="right")
    table.add_column("cold", justify="right")
    table.add_column("warm", justify="right")
    for result in rows:
        both = [
            " / ".join(number(scores[stem]["sdr"]) for stem in STEMS)
            for scores in (result.median(), result.median(warm=True))
        ]
        table.add_row(Text(result.model), latency(result), load(result), *both)
    console.print(table)

    table = _table("SDR of each song: vocals / accompaniment, dB (▾ worst)", first="song")
    for result in rows:
        table.add_column(Text(result.model), justify="right")
    for songs in zip(*(result.songs for result in rows), strict=True):
        cells = [
            " / ".join(
                number(song.cold[stem]["sdr"]) + ("▾" if song is result.worst(stem) else "")
                for stem in STEMS
            )
            for song, result in zip(songs, rows, strict=True)
        ]
        table.add_row(Text(songs[0].name), *cells)
    console.print(table)


def _table(title: str, first: str = "model") -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    return table


def _stem_cells(result: ModelResult, stem: str, form: str) -> list[str]:
    """Median and mean of each metric, and of how many songs where it is not all."""
    median, mean = result.median()[stem], result.mean()[stem]
    cells = []
    for metric in METRICS[stem]:
        cell = number(median[metric])
        if mean[metric] is not None:
            cell = form.format(cell, number(mean[metric]))
        scored = len(result.scores(stem, metric))
        cells.append(f"{cell} \\[{scored}]" if 0 < scored < len(result.songs) else cell)
    return cells


def _worst_sdr(result: ModelResult, stem: str) -> Score:
    worst = result.worst(stem)
    return worst.cold[stem]["sdr"] if worst else None


def _worst_name(result: ModelResult, stem: str) -> str:
    worst = result.worst(stem)
    return f"{number(_worst_sdr(result, stem))} ({worst.name})" if worst else "–"


def latency(result: ModelResult) -> str:
    return "–" if result.latency_ms is None else f"{result.latency_ms:.1f}"


def load(result: ModelResult) -> str:
    return "–" if result.load is None else f"{100 * result.load:.1f} %"


def markdown(rows: Sequence[ModelResult]) -> str:
    """One table per stem, medians with means in brackets."""
    lines: list[str] = []
    for stem in STEMS:
        head = [f"**{stem}**", *(TITLES[metric] for metric in METRICS[stem])]
        body = [[f"`{r.model}`", *_stem_cells(r, stem, "{} ({})")] for r in rows]
        if stem == VOCALS:
            head += ["latency ms", "CPU"]
            body = [[*cells, latency(r), load(r)] for cells, r in zip(body, rows, strict=True)]
        if stem == ACCOMPANIMENT:
            head += ["warm SDR", "worst song"]
            body = [
                [*cells, number(r.median(warm=True)[stem]["sdr"]), _worst_name(r, stem)]
                for cells, r in zip(body, rows, strict=True)
            ]
        lines += [
            f"| {' | '.join(head)} |",
            f"|{'|'.join(['---'] + ['--:'] * (len(head) - 1))}|",
            *(f"| {' | '.join(cells)} |" for cells in body),
            "",
        ]
    return "\n".join(lines)
