"""Sends a song to `realtime-sep serve` as it plays, and writes the stems that come back.

    realtime-sep serve &
    python examples/websocket_client.py song.wav [--url ws://127.0.0.1:8765] [--seconds 5]

Any language that has WebSockets can do the same: one JSON hello, then audio in binary messages.
"""

import argparse
import asyncio
import json
from pathlib import Path

import numpy as np
import soundfile
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

PACKET = 0.02  # seconds of audio in every message


async def play(server: ClientConnection, song: np.ndarray, rate: int) -> None:
    """Send the song at the pace of the clock, then its end."""
    loop = asyncio.get_running_loop()
    begin, frames = loop.time(), int(PACKET * rate)
    for start in range(0, len(song), frames):
        await server.send(song[start : start + frames].astype("<f4").tobytes())
        await asyncio.sleep(begin + (start + frames) / rate - loop.time())
    await server.send(json.dumps({"type": "end"}))


async def main(path: Path, url: str, seconds: float | None) -> None:
    song, rate = soundfile.read(path, dtype="float32", always_2d=True)
    song = song[: None if seconds is None else int(seconds * rate)]
    async with connect(url, compression=None) as server:
        hello = {"type": "hello", "version": 1, "samplerate": rate, "channels": song.shape[1]}
        await server.send(json.dumps({**hello, "packet": int(PACKET * rate)}))
        ready = json.loads(await server.recv())
        if ready["type"] == "error":
            raise SystemExit(f"websocket_client: {ready['message']}")
        latency, stems = ready["latency"], ready["stems"]
        print(f"{ready['model']}: {', '.join(stems)}, {1e3 * latency / rate:.1f} ms late")

        playing = asyncio.create_task(play(server, song, rate))
        parts = []
        async for message in server:
            if isinstance(message, bytes):  # as many frames as were sent, all stems side by side
                frames = np.frombuffer(message, "<f4").reshape(-1, len(stems), song.shape[1])
                parts.append(frames)
            elif json.loads(message)["type"] in ("error", "notice"):
                print(json.loads(message)["message"])
        await playing
    separated = np.concatenate(parts)[latency:]
    for i, name in enumerate(stems):
        target = path.with_name(f"{path.stem}.{name}.wav")
        soundfile.write(target, separated[:, i], rate, subtype="FLOAT")
        print(f"wrote {target}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song", type=Path)
    parser.add_argument("--url", default="ws://127.0.0.1:8765")
    parser.add_argument("--seconds", type=float, help="only so much of it")
    args = parser.parse_args()
    try:
        asyncio.run(main(args.song, args.url, args.seconds))
    except (OSError, WebSocketException) as error:
        raise SystemExit(f"websocket_client: {args.url}: {error}") from None
