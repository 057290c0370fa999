"""Spectrograms as small PNG images, without an imaging library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from realtime_sep.dsp.windows import hann
from realtime_sep.evaluate.metrics import Audio

Image = npt.NDArray[np.uint8]
Magnitudes = npt.NDArray[np.float64]

WIDTH, HEIGHT = 600, 112

#: Frequency range of a picture in Hz; rows are spaced as in music.
_LOW, _HIGH = 60.0, 16000.0
#: Level of the darkest colour below the brightest, in dB.
_RANGE = 72.0
_COLOURS = 48

#: From silence to loud: night, violet, rose, amber, paper.
_HEAT = ("#0b0d17", "#2a1e52", "#6d2a78", "#b93f6d", "#ee7a4d", "#fcc56a", "#fffbe0")
#: From no voice to all voice.
_SHARE = ("#0b0d17", "#123a4a", "#177e83", "#4fc9b0", "#d9ffe6")


def magnitudes(audio: Audio, samplerate: int) -> Magnitudes:
    """Of the mean of the channels, `(HEIGHT, WIDTH)`: lowest frequency first."""
    mono: Magnitudes = np.asarray(audio, np.float64).mean(axis=1)
    size = 2 * round(0.0464 * samplerate)  # 93 ms
    padded = np.pad(mono, (size // 2, size))
    starts = np.linspace(0, max(0, len(mono) - 1), WIDTH).astype(np.intp)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[starts]
    spectra: Magnitudes = np.abs(np.fft.rfft(frames * hann(size), 2 * size)).T
    # Each row takes the loudest bin that falls into it; transforms twice as long as the frames
    # give the lowest rows bins of their own.
    edges = np.geomspace(_LOW, min(_HIGH, samplerate / 2), HEIGHT + 1) * (2 * size / samplerate)
    first = np.minimum(edges[:-1].astype(np.intp), len(spectra) - 1)
    last = np.minimum(np.maximum(edges[1:].astype(np.intp), first + 1), len(spectra))
    return np.array([spectra[a:b].max(axis=0) for a, b in zip(first, last, strict=True)])


def heat(spectrum: Magnitudes, loudest: float) -> bytes:
    """A spectrogram as PNG; `loudest` is the magnitude of the brightest colour."""
    with np.errstate(divide="ignore"):
        level = 1 + 20 * np.log10(spectrum / max(loudest, 1e-9)) / _RANGE
    return _picture(level, _HEAT)


def share(voice: Magnitudes, music: Magnitudes, loudest: float) -> bytes:
    """The mask as PNG: which part of each point is voice; dark where nothing sounds."""
    both = voice + music
    with np.errstate(divide="ignore"):
        level = 1 + 20 * np.log10(both / max(2 * loudest, 1e-9)) / _RANGE
    part = voice / np.maximum(both, 1e-30)
    return _picture(part * np.clip(2 * level, 0, 1), _SHARE)


def _picture(values: Magnitudes, colours: Sequence[str]) -> bytes:
    """Values 0..1, lowest row first, in a scale of colours."""
    scaled = np.clip(np.nan_to_num(values, neginf=0.0), 0, 1) * (_COLOURS - 1)
    return png(scaled.round().astype(np.uint8)[::-1], _palette(colours))


def _palette(colours: Sequence[str]) -> Image:
    """`(_COLOURS, 3)`: equal steps between the given colours."""
    stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours])
    at = np.linspace(0, len(stops) - 1, _COLOURS)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, c]) for c in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def png(pixels: Image, palette: Image) -> bytes:
    """An indexed PNG: pixels `(rows, columns)`, palette `(colours, 3)`.  ISO/IEC 15948."""
    rows, columns = pixels.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    # Filter 1 (difference to the left) on every row: half the size of none for spectrograms.
    differences = np.diff(pixels, axis=1, prepend=np.uint8(0)).astype(np.uint8)
    lines = np.concatenate([np.ones((rows, 1), np.uint8), differences], axis=1)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
