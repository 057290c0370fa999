"""The whole live path without a sound card: a song plays in real time through the null device.

Device thread, callback, rings, worker and engine are those of a real session; only the sound card
is missing.  What comes out is kept, written to out/, and compared with what went in: that is where
the measured latency is from.

    python examples/demo.py [SONG]      any file that FFmpeg decodes; without one it sings itself
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

from realtime_sep import NullSpec, RealtimeSepError, StreamConfig, open_stream
from realtime_sep.cli.live import play, summary_table
from realtime_sep.dsp.resample import StreamResampler, native_rate
from realtime_sep.io.file import AudioWriter, read_audio
from realtime_sep.types import Float32

OUT = Path("out")
BLOCK = 128


def main(path: str | None) -> None:
    console = Console(highlight=False)
    song, samplerate = _load(path)
    seconds = len(song) / samplerate
    console.print(f"playing {path or 'a song of our own'} live for {seconds:.0f} s ...")

    # Two buses leave the engine: the karaoke mix, and the voice that was taken out of it.
    with open_stream(
        "center",
        backend=NullSpec(source=song, capture=True),
        config=StreamConfig(samplerate=samplerate, blocksize=BLOCK, outputs=("mix", "vocals")),
        vocals=-math.inf,
    ) as stream:
        play(stream)
        stats = stream.stats
        stream.stop()
        for notice in stream.notices():
            console.print(notice)
        captured = stream.captured
        assert captured is not None

    karaoke, vocals = captured[:, :2], captured[:, 2:]
    measured = measure_delay(song, karaoke + vocals)
    extra = {"measured latency": f"{measured} frames, {1e3 * measured / samplerate:.2f} ms"}
    console.print(summary_table(stream, stats, extra))

    OUT.mkdir(exist_ok=True)
    for name, audio in (("karaoke", karaoke), ("vocals", vocals)):
        target = OUT / f"{name}.wav"
        with AudioWriter(target, samplerate, 2) as writer:
            writer.write(audio[stream.latency.frames :])
        console.print(f"wrote {target}")


def _load(path: str | None) -> tuple[Float32, int]:
    """A song as `(frames, 2)` at a rate that separators run at."""
    if path is None:
        from song import render_song

        song = render_song()
        return song.mix, song.samplerate
    audio, samplerate = read_audio(path, channels=2)
    rate = native_rate(samplerate)
    if rate != samplerate:
        resampler = StreamResampler(samplerate, rate, 2)
        audio = np.concatenate([resampler.process(audio), resampler.flush()])
    return audio, rate


def measure_delay(before: Float32, after: Float32) -> int:
    """Frames by which `after` lags `before`: where their cross-correlation is greatest."""
    a, b = before.sum(axis=1), after.sum(axis=1)
    size = 1 << (len(a) + len(b)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size)
    delay = int(np.argmax(correlation))
    return delay if delay < size // 2 else delay - size


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else None)
    except RealtimeSepError as error:
        sys.exit(f"demo: {error}")
