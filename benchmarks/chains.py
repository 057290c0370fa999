"""What effects cost, one by one and as a chain; JSON, in microseconds a block.

Noise goes through block after block, as fast as it can: warm caches, one core.  `chain` is a
singer's, of eight built-in effects in their slots (guard, dry signal and fades included).  `p50`
and `p99` are of single blocks; `mean` is that of runs of 64 blocks, in the tenth of them that the
machine disturbed least, and `share` its part of a core.

    python benchmarks/chains.py [--block 128] [--channels 2] [--seconds 20]
"""

from __future__ import annotations

import argparse
import json
import os
import time

import numpy as np

from realtime_sep.effects import Effect
from realtime_sep.plugins import available_effects, load_chain, load_effect

RATE = 48000
CHAIN = "highpass|gate|compressor|deesser|eq:mid=3|echo|reverb|limiter"


def measure(effect: Effect, block: int, channels: int, seconds: float) -> dict[str, float]:
    effect.prepare(RATE, channels, block)
    blocks = np.random.default_rng(0).uniform(-0.3, 0.3, (64, block, channels)).astype(np.float32)
    work = np.empty((block, channels), np.float32)
    count = round(seconds * RATE / block)
    took = np.empty(count)
    for i in range(-100, count):
        work[:] = blocks[i % 64]
        begin = time.perf_counter_ns()
        effect.process(work)
        took[i] = time.perf_counter_ns() - begin
    took /= 1e3
    p50, p99 = np.percentile(took, (50, 99))
    means = took[: count // 64 * 64].reshape(-1, 64).mean(axis=1)
    mean = float(np.percentile(means, 10))
    return {
        "mean": round(mean, 2),
        "p50": round(float(p50), 2),
        "p99": round(float(p99), 2),
        "share": round(mean / (1e6 * block / RATE), 5),
        "latency_frames": effect.latency,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    shape = options.block, options.channels
    result = {
        "block": options.block,
        "channels": options.channels,
        "cores": os.cpu_count(),
        "chain": {"text": CHAIN, **measure(load_chain(CHAIN), *shape, options.seconds)},
        "effects": {
            name: measure(load_effect(name), *shape, options.seconds / 4)
            for name in available_effects()
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
