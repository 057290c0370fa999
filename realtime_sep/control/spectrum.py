"""The picture of the mask: how loud each band is, and how much of it is voice."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from realtime_sep.parameters import VOCALS
from realtime_sep.stream import Block
from realtime_sep.types import Float32

BANDS = 96
#: Columns per second.
RATE = 30
_N_FFT = 2048
_LOWEST_HZ, _HIGHEST_HZ = 50.0, 16000.0
#: Levels between these (dBFS of a sine) fill the range of a byte.
_FLOOR_DB, _TOP_DB = -90.0, -10.0


class Spectrum:
    """Makes columns of `2 * BANDS` bytes from blocks: levels from low to high, then voice shares.

    Attributes:
        columns: the newest, each with its number.
    """

    def __init__(self, samplerate: int) -> None:
        self._samplerate = samplerate
        self._window = np.hanning(_N_FFT + 1)[:-1].astype(np.float32)
        self._scale = float(2 / self._window.sum()) ** 2
        self._bands = _bands(samplerate)
        self._past: Float32 = np.zeros((2, _N_FFT, 2), np.float32)
        self._waiting: list[tuple[Float32, Float32]] = []
        self._frames = 0
        self._due = samplerate // RATE
        self._count = 0
        self.columns: deque[tuple[int, bytes]] = deque(maxlen=2 * RATE)

    def push(self, block: Block) -> None:
        """Take the next block, a column from time to time."""
        mix = block.mix
        vocals = block.stems.get(VOCALS)
        self._waiting.append((mix, np.zeros_like(mix) if vocals is None else vocals))
        self._frames += len(mix)
        if self._frames >= self._due:
            self._column()

    def _column(self) -> None:
        new = np.stack([np.concatenate(parts) for parts in zip(*self._waiting, strict=True)])
        self._waiting.clear()
        self._frames -= self._due
        new = new[:, -_N_FFT:]
        self._past = np.concatenate([self._past[:, new.shape[1] :, : new.shape[2]], new], axis=1)
        spectra = np.fft.rfft(self._past * self._window[:, np.newaxis], axis=1)
        mix, vocals = spectra
        power = [
            (np.abs(part) ** 2).sum(axis=1) @ self._bands for part in (mix, vocals, mix - vocals)
        ]
        level = 10 * np.log10(power[0] * self._scale + 1e-12)
        share = power[1] / (power[1] + power[2] + 1e-20)
        height = (level - _FLOOR_DB) / (_TOP_DB - _FLOOR_DB)
        column = np.concatenate([height, share])
        self._count += 1
        data = np.clip(255 * column, 0, 255).astype(np.uint8).tobytes()
        self.columns.append((self._count, data))


def _bands(samplerate: int) -> npt.NDArray[np.float64]:
    """`(bins, BANDS)`: triangles on a logarithmic axis, each as wide as a bin at least."""
    bins = np.arange(_N_FFT // 2 + 1) * (samplerate / _N_FFT)
    highest = min(_HIGHEST_HZ, 0.45 * samplerate)
    centres = np.geomspace(_LOWEST_HZ, highest, BANDS)
    width = np.maximum(np.gradient(centres), samplerate / _N_FFT)
    weights = np.clip(1 - np.abs(bins[:, np.newaxis] - centres) / width, 0, None)
    result: npt.NDArray[np.float64] = weights
    return result
