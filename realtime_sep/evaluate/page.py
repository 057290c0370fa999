"""The evaluation as one HTML page, complete in itself: tables, spectrograms and players."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from datetime import date
from html import escape
from importlib.resources import files

import numpy as np
import samplerate as libsamplerate
import soundfile

from realtime_sep.evaluate.metrics import ACCOMPANIMENT, METRICS, STEMS, VOCALS, Score, Scores
from realtime_sep.evaluate.pictures import HEIGHT, WIDTH, heat, magnitudes, share
from realtime_sep.evaluate.run import IDEAL_MASK, MIXTURE, Estimates, Evaluation, ModelResult
from realtime_sep.evaluate.songs import Song, printable
from realtime_sep.evaluate.tables import (
    EXPLANATIONS,
    LOWER_IS_BETTER,
    TITLES,
    latency,
    load,
    number,
)
from realtime_sep.types import Float32

#: Seconds of a song that go onto the page: those with the most voice.
EXCERPT = 15.0
#: Sample rates that MP3 knows, in Hz.
_MP3_RATES = (32000, 44100, 48000)

TRUTH = "truth"


@dataclass
class _Excerpt:
    """What the page shows of one song.

    Attributes:
        start: of the excerpt, in seconds.
        rows: model and its HTML, the true stems first.
    """

    name: str
    start: float
    seconds: float
    part: slice
    loudest: float
    mixture: str
    rows: list[str] = field(default_factory=list)


class Page:
    """Collects separated songs while they are scored (`add`), then writes the page (`render`).

    Only compressed excerpts are kept, so the memory does not grow with the length of songs.
    """

    def __init__(self) -> None:
        self._songs: dict[str, _Excerpt] = {}

    def add(self, model: str, song: Song, estimates: Estimates, scores: dict[str, Scores]) -> None:
        """A `Listener` for `evaluate`."""
        if song.name not in self._songs:
            self._songs[song.name] = excerpt = _begin(song)
            excerpt.rows.append(_row(excerpt, TRUTH, "the true stems", song, song.references, None))
        excerpt = self._songs[song.name]
        if model == MIXTURE:
            return  # it is at the top of every song
        subtitle = "from the true stems" if model.startswith(IDEAL_MASK) else ""
        excerpt.rows.append(_row(excerpt, model, subtitle, song, estimates, scores))

    def render(self, evaluation: Evaluation, source: str) -> str:
        """The page as text; `source` says what was evaluated."""
        rows = evaluation.rows
        count = len(rows[0].songs) if rows else 0
        songs = "1 song" if count == 1 else f"{count} songs"
        rates = ", ".join(str(rate) for rate in sorted({row.samplerate for row in rows}))
        resources = files("realtime_sep.evaluate")
        return _PAGE.format(
            style=resources.joinpath("page.css").read_text("utf-8"),
            script=resources.joinpath("page.js").read_text("utf-8"),
            source=escape(printable(source)),
            facts=f"{songs} · {rates} Hz · {date.today().isoformat()}",
            tables="".join(_summary_table(rows, stem) for stem in STEMS),
            speed=_speed_table(rows),
            per_song=_song_table(rows),
            left_out=_left_out(evaluation),
            songs="".join(_section(i, excerpt) for i, excerpt in enumerate(self._songs.values())),
            glossary="".join(
                f"<dt>{TITLES[metric]}</dt><dd>{escape(text)}</dd>"
                for metric, text in EXPLANATIONS.items()
            ),
        )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Separation scores: {source}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>Voice and music, taken apart</h1>
<p><strong>{source}</strong> · {facts}</p>
</header>
<main>
<section>
<h2>All songs</h2>
<p class="hint">Decibels, median over the songs, with the mean in small print. Every model ran as it
does live, from a cold start; its delay is taken out. References are in grey; the best model of each
column is marked. Point at a heading to read what it means.</p>
{tables}
{speed}
{per_song}
{left_out}
</section>
<section>
<h2>Listen and look</h2>
<p class="hint">Click a picture to hear it from there; click another to go on in it at the same
moment. Space pauses. Time runs to the right, pitch upwards, from 60 Hz to 16 kHz.</p>
{songs}
</section>
<section>
<h2>What the figures mean</h2>
<dl>{glossary}</dl>
</section>
</main>
<script>
{script}</script>
</body>
</html>
"""

# --- tables --------------------------------------------------------------------------------------


def _is_reference(result: ModelResult) -> bool:
    return result.latency_ms is None


def _summary_table(rows: list[ModelResult], stem: str) -> str:
    metrics = METRICS[stem]
    medians = [row.median()[stem] for row in rows]
    best: dict[str, str] = {}
    for metric in metrics:
        scores = [
            s
            for row, median in zip(rows, medians, strict=True)
            if not _is_reference(row) and (s := median[metric]) is not None
        ]
        if len(scores) > 1 and min(scores) < max(scores):
            best[metric] = number(min(scores) if metric in LOWER_IS_BETTER else max(scores))
    head = "".join(
        f'<th title="{escape(EXPLANATIONS[metric])}">{TITLES[metric]}</th>' for metric in metrics
    )
    body = []
    for row, median in zip(rows, medians, strict=True):
        mean = row.mean()[stem]
        cells = []
        for metric in metrics:
            value, scored = median[metric], len(row.scores(stem, metric))
            # All that show the best figure: the next decimal means nothing.
            marked = not _is_reference(row) and number(value) == best.get(metric)
            few = f"<sup>{scored}</sup>" if 0 < scored < len(row.songs) else ""
            small = "" if mean[metric] is None else f"<small>{number(mean[metric])}</small>"
            cells.append(
                f"<td{' class=best' if marked else ''}><b>{number(value)}</b>{few}{small}</td>"
            )
        body.append(_tr(row, "".join(cells)))
    some = any(
        0 < len(row.scores(stem, metric)) < len(row.songs) for row in rows for metric in metrics
    )
    note = "<p class=note>A raised figure: of so many songs only.</p>" if some else ""
    return _table(f"{stem.capitalize()}", "Model", head, body) + note


def _speed_table(rows: list[ModelResult]) -> str:
    head = (
        '<th title="Of a live stream in blocks of 256 frames, without the sound card">Delay, ms'
        '</th><th title="CPU time per time of audio, on the machine that evaluated">CPU</th>'
        '<th title="Median SDR of vocals and accompaniment from a cold start">Cold SDR</th>'
        '<th title="The same after ten seconds of the song">Warm SDR</th>'
    )
    body = []
    for row in rows:
        pairs = [
            " / ".join(number(scores[stem]["sdr"]) for stem in STEMS)
            for scores in (row.median(), row.median(warm=True))
        ]
        cells = [latency(row), load(row), *pairs]
        body.append(_tr(row, "".join(f"<td>{cell}</td>" for cell in cells)))
    return _table("Delay, cost, warming up", "Model", head, body)


def _song_table(rows: list[ModelResult]) -> str:
    head = "".join(f"<th>{escape(row.model)}</th>" for row in rows)
    body = []
    for songs in zip(*(row.songs for row in rows), strict=True):
        cells = []
        for song, row in zip(songs, rows, strict=True):
            scores = [song.cold[stem]["sdr"] for stem in STEMS]
            worst = song is row.worst(ACCOMPANIMENT)
            cells.append(
                f'<td style="{_tint(scores[1])}"{" class=worst" if worst else ""}>'
                f"{' / '.join(map(number, scores))}</td>"
            )
        body.append(f"<tr><th>{escape(songs[0].name)}</th>{''.join(cells)}</tr>")
    table = _table("SDR song by song: vocals / accompaniment", "Song", head, body)
    return table.replace("</table>", "</table><p class=note>▾ the model's worst song.</p>")


def _tint(score: Score) -> str:
    """Shade by the accompaniment's SDR: none at 0 dB, full at 15 dB."""
    return f"--heat:{0 if score is None else min(max(score / 15, 0), 1):.2f}"


def _tr(row: ModelResult, cells: str) -> str:
    kind = " class=reference" if _is_reference(row) else ""
    return f"<tr{kind}><th>{escape(row.model)}</th>{cells}</tr>"


def _table(caption: str, first: str, head: str, body: list[str]) -> str:
    return (
        f'<div class="table"><table><caption>{caption}</caption>'
        f"<thead><tr><th>{first}</th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _left_out(evaluation: Evaluation) -> str:
    items = [
        f"<li><b>{escape(name)}</b> was left out: {escape(reason)}</li>"
        for name, reason in evaluation.skipped
    ]
    items += [f"<li><b>{escape(name)}</b>: {escape(note)}</li>" for name, note in evaluation.notes]
    return f'<ul class="left-out">{"".join(items)}</ul>' if items else ""


# --- songs ---------------------------------------------------------------------------------------


def _begin(song: Song) -> _Excerpt:
    """Choose the excerpt, and show the mixture."""
    length = min(len(song.mixture), round(EXCERPT * song.samplerate))
    energy = np.cumsum(np.square(song.vocals, dtype=np.float64).sum(axis=1))
    gained = energy[length - 1 :] - np.concatenate([[0.0], energy[: len(energy) - length]])
    # The first of the best, and not a bit later for a rounding error more.
    start = int(np.argmax(gained >= 0.999 * gained.max()))
    part = slice(start, start + length)
    spectrum = magnitudes(song.mixture[part], song.samplerate)
    loudest = float(spectrum.max())
    excerpt = _Excerpt(
        name=song.name,
        start=start / song.samplerate,
        seconds=length / song.samplerate,
        part=part,
        loudest=loudest,
        mixture="",
    )
    excerpt.mixture = _tile(
        f"{song.name}: mixture", heat(spectrum, loudest), song.mixture[part], song.samplerate
    )
    return excerpt


def _row(
    excerpt: _Excerpt,
    model: str,
    subtitle: str,
    song: Song,
    stems: Estimates,
    scores: dict[str, Scores] | None,
) -> str:
    audio = [stems[stem][excerpt.part] for stem in (VOCALS, ACCOMPANIMENT)]
    voice, music = (magnitudes(a, song.samplerate) for a in audio)
    cells = []
    for stem, samples, spectrum in zip(STEMS, audio, (voice, music), strict=True):
        tile = _tile(
            f"{song.name}: {stem} by {model}",
            heat(spectrum, excerpt.loudest),
            samples,
            song.samplerate,
        )
        caption = "" if scores is None else _caption(stem, scores[stem])
        cells.append(f"<figure>{tile}<figcaption>{caption}</figcaption></figure>")
    mask = base64.b64encode(share(voice, music, excerpt.loudest)).decode()
    label = escape(f"{song.name}: mask by {model}")
    cells.append(
        f'<figure><img width="{WIDTH}" height="{HEIGHT}" alt="{label}" '
        f'src="data:image/png;base64,{mask}"><figcaption></figcaption></figure>'
    )
    small = f"<small>{subtitle}</small>" if subtitle else ""
    name = escape(model).replace(":", ":<wbr>").replace("-", "-<wbr>")
    return f'<div class="label">{name}{small}</div>{"".join(cells)}'


def _caption(stem: str, scores: Scores) -> str:
    other = "leakage" if stem == VOCALS else "voice_attenuation"
    return " · ".join(
        f"{TITLES[metric]} <b>{number(scores[metric])}</b>"
        for metric in ("sdr", other)
        if scores[metric] is not None
    )


def _tile(label: str, picture: bytes, audio: Float32, rate: int) -> str:
    """A spectrogram that plays."""
    image = base64.b64encode(picture).decode()
    sound = base64.b64encode(_mp3(audio, rate)).decode()
    return (
        f'<button type="button" class="tile" aria-label="{escape(label)}" '
        f'data-sound="data:audio/mpeg;base64,{sound}">'
        f'<img width="{WIDTH}" height="{HEIGHT}" alt="" src="data:image/png;base64,{image}">'
        "<i></i></button>"
    )


def _mp3(audio: Float32, rate: int) -> bytes:
    """About 120 kbit/s; every browser plays it."""
    if rate not in _MP3_RATES:
        audio = libsamplerate.resample(audio, 44100 / rate, "sinc_medium")
        audio, rate = audio.reshape(len(audio), -1), 44100
    file = io.BytesIO()
    soundfile.write(
        file,
        np.clip(audio, -1, 1),
        rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=0.5,
        bitrate_mode="VARIABLE",
    )
    return file.getvalue()


def _section(index: int, excerpt: _Excerpt) -> str:
    end = excerpt.start + excerpt.seconds
    when = f"{excerpt.seconds:.0f} s"
    if excerpt.start >= 1:
        when = f"{excerpt.start:.0f}–{end:.0f} s"
    return (
        f'<details class="song"{" open" if index < 3 else ""}><summary>{escape(excerpt.name)} '
        f"<small>{when}</small></summary>"
        '<div class="grid">'
        f'<div class="label">mixture</div><figure class="wide">{excerpt.mixture}</figure>'
        '<div class="head"></div><div class="head">voice</div><div class="head">music</div>'
        f'<div class="head">mask</div>{"".join(excerpt.rows)}</div></details>'
    )
