"""Wakes, clocks, priorities, the watch."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from realtime_sep import native
from realtime_sep.errors import UsageError


def in_thread(function: object) -> list[object]:
    """Run in a thread of its own, whose priority and flags die with it."""
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(function()))  # type: ignore[operator]
    thread.start()
    thread.join()
    return result


def test_wake() -> None:
    with native.Wake() as wake:
        assert not wake.wait(0)
        start = time.monotonic()
        assert not wake.wait(0.02)
        assert time.monotonic() - start >= 0.02
        wake.post()
        wake.post()
        assert wake.wait(1)
        assert not wake.wait(0)
        thread = threading.Timer(0.02, wake.post)
        thread.start()
        assert wake.wait(30)  # the interpreter is free meanwhile
    with pytest.raises(TypeError):
        wake.post()


def test_clocks() -> None:
    before, cpu = time.monotonic_ns(), native.thread_cpu()
    assert native.now() >= before
    sum(range(300_000))
    assert native.thread_cpu() > cpu


def test_denormals_are_flushed_in_this_thread_only() -> None:
    def tiny() -> float:
        return float((np.full(8, 1e-38, np.float32) * np.float32(0.1)).max())

    def flushed() -> float:
        return 0.0 if native.flush_denormals() is None else tiny()

    assert in_thread(flushed) == [0.0]
    assert tiny() > 0
    with native.denormals_flushed():
        assert tiny() == 0 or native.flush_denormals() is None
    assert tiny() > 0


def test_priority_is_granted_or_explained() -> None:
    (reason,) = in_thread(lambda: native.set_realtime(5))
    assert reason is None or isinstance(reason, str)
    (refused,) = in_thread(lambda: native.set_realtime(10_000))
    assert isinstance(refused, str)


def test_memory_is_locked_or_it_is_explained() -> None:
    code = "from realtime_sep.native import lock_memory; print(lock_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip()


def test_watch() -> None:
    with native.Watch(period=1e-3, threshold=60.0, priority=0) as calm:
        with native.Watch(period=2e-4, threshold=0.0, priority=0) as nervous:
            end = time.monotonic() + 30
            while nervous.count < 10 and time.monotonic() < end:
                time.sleep(0.002)
            stalls = nervous.stalls()
        assert len(stalls) >= 10
        assert all(stall.start < stall.end <= native.now() for stall in stalls)
        assert calm.stalls() == []
        assert not calm.realtime
    with pytest.raises(UsageError):
        native.Watch(period=0)


def test_missing_extension_says_what_to_do() -> None:
    code = (
        "import sys; sys.modules['realtime_sep._native'] = None\n"
        "try:\n    import realtime_sep.native\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install" in done.stdout
    assert done.stdout.count("\n") == 1
