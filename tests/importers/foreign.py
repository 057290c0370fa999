"""Networks as other people export them, made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Tensor = tuple[str, Sequence[int | str]]


def write(
    path: Path,
    nodes: list[Any],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    constants: dict[str, Any] | None = None,
    opset: int = 17,
) -> Path:
    """A file with these nodes."""

    def value(tensor: Tensor) -> Any:
        name, shape = tensor
        kind = TensorProto.INT64 if name == "sr" else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, list(shape))

    graph = helper.make_graph(
        nodes,
        "foreign",
        [value(tensor) for tensor in inputs],
        [value(tensor) for tensor in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return path


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    return helper.make_node(op, list(inputs), list(outputs), **attributes)
