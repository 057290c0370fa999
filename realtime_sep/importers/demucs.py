"""Demucs: the hybrid networks of the PyPI package demucs (HTDemucs, HDemucs).

They are exported by PyTorch, in another Python: the one that `--set python=PATH` names, or one that
is set up in the cache for this.  The running program never needs it.  What was exported is then
compared with what the original network made of the same noise, through the transforms that run
here, and refused if it differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from realtime_sep.errors import ModelError, UsageError
from realtime_sep.importers import graphs, wheels
from realtime_sep.importers.protocol import Progress, Request
from realtime_sep.models import registry
from realtime_sep.models.metadata import ModelMetadata
from realtime_sep.separators.onnx import OnnxSegment

_PACKAGE = "demucs==4.1.0"
#: What demucs needs to load and run a network, besides torch.
_NEEDS = ("einops", "julius", "pyyaml", "tqdm", "safetensors", "huggingface-hub", "numpy")
_EXPORT = ("onnx", "onnxscript")
_TORCH = "https://download.pytorch.org/whl/cpu"
_SCRIPT = Path(__file__).with_name("export_demucs.py")
#: Largest difference from the original that counts as equal.
_EQUAL = 1e-4
_SETTINGS = ("python", "index", "segment", "name", "licence", "training_data")


def import_model(request: Request) -> registry.ModelEntry:
    """Import Demucs; an `Importer`.

    The source is a name that demucs knows (`htdemucs`, `htdemucs_6s`, `hdemucs_mmi`, ...), or a
    file (`.safetensors`; or `.th`, which can run programs: only from where you trust).  Settings:
    `python` (an interpreter with torch and demucs), `segment` (seconds, shorter than the network's
    own), `index` (of one network of a bag), `name`, `licence`, `training_data`.
    """
    request.check(*_SETTINGS)
    source = request.source or "htdemucs"
    settings = request.settings
    options = [f"--{key}={_number(key, settings[key])}" for key in ("index", "segment")
               if key in settings]  # fmt: skip
    if not Path(source).exists():
        if "/" in source or "." in source:
            raise UsageError(f"{source}: no such file")
        request.agree(f"Demucs {source}", "MIT", "(What the package says of itself.)")
    python = settings.get("python") or _environment(request.progress)
    with tempfile.TemporaryDirectory(prefix="realtime-sep-") as folder:
        request.progress("exporting the network", 0.0)
        # Isolated: this folder is not to be searched for modules, where one is called demucs.
        _run([python, "-I", str(_SCRIPT), source, folder, *options], "the export of Demucs")
        data, metadata = build(Path(folder), {"name": _name(source), **settings})
        request.progress("comparing it with the original", 0.0)
        verify(data, Path(folder))
    request.progress("installing", 0.0)
    card = _card(metadata, source)
    return registry.install(data, origin=f"Demucs {source} ({_PACKAGE})", card=card)


def build(folder: Path, settings: Any) -> tuple[bytes, ModelMetadata]:
    """The model of kind "segment" of what `export_demucs` wrote, and its metadata."""
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    foreign = graphs.load((folder / "net.onnx").read_bytes(), "the exported network")
    rate, channels = info["samplerate"], info["channels"]
    metadata = ModelMetadata(
        name=settings.get("name", "demucs"),
        family="demucs",
        kind="segment",
        sample_rates=(rate, 48000) if rate == 44100 else (rate,),
        n_fft=info["n_fft"],
        hop=info["hop"],
        channels=channels,
        stems=tuple(info["stems"]),
        residual=info["residual"],
        licence=settings.get("licence", "MIT"),
        training_data=settings.get(
            "training_data", "MUSDB18-HQ and songs that are not public (see the package)"
        ),
        bins=info["bins"],
        segment=info["segment"],
        transform="staggered",
    )
    g = graphs.Graph()
    for value in foreign.graph.input:
        g("Identity", [g.input(graphs.bare(value), _sizes(value))], value.name)
    for value in foreign.graph.output:
        g("Identity", [value.name], g.output(graphs.bare(value), _sizes(value)))
    return g.model(metadata, foreign), metadata


def verify(data: bytes, folder: Path) -> float:
    """Compare with what the original made of the same noise; returns the largest difference.

    Raises:
        ModelError: it is too large.
    """
    path = folder / "made.onnx"
    path.write_bytes(data)
    net = OnnxSegment(registry.describe(path), provider="cpu")
    with np.load(folder / "sample.npz") as sample:
        net.segment[:] = sample["mix"]
        net.run()
        difference = float(np.abs(net.stems - sample["stems"]).max())
    if not difference <= _EQUAL:
        raise ModelError(f"the exported network differs from the original by {difference:.2g}")
    return difference


def _sizes(value: Any) -> list[int | str]:
    return graphs.shape_of(value)


def _name(source: str) -> str:
    return registry.name_from(Path(source).stem if Path(source).exists() else source)


def _number(key: str, text: str) -> float | int:
    try:
        return int(text) if key == "index" else float(text)
    except ValueError:
        raise UsageError(f"{key} is a number, not {text!r}") from None


def _environment(progress: Progress) -> str:
    """A Python with torch and demucs, set up in the cache where it is not there yet."""
    folder = wheels.cache_dir().parent / "demucs"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    ready = folder / "ready"
    if ready.exists():
        return str(python)
    progress("setting up a Python with torch", 0.0)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], "a new Python")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    progress("downloading torch (200 MB)", 0.2)
    _run([*pip, "torch", "--index-url", _TORCH], "the installation of torch")
    progress("downloading demucs", 0.8)
    _run([*pip, *_NEEDS, *_EXPORT], "the installation of what demucs needs")
    _run([*pip, "--no-deps", _PACKAGE], "the installation of demucs")
    ready.touch()
    return str(python)


def _run(command: list[str], what: str) -> None:
    """Run a program.

    Raises:
        ModelError: it failed; its last words.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise ModelError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise ModelError(
            f"{what} failed: {lines[-1][:200]}; --set python=PATH names another Python that has "
            "torch, demucs, onnx and onnxscript"
        )


def _card(metadata: ModelMetadata, source: str) -> str:
    seconds = metadata.segment / metadata.sample_rates[0]
    return f"""# {metadata.name}

Demucs, `{source}`: a hybrid network on the samples and the spectrogram of {seconds:.1f} s, from the
PyPI package {_PACKAGE}.

- **Gives:** {", ".join(metadata.all_stems)}; {metadata.residual} is what remains of the mix.
- **Licence:** {metadata.licence}.
- **Training data:** {metadata.training_data}.
- **Here:** run on segments that overlap, crossed over (docs/quality.md). At 48 kHz it hears the
  music 9 % slower and deeper than it learned it; nothing is resampled.
- **Reference:** S. Rouard, F. Massa, A. Défossez, "Hybrid Transformers for Music Source
  Separation", ICASSP 2023; A. Défossez, "Hybrid Spectrogram and Waveform Source Separation", MDX
  workshop at ISMIR 2021.
"""
