"""A bot in a voice channel: packets of 20 ms come in, the same without the singer go out.

    python examples/discord_like_bot.py

Packets are as voice servers deliver them once decoded: 48 kHz, stereo, 16-bit.
"""

import asyncio
import time

import numpy as np

from realtime_sep import BlockSeparator
from realtime_sep.io.pipe import decode, encode

RATE = 48000
PACKET = RATE // 50  # frames: 20 ms


class Karaoke:
    """One listener's stream; a packet goes in, a packet comes out."""

    def __init__(self) -> None:
        self._separator = BlockSeparator("center", RATE, blocksize=PACKET)
        self.latency = self._separator.latency

    def packet(self, pcm: bytes) -> bytes:
        stems = self._separator.process(decode(pcm).reshape(-1, 2))
        karaoke, _ = encode(stems["accompaniment"])
        return karaoke


async def server(to_bot: asyncio.Queue[bytes | None], packets: int) -> None:
    """Stands for the voice channel: music, a packet every 20 ms."""
    rng = np.random.default_rng(0)
    for _ in range(packets):
        await to_bot.put(rng.integers(-8000, 8000, (PACKET, 2), np.int16).tobytes())
        await asyncio.sleep(PACKET / RATE)
    await to_bot.put(None)


async def main(packets: int = 50) -> None:
    karaoke = Karaoke()
    print(f"{1e3 * karaoke.latency / RATE:.1f} ms late, besides the packet itself")
    incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
    music = asyncio.create_task(server(incoming, packets))
    count, busy = 0, 0.0
    while (pcm := await incoming.get()) is not None:
        start = time.process_time()
        answer = karaoke.packet(pcm)
        busy += time.process_time() - start
        assert len(answer) == len(pcm)
        count += 1
    await music
    print(f"{count} packets there and back, {1e3 * busy / count:.2f} ms of work each")


if __name__ == "__main__":
    asyncio.run(main())
