"""A live stream for minutes beside processes that keep every core busy: who was late, and why.

The stream runs as users run it: in its own process, on the null device at the pace of the clock.
On each core a FIFO thread that watches its own timer tells stalls of the machine (which may stop
one core and not the other) from lateness of our own: a late block counts as ours unless such a
stall lies within what the rings hold around it.  Prints JSON.

    python benchmarks/endurance.py --seconds 600 --load
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from realtime_sep import NullSpec, Stream, StreamConfig, open_stream
from realtime_sep.native import Stall, Watch

RATE = 48000


@contextmanager
def busy_cores() -> Iterator[None]:
    """Every core busy, at normal priority."""
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def watch_each_core(threshold: float) -> list[Watch]:
    """A watch on every core; a thread begins with the affinity of the one that starts it.

    A stall that begins while the watch sleeps is seen shorter by the rest of that sleep, hence the
    short period.
    """
    cores = os.sched_getaffinity(0)
    watches = []
    try:
        for core in cores:
            os.sched_setaffinity(0, {core})
            watches.append(Watch(period=threshold / 2, threshold=threshold))
    finally:
        os.sched_setaffinity(0, cores)
    return watches


def late_events(stream: Stream, seconds: float) -> list[int]:
    """When blocks were late, in ns: the last one of every look, ten looks a second."""
    events: list[int] = []
    for _ in range(round(seconds * 10)):
        if stream.wait(0.1):
            break
        last = round(1e9 * stream.stats.last_late)
        if last and (not events or last != events[-1]):
            events.append(last)
    return events


def excused(event: int, stalls: list[Stall], reach: int) -> bool:
    """Whether the machine stalled while this block was being made."""
    return any(stall.start - reach <= event <= stall.end + reach for stall in stalls)


def nearest(event: int, stalls: list[Stall]) -> float:
    """How far the nearest stall is, in ms; negative when it came before."""
    distances = [(s.start - event if s.start > event else s.end - event) for s in stalls]
    return round(min(distances, key=abs, default=0) / 1e6, 1)


def run(
    seconds: float,
    *,
    separator: str = "center",
    options: dict[str, Any] | None = None,
    block: int = 128,
    load: bool = True,
    realtime: bool = True,
) -> dict[str, Any]:
    """Run once; the figures."""
    rng = np.random.default_rng(0)
    source = rng.uniform(-0.5, 0.5, (10 * RATE, 2)).astype(np.float32)
    stream = open_stream(
        separator,
        backend=NullSpec(source, loop=True),
        config=StreamConfig(samplerate=RATE, blocksize=block, realtime=realtime),
        separator_options=options or {},
        tap=False,
    )
    # Two small ones add up to a block: the device wakes late, then the worker.
    threshold = 0.2 * block / RATE
    with ExitStack() as stack:
        if load:
            stack.enter_context(busy_cores())
        watches = [stack.enter_context(watch) for watch in watch_each_core(threshold)]
        stack.enter_context(stream)
        events = late_events(stream, seconds)
        stats = stream.stats
        stalls = [stall for watch in watches for stall in watch.stalls()]
        watched = all(watch.realtime for watch in watches)
    reach = round(1e9 * stream.latency.bridge / RATE)
    ours = [event for event in events if not excused(event, stalls, reach)]
    hop = stats.hop / RATE
    return {
        "separator": separator,
        "options": options or {},
        "seconds": round(stats.elapsed, 1),
        "block": block,
        "hop": stats.hop,
        "load": load,
        "realtime": stats.realtime,
        "latency_frames": stream.latency.frames,
        "latency_ms": round(stream.latency.ms(), 2),
        "hops": stats.hops,
        "late_blocks": stats.late_blocks,
        "late_moments": len(events),
        "late_moments_ours": len(ours),
        "nearest_stall_to_ours_ms": [nearest(event, stalls) for event in ours],
        "xruns_of_the_device": stats.xruns,
        "stalls_of_the_machine": len(stalls),
        "stalls_seen_by_a_realtime_thread": watched,
        "part_of_time_excused": round(
            min(1.0, sum(s.end - s.start + 2 * reach for s in stalls) * 1e-9 / stats.elapsed), 4
        ),
        "longest_stall_ms": round(max((s.end - s.start for s in stalls), default=0) / 1e6, 2),
        "worker_us": {
            "p50": round(1e6 * stats.worker_p50, 1),
            "p99": round(1e6 * stats.worker_p99, 1),
            "p99.9": round(1e6 * stats.worker_p999, 1),
            "max": round(1e6 * stats.worker_max, 1),
        },
        "worker_p99_of_hop": round(stats.worker_p99 / hop, 4),
        "core_load": round(stats.load, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--separator", default="center")
    parser.add_argument("--options", type=json.loads, default={}, help="JSON")
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--load", action="store_true", help="keep all cores busy")
    parser.add_argument("--no-realtime", action="store_true")
    args = parser.parse_args()
    figures = run(
        args.seconds,
        separator=args.separator,
        options=args.options,
        block=args.block,
        load=args.load,
        realtime=not args.no_realtime,
    )
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
