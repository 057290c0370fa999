"""Records stems and buses of a running stream, in a thread of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import platformdirs

from realtime_sep.control.takes import FORMATS, Format, Take, new_take
from realtime_sep.errors import AudioFileError, RealtimeSepError, UsageError, unknown
from realtime_sep.parameters import MUSIC, VOCALS
from realtime_sep.stream import Block
from realtime_sep.types import Float32, SeparatorInfo

OUTPUT, INPUT = "output", "input"
#: Blocks that wait for a slow disk; at 48 kHz and 256 frames half a minute.
_WAITING = 6000
#: Longest gap (frames) that is filled with silence; beyond it the audio simply goes on.
_LONGEST_GAP = 1 << 24


def recordings() -> Path:
    """Where recordings go unless told otherwise."""
    return Path(platformdirs.user_music_dir()) / "realtime-sep"


def buses(stems: Sequence[str], beside: Sequence[str] = ()) -> tuple[str, ...]:
    """Everything that can be recorded of a stream with these stems.

    Args:
        beside: `Stream.buses_beside`.
    """
    others = [stem for stem in stems if stem not in (VOCALS, MUSIC)]
    music = [MUSIC] if len(others) > 1 else []
    return tuple(dict.fromkeys((OUTPUT, INPUT, *stems, *music, *beside)))


def check_buses(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Whether these can be recorded.

    Args:
        known: `buses(...)`.

    Raises:
        UsageError: there is no such bus, or none is wanted.
    """
    for name in wanted:
        if name not in known:
            raise unknown("bus", name, known)
    if not wanted:
        raise UsageError("say what to record: " + ", ".join(known))


@dataclass(frozen=True)
class Recording:
    """What is being recorded.

    Attributes:
        files: by bus.
        seconds: so far.
    """

    take: int
    files: dict[str, Path]
    seconds: float


class Recorder:
    """Takes blocks of a stream (`write`) and keeps the chosen buses in files.

    Args:
        directory: made when it is needed.
        tell: called with a line for people when a recording ends by itself, in another thread; may
            be set later.
    """

    def __init__(
        self, directory: Path | None = None, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        self.directory = recordings() if directory is None else directory
        self.tell = tell
        self._take = 0
        self._lock = threading.Lock()
        self._writer: _Writer | None = None

    def start(
        self,
        wanted: Sequence[str],
        info: SeparatorInfo,
        format: Format = "flac",
        *,
        beside: Sequence[str] = (),
    ) -> Recording:
        """Begin a take.

        Args:
            wanted: of `buses(info.stems, beside)`.
            info: of the stream.
            beside: `Stream.buses_beside`.

        Raises:
            UsageError: it records already, or there is no such bus or format.
            AudioFileError: a file cannot be made.
        """
        check_buses(wanted, buses(info.stems, beside))
        if format not in FORMATS:
            raise unknown("format", format, FORMATS)
        with self._lock:
            if self._writer is not None and self._writer.is_alive():
                raise UsageError("a recording is under way; stop it first")
            self._take += 1
            takes: dict[str, Take] = {}
            try:
                for bus, path in self._files(wanted, format).items():
                    takes[bus] = new_take(path, info.samplerate, info.channels, format)
            except RealtimeSepError:
                for take in takes.values():
                    take.close()
                    take.path.unlink(missing_ok=True)
                raise
            writer = _Writer(self._take, takes, info.samplerate, self.tell)
            writer.start()
            self._writer = writer
        return writer.recording

    def _files(self, wanted: Sequence[str], format: Format) -> dict[str, Path]:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AudioFileError(
                f"{self.directory}: cannot be made: {error.strerror or error}"
            ) from error
        now = datetime.now().strftime("%Y-%m-%d %H.%M.%S")
        return {
            bus: self.directory / f"{now} take {self._take} {bus}.{format}"
            for bus in dict.fromkeys(wanted)
        }

    def write(self, block: Block) -> None:
        """Take the next block; costs nothing while nothing is recorded, and never waits."""
        if (writer := self._writer) is not None:
            writer.put(block)

    def stop(self) -> Recording | None:
        """End the take; what was recorded, or None."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is None:
            return None
        writer.finish()
        return writer.recording

    @property
    def recording(self) -> Recording | None:
        """What is being recorded now."""
        writer = self._writer
        return writer.recording if writer is not None and writer.is_alive() else None


class _Writer(threading.Thread):
    """One take."""

    def __init__(
        self, number: int, takes: dict[str, Take], samplerate: int, tell: Callable[[str], None]
    ) -> None:
        super().__init__(name="realtime_sep recorder", daemon=True)
        self._number, self._takes, self._samplerate, self._tell = number, takes, samplerate, tell
        self._queue: queue.Queue[Block | None] = queue.Queue(_WAITING)
        self._time: int | None = None
        self._frames = 0

    @property
    def recording(self) -> Recording:
        files = {bus: take.path for bus, take in self._takes.items()}
        return Recording(self._number, files, self._frames / self._samplerate)

    def put(self, block: Block) -> None:
        with contextlib.suppress(queue.Full):  # what is missing becomes silence
            self._queue.put_nowait(block)

    def finish(self) -> None:
        self._queue.put(None)
        self.join()

    def run(self) -> None:
        try:
            while (block := self._queue.get()) is not None:
                self._store(block)
        except RealtimeSepError as error:
            self._tell(f"recording stopped: {error}; what was recorded before is kept")
        finally:
            for take in self._takes.values():
                take.close()
                if take.frames == 0:
                    take.path.unlink(missing_ok=True)

    def _store(self, block: Block) -> None:
        # The time at which it was heard; what the reader of the stems missed is silence.
        time = block.start + block.latency
        gap = 0 if self._time is None else time - self._time
        gap = gap if 0 < gap <= _LONGEST_GAP else 0
        for bus, take in self._takes.items():
            audio = _audio(block, bus)
            if gap:
                take.write(np.zeros((gap, audio.shape[1]), np.float32))
            take.write(audio)
        self._time = time + len(block.mix)
        self._frames += gap + len(block.mix)


def _audio(block: Block, bus: str) -> Float32:
    if bus == OUTPUT:
        return block.output
    if bus == INPUT:
        return block.mix
    if bus in block.stems:
        return block.stems[bus]
    if bus in block.beside:
        return block.beside[bus]
    music = [stem for name, stem in block.stems.items() if name != VOCALS]
    total: Float32 = np.sum(music, axis=0, dtype=np.float32)
    return total
