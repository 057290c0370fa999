"""What the worker does with a hop: the time of `Engine.process`, against the hop itself.

Everything is on: meters, guard, faders, limiter (idle and at work), on music-like noise; denormals
are flushed, as in the worker.  Prints JSON: microseconds per hop, by the clock and of processor
time (the same, but for what else the machine had to do), and the part of the hop that the 99th
percentile takes.  `--realtime` runs at the worker's priority, where that is permitted.

    python benchmarks/worker.py [--seconds 60] [--samplerate 48000] [--realtime]
"""

from __future__ import annotations

import argparse
import gc
import json
import time

import numpy as np
import numpy.typing as npt

from realtime_sep import native
from realtime_sep.engine import Engine
from realtime_sep.separators import Separator
from realtime_sep.separators.center import Center
from realtime_sep.separators.identity import Identity
from realtime_sep.types import Float32, Geometry

GEOMETRY = Geometry(2048, 512, 256)


def separators(samplerate: int) -> dict[str, Separator]:
    return {
        "identity": Identity(samplerate=samplerate, hop=GEOMETRY.hop),
        "center": Center(samplerate=samplerate, geometry=GEOMETRY),
    }


def hop_times(engine: Engine, hops: Float32, count: int) -> npt.NDArray[np.float64]:
    """Microseconds of each of `count` hops: `(count, 2)`, by the clock and of processor time."""
    out = np.empty((engine.hop, engine.out_channels), np.float32)
    times = np.empty((count, 2))
    for i in range(-50, count):  # the first ones compile, load and warm
        hop = hops[i % len(hops)]
        cpu, clock = time.thread_time_ns(), time.perf_counter_ns()
        engine.process(hop, out)
        times[i, 0] = (time.perf_counter_ns() - clock) / 1e3
        times[i, 1] = (time.thread_time_ns() - cpu) / 1e3
    return times


def figures(times: npt.NDArray[np.float64], hop_us: float) -> dict[str, float]:
    p50, p99, p999 = (round(float(p), 1) for p in np.percentile(times, [50, 99, 99.9]))
    return {
        "p50": p50,
        "p99": p99,
        "p99.9": p999,
        "p99_percent_of_hop": round(100 * p99 / hop_us, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of audio, for each case")
    parser.add_argument("--samplerate", type=int, default=48000)
    parser.add_argument("--realtime", action="store_true", help="at real-time priority")
    args = parser.parse_args()
    native.flush_denormals()
    if args.realtime and (reason := native.set_realtime(50)):
        parser.error(f"no real-time priority: {reason}")
    hop_us = 1e6 * GEOMETRY.hop / args.samplerate
    count = max(100, int(args.seconds * args.samplerate / GEOMETRY.hop))

    rng = np.random.default_rng(0)
    center = rng.standard_normal((64, GEOMETRY.hop, 1))
    sides = rng.standard_normal((64, GEOMETRY.hop, 2))
    audio = 0.08 * (center + 0.5 * sides)
    results = {}
    gc.disable()
    for case, level in {"limiter idle": 1.0, "limiter at work": 8.0}.items():
        hops = (level * audio).astype(np.float32)
        for name, separator in separators(args.samplerate).items():
            times = hop_times(Engine(separator), hops, count)
            results[f"{name}, {case}"] = {
                kind: figures(times[:, k], hop_us) for k, kind in enumerate(("clock", "processor"))
            }
    print(
        json.dumps(
            {
                "geometry": [GEOMETRY.n_fft, GEOMETRY.synthesis, GEOMETRY.hop],
                "channels": 2,
                "samplerate": args.samplerate,
                "hop_us": round(hop_us, 1),
                "hops": count,
                "realtime": args.realtime,
                "us": results,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
