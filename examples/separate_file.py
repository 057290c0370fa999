"""Files in, stems out: of any length and format, in constant memory, aligned to the sample.

python examples/separate_file.py SONG...
"""

import sys

from realtime_sep import RealtimeSepError
from realtime_sep.offline import separate_file


def main(songs: list[str]) -> None:
    for song in songs:
        done = separate_file(song, separator="center", stems=True)
        for stem, path in done.paths.items():
            print(f"{stem}: {path}, {done.frames / done.samplerate:.1f} s")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RealtimeSepError as error:
        sys.exit(f"separate_file: {error}")
