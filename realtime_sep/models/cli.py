"""`realtime-sep models`: what is installed, in which quality, and how to get more."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from realtime_sep.errors import ModelError, RealtimeSepError, UsageError, unknown
from realtime_sep.latency import overlap_add_lag
from realtime_sep.models import plan, registry, trust
from realtime_sep.models.registry import ModelEntry

IMPORTERS = "realtime_sep.importers"
RUNTIMES = "realtime_sep.runtimes"

app = typer.Typer(
    name="models",
    help="The networks that separate: list, inspect, import, check and remove them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="Name of a model, or an .onnx file.")]


@dataclass(frozen=True)
class ModelInfo:
    """A model for people and programs.

    Attributes:
        latency: of the separator by profile, `{"profile": {"frames": n, "ms": t}}`, at the first
            of `sample_rates`; a model without profiles has the one profile "model".
        default_profile: that is taken when none is asked for.
        provider: who computes on this machine ("" where that was not tried).
        rtf: seconds of computing per second of audio, on one core of it; None likewise.
        quality: measured scores.
    """

    name: str
    family: str
    kind: str
    origin: str
    stems: tuple[str, ...]
    sample_rates: tuple[int, ...]
    latency: dict[str, dict[str, float]]
    default_profile: str
    licence: str
    training_data: str
    source: str
    file: str
    size: int
    sha256: str
    card: str | None
    provider: str
    rtf: float | None
    quality: dict[str, Any]


def describe(entry: ModelEntry, provider: str = "", rtf: float | None = None) -> ModelInfo:
    """Everything that is known about an installed model."""
    meta = entry.metadata
    rate = meta.sample_rates[0]
    default = plan.DEFAULT_PROFILE
    if meta.kind == "spectral":
        files = {name: other.metadata for name, other in registry.profiles(entry).items()}
        default = next((name for name, other in files.items() if other == meta), "model")
        frames = {
            name: overlap_add_lag(other.geometry, other.lookahead)
            for name, other in {default: meta, **files}.items()
        }
    elif meta.kind == "waveform":
        default, frames = "model", {"model": meta.delay}
    else:
        frames = {name: p.latency(meta.hop) for name, p in plan.profiles(meta).items()}
    return ModelInfo(
        name=entry.name,
        family=meta.family,
        kind=meta.kind,
        origin=entry.origin,
        stems=meta.all_stems,
        sample_rates=meta.sample_rates,
        latency={k: {"frames": v, "ms": round(1e3 * v / rate, 1)} for k, v in frames.items()},
        default_profile=default,
        licence=meta.licence,
        training_data=meta.training_data,
        source=entry.source,
        file=str(entry.path),
        size=entry.size,
        sha256=entry.sha256,
        card=str(entry.card) if entry.card else None,
        provider=provider,
        rtf=rtf,
        quality=dict(entry.quality),
    )


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the installed models."""
    with _one_line():
        infos = [describe(entry) for _, entry in sorted(registry.entries().items())]
    if as_json:
        typer.echo(json.dumps([asdict(info) for info in infos], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "latency", "stems", "vocals / accompaniment SDR", "licence", "origin")
    for info in infos:
        delay = info.latency[info.default_profile]
        table.add_row(
            info.name,
            f"{delay['ms']:.0f} ms",
            ", ".join(info.stems),
            _score(info.quality),
            info.licence,
            info.origin,
        )
    if infos:
        Console().print(table)
    else:
        typer.echo("no models installed")
    for name in sorted(registry.IMPORTABLE.keys() - {info.name for info in infos}):
        typer.echo(f"to get {name}: realtime-sep models import {registry.IMPORTABLE[name]}")


@app.command()
def show(
    name: Name,
    as_json: Json = False,
    provider: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Tell all about one model, after loading it and running it once."""
    with _one_line():
        entry = _find(name)
        runtime = _entry_point(RUNTIMES, "onnx").load()
        made = runtime(entry, samplerate=entry.metadata.sample_rates[0], provider=provider)
        if (close := getattr(made, "close", None)) is not None:
            close()
        info = describe(entry, made.info.provider, round(made.info.rtf, 4))
    if as_json:
        typer.echo(json.dumps(asdict(info), indent=2))
        return
    for key, value in asdict(info).items():
        if key == "latency":
            value = ", ".join(f"{k} {v['frames']} frames ({v['ms']} ms)" for k, v in value.items())
        elif key == "quality":
            value = json.dumps(value) if value else "not measured"
        elif isinstance(value, tuple):
            value = ", ".join(map(str, value))
        typer.echo(f"{key.replace('_', ' '):>16}  {value}")


@app.command("import")
def import_model(
    name: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="spleeter, openunmix, demucs, mdx, onnx (your own network), or an .onnx file of "
            "this program.",
        ),
    ],
    source: Annotated[
        str | None,
        typer.Argument(help="What to import: a file, a folder, an address, or a known name."),
    ] = None,
    local: Annotated[
        str | None,
        typer.Option("--source", "--wheel", help="A local file instead of a download."),
    ] = None,
    describe: Annotated[
        Path | None,
        typer.Option("--describe", metavar="FILE", help="What is in the network."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the importer; repeat it."),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept-licence", help="Agree to the licence that is shown.")
    ] = False,
) -> None:
    """Bring a model into the user's folder; interrupted imports can be repeated.

    What each kind takes is told in docs/bring-your-own-model.md.
    """
    with _one_line(), _progress() as (progress, ask):
        if name.endswith(".onnx"):
            data = trust.read(Path(name))
            entry = registry.install(data, origin=str(Path(name).resolve()))
        else:
            importer = _entry_point(IMPORTERS, name).load()

            def agreed(text: str) -> bool:
                return bool(ask(text, accept))

            request = _request()(
                source=source if local is None else local,
                settings=_settings(settings or []),
                describe=describe,
                agreed=agreed,
                progress=progress,
            )
            entry = importer(request)
    typer.echo(f"{entry.name} is installed in {entry.path.parent}")
    if name == "onnx":
        try_model(entry.name)


@app.command("try")
def try_model(
    name: Name,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="N", min=1, help="How much audio.")
    ] = 60.0,
    profile: Annotated[str | None, typer.Option("--profile", help="One of the model's.")] = None,
    as_json: Json = False,
) -> None:
    """Run a model over music, noise and silence, and tell how it did. Exit code 1 if badly."""
    options = {} if profile is None else {"profile": profile}
    with _one_line():
        done = _entry_point(RUNTIMES, "trial").load()(_find(name), seconds, **options)
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=2))
    else:
        rows = {
            "latency": f"{done.latency} samples, {done.latency_ms:.1f} ms",
            "real-time factor": f"{done.rtf:.3f} on {done.provider}",
            "slowest hop": f"{1e3 * done.worst_hop:.2f} of {1e3 * done.hop / done.samplerate:.2f} "
            f"ms; {done.slow_hops} took longer than they last",
            "not finite": f"{done.bad_hops} hops",
            "drift": f"{done.drift:.2f} dB between the same music first and last",
            "silence": f"{done.silence:.0f} dBFS",
            "alignment": "not known" if done.offset is None else f"{done.offset:+d} samples",
            "sum of the stems": f"{done.sum_error:.0f} dBFS from the delayed mix",
        }
        for key, value in rows.items():
            typer.echo(f"{key:>16}  {value}")
    for remark in done.remarks:
        typer.echo(f"realtime-sep: {name}: {remark}", err=True)
    if done.remarks:
        raise typer.Exit(1)


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="One model; all if left out.")] = None,
) -> None:
    """Check files against the manifest: checksum, trust, metadata. Exit code 1 if one fails."""
    with _one_line():
        found = registry.entries() if name is None else {name: _find(name)}
    failed = False
    for key, entry in sorted(found.items()):
        try:
            registry.read(entry)
            typer.echo(f"{key}: ok")
        except ModelError as error:
            failed = True
            typer.echo(f"{key}: {error}", err=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Name of an imported model.")]) -> None:
    """Delete an imported model."""
    with _one_line():
        path = registry.remove(name)
    typer.echo(f"removed {path}")


def _find(name: str) -> ModelEntry:
    entry = registry.find(name)
    if entry is None:
        raise unknown("model", name, {*registry.names(), *registry.IMPORTABLE})
    return entry


def _settings(texts: list[str]) -> dict[str, str]:
    """`KEY=VALUE` as a dictionary."""
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {text!r}: give KEY=VALUE")
        settings[key.strip()] = value.strip()
    return settings


def _request() -> Any:
    """What importers take; their layer is above this one."""
    return _entry_point(RUNTIMES, "request").load()


def _importers() -> set[str]:
    return set(entry_points(group=IMPORTERS).names)


def _entry_point(group: str, name: str) -> Any:
    """The plugin of a group: the layers above are found, never imported."""
    found = [*entry_points(group=group, name=name)]
    if not found:
        if group == RUNTIMES:
            raise UsageError("this installation is incomplete; install realtime-sep again")
        raise unknown("importer", name, _importers())
    return found[0]


def _score(quality: dict[str, Any]) -> str:
    try:
        median = quality["median"]
        return " / ".join(f"{median[s]['sdr']:.1f}" for s in ("vocals", "accompaniment"))
    except (KeyError, TypeError):
        return ""


@contextmanager
def _one_line() -> Iterator[None]:
    """Errors of ours are one line on stderr and exit code 2 (usage) or 1."""
    try:
        yield
    except RealtimeSepError as error:
        typer.echo(f"realtime-sep: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, UsageError) else 1) from error


@contextmanager
def _progress() -> Iterator[Any]:
    """A progress bar on a terminal, silence elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def progress(step: str, part: float) -> None:
            bar.update(task, description=step, completed=part)

        def ask(text: str, accepted: bool) -> bool:
            """Show a licence; whether it is agreed to."""
            bar.stop()
            typer.echo(text, err=True)
            agreed = accepted or (
                sys.stdin.isatty() and typer.confirm("Agree, and download?", err=True)
            )
            bar.start()
            return agreed

        yield progress, ask
