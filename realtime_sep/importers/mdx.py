"""MDX-Net: networks in the ONNX format that vocal removers share.

They take the complex spectrogram of some seconds of stereo, `[batch, 4, dim_f, dim_t]` (real and
imaginary part of left and right), and give that of one stem, the primary one.  The file does not
say everything: the transform's length, the stem and the loudness by which the result is compensated
come from a JSON file beside it, or from settings.

The format: Kim, Choi, Chung, Lee, Jung, "KUIELab-MDX-Net: a two-stream neural network for music
demixing", MDX workshop at ISMIR 2021.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from realtime_sep.errors import ModelError, UsageError
from realtime_sep.importers import graphs
from realtime_sep.importers.protocol import Request
from realtime_sep.models import registry, trust
from realtime_sep.models.metadata import ModelMetadata

#: Settings, and what they are called in the files of other programs.
_ALIASES = {
    "n_fft": ("mdx_n_fft_scale_set",),
    "dim_f": ("mdx_dim_f_set",),
    "dim_t": ("mdx_dim_t_set",),
    "hop": ("hop_length",),
    "compensate": ("compensation",),
    "stem": ("primary_stem",),
    "samplerate": ("sample_rate",),
    "name": (),
    "licence": ("license",),
    "training_data": (),
}
#: Files of parameters for many models tell them apart by the MD5 of so many last bytes.
_TAIL = 10_000 * 1024
#: What the two stems of a karaoke model are called here.
_STEMS = {"instrumental": "accompaniment", "karaoke": "accompaniment", "voice": "vocals"}
_RESIDUAL = {"vocals": "accompaniment", "accompaniment": "vocals"}


def import_model(request: Request) -> registry.ModelEntry:
    """Import an MDX-Net; an `Importer`.

    The source is the ONNX file.  Settings: `n_fft` (must be known), `stem` ("vocals",
    "instrumental", ...), `compensate` (1), `hop` (1024), `dim_f` and `dim_t` (where the file leaves
    them open), `samplerate`, `name`, `licence`, `training_data`.  A JSON file may hold them: the
    one given by `describe`, or `FILE.json` beside `FILE.onnx`.
    """
    request.check(*_ALIASES)
    path = request.path("MDX-Net file (.onnx)")
    data = trust.read(path)
    request.progress("reading the network", 0.0)
    foreign = graphs.load(data, path.name)
    settings = {**_from_file(path, data, request.describe), **request.settings}
    made = build(foreign, path.stem, settings)
    request.progress("installing", 0.0)
    return registry.install(made[0], origin=str(path.resolve()), card=made[1])


def build(foreign: Any, title: str, settings: Mapping[str, Any]) -> tuple[bytes, str]:
    """The model and its card.

    Args:
        foreign: as `graphs.load` gives it.

    Raises:
        ModelError: it is no MDX-Net.
        UsageError: a setting is missing or makes no sense.
    """
    if len(foreign.graph.input) != 1 or len(foreign.graph.output) != 1:
        raise ModelError(f"{title} is no MDX-Net: it has not one input and one output")
    source, sink = foreign.graph.input[0], foreign.graph.output[0]
    shape = graphs.shape_of(source)
    if len(shape) != 4 or (shape[1] not in (4, "?") and not isinstance(shape[1], str)):
        raise ModelError(
            f"{title} is no MDX-Net: its input is {shape}, not [batch, 4, dim_f, dim_t]"
        )
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ModelError(f"{title} takes {shape[0]} segments at once; export it for one")
    bins = _dimension("dim_f", shape[2], settings)
    frames = _dimension("dim_t", shape[3], settings)
    n_fft, hop = _number("n_fft", settings), _number("hop", settings, 1024)
    rate = _number("samplerate", settings, 44100)
    try:
        gain = float(settings.get("compensate", 1.0))
    except (TypeError, ValueError):
        raise UsageError(f"compensate is a factor, not {settings['compensate']!r}") from None
    if not 0.1 <= gain <= 10:
        raise UsageError(f"compensate {gain} is not between 0.1 and 10")
    if bins > n_fft // 2 + 1:
        raise UsageError(f"dim_f {bins} does not fit n_fft {n_fft}: at most {n_fft // 2 + 1}")
    stem = str(settings.get("stem", "")).strip().lower()
    if not stem:
        raise UsageError("which stem the network gives is not known; add --set stem=vocals")
    stem = _STEMS.get(stem, stem)
    metadata = ModelMetadata(
        name=str(settings.get("name", registry.name_from(title))),
        family="mdx",
        kind="segment",
        sample_rates=(rate, 48000) if rate == 44100 else (rate,),
        n_fft=n_fft,
        hop=hop,
        channels=2,
        stems=(stem,),
        residual=_RESIDUAL.get(stem, "rest"),
        licence=str(settings.get("licence", "unknown")),
        training_data=str(settings.get("training_data", "unknown")),
        bins=bins,
        segment=hop * (frames - 1),
        transform="centred",
    )
    g = graphs.Graph()
    g("Identity", [g.input("spec", [1, 4, bins, frames])], source.name)
    factor = g.constant("compensate", np.array(gain, np.float32))
    g("Mul", [sink.name, factor], "compensated")
    g("Reshape", ["compensated", g.integers(1, 1, 4, bins, frames)], "spectra")
    g.output("spectra", [1, 1, 4, bins, frames])
    return g.model(metadata, foreign), _card(metadata, title, frames, gain)


def _dimension(name: str, found: int | str, settings: Mapping[str, Any]) -> int:
    """A size that the graph fixes, or else the settings."""
    if not isinstance(found, int):
        return _number(name, settings)
    told = settings.get(name)
    if told is not None and _number(name, settings) != found:
        raise UsageError(f"{name} is {told}, but the network takes {found}")
    return found


def _number(name: str, settings: Mapping[str, Any], default: int | None = None) -> int:
    value = settings.get(name, default)
    if value is None:
        raise UsageError(f"{name} of the network is not known; add --set {name}=...")
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is a whole number, not {value!r}") from None
    if not 1 <= number <= 2**20:
        raise UsageError(f"{name} {number} makes no sense")
    return number


def _from_file(path: Path, data: bytes, describe: Path | None) -> dict[str, Any]:
    """Settings from a JSON file: of this model alone, or of many by checksum or file name."""
    file = describe or path.with_suffix(".json")
    if describe is None and not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file} is not JSON: {error}") from error
    if isinstance(content, dict):
        keys = (hashlib.md5(data[-_TAIL:], usedforsecurity=False).hexdigest(), path.name, path.stem)
        content = next((content[k] for k in keys if isinstance(content.get(k), dict)), content)
    if not isinstance(content, dict):
        raise UsageError(f"{file} holds no settings by name")
    found: dict[str, Any] = {}
    for name, aliases in _ALIASES.items():
        for key in (name, *aliases):
            if key in content:
                value = content[key]
                # There, the number of frames is written as a power of two.
                found[name] = 2**value if key == "mdx_dim_t_set" and value < 20 else value
    return found


def _card(metadata: ModelMetadata, title: str, frames: int, gain: float) -> str:
    seconds = metadata.segment / metadata.sample_rates[0]
    return f"""# {metadata.name}

An MDX-Net, imported from `{title}.onnx`: {metadata.bins} bins of a {metadata.n_fft}-point
transform, {frames} frames ({seconds:.1f} s), compensated by {gain}.

- **Gives:** {metadata.stems[0]}; {metadata.residual} is what remains of the mix.
- **Licence:** {metadata.licence}.
- **Training data:** {metadata.training_data}.
- **Here:** run on segments that overlap, crossed over (docs/quality.md). At 48 kHz it hears the
  music 9 % slower and deeper than it learned it; nothing is resampled.
- **Reference:** M. Kim, W. Choi, J. Chung, D. Lee, S. Jung, "KUIELab-MDX-Net: a two-stream neural
  network for music demixing", MDX workshop at ISMIR 2021.
"""
