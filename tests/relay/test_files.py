"""From file to file: sound and picture, to the sample; and every way to go wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from audio_servers import need

from realtime_sep import separate
from realtime_sep.relay import source as source_module
from realtime_sep.types import Float32

from .conftest import COMMAND, ENVIRONMENT, Stream
from .media import Film, make_film, read_film

THROUGH = ("--model", "identity", "--vocals", "0")
#: What timestamps of a container can say, in seconds, half of it to either side.
EXACT, MILLISECONDS = 1e-5, 0.6e-3


def song(seconds: float = 2.0, samplerate: int = 48000) -> Float32:
    """A voice in the middle, two instruments at the sides: below full scale."""
    time = np.arange(round(seconds * samplerate)) / samplerate
    voice = 0.2 * np.sin(2 * np.pi * (440 * time + 3 * np.sin(2 * np.pi * 5 * time)))
    left, right = (0.2 * np.sin(2 * np.pi * f * time) for f in (660, 880))
    return np.stack([voice + left, voice + right], axis=1).astype(np.float32)


def traces(directory: Path) -> list[str]:
    """What an output that failed may have left behind."""
    return [path.name for path in directory.iterdir() if path.name.endswith(".part")]


# --- sound ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("samplerate", [44100, 48000])
def test_sound_is_that_of_separate(stream: Stream, tmp_path: Path, samplerate: int) -> None:
    """Bit for bit, at the right place: neither the separator nor the limiter leaves a delay."""
    audio = song(1.5, samplerate)
    film = make_film(
        tmp_path / "in.mkv", video=None, audio="pcm_f32le", samplerate=samplerate, sound=audio
    )
    done = stream(film, "out.wav", "--model", "center")
    assert done.returncode == 0, done.stderr
    heard = read_film(tmp_path / "out.wav")
    assert heard.samplerate == samplerate
    expected = separate(audio, samplerate, "center")["accompaniment"]
    np.testing.assert_allclose(heard.sound, expected, rtol=0, atol=1e-7)


def test_faders_and_stems(stream: Stream, tmp_path: Path) -> None:
    audio = song(1.0)
    film = make_film(tmp_path / "in.mkv", video=None, audio="pcm_f32le", sound=audio)
    stems = separate(audio, 48000, "center")
    stream(film, "voice.wav", "--model", "center", "--stem", "accompaniment=off")
    stream(film, "quiet.wav", "--model", "center", "--vocals", "-6", "--music", "off")
    voice, quiet = (read_film(tmp_path / name).sound for name in ("voice.wav", "quiet.wav"))
    np.testing.assert_allclose(voice, stems["vocals"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(quiet, stems["vocals"] * 10 ** (-6 / 20), rtol=0, atol=1e-6)


def test_loud_sound_is_limited(stream: Stream, tmp_path: Path) -> None:
    film = make_film(tmp_path / "in.mkv", video=None, audio="pcm_f32le", sound=4 * song(0.5))
    stream(film, "out.wav", *THROUGH)
    assert np.abs(read_film(tmp_path / "out.wav").sound).max() <= 10 ** (-1 / 20)


@pytest.mark.parametrize(
    ("name", "channels", "samplerate", "codec", "kept"),
    [
        ("out.mp3", 2, 44100, "mp3float", 44100),
        ("out.flac", 1, 44100, "flac", 44100),
        ("out.flac", 2, 22050, "flac", 22050),
        ("out.opus", 2, 44100, "opus", 48000),
        ("out.m4a", 1, 48000, "aac", 48000),
        ("out.mkv", 2, 96000, "aac", 96000),
    ],
)
def test_formats(
    stream: Stream,
    tmp_path: Path,
    name: str,
    channels: int,
    samplerate: int,
    codec: str,
    kept: int,
) -> None:
    """Mono stays mono; rates stay, unless the codec has none of that kind."""
    film = make_film(
        tmp_path / "in.wav",
        video=None,
        audio="pcm_s16le",
        seconds=2,
        samplerate=samplerate,
        channels=channels,
    )
    done = stream(film, name, *THROUGH)
    assert done.returncode == 0, done.stderr
    out = read_film(tmp_path / name)
    assert out.codecs == (codec,)
    assert (out.samplerate, out.sound.shape[1]) == (kept, channels)
    distances = np.diff(out.beeps())
    np.testing.assert_allclose(distances, 1, atol=1.5 / kept)


def test_bitrate_and_codec(stream: Stream, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (96000, 2)).astype(np.float32)
    film = make_film(tmp_path / "in.mkv", video=None, sound=noise)
    stream(film, "small.mkv", *THROUGH, "--codec", "mp3", "--bitrate", 64)
    stream(film, "large.mkv", *THROUGH, "--codec", "mp3", "--bitrate", 256)
    small, large = ((tmp_path / name).stat().st_size for name in ("small.mkv", "large.mkv"))
    assert small == pytest.approx(64000 / 8 * 2, rel=0.2)
    assert large == pytest.approx(256000 / 8 * 2, rel=0.2)
    assert read_film(tmp_path / "small.mkv").codecs == ("mp3float",)


# --- sound and picture ---------------------------------------------------------------------------


def film_and_result(
    stream: Stream, tmp_path: Path, source: str, target: str, *more: object, **options: Any
) -> tuple[Film, Film]:
    made = make_film(tmp_path / source, **options)
    done = stream(made, target, *more)
    assert done.returncode == 0, done.stderr
    return read_film(made), read_film(tmp_path / target)


@pytest.mark.parametrize(
    ("source", "target", "options", "tolerance"),
    [
        ("in.mkv", "out.mkv", {"video": "mpeg4", "audio": "pcm_s16le"}, EXACT),
        ("in.mkv", "out.mp4", {"video": "libx264", "audio": "flac", "bf": 2}, EXACT),
        ("in.mp4", "out.mp4", {"video": "libx264", "audio": "aac", "bf": 2}, EXACT),
        ("in.mp4", "out.mkv", {"video": "libx264", "audio": "aac", "samplerate": 44100}, EXACT),
        ("in.mp4", "out.mkv", {"video": "libx264", "audio": "aac", "channels": 1}, EXACT),
        ("in.mp4", "out.ts", {"video": "libx264", "audio": "aac", "bf": 2}, EXACT),
        ("in.ts", "out.mp4", {"video": "libx264", "audio": "aac", "bf": 2}, EXACT),
        ("in.mp4", "out.flv", {"video": "libx264", "audio": "aac", "bf": 2}, MILLISECONDS),
        ("in.flv", "out.mp4", {"video": "libx264", "audio": "aac", "bf": 2}, MILLISECONDS),
    ],
)
def test_flashes_and_beeps_stay_together(
    stream: Stream,
    tmp_path: Path,
    source: str,
    target: str,
    options: dict[str, Any],
    tolerance: float,
) -> None:
    """The offset of sound and picture is exactly what it was; FLV cannot say it more exactly."""
    before, after = film_and_result(stream, tmp_path, source, target, *THROUGH, **options)
    assert len(after.pictures) == len(before.pictures)
    assert len(after.offsets()) == len(before.offsets()) == 4
    np.testing.assert_allclose(after.offsets(), before.offsets(), rtol=0, atol=tolerance)
    times = [np.array([at for at, _ in film.pictures]) for film in (before, after)]
    np.testing.assert_allclose(times[1] - times[1][0], times[0] - times[0][0], atol=0.6e-3)


def test_pictures_are_copied_bit_for_bit(stream: Stream, tmp_path: Path) -> None:
    options = {"video": "libx264", "audio": "aac", "bf": 2}
    before, after = film_and_result(stream, tmp_path, "in.mp4", "out.mkv", *THROUGH, **options)
    assert after.packets == before.packets


@pytest.mark.parametrize("profile", ["stage", "studio"])
def test_delay_of_the_separator_does_not_matter(
    stream: Stream, tmp_path: Path, profile: str
) -> None:
    more = ("--model", "center", "--profile", profile)
    before, after = film_and_result(stream, tmp_path, "in.mkv", "out.mkv", *more)
    assert len(after.offsets()) == 4
    np.testing.assert_allclose(after.offsets(), before.offsets(), rtol=0, atol=EXACT)


def test_gap_in_the_sound_is_silence(stream: Stream, tmp_path: Path) -> None:
    """A second of sound is missing between two pieces: what follows stays in time."""
    made = make_film(tmp_path / "whole.mkv", seconds=6.0)
    with av.open(str(made)) as whole, av.open(str(tmp_path / "in.mkv"), "w") as holed:
        streams = {s.index: holed.add_stream_from_template(s, opaque=True) for s in whole.streams}
        for packet in whole.demux():
            at = None if packet.dts is None else float(packet.dts * packet.time_base)
            if at is None or (packet.stream.type == "audio" and 2.5 <= at < 3.5):
                continue
            packet.stream = streams[packet.stream.index]
            holed.mux(packet)
    done = stream(tmp_path / "in.mkv", "out.mkv", *THROUGH, "--json")
    out = read_film(tmp_path / "out.mkv")
    np.testing.assert_allclose(out.beeps(), [0, 1, 2, 4, 5], atol=EXACT)
    assert json.loads(done.stdout)["stats"]["silent"] == pytest.approx(1, abs=0.05)


def test_cover_is_not_a_film(stream: Stream, tmp_path: Path) -> None:
    """A picture in a music file is not a film, and there is nothing to say about it."""
    need("ffmpeg")
    plain = make_film(tmp_path / "plain.flac", video=None, audio="flac")
    cover = tmp_path / "cover.png"
    with av.open(str(cover), "w", format="image2") as image:
        still = image.add_stream("png", width=16, height=16, pix_fmt="rgb24")
        image.mux(still.encode(av.VideoFrame(16, 16, "rgb24")))
        image.mux(still.encode(None))
    both = ["ffmpeg", "-v", "error", "-i", plain, "-i", cover, "-map", "0", "-map", "1"]
    copy = ["-c", "copy", "-disposition:v", "attached_pic", tmp_path / "in.flac"]
    subprocess.run([*both, *copy], check=True)
    done = stream(tmp_path / "in.flac", "out.mkv", *THROUGH)
    assert done.returncode == 0
    assert "picture" not in done.stderr
    assert read_film(tmp_path / "out.mkv").codecs == ("aac",)


def test_film_into_music_leaves_the_picture_out_and_says_so(stream: Stream, tmp_path: Path) -> None:
    film = make_film(tmp_path / "in.mkv", seconds=1)
    done = stream(film, "out.mp3", *THROUGH)
    assert done.returncode == 0
    assert "out.mp3: without the picture: mp3 holds sound only" in done.stderr


def test_json(stream: Stream, tmp_path: Path) -> None:
    film = make_film(tmp_path / "in.mkv", seconds=2)
    report = json.loads(stream(film, "out.mp4", *THROUGH, "--json").stdout)
    assert report["to"] == "out.mp4"
    assert report["video"] is True
    assert report["live"] is False
    assert report["error"] is None
    assert report["encoding"]["codec"] == "aac"
    assert report["stats"]["seconds"] == pytest.approx(2, abs=0.01)
    assert report["stats"]["bytes_in"] > report["stats"]["bytes_out"] > 0


# --- files that appear, or do not ----------------------------------------------------------------


def test_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    """Ctrl-C finishes it: what was played until then is there, and can be read."""
    film = make_film(tmp_path / "in.mkv", seconds=300, video=None)
    target = tmp_path / "out.mov"
    target.write_bytes(b"old")
    command = [*COMMAND, "--from", str(film), "--to", str(target), "--codec", "pcm_s16le"]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 60
        while not (parts := traces(tmp_path)) or (tmp_path / parts[0]).stat().st_size < 3e5:
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert target.read_bytes() == b"old"
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        said = child.stderr.read()
        assert child.wait(30) == 0, said
    assert "Traceback" not in said
    out = read_film(target)
    assert len(out.sound) / out.samplerate > 1
    assert traces(tmp_path) == []


def test_seconds(stream: Stream, tmp_path: Path) -> None:
    film = make_film(tmp_path / "in.mkv", seconds=5)
    stream(film, "out.wav", *THROUGH, "--seconds", 2)
    out = read_film(tmp_path / "out.wav")
    assert len(out.sound) / out.samplerate == pytest.approx(2, abs=0.05)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_disk_full(stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of the file, and one line says why."""
    film = make_film(tmp_path / "in.mkv", seconds=20)
    target = tmp_path / "out.mkv"
    replace = os.symlink
    monkeypatch.setattr(
        "realtime_sep.relay.sink.secrets.token_hex",
        lambda size: replace("/dev/full", tmp_path / ".out.mkv.full.part") or "full",
    )
    done = stream(film, target, *THROUGH)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not target.exists()
    assert traces(tmp_path) == []


# --- wrong from the beginning --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "more", "says"),
    [
        ("none.mp4", "out.mp4", (), "no such file"),
        (".", "out.mp4", (), "is a directory"),
        ("in.mkv", "in.mkv", (), "would overwrite the source"),
        ("in.mkv", "none/out.mp4", (), "the directory none does not exist"),
        ("in.mkv", ".", (), "is a directory"),
        ("in.mkv", "out.xyz", (), ".xyz names no format"),
        ("in.mkv", "out", (), "no ending names no format"),
        ("in.mkv", "foo://host/x", (), "foo:// is not a stream"),
        ("in.mkv", "https://host/x", (), "takes icecast://"),
        ("concat://a|b", "out.mp4", (), "concat:// is not a stream"),
        ("rtmp://:x/y", "out.mp4", (), "is not a URL"),
        ("http:///x", "out.mp4", (), "names no host"),
        ("in.mkv", "icecast://host", (), "name a mount point"),
        ("in.mkv", "icecast://host/x", ("--codec", "pcm"), "a radio server takes"),
        ("in.mkv", "out.mp4", ("--codec", "nonsense"), "no encoder 'nonsense'"),
        ("in.mkv", "out.mp4", ("--codec", "libx264"), "not for sound"),
        ("in.mkv", "out.mp4", ("--stem", "drums=0"), "unknown stem 'drums'"),
        ("in.mkv", "out.mp4", ("--model", "nonsense"), "nonsense"),
    ],
)
def test_what_cannot_be(
    stream: Stream, tmp_path: Path, source: str, target: str, more: tuple[str, ...], says: str
) -> None:
    make_film(tmp_path / "in.mkv", seconds=0.2)
    done = stream(source, target, *more)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_garbage_and_emptiness(stream: Stream, tmp_path: Path) -> None:
    (tmp_path / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(50000))
    (tmp_path / "empty.mp4").touch()
    for name in ("garbage.mp4", "empty.mp4"):
        done = stream(name, "out.mp4")
        assert done.returncode == 1
        assert done.stderr.startswith(f"realtime-sep: {name}: ")
        assert done.stderr.count("\n") == 1
    silent = tmp_path / "silent.mp4"
    with av.open(str(silent), "w") as container:
        pictures = container.add_stream("mpeg4", 25, width=64, height=64, pix_fmt="yuv420p")
        container.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(pictures.encode(None))
    done = stream(silent, "out.mp4")
    assert "holds no sound that can be decoded" in done.stderr
    assert not (tmp_path / "out.mp4").exists()
    assert traces(tmp_path) == []


def test_sound_that_stops_being_decodable(stream: Stream, tmp_path: Path) -> None:
    """The container goes on with garbage in it: nothing is written, one line says why."""
    made = make_film(tmp_path / "good.mkv", seconds=12, video=None, audio="aac")
    rng = np.random.default_rng(0)
    with av.open(str(made)) as good, av.open(str(tmp_path / "bad.mkv"), "w") as bad:
        copy = bad.add_stream_from_template(good.streams[0], opaque=True)
        for packet in good.demux():
            if packet.dts is None:
                continue
            if float(packet.dts * packet.time_base) > 2:
                broken = av.Packet(b"\xff" * 8 + rng.bytes(packet.size))
                broken.pts, broken.dts = packet.pts, packet.dts
                broken.time_base, broken.duration = packet.time_base, packet.duration
                packet = broken
            packet.stream = copy
            bad.mux(packet)
    done = stream("bad.mkv", "out.mp4", *THROUGH)
    assert done.returncode == 1
    assert "cannot be decoded any more" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.mp4").exists()
    assert traces(tmp_path) == []


# --- servers that misbehave ----------------------------------------------------------------------


def test_nobody_there(stream: Stream, tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:  # bound, not listening
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        film = make_film(tmp_path / "in.mkv", seconds=0.2)
        for ends in (
            (f"http://127.0.0.1:{port}/radio", "out.mp4"),
            (f"rtmp://127.0.0.1:{port}/live/key", "out.mp4"),
            (film, f"rtmp://127.0.0.1:{port}/live/key"),
            (film, f"icecast://source:secret@127.0.0.1:{port}/radio"),
        ):
            done = stream(*ends)
            assert done.returncode == 1
            assert "Connection refused" in done.stderr
            assert "key" not in done.stderr
            assert "secret" not in done.stderr
            assert done.stderr.count("\n") == 1 + ("without the picture" in done.stderr)
    assert not (tmp_path / "out.mp4").exists()


def test_unknown_host(stream: Stream) -> None:
    done = stream("http://radio.invalid/live", "out.mp4")
    assert done.returncode == 1
    assert "no host named 'radio.invalid' is known" in done.stderr


@pytest.mark.parametrize("side", ["from", "to"])
def test_server_that_accepts_and_says_nothing(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setattr(source_module, "TIMEOUT", 1.0)
    monkeypatch.setattr("realtime_sep.relay.sink.TIMEOUT", 1.0)
    film = make_film(tmp_path / "in.mkv", seconds=0.2, video=None)
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        url = f"rtmp://127.0.0.1:{mute.getsockname()[1]}/live/in"
        begin = time.monotonic()
        done = stream(url, "out.mp4") if side == "from" else stream(film, url)
    assert done.returncode == 1
    assert time.monotonic() - begin < 20
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.mp4").exists()


class Radio(BaseHTTPRequestHandler):
    """Sends a film without saying how long it is, as radio does; each time the next one."""

    films: Any = iter(())

    def do_GET(self) -> None:
        film = next(self.films, None)
        if film is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        self.wfile.write(film)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def radio(*films: Path) -> Iterator[str]:
    """A station that sends these, one after the other."""
    station = type("Station", (Radio,), {"films": iter([film.read_bytes() for film in films])})
    with HTTPServer(("127.0.0.1", 0), station) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/live"
        server.shutdown()


def live_film(directory: Path, **options: Any) -> Path:
    path = directory / f"{options.get('samplerate', 48000)}.ts"
    return make_film(path, video="libx264", audio="aac", **options)


def test_radio_that_ends(stream: Stream, tmp_path: Path) -> None:
    """Without `--reconnect` the end is the end, and the file has everything."""
    with radio(live_film(tmp_path)) as url:
        done = stream(url, "out.mp4", *THROUGH, "--reconnect", 0, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["live"] is True
    assert len(read_film(tmp_path / "out.mp4").flashes()) == 4


@pytest.mark.parametrize("samplerate", [48000, 44100])
def test_radio_that_comes_back(stream: Stream, tmp_path: Path, samplerate: int) -> None:
    """It begins anew, with another sample rate at worst: sound and picture stay together."""
    with radio(live_film(tmp_path), live_film(tmp_path, samplerate=samplerate)) as url:
        done = stream(url, "out.mp4", *THROUGH, "--seconds", 7, "--json")
    assert done.returncode == 0, done.stderr
    assert f"{url}: is back" in done.stderr
    assert json.loads(done.stdout)["stats"]["source_losses"] == 1
    film = read_film(tmp_path / "out.mp4")
    assert film.samplerate == 48000
    assert len(film.flashes()) >= 6
    np.testing.assert_allclose(film.offsets()[:6], 0, atol=1.5e-3)


def test_radio_that_comes_back_with_another_picture(stream: Stream, tmp_path: Path) -> None:
    """A file has one picture: it ends there, complete."""
    first = live_film(tmp_path)
    other = make_film(tmp_path / "other.ts", video="mpeg4", audio="aac")
    with radio(first, other) as url:
        done = stream(url, "out.mp4", *THROUGH)
    assert done.returncode == 1
    assert "is back with another picture; out.mp4 ends here" in done.stderr
    assert len(read_film(tmp_path / "out.mp4").flashes()) == 4


def test_radio_that_stays_away(stream: Stream, tmp_path: Path) -> None:
    """The file has what came, and the status says that it was not all."""
    with radio(live_film(tmp_path)) as url:
        done = stream(url, "out.mp4", *THROUGH, "--reconnect", 1.5)
    assert done.returncode == 1
    assert "did not come back in 2 s" in done.stderr
    assert len(read_film(tmp_path / "out.mp4").flashes()) == 4


def test_ctrl_c_while_the_source_hangs(tmp_path: Path) -> None:
    """A station sends four seconds, then nothing more: Ctrl-C need not wait for it."""
    film = live_film(tmp_path).read_bytes()
    target = tmp_path / "out.mp4"
    with closing(socket.create_server(("127.0.0.1", 0))) as station:
        url = f"http://127.0.0.1:{station.getsockname()[1]}/live"
        command = [*COMMAND, "--from", url, "--to", str(target), *THROUGH, "--json"]
        with subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            station.settimeout(60)
            station.accept()[0].close()  # whether anybody is there
            connection, _ = station.accept()
            with closing(connection):
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + film)
                deadline = time.monotonic() + 60
                while not traces(tmp_path):
                    assert child.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                time.sleep(2)
                child.send_signal(signal.SIGINT)
                begin = time.monotonic()
                out, said = child.communicate(timeout=30)
                took = time.monotonic() - begin
    assert child.returncode == 0, said
    assert took < 6
    assert json.loads(out)["stats"]["source_losses"] == 0
    assert len(read_film(target).flashes()) == 4
