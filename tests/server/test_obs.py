"""The recipe of docs/obs.md: OBS records what the separator plays on a sink of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from audio_servers import Process, PulseServer, need, until

from realtime_sep.io.file import read_audio
from realtime_sep.offline import separate
from realtime_sep.stream import open_stream
from realtime_sep.types import Float32, StreamConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from song import render_song

pytestmark = [pytest.mark.server, pytest.mark.timeout(240)]

RATE = 48000
SINKS = {"player": "Music Player", "karaoke": "Karaoke"}
#: OBS loads a graphics driver in software first.
PATIENCE = 60.0


def configure(home: Path, recordings: Path) -> None:
    """What a person would click: a profile that records small pictures, and one audio source."""
    files = {
        "global.ini": """[General]
FirstRun=true
EnableAutoUpdates=false
[Basic]
Profile=Karaoke
ProfileDir=Karaoke
SceneCollection=Karaoke
SceneCollectionFile=Karaoke
""",
        "basic/profiles/Karaoke/basic.ini": f"""[General]
Name=Karaoke
[Output]
Mode=Simple
[SimpleOutput]
FilePath={recordings}
RecFormat=mkv
RecQuality=Stream
StreamEncoder=x264
Preset=ultrafast
VBitrate=200
ABitrate=320
[Video]
BaseCX=160
BaseCY=120
OutputCX=160
OutputCY=120
FPSCommon=10
[Audio]
SampleRate={RATE}
ChannelSetup=Stereo
""",
        "basic/scenes/Karaoke.json": json.dumps(
            {
                "name": "Karaoke",
                "current_scene": "Scene",
                "current_program_scene": "Scene",
                "scene_order": [{"name": "Scene"}],
                "sources": [{"id": "scene", "name": "Scene", "settings": {"items": []}}],
                "DesktopAudioDevice1": {
                    "id": "pulse_output_capture",
                    "name": "Karaoke",
                    "settings": {"device_id": "karaoke.monitor"},
                    "mixers": 255,
                    "volume": 1.0,
                },
            }
        ),
    }
    for name, text in files.items():
        path = home / ".config" / "obs-studio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@contextmanager
def display(directory: Path) -> Iterator[str]:
    """A screen that nobody sees."""
    number = directory / "display"
    with number.open("w") as file:
        os.set_inheritable(file.fileno(), True)
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(file.fileno()), "-screen", "0", "640x480x24"],
            pass_fds=[file.fileno()],
            stderr=subprocess.DEVNULL,
        )
    try:
        until(lambda: number.read_text().endswith("\n"), PATIENCE, "Xvfb")
        yield f":{number.read_text().strip()}"
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def recording(server: PulseServer, directory: Path) -> Iterator[Path]:
    """OBS records; gives the file that grows."""
    need("obs", "Xvfb")
    recordings = directory / "recordings"
    recordings.mkdir()
    configure(directory, recordings)
    with display(directory) as screen:
        environment = {**server.environment, "DISPLAY": screen, "LIBGL_ALWAYS_SOFTWARE": "1"}
        environment |= {"QT_QPA_PLATFORM": "xcb", "XDG_CONFIG_HOME": str(directory / ".config")}
        obs = Process(
            ["obs", "--startrecording", "--multi", "--minimize-to-tray"],
            directory / "obs.log",
            environment,
        )
        try:
            until(
                lambda: any(f.stat().st_size for f in recordings.iterdir()) or not obs.running,
                PATIENCE,
                "a recording",
            )
            assert obs.running, obs.log.read_text()[-2000:]
            yield next(recordings.iterdir())
        finally:
            obs.stop()  # it ignores SIGINT, and what it takes of SIGTERM depends on its mood


def play(server: PulseServer, audio: Float32, directory: Path) -> None:
    raw = directory / "song.raw"
    raw.write_bytes(audio.tobytes())
    form = ["--raw", "--format=float32le", f"--rate={RATE}", "--channels=2"]
    subprocess.run(
        ["pacat", *form, "--device=player", "--latency-msec=200", raw],
        env={**os.environ, **server.environment},
        timeout=60,
        check=True,
    )


def voice_left(heard: Float32, voice: Float32, music: Float32, expected: Float32) -> list[float]:
    """Gain of the voice in what was heard, in dB against the gain of the music, by half seconds.

    Servers that run dry shift what follows, so every piece is sought first.
    """
    piece = RATE // 2
    size = 1 << (len(heard) + piece).bit_length()
    spectrum = np.fft.rfft(heard.sum(axis=1), size)
    levels = []
    for start in range(0, len(expected) - piece + 1, piece):
        span = slice(start, start + piece)
        if np.sqrt(np.mean(voice[span] ** 2)) < 0.01:
            continue
        fit = np.fft.irfft(spectrum * np.conj(np.fft.rfft(expected[span].sum(axis=1), size)))
        place = int(np.argmax(fit[: len(heard) - piece]))
        parts = np.stack([voice[span].ravel(), music[span].ravel()], axis=1)
        gains, *_ = np.linalg.lstsq(parts, heard[place : place + piece].ravel(), rcond=None)
        levels.append(20 * np.log10(max(abs(gains[0]), 1e-4) / abs(gains[1])))
    return levels


def test_obs_records_the_karaoke_bus(
    pulse_server: Callable[..., PulseServer], tmp_path: Path
) -> None:
    """What OBS has recorded lacks the voice as much as `separate` takes out of the same song."""
    need("obs", "Xvfb", "pacat")
    song = render_song(12.0)
    scale = np.float32(0.5 / np.abs(song.mix).max())
    mix, voice, music = (
        resampled(part * scale, song.samplerate)
        for part in (song.mix, song.vocals, song.accompaniment)
    )
    karaoke = separate(mix, RATE, "center")["accompaniment"]
    server = pulse_server(SINKS)
    with open_stream(
        "center",
        input="Monitor of Music Player",
        output="Karaoke",
        latency="high",
        config=StreamConfig(blocksize=512),
        vocals=-np.inf,
        tap=False,
    ) as stream:
        until(lambda: stream.stats.frames > 9600, 20, "the stream")
        with recording(server, tmp_path) as file:
            time.sleep(1)
            play(server, mix, tmp_path)
            time.sleep(2)
    heard, rate = read_audio(file, 2)
    assert rate == RATE
    offline = voice_left(karaoke, voice, music, karaoke)
    recorded = voice_left(heard, voice, music, karaoke)
    print(f"voice, median dB: offline {np.median(offline):.1f}, in OBS {np.median(recorded):.1f}")
    assert len(recorded) > 10
    assert np.median(offline) < -8
    assert np.median(recorded) == pytest.approx(np.median(offline), abs=2)


def resampled(audio: Float32, samplerate: int) -> Float32:
    if samplerate == RATE:
        return audio
    from realtime_sep.dsp.resample import StreamResampler

    resampler = StreamResampler(samplerate, RATE, audio.shape[1])
    return np.concatenate([resampler.process(audio), resampler.flush()])
