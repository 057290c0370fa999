"""Karaoke on the default devices, with the singer's fader on the keyboard.

    python examples/karaoke.py [--null]

Type a level in dB and Enter: -12 brings the voice back a little, 0 wholly, -inf takes it out.
"""

import sys
from math import inf

from realtime_sep import NullSpec, RealtimeSepError, UsageError, open_stream


def main(null: bool) -> None:
    with open_stream("center", vocals=-inf, backend=NullSpec() if null else None) as stream:
        print(f"{stream.device}: the voice is out. Its level in dB, please; Ctrl-D ends it")
        for line in sys.stdin:
            try:
                stream.set("vocals", float(line))
                print(f"voice at {float(line):g} dB")
            except (UsageError, ValueError) as error:
                print(error)


if __name__ == "__main__":
    try:
        main("--null" in sys.argv)
    except RealtimeSepError as error:
        sys.exit(f"karaoke: {error}")
    except KeyboardInterrupt:
        pass
