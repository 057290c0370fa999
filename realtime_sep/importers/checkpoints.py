"""Weights out of PyTorch's files, without PyTorch and without running anything.

Such a file is a pickle, which can run any program, beside the bare numbers.  This reader lets it
make dictionaries of arrays and nothing else.  It reads the zip files that `torch.save` writes since
1.6, and the older files of several pickles one after the other.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from realtime_sep.errors import ModelError

Array = npt.NDArray[Any]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_TYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "BoolStorage": np.dtype("?"),
}
#: Uncompressed size that no file of weights here exceeds.
_LIMIT = 2 * 2**30


class _Storage(NamedTuple):
    """Numbers that several tensors may share, by name."""

    key: str
    dtype: np.dtype[Any]
    size: int


def read(data: bytes, name: str) -> dict[str, Array]:
    """The arrays of a file, by name; those of a dictionary inside it by `outer.inner`.

    Args:
        name: of the file, for messages.

    Raises:
        ModelError: it is something else.
    """
    try:
        found = _read_zip(data) if data[:2] == b"PK" else _read_pickles(data)
        return dict(_flat(found, ""))
    except (
        ValueError, KeyError, AttributeError, IndexError, TypeError, EOFError, RecursionError,
        OverflowError, MemoryError, pickle.UnpicklingError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"{name} is no file of PyTorch weights: {reason}") from error


def _flat(value: Any, prefix: str) -> list[tuple[str, Array]]:
    if isinstance(value, np.ndarray):
        return [(prefix, value)]
    if isinstance(value, Mapping):
        parts = ((f"{prefix}.{key}".lstrip("."), part) for key, part in value.items())
        return [pair for path, part in parts for pair in _flat(part, path)]
    return []


def _read_zip(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(info.file_size for info in archive.infolist()) > _LIMIT:
            raise ValueError("it is too large")
        (pickled,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")

        def numbers(storage: _Storage) -> Array:
            raw = archive.read(f"{folder}data/{storage.key}")
            return np.frombuffer(raw, storage.dtype, storage.size)

        return _Weights(io.BytesIO(archive.read(pickled)), numbers).load()


def _read_pickles(data: bytes) -> Any:
    file = io.BytesIO(data)
    nothing: dict[str, Array] = {}
    for wanted in (_MAGIC, _PROTOCOL):
        if _Weights(file, nothing.__getitem__).load() != wanted:
            raise ValueError("it does not begin as one")
    _Weights(file, nothing.__getitem__).load()  # the writer's byte order and sizes
    # The numbers come after the pickle that names them: read it twice.
    begin = file.tell()
    storages: dict[str, _Storage] = {}

    def note(storage: _Storage) -> Array:
        storages[storage.key] = storage
        return np.zeros(storage.size, storage.dtype)

    _Weights(file, note).load()
    keys = _Weights(file, nothing.__getitem__).load()
    arrays: dict[str, Array] = {}
    for key in keys:
        storage = storages[key]
        (count,) = np.frombuffer(file.read(8), "<i8")
        if count != storage.size:
            raise ValueError(f"storage {key} has {count} numbers, not {storage.size}")
        raw = file.read(storage.size * storage.dtype.itemsize)
        arrays[key] = np.frombuffer(raw, storage.dtype, storage.size)
    file.seek(begin)
    return _Weights(file, lambda storage: arrays[storage.key]).load()


class _Weights(pickle.Unpickler):
    """Makes dictionaries of arrays; refuses every other class and function."""

    def __init__(self, file: io.BytesIO, numbers: Callable[[Any], Array]) -> None:
        super().__init__(file)
        self._numbers = numbers

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        allowed = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        try:
            return allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        """What the pickle names as being elsewhere: `("storage", type, key, place, count, ...)`."""
        kind, dtype, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(dtype, np.dtype) or not 0 <= count <= _LIMIT:
            raise pickle.UnpicklingError("it names something else than numbers")
        return _Storage(str(key), dtype, int(count))

    def _tensor(self, storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> Array:
        numbers = self._numbers(storage)
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if offset < 0 or min((*size, *stride), default=0) < 0 or last >= len(numbers) > 0:
            raise ValueError("a tensor reaches out of its numbers")
        strides = [s * numbers.itemsize for s in stride]
        return np.lib.stride_tricks.as_strided(numbers[offset:], size, strides).copy()
