"""Audio files: whatever comes in is read or refused in one clear line; what goes out is whole."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.errors import AudioFileError
from realtime_sep.io import file
from realtime_sep.io.file import AudioReader, AudioWriter, downmix, read_audio
from realtime_sep.types import Float32

HALF_POWER = np.sqrt(0.5)


def noise(frames: int, channels: int = 2, seed: int = 0) -> Float32:
    generator = np.random.default_rng(seed)
    return generator.uniform(-0.9, 0.9, (frames, channels)).astype(np.float32)


# ---- reading


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_U8", 2**-7),
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.wav", "PCM_32", 2**-24),
        ("a.wav", "FLOAT", 0),
        ("a.wav", "DOUBLE", 0),
        ("a.flac", "PCM_16", 2**-15),
        ("a.flac", "PCM_24", 2**-23),
        ("a.aiff", "PCM_24", 2**-23),
    ],
)
def test_samples_come_in_as_they_are(
    tmp_path: Path, name: str, subtype: str, tolerance: float
) -> None:
    audio = noise(5000)
    soundfile.write(tmp_path / name, audio, 44100, subtype=subtype)
    read, samplerate = read_audio(tmp_path / name)
    assert samplerate == 44100
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, audio, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("format", "subtype"),
    [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
)
@pytest.mark.parametrize("attack", ["hard", "soft"])
def test_lossy_files_keep_length_and_place(
    tmp_path: Path, format: str, subtype: str, attack: str
) -> None:
    """Encoders pad and decoders prime: none of it may be heard as a shift."""
    sweep = 0.5 * np.sin(np.arange(48000) ** 1.5 / 2000)
    if attack == "soft":
        sweep *= np.minimum(np.arange(48000) / 10_000, 1)
    soundfile.write(tmp_path / "a", sweep, 48000, format=format, subtype=subtype)
    read, _ = read_audio(tmp_path / "a")
    # FFmpeg takes the end of some Vorbis files for 128 samples sooner than it is.
    assert len(read) == 48000 or (subtype == "VORBIS" and len(read) == 48000 - 128)
    assert np.corrcoef(read[1000:-1000, 0], sweep[1000 : len(read) - 1000])[0, 1] > 0.99


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 20000), block=st.integers(1, 9000))
def test_blocks_are_as_long_as_asked(
    tmp_path_factory: pytest.TempPathFactory, frames: int, block: int
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "a.wav"
    audio = noise(frames)
    soundfile.write(path, audio, 44100, subtype="FLOAT")
    with AudioReader(path) as reader:
        assert reader.frames == frames
        blocks = list(reader.blocks(block))
    assert all(len(b) == block for b in blocks[:-1])
    np.testing.assert_array_equal(np.concatenate(blocks), audio)


@pytest.mark.parametrize("name", ["http:song.wav", "concat:a|b.wav", "ünï — 100%d.wav"])
def test_names_that_look_like_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with AudioWriter(name, 44100, 2) as writer:
        writer.write(noise(100))
    assert len(read_audio(name)[0]) == 100


def test_one_channel_goes_to_both(tmp_path: Path) -> None:
    audio = noise(1000, 1)
    soundfile.write(tmp_path / "a.wav", audio, 44100, subtype="FLOAT")
    read, _ = read_audio(tmp_path / "a.wav", channels=2)
    np.testing.assert_array_equal(read, np.repeat(audio, 2, axis=1))


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_surround_becomes_stereo_by_bs775(tmp_path: Path, name: str) -> None:
    audio = noise(1000, 6) / 4
    soundfile.write(tmp_path / name, audio, 48000, subtype="PCM_24")
    read, _ = read_audio(tmp_path / name, channels=2)
    left = audio[:, 0] + HALF_POWER * (audio[:, 2] + audio[:, 4])
    right = audio[:, 1] + HALF_POWER * (audio[:, 2] + audio[:, 5])
    np.testing.assert_allclose(read, np.stack([left, right], axis=1), atol=2e-6)


def test_downmix_of_every_kind() -> None:
    np.testing.assert_array_equal(downmix(("FC",), 2), [[1, 1]])
    np.testing.assert_array_equal(downmix(("FL", "FR"), 2), np.eye(2))
    np.testing.assert_array_equal(downmix(("FL", "FR"), 1), [[0.5], [0.5]])
    np.testing.assert_array_equal(downmix(("FL", "FR", "LFE"), 2)[2], [0, 0])
    unnamed = downmix(("NONE",) * 5, 2)
    np.testing.assert_array_equal(unnamed, np.eye(5, 2))
    side = downmix(("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"), 2)
    np.testing.assert_allclose(side[6:], HALF_POWER * np.eye(2), atol=1e-7)


def test_a_file_that_breaks_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    audio = noise(200_000)
    soundfile.write(path, audio, 44100, subtype="PCM_24")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with AudioReader(path) as reader:
        read = np.concatenate(list(reader.blocks()))
        assert 80_000 < len(read) < 120_000
        np.testing.assert_allclose(read, audio[: len(read)], atol=2**-22)
        assert reader.damaged == 1


def _text(path: Path) -> None:
    path.write_text("These are words, and not music at all.\n" * 200)


def _empty(path: Path) -> None:
    path.touch()


def _directory(path: Path) -> None:
    path.mkdir()


def _random_bytes(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(50_000))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file"),
        (_text, "not audio"),
        (_random_bytes, "not audio"),
        (_empty, "empty"),
        (_directory, "directory"),
    ],
)
@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".txt"])
def test_what_cannot_be_read_says_why(tmp_path: Path, make, words: str, suffix: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / f"song{suffix}"
    make(path)
    with pytest.raises(AudioFileError, match=words) as caught:
        read_audio(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_header_without_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 2), np.float32), 44100)
    with pytest.raises(AudioFileError, match="no sound"):
        read_audio(tmp_path / "a.wav")


def test_what_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(100), 44100)

    def refuse(*_: object, **__: object) -> None:  # root may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AudioFileError, match="may not be read"):
        AudioReader(path)


def test_reading_takes_constant_memory(tmp_path: Path) -> None:
    def peak(seconds: int) -> int:
        path = tmp_path / f"{seconds}.wav"
        with AudioWriter(path, 44100, 2) as writer:
            for _ in range(seconds):
                writer.write(noise(44100))
        tracemalloc.start()
        with AudioReader(path) as reader:
            assert sum(len(block) for block in reader.blocks()) == 44100 * seconds
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    assert peak(60) < 1.2 * peak(5) + 100_000


# ---- writing


def traces(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(("name", "tolerance"), [("a.wav", 0), ("a.flac", 2**-23)])
def test_what_is_written_is_read_again(tmp_path: Path, name: str, tolerance: float) -> None:
    audio = noise(10_000)
    with AudioWriter(tmp_path / name, 48000, 2) as writer:
        for start in range(0, 10_000, 777):
            writer.write(audio[start : start + 777])
    assert traces(tmp_path) == [name]
    read, samplerate = read_audio(tmp_path / name)
    assert samplerate == 48000
    np.testing.assert_allclose(read, audio, rtol=0, atol=tolerance)


def test_float_keeps_what_is_beyond_full_scale_and_flac_counts_it(tmp_path: Path) -> None:
    loud = np.array([[2.0, -3.0], [0.5, 1.0]], np.float32)
    with AudioWriter(tmp_path / "a.wav", 44100, 2) as wav:
        wav.write(loud)
    with AudioWriter(tmp_path / "a.flac", 44100, 2) as flac:
        flac.write(loud)
    assert wav.clipped == 0
    assert flac.clipped == 2
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav")[0], loud)
    np.testing.assert_allclose(
        read_audio(tmp_path / "a.flac")[0], np.clip(loud, -1, 1), atol=2**-22
    )


def test_short_files_are_plain_wav(tmp_path: Path) -> None:
    with AudioWriter(tmp_path / "a.wav", 44100, 2) as writer:
        writer.write(noise(1000))
    head = (tmp_path / "a.wav").read_bytes()[:64]
    assert head[:4] == b"RIFF"  # everything can read it
    assert b"JUNK" in head  # where the 64-bit length would be


@pytest.mark.slow
def test_files_beyond_4_gib_are_rf64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence leaves holes in the file, so that 4 GiB take no space and little time."""
    path = tmp_path / "a.wav"
    write = file._Sink.write

    def write_sparse(sink: file._Sink, data: bytes) -> int:
        if len(data) < 4096:
            return write(sink, data)
        sink.seek(len(data), os.SEEK_CUR)
        return len(data)

    monkeypatch.setattr(file._Sink, "write", write_sparse)
    silence = np.zeros((1 << 22, 2), np.float32)
    blocks = (1 << 32) // silence.nbytes + 2
    with AudioWriter(path, 44100, 2) as writer:
        for _ in range(blocks):
            writer.write(silence)
        writer.write(noise(100))
    assert path.stat().st_size > 1 << 32
    with path.open("rb") as content:
        assert content.read(4) == b"RF64"
    assert soundfile.info(path).frames == blocks * (1 << 22) + 100
    with AudioReader(path) as reader:
        assert reader.frames == blocks * (1 << 22) + 100


def test_the_target_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"the old one")
    with AudioWriter(path, 44100, 2) as writer:
        writer.write(noise(100_000))
        assert path.read_bytes() == b"the old one"
    assert len(read_audio(path)[0]) == 100_000


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_no_trace(tmp_path: Path, failure: type[BaseException]) -> None:
    def fail() -> None:
        with AudioWriter(tmp_path / "a.wav", 44100, 2) as writer:
            writer.write(noise(100_000))
            raise failure

    with pytest.raises(failure):
        fail()
    assert traces(tmp_path) == []


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with AudioWriter(tmp_path / "a.wav", 44100, 2) as writer:
            writer.write(noise(10))
    finally:
        os.umask(before)
    assert (tmp_path / "a.wav").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said() -> None:
    def fill() -> None:
        with AudioWriter("/dev/full", 44100, 2, "wav") as writer:
            for _ in range(10):
                writer.write(noise(44100))

    with pytest.raises(AudioFileError, match="No space left"):
        fill()
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("limit", [0, 20, 100_000])
def test_a_limit_of_the_file_size_is_said(tmp_path: Path, name: str, limit: int) -> None:
    """RLIMIT_FSIZE stands for a disk that is full at any moment: header, middle or end."""
    pytest.importorskip("resource")
    code = f"""
import resource, sys
import numpy as np
from realtime_sep.errors import AudioFileError
from realtime_sep.io import file
from realtime_sep.io.file import AudioWriter
noise = np.random.default_rng(0).uniform(-1, 1, (8192, 2)).astype(np.float32)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    with AudioWriter({name!r}, 44100, 2) as writer:
        for _ in range(20):
            writer.write(noise)
except AudioFileError as error:
    sys.exit(str(error))
"""
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 1
    assert child.stderr.count("\n") == 1
    assert "File too large" in child.stderr
    assert traces(tmp_path) == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_disk_that_is_full_at_the_very_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(sink: file._Sink, data: bytes) -> int:
        sink.error = OSError(28, "No space left on device")
        return 0

    writer = AudioWriter(tmp_path / name, 44100, 2)
    writer.write(noise(1000))
    monkeypatch.setattr(file._Sink, "write", refuse)
    with pytest.raises(AudioFileError, match="No space left"):
        writer.close()
    assert traces(tmp_path) == []


@pytest.mark.parametrize(
    ("target", "words"),
    [("missing/a.wav", "does not exist"), ("file/a.wav", "is not one"), ("dir", "is a directory")],
)
def test_targets_that_cannot_be(tmp_path: Path, target: str, words: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    with pytest.raises(AudioFileError, match=words):
        AudioWriter(tmp_path / target, 44100, 2)
    assert traces(tmp_path) == ["dir", "file"]


def test_what_a_format_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="flac does not take 20 channels"):
        AudioWriter(tmp_path / "a.flac", 44100, 20)
    assert traces(tmp_path) == []
