"""Audio through pipes: raw PCM or WAV, of any length, in constant memory.

A pipe cannot be wound back and need not end, so a WAV header is read and written as FFmpeg does it
there: a length of 0xFFFFFFFF (or, when reading, 0) means "until the stream ends".
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from io import FileIO
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from realtime_sep.errors import AudioFileError
from realtime_sep.types import Float32

Encoding = Literal["f32le", "s16le"]

#: Bytes per sample, by FFmpeg's names.
_SIZES = {"u8": 1, "s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4, "f64le": 8}

#: Samples beyond this (+60 dBFS) are no audio; the engine takes them for silence.
_ABSURD = 1e3


def decode(pcm: bytes, encoding: str = "s16le") -> Float32:
    """Samples of PCM, one after the other, as float32 with full scale at ±1.

    Args:
        encoding: u8, s16le, s24le, s32le, f32le or f64le.
    """
    if encoding == "f32le":
        return np.frombuffer(pcm, "<f4").astype(np.float32)
    if encoding == "f64le":
        with np.errstate(over="ignore", invalid="ignore"):  # garbage may be anything
            return np.frombuffer(pcm, "<f8").astype(np.float32)
    if encoding == "u8":
        return (np.frombuffer(pcm, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if encoding == "s24le":
        wide: npt.NDArray[np.uint8] = np.zeros((len(pcm) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(pcm, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float32) * np.float32(2.0**-31)
    bits = 8 * _SIZES[encoding]
    return np.frombuffer(pcm, f"<i{bits // 8}").astype(np.float32) * np.float32(2.0 ** (1 - bits))


def encode(samples: Float32, encoding: Encoding = "s16le") -> tuple[bytes, int]:
    """PCM of finite samples of any shape, in C order.

    Returns:
        The bytes, and how many samples were beyond full scale and cut off (none in f32le).
    """
    if encoding == "f32le":
        return samples.astype("<f4", copy=False).tobytes(), 0
    scaled = np.rint(samples * np.float32(32768))
    clipped = int(np.count_nonzero((scaled > 32767) | (scaled < -32768)))
    return np.clip(scaled, -32768, 32767).astype("<i2").tobytes(), clipped


# --- reading -------------------------------------------------------------------------------------


class PcmReader:
    """Interleaved samples without a header, from a stream of bytes.

    Args:
        stream: read to its end, never faster than `blocks` is asked.
        encoding: as for `decode`.
        samplerate: Hz.
        channels: of a frame.
        warn: told in one line, at once, what is odd about the audio.
        name: of the stream, for messages.

    Attributes:
        frames: length, as far as it is known beforehand; None if it is not.
    """

    def __init__(
        self,
        stream: BinaryIO,
        encoding: str,
        samplerate: int,
        channels: int,
        *,
        warn: Callable[[str], None] = lambda text: None,
        name: str = "stdin",
    ) -> None:
        self.samplerate = samplerate
        self.channels = channels
        self.frames: int | None = None
        self._stream = stream
        self._encoding = encoding
        self._warn = warn
        self._name = name

    def blocks(self, frames: int = 8192) -> Iterator[Float32]:
        """All that is left, as `(frames, channels)`; only the last block may be shorter.

        Raises:
            AudioFileError: the stream cannot be read, or is another format than it should be.
        """
        size = _SIZES[self._encoding] * self.channels
        first = True
        absurd = False
        while True:
            raw = self._read_audio(frames * size)
            if first:
                self._check_start(raw)
                first = False
            whole = len(raw) // size * size
            if whole != len(raw):
                self._warn(
                    f"{self._name} ends within a frame: the last {len(raw) - whole} bytes are left "
                    f"out ({self.channels} channels of {self._encoding} are {size} bytes)"
                )
            if whole:
                block = decode(raw[:whole], self._encoding).reshape(-1, self.channels)
                if not absurd and not np.all(np.abs(block) <= _ABSURD):
                    absurd = True
                    self._warn(
                        f"{self._name} holds samples that are no sound (not finite, or 60 dB over "
                        f"full scale) and become silence: is it really {self._encoding}?"
                    )
                yield block
            if len(raw) < frames * size:
                return

    def drain(self) -> None:
        """Read what may follow the audio, so that whoever writes it is not cut off."""
        while self._read(1 << 16):
            pass

    def _check_start(self, raw: bytes) -> None:
        if raw[:4] in (b"RIFF", b"RF64") and raw[8:12] == b"WAVE":
            raise AudioFileError(
                f"{self._name} is WAV, not raw {self._encoding}: use the format wav"
            )

    def _read_audio(self, size: int) -> bytes:
        return self._read(size)

    def _read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end."""
        try:
            return self._stream.read(size) or b""
        except OSError as error:
            raise AudioFileError(
                f"{self._name} cannot be read: {error.strerror or error}"
            ) from error


#: The formats that a WAV may hold: (format tag, bits) -> encoding.
_WAV = {
    (1, 8): "u8",
    (1, 16): "s16le",
    (1, 24): "s24le",
    (1, 32): "s32le",
    (3, 32): "f32le",
    (3, 64): "f64le",
}
_EXTENSIBLE = 0xFFFE
_UNKNOWN = 0xFFFFFFFF
#: From here on a length may be a guess of programs that write to a pipe (arecord, SoX): not 2 GiB.
_GUESS = 0x7FFFF000
#: No header that is meant seriously describes its format in more bytes.
_MAX_FMT = 4096


class WavReader(PcmReader):
    """A WAV file from a stream of bytes; the header is read at once.

    Integers of 8 to 32 bits, floats of 32 and 64; RIFF and RF64.

    Raises:
        AudioFileError: it is not WAV, or of a kind that is not read here.
    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        warn: Callable[[str], None] = lambda text: None,
        name: str = "stdin",
    ) -> None:
        super().__init__(stream, "f32le", 0, 0, warn=warn, name=name)
        head = self._read(12)
        if not head:
            raise AudioFileError(f"{name} is empty: no audio came")
        if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            raise AudioFileError(
                f"{name} is not WAV: it begins with {head[:8]!r}; use f32le or s16le for raw PCM, "
                "or let ffmpeg convert it (-f wav -)"
            )
        size = self._read_header()
        #: Bytes of audio that are still to come, by the header; None: until the end.
        self._left = size
        self._guess = size is not None and size >= _GUESS
        if size is not None and not self._guess:
            self.frames = size // (_SIZES[self._encoding] * self.channels)

    def _read_header(self) -> int | None:
        """Chunks up to the audio.  Returns its size in bytes, None if the header does not know."""
        large: int | None = None  # the size in an RF64
        while True:
            head = self._read(8)
            if len(head) < 8:
                raise AudioFileError(f"{self._name} is WAV without audio: it ends in its header")
            kind, size = struct.unpack("<4sI", head)
            if kind == b"data":
                if not self.samplerate:
                    raise AudioFileError(f"{self._name} is WAV without a format: it is damaged")
                size = large if size == _UNKNOWN and large is not None else size
                return None if size in (0, _UNKNOWN, 2**64 - 1) else size
            if kind == b"fmt " and 16 <= size <= _MAX_FMT:
                self._take_format(self._read(size + size % 2))
            elif kind == b"ds64" and 16 <= size <= _MAX_FMT:
                body = self._read(size + size % 2)
                large = int.from_bytes(body[8:16], "little")
            else:
                self._skip(size + size % 2)

    def _skip(self, size: int) -> None:
        while size > 0:
            got = len(self._read(min(size, 1 << 16)))
            if not got:
                return
            size -= got

    def _take_format(self, body: bytes) -> None:
        if len(body) < 16:
            raise AudioFileError(f"{self._name} is WAV without audio: it ends in its header")
        tag, channels, samplerate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
        if tag == _EXTENSIBLE and len(body) >= 26:
            tag = int.from_bytes(body[24:26], "little")
        encoding = _WAV.get((tag, bits))
        if encoding is None:
            raise AudioFileError(
                f"{self._name} is WAV of a kind that is not read here (format {tag:#x}, {bits} "
                "bits); let ffmpeg convert it (-f wav -)"
            )
        if not (channels and samplerate):
            raise AudioFileError(
                f"{self._name} is WAV of {channels} channels at {samplerate} Hz: it is damaged"
            )
        self.samplerate, self.channels, self._encoding = samplerate, channels, encoding

    def _check_start(self, raw: bytes) -> None:
        """The header has told what it is."""

    def _read_audio(self, size: int) -> bytes:
        if self._left is None:
            return self._read(size)
        raw = self._read(min(size, self._left))
        self._left -= len(raw)
        if len(raw) < size and self._left and not self._guess:
            self._warn(
                f"{self._name} is cut off: {self._left} bytes of audio are missing of what its "
                "header says"
            )
        return raw


# --- writing -------------------------------------------------------------------------------------


class PcmWriter:
    """Interleaved samples without a header, to a stream of bytes.

    Every block is written at once and whole; while the reader does not take it, `write` waits.

    Args:
        stream: unbuffered.
        encoding: "f32le" or "s16le".
        name: of the stream, for messages.

    Attributes:
        clipped: samples beyond full scale that the encoding cut off.
    """

    def __init__(self, stream: FileIO, encoding: Encoding, *, name: str = "stdout") -> None:
        self.clipped = 0
        self._stream = stream
        self._encoding: Encoding = encoding
        self._name = name

    def write(self, block: Float32) -> None:
        """Write `(frames, channels)`.

        Raises:
            BrokenPipeError: nobody reads any more.
            AudioFileError: it cannot be written.
        """
        pcm, clipped = encode(block, self._encoding)
        self.clipped += clipped
        self._write(pcm)

    def close(self) -> None:
        """Nothing is left to be done; the stream stays open."""

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._stream.write(view) or 0 :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise AudioFileError(
                f"{self._name} cannot be written: {error.strerror or error}"
            ) from error


class WavWriter(PcmWriter):
    """A WAV file of 32-bit floats, to a stream of bytes.

    The header holds the true length where it is known beforehand, or where the stream turns out to
    be a file and `close` can put it right; else it says that it is not known.

    Args:
        frames: length, if it is known.
    """

    def __init__(
        self,
        stream: FileIO,
        samplerate: int,
        channels: int,
        frames: int | None = None,
        *,
        name: str = "stdout",
    ) -> None:
        super().__init__(stream, "f32le", name=name)
        self._samplerate = samplerate
        self._channels = channels
        self._announced = frames
        self._written = 0
        self._start = stream.tell() if _rewritable(stream) else None
        self._write(wav_header(samplerate, channels, frames))

    def write(self, block: Float32) -> None:
        super().write(block)
        self._written += len(block)

    def close(self) -> None:
        """Put the length in the header right, where that can be done."""
        if self._written == self._announced or self._start is None:
            return
        try:
            end = self._stream.tell()
            self._stream.seek(self._start)
            self._write(wav_header(self._samplerate, self._channels, self._written))
            self._stream.seek(end)
        except OSError as error:
            raise AudioFileError(
                f"{self._name} cannot be written: {error.strerror or error}"
            ) from error


def wav_header(samplerate: int, channels: int, frames: int | None) -> bytes:
    """What stands before the samples of a 32-bit float WAV; `frames` is None if it is not known.

    More than two channels are declared to be no loudspeakers in particular: they are stems.
    """
    frame = 4 * channels
    layout = struct.pack("<HIIHH", channels, samplerate, samplerate * frame, frame, 32)
    if channels <= 2:
        format = struct.pack("<H", 3) + layout + struct.pack("<H", 0)
    else:
        guid = struct.pack("<I", 3) + bytes.fromhex("00001000800000aa00389b71")
        format = struct.pack("<H", _EXTENSIBLE) + layout + struct.pack("<HHI", 22, 32, 0) + guid
    head = b"WAVE" + struct.pack("<4sI", b"fmt ", len(format)) + format
    overhead = len(head) + 12 + 8
    if frames is None or overhead + frames * frame >= _UNKNOWN:
        riff = data = count = _UNKNOWN
    else:
        riff, data, count = overhead + frames * frame, frames * frame, frames
    fact = struct.pack("<4sII", b"fact", 4, count)
    return struct.pack("<4sI", b"RIFF", riff) + head + fact + struct.pack("<4sI", b"data", data)


def _rewritable(stream: FileIO) -> bool:
    """Whether what was written can be written again: a file, and not one that is appended to."""
    if not stream.seekable():
        return False
    try:
        from fcntl import F_GETFL, fcntl
    except ImportError:  # Windows, where `>>` opens the file and goes to its end
        return True
    return not fcntl(stream.fileno(), F_GETFL) & os.O_APPEND
