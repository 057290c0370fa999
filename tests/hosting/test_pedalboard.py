"""Effects of pedalboard's, which is never imported here."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from realtime_sep.effects import pedalboard
from realtime_sep.effects.hosts import Host
from realtime_sep.effects.isolated import Isolated
from realtime_sep.errors import UsageError
from realtime_sep.plugins import load_effect
from tests.hosting.conftest import BLOCK, RATE, noise, run

needed = pytest.mark.skipif(find_spec("pedalboard") is None, reason="pedalboard is not installed")


@needed
@pytest.mark.parametrize(
    ("name", "values", "own"),
    [("Gain", {"gain_db": -6.0}, 0), ("BrickwallLimiter", {"ceiling_db": 0.0}, 240)],
)
def test_latency_is_measured_and_true(name: str, values: dict[str, float], own: int) -> None:
    effect = pedalboard.host.load(name)
    for parameter, value in values.items():
        effect.set(parameter, value)
    audio = noise(6000)
    expected = audio * np.float32(10 ** (values.get("gain_db", 0) / 20))
    for channels in (2, 1):
        effect.prepare(RATE, channels, BLOCK)
        assert effect.latency == own + 3 + BLOCK  # which it takes at least
        late = effect.latency
        for _ in range(2):
            out = run(effect, np.ascontiguousarray(audio[:, :channels]), (BLOCK, 1, 77))
            np.testing.assert_allclose(out[late:], expected[:-late, :channels], atol=1e-5)
            effect.reset()
    effect.close()  # type: ignore[attr-defined]


@needed
def test_what_there_is_and_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pedalboard", raising=False)  # a reference of other tests
    infos = {info.name: info for info in pedalboard.host.available()}
    mix = {p.name: p for p in infos["Reverb"].parameters}["wet_level"]
    assert (mix.minimum, mix.maximum) == (0, 1)
    for name, words in (("Revreb", "did you mean 'Reverb'"), ("Convolution", "unknown effect")):
        with pytest.raises(UsageError, match=words):
            pedalboard.host.load(name)
    with pytest.raises(UsageError, match="process of their own"):
        pedalboard.host.load("Gain", isolate=False)
    held = pedalboard.host.load("PitchShift")
    with pytest.raises(UsageError, match="PitchShift holds back more than 1 s"):
        held.prepare(RATE, 2, BLOCK)
    held.close()  # type: ignore[attr-defined]
    assert "pedalboard" not in sys.modules
    assert isinstance(pedalboard.host, Host)


@needed
def test_a_vst3() -> None:
    """Its parameters, its sound, and what it does to the time."""
    name = "DragonflyPlateReverb"
    if name not in {info.label for info in pedalboard.vst3.available()}:
        pytest.skip(f"{name}.vst3 is not installed (dragonfly-reverb-vst3)")
    effect = load_effect(f"vst3:{name}:dry=100,wet=0,decay=2")
    assert isinstance(effect, Isolated)
    (decay,) = [p for p in effect.parameters if p.name == "decay_s"]
    assert (decay.minimum, decay.maximum, decay.unit) == (pytest.approx(0.1), 10, "s")
    audio = noise(20000)
    for channels in (2, 1):
        effect.prepare(RATE, channels, BLOCK)
        late = effect.latency
        only = np.ascontiguousarray(audio[:, :channels])
        np.testing.assert_allclose(run(effect, only)[late:], only[:-late], atol=1e-4)
    effect.prepare(RATE, 2, BLOCK)
    effect.set("dry_level", 0)
    effect.set("wet_level", 100)
    audio[5000:] = 0
    tail = run(effect, audio)[effect.latency + 6000 :]
    assert np.abs(tail).max() > 1e-3
    with pytest.raises(UsageError, match="did you mean 'DragonflyPlateReverb'"):
        pedalboard.vst3.load("DragonflyPlatReverb")
    effect.close()


@needed
def test_what_is_no_vst3(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown VST3 plugin 'nothing'"):
        pedalboard.vst3.load("nothing")
    text = tmp_path / "a.vst3"
    text.write_text("no plugin")
    with pytest.raises(UsageError, match=r"a\.vst3 cannot be loaded") as error:
        pedalboard.vst3.load(str(text))
    assert "\n" not in str(error.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pedalboard, "find_spec", lambda name: None)
    assert pedalboard.host.available() == pedalboard.vst3.available() == []
    with pytest.raises(UsageError, match=r"pip install 'realtime-sep\[pedalboard\]'"):
        pedalboard.vst3.load("x")
