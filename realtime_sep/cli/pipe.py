"""`realtime-sep pipe`: audio on stdin, separated audio on stdout."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum
from io import FileIO
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from realtime_sep.cli.options import Chains, Model, Music, Profile, Provider, StemLevels, Vocals
from realtime_sep.errors import UsageError, unknown

if TYPE_CHECKING:
    from realtime_sep.io.pipe import PcmReader, PcmWriter
    from realtime_sep.separators import Separator
    from realtime_sep.types import Float32

#: What a shell shows of a program that went away with its reader: 128 + SIGPIPE.
_BROKEN_PIPE = 141

_EXAMPLE = (
    "ffmpeg -i song.mp3 -f wav - | realtime-sep pipe --format wav | ffmpeg -f wav -i - karaoke.mp3"
)


class Format(StrEnum):
    f32le = "f32le"
    s16le = "s16le"
    wav = "wav"


def pipe(
    format: Annotated[
        Format,
        typer.Option("--format", "-f", help="Of input and output; WAV comes out as 32-bit float."),
    ],
    rate: Annotated[
        int | None,
        typer.Option("--rate", metavar="HZ", help="Sample rate.", show_default="what the WAV says"),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(
            "--channels", metavar="N", min=1, help="1 or 2.", show_default="2, or what the WAV says"
        ),
    ] = None,
    model: Model = None,
    profile: Profile = None,
    provider: Provider = None,
    vocals: Vocals = None,
    music: Music = None,
    levels: StemLevels = None,
    chain: Chains = None,
    stems: Annotated[
        bool,
        typer.Option("--stems", help="Every stem instead of the mix, side by side as channels."),
    ] = False,
    live: Annotated[
        bool,
        typer.Option("--live", help="Write every hop at once, and let the output lag the input."),
    ] = False,
) -> None:
    """Separate a stream of audio between two other programs.

    Exactly as many samples come out as went in.  Sample by sample they belong together, unless
    `--live` is given: then the output lags by the separator's delay, and its tail is left out.

        ffmpeg -i song.mp3 -f wav - | realtime-sep pipe --format wav | ffplay -
    """
    from realtime_sep.cli import common
    from realtime_sep.dsp.resample import native_rate
    from realtime_sep.plugins import load_separator

    by_stem = common.stem_levels(levels)
    if stems and not (vocals is None and music is None and not by_stem):
        raise UsageError(
            "--stems gives every stem as it is: leave out --vocals, --music and --stem"
        )
    chains = common.chains(chain)
    if stems and "mix" in chains:
        raise UsageError(
            "--stems gives every stem: give each a chain of its own, --chain WHERE=TEXT"
        )
    name = common.checked_model(model)
    options = common.separator_options(profile, provider)
    try:
        with _standard_streams() as (source, sink), ExitStack() as closing:
            reader = _reader(source, format, rate, channels, common.complain)
            separator = load_separator(
                name, samplerate=native_rate(reader.samplerate), channels=reader.channels, **options
            )
            closing.callback(getattr(separator, "close", lambda: None))
            db = None if stems else _levels(separator, vocals, music, by_stem)
            width = reader.channels * (len(separator.info.stems) if stems else 1)
            if stems:
                common.complain(_channels_of(separator))
            writer = _writer(sink, format, reader, width)
            separated = _delayed if live else _aligned
            notice = None
            for block, latest in separated(reader, separator, db, chains):
                writer.write(_side_by_side(block))
                if latest not in (None, notice):
                    common.complain(notice := latest)
            writer.close()
            reader.drain()
    except BrokenPipeError:
        raise typer.Exit(_BROKEN_PIPE) from None
    if writer.clipped:
        common.complain(
            f"{writer.clipped} samples beyond full scale were cut off; f32le and wav keep them"
        )


@contextmanager
def _standard_streams() -> Iterator[tuple[BinaryIO, FileIO]]:
    """stdin and stdout for audio; what anything prints meanwhile goes to stderr instead.

    Raises:
        UsageError: one of them is closed or a terminal.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    with ExitStack() as files:
        try:
            source = files.enter_context(open(0, "rb", closefd=False))
            sink = files.enter_context(FileIO(os.dup(1), "wb"))
        except OSError as error:
            raise UsageError(
                f"stdin or stdout is closed; pipe audio through: {_EXAMPLE}"
            ) from error
        for stream, side in ((source, "stdin"), (sink, "stdout")):
            if stream.isatty():
                raise UsageError(f"{side} is a terminal; use a pipe: {_EXAMPLE}")
            with suppress(OSError):  # Windows has no such thing
                # Programs that share a pipe with others may leave it non-blocking.
                os.set_blocking(stream.fileno(), True)
        with suppress(OSError):  # stderr may be closed
            os.dup2(2, 1)
        try:
            yield source, sink
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
            os.dup2(sink.fileno(), 1)


def _reader(
    source: BinaryIO,
    format: Format,
    rate: int | None,
    channels: int | None,
    warn: Callable[[str], None],
) -> PcmReader:
    from realtime_sep.blocks import check_rate
    from realtime_sep.io.pipe import PcmReader, WavReader

    reader: PcmReader
    if format is Format.wav:
        reader = WavReader(source, warn=warn)
        for option, asked, found in (
            ("--rate", rate, reader.samplerate),
            ("--channels", channels, reader.channels),
        ):
            if asked not in (None, found):
                raise UsageError(f"{option} {asked} contradicts the WAV's {found}; leave it out")
    elif rate is None:
        raise UsageError(f"raw {format} does not tell its sample rate: give it as --rate")
    else:
        reader = PcmReader(source, format, rate, 2 if channels is None else channels, warn=warn)
    check_rate(reader.samplerate)
    if reader.channels > 2:
        raise UsageError(
            f"1 or 2 channels are separated, not {reader.channels}; let ffmpeg mix them down first "
            "(-ac 2)"
        )
    return reader


def _writer(sink: FileIO, format: Format, reader: PcmReader, channels: int) -> PcmWriter:
    from realtime_sep.io.pipe import PcmWriter, WavWriter

    if format is Format.wav:
        return WavWriter(sink, reader.samplerate, channels, reader.frames)
    return PcmWriter(sink, "s16le" if format is Format.s16le else "f32le")


def _aligned(
    reader: PcmReader, separator: Separator, levels: dict[str, float] | None, chains: dict[str, str]
) -> Iterator[tuple[Float32, str | None]]:
    """Blocks `(stems, frames, channels)`, together as long as the input and in time with it, and
    what the user is to know; with levels the mix instead of the stems."""
    from realtime_sep.engine import MIX
    from realtime_sep.offline import Separation

    outputs = None if levels is None else (MIX,)
    separation = Separation(
        separator,
        reader.samplerate,
        reader.channels,
        outputs=outputs,
        chains=chains,
        limiter=bool(chains),
    )
    if levels is not None:
        separation.set_levels(levels)
    for block in reader.blocks():
        yield separation.process(block), separation.notice
    yield separation.flush(), separation.notice


def _delayed(
    reader: PcmReader, separator: Separator, levels: dict[str, float] | None, chains: dict[str, str]
) -> Iterator[tuple[Float32, str | None]]:
    """The same hop by hop, late by a latency that is told at first."""
    import numpy as np

    from realtime_sep.blocks import BlockSeparator
    from realtime_sep.cli.common import complain

    info, rate = separator.info, reader.samplerate
    native = info.samplerate == rate
    size = info.hop if native else max(1, round(info.hop * rate / info.samplerate))
    late = BlockSeparator(
        separator,
        rate,
        reader.channels,
        blocksize=info.hop if native else 1,
        levels=levels,
        chains=chains,
    )
    complain(f"output lags input by {late.latency} frames, {1e3 * late.latency / rate:.1f} ms")
    for block in reader.blocks(size):
        padded = np.pad(block, ((0, size - len(block)), (0, 0)))
        stems = np.stack(list(late.process(padded).values()))
        yield stems[:, : len(block)], late.notice


def _levels(
    separator: Separator, vocals: float | None, music: float | None, by_stem: dict[str, float]
) -> dict[str, float]:
    """In dB, by stem."""
    info = separator.info
    for name in by_stem:
        if name not in info.stems:
            raise unknown("stem", name, info.stems)
    if "vocals" not in info.stems and not by_stem:
        raise UsageError(
            f"{info.name!r} has no stem 'vocals' to set the level of (it has "
            f"{', '.join(info.stems)}); use --stems"
        )
    if vocals is None:
        vocals = -math.inf if music is None and not by_stem else 0.0
    return {n: vocals if n == "vocals" else music or 0.0 for n in info.stems} | by_stem


def _side_by_side(stems: Float32) -> Float32:
    """`(stems, frames, channels)` as `(frames, stems * channels)`."""
    count, frames, channels = stems.shape
    return stems.transpose(1, 0, 2).reshape(frames, count * channels)


def _channels_of(separator: Separator) -> str:
    """Which channel holds which stem."""
    info = separator.info
    places = (
        f"{name} {i * info.channels + 1}"
        + (f"-{(i + 1) * info.channels}" if info.channels > 1 else "")
        for i, name in enumerate(info.stems)
    )
    return f"channels: {', '.join(places)}"
