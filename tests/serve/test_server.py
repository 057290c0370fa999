"""Over sockets: streams are exact, rules are told, and nobody suffers from another's mistakes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from realtime_sep import separate
from realtime_sep.types import Float32

from .conftest import CLIENTS, Client, Served, client, finish, start, stream

RATE = 48000


def noise(seconds: float, channels: int = 2, rate: int = RATE, seed: int = 0) -> Float32:
    rng = np.random.default_rng(seed)
    frames = round(seconds * rate)
    middle, sides = rng.uniform(-0.3, 0.3, (frames, 1)), rng.uniform(-0.2, 0.2, (frames, channels))
    return (middle + sides).astype(np.float32)


def check(one: Client, got: np.ndarray[Any, Any], audio: Float32, rate: int = RATE) -> None:
    """All stems of `audio`, to the bit, as late as it was announced."""
    late = one.ready["latency"]
    whole = separate(audio, rate, one.ready["model"])
    expected = np.concatenate([whole[name] for name in one.ready["outputs"]], axis=1)
    assert got.shape == (len(audio) + late, expected.shape[1])
    assert not got[:late].any()
    np.testing.assert_array_equal(got[late:], expected)
    assert one.said[-1]["type"] == "ended"
    assert one.said[-1]["frames"] == len(audio)


def test_streams_are_what_separate_gives(served: Served) -> None:
    """At once: models, rates, channels and packets of every kind."""
    cases: list[tuple[Float32, list[int], dict[str, Any]]] = [
        (noise(1), [480], {"packet": 480}),
        (noise(1), [1, 255, 4096, 257], {"outputs": ["accompaniment"]}),
        (noise(1, rate=96000), [960], {"samplerate": 96000}),
        (noise(1, rate=22050), [441, 1], {"samplerate": 22050, "model": "identity"}),
        (noise(1, channels=1), [960], {"channels": 1}),
    ]

    async def everybody() -> list[tuple[Client, np.ndarray[Any, Any]]]:
        return await asyncio.gather(
            *(stream(served.url, audio, sizes, **hello) for audio, sizes, hello in cases)
        )

    for (one, got), (audio, _, hello) in zip(asyncio.run(everybody()), cases, strict=True):
        check(one, got, audio, hello.get("samplerate", RATE))
        assert len(one.ready["layout"]) == got.shape[1]


def test_every_packet_is_answered_by_one_as_long(served: Served) -> None:
    async def run() -> None:
        async with client(served.url) as one:
            for frames in (1, 700, 0, 256, 5):
                await one.send(noise(1)[:frames].tobytes())
                answer = await one.socket.recv()
                assert len(answer) == frames * 4 * len(one.ready["layout"])

    asyncio.run(run())


def test_s16(served: Served) -> None:
    audio = np.round(noise(0.5) * 32768).astype(np.float32) / np.float32(32768)
    one, got = asyncio.run(stream(served.url, audio, [960], format="s16le", model="identity"))
    np.testing.assert_array_equal(
        got[one.ready["latency"] :, -2:], np.round(audio * 32768).astype(np.int16)
    )


def test_the_mix_faders_and_flush(served: Served) -> None:
    audio = 0.5 * noise(0.5)

    async def run() -> None:
        async with client(served.url, outputs=["mix"], faders={"vocals": None}) as one:
            late = one.ready["latency"]
            both = []
            for faders in ({"vocals": None}, {"vocals": 0, "accompaniment": 0}):
                await one.say(type="faders", faders=faders)
                for begin in range(0, len(audio), 960):
                    await one.send(audio[begin : begin + 960].tobytes())
                await one.say(type="flush")
                assert (await one.listen("flushed"))["frames"] == len(audio) * (len(both) + 1)
                both.append(one.stems()[late:])
                one.audio.clear()
            accompaniment = separate(audio, RATE)["accompaniment"]
            np.testing.assert_allclose(both[0], accompaniment, atol=1e-6)
            # The second begins with the faders where they were put.
            np.testing.assert_allclose(both[1][2000:], audio[2000:], atol=1e-6)
            await one.say(type="faders", faders={"drums": 0})
            assert "no stem 'drums'" in (await one.listen())["message"]

    asyncio.run(run())


# --- what may not be -----------------------------------------------------------------------------

Act = Callable[[Client], Awaitable[None]]


async def _text_as_audio(one: Client) -> None:
    await one.send(b"What is music? " * 8)


async def _text(one: Client) -> None:
    await one.socket.send("la la la")


async def _half_a_frame(one: Client) -> None:
    await one.send(b"\0" * 13)


async def _many_frames(one: Client) -> None:
    await one.send(b"\0" * (one.ready["max_frames"] * 8 + 8))


async def _two_helloes(one: Client) -> None:
    await one.say(type="hello", version=1, samplerate=48000)


async def _unknown(one: Client) -> None:
    await one.say(type="dance")


async def _flood(one: Client) -> None:
    second = noise(0.3).tobytes()
    for _ in range(200):
        await one.send(second)


async def _drizzle(one: Client) -> None:
    for _ in range(40000):
        await one.send(b"")


RULES = [
    (_text_as_audio, "bad_audio", "no audio", 1003),
    (_text, "bad_message", "JSON objects", 1003),
    (_half_a_frame, "bad_audio", "13 bytes", 1003),
    (_many_frames, "too_big", "at most", 1009),
    (_two_helloes, "bad_message", "said once", 1008),
    (_unknown, "bad_message", "not 'dance'", 1008),
    (_flood, "too_fast", "ahead of real time", 1008),
    (_drizzle, "too_fast", "messages a second", 1008),
]


@pytest.mark.parametrize(("act", "code", "words", "close"), RULES)
def test_who_breaks_a_rule_is_told_and_others_notice_nothing(
    served: Served, act: Act, code: str, words: str, close: int
) -> None:
    audio = noise(0.6)

    async def hostile() -> None:
        async with client(served.url) as one:
            listening = asyncio.create_task(one.listen())
            with suppress(ConnectionClosed):
                await act(one)
            error = await listening
            assert error["type"] == "error"
            assert error["code"] == code
            assert words in error["message"]
            assert one.socket.close_code == close

    async def run() -> tuple[Client, np.ndarray[Any, Any]]:
        good = asyncio.create_task(stream(served.url, audio, [960], 0.01))
        async with asyncio.timeout(60):
            await hostile()
            return await good

    one, got = asyncio.run(run())
    check(one, got, audio)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("good morning", "JSON objects"),
        ("{}", "JSON objects"),
        (b"\0" * 64, "hello, in text"),
        (json.dumps({"type": "hello", "version": 1}), "needs a samplerate"),
        (json.dumps({"type": "hello", "version": 9, "samplerate": 48000}), "version 1"),
        (
            json.dumps({"type": "hello", "version": 1, "samplerate": 48000, "model": "tenor"}),
            "no model 'tenor'; it has center, identity",
        ),
        (
            json.dumps({"type": "hello", "version": 1, "samplerate": 48000, "outputs": ["bass"]}),
            "unknown output 'bass'",
        ),
    ],
)
def test_garbage_instead_of_hello(served: Served, message: str | bytes, words: str) -> None:
    async def run() -> None:
        async with connect(served.url) as socket:
            await socket.send(message)
            error = json.loads(await socket.recv())
            assert error["type"] == "error"
            assert words in error["message"]
            with pytest.raises(ConnectionClosed):
                await socket.recv()

    asyncio.run(run())


def test_a_message_beyond_all_limits_closes_at_once(served: Served) -> None:
    async def run() -> int | None:
        async with client(served.url) as one:
            with suppress(ConnectionClosed):
                await one.send(bytes(300_000))
            await one.socket.wait_closed()
            return one.socket.close_code

    assert asyncio.run(run()) in (1009, 1006)  # 1006: the rest of it met a closed socket


def test_one_too_many_is_refused_and_the_place_is_given_again(served: Served) -> None:
    async def run() -> None:
        async with asyncio.timeout(60):
            here = [client(served.url, model="identity") for _ in range(CLIENTS)]
            for one in here:
                await one.__aenter__()
            async with connect(served.url) as socket:
                await socket.send(json.dumps({"type": "hello", "version": 1, "samplerate": 48000}))
                error = json.loads(await socket.recv())
                assert (error["code"], "full" in error["message"]) == ("refused", True)
            await here[0].__aexit__(None, None, None)
            again = client(served.url)
            await again.__aenter__()
            for one in (*here[1:], again):
                await one.__aexit__(None, None, None)

    asyncio.run(run())


@pytest.mark.slow
def test_who_never_reads_is_let_go_and_memory_stays_flat(served: Served) -> None:
    """A socket that is written to at the pace of the clock and never read."""
    block = noise(0.1).tobytes()

    async def deaf() -> None:
        """Until the server lets go of it."""
        async with connect(
            served.url, compression=None, max_queue=1, ping_interval=None, close_timeout=1
        ) as one:
            one.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14
            )
            await one.send(json.dumps({"type": "hello", "version": 1, "samplerate": 48000}))
            await one.recv()
            one.transport.pause_reading()
            with suppress(ConnectionClosed):
                async with asyncio.timeout(45):
                    while True:
                        await one.send(block)
                        await asyncio.sleep(0.1)

    async def run() -> tuple[Client, np.ndarray[Any, Any]]:
        good = asyncio.create_task(stream(served.url, audio, [960], 0.02))
        await deaf()
        return await good

    audio = noise(15)
    before = served.memory()
    one, got = asyncio.run(run())
    check(one, got, audio)
    assert served.memory() - before < 24 << 20


@pytest.mark.slow
def test_silent_and_half_open_connections_are_closed(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as nothing:
        nothing.settimeout(30)
        while nothing.recv(1000):  # an error, perhaps; then it is closed
            pass

    async def run() -> None:
        async with connect(served.url) as late:
            assert "no hello within" in json.loads(await late.recv())["message"]
        one = client(served.url)
        opened = await one.__aenter__()
        opened.socket.transport.abort()  # gone without a word
        for _ in range(100):
            if (await asyncio.to_thread(_status, served))["clients"] == 0:
                return
            await asyncio.sleep(0.1)
        raise AssertionError("a client that is gone still has its place")

    asyncio.run(run())


# --- the world outside ---------------------------------------------------------------------------


def _status(served: Served, path: str = "/healthz", **headers: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{served.port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_status(served: Served) -> None:
    for path in ("/", "/healthz"):
        status = _status(served, path)
        assert status["status"] == "ok"
        assert status["models"] == ["center", "identity"]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        _status(served, "/other")


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}])
def test_web_pages_are_kept_out(served: Served, headers: dict[str, str]) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        _status(served, **headers)

    async def run() -> None:
        async with connect(served.url, additional_headers=headers):
            pass

    if "Origin" in headers:  # the client library writes Host itself
        with pytest.raises(InvalidStatus, match="403"):
            asyncio.run(run())


@pytest.mark.slow
def test_beyond_this_machine_there_is_a_token() -> None:
    server = start("--model", "identity", "--listen", "0.0.0.0", "--clients", "1")
    try:
        token = server.said[0].removeprefix("token: ").strip()
        assert len(token) > 16

        async def run() -> None:
            for wrong in ({}, {"token": "x"}):
                with pytest.raises(AssertionError, match="unauthorized"):
                    async with client(server.url, **wrong):
                        pass
            async with client(server.url, token=token):
                pass

        asyncio.run(run())
    finally:
        finish(server)


@pytest.mark.slow
def test_when_the_engine_dies_everybody_is_told() -> None:
    server = start("--model", "identity", "--clients", "1")
    pid = server.process.pid
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        engines = [int(child) for child in children.read().split() if _is_engine(int(child))]

    async def run() -> dict[str, Any]:
        async with client(server.url) as one:
            for engine in engines:
                os.kill(engine, 9)
            return await one.listen()

    assert "engine's process is gone" in asyncio.run(run())["message"]
    _, complaints = server.process.communicate(timeout=30)
    assert server.process.returncode == 1
    assert complaints.startswith("realtime-sep: the engine's process is gone")
    assert complaints.count("\n") == 1


def _is_engine(pid: int) -> bool:
    """Not the tracker of shared things that Python starts beside it."""
    with open(f"/proc/{pid}/cmdline") as line:
        return "spawn_main" in line.read()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "tenor"], "unknown model 'tenor'"),
        (["--model", "identity", "--profile", "x", "--clients", "1"], "profile"),
    ],
)
def test_what_cannot_be_served_is_one_line(arguments: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "realtime_sep", "serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_line(served: Served) -> None:
    done = subprocess.run(
        f"{sys.executable} -m realtime_sep serve --model identity --clients 1 --port {served.port}",
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "choose another --port" in done.stderr
    assert done.stderr.count("\n") == 1
