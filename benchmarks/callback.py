"""How long the C callback takes, by its own clock; JSON in microseconds.

`direct` calls it again and again (warm caches: a machine's best).  `clocked` lets the null device
call it at the pace of a card (cold caches, other programs), with a worker that looks for itself
every millisecond.  `waking` has the worker wait for its wake, as a live stream does: the system
call that wakes a thread on another core is the machine's price, and comes last in the callback.

Percentiles are upper ends of quarter-octave buckets: at most 19 % too high.

    python benchmarks/callback.py [--block 128] [--channels 2] [--calls 200000] [--seconds 10]
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time

import numpy as np

from realtime_sep.native import Bridge, BridgeConfig, NullConfig, NullDevice, Ring, Wake

HOP, GUARD, RATE = 256, 64, 48000


def bridge(block: int, channels: int, waking: bool = True) -> tuple[Bridge, Ring, Ring, Wake]:
    prefill = HOP - 1 + block + GUARD
    inputs, outputs, wake = Ring(16384, channels), Ring(16384, channels), Wake()
    config = BridgeConfig(channels, channels, channels, block, HOP, GUARD, prefill, prefill)
    return Bridge(config, inputs, outputs, wake if waking else None), inputs, outputs, wake


def work(inputs: Ring, outputs: Ring) -> None:
    """A worker that passes everything through."""
    while (heard := inputs.claim_read(HOP)) is not None:
        made = outputs.claim_write(HOP)
        if made is None:
            return
        made[:] = heard
        outputs.commit_write(HOP)
        inputs.commit_read(HOP)


def report(of: Bridge) -> dict[str, float]:
    stats = of.stats()
    p50, p99, p999 = (round(value / 1e3, 3) for value in of.busy_percentiles((50, 99, 99.9)))
    return {
        "callbacks": stats.callbacks,
        "mean": round(stats.busy_total / stats.callbacks / 1e3, 3),
        "p50": p50,
        "p99": p99,
        "p99.9": p999,
        "max": round(stats.busy_max / 1e3, 3),
        "late_blocks": stats.late_blocks,
        "xruns": stats.xruns_out,
    }


def direct(block: int, channels: int, calls: int) -> dict[str, float]:
    made, inputs, outputs, _ = bridge(block, channels)
    heard = np.random.default_rng(0).uniform(-0.5, 0.5, (block, channels)).astype(np.float32)
    played = np.zeros_like(heard)
    for _ in range(calls):
        made.callback(heard, played, block)
        work(inputs, outputs)
    return report(made)


def clocked(block: int, channels: int, seconds: float, waking: bool) -> dict[str, float]:
    made, inputs, outputs, wake = bridge(block, channels, waking)
    source = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, channels)).astype(np.float32)
    config = NullConfig(
        RATE,
        channels,
        channels,
        [block],
        source,
        loop=True,
        frames=round(seconds * RATE),
        priority=70,
    )
    with NullDevice(config, made, inputs) as device:
        device.start()

        def run() -> None:
            while device.running:
                if wake.wait(0.1 if waking else 0.001) or not waking:
                    work(inputs, outputs)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    return report(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    result = {
        "block": options.block,
        "channels": options.channels,
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "direct_us": direct(options.block, options.channels, options.calls),
        "clocked_us": clocked(options.block, options.channels, options.seconds, False),
        "waking_us": clocked(options.block, options.channels, options.seconds, True),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
