"""ONNX graphs: building them, and fitting other people's to what the runtime takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from realtime_sep.errors import ModelError
from realtime_sep.models.metadata import ModelMetadata

#: What every graph here is written in.
OPSET = 17
IR_VERSION = 8
#: Put before every name of a foreign graph, so that none meets one of ours.
FOREIGN = "net/"


class Graph:
    """Collects nodes and constants; calling it adds a node and gives the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def integers(self, *values: int) -> str:
        return self.constant("i" + "_".join(map(str, values)), np.array(values, np.int64))

    def __call__(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def input(self, name: str, shape: Sequence[int | str], integer: bool = False) -> str:
        self.inputs.append(_value(name, shape, integer))
        return name

    def output(self, name: str, shape: Sequence[int | str]) -> str:
        self.outputs.append(_value(name, shape, False))
        return name

    def model(self, metadata: ModelMetadata, foreign: Any = None) -> bytes:
        """The ONNX file.

        Args:
            foreign: a model whose graph (of prefixed names) is part of this one.
        """
        from onnx import helper, numpy_helper

        nodes, tensors = [*self.nodes], []
        opsets = [helper.make_opsetid("", OPSET)]
        ir_version = IR_VERSION
        if foreign is not None:
            # Ours before and after it: sorted by what needs what.
            nodes = _sorted([*self.nodes, *foreign.graph.node])
            tensors = [*foreign.graph.initializer]
            opsets, ir_version = foreign.opset_import, max(IR_VERSION, foreign.ir_version)
        tensors += [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(nodes, metadata.name, self.inputs, self.outputs, tensors)
        if foreign is not None:
            graph.sparse_initializer.extend(foreign.graph.sparse_initializer)
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=ir_version, producer_name="realtime_sep"
        )
        helper.set_model_props(model, metadata.to_props())
        data: bytes = model.SerializeToString(deterministic=True)
        return data


def _value(name: str, shape: Sequence[int | str], integer: bool) -> Any:
    from onnx import TensorProto, helper

    kind = TensorProto.INT64 if integer else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, list(shape))


def _sorted(nodes: list[Any]) -> list[Any]:
    """Nodes in an order in which everything is computed before it is used."""
    made = {name for node in nodes for name in node.output}
    done: set[str] = set()
    result: list[Any] = []
    waiting = nodes
    while waiting:
        ready: list[Any] = []
        later: list[Any] = []
        for node in waiting:
            needs = made.intersection(_needs(node)) - done
            (later if needs else ready).append(node)
            if not needs:
                done.update(node.output)
        if not ready:
            raise ModelError("the graph of the model goes round in a circle")
        result += ready
        waiting = later
    return result


def _needs(node: Any) -> set[str]:
    """Names that a node and the graphs inside it take in."""
    names = set(node.input)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else []
        for graph in (*graphs, *attribute.graphs):
            for inner in graph.node:
                names |= _needs(inner)
    return names


def load(data: bytes, name: str) -> Any:
    """A foreign model, checked, in an operator set not older than ours, its names prefixed.

    Raises:
        ModelError: it is refused (see `models.trust`), or too old to be converted.
    """
    import onnx
    from onnx import compose, version_converter

    from realtime_sep.models import trust

    trust.inspect(data, name)
    model = onnx.load_from_string(data)
    del model.metadata_props[:]
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version < OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as error:  # the converter's errors have no common type
            reason = str(error).strip().split("\n")[0][:120]
            raise ModelError(
                f"{name} is written in operator set {version} and cannot be converted to {OPSET}: "
                f"{reason}; export it anew"
            ) from error
    # Exporters list weights among the inputs; they are none.
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return compose.add_prefix(model, FOREIGN)


def shape_of(value: Any) -> list[int | str]:
    """The shape of a graph's input or output: sizes, or names of what is free."""
    return [
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "?")
        for dim in value.type.tensor_type.shape.dim
    ]


def bare(value: Any) -> str:
    """The name of a foreign graph's input or output, without the prefix."""
    return str(value.name).removeprefix(FOREIGN)
