"""Protocols that PyAV's own FFmpeg was built without (SRT, as a rule): the `ffmpeg` program helps.

It copies packets between the network and a pipe; nothing is decoded there.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Self

from realtime_sep.errors import RelayError
from realtime_sep.relay.place import Place


def reason(error: BaseException) -> str:
    """What FFmpeg or the system says of an error, without the address."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Program:
    """An `ffmpeg` between a place on the network and a pipe of ours.

    Attributes:
        url: the pipe's end, for `av.open`.
    """

    def __init__(self, place: Place, arguments: list[str], reads: bool) -> None:
        self._place = place
        program = shutil.which("ffmpeg")
        if program is None:
            raise RelayError(
                f"{place}: {place.scheme}:// needs the program ffmpeg, since PyAV came without it; "
                "install ffmpeg"
            )
        pipes = (
            {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL}
            if reads
            else {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        )
        self._said = TemporaryFile()  # noqa: SIM115 # closed with us
        self._process = subprocess.Popen(
            [program, "-hide_banner", "-loglevel", "error", "-nostats", *arguments],
            stderr=self._said,
            start_new_session=True,  # Ctrl-C is for us, who end it in order
            **pipes,  # type: ignore[call-overload]
        )
        pipe = self._process.stdout if reads else self._process.stdin
        self.url = f"pipe:{pipe.fileno()}"

    @classmethod
    def reading(cls, place: Place, timeout: float) -> Self:
        """Bytes from `place`, as they are."""
        url = _with_timeout(place, timeout)
        copy = ["-f", "data", "-i", url, "-map", "0", "-c", "copy", "-flush_packets", "1"]
        return cls(place, ["-nostdin", *copy, "-f", "data", "pipe:1"], reads=True)

    @classmethod
    def writing(cls, place: Place, timeout: float) -> Self:
        """MPEG-TS to `place`."""
        url = _with_timeout(place, timeout)
        copy = ["-copyts", "-f", "mpegts", "-i", "pipe:0", "-map", "0", "-c", "copy"]
        return cls(place, [*copy, "-f", "mpegts", url], reads=False)

    def check(self) -> None:
        """Raise RelayError if it ended with an error."""
        if self._process.wait() != 0:
            raise self.failure(EOFError("it ended"), "broke off")

    def failure(self, error: BaseException, what: str) -> RelayError:
        """The error to raise; the program's own words are the better ones."""
        self.stop()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        words = lines[-1].rpartition(": ")[2] if lines else reason(error)
        return RelayError(f"{self._place}: {what}: {words}")

    def finish(self, seconds: float) -> None:
        """Let it send what it has, and end it; RelayError if it could not."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        if self._process.poll() != 0:
            raise self.failure(TimeoutError("nobody takes it"), "cannot be completed")

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _with_timeout(place: Place, seconds: float) -> str:
    sign = "&" if "?" in place.url else "?"
    return f"{place.url}{sign}timeout={int(seconds * 1e6)}"
