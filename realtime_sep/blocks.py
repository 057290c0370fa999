"""Separation by push and pull, for programs that have their audio already: no device, no thread.

    with BlockSeparator("center", samplerate=48000) as separator:
        for block in source:                    # (frames, 2) float32, of any length
            stems = separator.process(block)    # {"vocals": ..., "accompaniment": ...}

As many frames come out of every call as went in, `latency` frames late: as from a device, but as
fast as the caller likes.  For a whole recording, see `realtime_sep.separate`; there the latency is
taken out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from realtime_sep.engine import MIX
from realtime_sep.errors import UsageError
from realtime_sep.offline import Separation
from realtime_sep.separators import Separator
from realtime_sep.types import Float32, SeparatorInfo

#: Sample rates that make sense, in Hz; the resampler would go from 188 Hz to 11 MHz.
LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000


class BlockSeparator:
    """Takes blocks of the mix and gives equally long blocks of every stem.

    The samples do not depend on how the audio is cut into blocks.  Constant memory.

    Args:
        separator: a name for `load_separator`, or a fresh separator of the same channels.
        samplerate: of the audio, in Hz; outside 44.1 to 48 kHz it is resampled on its way in and
            back on its way out.
        channels: of the audio and of every stem.
        blocksize: what the length of every block is a multiple of.  The more it has in common with
            the separator's hop H, the less there is to gather: H − gcd(blocksize, H) frames.
        levels: in dB, by stem: then "mix" comes out instead of the stems.
        chains: text of chains of effects, by place: "mix" or a stem (see `effects.syntax`); a mix
            with effects is held at -1 dBFS by the limiter.
        options: for `load_separator`.

    Attributes:
        stems: names, in the separator's order.
        latency: frames by which the stems lag the mix, exactly.

    Raises:
        UsageError, ModelError: as `load_separator`.
    """

    def __init__(
        self,
        separator: str | Separator = "center",
        samplerate: int = 44100,
        channels: int = 2,
        *,
        blocksize: int = 1,
        levels: Mapping[str, float] | None = None,
        chains: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        if blocksize < 1:
            raise UsageError(f"blocksize is in frames and positive, not {blocksize}")
        check_rate(samplerate)
        self._levels, self._chains = levels, chains
        self._owner = self._separate(separator, samplerate, channels, **options)
        info = self._owner.separator.info
        self.samplerate = samplerate
        self.channels = channels
        self.blocksize = blocksize
        self.stems = self._owner.stems
        self.latency = self._owner.lag(blocksize)
        self._begin()
        # Kernels are compiled and models primed now, so that the first block is no slower.
        self._separation.process(np.zeros((self.latency + 2 * info.hop, channels), np.float32))
        self.reset()

    def _separate(self, *what: Any, **options: Any) -> Separation:
        outputs = None if self._levels is None else (MIX,)
        separation = Separation(
            *what, outputs=outputs, chains=self._chains, limiter=bool(self._chains), **options
        )
        if self._levels is not None:
            separation.set_levels(self._levels)
        return separation

    def _begin(self) -> None:
        self._separation = self._separate(self._owner.separator, self.samplerate, self.channels)
        # Aligned stems leave `Separation` as soon as they can, by then at most `latency` frames
        # late; silence of that length, sent ahead, makes it exactly as many at any time.
        self._ready: Float32 = np.zeros((len(self.stems), self.latency, self.channels), np.float32)

    @property
    def info(self) -> SeparatorInfo:
        """The separator, as it is; its rate may be another than that of the audio."""
        return self._owner.separator.info

    @property
    def notice(self) -> str | None:
        """What the user is to know of the separator or an effect, if anything."""
        return self._separation.notice

    def process(self, block: npt.ArrayLike) -> dict[str, Float32]:
        """Take `(n, channels)` of floats with full scale at ±1; return as much of every stem.

        Raises:
            UsageError: a block of another shape or type, or no multiple of `blocksize`.
        """
        mix = np.asarray(block)
        if mix.ndim != 2 or mix.shape[1] != self.channels:
            raise UsageError(f"a block is (frames, {self.channels}), not of shape {mix.shape}")
        if mix.dtype.kind != "f":
            raise UsageError(f"a block is of floats with full scale at ±1, not of {mix.dtype}")
        if len(mix) % self.blocksize:
            raise UsageError(f"{len(mix)} frames are no multiple of blocksize={self.blocksize}")
        done = self._separation.process(mix.astype(np.float32, copy=False))
        return self._pull(done, len(mix))

    def flush(self) -> dict[str, Float32]:
        """The last `latency` frames of every stem.  Then it is as new, for the next stream."""
        rest = self._pull(self._separation.flush(), self.latency)
        self.reset()
        return rest

    def reset(self) -> None:
        """Forget the past."""
        self._owner.separator.reset()
        self._begin()

    def _pull(self, done: Float32, frames: int) -> dict[str, Float32]:
        ready = np.concatenate([self._ready, done], axis=1)
        self._ready = ready[:, frames:]
        return dict(zip(self.stems, ready[:, :frames], strict=True))

    def close(self) -> None:
        """Let go of the separator, if it was made here and holds on to anything."""
        self._owner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_rate(samplerate: int) -> None:
    """Raise `UsageError` for a sample rate that audio does not have."""
    if not LOWEST_RATE <= samplerate <= HIGHEST_RATE:
        raise UsageError(
            f"a sample rate is {LOWEST_RATE} to {HIGHEST_RATE} Hz, not {samplerate}: is it right?"
        )
