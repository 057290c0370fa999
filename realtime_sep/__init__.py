"""Live separation of voice and music: audio in, stems out, within milliseconds.

    from realtime_sep import open_stream

    with open_stream("center", vocals=float("-inf")) as stream:   # karaoke, default devices
        stream.wait()

Names are imported when they are first used: `import realtime_sep` costs nothing and opens nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realtime_sep.blocks import BlockSeparator
    from realtime_sep.companion import Beside
    from realtime_sep.engine import Engine
    from realtime_sep.errors import (
        AudioFileError,
        DeviceError,
        EngineError,
        ModelError,
        RealtimeSepError,
        UsageError,
    )
    from realtime_sep.io.jack import JackSpec
    from realtime_sep.io.null import NullSpec
    from realtime_sep.io.portaudio import PortAudioSpec
    from realtime_sep.io.pyaudio import PyAudioSpec
    from realtime_sep.offline import separate
    from realtime_sep.plugins import (
        available_effects,
        available_separators,
        load_effect,
        load_separator,
    )
    from realtime_sep.stream import Block, Stream, open_stream
    from realtime_sep.types import (
        PROFILES,
        BesideStats,
        Geometry,
        Latency,
        SeparatorInfo,
        StreamConfig,
        StreamStats,
    )

_HOMES = {
    "blocks": ("BlockSeparator",),
    "companion": ("Beside",),
    "engine": ("Engine",),
    "errors": (
        "AudioFileError",
        "DeviceError",
        "EngineError",
        "ModelError",
        "RealtimeSepError",
        "UsageError",
    ),
    "io.jack": ("JackSpec",),
    "io.null": ("NullSpec",),
    "io.portaudio": ("PortAudioSpec",),
    "io.pyaudio": ("PyAudioSpec",),
    "offline": ("separate",),
    "plugins": ("available_effects", "available_separators", "load_effect", "load_separator"),
    "stream": ("Block", "Stream", "open_stream"),
    "types": (
        "PROFILES",
        "BesideStats",
        "Geometry",
        "Latency",
        "SeparatorInfo",
        "StreamConfig",
        "StreamStats",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "PROFILES",
    "AudioFileError",
    "Beside",
    "BesideStats",
    "Block",
    "BlockSeparator",
    "DeviceError",
    "Engine",
    "EngineError",
    "Geometry",
    "JackSpec",
    "Latency",
    "ModelError",
    "NullSpec",
    "PortAudioSpec",
    "PyAudioSpec",
    "RealtimeSepError",
    "SeparatorInfo",
    "Stream",
    "StreamConfig",
    "StreamStats",
    "UsageError",
    "available_effects",
    "available_separators",
    "load_effect",
    "load_separator",
    "open_stream",
    "separate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'realtime_sep' has no attribute {name!r}")
    return getattr(import_module(f"realtime_sep.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
