"""PCM and WAV as bytes, against libsndfile and FFmpeg."""

from __future__ import annotations

import io
import random
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from realtime_sep.errors import AudioFileError
from realtime_sep.io.pipe import (
    PcmReader,
    WavReader,
    WavWriter,
    decode,
    encode,
    wav_header,
)
from realtime_sep.types import Float32

from .conftest import song


def read(reader: PcmReader, frames: int = 1000) -> Float32:
    blocks = list(reader.blocks(frames))
    return np.concatenate([*blocks, np.empty((0, reader.channels), np.float32)])


def wav(audio: Float32, subtype: str = "FLOAT", format: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio, 44100, subtype=subtype, format=format)
    return file.getvalue()


def streamed(data: bytes, size: int = 0xFFFFFFFF) -> bytes:
    """The same WAV with the length of a program that cannot know it."""
    at = data.index(b"data") + 4
    changed = data[:4] + struct.pack("<I", size) + data[8:at] + struct.pack("<I", size)
    return changed + data[at + 4 :]


def test_s16le_survives_the_round_trip() -> None:
    every = np.arange(-32768, 32768).astype("<i2").tobytes()
    assert encode(decode(every, "s16le"), "s16le") == (every, 0)


def test_s16le_clips_and_counts() -> None:
    pcm, clipped = encode(np.array([1.0, -1.0, 3.0, -3.0, 0.25], np.float32), "s16le")
    assert np.frombuffer(pcm, "<i2").tolist() == [32767, -32768, 32767, -32768, 8192]
    assert clipped == 3


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_reads_what_libsndfile_writes(subtype: str, format: str, channels: int) -> None:
    data = wav(song(0.05, channels=channels), subtype, format)
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    reader = WavReader(io.BytesIO(data))
    assert (reader.samplerate, reader.channels, reader.frames) == (44100, channels, len(expected))
    np.testing.assert_array_equal(read(reader), expected)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0, 0x7FFFFFFF])
def test_a_length_that_is_not_known(size: int) -> None:
    audio = song(0.05)
    warnings: list[str] = []
    reader = WavReader(io.BytesIO(streamed(wav(audio), size)), warn=warnings.append)
    assert reader.frames is None
    np.testing.assert_array_equal(read(reader), audio)
    assert not warnings


def test_chunks_around_the_audio_are_no_audio() -> None:
    audio = song(0.05)
    data = wav(audio)
    chunk = b"LIST" + struct.pack("<I", 5) + b"hello\0"  # odd: padded
    data = data[:12] + chunk + data[12:] + chunk
    stream = io.BytesIO(data)
    reader = WavReader(stream)
    np.testing.assert_array_equal(read(reader), audio)
    reader.drain()
    assert stream.read() == b""


def test_a_wav_that_is_cut_off_is_said_to_be() -> None:
    audio = song(0.05)
    warnings: list[str] = []
    reader = WavReader(io.BytesIO(wav(audio)[:-11]), warn=warnings.append)
    np.testing.assert_array_equal(read(reader), audio[:-2])
    assert len(warnings) == 2
    assert "11 bytes" in warnings[0]
    assert "within a frame" in warnings[1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"RIFF", "not WAV"),
        (b"once upon a time\n" * 9, "not WAV.*'once upo'"),
        (wav(song(0.01))[:30], "ends in its header"),
        (wav(song(0.01))[:12], "ends in its header"),
        (wav(song(0.01), "ALAW"), "not read here.*0x6"),
        (wav(song(0.01)).replace(b"fmt ", b"junk"), "without a format"),
        (wav(song(0.01))[:22] + b"\0\0" + wav(song(0.01))[24:], "0 channels"),
    ],
)
def test_what_is_no_wav_is_explained_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(AudioFileError, match=words) as error:
        read(WavReader(io.BytesIO(data)))
    assert "\n" not in str(error.value)


def test_no_damage_to_a_header_does_more_than_an_error() -> None:
    """Any bytes of the header may be anything: an error of ours or audio, and no great memory."""
    whole = wav(song(0.01), "PCM_16", "RF64")
    generator = random.Random(0)
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 6)):
            data[generator.randrange(100)] = generator.choice([0, 1, 255, generator.randrange(256)])
        with suppress(AudioFileError):
            for block in WavReader(io.BytesIO(bytes(data))).blocks(64):
                assert block.nbytes < 64 * 4 * 0x10000


def test_wav_is_not_taken_for_raw_pcm() -> None:
    with pytest.raises(AudioFileError, match="is WAV"):
        read(PcmReader(io.BytesIO(wav(song(0.01))), "f32le", 44100, 2))


def test_the_wrong_encoding_is_noticed_once() -> None:
    ints = encode(song(0.5), "s16le")[0]
    warnings: list[str] = []
    read(PcmReader(io.BytesIO(ints), "f32le", 44100, 2, warn=warnings.append))
    assert len(warnings) == 1
    assert "really f32le" in warnings[0]


@pytest.mark.parametrize("channels", [1, 2, 4, 8])
def test_libsndfile_reads_what_is_written(tmp_path: Path, channels: int) -> None:
    """A file whose length was not known gets it when it is closed."""
    audio = np.tile(song(0.05), (1, 4))[:, :channels]
    path = tmp_path / "out.wav"
    with io.FileIO(path, "wb") as file:
        file.write(b"before")  # somebody else's, and to be left alone
        writer = WavWriter(file, 44100, channels)
        for start in range(0, len(audio), 1000):
            writer.write(audio[start : start + 1000])
        writer.close()
        assert file.tell() == file.seek(0, 2)
    data = path.read_bytes()
    assert data[:6] == b"before"
    assert struct.unpack("<I", data[10:14])[0] == len(data) - 6 - 8
    back, samplerate = soundfile.read(io.BytesIO(data[6:]), dtype="float32", always_2d=True)
    assert samplerate == 44100
    np.testing.assert_array_equal(back, audio)


def test_a_file_that_is_appended_to_is_not_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with path.open("ab", buffering=0) as file:
        writer = WavWriter(file, 44100, 2)  # type: ignore[arg-type]
        writer.write(song(0.01))
        writer.close()
    data = path.read_bytes()
    assert data == wav_header(44100, 2, None) + song(0.01).tobytes()


def test_a_header_for_more_than_4_gib_does_not_know_the_length() -> None:
    assert wav_header(48000, 2, 2**29) == wav_header(48000, 2, None)
