"""The live engine, offline: arrays and files in, aligned stems out.

The stems have the length and the sample rate of the input, and sample `n` of a stem belongs to
sample `n` of the input: the separator's latency is taken out, its tail brought out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil, gcd
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from realtime_sep.dsp.meters import linear
from realtime_sep.dsp.resample import StreamResampler, native_rate
from realtime_sep.engine import MIX, Engine
from realtime_sep.errors import AudioFileError, UsageError, unknown
from realtime_sep.io.file import AudioReader, AudioWriter, Format, downmix
from realtime_sep.native import denormals_flushed
from realtime_sep.plugins import load_chain, load_separator
from realtime_sep.separators import Separator
from realtime_sep.types import Float32

VOCALS = "vocals"

#: More channels than any sound file has: an array that is `(channels, frames)` by mistake.
_MANY_CHANNELS = 64


class AudioSource(Protocol):
    """Where a stream comes from; `AudioReader` is one."""

    @property
    def samplerate(self) -> int: ...

    @property
    def channels(self) -> int: ...

    def blocks(self) -> Iterable[Float32]: ...


class Separation:
    """One separation under way: blocks of the mix in, blocks of aligned stems out.

    Constant memory.  A separator runs at 44.1 to 48 kHz; audio at any other rate is resampled on
    its way in, and the stems on their way out.

    Args:
        separator: a name for `load_separator`, or a fresh separator of the same channels.
        samplerate: of the audio, in Hz.
        channels: of the audio and of every stem.
        outputs: what comes out: stems, or "mix" (after faders and limiter); every stem if None.
        chains: text of chains of effects, by place: "mix" or a stem (see `effects.syntax`).
        limiter: hold -1 dBFS on the mix.
        options: for `load_separator`.

    Attributes:
        stems: names of what comes out, in the order of the stems axis.
        faders: of the mix; their `targets` may be written at any time.

    Raises:
        UsageError, ModelError: as `load_separator`.
    """

    def __init__(
        self,
        separator: str | Separator,
        samplerate: int,
        channels: int,
        *,
        outputs: Sequence[str] | None = None,
        chains: Mapping[str, str] | None = None,
        limiter: bool = True,
        **options: Any,
    ) -> None:
        made = {place: load_chain(text) for place, text in (chains or {}).items()}
        if samplerate < 1:
            raise UsageError(f"samplerate is in Hz and positive, not {samplerate}")
        self._own = isinstance(separator, str)
        if isinstance(separator, str):
            separator = load_separator(
                separator, samplerate=native_rate(samplerate), channels=channels, **options
            )
        elif options:
            raise UsageError(f"options belong to a name, not to a separator: {', '.join(options)}")
        info = separator.info
        if info.channels != channels:
            raise UsageError(f"{info.name!r} was made for {info.channels} channels, not {channels}")
        self.separator = separator
        self.stems = info.stems if outputs is None else tuple(outputs)
        self._channels = channels
        self._engine = Engine(
            separator, limiter=limiter and MIX in self.stems, outputs=self.stems, chains=made
        )
        self.faders = self._engine.faders
        self._into = self._back = None
        if info.samplerate != samplerate:
            self._into = StreamResampler(samplerate, info.samplerate, channels)
            self._back = StreamResampler(info.samplerate, samplerate, channels * len(self.stems))
        self._waiting: Float32 = np.empty((0, channels), np.float32)
        self._done: list[Float32] = []
        self._skip = self._engine.latency  # frames that belong to before the beginning
        self._taken = 0  # frames, at the audio's rate
        self._fed = 0  # frames, at the separator's rate
        self._given = 0  # likewise
        self._ended = False

    def lag(self, blocksize: int = 1) -> int:
        """Frames that may have been taken and not be finished, at most, at the audio's rate.

        Args:
            blocksize: what the length of every block is a multiple of.
        """
        hop = self._engine.hop
        if self._into is None:
            return self._engine.latency + hop - gcd(blocksize, hop)
        ratio = self._into.target / self._into.source
        filters = 2 * StreamResampler.AHEAD * max(1.0, 1 / ratio)
        return ceil(filters + (self._engine.latency + hop) / ratio)

    @property
    def notice(self) -> str | None:
        """What the separator wants the user to know, if anything; or what became of an effect."""
        for place, chain in self._engine.chains.items():
            if chain.news:
                slot = chain.news[-1]
                return f"{slot.name} ({place}) was taken out: it {slot.failed}"
        return getattr(self.separator, "notice", None)

    def set_levels(self, levels: Mapping[str, float]) -> None:
        """Be at these levels in dB at once; stems that are not named at 0.

        Raises:
            UsageError: there is no such stem.
        """
        stems = self.separator.info.stems
        for name in levels:
            if name not in stems:
                raise unknown("stem", name, stems)
        self.faders.targets[: len(stems)] = [linear(levels.get(name, 0.0)) for name in stems]
        self.faders.settle()

    def process(self, block: Float32) -> Float32:
        """Take `(n, channels)`; return `(stems, m, channels)`, what is finished: `m` may be 0."""
        self.push(block)
        self._run()
        return self.pull()

    def flush(self) -> Float32:
        """The rest, `(stems, m, channels)`: now as much has come out as went in.  Ends it."""
        self.end()
        self._run()
        return self.pull()

    # `process` and `flush` in their parts, for hosts that run many of them by turns.

    def push(self, block: Float32) -> None:
        """Take `(n, channels)`; nothing is separated yet."""
        self._taken += len(block)
        if self._into is not None:
            block = self._into.process(block)
        self._fed += len(block)
        self._waiting = np.concatenate([self._waiting, block])

    def end(self) -> None:
        """Take what brings the tail out."""
        rest = self._into.flush() if self._into is not None else self._waiting[:0]
        self._fed += len(rest)
        silence = np.zeros((self._engine.latency + self._engine.hop, self._channels), np.float32)
        self._waiting = np.concatenate([self._waiting, rest, silence])
        self._ended = True

    @property
    def ready(self) -> Float32 | None:
        """The next hop `(hop, channels)`, or None where more has to be pushed."""
        hop = self._engine.hop
        return self._waiting[:hop] if len(self._waiting) >= hop else None

    def step(self) -> None:
        """Separate the hop that is ready."""
        hop = self._engine.hop
        out: Float32 = np.empty((hop, self._engine.out_channels), np.float32)
        self._engine.process(self._waiting[:hop], out)
        self._waiting = self._waiting[hop:]
        self._done.append(out)

    def pull(self) -> Float32:
        """What is finished, `(stems, m, channels)`."""
        none = np.empty((0, self._engine.out_channels), np.float32)
        done = self._done[0] if len(self._done) == 1 else np.concatenate([none, *self._done])
        self._done = []
        skip = min(self._skip, len(done))
        self._skip -= skip
        done = done[skip:][: self._fed - self._given]  # nothing of the silence at the end
        self._given += len(done)
        if self._back is not None:
            done = self._back.process(done)
            if self._ended and self.ready is None:
                done = np.concatenate([done, self._back.flush(self._taken)])
        return done.reshape(len(done), len(self.stems), self._channels).transpose(1, 0, 2)

    def close(self) -> None:
        """Let go of the separator, if it was made here and holds on to anything."""
        for chain in self._engine.chains.values():
            chain.close()
        close = getattr(self.separator, "close", None)
        if self._own and close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        """Separate all whole hops that wait."""
        hop = self._engine.hop
        whole = len(self._waiting) // hop * hop
        out: Float32 = np.empty((whole, self._engine.out_channels), np.float32)
        with denormals_flushed():  # as in the live worker
            for start in range(0, whole, hop):
                self._engine.process(self._waiting[start : start + hop], out[start : start + hop])
        self._waiting = self._waiting[whole:].copy()
        if whole:
            self._done.append(out)


def separate_stream(
    source: AudioSource, separator: str | Separator = "center", **options: Any
) -> Iterator[dict[str, Float32]]:
    """Stems of a source of any length, block by block, in constant memory.

    Yields:
        By name, `(frames, channels)` of every stem: the same stretch of time in all of them, and
        together exactly as long as the source.

    Raises:
        UsageError, ModelError: as `load_separator`.
        AudioFileError: as `AudioReader.blocks`.
    """
    with Separation(separator, source.samplerate, source.channels, **options) as separation:
        for stems in _stem_blocks(source, separation):
            yield dict(zip(separation.stems, stems, strict=True))


def _stem_blocks(source: AudioSource, separation: Separation) -> Iterator[Float32]:
    for block in source.blocks():
        stems = separation.process(block)
        if stems.shape[1]:
            yield stems
    yield separation.flush()


def separate(
    audio: npt.ArrayLike,
    samplerate: int,
    separator: str | Separator = "center",
    **options: Any,
) -> dict[str, Float32]:
    """Separate a recording that is in memory.

    Args:
        audio: `(frames,)` or `(frames, channels)`; floats with full scale at ±1, or 8-, 16- or
            32-bit integers.  More than two channels are mixed down to stereo (see
            `realtime_sep.io.file.downmix`).
        samplerate: of the audio, in Hz.
        separator: a name for `load_separator`, or a fresh separator.
        options: for `load_separator`.

    Returns:
        Every stem by name: float32, as long and of the same shape as the audio (stereo where it had
        more channels).  Sample `n` belongs to sample `n` of the audio, and the stems add up to it
        (where it had to be resampled: up to 90 % of its Nyquist frequency).

    Raises:
        UsageError: audio that is none, or an unknown separator or option.
        ModelError: as `load_separator`.
    """
    samples = _as_float(np.asarray(audio))
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] < 1):
        raise UsageError(f"audio is (frames,) or (frames, channels), not of shape {samples.shape}")
    frames = samples if samples.ndim == 2 else samples[:, np.newaxis]
    if frames.shape[1] > _MANY_CHANNELS:
        raise UsageError(
            f"audio is (frames, channels); {samples.shape} would be {frames.shape[1]} channels: "
            "transpose it"
        )
    if frames.shape[1] > 2:
        frames = frames @ downmix(("NONE",) * frames.shape[1], 2)
    with Separation(separator, samplerate, frames.shape[1], **options) as separation:
        parts = [separation.process(frames), separation.flush()]
    stems = np.concatenate(parts, axis=1)
    if samples.ndim == 1:
        stems = stems[:, :, 0]
    return {
        name: np.ascontiguousarray(stem) for name, stem in zip(separation.stems, stems, strict=True)
    }


def _as_float(audio: npt.NDArray[Any]) -> Float32:
    """Samples of any usual type as float32 with full scale at ±1."""
    if audio.dtype.kind == "f":
        return audio.astype(np.float32, copy=False)
    if audio.dtype.kind == "i":
        scale = 2.0 ** (1 - 8 * audio.dtype.itemsize)
        return (audio * scale).astype(np.float32)
    if audio.dtype == np.uint8:
        return (audio.astype(np.float32) - np.float32(128)) / np.float32(128)
    raise UsageError(f"audio is of floats or integers, not {audio.dtype}")


# --- files ---------------------------------------------------------------------------------------

#: Called with the frames done and the frames expected (None if the file does not say).
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class SeparatedFile:
    """What `separate_file` did.

    Attributes:
        paths: by what they hold: "karaoke", "mix", or the names of the stems.
        clipped: samples beyond full scale that the format cut off.
        damaged: packets of the source that could not be decoded and were left out.
        notice: what the separator wants the user to know.
    """

    source: Path
    paths: dict[str, Path] = field(default_factory=dict)
    samplerate: int = 0
    channels: int = 0
    frames: int = 0
    clipped: int = 0
    damaged: int = 0
    notice: str | None = None


def output_paths(
    source: Path, names: Iterable[str], directory: Path | None = None, format: Format = "wav"
) -> dict[str, Path]:
    """Where `separate_file` writes: `NAME.<what>.<format>`, beside the source by default."""
    directory = source.parent if directory is None else directory
    return {name: directory / f"{source.stem}.{name}.{format}" for name in names}


def separate_file(
    path: str | Path,
    directory: str | Path | None = None,
    separator: str = "center",
    *,
    stems: bool = False,
    levels: Mapping[str, float] | None = None,
    chains: Mapping[str, str] | None = None,
    format: Format = "wav",
    progress: Progress | None = None,
    **options: Any,
) -> SeparatedFile:
    """Separate a file of any length in constant memory.

    Writes the karaoke version (everything but the stem "vocals"), or with `stems` every stem, or
    with `levels` the mix of all stems at levels in dB by stem (0 for those not named), at the
    sample rate of the source, in mono or stereo as it is (stereo where it has more channels).
    With `chains` of effects (see `effects.syntax`) a mix passes the limiter, as it does live.
    All files appear complete or not at all; older ones of the same name are replaced, never the
    source.

    Args:
        directory: where to write; made if missing; beside the source by default.

    Raises:
        AudioFileError: the source cannot be read, or a target not be written.
        UsageError, ModelError: as `load_separator`.
    """
    source = Path(path)
    with AudioReader(source) as reader, ExitStack() as files:
        reader.channels = min(reader.channels, 2)
        mixed = chains is not None and not stems
        if stems and MIX in (chains or ()):
            raise UsageError("stems are not mixed: give each a chain of its own")
        separation = files.enter_context(
            Separation(
                separator,
                reader.samplerate,
                reader.channels,
                outputs=(MIX,) if mixed else None,
                chains=chains,
                **options,
            )
        )
        known = separation.separator.info.stems
        for name in levels or ():
            if name not in known:
                raise unknown("stem", name, known)
        if not stems and levels is None and VOCALS not in known:
            raise UsageError(
                f"{separator!r} has no stem 'vocals' to leave out (it has "
                f"{', '.join(known)}); ask for its stems instead"
            )
        db = {VOCALS: -math.inf} if levels is None else levels
        gains = np.array([linear(db.get(name, 0.0)) for name in known], np.float32)
        if mixed:
            separation.set_levels(db)
            gains = np.ones(1, np.float32)
        targets = output_paths(
            source,
            separation.stems if stems else ["karaoke" if levels is None else "mix"],
            None if directory is None else _made(Path(directory)),
            format,
        )
        for target in targets.values():
            if target.exists() and target.samefile(source):
                raise UsageError(f"{target}: would overwrite the source; choose another directory")
        writers = [
            files.enter_context(AudioWriter(target, reader.samplerate, reader.channels, format))
            for target in targets.values()
        ]
        done = 0
        for block in _stem_blocks(reader, separation):
            outputs = list(block) if stems else [np.tensordot(gains, block, axes=1)]
            for writer, output in zip(writers, outputs, strict=True):
                writer.write(output)
            done += block.shape[1]
            if progress is not None:
                progress(done, reader.frames)
        # Every file is complete on disk before the first takes its name.
        for writer in writers:
            writer.complete()
        return SeparatedFile(
            source=source,
            paths=targets,
            samplerate=reader.samplerate,
            channels=reader.channels,
            frames=done,
            clipped=sum(writer.clipped for writer in writers),
            damaged=reader.damaged,
            notice=separation.notice,
        )


def _made(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise AudioFileError(f"{directory}: is a file, not a directory") from None
    except OSError as error:
        raise AudioFileError(f"{directory}: cannot be made: {error.strerror or error}") from error
    return directory
