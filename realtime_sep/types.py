"""The plain data that travels between the layers.

Audio is float32 of shape `(frames, channels)`, as in sounddevice; stems are
`(stems, frames, channels)`.  Lengths and delays are in frames unless a name says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Complex64 = npt.NDArray[np.complex64]


@dataclass(frozen=True)
class Geometry:
    """How the signal is cut into frames of a short-time Fourier transform.

    Attributes:
        n_fft: analysis length N in samples.
        synthesis: synthesis length S, the last samples of the frame; S <= N.
        hop: H, samples between frames.
    """

    n_fft: int
    synthesis: int
    hop: int

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1


#: Named trade-offs of delay against quality.
PROFILES: dict[str, Geometry] = {
    "studio": Geometry(2048, 1024, 512),
    "live": Geometry(2048, 512, 256),
    "stage": Geometry(2048, 256, 128),
}


@dataclass(frozen=True)
class SeparatorInfo:
    """What a separator says of itself once it is made.

    Attributes:
        name: as in `load_separator(name)`.
        stems: names in the order of the stems axis; they add up to the mix delayed by `latency`.
        samplerate: rate that this instance runs at, in Hz.
        channels: channels of input and of every stem.
        hop: frames per call of `process`.
        latency: frames by which the stems lag the input.
        family: kind of method, for people ("dsp", "unet", ...).
        provider: who computes ("numba", "CPUExecutionProvider", ...): the active one.
        rtf: seconds that a network took per second of audio when it was loaded; 0: not measured.
    """

    name: str
    stems: tuple[str, ...]
    samplerate: int
    channels: int
    hop: int
    latency: int
    family: str = "dsp"
    provider: str = "numba"
    rtf: float = 0.0


@dataclass(frozen=True)
class Latency:
    """The delay from device input to device output, in frames, part by part.

    Attributes:
        separator: the separator's own lag, `S - H + lookahead * H`.
        effects: of all effects in the chain.
        limiter: its look-ahead.
        gathering: until a hop is full, `H - gcd(B, H)`.
        deadline: the worker's time to compute, one block.
        guard: finished frames held back for fading.
        device: what the host reports for its own buffers (not ours to measure); 0 if unknown.
        clock: from a second device's clock to the stream's, or from it: its blocks, what may be
            late, and the resampler; 0: there is one clock.
    """

    samplerate: int
    separator: int
    effects: int
    limiter: int
    gathering: int
    deadline: int
    guard: int
    device: int = 0
    clock: int = 0

    @property
    def engine(self) -> int:
        """Lag of the engine's output stream behind its input stream."""
        return self.separator + self.effects + self.limiter

    @property
    def bridge(self) -> int:
        """Lag that moving blocks through the rings adds; the output ring is prefilled with it."""
        return self.gathering + self.deadline + self.guard

    @property
    def frames(self) -> int:
        """From the input of the callback to its output: what the tests measure to the sample."""
        return self.engine + self.bridge + self.clock

    @property
    def total(self) -> int:
        """`frames` and the device's own buffers."""
        return self.frames + self.device

    def ms(self, frames: int | None = None) -> float:
        """Milliseconds of `frames` (default: `total`)."""
        return 1e3 * (self.total if frames is None else frames) / self.samplerate


#: Among `StreamConfig.outputs`: every stem of the separator, whichever it has.
EVERY_STEM = "*"


@dataclass(frozen=True)
class StreamConfig:
    """What a live stream should be.  `None` means: what the device prefers.

    Attributes:
        samplerate: Hz.
        blocksize: frames per callback, B.
        channels: channels of the engine and of every bus (1 or 2).
        guard: frames held back for fading, at least 64.
        outputs: what the device plays, a bus of `channels` each: "mix" (after faders, effects and
            limiter), the name of a stem, or "*" for every stem.
        fallback: what late blocks fade to: the dry signal, silence, or by the vocals fader
            ("auto": silence where dry would leak a voice that is turned down).
        limiter: hold -1 dBFS on the mix bus.
        realtime: ask for real-time priority and locked memory.
        reconnect: seconds to wait for a device that has gone; 0: its going ends the stream.
        microphone: channels of the device, counted from 1, that carry a microphone: beyond those
            of the music.
    """

    samplerate: int | None = None
    blocksize: int = 256
    channels: int = 2
    guard: int = 64
    outputs: tuple[str, ...] = ("mix",)
    fallback: Literal["auto", "dry", "silence"] = "auto"
    limiter: bool = True
    realtime: bool = True
    reconnect: float = math.inf
    microphone: tuple[int, ...] = ()

    @property
    def in_channels(self) -> int:
        """Of the device: music, and what may be behind it."""
        return max((self.channels, *self.microphone))


@dataclass(frozen=True)
class BesideStats:
    """How a microphone or a monitor does.

    Attributes:
        peak: dBFS; of a microphone before its fader, of a monitor as it leaves.
        gaps: times that its sound was interrupted.
        ppm: by how much its device's clock is fast, in millionths.
        reopens: how often its device has come back.
        there: whether its device plays.
    """

    peak: float = -np.inf
    gaps: int = 0
    ppm: float = 0.0
    reopens: int = 0
    there: bool = True


@dataclass(frozen=True)
class StreamStats:
    """Counters of a running stream, read at one moment.

    Durations are in seconds, levels in dBFS, `last_late` is the moment of the last late block in
    seconds of the monotonic clock (0: none), `reopens` how often a device that was gone has come
    back; everything else counts since the start.
    """

    samplerate: int
    hop: int
    hops: int = 0
    frames: int = 0
    callbacks: int = 0
    late_blocks: int = 0
    fades: int = 0
    xruns: int = 0
    dry_frames: int = 0
    dropped_frames: int = 0
    overflow_frames: int = 0
    reopens: int = 0
    skipped_hops: int = 0
    epoch: int = 0
    bad_hops: int = 0
    bad_input: int = 0
    limited_hops: int = 0
    failed_effects: int = 0
    tap_overflow: int = 0
    worker_p50: float = 0.0
    worker_p99: float = 0.0
    worker_p999: float = 0.0
    worker_max: float = 0.0
    worker_cpu: float = 0.0
    elapsed: float = 0.0
    callback_age: float = 0.0
    callback_max: float = 0.0
    last_late: float = 0.0
    realtime: bool = False
    input_peak: float = -np.inf
    output_peak: float = -np.inf
    loudness: float = -np.inf
    stem_peaks: dict[str, float] = field(default_factory=dict)
    microphone: BesideStats | None = None
    monitor: BesideStats | None = None

    @property
    def load(self) -> float:
        """Part of one core that the worker used, 0..1, in CPU time."""
        return self.worker_cpu / self.elapsed if self.elapsed > 0 else 0.0
