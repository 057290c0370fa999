"""The contract with python-sounddevice that `realtime_sep.io.portaudio` relies on.

`_StreamBase` is documented for library authors, but its name begins with an underscore: if a
release changes it, this is where it shows.  No server is needed.
"""

from __future__ import annotations

import inspect
import os
from typing import Any

import numpy as np
import pytest

from realtime_sep.errors import DeviceError, UsageError
from realtime_sep.io import ends, portaudio
from realtime_sep.io.ends import Ends
from realtime_sep.io.jack import JackSpec
from realtime_sep.io.portaudio import PortAudioDevice, PortAudioSpec, listing, validate_latency
from realtime_sep.io.pulse import Endpoint
from realtime_sep.native import Bridge, BridgeConfig, Ring, Wake
from realtime_sep.types import StreamConfig


@pytest.fixture(scope="module")
def sd() -> Any:
    try:
        return portaudio.load()
    except DeviceError as error:
        pytest.skip(str(error))


def test_stream_base_takes_what_we_give(sd: Any) -> None:
    parameters = inspect.signature(sd._StreamBase.__init__).parameters
    assert set(parameters) >= {
        *("kind", "samplerate", "blocksize", "device", "channels", "dtype", "latency"),
        *("clip_off", "dither_off", "callback", "userdata", "wrap_callback"),
    }
    text = inspect.getdoc(sd._StreamBase.__init__) or ""
    assert "library authors" in text
    assert "function pointer" in text


def test_stream_base_has_what_we_use(sd: Any) -> None:
    for method in ("start", "abort", "close"):
        assert callable(getattr(sd._StreamBase, method))
    for method in ("abort", "close"):
        assert "ignore_errors" in inspect.signature(getattr(sd._StreamBase, method)).parameters
    for name in ("active", "latency"):
        assert isinstance(getattr(sd._StreamBase, name), property)
    for method in ("_exit_handler", "_initialize", "_terminate"):
        assert callable(getattr(sd, method))
    assert sd._initialized >= 1
    for name in ("query_devices", "query_hostapis", "check_input_settings"):
        assert callable(getattr(sd, name))
    assert callable(sd.check_output_settings)
    assert issubclass(sd.PortAudioError, Exception)
    assert all(isinstance(sd.default.device[kind], int) for kind in ("input", "output"))


def test_pointers_of_another_ffi_can_be_given(sd: Any) -> None:
    """Ours are integers; sounddevice's cffi makes pointers of them, with PortAudio's types."""
    rings = Ring(1024, 2), Ring(1024, 2)
    config = BridgeConfig(
        in_channels=2,
        channels=2,
        out_channels=2,
        max_block=64,
        hop=64,
        guard=64,
        prefill=128,
        latency=128,
    )
    bridge = Bridge(config, *rings, Wake())
    ffi = sd._ffi
    callback = ffi.cast("PaStreamCallback*", bridge.callback_pointer)
    user_data = ffi.cast("void*", bridge.user_data_pointer)
    data, out = np.full((64, 2), 0.5, np.float32), np.ones((64, 2), np.float32)
    again = callback(
        ffi.from_buffer(data), ffi.from_buffer(out), 64, ffi.NULL, 0, user_data
    )  # PortAudio calls it like this
    assert again == sd._lib.paContinue
    assert bridge.stats().frames == 64
    assert (out == 0).all()  # the prefill
    taken = rings[0].claim_read(64)
    assert taken is not None
    assert (taken == 0.5).all()


def test_a_quiet_standard_error_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    with portaudio.quiet():
        os.write(2, b"from C")
    os.write(2, b"ours")
    assert capfd.readouterr().err == "ours"


@pytest.mark.parametrize(("text", "value"), [("low", "low"), ("high", "high"), ("0.02", 0.02)])
def test_latency_from_text(text: str, value: object) -> None:
    assert validate_latency(text) == value


@pytest.mark.parametrize("text", ["soon", "-1", "0", "100", "nan"])
def test_latency_that_makes_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="latency"):
        validate_latency(text)


# --- choosing devices, with PortAudio's answers made up -------------------------------------------


class FakePortAudio:
    """What sounddevice tells of a machine with a sound card, a plugin and a JACK server."""

    class PortAudioError(Exception):
        pass

    DEVICES = (
        ("HDA Intel: ALC257 Analog (hw:0,0)", 0, 2, 2, 44100.0),
        ("pulse", 0, 32, 32, 44100.0),
        ("system", 1, 2, 2, 96000.0),
        ("player", 1, 2, 0, 96000.0),
    )
    APIS = (
        {"name": "ALSA", "default_input_device": 0, "default_output_device": 0},
        {
            "name": "JACK Audio Connection Kit",
            "default_input_device": 2,
            "default_output_device": 2,
        },
    )

    def __init__(self) -> None:
        self.default = type("default", (), {"device": {"input": 0, "output": 0}})
        self.opened: list[dict[str, Any]] = []
        self._initialized, self.jack = 1, True

    def query_devices(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "index": i,
                "hostapi": api,
                "max_input_channels": inputs,
                "max_output_channels": outputs,
                "default_samplerate": rate,
            }
            for i, (name, api, inputs, outputs, rate) in enumerate(self.DEVICES)
            if self.jack or api == 0
        ]

    def query_hostapis(self, index: int | None = None) -> Any:
        return self.APIS if index is None else self.APIS[index]

    def check_input_settings(self, *_: Any, **__: Any) -> None: ...

    def check_output_settings(self, *_: Any, **__: Any) -> None: ...

    def _StreamBase(self, **arguments: Any) -> Any:
        self.opened.append(arguments)
        return type("stream", (), {"latency": (0.02, 0.03), "close": lambda self: None})()

    def _terminate(self) -> None:
        self._initialized -= 1


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakePortAudio:
    fake = FakePortAudio()

    def load(anew: bool = False, jack: bool = False) -> FakePortAudio:
        fake._initialized, fake.jack = 1, jack
        return fake

    monkeypatch.setattr(portaudio, "load", load)
    monkeypatch.setattr(ends.pulse, "endpoints", list)
    monkeypatch.setattr(portaudio.jack, "running", lambda: False)
    return fake


def chosen(machine: FakePortAudio, spec: PortAudioSpec) -> Ends:
    return Ends(listing(machine), spec.input, spec.output, spec.api, spec.latency)


def test_hardware_keeps_its_blocks(machine: FakePortAudio) -> None:
    device = PortAudioSpec().open(StreamConfig(blocksize=256))
    assert isinstance(device, PortAudioDevice)
    assert device.blocks == (256,)
    assert device.samplerate == 44100
    assert not machine.opened


def test_a_server_behind_alsa_comes_in_bursts(machine: FakePortAudio) -> None:
    device = PortAudioSpec("pulse", "pulse").open(StreamConfig(blocksize=256))
    assert device.blocks == (256, 1024)  # 20 ms of capture buffer, in whole blocks
    assert machine.opened[0]["latency"] == 0.02


def test_jack_is_opened_without_portaudio(
    machine: FakePortAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Spec(JackSpec):
        def open(self, config: StreamConfig, before: object = None) -> Any:
            asked.append((self.input, self.output))

    monkeypatch.setattr(portaudio, "JackSpec", Spec)
    monkeypatch.setattr(portaudio.jack, "running", lambda: True)
    PortAudioSpec("player").open(StreamConfig())
    assert asked == [("player", "system")]  # the default beside it
    assert machine._initialized == 0, "PortAudio must not be a client when the server dies"
    assert not machine.opened


def test_the_default_beside_a_named_output(machine: FakePortAudio) -> None:
    found = chosen(machine, PortAudioSpec(output="system"))
    assert (found.input["name"], found.output["name"]) == ("system", "system")


def test_name_with_host_api(machine: FakePortAudio) -> None:
    assert "JACK" in chosen(machine, PortAudioSpec("system, jack", "system, jack")).api


def test_pairs_of_two_host_apis_are_refused(machine: FakePortAudio) -> None:
    with pytest.raises(DeviceError, match=r"player.*JACK.*HDA.*ALSA.*one host API"):
        chosen(machine, PortAudioSpec("player", "HDA"))


def test_unknown_names_are_suggested(
    machine: FakePortAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portaudio.jack, "running", lambda: True)
    for spec, message in (
        (PortAudioSpec("palyer", "system"), "did you mean 'player'"),
        (PortAudioSpec(api="ASIO"), "host API"),
    ):
        with pytest.raises(UsageError, match=message):
            spec.open(StreamConfig())
        assert machine._initialized == 0, "PortAudio keeps no JACK client"


def test_buses_that_do_not_fit(machine: FakePortAudio) -> None:
    with pytest.raises(DeviceError, match=r"2 channels.*need 4"):
        PortAudioSpec().open(StreamConfig(outputs=("mix", "vocals")))
    with pytest.raises(UsageError, match="named ports"):
        PortAudioSpec().open(StreamConfig(outputs=("mix", "*")))


@pytest.mark.parametrize("kind", ["input", "output"])
def test_without_alsas_way_to_the_server_the_error_says_so(
    machine: FakePortAudio, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    endpoint = Endpoint("sink", "Sink", kind, 48000, 2, False, True, False)  # type: ignore[arg-type]
    monkeypatch.setattr(ends.pulse, "endpoints", lambda: [endpoint])
    monkeypatch.setattr(machine, "DEVICES", machine.DEVICES[:1])
    with pytest.raises(DeviceError, match="libasound2-plugins"):
        PortAudioSpec(**{kind: "Sink"}).open(StreamConfig())
