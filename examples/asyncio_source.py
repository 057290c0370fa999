"""Audio that arrives by asyncio, separated without holding up the event loop.

python examples/asyncio_source.py
"""

import asyncio
from collections.abc import AsyncIterator

import numpy as np

from realtime_sep import BlockSeparator
from realtime_sep.types import Float32

RATE = 48000


async def radio(seconds: float) -> AsyncIterator[Float32]:
    """Stands for a socket: music in pieces as they come, something in the middle of it."""
    rng = np.random.default_rng(0)
    left = round(seconds * RATE)
    while left > 0:
        frames = min(left, int(rng.integers(100, 3000)))
        await asyncio.sleep(frames / RATE)
        voice, band = rng.uniform(-0.4, 0.4, (frames, 1)), rng.uniform(-0.1, 0.1, (frames, 2))
        yield (voice + band).astype(np.float32)
        left -= frames


async def separated(source: AsyncIterator[Float32]) -> AsyncIterator[dict[str, Float32]]:
    """Stems of whatever comes, as long as it comes."""
    with BlockSeparator("center", RATE) as separator:
        async for block in source:
            # In a thread: the network goes on meanwhile, since the heavy work holds no lock.
            yield await asyncio.to_thread(separator.process, block)
        yield separator.flush()


async def main() -> None:
    frames = 0
    async for stems in separated(radio(1.0)):
        frames += len(stems["vocals"])
        print(f"{frames / RATE:6.3f} s  voice {np.abs(stems['vocals']).max():.2f}")


if __name__ == "__main__":
    asyncio.run(main())
