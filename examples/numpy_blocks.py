"""Push blocks of any length, pull stems: no device, no thread, no file.

python examples/numpy_blocks.py
"""

import numpy as np

from realtime_sep import BlockSeparator

RATE = 44100


def main() -> None:
    rng = np.random.default_rng(0)
    voice = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    band = rng.uniform(-0.1, 0.1, (2 * RATE, 2))
    song = (band + voice[:, np.newaxis]).astype(np.float32)  # the voice is in the middle

    parts = []
    with BlockSeparator("center", RATE) as separator:
        start = 0
        while start < len(song):
            block = song[start : start + rng.integers(1, 2000)]
            parts.append(separator.process(block))  # by name, as long as the block
            start += len(block)
        parts.append(separator.flush())  # what was still on its way

    late = separator.latency
    stems = {n: np.concatenate([part[n] for part in parts])[late:] for n in separator.stems}
    for name, stem in stems.items():
        print(f"{name}: {len(stem)} frames, {20 * np.log10(stem.std()):.1f} dB")
    print(f"{len(parts)} blocks, {late} frames late ({1e3 * late / RATE:.1f} ms)")
    print(f"the stems add up to the song within {np.abs(sum(stems.values()) - song).max():.0e}")


if __name__ == "__main__":
    main()
