"""A wire: what comes in goes out, untouched, so that you hear what the way alone costs.

python examples/wire.py [INPUT [OUTPUT]]    parts of names, as `realtime-sep devices` lists them
python examples/wire.py --null              no devices, one second
"""

import sys

from realtime_sep import NullSpec, RealtimeSepError, open_stream


def main(input: str | None = None, output: str | None = None) -> None:
    null = input == "--null"
    devices = {"backend": NullSpec()} if null else {"input": input, "output": output}
    with open_stream("identity", **devices) as stream:
        print(f"{stream.device}: {stream.latency.ms():.1f} ms late; Ctrl-C ends it")
        stream.wait(1 if null else None)
        stats = stream.stats
        print(f"{stats.frames} frames in {stats.callbacks} blocks, {stats.late_blocks} late")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except RealtimeSepError as error:
        sys.exit(f"wire: {error}")
    except KeyboardInterrupt:
        pass
