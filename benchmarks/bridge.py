"""What a plugin in another program costs: time in the host's thread, round trip, load; as JSON.

    python benchmarks/bridge.py [--seconds 20] [--block 256] [--rate 48000] [--model 1]

Plays noise through the LADSPA plugin at the pace of a clock, as a host would.  The round trip is
from the hop's handing over to its being finished, and is measured by waiting for it: that is the
plugin's offline mode, so it comes after what is live.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from realtime_sep import native
from realtime_sep.bridge import install

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "bridge"))
from ladspa_host import Plugin

#: Seconds until everything is warm, and the engine is heard.
WARM = 8.0


def percentiles(durations: list[int]) -> dict[str, float]:
    """Of nanoseconds, in microseconds."""
    values = np.array(durations) / 1e3
    return {f"p{p:g}": round(float(np.percentile(values, p)), 1) for p in (50, 99, 99.9)}


def cpu_of(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def play(plugin: Plugin, block: int, rate: int, seconds: float, paced: bool) -> list[int]:
    """Nanoseconds that each call of `run` took."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (block, 2)).astype(np.float32)
    durations = []
    due = time.monotonic()
    for _ in range(round(seconds * rate / block)):
        begin = time.perf_counter_ns()
        plugin.run(noise)
        durations.append(time.perf_counter_ns() - begin)
        due += block / rate
        if paced and (rest := due - time.monotonic()) > 0:
            time.sleep(rest)
    return durations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--rate", type=int, default=48000)
    parser.add_argument("--model", type=int, default=1, help="as the plugin's control counts them")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_RUNTIME_DIR"] = directory
        os.environ["REALTIME_SEP_COMMAND"] = "/bin/true"  # it is started here
        server = subprocess.Popen(
            [sys.executable, "-m", "realtime_sep", "bridge"], stdout=subprocess.DEVNULL
        )
        try:
            print(json.dumps(measure(server.pid, asked), indent=2))
        finally:
            server.terminate()
            server.wait()


def measure(server: int, asked: argparse.Namespace) -> dict[str, Any]:
    plugin = Plugin(install.library(), asked.rate)
    plugin.controls["Vocals (dB)"][0] = -60
    plugin.controls["Model"][0] = asked.model
    native.set_realtime(10)  # as hosts do; it comes before the engine
    play(plugin, asked.block, asked.rate, WARM, paced=True)
    told = subprocess.run(["ps", "-o", "pid=", "--ppid", str(server)], capture_output=True)
    (engine,) = map(int, told.stdout.split())
    before, own, begin = cpu_of(engine), resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    live = play(plugin, asked.block, asked.rate, asked.seconds, paced=True)
    elapsed = time.monotonic() - begin
    used, after = cpu_of(engine) - before, resource.getrusage(resource.RUSAGE_SELF)
    plugin.controls["Wait for the engine (offline)"][0] = 1
    waited = play(plugin, asked.block, asked.rate, asked.seconds, paced=False)
    len(waited) * asked.block / asked.rate
    result = {
        "block": asked.block,
        "rate": asked.rate,
        "latency_frames": plugin.latency,
        "run_us": percentiles(live),
        "run_waiting_us": percentiles(waited),
        "times_real_time_offline": round(
            len(waited) * asked.block / asked.rate * 1e9 / sum(waited)
        ),
        "engine_percent_of_a_core": round(100 * used / elapsed, 2),
        "host_percent_of_a_core": round(
            100 * (after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime) / elapsed, 2
        ),
    }
    plugin.close()
    return result


if __name__ == "__main__":
    main()
