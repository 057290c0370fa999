"""What it costs to run an effect in a process of its own; JSON, in microseconds and frames.

One block after another goes to the built-in gain at the pace of a card, in this process (`here`)
and in a helper's (`isolated`), from a thread as urgent as the worker where that is permitted.

`call` is what a block costs the worker: `Effect.process`, from call to return.
`hand_over` is the way there and back: from the call until the block's result is back in this
process and whoever waits for it runs; it must be less than a block.

    python benchmarks/hosted.py [--block 128] [--channels 2] [--seconds 10]
"""

from __future__ import annotations

import argparse
import json
import os
import time

import numpy as np

from realtime_sep import native
from realtime_sep.effects import Effect
from realtime_sep.effects.gain import Gain
from realtime_sep.effects.isolated import Helper, Isolated
from realtime_sep.effects.protocol import Late
from realtime_sep.rig import PRIORITY

RATE = 48000


def percentiles(ns: list[int]) -> dict[str, float]:
    p50, p99, worst = np.percentile(ns, (50, 99, 100)) / 1e3
    return {"p50": round(p50, 1), "p99": round(p99, 1), "max": round(worst, 1)}


def measure(effect: Effect, block: int, channels: int, seconds: float) -> dict[str, object]:
    effect.prepare(RATE, channels, block)
    audio = np.random.default_rng(0).uniform(-0.1, 0.1, (block, channels)).astype(np.float32)
    for _ in range(100):
        effect.process(audio.copy())
    if isinstance(effect, Isolated):
        effect.realtime = True
    calls, trips, late = [], [], 0
    due = native.now()
    for _ in range(round(seconds * RATE / block)):
        due += round(1e9 * block / RATE)
        time.sleep(max(0.0, (due - native.now()) * 1e-9))
        copy, begin = audio.copy(), native.now()
        try:
            effect.process(copy)
        except Late:
            late += 1
        calls.append(native.now() - begin)
        if isinstance(effect, Isolated):
            effect.await_all(1.0)
            trips.append(native.now() - begin)
    result: dict[str, object] = {"latency_frames": effect.latency, "call": percentiles(calls)}
    if trips:
        result |= {"hand_over": percentiles(trips), "late": late}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    shape = options.block, options.channels, options.seconds
    isolated = Isolated(Helper(), "realtime_sep.effects.gain:Gain")
    refused = native.set_realtime(PRIORITY)
    result = {
        "block": options.block,
        "cores": os.cpu_count(),
        "realtime": refused or "granted",
        "here": measure(Gain(), *shape),
        "isolated": measure(isolated, *shape),
    }
    isolated.close()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
