"""Open-Unmix: recurrent networks, one for each stem, of the PyPI package openunmix.

The graph is built here from the published architecture (Stöter, Uhlich, Liutkus, Mitsufuji,
"Open-Unmix: a reference implementation for music source separation", JOSS 2019); PyTorch is not
needed, and the tests compare it with the package's own networks.  Networks that hear in both
directions become window models, run at the right edge of a sliding window; those that hear only the
past become window models with states, which see each frame once.

One network fewer than there are stems is computed: the last stem is what remains of the mix.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from realtime_sep.errors import ModelError, UsageError, unknown
from realtime_sep.importers import checkpoints, wheels
from realtime_sep.importers.graphs import Graph
from realtime_sep.importers.protocol import Progress, Request
from realtime_sep.models import registry
from realtime_sep.models.metadata import ModelMetadata, StateSpec

Array = npt.NDArray[np.float32]
Weights = Mapping[str, npt.NDArray[Any]]

#: Where the package finds its weights (openunmix 1.3): the first digits of the SHA-256 are in the
#: names.
_FILES = {
    "umx": "3370486/files/vocals-c8df74a5 drums-5a48008b bass-646024d3 other-f8e132cc",
    "umxhq": "3370489/files/vocals-b62c91ce drums-9619578f bass-8d85a5bd other-b52fbbf7",
    "umxl": "5069601/files/vocals-bccbd9aa drums-69e0ebd4 bass-2ca1ce51 other-c8c5b3e6",
}
_HOST = "https://zenodo.org/records/"
_LICENCES = {
    "umx": ("MIT", "MUSDB18 (100 songs)"),
    "umxhq": ("MIT", "MUSDB18-HQ (100 songs)"),
    "umxl": ("CC-BY-NC-SA-4.0", "private stems, compressed"),
}
_REMARKS = {"umxl": "Its weights are for non-commercial use only."}
_SAYS = "(What the package says of itself; it names no other licence for these weights.)"
_STEMS = ("vocals", "drums", "bass", "other")
#: Of batch normalisation, as in the original.
_EPSILON = 1e-5
_N_FFT, _HOP = 4096, 1024
#: Bytes that no file of weights exceeds.
_LIMIT = 512 * 2**20
_SETTINGS = ("targets", "name", "licence", "training_data", "n_fft", "hop", "samplerate")


def import_model(request: Request) -> registry.ModelEntry:
    """Import Open-Unmix; an `Importer`.

    The source is the name of known weights (`umxhq`, `umx`, `umxl`), a folder or an address that
    holds `vocals-*.pth` and so on, or one such file.  Settings: `targets` (`vocals`, or
    `vocals,drums,bass,other`: all that there are by default), `name`, `licence`, `training_data`,
    and for weights of one's own `n_fft` (4096), `hop` (1024), `samplerate` (44100).
    """
    request.check(*_SETTINGS)
    source = request.source or "umxhq"
    settings = dict(request.settings)
    if source in _FILES:
        licence, songs = _LICENCES[source]
        settings = {"name": source, "licence": licence, "training_data": songs, **settings}
        request.agree(f"Open-Unmix {source}", licence, _REMARKS.get(source, _SAYS))
        files = _download(source, _wanted(settings, _STEMS), request.progress)
    elif re.match(r"https?://", source):
        files = {_target(source): _fetch(source, request.progress)}
    else:
        files = _local(Path(source), settings)
    weights = {}
    for i, (target, path) in enumerate(files.items()):
        request.progress(f"reading {target}", i / len(files))
        if path.stat().st_size > _LIMIT:
            raise ModelError(f"{path} is larger than {_LIMIT >> 20} MiB; refused")
        weights[target] = checkpoints.read(path.read_bytes(), path.name)
    request.progress("building the network", 0.0)
    try:
        data, metadata = build(weights, settings)
    except KeyError as error:
        raise ModelError(f"the weights of Open-Unmix lack {error}") from error
    request.progress("installing", 0.0)
    return registry.install(data, origin=f"Open-Unmix {source}", card=_card(metadata, source))


def build(
    weights: Mapping[str, Weights], settings: Mapping[str, str]
) -> tuple[bytes, ModelMetadata]:
    """The model of kind "window" of networks by stem, and its metadata.

    Args:
        weights: as PyTorch's `state_dict` of each `openunmix.model.OpenUnmix`.

    Raises:
        KeyError: weights are missing.
        ModelError: they are not Open-Unmix's.
    """
    # The last of several stems is what remains; so its network is not computed.
    computed = {t: weights[t] for t in list(weights)[: max(1, len(weights) - 1)]}
    residual = list(weights)[-1] if len(weights) > 1 else _opposite(next(iter(weights)))
    first = next(iter(computed.values()))
    bins = len(first["output_scale"])
    channels = len(first["fc3.weight"]) // bins
    if first["fc3.weight"].shape != (bins * channels, len(first["fc1.weight"])):
        raise ModelError("these are not the weights of an Open-Unmix")
    states: list[StateSpec] = []
    g = Graph()
    g.input("magnitude", [1, channels, "frames", bins])
    g.input("newest", [1], integer=True)
    g("Neg", ["newest"], "start")
    # (frames, channels, bins), of which the networks read as many bins as they learned
    g("Transpose", ["magnitude"], "turned", perm=[2, 0, 1, 3])
    masks = []
    for target, of_target in computed.items():
        masks.append(_network(g, target, of_target, bins, channels, states))
    g("Concat", masks, "masks", axis=1)
    g.output("masks", ["newest", len(masks), channels, bins])
    rate = int(settings.get("samplerate", 44100))
    metadata = ModelMetadata(
        name=settings.get("name", "openunmix"),
        family="openunmix",
        kind="window",
        sample_rates=(rate,),
        n_fft=int(settings.get("n_fft", _N_FFT)),
        hop=int(settings.get("hop", _HOP)),
        channels=channels,
        stems=tuple(computed),
        residual=residual,
        licence=settings.get("licence", "unknown"),
        training_data=settings.get("training_data", "unknown"),
        bins=bins,
        frames=1,
        level=0 if states else -14,
        states=tuple(states),
    )
    return g.model(metadata), metadata


def _network(
    g: Graph, target: str, weights: Weights, bins: int, channels: int, states: list[StateSpec]
) -> str:
    """One stem's network; returns the name of the newest frames' masks (newest, 1, channels, bins).

    Batch normalisation and scaling are folded into the matrices before them.
    """

    def array(name: str) -> npt.NDArray[np.float64]:
        return np.asarray(weights[name], np.float64)

    def normal(layer: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        scale = array(f"{layer}.weight") / np.sqrt(array(f"{layer}.running_var") + _EPSILON)
        return scale, array(f"{layer}.bias") - array(f"{layer}.running_mean") * scale

    def constant(name: str, value: npt.NDArray[np.float64]) -> str:
        return g.constant(f"{target}/{name}", value.astype(np.float32))

    def dense(x: str, name: str, matrix: Any, bias: Any) -> str:
        product = g("MatMul", [x, constant(f"{name}.weight", matrix)], f"{target}/{name}/product")
        return g("Add", [product, constant(f"{name}.bias", bias)], f"{target}/{name}")

    heard = len(array("input_mean"))
    hidden = len(array("fc1.weight"))
    x = "turned"
    if heard < bins:
        sizes = [g.integers(0), g.integers(heard), g.integers(3)]
        x = g("Slice", [x, *sizes], f"{target}/heard")
    x = g("Reshape", [x, g.integers(-1, channels * heard)], f"{target}/flat")
    scale, shift = normal("bn1")
    matrix = array("fc1.weight").T * scale  # (channels · heard, hidden)
    gains, means = (np.tile(array(f"input_{name}"), channels) for name in ("scale", "mean"))
    x = dense(x, "fc1", gains[:, None] * matrix, (means * gains) @ matrix + shift)
    x = encoded = g("Tanh", [x], f"{target}/tanh")

    layers = sum(name.startswith("lstm.weight_hh") and name.endswith(tuple("0123456789"))
                 for name in weights)  # fmt: skip
    both = "lstm.weight_ih_l0_reverse" in weights
    x = g("Unsqueeze", [x, g.integers(1)], f"{target}/sequence")  # (frames, batch of 1, hidden)
    for layer in range(layers):
        x = _recurrent(g, x, f"{target}/lstm{layer}", weights, f"_l{layer}", both, states)
    x = g("Reshape", [x, g.integers(-1, hidden)], f"{target}/heard_over_time")
    x = g("Concat", [encoded, x], f"{target}/both", axis=1)
    x = g("Slice", [x, "start", g.integers(2**31), g.integers(0)], f"{target}/newest")
    scale, shift = normal("bn2")
    x = g("Relu", [dense(x, "fc2", array("fc2.weight").T * scale, shift)], f"{target}/relu")
    scale, shift = normal("bn3")
    gains, means = (np.tile(array(f"output_{name}"), channels) for name in ("scale", "mean"))
    x = dense(x, "fc3", array("fc3.weight").T * (scale * gains), shift * gains + means)
    x = g("Relu", [x], f"{target}/mask")
    return g("Reshape", [x, g.integers(-1, 1, channels, bins)], f"{target}/masks")


def _recurrent(
    g: Graph,
    x: str,
    name: str,
    weights: Weights,
    suffix: str,
    both: bool,
    states: list[StateSpec],
) -> str:
    """A layer of LSTM over (frames, 1, inputs); one that hears only the past keeps its state."""
    ends = (suffix, f"{suffix}_reverse") if both else (suffix,)

    def gates(kind: str) -> npt.NDArray[np.float32]:
        """Of both directions, in ONNX's order: input, output, forget, cell."""
        parts = []
        for end in ends:
            i, f, c, o = np.split(np.asarray(weights[f"lstm.{kind}{end}"], np.float32), 4)
            parts.append(np.concatenate([i, o, f, c]))
        return np.stack(parts)

    hidden = np.asarray(weights[f"lstm.weight_hh{suffix}"]).shape[1]
    inputs = [
        x,
        g.constant(f"{name}.w", gates("weight_ih")),
        g.constant(f"{name}.r", gates("weight_hh")),
        g.constant(f"{name}.b", np.concatenate([gates("bias_ih"), gates("bias_hh")], axis=1)),
    ]
    from onnx import helper

    outputs = [f"{name}/all"]
    if not both:
        inputs.append("")
        for kind in ("h", "c"):
            state = f"{name.replace('/', '_')}_{kind}"
            states.append(StateSpec(state, (1, hidden)))
            inputs.append(g.input(f"state_{state}", [1, 1, hidden]))
            outputs.append(g.output(f"next_state_{state}", [1, 1, hidden]))
    direction = "bidirectional" if both else "forward"
    attributes = {"hidden_size": hidden, "direction": direction}
    g.nodes.append(helper.make_node("LSTM", inputs, outputs, name=name, **attributes))
    # (frames, directions, 1, hidden) to (frames, 1, directions · hidden)
    x = g("Transpose", [outputs[0]], f"{name}/turned", perm=[0, 2, 1, 3])
    return g("Reshape", [x, g.integers(0, 0, -1)], f"{name}/out")


def _opposite(stem: str) -> str:
    return "accompaniment" if stem == "vocals" else "rest"


def _wanted(settings: Mapping[str, str], there: tuple[str, ...]) -> list[str]:
    """Stems to import, in the usual order."""
    asked = [t.strip() for t in settings.get("targets", "").split(",") if t.strip()]
    for target in asked:
        if target not in there:
            raise unknown("target", target, there)
    return [t for t in there if t in asked or not asked]


def _target(path: str) -> str:
    """The stem whose weights a file holds, by its name: `vocals-b62c91ce.pth`."""
    return re.split(r"[-.]", path.rsplit("/", 1)[-1])[0]


def _local(path: Path, settings: Mapping[str, str]) -> dict[str, Path]:
    """Files of weights by stem, in a folder, or one of them."""
    if path.is_file():
        return {_target(path.name): path}
    if not path.is_dir():
        known = ", ".join(_FILES)
        raise UsageError(f"{path}: no such file or folder; known weights are {known}")
    found = {_target(file.name): file for file in sorted(path.glob("*.pth"))}
    if not found:
        raise UsageError(f"{path} holds no weights (vocals-*.pth and so on)")
    order = sorted(found, key=lambda t: _STEMS.index(t) if t in _STEMS else len(_STEMS))
    return {target: found[target] for target in _wanted(settings, tuple(order))}


def _download(name: str, targets: list[str], progress: Progress) -> dict[str, Path]:
    folder, *files = _FILES[name].replace("/files/", "/files/ ").split()
    addresses = {_target(file): f"{_HOST}{folder}{file}.pth" for file in files}
    return {target: _fetch(addresses[target], progress) for target in targets}


def _fetch(address: str, progress: Progress) -> Path:
    """A file of weights, from the cache or its address; its name holds the start of its SHA-256."""
    filename = address.rsplit("/", 1)[-1]
    folder = wheels.cache_dir().parent / "weights"
    path = folder / filename
    digest = re.search(r"-([0-9a-f]{8,64})\.", filename)
    if path.exists():
        return path
    progress(f"downloading {filename}", 0.0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
            arrived = Path(temporary) / filename
            checksum = _save(address, arrived, progress)
            if digest and not checksum.startswith(digest[1]):
                raise ModelError(f"{address} is not what its name says: its SHA-256 differs")
            os.replace(arrived, path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{address} cannot be downloaded ({error}); without a network, give the folder that "
            "holds the files instead"
        ) from error
    return path


def _save(address: str, target: Path, progress: Progress) -> str:
    """Download to a file; returns its SHA-256."""
    checksum = hashlib.sha256()
    with target.open("wb") as file, urllib.request.urlopen(address, timeout=60) as answer:
        whole = int(answer.headers.get("Content-Length") or 0)
        while part := answer.read(2**18):
            file.write(part)
            checksum.update(part)
            if file.tell() > _LIMIT:
                raise ModelError(f"{address} is larger than {_LIMIT >> 20} MiB; refused")
            progress(f"downloading {target.name}", file.tell() / max(whole, file.tell()))
    return checksum.hexdigest()


def _card(metadata: ModelMetadata, source: str) -> str:
    stems = ", ".join(metadata.all_stems)
    return f"""# {metadata.name}

Open-Unmix, `{source}`: a network of three LSTM layers for each of {", ".join(metadata.stems)}, on
the magnitudes of a {metadata.n_fft}-point transform with a hop of {metadata.hop}.

- **Gives:** {stems}; {metadata.residual} is what remains of the mix.
- **Licence:** {metadata.licence} (weights); the architecture is MIT.
- **Training data:** {metadata.training_data}.
- **Here:** {
        "fed frame by frame, with its states"
        if metadata.states
        else "run on a sliding window, level-normalised"
    }; the masks are applied through shorter windows than the original's.
- **Reference:** F.-R. Stöter, S. Uhlich, A. Liutkus, Y. Mitsufuji, "Open-Unmix: a reference
  implementation for music source separation", Journal of Open Source Software 4 (2019).
"""
