"""Films of flashes and beeps that any FFmpeg can make and read: what belongs together is known."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from realtime_sep.types import Float32

#: Frames of video per second; every second begins with a flash and a beep.
FPS = 25
_SIZE = 64


def beeps(seconds: float, samplerate: int, channels: int = 2) -> Float32:
    """Chirps of 40 ms, one at the start of every second, the same in all channels."""
    frames = round(seconds * samplerate)
    sound: Float32 = np.zeros((frames, channels), np.float32)
    time = np.arange(samplerate // 25) / samplerate
    chirp = np.sin(2 * np.pi * (500 + 75e3 * time) * time) * np.sin(np.pi * time / 0.04)
    burst = (0.4 * chirp).astype(np.float32)
    for second in range(int(np.ceil(seconds))):
        start = second * samplerate
        end = min(start + len(burst), frames)
        sound[start:end] = burst[: end - start, np.newaxis]
    return sound


def make_film(
    path: Path,
    *,
    seconds: float = 4.0,
    samplerate: int = 48000,
    channels: int = 2,
    video: str | None = "mpeg4",
    audio: str = "pcm_s16le",
    sound: Float32 | None = None,
    start: float = 0.0,
    **options: Any,
) -> Path:
    """A film: white pictures where there are beeps, black elsewhere; everything begins at `start`.

    Args:
        video: encoder, or None for sound alone.
        sound: instead of the beeps.
        options: of the video encoder, for example `bf` for bidirectional frames.
    """
    sound = beeps(seconds, samplerate, channels) if sound is None else sound
    layout = "mono" if channels == 1 else "stereo"
    with av.open(str(path), "w") as container:
        pictures = None
        if video is not None:
            pictures = container.add_stream(video, FPS, width=_SIZE, height=_SIZE)
            pictures.pix_fmt = "yuv420p"
            pictures.codec_context.gop_size = FPS
            pictures.options = {key: str(value) for key, value in options.items()}
        stream = container.add_stream(audio, samplerate, layout=layout)
        done = 0
        for index in range(round(seconds * FPS)):
            if pictures is not None:
                white = index % FPS == 0
                image = av.VideoFrame.from_ndarray(
                    np.full((_SIZE, _SIZE, 3), 255 * white, np.uint8), format="rgb24"
                )
                image.pts, image.time_base = index + round(start * FPS), Fraction(1, FPS)
                container.mux(pictures.encode(image))
            until = min(round((index + 1) / FPS * samplerate), len(sound))
            if until > done:
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(sound[done:until].T), format="fltp", layout=layout
                )
                frame.sample_rate, frame.time_base = samplerate, Fraction(1, samplerate)
                frame.pts = done + round(start * samplerate)
                container.mux(stream.encode(frame))
                done = until
        if pictures is not None:
            container.mux(pictures.encode(None))
        container.mux(stream.encode(None))
    return path


@dataclass(frozen=True)
class Film:
    """What is in a file.

    Attributes:
        sound: all samples, `(frames, channels)`.
        begin: time of the first sample in seconds, by its timestamp.
        pictures: (presentation time in seconds, brightness 0..1) of every picture.
        packets: the video's packets as bytes.
    """

    samplerate: int
    sound: Float32
    begin: float
    pictures: list[tuple[float, float]]
    packets: list[bytes]
    codecs: tuple[str, ...]

    def flashes(self) -> list[float]:
        """Times of the white pictures."""
        return [at for at, brightness in self.pictures if brightness > 0.5]

    def beeps(self) -> list[float]:
        """Times at which a burst begins, from correlation with it, to the sample."""
        burst = beeps(0.04, self.samplerate, 1)[:, 0]
        mono = self.sound.mean(axis=1)
        size = len(mono) + len(burst)
        match = np.fft.irfft(np.fft.rfft(mono, size) * np.conj(np.fft.rfft(burst, size)), size)
        match = match[: len(mono)]
        found = []
        least = 0.5 * match.max()
        while len(match) and (best := int(np.argmax(match))) >= 0 and match[best] > least:
            found.append(self.begin + best / self.samplerate)
            near = self.samplerate // 5
            match[max(0, best - near) : best + near] = 0
        return sorted(found)

    def offsets(self) -> list[float]:
        """Seconds from every flash to the beep that is nearest."""
        beeps = self.beeps()
        return [min((b - f for b in beeps), key=abs) for f in self.flashes()] if beeps else []


def read_film(path: Path | str, **options: Any) -> Film:
    """Decode everything."""
    sound: list[Float32] = []
    begin = 0.0
    pictures, packets, codecs = [], [], []
    with av.open(str(path), **options) as container:
        codecs = [stream.codec_context.name for stream in container.streams]
        rate = container.streams.audio[0].rate
        for packet in container.demux():
            if packet.stream.type == "video" and packet.size:
                packets.append(bytes(packet))
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame):
                    bright = float(frame.to_ndarray(format="gray").mean()) / 255
                    pictures.append((float(frame.pts * frame.time_base), bright))
                elif isinstance(frame, av.AudioFrame):
                    block = frame.to_ndarray()
                    block = (
                        block.T
                        if frame.format.is_planar
                        else block.reshape(-1, len(frame.layout.channels))
                    )
                    if block.dtype.kind == "i":
                        block = block.astype(np.float32) / np.float32(
                            2 ** (8 * block.dtype.itemsize - 1)
                        )
                    if not sound:
                        begin = float(frame.pts * frame.time_base)
                    sound.append(block.astype(np.float32))
    return Film(rate, np.concatenate(sound), begin, sorted(pictures), packets, tuple(codecs))
