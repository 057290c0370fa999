"""A separator of your own: the bass, and the rest.

    python examples/custom_separator.py

It takes a hop and fills the same hop of every stem; the stems add up to the mix, delayed by
`info.latency`.  That is all: it runs offline, live (`open_stream(Bass)`), and in a package of yours
under a name (see `plugin_template`).
"""

import numpy as np

from realtime_sep import SeparatorInfo, separate
from realtime_sep.types import Float32


class Bass:
    """Everything below `cutoff` Hz, by a filter that delays all frequencies alike."""

    def __init__(self, *, samplerate: int, channels: int = 2, cutoff: float = 200.0) -> None:
        taps = 2 * round(2 * samplerate / cutoff) + 1
        time = np.arange(taps) - taps // 2
        sinc = np.sinc(2 * cutoff / samplerate * time) * np.hanning(taps)
        self._filter = (sinc / sinc.sum()).astype(np.float32)
        self.info = SeparatorInfo(
            name="bass",
            stems=("bass", "rest"),
            samplerate=samplerate,
            channels=channels,
            hop=256,
            latency=taps // 2,
        )
        self.reset()

    def reset(self) -> None:
        self._past = np.zeros((len(self._filter) - 1, self.info.channels), np.float32)

    def process(self, hop: Float32, stems: Float32) -> None:
        bass, rest = stems
        line = np.concatenate([self._past, hop])
        for channel in range(self.info.channels):
            bass[:, channel] = np.convolve(line[:, channel], self._filter, "valid")
        rest[:] = line[self.info.latency :][: len(hop)] - bass
        self._past = line[len(hop) :]


def main() -> None:
    time = np.arange(44100) / 44100
    low, high = (0.4 * np.sin(2 * np.pi * hertz * time) for hertz in (60, 1000))
    stems = separate(low + high, 44100, Bass(samplerate=44100, channels=1))
    for name, played in (("bass", low), ("rest", high)):
        error = np.abs(stems[name] - played)[4410:-4410].max()
        print(f"{name}: {20 * np.log10(error / 0.4):.0f} dB from what was played")


if __name__ == "__main__":
    main()
