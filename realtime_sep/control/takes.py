"""Audio files that are whole at every moment: what a killed process leaves behind plays.

`io.file.AudioWriter` shows a file when it is complete; a recording is the opposite case, where
whatever there is by the time the power goes is wanted.
"""

from __future__ import annotations

import os
import struct
from io import FileIO
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import soundfile

from realtime_sep.errors import AudioFileError
from realtime_sep.types import Float32

Format = Literal["flac", "wav"]
FORMATS: tuple[Format, ...] = ("flac", "wav")
#: Frames between updates of a WAV header: a second or less.
_REFRESH = 32768
#: Sizes that do not fit into 32 bits stand in a chunk of their own, by EBU Tech 3306.
_ELSEWHERE = 0xFFFFFFFF


class Take(Protocol):
    """One file that is being written."""

    path: Path
    frames: int

    def write(self, block: Float32) -> None:
        """Append `(frames, channels)`.

        Raises:
            AudioFileError: it could not be stored; what was stored before stays.
        """
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


def new_take(path: Path, samplerate: int, channels: int, format: Format) -> Take:
    """Begin a file that does not exist yet.

    Raises:
        AudioFileError: it cannot be made.
    """
    kind = _Wav if format == "wav" else _Flac
    try:
        return kind(path, samplerate, channels)
    except OSError as error:
        raise _cannot(path, error) from error


def _cannot(path: Path, error: OSError) -> AudioFileError:
    return AudioFileError(f"{path}: cannot be written: {error.strerror or error}")


class _Wav:
    """32-bit float samples behind a header that says how many, at most a second out of date.

    Beyond 4 GiB it is RF64: room for the longer header is kept from the start.
    """

    def __init__(self, path: Path, samplerate: int, channels: int) -> None:
        self.path, self.frames = path, 0
        self._width = 4 * channels
        rate = samplerate * self._width
        self._format = struct.pack("<HHIIHH", 3, channels, samplerate, rate, self._width, 32)
        self._file = FileIO(path, "x")
        self._refreshed = 0
        self._refresh()
        self._file.seek(0, os.SEEK_END)

    def _refresh(self) -> None:
        data = self.frames * self._width
        riff = 4 + 36 + 24 + 12 + 8 + data
        long = riff > _ELSEWHERE
        sizes = struct.pack("<QQQI", riff, data, self.frames, 0) if long else bytes(28)
        header = (
            (b"RF64" if long else b"RIFF") + struct.pack("<I", _ELSEWHERE if long else riff)
            + b"WAVE" + (b"ds64" if long else b"JUNK") + struct.pack("<I", 28) + sizes
            + b"fmt " + struct.pack("<I", 16) + self._format
            + b"fact" + struct.pack("<II", 4, min(self.frames, _ELSEWHERE))
            + b"data" + struct.pack("<I", _ELSEWHERE if long else data)
        )  # fmt: skip
        os.pwrite(self._file.fileno(), header, 0) if hasattr(os, "pwrite") else self._rewrite(
            header
        )
        self._refreshed = self.frames

    def _rewrite(self, header: bytes) -> None:  # Windows
        end = self._file.tell()
        self._file.seek(0)
        self._file.write(header)
        self._file.seek(max(end, len(header)))

    def write(self, block: Float32) -> None:
        try:
            _write_all(self._file, np.ascontiguousarray(block, "<f4").tobytes())
            self.frames += len(block)
            if self.frames - self._refreshed >= _REFRESH:
                self._refresh()
        except OSError as error:
            raise _cannot(self.path, error) from error

    def close(self) -> None:
        try:
            if not self._file.closed:
                self._refresh()
        except OSError:
            pass  # the header is a second old then
        finally:
            self._file.close()


class _Flac:
    """24-bit samples.  A stream of frames that can each be read alone: its header does not matter.

    What passes full scale is cut off.
    """

    def __init__(self, path: Path, samplerate: int, channels: int) -> None:
        self.path, self.frames = path, 0
        self._sink = _Sink(path, "x+")
        try:
            self._file = soundfile.SoundFile(
                self._sink, "w", samplerate, channels, subtype="PCM_24", format="FLAC"
            )
        except soundfile.SoundFileError as error:
            self._sink.close()
            path.unlink(missing_ok=True)
            raise AudioFileError(
                f"{path}: FLAC does not take {channels} channels at {samplerate} Hz; use wav"
            ) from error

    def write(self, block: Float32) -> None:
        try:
            self._file.write(block)
        except (soundfile.SoundFileError, AssertionError) as error:
            # A short write trips an assertion in python-soundfile; the sink knows the reason.
            if self._sink.error is None:
                raise AudioFileError(f"{self.path}: cannot be written: {error}") from error
        if self._sink.error is not None:
            raise _cannot(self.path, self._sink.error) from self._sink.error
        self.frames += len(block)

    def close(self) -> None:
        try:
            self._file.close()
        except soundfile.SoundFileError:
            pass
        finally:
            self._sink.close()


class _Sink(FileIO):
    """A file that remembers why it failed: libsndfile only learns that it did."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            _write_all(super(), view)
        except OSError as error:  # an exception cannot pass through libsndfile
            self.error = self.error or error
            return 0
        return len(view)


def _write_all(file: Any, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
