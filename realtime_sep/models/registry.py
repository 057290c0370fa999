"""Which models are installed: those that ship with the package, and those the user imported.

Each of the two folders holds the ONNX files, a model card each, and `manifest.json`.  The manifest
is the last thing written and the first thing changed on removal, and every file comes into being
under a temporary name, so an interrupted import leaves no half-written model.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_data_dir

from realtime_sep.errors import ModelError, RealtimeSepError, unknown
from realtime_sep.models import trust
from realtime_sep.models.metadata import ModelMetadata
from realtime_sep.types import PROFILES

MANIFEST = "manifest.json"
#: Overrides where imported models live.
ENVIRONMENT = "REALTIME_SEP_MODELS"
#: Models that are not shipped but one command away: name -> argument of `models import`.
IMPORTABLE: dict[str, str] = {
    "spleeter": "spleeter",
    "umxhq": "openunmix umxhq",
    "umxl": "openunmix umxl",
    "htdemucs": "demucs htdemucs",
}


@dataclass(frozen=True)
class ModelEntry:
    """An installed model, as the manifest tells it; its file has not been read yet.

    Attributes:
        name: as in `load_separator(name)`.
        path: the ONNX file.
        sha256: checksum that the file must have (empty: not known, a loose file).
        size: of the file in bytes.
        origin: who brought it.
        source: where it comes from, for people.
        metadata: what the file says of itself.
        scores: measured quality (`realtime-sep evaluate`), newer than the file's own.
        card: the model card, if there is one.
    """

    name: str
    path: Path
    sha256: str
    size: int
    origin: Literal["shipped", "imported", "file"]
    source: str
    metadata: ModelMetadata
    scores: Mapping[str, Any] = field(default_factory=dict)
    card: Path | None = None

    @property
    def quality(self) -> Mapping[str, Any]:
        """Measured quality: the manifest's, else the file's own."""
        return self.scores or self.metadata.scores


def shipped_dir() -> Path:
    """The folder of the models inside the package.

    An installed package carries them as `realtime_sep.onnx_models`; beside a source tree they lie
    in the top folder.
    """
    package = Path(str(files("realtime_sep")))
    inside = package / "onnx_models"
    return inside if inside.is_dir() else package.parent / "onnx_models"


def user_dir() -> Path:
    """The folder of imported models; not made until something is imported."""
    override = os.environ.get(ENVIRONMENT)
    return Path(override) if override else Path(user_data_dir("realtime-sep", False)) / "models"


def entries() -> dict[str, ModelEntry]:
    """All installed models by name; an imported one hides a shipped one of the same name.

    Raises:
        ModelError: a manifest is damaged.
    """
    return {**_read(shipped_dir(), "shipped"), **_read(user_dir(), "imported")}


def names() -> list[str]:
    """Names of all installed models, sorted."""
    return sorted(entries())


def find(name: str) -> ModelEntry | None:
    """The installed model of that name, or the one in the file that `name` is the path of.

    Raises:
        ModelError: a manifest or file is damaged; a model that is one import away, and how.
    """
    entry = entries().get(name)
    if entry is not None:
        return entry
    if name.endswith(".onnx"):
        return describe(Path(name))
    if name in IMPORTABLE:
        raise ModelError(
            f"model {name!r} is not installed yet; run: realtime-sep models import "
            f"{IMPORTABLE[name]}"
        )
    return None


def profiles(entry: ModelEntry) -> dict[str, ModelEntry]:
    """The files behind one name, of models that run hop by hop, by profile (`types.PROFILES`).

    A model has the profile whose windows it was trained with; `NAME-PROFILE`, where there is such a
    model with that profile's windows, is the same in another one.
    """
    if entry.metadata.kind != "spectral":
        return {}
    installed = entries()
    found: dict[str, ModelEntry] = {}
    for name, geometry in PROFILES.items():
        for other in (entry, installed.get(f"{entry.name}-{name}")):
            if other and other.metadata.kind == "spectral" and other.metadata.geometry == geometry:
                found.setdefault(name, other)
    return found


def in_profile(entry: ModelEntry, profile: str | None) -> ModelEntry:
    """The model itself, or its file for a profile.

    Raises:
        UsageError: it has no such profile.
    """
    if profile is None:
        return entry
    found = profiles(entry)
    if profile not in found:
        raise unknown(f"profile of {entry.name!r}", profile, found)
    return found[profile]


def foresee(name: str, profile: str | None = None) -> None:
    """Check the file of an installed model elsewhere: see `trust.foresee`.

    What is wrong with it is told by whoever loads it.
    """
    with suppress(RealtimeSepError):
        if (entry := entries().get(name)) is not None:
            trust.foresee(profiles(entry).get(profile or "", entry).path)


def describe(path: Path) -> ModelEntry:
    """An entry for a loose file, from what it says of itself.

    Raises:
        ModelError: the file is refused.
    """
    data = trust.read(path)
    metadata = ModelMetadata.from_props(trust.inspect(data, path.name))
    return ModelEntry(
        name=metadata.name,
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        origin="file",
        source=str(path),
        metadata=metadata,
    )


def read(entry: ModelEntry) -> bytes:
    """The model's bytes, after every check: checksum, trust, and metadata against the manifest.

    Raises:
        ModelError: one line that says what is wrong with the file.
    """
    data = trust.read(entry.path, entry.sha256 or None)
    metadata = ModelMetadata.from_props(trust.inspect(data, entry.path.name))
    if metadata != entry.metadata:
        raise ModelError(
            f"model {entry.name!r}: the metadata in {entry.path.name} is not what the manifest says"
        )
    return data


def install(data: bytes, *, origin: str, card: str = "") -> ModelEntry:
    """Check a model and take it into the user's folder under the name it gives itself.

    Args:
        data: the ONNX file's bytes.
        origin: where it came from, for people.
        card: text of its model card (Markdown).

    Raises:
        ModelError: the file is refused, or the folder cannot be written.
    """
    if len(data) > trust.MAX_BYTES:
        raise ModelError(f"the model is larger than {trust.MAX_BYTES >> 20} MiB; refused")
    metadata = ModelMetadata.from_props(trust.inspect(data, "the model"))
    name = metadata.name
    folder = user_dir()
    # Under names that tell the content, so that nothing is overwritten that a manifest means.
    file = f"{name}-{hashlib.sha256(data).hexdigest()[:12]}.onnx"
    card_file = f"{name}-{hashlib.sha256(card.encode()).hexdigest()[:12]}.md" if card else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _replacing(folder / file) as temporary:
            temporary.write_bytes(data)
        if card_file:
            with _replacing(folder / card_file) as temporary:
                temporary.write_text(card, encoding="utf-8")
        manifest = _load(folder)
        manifest[name] = _record(metadata, data, file, origin, card_file)
        _save(folder, manifest)
        _sweep(folder, name)
    except OSError as error:
        raise ModelError(f"models cannot be written to {folder}: {error.strerror}") from error
    return entries()[name]


def remove(name: str) -> Path:
    """Take an imported model out of the manifest and delete its files; returns the ONNX path.

    Raises:
        UsageError: no such model, or one that ships with the package.
        ModelError: the folder cannot be written.
    """
    folder = user_dir()
    imported = _read(folder, "imported")
    if name not in imported:
        raise unknown("imported model", name, imported)
    entry = imported[name]
    try:
        manifest = _load(folder)
        del manifest[name]
        _save(folder, manifest)
        _sweep(folder, name)
    except OSError as error:
        raise ModelError(f"models in {folder} cannot be removed: {error.strerror}") from error
    return entry.path


def set_scores(name: str, scores: Mapping[str, Any]) -> None:
    """Put newly measured quality into the manifest that lists a model.

    Raises:
        UsageError: no such model.
        ModelError: its folder cannot be written.
    """
    installed = entries()
    if name not in installed:
        raise unknown("model", name, installed)
    folder = installed[name].path.parent
    manifest = _load(folder)
    manifest[name]["scores"] = dict(scores)
    try:
        _save(folder, manifest)
    except OSError as error:
        raise ModelError(f"{folder} cannot be written: {error.strerror}") from error


def write_manifest(folder: Path, sources: Mapping[str, str]) -> None:
    """Write the manifest of a folder of model files anew; for what ships in `onnx_models/`.

    Args:
        sources: by model name, where it comes from.  Scores already in the manifest are kept.

    Raises:
        ModelError: a file is refused.
    """
    old = _load(folder)
    manifest = {}
    for path in sorted(folder.glob("*.onnx")):
        data = trust.read(path)
        metadata = ModelMetadata.from_props(trust.inspect(data, path.name))
        if path.stem != metadata.name:
            raise ModelError(f"{path.name} calls itself {metadata.name!r}; rename the file")
        known = old.get(metadata.name, {})
        card = path.with_suffix(".md")
        manifest[metadata.name] = {
            **_record(
                metadata,
                data,
                path.name,
                sources.get(metadata.name, known.get("source", "")),
                card.name if card.exists() else None,
            ),
            "scores": known.get("scores", {}),
        }
    _save(folder, manifest)


def name_from(title: str) -> str:
    """A model's name out of a file's: what is no letter or digit becomes '-'."""
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in title.lower())
    return "-".join(filter(None, name.split("-"))) or "model"


def _record(
    metadata: ModelMetadata, data: bytes, file: str, source: str, card: str | None
) -> dict[str, Any]:
    """What the manifest says of a model."""
    return {
        "file": file,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "source": source,
        "metadata": metadata.to_json(),
        "scores": {},
        "card": card,
    }


def _sweep(folder: Path, name: str) -> None:
    """Delete files of a model that the manifest does not mean (any more)."""
    record = _load(folder).get(name, {})
    for path in folder.glob(f"{name}-*"):
        digest = path.stem.removeprefix(f"{name}-")
        # A model called "a-b" is not one of "a": what is left of its name is no checksum.
        if len(digest) == 12 and path.name not in (record.get("file"), record.get("card")):
            path.unlink(missing_ok=True)


class _replacing:
    """A temporary path beside `path` that takes its place when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Path:
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".", suffix=".partial")
        os.close(handle)
        self._temporary = Path(name)
        return self._temporary

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with self._temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                self._temporary.chmod(0o644)
                os.replace(self._temporary, self._path)
        finally:
            self._temporary.unlink(missing_ok=True)


def _load(folder: Path) -> dict[str, Any]:
    """The manifest's models; empty where there is no manifest."""
    path = folder / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != 1:
            raise ModelError(
                f"{path} has format {data['format']!r}, this program reads 1; "
                "install a matching version"
            )
        return dict(data["models"])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error}; delete it and import again") from error


def _save(folder: Path, models: Mapping[str, Any]) -> None:
    text = json.dumps({"format": 1, "models": models}, indent=2, sort_keys=True)
    with _replacing(folder / MANIFEST) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _read(folder: Path, origin: Literal["shipped", "imported"]) -> dict[str, ModelEntry]:
    found = {}
    for name, model in _load(folder).items():
        try:
            # A name only: a manifest must not reach out of its folder.
            path = folder / Path(model["file"]).name
            found[name] = ModelEntry(
                name=name,
                path=path,
                sha256=model["sha256"],
                size=int(model["size"]),
                origin=origin,
                source=model["source"],
                metadata=ModelMetadata.from_json(model["metadata"]),
                scores=model.get("scores") or {},
                card=folder / Path(model["card"]).name if model.get("card") else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{folder / MANIFEST}: the entry {name!r} is damaged ({error})"
            ) from error
    return found
