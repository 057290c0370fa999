"""Real servers on loopback: Icecast, nginx with RTMP, HLS, UDP, SRT; lost and found again."""

from __future__ import annotations

import functools
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_servers import Process, need, until

from realtime_sep import separate
from realtime_sep.types import Float32

from .conftest import COMMAND, ENVIRONMENT
from .media import Film, make_film, read_film
from .servers import Icecast, Rtmp, free_port, send
from .test_files import song

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

THROUGH = ("--model", "identity", "--vocals", "0")
#: Seconds that a busy machine may take for what takes one.
SOON = 30.0


class Relaying:
    """`realtime-sep stream` in a process of its own."""

    def __init__(self, source: object, target: object, *more: object) -> None:
        command = [*COMMAND, "--from", str(source), "--to", str(target), "--json"]
        self._process = subprocess.Popen(
            [*command, *map(str, more or THROUGH)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said += line

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return 4096 * pages

    def has_said(self, words: str) -> None:
        until(lambda: words in self.said or not self.running, SOON, words)
        assert words in self.said

    def end(self, seconds: float = SOON) -> dict[str, Any]:
        """Ctrl-C, unless it ends by itself; its report."""
        if self.running:
            self._process.send_signal(signal.SIGINT)
        assert self._process.stdout is not None
        out = self._process.stdout.read()
        self.status = self._process.wait(seconds)
        self._listener.join(5)
        assert "Traceback" not in self.said, self.said
        return dict(json.loads(out))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def relaying(*arguments: object) -> Iterator[Relaying]:
    running = Relaying(*arguments)
    try:
        yield running
    finally:
        running.kill()


@contextmanager
def sending(*arguments: Any) -> Iterator[Process]:
    process = send(*arguments)
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
def icecast(tmp_path: Path) -> Iterator[Icecast]:
    with Icecast(tmp_path) as server:
        yield server


@pytest.fixture
def rtmp(tmp_path: Path) -> Iterator[Rtmp]:
    with Rtmp(tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return make_film(path, seconds=90, video="libx264", audio="aac", bf=2)


def record(url: str, target: Path, seconds: float) -> Film:
    """What a listener hears and sees, as it is: FFmpeg copies it."""
    need("ffmpeg")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-rw_timeout", "20000000", "-i", url]
    subprocess.run([*command, "-t", str(seconds), "-c", "copy", "-y", target], timeout=60)
    return read_film(target)


def being_written(directory: Path) -> bool:
    """Whether an output file has been begun."""
    return any(directory.glob(".*.part"))


def in_time(film: Film, tolerance: float = 2e-3) -> None:
    """Every flash of a recording has its beep, all in the same distance."""
    last = len(film.sound) / film.samplerate + film.begin - 0.1
    offsets = [o for f, o in zip(film.flashes(), film.offsets(), strict=True) if f < last]
    assert len(offsets) >= 2
    np.testing.assert_allclose(offsets, 0, atol=tolerance)


# --- Icecast -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mount", ["live.mp3", "live.opus"])
def test_radio_from_radio(icecast: Icecast, tmp_path: Path, mount: str) -> None:
    """A listener of the relayed station hears what a listener of the first one would."""
    film = make_film(tmp_path / "in.mkv", seconds=60, video=None, sound=np.tile(song(2), (30, 1)))
    with (
        relaying(film, icecast.url("first.flac")) as first,
        on_air(icecast, "first.flac", first),
        relaying(icecast.listen("first.flac"), icecast.url(mount), "--model", "center") as second,
        on_air(icecast, mount, second),
    ):
        karaoke = separate(np.tile(song(2), (4, 1)), 48000, "center")["accompaniment"][96000:]
        for _ in range(3):  # who listens while the machine stalls hears a gap
            level, voice = judged(record(icecast.listen(mount), tmp_path / "heard.mka", 4), karaoke)
            if abs(level) < 1 and voice < 0.05:
                break
        report = second.end()
    assert second.status == 0
    assert report["live"] is True
    assert abs(level) < 1  # the instrument is there as it was
    assert voice < 0.05  # and the voice is gone


def judged(heard: Film, karaoke: Float32) -> tuple[float, float]:
    """The instrument's level in dB against what it should be; the voice's against it."""
    rate = heard.samplerate
    spectrum, expected = (
        np.abs(np.fft.rfft(x[rate // 2 : rate // 2 + 2 * rate, 0] * np.hanning(2 * rate)))
        for x in (heard.sound, karaoke)
    )
    level = 20 * np.log10(spectrum[2 * 660] / expected[2 * 660])
    return float(level), float(spectrum[2 * 400 : 2 * 480].max() / spectrum[2 * 660])


@contextmanager
def on_air(icecast: Icecast, mount: str, sender: Relaying) -> Iterator[None]:
    until(lambda: icecast.has(mount) or not sender.running, SOON, mount)
    assert sender.running, sender.said
    yield


def test_wrong_password(icecast: Icecast, film: Path) -> None:
    with relaying(film, icecast.url("live.mp3", "wrong")) as running:
        until(lambda: not running.running, SOON, "the end")
        with suppress(json.JSONDecodeError):
            running.end()
        assert running.status == 1
        assert "does not accept the password" in running.said
        assert "wrong@" not in running.said


def test_radio_server_is_restarted(icecast: Icecast, tmp_path: Path, film: Path) -> None:
    with relaying(film, icecast.url("live.mp3")) as running:
        until(lambda: icecast.has("live.mp3"), SOON, "the station")
        icecast.process.kill()
        running.has_said("trying again")
        icecast.start()
        running.has_said("is back")
        until(lambda: icecast.has("live.mp3"), SOON, "the station")
        heard = record(icecast.listen("live.mp3"), tmp_path / "heard.mp3", 3)
        report = running.end()
    assert report["stats"]["target_losses"] == 1
    assert report["stats"]["lost"] > 0
    assert len(heard.beeps()) >= 2


def test_stalled_source_is_silence(
    icecast: Icecast, rtmp: Rtmp, tmp_path: Path, film: Path
) -> None:
    """The sender is stopped for 6 s: listeners stay, and hear silence meanwhile."""
    with (
        sending(film, rtmp.url("in"), tmp_path / "send.log") as sender,
        relaying(rtmp.url("in"), icecast.url("live.flac")) as running,
        on_air(icecast, "live.flac", running),
    ):
        listener = threading.Thread(
            target=record, args=(icecast.listen("live.flac"), tmp_path / "heard.flac", 11)
        )
        listener.start()
        time.sleep(2)
        sender.send(signal.SIGSTOP)
        time.sleep(6)
        sender.send(signal.SIGCONT)
        listener.join()
        report = running.end()
    heard = read_film(tmp_path / "heard.flac")
    assert running.status == 0
    assert report["stats"]["target_losses"] == 0
    length = len(heard.sound) / heard.samplerate  # from where the listener came in
    assert length > 7
    # Less than six: what the server had sent ahead is used up first, and then a second of patience.
    assert report["stats"]["silent"] > 1
    assert max(np.diff([0.0, *(beep - heard.begin for beep in heard.beeps()), length])) > 2


# --- RTMP ----------------------------------------------------------------------------------------


def test_film_through_rtmp(rtmp: Rtmp, tmp_path: Path, film: Path) -> None:
    """RTMP in, RTMP out: flashes and beeps arrive together, the voice's delay notwithstanding."""
    with (
        sending(film, rtmp.url("in"), tmp_path / "send.log"),
        relaying(rtmp.url("in"), rtmp.url("out"), "--model", "center") as run,
    ):
        out = record(rtmp.url("out"), tmp_path / "out.mkv", 5)
        report = run.end()
    assert run.status == 0
    assert report["live"] is True
    assert report["video"] is True
    in_time(out)
    # Before the encoder, and on a machine that does other things, too.
    assert report["stats"]["delay_p50"] < 0.2


def test_sender_is_restarted(rtmp: Rtmp, tmp_path: Path, film: Path) -> None:
    """A new sender counts from zero; the server has kept us, or not: the film goes on in time."""
    target = tmp_path / "out.mp4"
    with relaying_after(rtmp, film, tmp_path, target) as (running, sender):
        time.sleep(3)
        sender.kill()
        time.sleep(4)  # longer than what the server had sent ahead
        with sending(film, rtmp.url("in"), tmp_path / "again.log"):
            time.sleep(5)
            report = running.end()
    assert running.status == 0
    out = read_film(target)
    assert report["stats"]["silent"] > 0.5
    times = np.array(out.flashes())
    assert np.all(np.diff(times) > 0.5)
    assert len(times) >= 5
    in_time(out)


@contextmanager
def relaying_after(
    rtmp: Rtmp, film: Path, tmp_path: Path, target: object
) -> Iterator[tuple[Relaying, Process]]:
    with (
        sending(film, rtmp.url("in"), tmp_path / "send.log") as sender,
        relaying(rtmp.url("in"), target) as running,
    ):
        if isinstance(target, Path):
            until(lambda: being_written(tmp_path), SOON, "the file")
        yield running, sender


def test_server_is_restarted(rtmp: Rtmp, tmp_path: Path, film: Path) -> None:
    """Both ends go with it; both come back, and the picture begins with a whole one."""
    with relaying_after(rtmp, film, tmp_path, rtmp.url("out")) as (running, _):
        record(rtmp.url("out"), tmp_path / "before.mkv", 1)  # both ends are up
        rtmp.process.kill()
        running.has_said("trying again")
        rtmp.start()
        with sending(film, rtmp.url("in"), tmp_path / "again.log"):
            until(lambda: running.said.count("is back") >= 2, SOON, "both ends")
            out = record(rtmp.url("out"), tmp_path / "out.mkv", 4)
            report = running.end()
    assert running.status == 0
    assert report["stats"]["source_losses"] == 1
    assert report["stats"]["target_losses"] >= 1
    in_time(out)


def test_source_that_does_not_come_back(rtmp: Rtmp, tmp_path: Path, film: Path) -> None:
    """The file is complete; the status says that the source was lost."""
    target = tmp_path / "out.mp4"
    with (
        sending(film, rtmp.url("in"), tmp_path / "send.log"),
        relaying(rtmp.url("in"), target, *THROUGH, "--reconnect", 2) as running,
    ):
        until(lambda: being_written(tmp_path), SOON, "the file")
        time.sleep(3)
        rtmp.process.kill()
        until(lambda: not running.running, SOON, "the end")
        report = running.end()
    assert running.status == 1
    assert "did not come back" in report["error"]
    in_time(read_film(target))


# --- HLS, UDP, SRT -------------------------------------------------------------------------------


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_server(directory: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_hls(tmp_path: Path) -> None:
    """A finished programme: as a file, every second of it."""
    need("ffmpeg")
    film = make_film(tmp_path / "in.mp4", seconds=8, video="libx264", audio="aac")
    segments = tmp_path / "www"
    segments.mkdir()
    command = ["ffmpeg", "-v", "error", "-i", film, "-c", "copy", "-f", "hls", "-hls_time", "2"]
    subprocess.run([*command, "-hls_list_size", "0", segments / "live.m3u8"], check=True)
    with web_server(segments) as url, relaying(f"{url}/live.m3u8", tmp_path / "out.mp4") as run:
        until(lambda: not run.running, SOON, "the end")
        report = run.end()
    assert run.status == 0
    assert report["live"] is False
    out = read_film(tmp_path / "out.mp4")
    assert len(out.flashes()) == 8
    in_time(out, 1e-4)


def test_hls_live(tmp_path: Path, film: Path) -> None:
    """A programme that goes on: its segments come in bursts, which is no stall."""
    need("ffmpeg")
    segments = tmp_path / "www"
    segments.mkdir()
    play = ["ffmpeg", "-nostdin", "-v", "error", "-re", "-i", str(film), "-c", "copy", "-f", "hls"]
    options = ["-hls_time", "1", "-hls_list_size", "4", "-hls_flags", "delete_segments"]
    sender = Process([*play, *options, str(segments / "live.m3u8")], tmp_path / "hls.log")
    try:
        until((segments / "live.m3u8").exists, SOON, "the playlist")
        with (
            web_server(segments) as url,
            relaying(f"{url}/live.m3u8", tmp_path / "out.mp4") as run,
        ):
            until(lambda: being_written(tmp_path), SOON, "the file")
            time.sleep(6)
            report = run.end()
    finally:
        sender.stop()
    assert run.status == 0
    assert report["live"] is True
    assert report["stats"]["silent"] < 0.1
    in_time(read_film(tmp_path / "out.mp4"), 1e-4)


def _out_and_in(scheme: str, listener: str, caller: str, tmp_path: Path, film: Path) -> None:
    """Sent to a relay that sends to a relay that writes a file."""
    target = tmp_path / "out.mp4"
    with relaying(listener, target) as receiver, relaying(film, caller) as sender:
        until(lambda: being_written(tmp_path) or not receiver.running, SOON, scheme)
        assert receiver.running, receiver.said
        time.sleep(5)
        sender.end()
        report = receiver.end()
    assert sender.status == 0, sender.said
    assert receiver.status == 0, receiver.said
    assert report["live"] is True
    in_time(read_film(target), 1e-4)


def test_udp(tmp_path: Path, film: Path) -> None:
    url = f"udp://127.0.0.1:{free_port(2)}"
    _out_and_in("udp", url, url, tmp_path, film)


def test_srt(tmp_path: Path, film: Path) -> None:
    need("ffmpeg")
    protocols = subprocess.run(["ffmpeg", "-v", "error", "-protocols"], capture_output=True)
    if b"srt" not in protocols.stdout:
        pytest.skip("this ffmpeg has no SRT")
    url = f"srt://127.0.0.1:{free_port(2)}"
    _out_and_in("srt", f"{url}?mode=listener", url, tmp_path, film)


def test_garbage_over_udp(tmp_path: Path) -> None:
    """Datagrams of noise: one line, and no file."""
    port = free_port(socket.SOCK_DGRAM)
    stop = threading.Event()

    def shout() -> None:
        noise = np.random.default_rng(0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not stop.wait(0.002):
                with suppress(OSError):
                    sender.sendto(noise.bytes(1316), ("127.0.0.1", port))

    threading.Thread(target=shout, daemon=True).start()
    with relaying(f"udp://127.0.0.1:{port}", tmp_path / "out.mp4") as running:
        until(lambda: not running.running, 60, "the end")
        stop.set()
        with suppress(json.JSONDecodeError):
            running.end()
    assert running.status == 1
    assert running.said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# --- at length -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_stays(rtmp: Rtmp, tmp_path: Path, film: Path) -> None:
    """A film of any length passes through."""
    with relaying_after(rtmp, film, tmp_path, tmp_path / "out.mkv") as (running, _):
        time.sleep(5)
        before = running.memory
        time.sleep(10)
        after = running.memory
        running.end()
    assert after - before < 10e6


@pytest.mark.slow
def test_unplugged_network(tmp_path: Path, film: Path) -> None:
    """A sender that vanishes without a word (UDP knows no end): given up in time, file complete."""
    port = free_port(2)
    url = f"udp://127.0.0.1:{port}"
    with (
        sending(film, f"{url}?pkt_size=1316", tmp_path / "send.log") as sender,
        relaying(url, tmp_path / "out.mp4", *THROUGH, "--reconnect", 1) as running,
    ):
        until(lambda: being_written(tmp_path), SOON, "the file")
        time.sleep(3)
        sender.kill()
        begin = time.monotonic()
        until(lambda: not running.running, 60, "the end")
        took = time.monotonic() - begin
        report = running.end()
    assert took < 45
    assert running.status == 1
    assert "nothing came for 10 s" in running.said
    assert "did not come back" in report["error"]
    in_time(read_film(tmp_path / "out.mp4"), 1e-4)
