"""Puts the plugins where other programs look for them."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path

from realtime_sep.errors import EngineError

LIBRARY = "realtime_sep.so"
BUNDLE = "realtime_sep.lv2"
SINK = "realtime-sep-karaoke.conf"
_TURTLE = ("manifest.ttl", "realtime_sep.ttl")


def library() -> Path:
    """The compiled plugins.

    Raises:
        EngineError: they have not been built.
    """
    package = Path(str(files("realtime_sep")))
    for path in sorted(package.glob("_plugin*.so")):
        return path
    raise EngineError(
        "the plugins have not been built: they need Linux and a C compiler when realtime_sep "
        "is installed"
    )


def faces(path: Path) -> tuple[str, ...]:
    """Which kinds of plugin a library holds: "LADSPA", "LV2"."""
    opened = ctypes.CDLL(str(path))
    kinds = {"LADSPA": "ladspa_descriptor", "LV2": "lv2_descriptor"}
    return tuple(kind for kind, symbol in kinds.items() if hasattr(opened, symbol))


def home(variable: str, default: str) -> Path:
    """A directory of the user's, as the environment names it."""
    return Path(os.environ.get(variable) or Path.home() / default)


def targets() -> dict[str, list[Path]]:
    """Every file that `install` writes, by what it is for."""
    bundle = Path.home() / ".lv2" / BUNDLE
    config = home("XDG_CONFIG_HOME", ".config")
    return {
        "LADSPA": [Path.home() / ".ladspa" / LIBRARY],
        "LV2": [bundle / name for name in (LIBRARY, *_TURTLE)],
        "command": [config / "realtime-sep" / "command"],
        "PipeWire": [config / "pipewire" / "pipewire.conf.d" / SINK],
    }


def install(pipewire: bool = False) -> list[Path]:
    """Copy the plugins, and note where this program is.

    Args:
        pipewire: also the configuration of a sink called Karaoke.

    Returns:
        What was written.

    Raises:
        EngineError: the plugins have not been built, or a file cannot be written.
    """
    built = library()
    found = faces(built)
    if not found:
        raise EngineError(
            "the plugins were built without ladspa.h and lv2.h: install ladspa-sdk and lv2-dev, "
            "then realtime_sep again"
        )
    if pipewire and "LV2" not in found:
        raise EngineError(
            "PipeWire's sink needs the LV2 plugin: install lv2-dev, then realtime_sep again"
        )
    places = targets()
    written = []
    data = files("realtime_sep.bridge").joinpath("data")
    for kind in (*found, "command", *(["PipeWire"] if pipewire else [])):
        for target in places[kind]:
            if target.name == LIBRARY:
                _write(target, built.read_bytes(), 0o755)
            elif kind == "command":
                _write(target, f"{program()}\n".encode())
            else:
                with as_file(data.joinpath(target.name)) as source:
                    _write(target, source.read_bytes())
            written.append(target)
    return written


def remove() -> list[Path]:
    """Undo `install`; what was removed."""
    removed = []
    for paths in targets().values():
        for path in paths:
            if path.exists():
                path.unlink()
                removed.append(path)
    bundle = Path.home() / ".lv2" / BUNDLE
    if bundle.is_dir() and not any(bundle.iterdir()):
        bundle.rmdir()
    return removed


def program() -> str:
    """Where `realtime-sep` of this installation is.

    Raises:
        EngineError: it has none.
    """
    beside = Path(sys.executable).with_name("realtime-sep")
    found = str(beside) if beside.exists() else shutil.which("realtime-sep")
    if found is None:
        raise EngineError("the program realtime-sep is not beside this Python, nor on the PATH")
    return found


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """All at once: a program may have the old file open."""
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(content)
        new.chmod(mode)
        new.replace(path)
    except OSError as error:
        raise EngineError(f"{path}: cannot be written: {error.strerror or error}") from error
