"""What it costs to run an effect in a process of its own; JSON, in microseconds and frames.

One block after another goes at the pace of a card to the built-in gain in this process (`here`), in
a helper's (`isolated`), and to an effect that does nothing there (`nothing`), from a thread as
urgent as the worker where that is permitted.

`call` is what a block costs the worker: `Effect.process`, from call to return.
`hand_over` is from the call until the block's result lies in this process's memory; it must be less
than a block, for the worker takes it with the next one.
`there_and_back` is until somebody in this process who waits for that runs, which nobody has to.
`system` is there and back with nothing else: two processes that wake each other.

    python benchmarks/hosted.py [--block 128] [--channels 2] [--seconds 10]
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from realtime_sep import native
from realtime_sep.effects import Effect
from realtime_sep.effects.gain import Gain
from realtime_sep.effects.isolated import Helper, Isolated
from realtime_sep.effects.protocol import Late
from realtime_sep.rig import PRIORITY
from realtime_sep.types import Float32

RATE = 48000


class Nothing:
    """Leaves every block as it is."""

    parameters, latency = (), 0

    def prepare(self, *_: int) -> None: ...

    def process(self, block: Float32) -> None: ...


def percentiles(ns: list[int]) -> dict[str, float]:
    p50, p99, worst = np.percentile(ns, (50, 99, 100)) / 1e3
    return {"p50": round(p50, 1), "p99": round(p99, 1), "max": round(worst, 1)}


def paced(block: int, seconds: float) -> Iterator[None]:
    """As often as a card asks for a block."""
    due = native.now()
    for _ in range(round(seconds * RATE / block)):
        due += round(1e9 * block / RATE)
        time.sleep(max(0.0, (due - native.now()) * 1e-9))
        yield


def measure(effect: Effect, block: int, channels: int, seconds: float) -> dict[str, object]:
    effect.prepare(RATE, channels, block)
    audio = np.random.default_rng(0).uniform(-0.1, 0.1, (block, channels)).astype(np.float32)
    for _ in range(100):
        effect.process(audio.copy())
    if isinstance(effect, Isolated):
        effect.realtime = True
    calls, hands, trips, late = [], [], [], 0
    for _ in paced(block, seconds):
        copy, begin = audio.copy(), native.now()
        try:
            effect.process(copy)
        except Late:
            late += 1
        calls.append(native.now() - begin)
        if isinstance(effect, Isolated):
            made = effect.await_all(1.0)
            trips.append(native.now() - begin)
            hands.append(made - begin)
    result: dict[str, object] = {"latency_frames": effect.latency, "call": percentiles(calls)}
    if isinstance(effect, Isolated):
        result |= {"hand_over": percentiles(hands), "there_and_back": percentiles(trips)}
        result["late"] = late
    return result


def isolated(what: str, block: int, channels: int, seconds: float) -> dict[str, object]:
    effect = Isolated(Helper(), what)
    try:
        return measure(effect, block, channels, seconds)
    finally:
        effect.close()


def system(block: int, seconds: float) -> dict[str, float]:
    """Two processes that wake each other."""
    memory = os.memfd_create("wake")
    os.ftruncate(memory, 2 * mmap.PAGESIZE)
    words = [sys.executable, __file__, "--echo", str(memory)]
    with subprocess.Popen(words, pass_fds=[memory]) as echo:
        there, back = pages(memory)
        native.Hatch.called(back, 20.0)
        trips = []
        for _ in paced(block, seconds):
            begin = native.now()
            native.Hatch.call(there)
            native.Hatch.called(back, 1.0)
            trips.append(native.now() - begin)
        echo.kill()
    return percentiles(trips)


def pages(memory: int) -> tuple[memoryview, memoryview]:
    both = memoryview(mmap.mmap(memory, 2 * mmap.PAGESIZE))
    return both[: mmap.PAGESIZE], both[mmap.PAGESIZE :]


def echo(memory: int) -> None:
    """The other one of them."""
    native.set_realtime(PRIORITY - 2)
    there, back = pages(memory)
    native.Hatch.call(back)
    while native.Hatch.called(there, 5.0):
        native.Hatch.call(back)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--echo", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.echo is not None:
        echo(options.echo)
        return
    shape = options.block, options.channels, options.seconds
    refused = native.set_realtime(PRIORITY)
    result = {
        "block": options.block,
        "cores": os.cpu_count(),
        "realtime": refused or "granted",
        "system": system(options.block, options.seconds),
        "here": measure(Gain(), *shape),
        "isolated": isolated("realtime_sep.effects.gain:Gain", *shape),
        "nothing": isolated("hosted:Nothing", *shape),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
