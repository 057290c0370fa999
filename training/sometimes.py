"""A part of a frame's step that is not computed with every frame: an `If` of the exported graph.

Tracing knows no branches.  So a part is traced as one node of no known kind, and exported once
more by itself; `branch` then puts that graph in the node's place, inside an `If`.  Streams that are
computed together need not be in step: where only some are due, all are computed, and the others
keep what they had.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable, Sequence

import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from torch import Tensor, nn

DOMAIN, KIND = "realtime_sep", "Sometimes"


class _Node(torch.autograd.Function):
    """A part as a single node."""

    @staticmethod
    def forward(ctx, part: Sometimes, label: str, due: Tensor, *tensors: Tensor):
        return tuple(x.clone() for x in tensors[part.given :])  # tracing asks for shapes only

    @staticmethod
    def symbolic(g, part: Sometimes, label: str, due, *tensors):
        kept = len(tensors) - part.given
        return g.op(f"{DOMAIN}::{KIND}", due, *tensors, label_s=label, outputs=kept)


class Sometimes(nn.Module):
    """`body(*given, *kept)` → what is kept from now on, where it is due.

    Args:
        body: gives as many tensors as it is handed of `kept`, of the same shapes.
        label: its name, by which `branch` finds it.
    """

    def __init__(self, body: nn.Module, label: str) -> None:
        super().__init__()
        self.body, self.label = body, label
        self.given = 0
        self.shapes: list[torch.Size] = []

    def forward(
        self, due: Tensor, given: Sequence[Tensor], kept: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """`due` `[batch, 1]` is one where it is, else nought."""
        self.given = len(given)
        if torch.jit.is_tracing():
            self.shapes = [x.shape for x in (*given, *kept)]
            return _Node.apply(self, self.label, due, *given, *kept)
        return self.computed(due, *given, *kept)

    def computed(self, due: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """All of a batch, of which those are kept that are due."""
        made = self.body(*tensors)
        kept = tensors[self.given :]
        return tuple(
            torch.where(due.view(-1, *[1] * (new.dim() - 1)) > 0.5, new, old)
            for new, old in zip(made, kept, strict=True)
        )


class _Mixed(nn.Module):
    """A part as it is where some of a batch are due."""

    def __init__(self, part: Sometimes) -> None:
        super().__init__()
        self.part = part

    def forward(self, due: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.part.computed(due, *tensors)


def traced(
    module: nn.Module, given: list[Tensor], inputs: list[str], outputs: list[str], opset: int
) -> ModelProto:
    """The graph of `module`, with a free batch axis on every input and output that is named."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(given),
            buffer,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in [*inputs, *outputs]},
            opset_version=opset,
            dynamo=False,
            do_constant_folding=False,  # the runtime does it: what it makes need not be stored
            custom_opsets={DOMAIN: 1},
        )
    return onnx.load_from_string(buffer.getvalue())


def branch(model: ModelProto, network: nn.Module, opset: int) -> None:
    """Put the parts of `network` in the places of their nodes."""
    parts = {part.label: part for part in network.modules() if isinstance(part, Sometimes)}
    graph = model.graph
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.domain == DOMAIN and node.op_type == KIND:
            part = parts[helper.get_node_attr_value(node, "label").decode()]
            graph.node.extend(_branches(graph, node, part, opset))
        else:
            graph.node.append(node)
    for entry in [entry for entry in model.opset_import if entry.domain == DOMAIN]:
        model.opset_import.remove(entry)


def _branches(graph: GraphProto, node: NodeProto, part: Sometimes, opset: int) -> list[NodeProto]:
    """All are due, some, or none.  Weights are put into `graph`, once."""
    due, *tensors = node.input
    label, kept = part.label, list(node.input)[1 + part.given :]
    examples = [torch.zeros(shape) for shape in part.shapes]
    all_due = _exported(part.body, examples, opset)
    mixed = _exported(_Mixed(part), [torch.ones(len(examples[0]), 1), *examples], opset)
    same, some = ([f"{label}/{which}/{i}" for i in range(len(kept))] for which in ("none", "some"))
    none = helper.make_graph(
        [helper.make_node("Identity", [name], [new]) for name, new in zip(kept, same, strict=True)],
        f"{label}/none",
        [],
        _results(same),
    )
    inner = helper.make_node(
        "If",
        [f"{label}/any"],
        some,
        name=f"{label}/some",
        then_branch=_inside(graph, mixed, [due, *tensors], f"{label}/mixed"),
        else_branch=none,
    )
    outer = helper.make_node(
        "If",
        [f"{label}/all"],
        list(node.output),
        name=f"{label}/due",
        then_branch=_inside(graph, all_due, tensors, f"{label}/each"),
        else_branch=helper.make_graph([inner], f"{label}/some", [], _results(some)),
    )
    asked = []
    for what, reduction in (("all", "ReduceMin"), ("any", "ReduceMax")):
        asked += [
            helper.make_node(reduction, [due], [f"{label}/{what}/value"], keepdims=0),
            helper.make_node(
                "Cast", [f"{label}/{what}/value"], [f"{label}/{what}"], to=TensorProto.BOOL
            ),
        ]
    return [*asked, outer]


def _results(names: Iterable[str]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]


def _exported(body: nn.Module, examples: list[Tensor], opset: int) -> GraphProto:
    return traced(body.eval(), examples, [f"in/{i}" for i in range(len(examples))], [], opset).graph


def _inside(graph: GraphProto, body: GraphProto, inputs: Sequence[str], prefix: str) -> GraphProto:
    """`body` as a branch, which sees the values around it by their names."""
    names = {f"in/{i}": name for i, name in enumerate(inputs)}
    there = {tensor.name for tensor in graph.initializer}
    for tensor in body.initializer:
        own = TensorProto()
        own.CopyFrom(tensor)
        own.name = ""
        # One and the same weight is in several branches.
        name = f"sometimes/{hashlib.sha256(own.SerializeToString()).hexdigest()[:16]}"
        names[tensor.name] = name
        if name not in there:
            own.name = name
            graph.initializer.append(own)
            there.add(name)
    for node in body.node:
        node.name = f"{prefix}{node.name}"
        node.input[:] = [names.get(name, f"{prefix}/{name}") if name else "" for name in node.input]
        node.output[:] = [f"{prefix}/{name}" for name in node.output]
    outputs = _results(f"{prefix}/{value.name}" for value in body.output)
    return helper.make_graph(list(body.node), prefix, [], outputs)
