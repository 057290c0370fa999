"""PortAudio and nothing else between input and output: the loop without us, as a program.

    python pass_through.py DEVICE SAMPLERATE

Says "ready", and ends when its standard input does.
"""

import sys

import sounddevice


def main() -> None:
    device, samplerate = sys.argv[1], int(sys.argv[2])

    def callback(inputs, outputs, frames, time, status):  # type: ignore[no-untyped-def]
        outputs[:] = inputs[:]

    with sounddevice.RawStream(
        samplerate, 0, (device, device), 2, "float32", "low", callback=callback
    ):
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
