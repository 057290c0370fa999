"""The smallest LADSPA host: one stereo plugin, by ctypes, in this process."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int, c_ulong, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class _Hint(ctypes.Structure):
    _fields_ = (("hints", c_int), ("lower", c_float), ("upper", c_float))


class _Descriptor(ctypes.Structure):
    _fields_ = (
        ("id", c_ulong),
        ("label", c_char_p),
        ("properties", c_int),
        ("name", c_char_p),
        ("maker", c_char_p),
        ("copyright", c_char_p),
        ("count", c_ulong),
        ("ports", POINTER(c_int)),
        ("names", POINTER(c_char_p)),
        ("ranges", POINTER(_Hint)),
        ("data", c_void_p),
        ("instantiate", ctypes.CFUNCTYPE(c_void_p, c_void_p, c_ulong)),
        ("connect_port", ctypes.CFUNCTYPE(None, c_void_p, c_ulong, c_void_p)),
        ("activate", ctypes.CFUNCTYPE(None, c_void_p)),
        ("run", ctypes.CFUNCTYPE(None, c_void_p, c_ulong)),
        ("run_adding", c_void_p),
        ("set_gain", c_void_p),
        ("deactivate", c_void_p),
        ("cleanup", ctypes.CFUNCTYPE(None, c_void_p)),
    )


class Plugin:
    """An instance; `controls` are set by name, the audio goes through `run`."""

    def __init__(self, path: Path, samplerate: int) -> None:
        library = ctypes.CDLL(str(path))
        library.ladspa_descriptor.restype = POINTER(_Descriptor)
        self._descriptor = library.ladspa_descriptor(c_ulong(0))
        facts = self._descriptor.contents
        self.label = facts.label.decode()
        names = [facts.names[i].decode() for i in range(facts.count)]
        self._handle: Any = facts.instantiate(self._descriptor, samplerate)
        assert self._handle
        self.controls: dict[str, npt.NDArray[np.float32]] = {}
        self._audio: list[int] = []
        for i, name in enumerate(names):
            if facts.ports[i] & 8:
                self._audio.append(i)
            else:
                self.controls[name] = np.zeros(1, np.float32)
                facts.connect_port(self._handle, i, self.controls[name].ctypes.data)
        facts.activate(self._handle)

    @property
    def latency(self) -> int:
        return int(self.controls["latency"][0])

    def run(self, block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`(frames, 2)` through the plugin."""
        buffers = np.zeros((4, len(block)), np.float32)
        buffers[:2] = block.T
        for port, buffer in zip(self._audio, buffers, strict=True):
            self._descriptor.contents.connect_port(self._handle, port, buffer.ctypes.data)
        self._descriptor.contents.run(self._handle, len(block))
        return buffers[2:].T.copy()

    def close(self) -> None:
        self._descriptor.contents.cleanup(self._handle)
