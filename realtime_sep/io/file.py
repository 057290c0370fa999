"""Audio files: anything FFmpeg can decode comes in, WAV or FLAC goes out, in constant memory.

A file that is being written lives beside its target under a temporary name and takes the target's
name only when it is complete, so a full disk or Ctrl-C never leaves half a song behind.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from functools import lru_cache
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import av
import av.error
import numpy as np
import soundfile

from realtime_sep.errors import AudioFileError
from realtime_sep.types import Float32

Format = Literal["wav", "flac"]

#: How each format is stored: float WAV keeps samples beyond full scale, FLAC is half the size.
_STORAGE: dict[str, tuple[str, str]] = {"wav": ("RF64", "FLOAT"), "flac": ("FLAC", "PCM_24")}

# libsndfile's command by which an RF64 file that stayed below 4 GiB becomes a plain WAV when it is
# closed; python-soundfile has no name for it.
_SFC_RF64_AUTO_DOWNGRADE = 0x1210

# --- channels ------------------------------------------------------------------------------------

_M3DB = 0.5**0.5

#: Where each loudspeaker goes in stereo: (left, right), after ITU-R BS.775 table 2 (centre and
#: surrounds at -3 dB, no low-frequency effects), by FFmpeg's channel names.
_BS775: dict[str, tuple[float, float]] = {
    "FL": (1, 0),
    "FR": (0, 1),
    "FC": (_M3DB, _M3DB),
    "LFE": (0, 0),
    "LFE2": (0, 0),
    "BL": (_M3DB, 0),
    "BR": (0, _M3DB),
    "SL": (_M3DB, 0),
    "SR": (0, _M3DB),
    "BC": (0.5, 0.5),
    "FLC": (1, 0),
    "FRC": (0, 1),
    "DL": (1, 0),
    "DR": (0, 1),
}

#: What a file means that has this many channels and does not say which.
_USUAL: dict[int, tuple[str, ...]] = {
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}


@lru_cache(maxsize=32)
def downmix(layout: tuple[str, ...], channels: int) -> Float32:
    """The matrix that turns a layout into 1 or 2 channels: `block @ downmix(...)`.

    - One channel goes to both.
    - More than two become stereo by ITU-R BS.775: `left = L + 0.707 C + 0.707 Ls`, the same on the
      right, without the low-frequency channel.  The sum is not scaled down, so loud surround sound
      may pass full scale.
    - Six or eight channels without names are taken for 5.1 and 7.1, as players do; any other layout
      that does not name its loudspeakers gives its first two channels.
    - Mono is the mean of the two.

    Args:
        layout: FFmpeg's channel names, in order ("FL", "FR", "FC", ...).

    Returns:
        `(len(layout), channels)` float32.
    """
    count = len(layout)
    if "NONE" in layout:
        layout = _USUAL.get(count, layout)
    if count == channels:
        return np.eye(count, dtype=np.float32)
    stereo = np.zeros((count, 2))
    if count == 1:
        stereo[:] = 1
    elif count > 2 and all(name in _BS775 for name in layout):
        stereo[:] = [_BS775[name] for name in layout]
    else:
        stereo[:2] = np.eye(2)
    mixed = stereo if channels == 2 else stereo.mean(axis=1, keepdims=True)
    return mixed.astype(np.float32)


# --- reading -------------------------------------------------------------------------------------

#: Full scale of integer samples.
_SCALE: dict[str, float] = {"i2": 2.0**-15, "i4": 2.0**-31, "i8": 2.0**-63}


class AudioReader:
    """Decodes a file block by block, at the file's own sample rate.

    Args:
        path: anything FFmpeg decodes: music, or the best sound track of a film.
        channels: 1 or 2 to have them mixed (see `downmix`); the file's own if None.

    Attributes:
        samplerate: Hz.
        channels: of the blocks; may be set to 1 or 2 before reading.
        layout: FFmpeg's names of the file's own channels.
        frames: expected length, from the header: an estimate; None if the file does not say.
        damaged: packets that could not be decoded and were left out, so far.

    Raises:
        AudioFileError: missing, empty, a directory, not readable, not audio.
    """

    def __init__(self, path: str | os.PathLike[str], channels: int | None = None) -> None:
        self.path = Path(path)
        self.damaged = 0
        _check_readable(self.path)
        try:
            # "file:" keeps a colon in the name from being taken for a network protocol.
            self._container = av.open(f"file:{self.path}", metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            raise self._not_audio() from error
        stream = self._container.streams.best("audio")
        if stream is None or not isinstance(stream, av.AudioStream) or not stream.rate:
            self._container.close()
            raise self._not_audio()
        self._stream = stream
        self.samplerate = int(stream.rate)
        self.layout = _names(stream.layout)
        self.channels = len(self.layout) if channels is None else channels
        if not self.layout:
            self._container.close()
            raise self._not_audio()
        self.frames = self._expected_frames()

    def _expected_frames(self) -> int | None:
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return round(stream.duration * stream.time_base * self.samplerate)
        if self._container.duration is not None:
            return round(self._container.duration * self.samplerate / av.time_base)
        return None

    def _not_audio(self) -> AudioFileError:
        return AudioFileError(
            f"{self.path}: not audio, or in a format that FFmpeg does not know; "
            "give a music or video file"
        )

    def blocks(self, frames: int = 8192) -> Iterator[Float32]:
        """All that is left, as `(frames, channels)`; only the last block may be shorter.

        Raises:
            AudioFileError: the file cannot be read further, or holds nothing that can be decoded.
        """
        block: Float32 = np.empty((frames, self.channels), np.float32)
        filled = 0
        for decoded in self._decoded():
            start = 0
            while start < len(decoded):
                count = min(len(decoded) - start, frames - filled)
                block[filled : filled + count] = decoded[start : start + count]
                start += count
                filled += count
                if filled == frames:
                    yield block
                    block = np.empty_like(block)
                    filled = 0
        if filled:
            yield block[:filled]

    def _decoded(self) -> Iterator[Float32]:
        """What the decoder gives, in pieces of its own choice."""
        anything = False
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                raise AudioFileError(
                    f"{self.path}: reading stopped midway: {_reason(error)}"
                ) from error
            if packet is None:
                break
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                self.damaged += 1  # players go on here, too
                continue
            for frame in decoded:
                if isinstance(frame, av.AudioFrame) and frame.samples:
                    anything = True
                    yield self._mixed(frame)
        if not anything:
            raise AudioFileError(
                f"{self.path}: holds no sound that can be decoded; the file is damaged or empty"
            )

    def _mixed(self, frame: av.AudioFrame) -> Float32:
        """A decoder's frame as float32 `(frames, channels)`."""
        if frame.sample_rate != self.samplerate:
            raise AudioFileError(
                f"{self.path}: its sample rate changes midway from {self.samplerate} to "
                f"{frame.sample_rate} Hz; convert it first"
            )
        return frame_samples(frame, self.channels)

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_audio(path: str | os.PathLike[str], channels: int | None = None) -> tuple[Float32, int]:
    """A whole file: `(frames, channels)` and the sample rate.  For short files.

    Raises:
        AudioFileError: as `AudioReader`.
    """
    with AudioReader(path, channels) as reader:
        return np.concatenate(list(reader.blocks(1 << 16))), reader.samplerate


def frame_samples(frame: av.AudioFrame, channels: int) -> Float32:
    """A decoder's frame as float32 `(frames, channels)` with full scale at ±1 (see `downmix`)."""
    layout = _names(frame.layout)
    raw = frame.to_ndarray()
    raw = raw.T if frame.format.is_planar else raw.reshape(-1, len(layout))
    samples: Float32
    if raw.dtype.kind == "u":
        samples = (raw.astype(np.float32) - np.float32(128)) / np.float32(128)
    elif raw.dtype.kind == "i":
        samples = raw.astype(np.float32) * np.float32(_SCALE[raw.dtype.str[1:]])
    else:
        samples = raw.astype(np.float32, copy=False)
    return samples if len(layout) == channels else samples @ downmix(layout, channels)


def _names(layout: av.AudioLayout) -> tuple[str, ...]:
    return tuple(channel.name for channel in layout.channels)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _check_readable(path: Path) -> None:
    """Say what is wrong with a file before a decoder says it less clearly."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise AudioFileError(f"{path}: is a directory; give the files in it")
        if stat.S_ISREG(status.st_mode):
            with path.open("rb"):
                pass
            if status.st_size == 0:
                raise AudioFileError(f"{path}: is empty (zero bytes); copy or download it again")
    except FileNotFoundError:
        raise AudioFileError(f"{path}: no such file; check the name") from None
    except PermissionError:
        raise AudioFileError(f"{path}: may not be read; check its permissions") from None
    except (OSError, ValueError) as error:
        raise AudioFileError(f"{path}: cannot be opened: {_reason(error)}") from error


# --- writing -------------------------------------------------------------------------------------


class _Sink(FileIO):
    """A file that remembers why it failed: libsndfile only learns that it did."""

    error: BaseException | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += super().write(view[done:]) or 0
        except BaseException as error:  # an exception cannot pass through libsndfile: Ctrl-C, too
            self.error = self.error or error
        return done


class AudioWriter:
    """Writes float32 blocks to a WAV or FLAC file of any length.

    WAV holds 32-bit float samples, and becomes RF64 by itself beyond 4 GiB; FLAC holds 24 bits and
    cuts off what passes full scale (counted in `clipped`).

    As a context manager, it completes the file when the block ends and removes every trace of it
    when the block fails.

    Args:
        path: target; replaced when the new file is complete.  Its directory must exist.
        format: "wav" or "flac"; by default what the name ends with, else "wav".

    Attributes:
        frames: written so far.
        clipped: samples beyond full scale that the format cut off.

    Raises:
        AudioFileError: cannot be created, disk full, over the limit of the file system.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        samplerate: int,
        channels: int,
        format: Format | None = None,
    ) -> None:
        self.path = Path(path)
        self.frames = 0
        self.clipped = 0
        if format is None:
            format = "flac" if self.path.suffix.lower() == ".flac" else "wav"
        container, subtype = _STORAGE[format]
        self._integer = subtype != "FLOAT"
        self._temporary = self._open_sink()
        try:
            self._file = soundfile.SoundFile(
                self._sink, "w", samplerate, channels, subtype=subtype, format=container
            )
            if container == "RF64":
                soundfile._snd.sf_command(
                    self._file._file, _SFC_RF64_AUTO_DOWNGRADE, soundfile._ffi.NULL, 1
                )
            self._check()
        except AudioFileError:
            self.discard()
            raise
        except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
            self._remove()
            self._check()
            raise self._cannot(
                ValueError(f"{format} does not take {channels} channels at {samplerate} Hz")
            ) from error

    def _open_sink(self) -> Path | None:
        """Open what is written to; returns its path where it is a temporary one."""
        temporary: Path | None = None
        try:
            if self.path.is_dir():
                raise AudioFileError(f"{self.path}: is a directory; give a file name")
            if self.path.exists() and not self.path.is_file():
                self._sink = _Sink(self.path, "r+")  # a device: there is no file to replace
            else:
                name = f".{self.path.name[:200]}.{secrets.token_hex(4)}.part"
                temporary = self.path.with_name(name)
                self._sink = _Sink(temporary, "x+")
        except (OSError, ValueError) as error:
            raise self._cannot(error) from error
        return temporary

    def _cannot(self, error: BaseException) -> AudioFileError:
        hint = {
            "FileNotFoundError": "the directory does not exist",
            "NotADirectoryError": "the directory is not one",
            "PermissionError": "may not be written there; choose another directory",
        }.get(type(error).__name__)
        if hint is None:
            hint = _reason(error)
            if isinstance(error, OSError):
                hint += "; free some space or choose another directory"
        return AudioFileError(f"{self.path}: cannot be written: {hint}")

    def _check(self) -> None:
        error = self._sink.error
        if isinstance(error, OSError):
            raise self._cannot(error) from error
        if error is not None:
            raise error

    def write(self, block: Float32) -> None:
        """Append `(frames, channels)` or, for one channel, `(frames,)`.

        Raises:
            AudioFileError: it could not be stored; the file is lost.
        """
        if self._integer:
            self.clipped += int(np.count_nonzero(np.abs(block) > 1))
        try:
            self._file.write(block)
        except (soundfile.SoundFileError, AssertionError) as error:
            # A short write trips an assertion in python-soundfile; the sink knows the reason.
            self._check()
            raise self._cannot(error) from error
        self._check()
        self.frames += len(block)

    def complete(self) -> None:
        """Bring everything to the file, under its temporary name; `close` only renames it then.

        Raises:
            AudioFileError: it could not be completed; nothing is left of it.
        """
        if self._sink.closed:
            return
        try:
            self._file.close()
            self._check()
            self._sink.close()
        except BaseException as error:
            self._remove()
            if isinstance(error, OSError):
                raise self._cannot(error) from error
            raise

    def close(self) -> None:
        """Complete the file and give it its name; does nothing the second time.

        Raises:
            AudioFileError: it could not be completed; nothing is left of it.
        """
        self.complete()
        if self._temporary is not None:
            try:
                self._temporary.replace(self.path)
            except OSError as error:
                self._remove()
                raise self._cannot(error) from error
            self._temporary = None

    def discard(self) -> None:
        """Forget the file: leave no trace of it."""
        try:
            self._file.close()
        except soundfile.SoundFileError:
            pass
        finally:
            self._remove()

    def _remove(self) -> None:
        try:
            self._sink.close()
        except OSError:
            pass
        finally:
            if self._temporary is not None:
                self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
