"""`realtime-sep plugins`: separators, effects, hosted effects; what each is and what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from realtime_sep.errors import RealtimeSepError, UsageError, unknown

if TYPE_CHECKING:
    from realtime_sep.effects.hosts import HostedInfo
    from realtime_sep.parameters import Parameter

Kind = Literal["separator", "effect", "hosted"]
KINDS: tuple[Kind, ...] = ("separator", "effect", "hosted")

#: What a plugin is prepared for to tell its latency.
SAMPLERATE, CHANNELS, FRAMES = 44100, 2, 1024

app = typer.Typer(
    name="plugins",
    help="Separators, effects and hosted effects: what there is, and what it takes.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OfKind = Annotated[
    Kind | None, typer.Option("--kind", help="Of this kind only.", show_default=False)
]


@dataclass(frozen=True)
class Listed:
    """A plugin that was found.

    Attributes:
        name: as `--model`, `--effect` or a chain takes it.
        origin: distribution and version, or the file that it comes from.
        summary: what it is, in its own words.
        problem: why it cannot be used, or "".
    """

    name: str
    kind: Kind
    origin: str
    summary: str
    problem: str = ""


@dataclass(frozen=True)
class Shown:
    """A plugin that was made once, to ask it.

    Attributes:
        latency: frames at `samplerate`.
        stems: of a separator.
        options: what a separator takes besides, with defaults.
        parameters: of an effect.
        presets: of a hosted effect.
    """

    name: str
    kind: Kind
    origin: str
    summary: str
    file: str
    samplerate: int
    latency: int
    latency_ms: float
    stems: tuple[str, ...] = ()
    hop: int | None = None
    family: str = ""
    provider: str = ""
    options: dict[str, Any] | None = None
    parameters: tuple[Parameter, ...] = ()
    presets: tuple[str, ...] = ()


@app.command("list")
def list_plugins(kind: OfKind = None, as_json: Json = False) -> None:
    """List what can be used, and what cannot and why."""
    from realtime_sep.cli import common

    found = [one for part in KINDS if kind in (None, part) for one in _all_of(part)]
    if as_json:
        typer.echo(common.to_json(found))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "kind", "from", ""):
        table.add_column(column, no_wrap=column in ("name", "kind"))
    for one in found:
        said = f"[red]cannot be used:[/] {escape(one.problem)}" if one.problem else None
        origin = Path(one.origin).name if one.kind == "hosted" else one.origin
        table.add_row(escape(one.name), one.kind, escape(origin), said or escape(one.summary))
    Console(highlight=False).print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="As `plugins list` names it; options may follow.")],
    kind: OfKind = None,
    as_json: Json = False,
) -> None:
    """Tell all about one plugin, after making it once."""
    from realtime_sep.cli import common

    shown = _shown(name, kind)
    if as_json:
        typer.echo(common.to_json(shown))
        return
    rows = {
        "name": shown.name,
        "kind": shown.kind,
        "what": shown.summary,
        "from": shown.origin,
        "file": shown.file,
        "stems": ", ".join(shown.stems),
        "family": shown.family,
        "provider": shown.provider,
        "hop": f"{shown.hop} frames" if shown.hop else "",
        "latency": f"{shown.latency} frames ({shown.latency_ms:g} ms at {shown.samplerate} Hz)",
        "options": ", ".join(
            k if v is None else f"{k}={v}" for k, v in (shown.options or {}).items()
        ),
        "presets": ", ".join(shown.presets),
    }
    for key, value in rows.items():
        if value:
            typer.echo(f"{key:>10}  {value}")
    for parameter in shown.parameters:
        typer.echo(f"{'parameter':>10}  {_told(parameter)}")


def _told(p: Parameter) -> str:
    """A parameter in one line."""
    unit = f" {p.unit}" if p.unit else ""
    if p.kind == "switch":
        text = f"{p.name}: on or off, {'on' if p.default else 'off'} by default"
    else:
        least = "off" if p.kind == "level" else f"{p.minimum:g}"
        text = f"{p.name}: {least} to {p.maximum:g}{unit}, {p.default:g} by default"
    notes = [f"{label} = {value:g}" for label, value in p.choices]
    notes += [f"in steps of {p.step:g}"] * (p.step not in (0, 1)) + ["whole"] * (p.step == 1)
    notes += ["logarithmic"] * p.log
    return text + (f" ({', '.join(notes)})" if notes else "") + (f" · {p.label}" if p.label else "")


def _all_of(kind: Kind) -> Iterator[Listed]:
    from realtime_sep.models import registry
    from realtime_sep.plugins import EFFECTS, SEPARATORS

    if kind == "hosted":
        yield from _hosted()
        return
    points = _points(SEPARATORS if kind == "separator" else EFFECTS)
    for point in points:
        yield _listed(point, kind)
    if kind == "separator":
        names = {point.name for point in points}  # an entry point wins
        for name, entry in sorted(registry.entries().items()):
            if name not in names:
                yield Listed(
                    name, kind, _model_origin(entry), f"a network ({entry.metadata.family})"
                )


def _points(group: str) -> list[EntryPoint]:
    """One for each name, the one that is loaded."""
    names = sorted(entry_points(group=group).names)
    return [next(iter(entry_points(group=group, name=name))) for name in names]


def _listed(point: EntryPoint, kind: Kind) -> Listed:
    from realtime_sep import plugins

    try:
        target = plugins.find(point.group, point.name)
    except UsageError as error:
        return Listed(point.name, kind, _origin(point), "", str(error))
    return Listed(point.name, kind, _origin(point), _summary(target))


def _hosted() -> Iterator[Listed]:
    from realtime_sep.effects.hosts import HOSTS

    for point in _points(HOSTS):
        try:
            for info in _available(point.name):
                name = f"{point.name}:{info.name}"
                yield Listed(name, "hosted", info.origin, info.label)
        except Exception as error:  # a host is somebody else's code
            known = isinstance(error, RealtimeSepError)
            said = str(error) if known else f"{type(error).__name__}: {error}"
            yield Listed(f"{point.name}:", "hosted", _origin(point), "", " ".join(said.split()))


def _available(scheme: str) -> list[HostedInfo]:
    from realtime_sep.plugins import load_host

    return load_host(scheme).available()


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _model_origin(entry: Any) -> str:
    from importlib.metadata import version

    return (
        f"realtime-sep {version('realtime-sep')}" if entry.origin == "shipped" else str(entry.path)
    )


def _summary(target: Any) -> str:
    """First line of what a class or function says of itself."""
    import inspect

    documented = inspect.isclass(target) or inspect.isroutine(target)
    return (inspect.getdoc(target) or "").split("\n")[0] if documented else ""


def _shown(text: str, kind: Kind | None) -> Shown:
    """Make a plugin and ask it.

    Raises:
        UsageError: there is none of this name (the nearest is suggested), or several.
    """
    from realtime_sep import plugins
    from realtime_sep.effects.syntax import parse_slot
    from realtime_sep.models import registry

    spec = parse_slot(text)
    name, options = (text, {}) if spec.scheme else plugins.with_options(text)
    kinds: dict[Kind, bool] = {
        "separator": not spec.scheme
        and (
            plugins.PLUS in text
            or name in plugins.available_separators()
            or registry.find(name) is not None  # a file
        ),
        "effect": not spec.scheme and name in plugins.available_effects(),
        "hosted": spec.scheme in plugins.available_hosts(),
    }
    matches = [k for k, found in kinds.items() if found and kind in (None, k)]
    if len(matches) > 1:
        raise UsageError(f"{name!r} names several ({', '.join(matches)}); choose by --kind")
    if not matches:
        if spec.scheme and kind in (None, "hosted"):
            plugins.load_host(spec.scheme)  # says which hosts there are
        known = {"separator": plugins.available_separators(), "effect": plugins.available_effects()}
        names = [n for k, listed in known.items() if kind in (None, k) for n in listed]
        raise unknown(kind or "plugin", spec.source, names)
    if matches == ["separator"]:
        return _separator(text, name, options)
    return _effect(text, spec.scheme, spec.name)


def _separator(text: str, name: str, told: dict[str, Any]) -> Shown:
    import inspect

    from realtime_sep import plugins
    from realtime_sep.models import registry

    made = plugins.load_separator(text, samplerate=SAMPLERATE, channels=CHANNELS)
    try:
        info = made.info
    finally:
        if (close := getattr(made, "close", None)) is not None:
            close()
    target = plugins.find(plugins.SEPARATORS, name)
    entry = None if target is not None else registry.find(name)
    options: dict[str, Any] = {}
    if target is not None:
        point = next(iter(entry_points(group=plugins.SEPARATORS, name=name)))
        origin, summary, file = _origin(point), _summary(target), _file(target)
        for parameter in inspect.signature(target).parameters.values():
            if parameter.name not in ("samplerate", "channels") and parameter.kind in (
                parameter.KEYWORD_ONLY,
                parameter.POSITIONAL_OR_KEYWORD,
            ):
                options[parameter.name] = _default(parameter.default)
    elif entry is not None:
        origin, summary, file = _model_origin(entry), entry.source, str(entry.path)
    else:
        origin, summary, file = "", "the mean of its parts", ""
    return Shown(
        name=info.name,
        kind="separator",
        origin=origin,
        summary=summary,
        file=file,
        samplerate=info.samplerate,
        latency=info.latency,
        latency_ms=round(1e3 * info.latency / info.samplerate, 2),
        stems=info.stems,
        hop=info.hop,
        family=info.family,
        provider=info.provider,
        options={**options, **told},
    )


def _default(value: Any) -> Any:
    """Of an option, as plain data; None where there is none."""
    return value if isinstance(value, bool | int | float | str) else None


def _effect(text: str, scheme: str, name: str) -> Shown:
    from realtime_sep import plugins

    effect = plugins.load_effect(text)
    try:
        effect.prepare(SAMPLERATE, CHANNELS, FRAMES)
        latency, parameters = effect.latency, tuple(effect.parameters)
    finally:
        if (close := getattr(effect, "close", None)) is not None:
            close()
    presets: tuple[str, ...] = ()
    if scheme:
        name, origin, summary, file = f"{scheme}:{name}", "", "", ""
        for info in _available(scheme):
            if f"{scheme}:{info.name}" == name:
                summary, origin, presets = info.label, info.origin, info.presets
    else:
        target = plugins.find(plugins.EFFECTS, name)
        point = next(iter(entry_points(group=plugins.EFFECTS, name=name)))
        origin, summary, file = _origin(point), _summary(target), _file(target)
    return Shown(
        name=name,
        kind="hosted" if scheme else "effect",
        origin=origin,
        summary=summary,
        file=file,
        samplerate=SAMPLERATE,
        latency=latency,
        latency_ms=round(1e3 * latency / SAMPLERATE, 2),
        parameters=parameters,
        presets=presets,
    )


def _file(target: Any) -> str:
    """Where a class or function was written."""
    import inspect

    try:
        return inspect.getfile(target)
    except TypeError:
        return ""
