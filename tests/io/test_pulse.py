"""Names of sources and sinks, with the server's answers made up; `tests/server` asks real ones."""

from __future__ import annotations

import os
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from realtime_sep.errors import DeviceError
from realtime_sep.io import pulse
from realtime_sep.io.pulse import Endpoint, resolve


def endpoint(name: str, description: str, kind: Any, samplerate: int = 48000) -> Endpoint:
    return Endpoint(name, description, kind, samplerate, 2, "monitor" in name, False, False)


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [
        endpoint("alsa_output.pci.monitor", "Monitor of Built-in Audio", "input"),
        endpoint("alsa_input.usb", "USB Microphone", "input", 44100),
        endpoint("bluez.monitor", "Monitor of Headphones", "input"),
        endpoint("alsa_output.pci", "Built-in Audio", "output"),
        endpoint("bluez", "Headphones", "output"),
        endpoint("default.sink", "Pulse Default Sink", "output", 96000),
    ]
    monkeypatch.setattr(pulse, "endpoints", lambda: known)


@pytest.mark.parametrize(
    "pair", [(None, None), (3, None), ("hw:0", "hw:0"), ("pulse", "default"), (1, 2)]
)
def test_what_is_not_ours(pair: tuple[Any, Any]) -> None:
    assert resolve(*pair) is None


def test_both_sides() -> None:
    route = resolve("Monitor of Built-in Audio", "headphones")
    assert route is not None
    assert (route.input, route.output) == ("pulse", "pulse")
    assert route.endpoints["input"].name == "alsa_output.pci.monitor"
    assert route.endpoints["output"].name == "bluez"
    assert route.samplerate == 48000


def test_one_side() -> None:
    route = resolve("usb mic", None)
    assert route is not None
    assert (route.input, route.output) == ("pulse", "pulse")
    assert set(route.endpoints) == {"input"}
    assert route.samplerate == 44100


def test_other_side_by_index() -> None:
    route = resolve("usb mic", 7)
    assert route is not None
    assert route.output == 7


def test_a_whole_name_wins_over_parts() -> None:
    route = resolve("bluez.monitor", "bluez")
    assert route is not None
    assert route.endpoints["output"].name == "bluez"


def test_parts_that_fit_several() -> None:
    with pytest.raises(DeviceError, match=r"fits several devices.*Built-in Audio.*Headphones"):
        resolve("monitor of", None)


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSE_SINK", "mine")
    monkeypatch.delenv("PULSE_SOURCE", raising=False)
    route = resolve("usb mic", "headphones")
    assert route is not None
    with suppress(DeviceError), route.in_force():
        assert os.environ["PULSE_SOURCE"] == "alsa_input.usb"
        assert os.environ["PULSE_SINK"] == "bluez"
        raise DeviceError("it does not open")
    assert os.environ["PULSE_SINK"] == "mine"
    assert "PULSE_SOURCE" not in os.environ


@pytest.mark.parametrize(("flags", "virtual"), [(0x0002, True), (0x0006, False)])
def test_hardware_is_what_the_server_says(flags: int, virtual: bool) -> None:
    info = SimpleNamespace(
        name="sink",
        description="Sink",
        flags=flags,
        channel_count=2,
        sample_spec=SimpleNamespace(rate=48000),
    )
    found = pulse._endpoint(info, "output", "sink")
    assert found.virtual is virtual
    assert found.default
    assert not found.monitor
