"""Fixtures: servers that are started on demand and always stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from audio_servers import (
    JackServer,
    PipeWireServer,
    PulseServer,
    environment,
    need_portaudio,
    refresh_portaudio,
)


@pytest.fixture
def jack_server(tmp_path: Path) -> Iterator[Callable[..., JackServer]]:
    """`jack_server(samplerate=..., period=...)`; its environment is ours while the test runs."""
    need_portaudio()
    with ExitStack() as stack:

        def start(samplerate: int = 48000, period: int = 256) -> JackServer:
            server = stack.enter_context(JackServer(tmp_path, samplerate, period))
            stack.enter_context(environment(server.environment))
            return server

        yield start


@pytest.fixture
def pulse_server(tmp_path: Path) -> Iterator[Callable[..., PulseServer]]:
    """`pulse_server({sink: description})`, likewise."""
    need_portaudio()
    with ExitStack() as stack:

        def start(sinks: dict[str, str]) -> PulseServer:
            server = stack.enter_context(PulseServer(tmp_path, sinks))
            stack.enter_context(environment(server.environment))
            refresh_portaudio()
            return server

        yield start


@pytest.fixture(params=[PulseServer, PipeWireServer], ids=["pulseaudio", "pipewire"])
def sound_server(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., PulseServer | PipeWireServer]]:
    """One that speaks PulseAudio's protocol, each in turn."""
    need_portaudio()
    with ExitStack() as stack:

        def start(sinks: dict[str, str]) -> PulseServer | PipeWireServer:
            server = stack.enter_context(request.param(tmp_path, sinks))
            stack.enter_context(environment(server.environment))
            return server

        yield start


@pytest.fixture(scope="session")
def data() -> Path:
    """Where the songs for evaluation are."""
    path = Path(
        os.environ.get("REALTIME_SEP_DATA")
        or Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    )
    return path
