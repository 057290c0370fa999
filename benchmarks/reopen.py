"""How soon a lost JACK server is noticed, and how soon after its return the sound is back; as JSON.

    python benchmarks/reopen.py [--rounds 5] [--separator center]

Needs `jackd` (Debian: jackd2).  The server is started under a name of its own and ends with this.
"noticed" counts from the loss, "back" from the moment when the server answers again, to a notice of
the stream; its listener looks every 10 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

from realtime_sep.io.jack import running
from realtime_sep.stream import Stream, open_stream


class Server:
    def __init__(self) -> None:
        self.name = f"reopen{os.getpid()}"
        os.environ.update(
            JACK_DEFAULT_SERVER=self.name, JACK_NO_START_SERVER="1", JACK_NO_AUDIO_RESERVATION="1"
        )
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            f"jackd -n {self.name} -S -R -d dummy -r 48000 -p 256 -C 2 -P 2".split(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while not running():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("jackd does not start; try: jackd -S -R -d dummy")
            time.sleep(0.02)


def hear(stream: Stream, word: str) -> float:
    """Seconds until the stream says so."""
    begin = time.monotonic()
    while not any(word in notice for notice in stream.notices()):
        if time.monotonic() - begin > 20:
            sys.exit(f"the stream never said {word!r}")
        stream.wait(0.01)
    return time.monotonic() - begin


def measure(stream: Stream, server: Server, how: str) -> tuple[float, float]:
    """Lose the server once; seconds until that was noticed, and from its return on."""
    if how == "killed":
        server.process.kill()
        server.process.wait()
        noticed = hear(stream, "waiting")
        stream.wait(1)
        server.start()
    elif how == "period":
        subprocess.run(["jack_bufsize", "512"], capture_output=True, check=True)
        noticed = hear(stream, "waiting")
    else:
        server.process.send_signal(signal.SIGSTOP)
        noticed = hear(stream, "waiting")
        stream.wait(0.5 if how == "hung 1.2 s" else 3.3)
        server.process.send_signal(signal.SIGCONT)
    back = hear(stream, "back")
    if how == "period":
        subprocess.run(["jack_bufsize", "256"], capture_output=True, check=True)
        hear(stream, "back")
    stream.wait(0.5)
    return noticed, back


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--separator", default="center")
    options = parser.parse_args()
    if shutil.which("jackd") is None:
        sys.exit("jackd is not installed; on Debian: apt install jackd2")
    server = Server()
    try:
        with open_stream(options.separator, input="system", output="system", tap=False) as stream:
            stream.wait(1)
            for how in ("killed", "hung 1.2 s", "hung 4 s", "period"):
                times = [measure(stream, server, how) for _ in range(options.rounds)]
                report: dict[str, object] = {"jack": how, "rounds": options.rounds}
                for name, column in zip(("noticed", "back"), zip(*times, strict=True), strict=True):
                    median, longest = statistics.median(column), max(column)
                    report[name] = {"median": round(median, 3), "longest": round(longest, 3)}
                print(json.dumps(report))
            assert stream.stats.reopens == 5 * options.rounds  # the period changes twice
    finally:
        server.process.terminate()
        server.process.wait()


if __name__ == "__main__":
    main()
