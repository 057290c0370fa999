"""The scores as tables: in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from realtime_sep.evaluate.metrics import ACCOMPANIMENT, METRICS, STEMS, Score
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

#: What metrics mean, in one or two sentences.
EXPLANATIONS = {
    "sdr": "Signal-to-distortion ratio: the true stem against everything in which the estimate "
    "differs from it, over the whole song.",
    "si_sdr": "The same with the estimate free to be louder or softer: a wrong level costs "
    "nothing.",
    "bss_sdr": "BSSEval v4, as museval: the median over seconds of the signal-to-distortion ratio.",
    "bss_sir": "Signal to interference, of BSSEval v4: how little of the other stem is heard. The "
    "estimate may differ from the stems by short filters.",
    "bss_sar": "Signal to artefacts, of BSSEval v4: how little is heard that is in neither stem.",
    "leakage": "Level of the vocals stem while nobody sings, relative to the mixture. Lower is "
    "better; no figure where the voice never pauses for half a second.",
    "voice_attenuation": "By how much the voice is softer in the accompaniment than in the "
    "mixture, where it sounds.",
    "music_loss": "By how much the music is softer in the accompaniment than in the mixture, "
    "where the voice sounds. Lower is better.",
}
LOWER_IS_BETTER = frozenset({"leakage", "music_loss"})


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
        table = _table(f"{stem}: median over songs, mean below it, in dB")
        for metric in METRICS[stem]:
            table.add_column(TITLES[metric].replace(" ", "\n"), justify="right", no_wrap=True)
        table.add_column("worst\nsong", justify="right", style="dim", no_wrap=True)
        for result in rows:
            cells = [
                f"{median}{'*' if few else ' '}\n[dim]{mean} [/]"
                for median, mean, few in _stem_cells(result, stem)
            ]
            table.add_row(Text(result.model), *cells, number(_worst_sdr(result, stem)))
        console.print(table)
    if any(few for r in rows for stem in STEMS for _, _, few in _stem_cells(r, stem)):
        console.print("[dim]  * of fewer songs: where a stem is silent it has no such score\n")

    if parts := _parts(rows):
        table = _table("SDR of the other stems: median over songs, mean below it, in dB")
        for part in parts:
            table.add_column(part, justify="right", no_wrap=True)
        for result in rows:
            if result.parts:
                cells = [f"{median}\n[dim]{mean}[/]" for median, mean in _part_cells(result, parts)]
                table.add_row(Text(result.model), *cells)
        console.print(table)

    table = _table("delay and cost; SDR of vocals / accompaniment")
    for title in ("delay\nms", "CPU", "cold\nSDR", "warm\nSDR"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in rows:
        both = [
            " / ".join(number(scores[stem]["sdr"]) for stem in STEMS)
            for scores in (result.median(), result.median(warm=True))
        ]
        table.add_row(Text(result.model), latency(result), load(result), *both)
    console.print(table)

    table = _table("SDR of each song: vocals, accompaniment below, in dB (▾ worst)", first="song")
    for result in rows:
        table.add_column(Text(result.model), justify="right", overflow="fold")
    for songs in zip(*(result.songs for result in rows), strict=True):
        cells = []
        for song, result in zip(songs, rows, strict=True):
            scores = [number(song.cold[stem]["sdr"]) for stem in STEMS]
            worst = ["▾" if song is result.worst(stem) else " " for stem in STEMS]
            cells.append(f"{scores[0]}{worst[0]}\n{scores[1]}{worst[1]}")
        table.add_row(Text(songs[0].name), *cells)
    console.print(table)


def _table(title: str, first: str = "model") -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column(first, overflow="fold", min_width=17 if first == "model" else None)
    return table


def _stem_cells(result: ModelResult, stem: str) -> list[tuple[str, str, int]]:
    """Median, mean, and of how many songs if not of all (else 0), of each metric."""
    median, mean = result.median()[stem], result.mean()[stem]
    counts = {metric: len(result.scores(stem, metric)) for metric in METRICS[stem]}
    return [
        (number(median[m]), number(mean[m]), n if 0 < n < len(result.songs) else 0)
        for m, n in counts.items()
    ]


def _parts(rows: Sequence[ModelResult]) -> list[str]:
    """Stems besides vocals and accompaniment that a model has scores of."""
    return list(dict.fromkeys(part for row in rows if row.latency_ms for part in row.parts))


def _part_cells(result: ModelResult, parts: Sequence[str]) -> list[tuple[str, str]]:
    """Median and mean SDR of each of these stems."""
    median, mean = result.median(), result.mean()
    return [
        (number(median.get(part, {}).get("sdr")), number(mean.get(part, {}).get("sdr")))
        for part in parts
    ]


def _worst_sdr(result: ModelResult, stem: str) -> Score:
    worst = result.worst(stem)
    return worst.cold[stem]["sdr"] if worst else None


def latency(result: ModelResult) -> str:
    return "–" if result.latency_ms is None else f"{result.latency_ms:.1f}"


def load(result: ModelResult) -> str:
    return "–" if result.load is None else f"{100 * result.load:.1f} %"


def markdown(rows: Sequence[ModelResult]) -> str:
    """One table per stem, medians with means in brackets, and one of delay and cost."""
    tables = []
    for stem in STEMS:
        head = [f"**{stem}**", *(TITLES[metric] for metric in METRICS[stem])]
        body = []
        for row in rows:
            cells = [
                median if median == "–" else f"{median} ({mean}){f' [{few}]' if few else ''}"
                for median, mean, few in _stem_cells(row, stem)
            ]
            body.append([f"`{row.model}`", *cells])
        tables.append(_markdown_table(head, body))
    if parts := _parts(rows):
        body = [
            [f"`{row.model}`", *(f"{a} ({b})" for a, b in _part_cells(row, parts))]
            for row in rows
            if row.parts
        ]
        tables.append(_markdown_table(["**SDR of other stems**", *parts], body))
    head = ["", "delay, ms", "CPU", "SDR cold", "SDR warm", "worst song (vocals / accompaniment)"]
    body = []
    for row in rows:
        cold, warm = row.median(), row.median(warm=True)
        pairs = [" / ".join(number(x[stem]["sdr"]) for stem in STEMS) for x in (cold, warm)]
        worst = row.worst(ACCOMPANIMENT)
        if worst is None:
            told = "–"
        else:
            told = " / ".join(number(worst.cold[stem]["sdr"]) for stem in STEMS)
            told += f" ({worst.name})"
        body.append([f"`{row.model}`", latency(row), load(row), *pairs, told])
    tables.append(_markdown_table(head, body))
    return "\n".join(tables)


def _markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *body))
