"""ONNX files are foreign input: what is refused before a runtime sees them.

A graph can name files to read as its weights (external data), operators of libraries to load
(custom domains), and functions that replace standard operators.  None of these has a place in a
model of this program.  The file's own parser is the `onnx` package's; nothing is executed.
"""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from realtime_sep.errors import ModelError

#: Larger files are refused before they are read.
MAX_BYTES = 512 * 2**20
#: The standard operators, and those that are built into ONNX Runtime itself.
DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
#: Seconds that another process may take to inspect a file.
_PATIENCE = 30.0

#: What `foresee` has found, by checksum.
_foreseen: dict[str, dict[str, str]] = {}


def read(path: Path, sha256: str | None = None) -> bytes:
    """The whole file, if it is not too large and, where given, the one with this checksum.

    Raises:
        ModelError: missing, unreadable, too large, or not the file that the manifest means.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path} is not a file")
        if status.st_size > MAX_BYTES:
            raise ModelError(f"model file {path} is larger than {MAX_BYTES >> 20} MiB; refused")
        with path.open("rb") as file:
            data = file.read(status.st_size)  # as much memory is touched, at once
    except FileNotFoundError as error:
        raise ModelError(f"model file {path} is missing") from error
    except OSError as error:
        raise ModelError(f"model file {path} cannot be read: {error.strerror}") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(
            f"model file {path} is damaged or was replaced: its SHA-256 is not the manifest's; "
            f"import or install it again"
        )
    return data


def foresee(path: Path) -> None:
    """Inspect a file in a process of its own, so that `inspect` has nothing left to do in this one.

    Parser and checker keep the interpreter lock for 0.2 s, for which no audio may wait.  What is
    wrong with the file is told by `inspect`.
    """
    command = [sys.executable, "-m", "realtime_sep.models.trust", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=True)
        checksum, props = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return
    _foreseen[checksum] = props


def inspect(data: bytes, name: str) -> dict[str, str]:
    """Refuse a file that is no plain ONNX model; return its `metadata_props`.

    Args:
        name: of the file, for messages.

    Raises:
        ModelError: not ONNX or truncated, external data, custom operators, local functions.
    """
    if _foreseen and (known := _foreseen.get(hashlib.sha256(data).hexdigest())) is not None:
        return dict(known)
    try:
        import onnx
    except ImportError as error:
        raise ModelError(
            "reading models needs the package onnx: pip install 'realtime-sep[cpu]'"
        ) from error
    model: Any = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # the parser's own; its type comes from one of two libraries
        raise ModelError(f"{name} is not an ONNX file, or is truncated") from error
    graph = model.graph
    if not model.ir_version or not graph.node or not graph.output:
        raise ModelError(f"{name} is not an ONNX file, or is truncated")
    if model.functions:
        raise ModelError(f"{name} defines operators of its own (local functions); refused")
    domains = {opset.domain for opset in model.opset_import}
    for inner in _graphs(graph):
        domains.update(node.domain for node in inner.node)
    if foreign := sorted(map(str, domains - DOMAINS)):
        raise ModelError(f"{name} needs custom operators ({', '.join(foreign)[:80]}); refused")
    for tensor in _tensors(graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ModelError(f"{name} reads weights from other files (external data); refused")
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker's own error type is not part of its interface
        reason = str(error).strip().split("\n")[0][:120]
        raise ModelError(f"{name} is not a valid ONNX model: {reason}") from error
    props = {prop.key: prop.value for prop in model.metadata_props}
    if not all(isinstance(text, str) for pair in props.items() for text in pair):
        raise ModelError(f"{name} is damaged: its metadata is not text")
    return props


def _graphs(graph: Any) -> Iterator[Any]:
    """`graph` and every graph inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor that carries or names data: initializers and attributes, sparse ones too."""
    for inner in _graphs(graph):
        yield from inner.initializer
        for sparse in inner.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in inner.node:
            for attribute in node.attribute:
                yield from attribute.tensors
                if attribute.HasField("t"):
                    yield attribute.t
                sparses = [*attribute.sparse_tensors]
                if attribute.HasField("sparse_tensor"):
                    sparses.append(attribute.sparse_tensor)
                for sparse in sparses:
                    yield from (sparse.values, sparse.indices)


if __name__ == "__main__":
    content = read(Path(sys.argv[1]))
    print(json.dumps([hashlib.sha256(content).hexdigest(), inspect(content, sys.argv[1])]))
