"""A user's own causal network: any ONNX file, fitted to what the runtime takes by a description.

The description (TOML, see `TEMPLATE`) says what the network's tensors hold and how their axes lie.
From it nodes are put around the network that turn the runtime's spectrum or samples into what it
wants, and what it gives into the spectra or samples of the stems.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from realtime_sep.errors import ModelError, UsageError, unknown
from realtime_sep.importers import graphs
from realtime_sep.importers.protocol import Request
from realtime_sep.models import registry, trust
from realtime_sep.models.metadata import ModelMetadata, StateSpec

TEMPLATE = """\
# What the network is; all but the tables below are needed.
name = "{name}"
licence = "unknown"            # of the weights
training_data = "unknown"
sample_rates = [44100, 48000]  # it runs at every rate from the lowest to the highest
channels = 2
stems = ["vocals"]             # what it gives, in this order
residual = "accompaniment"     # the name of what remains of the mix

# A network on spectra; the delay is synthesis - hop + lookahead * hop samples.
n_fft = 2048
synthesis = 512                # how much of each frame is heard; shorter is quicker
hop = 256
lookahead = 0                  # frames by which its output lags its input
# A network on samples has only these:
# hop = 256
# delay = 0                    # samples by which its output lags its input

# One frame (or one hop of samples) goes in.
# holds: spectrum (real and imaginary part), magnitude, or samples
# axes:  of batch, time, channel, bin, part (real, imaginary), sample; a*b is an axis of both
[input]
name = "{input}"
holds = "magnitude"
axes = {input_axes}

# holds: spectrum, magnitude, mask (times the mix), or samples; its axes also have: stem
[output]
name = "{output}"
holds = "mask"
axes = {output_axes}

# State tensors: what goes in, and under which name its next value comes out; zero at the start.
[states]
{states}
# Further inputs that never change.
[constants]
{constants}"""

_HOLDS_IN = {"spectrum": ("channel", "bin", "part"), "magnitude": ("channel", "bin")}
_HOLDS_OUT = {name: ("stem", *axes) for name, axes in _HOLDS_IN.items()}
_HOLDS_OUT["mask"] = _HOLDS_OUT["magnitude"]
_HOLDS_IN["samples"] = ("channel", "sample")
_HOLDS_OUT["samples"] = ("stem", "channel", "sample")
_TOP = {
    "name", "family", "licence", "training_data", "sample_rates", "channels", "stems", "residual",
    "n_fft", "synthesis", "hop", "lookahead", "delay", "input", "output", "states", "constants",
}  # fmt: skip
_TENSOR = ("name", "holds", "axes", "bins")


def import_model(request: Request) -> registry.ModelEntry:
    """Import a user's network; an `Importer`.

    The source is the ONNX file, `describe` the description.  Where that file does not exist yet, it
    is written as a template to fill in.
    """
    request.check()
    path = request.path("ONNX file")
    if request.describe is None:
        raise UsageError(
            f"say what is in {path.name} with --describe {path.stem}.toml; a file that does not "
            "exist yet is written as a template"
        )
    data = trust.read(path)
    request.progress("reading the network", 0.0)
    foreign = graphs.load(data, path.name)
    if not request.describe.exists():
        _write_template(foreign, path, request.describe)
        raise UsageError(f"wrote {request.describe}: fill it in, and give the same command again")
    try:
        description = tomllib.loads(request.describe.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{request.describe} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{request.describe}: {error}") from error
    try:
        made, metadata = build(foreign, description)
    except UsageError as error:
        raise UsageError(f"{request.describe}: {error}") from error
    request.progress("installing", 0.0)
    return registry.install(made, origin=str(path.resolve()), card=_card(metadata, path.name))


@dataclass(frozen=True)
class _Tensor:
    """What the description says of the network's input or output."""

    name: str
    holds: str
    axes: tuple[tuple[str, ...], ...]  # of each dimension
    bins: int

    @property
    def atoms(self) -> tuple[str, ...]:
        """Axes in order, those of one dimension one after the other, without those of size one."""
        return tuple(a for axis in self.axes for a in axis if a not in ("batch", "time"))


def build(foreign: Any, description: dict[str, Any]) -> tuple[bytes, ModelMetadata]:
    """The model, and what it says of itself.

    Args:
        foreign: as `graphs.load` gives it.
        description: as in `TEMPLATE`.

    Raises:
        UsageError: the description lacks something, contradicts itself, or does not fit the graph.
        ModelError: the graph cannot be run hop by hop.
    """
    for key in description:
        if key not in _TOP:
            raise unknown("entry", key, _TOP)
    inputs = {graphs.bare(value): value for value in foreign.graph.input}
    outputs = {graphs.bare(value): value for value in foreign.graph.output}
    source = _tensor("input", description, _HOLDS_IN, inputs)
    sink = _tensor("output", description, _HOLDS_OUT, outputs)
    if (source.holds == "samples") != (sink.holds == "samples"):
        raise UsageError("input and output must both hold samples, or neither")
    pairs = _table("states", description)
    metadata = _metadata(description, source, _states(pairs, inputs, outputs))

    g = graphs.Graph()
    sizes = {
        "batch": 1, "time": 1, "part": 2, "channel": metadata.channels,
        "stem": len(metadata.stems), "sample": metadata.hop,
        "bin": metadata.geometry.bins if metadata.kind == "spectral" else 0,
    }  # fmt: skip
    _lead_in(g, source, inputs[source.name], sizes)
    _lead_out(g, sink, outputs[sink.name], sizes)
    for i, (before, after) in enumerate(pairs.items()):
        shape = [int(n) for n in graphs.shape_of(inputs[before])]
        g.input(f"state_{i}", [1, *shape])
        g("Reshape", [f"state_{i}", g.integers(*shape)], inputs[before].name)
        g("Reshape", [outputs[after].name, g.integers(1, *shape)], f"next_state_{i}")
        g.output(f"next_state_{i}", [1, *shape])
    constants = _table("constants", description)
    for name, value in constants.items():
        if name not in inputs:
            raise unknown("input", name, inputs)
        g.constant(inputs[name].name, _constant(inputs[name], value))
    if left := sorted(inputs.keys() - {source.name, *pairs, *constants}):
        raise UsageError(f"nothing is said of the network's input {', '.join(left)}")
    return g.model(metadata, foreign), metadata


def _metadata(
    description: dict[str, Any], source: _Tensor, states: tuple[StateSpec, ...]
) -> ModelMetadata:
    samples = source.holds == "samples"
    needed = ["name", "licence", "training_data", "sample_rates", "channels", "stems", "residual"]
    numbers = ("hop",) if samples else ("n_fft", "synthesis", "hop")
    if missing := [key for key in (*needed, *numbers) if key not in description]:
        raise UsageError(f"lacks {', '.join(missing)}")
    optional = ("delay",) if samples else ("lookahead",)
    for key in ("channels", *numbers, *optional):
        if type(description.get(key, 0)) is not int:
            raise UsageError(f"{key} is a whole number, not {description[key]!r}")
    for key, kind in (("sample_rates", int), ("stems", str)):
        value = description[key]
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            raise UsageError(f"{key} is a list, like in the template, not {value!r}")
    values: dict[str, Any] = {"n_fft": 0, **{key: description.get(key, 0) for key in optional}}
    values |= {key: description[key] for key in ("channels", *numbers)}
    values |= {key: str(description[key]) for key in ("name", "residual", "licence")}
    values |= {key: tuple(description[key]) for key in ("sample_rates", "stems")}
    try:
        return ModelMetadata(
            kind="waveform" if samples else "spectral",
            family=str(description.get("family", "own")),
            training_data=str(description["training_data"]),
            states=states,
            **values,
        )
    except ModelError as error:
        raise UsageError(str(error)) from error


def _table(key: str, description: dict[str, Any]) -> dict[str, Any]:
    value = description.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"[{key}] is a table, not {value!r}")
    return value


def _tensor(
    which: str,
    description: dict[str, Any],
    kinds: dict[str, tuple[str, ...]],
    found: dict[str, Any],
) -> _Tensor:
    told = _table(which, description)
    for key in told:
        if key not in _TENSOR:
            raise unknown(f"entry of [{which}]", key, _TENSOR)
    if missing := [key for key in ("name", "holds", "axes") if key not in told]:
        raise UsageError(f"[{which}] lacks {', '.join(missing)}")
    name, holds, axes = told["name"], told["holds"], told["axes"]
    if name not in found:
        raise unknown(f"{which} of the network", str(name), found)
    if holds not in kinds:
        raise unknown(f"content of [{which}]", str(holds), kinds)
    if not isinstance(axes, list) or not all(isinstance(axis, str) for axis in axes):
        raise UsageError(f"axes of [{which}] is a list of names, not {axes!r}")
    tensor = _Tensor(
        name, holds, tuple(tuple(axis.split("*")) for axis in axes), told.get("bins", 0)
    )
    known = (*kinds[holds], "batch", "time")
    for atom in (a for axis in tensor.axes for a in axis):
        if atom not in known:
            raise unknown(f"axis of [{which}]", atom, known)
    if len(set(tensor.atoms)) != len(tensor.atoms):
        raise UsageError(f"[{which}] names an axis twice")
    rank = len(graphs.shape_of(found[name]))
    if len(axes) != rank:
        raise UsageError(f"[{which}] names {len(axes)} axes, but {name!r} has {rank}")
    return tensor


def _states(
    pairs: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Any]
) -> tuple[StateSpec, ...]:
    states = []
    for i, (before, after) in enumerate(pairs.items()):
        if before not in inputs:
            raise unknown("state among the network's inputs", before, inputs)
        if after not in outputs:
            raise unknown("state among the network's outputs", str(after), outputs)
        shape = graphs.shape_of(inputs[before])
        if not all(isinstance(size, int) for size in shape):
            raise UsageError(f"state {before!r} has no fixed size ({shape}); export it with one")
        states.append(StateSpec(str(i), tuple(int(size) for size in shape)))
    return tuple(states)


def _lead_in(g: graphs.Graph, tensor: _Tensor, value: Any, sizes: dict[str, int]) -> None:
    """From the runtime's input to the network's."""
    canonical = _HOLDS_IN[tensor.holds]
    _complete("input", tensor, canonical, sizes)
    if tensor.holds == "samples":
        x = g.input("samples", [1, sizes["channel"], sizes["sample"]])
    else:
        x = g.input("spec", [1, sizes["channel"], sizes["bin"], 2])
        if tensor.holds == "magnitude":
            x = _magnitude(g)
        if tensor.bins:
            x = g("Slice", [x, g.integers(0), g.integers(tensor.bins), g.integers(2)], "in/bins")
    inner = {**sizes, "bin": tensor.bins or sizes["bin"]}
    # Without the batch axis, in the network's order, with the network's axes.
    x = g("Reshape", [x, g.integers(*(inner[a] for a in canonical))], "in/plain")
    order = [canonical.index(a) for a in tensor.atoms]
    absent = [i for i, a in enumerate(canonical) if a not in tensor.atoms]
    x = g("Transpose", [x], "in/order", perm=[*absent, *order])
    g("Reshape", [x, g.integers(*_dimensions("input", tensor, value, inner))], value.name)


def _lead_out(g: graphs.Graph, tensor: _Tensor, value: Any, sizes: dict[str, int]) -> None:
    """From the network's output to the runtime's."""
    canonical = _HOLDS_OUT[tensor.holds]
    # One mask may be for all channels.
    loose = ("channel",) if tensor.holds in ("mask", "magnitude") else ()
    _complete("output", tensor, canonical, sizes, loose)
    inner = {**sizes, "bin": tensor.bins or sizes["bin"]}
    _dimensions("output", tensor, value, inner)
    x = g("Reshape", [value.name, g.integers(*(inner[a] for a in tensor.atoms))], "out/plain")
    present = [a for a in canonical if a in tensor.atoms]
    x = g("Transpose", [x], "out/order", perm=[tensor.atoms.index(a) for a in present])
    shape = [1, *(inner[a] if a in tensor.atoms else 1 for a in canonical)]
    x = g("Reshape", [x, g.integers(*shape)], "out/shape")
    stems, channels = sizes["stem"], sizes["channel"]
    if tensor.holds == "samples":
        g("Identity", [x], "stems")
        g.output("stems", [1, stems, channels, sizes["sample"]])
        return
    if tensor.bins:  # above, the stems are silent
        more = [0] * len(shape)
        more[3] = sizes["bin"] - tensor.bins
        x = g("Pad", [x, g.integers(*[0] * len(shape), *more)], "out/bins")
    if tensor.holds == "spectrum":
        g("Identity", [x], "stems")
    else:
        if tensor.holds == "magnitude":
            least = g.constant("least", np.array(1e-9, np.float32))
            mix = g("Unsqueeze", [_magnitude(g), g.integers(1)], "out/mix")
            x = g("Div", [x, g("Max", [mix, least], "out/floor")], "out/mask")
        wide = g("Unsqueeze", [x, g.integers(4)], "out/wide")
        g("Mul", [wide, g("Unsqueeze", ["spec", g.integers(1)], "out/spec")], "stems")
    g.output("stems", [1, stems, channels, sizes["bin"], 2])


def _magnitude(g: graphs.Graph) -> str:
    """`[1, channels, bins]` of `spec`; made once."""
    if not any(node.name == "magnitude" for node in g.nodes):
        g("Mul", ["spec", "spec"], "squares")
        g("ReduceSum", ["squares", g.integers(3)], "power", keepdims=0)
        g("Sqrt", ["power"], "magnitude")
    return "magnitude"


def _complete(
    which: str,
    tensor: _Tensor,
    canonical: Sequence[str],
    sizes: dict[str, int],
    loose: Sequence[str] = (),
) -> None:
    """Refuse axes that leave out what is more than one."""
    for atom in canonical:
        if atom not in tensor.atoms and atom not in loose and sizes[atom] != 1:
            raise UsageError(f"axes of [{which}] lack {atom!r}, of which there are {sizes[atom]}")
    if type(tensor.bins) is not int or not 0 <= tensor.bins <= sizes["bin"]:
        raise UsageError(f"bins of [{which}] is at most {sizes['bin']}, not {tensor.bins!r}")


def _dimensions(which: str, tensor: _Tensor, value: Any, sizes: dict[str, int]) -> list[int]:
    """Sizes of the network's tensor by its axes; they must be what the graph says."""
    wanted = [prod(sizes[a] for a in axis) for axis in tensor.axes]
    found = graphs.shape_of(value)
    for axis, want, size in zip(tensor.axes, wanted, found, strict=True):
        if isinstance(size, int) and size != want:
            raise UsageError(
                f"axis {'*'.join(axis)!r} of {tensor.name!r} has {size} in the network, and {want} "
                "by the description"
            )
    return wanted


def _constant(value: Any, told: Any) -> Any:
    """The array of an input that never changes, of the graph's type and shape."""
    from onnx import helper

    kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    try:
        array = np.array(told).astype(kind)
        shape = graphs.shape_of(value)
        if all(isinstance(size, int) for size in shape):
            array = array.reshape([int(size) for size in shape])
    except (TypeError, ValueError):
        raise UsageError(
            f"constant {graphs.bare(value)!r} is {graphs.shape_of(value)} of {kind}, not {told!r}"
        ) from None
    return array


def _write_template(foreign: Any, path: Path, target: Path) -> None:
    """The template, with what the graph tells."""
    inputs = [(graphs.bare(v), graphs.shape_of(v)) for v in foreign.graph.input]
    outputs = [(graphs.bare(v), graphs.shape_of(v)) for v in foreign.graph.output]
    (name_in, shape_in), *more_in = inputs
    (name_out, shape_out), *more_out = outputs
    states = [
        f'"{a}" = "{b}"  # {shape}' for (a, shape), (b, _) in zip(more_in, more_out, strict=False)
    ]
    rest = [f'# "{name}" = 0  # {shape}' for name, shape in more_in[len(more_out) :]]

    def axes(shape: list[int | str]) -> str:
        return f"{['?'] * len(shape)}  # {shape} in the file".replace("'", '"', 2 * len(shape))

    text = TEMPLATE.format(
        name=registry.name_from(path.stem),
        input=name_in,
        input_axes=axes(shape_in),
        output=name_out,
        output_axes=axes(shape_out),
        states="\n".join([*states, ""]),
        constants="\n".join([*rest, ""]),
    )
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from error


def _card(metadata: ModelMetadata, file: str) -> str:
    return f"""# {metadata.name}

Imported from `{file}`; see docs/bring-your-own-model.md.

- **Gives:** {", ".join(metadata.all_stems)}.
- **Licence:** {metadata.licence}.
- **Training data:** {metadata.training_data}.
"""
