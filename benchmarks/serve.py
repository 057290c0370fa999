"""How many live streams a server carries, and how long a packet takes there and back.

First what a round costs at every number of clients, and how many streams of each model that makes
for a core.  Then `realtime-sep serve` with 1, 8 and 32 clients on loopback, at most eight of them
in a process, which send packets at the pace of the clock.  A round trip is from just before a
packet is given to the client's socket (its last sample has just been played) to the arrival of its
stems: network, queues and computing, but not the separator's latency, which is in the samples.

Prints JSON.

    python benchmarks/serve.py [--model center --model unet] [--clients 1 8 32] [--seconds 10]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import connect

from realtime_sep.native import flush_denormals
from realtime_sep.serve.rounds import BUDGET, Model

RATE = 48000
PACKET = 480  # frames: 10 ms
#: Clients of one process, so that they do not wait for each other.
TOGETHER = 8
#: Seconds at the start that do not count: clients come one after the other.
SETTLING = 2.0


def capacity(name: str, clients: int) -> dict[str, Any]:
    """What a round of a model costs, and how many streams that makes."""
    model = Model(name, clients)
    costs = {n: round(1e3 * seconds, 3) for n, seconds in model.costs.items()}
    most = max(model.costs)
    # Beyond what was measured a round grows in proportion.
    fits = [
        next(n for n in range(1, 100 * most) if model.cost(n + 1) > part * model.period)
        for part in (1.0, BUDGET)
    ]
    return {
        "batched": model.batched,
        "hop_ms": round(1e3 * model.period, 3),
        "round_ms_by_clients": costs,
        "resampling_ms": round(1e3 * model.resampling, 3),
        "streams_per_core": fits[0],
        "streams_admitted": fits[1],
    }


async def one_client(url: str, seed: int, seconds: float) -> dict[str, Any]:
    """Round trips of one client, in ms; or that it was refused."""
    rng = np.random.default_rng(seed)
    packet = rng.uniform(-0.3, 0.3, (PACKET, 2)).astype("<f4").tobytes()
    async with connect(url, compression=None, max_size=None) as server:
        hello = {"type": "hello", "version": 1, "samplerate": RATE, "packet": PACKET}
        await server.send(json.dumps(hello))
        ready = json.loads(await server.recv())
        if ready["type"] != "ready":
            return {"refused": ready["message"]}
        sent: list[float] = []
        trips: list[float] = []
        count = int(seconds * RATE / PACKET)

        async def receive() -> None:
            while len(trips) < count:
                if isinstance(await server.recv(), bytes):
                    trips.append(time.perf_counter() - sent[len(trips)])

        receiving = asyncio.create_task(receive())
        # Clients are not in step with each other.
        first = time.perf_counter() + rng.uniform(0, PACKET / RATE)
        for i in range(count):
            await asyncio.sleep(max(0.0, first + i * PACKET / RATE - time.perf_counter()))
            sent.append(time.perf_counter())
            await server.send(packet)
        await asyncio.wait_for(receiving, 30)
        skip = int(SETTLING * RATE / PACKET)
        return {"trips": [1e3 * trip for trip in trips[skip:]]}


def some_clients(url: str, count: int, seconds: float) -> list[dict[str, Any]]:
    """Clients in a process of their own."""

    async def run() -> list[dict[str, Any]]:
        return await asyncio.gather(*(one_client(url, i, seconds) for i in range(count)))

    return asyncio.run(run())


def round_trips(name: str, clients: int, seconds: float) -> dict[str, Any]:
    """A server of one model, and so many clients."""
    command = [sys.executable, "-m", "realtime_sep", "serve", "--port", "0", "--model", name]
    command += ["--clients", str(clients)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found = re.match(r"(ws://\S+)", server.stdout.readline())
    assert found, "the server did not start"
    before = processor_seconds(server.pid)
    groups = [min(TOGETHER, clients - start) for start in range(0, clients, TOGETHER)]
    with ProcessPoolExecutor(len(groups)) as pool:
        work = [pool.submit(some_clients, found[1], n, seconds) for n in groups]
        results = [result for group in work for result in group.result()]
    after = processor_seconds(server.pid)
    server.terminate()
    server.wait(30)
    refusals = [r["refused"] for r in results if "refused" in r]
    trips = np.concatenate([[], *(r["trips"] for r in results if "trips" in r)])
    figures = {}
    if len(trips):
        p50, p99, p999 = np.percentile(trips, [50, 99, 99.9])
        figures = {"p50": p50, "p99": p99, "p99.9": p999, "max": trips.max()}
    return {
        "clients": clients,
        "refused": len(refusals),
        "refusal": refusals[0] if refusals else None,
        "packets": len(trips),
        "round_trip_ms": {key: round(float(value), 2) for key, value in figures.items()},
        "cores": {key: round((after[key] - before[key]) / seconds, 3) for key in after},
    }


def processor_seconds(pid: int) -> dict[str, float]:
    """Of the server (sockets) and its engine process (models)."""
    tick = os.sysconf("SC_CLK_TCK")

    def of(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / tick

    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {"sockets": of(pid), "engine": sum(of(int(child)) for child in children)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", action="append", help="default: center and unet")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    flush_denormals()
    report: dict[str, Any] = {"packet_ms": 1e3 * PACKET / RATE, "samplerate": RATE, "models": {}}
    for name in args.model or ["center", "unet"]:
        report["models"][name] = {
            **capacity(name, max(args.clients)),
            "served": [round_trips(name, n, args.seconds + SETTLING) for n in args.clients],
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
