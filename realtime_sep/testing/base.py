"""What the checks of separators and effects share: signals, measurements, and how they are run."""

from __future__ import annotations

import inspect
import time
import tracemalloc
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import numpy as np

from realtime_sep.errors import unknown
from realtime_sep.types import Float32

#: A correlation is recognised where its peak stands out of the rest by this factor.
_CLEAR = 8.0


class Conformance:
    """A suite of checks, one method `test_...` each.

    Set the attributes in a subclass called `Test...`, or give them to `check_effect` and
    `check_separator`.

    Attributes:
        plugin: a name, or a class or function that makes one.
        samplerate, channels: of most checks, in Hz.
        rates, layouts: sample rates and channel counts that it must run at, each with each.
        seconds: of sound that most checks use.
        tail: seconds of silence after which it must have become silent.
        tolerance: by how much samples may differ that should be the same; 0 is bit for bit.
        realtime: how much of one core it may take, 0..1.
        scratch: bytes that one call may allocate for small objects; audio does not fit in.
    """

    plugin: ClassVar[Any] = None
    samplerate: ClassVar[int] = 48000
    channels: ClassVar[int] = 2
    rates: ClassVar[tuple[int, ...]] = (44100, 48000)
    layouts: ClassVar[tuple[int, ...]] = (1, 2)
    seconds: ClassVar[float] = 0.5
    tail: ClassVar[float] = 10.0
    tolerance: ClassVar[float] = 1e-6
    realtime: ClassVar[float] = 0.25
    scratch: ClassVar[int] = 2048

    def setup_method(self) -> None:
        self._open: list[Any] = []

    def teardown_method(self) -> None:
        for made in self._open:
            if (close := getattr(made, "close", None)) is not None:
                close()
        self._open.clear()

    def _factory(self) -> Any:
        """`plugin` as it was written: a function is not a method of the suite."""
        return inspect.getattr_static(self, "plugin")

    def _frames(self, seconds: float | None = None) -> int:
        return round((self.seconds if seconds is None else seconds) * self.samplerate)

    def _same(self, got: Float32, expected: Float32, what: str) -> None:
        """Fail, saying `what`, where two signals differ by more than the tolerance."""
        difference = np.abs(got.astype(np.float64) - expected)
        largest = float(difference.max(initial=0))
        if not largest <= self.tolerance:
            frame = int((~(difference <= self.tolerance)).argmax(axis=-2).min())
            raise AssertionError(f"{what} (they differ by up to {largest:.3g}, from {frame} on)")


def failures(suite: type[Conformance], skip: Collection[str] = ()) -> dict[str, str]:
    """Run a suite: what went wrong, by the name of the check; nothing is well."""
    names = [n for n in dir(suite) if n.startswith("test_") and callable(getattr(suite, n))]
    for name in skip:
        if name not in names:
            raise unknown("check", name, names)
    wrong = {}
    for name in names:
        if name in skip:
            continue
        case = suite()
        case.setup_method()
        try:
            getattr(case, name)()
        except Exception as error:
            said = str(error) if isinstance(error, AssertionError) else repr(error)
            wrong[name] = said
        finally:
            case.teardown_method()
    return wrong


def check(
    base: type[Conformance], plugin: Any, skip: Collection[str], settings: Mapping[str, Any]
) -> None:
    """Run `base` over a plugin and raise one AssertionError that tells all that is wrong."""
    __tracebackhide__ = True  # pytest shows the message, not how it came about
    known = [n for n in dir(base) if not n.startswith("_") and not callable(getattr(base, n))]
    for name in settings:
        if name not in known:
            raise unknown("setting", name, known)
    suite = type(base.__name__, (base,), {"plugin": plugin, **settings})
    wrong = failures(suite, skip)
    if wrong:
        lines = [f"{name}: {said}" for name, said in wrong.items()]
        raise AssertionError(
            f"{getattr(plugin, '__name__', plugin)} breaks {len(wrong)} promise(s):\n  "
            + "\n  ".join(lines)
        )


def noise(frames: int, channels: int, seed: int = 0, level: float = 0.3) -> Float32:
    """White, independent in every channel, `(frames, channels)`."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-level, level, (frames, channels)).astype(np.float32)


def poison(frames: int, channels: int) -> Float32:
    """Noise with everything in it that is not a number, and nothing else at its end."""
    audio = noise(frames, channels)
    for i, bad in enumerate((3e38, np.inf, -np.inf)):
        audio[(i + 1) * frames // 5] = bad
    audio[4 * frames // 5 :] = np.nan
    return audio


def lag(late: Float32, early: Float32) -> int | None:
    """Frames by which `late` follows `early`: where their correlation, over all channels, is
    largest.  None where it stands out nowhere."""
    size = 1 << (len(late) + len(early)).bit_length()
    spectrum = np.zeros(size // 2 + 1, np.complex128)
    for a, b in zip(late.T, early.T, strict=True):
        spectrum += np.fft.rfft(a.astype(np.float64), size) * np.fft.rfft(b, size).conj()
    correlation = np.abs(np.fft.irfft(spectrum, size)[: len(late)])
    peak = int(correlation.argmax())
    rest = float(np.sqrt(np.mean(np.square(correlation))))
    return peak if correlation[peak] > _CLEAR * rest else None


def decibels(audio: Float32) -> float:
    """Of the mean square."""
    return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64)) + 1e-30))


def allocated(call: Callable[[], object], times: int) -> tuple[int, int]:
    """Bytes kept after many calls, and the most that was held during one of them."""

    def repeat() -> None:
        for _ in range(times):
            call()

    repeat()
    tracemalloc.start()
    try:
        repeat()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        repeat()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before, peak - before


def quickest(call: Callable[[], object], times: int, rounds: int = 4) -> float:
    """Seconds for `times` calls, in the round that the machine disturbed least."""
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(times):
            call()
        best = min(best, time.perf_counter() - begin)
    return best
