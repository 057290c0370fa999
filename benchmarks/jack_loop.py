"""The live engine on a real JACK server without hardware: latency, lateness, worker times; as JSON.

    python benchmarks/jack_loop.py [--seconds 20] [--periods 64 128 256] [--separator center]

Needs `jackd` (Debian: jackd2).  The server is started under a name of its own and ends with this.
Every figure counts from the first second on, when everything is warm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from realtime_sep.stream import open_stream
from realtime_sep.types import StreamConfig


@contextmanager
def jack_server(name: str, samplerate: int, period: int) -> Iterator[None]:
    os.environ.update(
        JACK_DEFAULT_SERVER=name, JACK_NO_START_SERVER="1", JACK_NO_AUDIO_RESERVATION="1"
    )
    server = subprocess.Popen(
        f"jackd -n {name} -S -R -d dummy -r {samplerate} -p {period} -C 2 -P 2".split(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while subprocess.run(["jack_lsp"], capture_output=True).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit("jackd does not start; try: jackd -S -R -d dummy")
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


def measure(separator: str, samplerate: int, seconds: float) -> dict[str, Any]:
    config = StreamConfig(samplerate=samplerate)
    with open_stream(separator, input="system", output="system", config=config, tap=False) as s:
        time.sleep(1)
        before = s.stats
        s.wait(seconds)
        after = s.stats
        latency = s.latency
    hop_ms = 1e3 * after.hop / after.samplerate
    return {
        "separator": separator,
        "samplerate": after.samplerate,
        "period": latency.deadline,
        "hop": after.hop,
        "latency_frames": latency.frames,
        "latency_ms": round(latency.ms(latency.frames), 2),
        "seconds": round(after.elapsed - before.elapsed, 1),
        "callbacks": after.callbacks - before.callbacks,
        "late_blocks": after.late_blocks - before.late_blocks,
        "xruns": after.xruns - before.xruns,
        "worker_ms": {
            "p50": round(1e3 * after.worker_p50, 4),
            "p99": round(1e3 * after.worker_p99, 4),
            "p99.9": round(1e3 * after.worker_p999, 4),
            "max": round(1e3 * after.worker_max, 4),
        },
        "worker_p99_of_hop": round(1e3 * after.worker_p99 / hop_ms, 4),
        "callback_max_us": round(1e6 * after.callback_max, 1),
        "load_of_a_core": round(after.load, 4),
        "realtime": after.realtime,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--periods", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--samplerate", type=int, default=48000)
    parser.add_argument("--separator", default="center")
    options = parser.parse_args()
    if shutil.which("jackd") is None:
        print(json.dumps({"skipped": "jackd is not installed"}))
        return
    runs = []
    for period in options.periods:
        with jack_server(f"rtsepbench{os.getpid()}", options.samplerate, period):
            runs.append(measure(options.separator, options.samplerate, options.seconds))
    print(json.dumps({"load_average": os.getloadavg()[0], "runs": runs}, indent=2))


if __name__ == "__main__":
    main()
