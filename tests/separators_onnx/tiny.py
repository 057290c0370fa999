"""Tiny models, made on the spot: what they do can be said in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from realtime_sep.models import registry
from realtime_sep.models.metadata import ModelMetadata, StateSpec
from realtime_sep.models.registry import ModelEntry

SPECTRAL = ModelMetadata(
    name="tiny",
    family="test",
    kind="spectral",
    sample_rates=(44100, 48000),
    n_fft=512,
    synthesis=256,
    hop=128,
    channels=2,
    stems=("vocals",),
    residual="accompaniment",
    licence="CC0-1.0",
    training_data="none",
)
BINS = SPECTRAL.geometry.bins

WINDOW = replace(
    SPECTRAL, name="tinywindow", kind="window", synthesis=0, bins=200, frames=8, hop=128
)


def gain(value: float | np.ndarray, metadata: ModelMetadata = SPECTRAL) -> onnx.ModelProto:
    """Every stem is the mix times `value`, a number or one of each bin `[bins, 1]`."""
    stems = len(metadata.stems)
    nodes = [
        helper.make_node("Unsqueeze", ["spec", "one"], ["wide"]),
        helper.make_node("Expand", ["wide", "shape"], ["all"]),
        helper.make_node("Mul", ["all", "gain"], ["stems"]),
    ]
    constants = {
        "one": np.array([1], np.int64),
        "shape": np.array([1, stems, metadata.channels, metadata.geometry.bins, 2], np.int64),
        "gain": np.array(value, np.float32),
    }
    return model(nodes, constants, metadata)


def delayed(frames: int) -> onnx.ModelProto:
    """The stem is the mix `frames` hops ago, kept in as many states: a model with look-ahead."""
    shape = (2, BINS, 2)
    names = [f"past{i}" for i in range(frames)]
    metadata = replace(
        SPECTRAL, lookahead=frames, states=tuple(StateSpec(name, shape) for name in names)
    )
    sources = ["spec", *(f"state_{name}" for name in names)]
    nodes = [
        helper.make_node("Identity", [source], [f"next_state_{name}"])
        for source, name in zip(sources, names, strict=False)
    ]
    nodes.append(helper.make_node("Unsqueeze", [sources[-1], "one"], ["stems"]))
    return model(nodes, {"one": np.array([1], np.int64)}, metadata)


def counting(states: Sequence[str] = ("count",)) -> onnx.ModelProto:
    """The stem is the mix times the number of the hop over 1000, which is kept in the state."""
    metadata = replace(SPECTRAL, states=tuple(StateSpec(name, (1,)) for name in states))
    nodes = [
        helper.make_node("Add", [f"state_{name}", "step"], [f"next_state_{name}"])
        for name in states
    ]
    nodes += [
        helper.make_node("Unsqueeze", ["spec", "one"], ["wide"]),
        helper.make_node("Mul", ["wide", f"state_{states[0]}"], ["stems"]),
    ]
    constants = {"one": np.array([1], np.int64), "step": np.array([[1e-3]], np.float32)}
    return model(nodes, constants, metadata)


def branches(spectral: float, waveform: float, *leave_out: str) -> onnx.ModelProto:
    """The stem is `spectral` times the mix by its spectrum and `waveform` times by its samples.

    Any number of streams at once.  `leave_out` names an input or output that is missing.
    """
    metadata = replace(SPECTRAL, states=(StateSpec("past", (2, SPECTRAL.hop)),))
    nodes = [
        helper.make_node("Unsqueeze", ["spec", "one"], ["wide"]),
        helper.make_node("Mul", ["wide", "spectral"], ["stems"]),
        helper.make_node("Unsqueeze", ["state_past", "one"], ["late"]),
        helper.make_node("Mul", ["late", "waveform"], ["waves"]),
        helper.make_node("Identity", ["samples"], ["next_state_past"]),
    ]
    if "samples" in leave_out:
        nodes[-1] = helper.make_node("Identity", ["state_past"], ["next_state_past"])
    constants = {
        "one": np.array([1], np.int64),
        "spectral": np.array(spectral, np.float32),
        "waveform": np.array(waveform, np.float32),
    }
    made = model(nodes, constants, metadata)
    for name, values, shape in (
        ("samples", made.graph.input, [1, 2, SPECTRAL.hop]),
        ("waves", made.graph.output, [1, 1, 2, SPECTRAL.hop]),
    ):
        if name not in leave_out:
            values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return made


def window_gain(value: float, metadata: ModelMetadata = WINDOW) -> onnx.ModelProto:
    """Every mask is `value`."""
    nodes = [
        helper.make_node("Concat", ["newest", "rest"], ["shape"], axis=0),
        helper.make_node("ReduceMin", ["magnitude"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "gain"], ["mask"]),
        helper.make_node("Expand", ["mask", "shape"], ["masks"]),
    ]
    constants = {
        "rest": np.array([len(metadata.stems), metadata.channels, metadata.bins], np.int64),
        "zero": np.array(0, np.float32),
        "gain": np.array(value, np.float32),
    }
    return model(nodes, constants, metadata)


def model(
    nodes: list[Any],
    constants: dict[str, np.ndarray],
    metadata: ModelMetadata,
    **props: str | None,
) -> onnx.ModelProto:
    """A model with the inputs and outputs that its metadata means; `props` replaces properties."""
    f32 = TensorProto.FLOAT

    def info(name: str, shape: Sequence[Any], kind: int = f32) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    stems = len(metadata.stems)
    if metadata.kind == "spectral":
        bins = metadata.geometry.bins
        inputs = [info("spec", [1, metadata.channels, bins, 2])]
        outputs = [info("stems", [1, stems, metadata.channels, bins, 2])]
        inputs += [info(f"state_{s.name}", (1, *s.shape)) for s in metadata.states]
        outputs += [info(f"next_state_{s.name}", (1, *s.shape)) for s in metadata.states]
    else:
        inputs = [
            info("magnitude", [1, metadata.channels, "frames", metadata.bins]),
            info("newest", [1], TensorProto.INT64),
        ]
        outputs = [info("masks", ["newest", stems, metadata.channels, metadata.bins])]
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    own = {k.removeprefix("realtime_sep."): v for k, v in metadata.to_props().items()}
    merged = {k: v for k, v in {**own, **props}.items() if v is not None}
    helper.set_model_props(made, {f"realtime_sep.{k}": v for k, v in merged.items()})
    return made


def entry(made: onnx.ModelProto, folder: Path) -> ModelEntry:
    """The registry's entry of a model as a loose file."""
    path = folder / "tiny.onnx"
    path.write_bytes(made.SerializeToString())
    return registry.describe(path)
