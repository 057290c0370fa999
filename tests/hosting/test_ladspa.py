"""LADSPA: what the hints mean, where plugins are found, and that they do what they do elsewhere."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from realtime_sep.effects import ladspa
from realtime_sep.effects.hosts import Host
from realtime_sep.effects.isolated import Helper
from realtime_sep.effects.ladspa import Ladspa, describe, host
from realtime_sep.errors import UsageError
from realtime_sep.types import Float32
from tests.hosting.conftest import BLOCK, RATE, noise, run

DEBIAN = Path("/usr/lib/ladspa")


def library(name: str, package: str) -> str:
    path = DEBIAN / f"{name}.so"
    if not path.exists():
        pytest.skip(f"{path} is not installed ({package})")
    return str(path)


def prepared(path: str | Path, label: str, channels: int = 2, **values: float) -> Ladspa:
    effect = Ladspa(str(path), label)
    for name, value in values.items():
        effect.set(name, value)
    effect.prepare(RATE, channels, BLOCK)
    return effect


def test_hints_become_parameters(plugins: Path) -> None:
    (found,) = [found for found in describe(str(plugins)) if found.label == "hints"]
    said = {
        p.name: (p.default, p.minimum, p.maximum, p.unit, p.log, p.step, p.kind)
        for p in found.info.parameters
    }
    middle = 44100 * math.sqrt(0.0001 * 0.4)
    cutoff = pytest.approx(middle, rel=1e-4), pytest.approx(4.41), pytest.approx(17640)
    assert said == {
        "which": (0, 0, 9, "", False, 1, "number"),
        "cutoff": (*cutoff, "Hz", True, 0, "number"),
        "decay_time": (250, 0, 1000, "ms", False, 0, "number"),
        "hard_knee": (1, 0, 1, "", False, 0, "switch"),
        "voices": (4, 1, 4, "", False, 1, "number"),
        "gain": (0, -60, 20, "dB", False, 0, "number"),
        "open": (0, -1e5, 1e5, "", False, 0, "number"),
        "gain_2": (-1, -1, 1, "dB", False, 0, "number"),
        "ratio": (100, 1, 1e5, ":1", False, 0, "number"),
        "a440": (440, -1e5, 1e5, "", False, 0, "number"),
    }


def test_controls_reach_the_plugin_in_its_own_range(plugins: Path) -> None:
    """The range of a frequency is that of the stream's rate, and whole numbers are whole."""
    for which, name, value, expected in [
        (1, "cutoff", 17640.0, 17640.0),
        (1, "cutoff", 4.41, 4.8),
        (3, "hard_knee", 0.0, 0.0),
        (4, "voices", 2.4, 2.0),
        (5, "gain", -12.5, -12.5),
    ]:
        effect = prepared(plugins, "hints", 1, which=which, **{name: value})
        assert run(effect, noise(BLOCK, 1))[-1, 0] == pytest.approx(expected, rel=1e-6)


def test_a_parameter_glides(plugins: Path) -> None:
    effect = prepared(plugins, "hints", 1, which=5)
    effect.set("gain", 20)
    values = run(effect, noise(RATE // 2, 1))[:, 0]
    assert np.abs(np.diff(values)).max() < 0.5
    assert values[-1] == 20


def mono(audio: Float32) -> Float32:
    return (audio.sum(axis=1, keepdims=True) * np.float32(0.5)).astype(np.float32)


def test_ports_and_channels_that_do_not_match(plugins: Path) -> None:
    stereo, single = noise(1000), noise(1000, 1)
    left, right = stereo[:, :1], stereo[:, 1:]
    one = mono(stereo)
    cases = [
        ("split", stereo, np.hstack([one, -2 * one])),
        ("split", single, np.float32(0.5) * (single - 2 * single)),
        ("join", stereo, np.repeat(left - 3 * right, 2, axis=1)),
        ("join", single, single - 3 * single),
    ]
    for label, audio, expected in cases:
        out = run(prepared(plugins, label, audio.shape[1]), audio, (BLOCK, 1, 77))
        np.testing.assert_array_equal(out, expected)
    with pytest.raises(UsageError, match="'wide' has 3 audio inputs and 1 outputs"):
        Ladspa(str(plugins), "wide")


@pytest.mark.parametrize("channels", [1, 2])
def test_latency_is_read_and_true(plugins: Path, channels: int) -> None:
    effect = prepared(plugins, "fault", channels)
    assert effect.latency == 100
    audio = noise(2000, channels)
    np.testing.assert_array_equal(run(effect, audio, (1, 50, BLOCK))[100:], audio[:-100])
    effect.reset()
    np.testing.assert_array_equal(run(effect, audio)[:100], 0)


# ---- plugins of others


@pytest.mark.parametrize("isolate", [False, True])
def test_an_amplifier_amplifies(isolate: bool) -> None:
    effect = host.load(f"{library('amp', 'ladspa-sdk')}/amp_mono", isolate=isolate)
    effect.set("gain", 0.3)
    effect.prepare(RATE, 2, BLOCK)
    audio = noise(5000)
    late = effect.latency
    assert late == (BLOCK if isolate else 0)
    out = run(effect, audio)
    np.testing.assert_array_equal(out[late:], (audio * np.float32(0.3))[: len(audio) - late])


@pytest.mark.parametrize(
    ("name", "package", "label", "values"),
    [
        ("delay", "ladspa-sdk", "delay_5s", {"delay": 0.01, "dry_wet_balance": 0.25}),
        ("sc4_1882", "swh-plugins", "sc4", {"threshold_level": -20, "ratio": 8}),
        ("plate_1423", "swh-plugins", "plate", {"reverb_time": 2, "dry_wet_mix": 0.4}),
        ("cmt", "cmt", "freeverb3", {}),
    ],
)
def test_what_ffmpeg_makes_of_it(name: str, package: str, label: str, values: dict) -> None:  # type: ignore[type-arg]
    """Bit by bit: another host, which reads the same hints."""
    path = library(name, package)
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    (found,) = [found for found in describe(path) if found.label == label]
    audio = noise(RATE, found.inputs)
    effect = Ladspa(path, label)
    for key, value in values.items():
        effect.set(key, value)
    effect.prepare(RATE, found.outputs, BLOCK)
    wide = audio if found.inputs == found.outputs else np.repeat(audio, found.outputs, axis=1)
    ours = run(effect, wide)

    controls = "|".join(
        f"c{i}={effect.targets[p.name]:.9g}" for i, p in enumerate(found.info.parameters)
    )
    layout = ["-f", "f32le", "-ar", str(RATE), "-ac", str(found.inputs)]
    chain = f"ladspa=file={path}:plugin={label}:controls={controls}"
    done = subprocess.run(
        ["ffmpeg", "-v", "error", *layout, "-i", "-", "-af", chain, "-f", "f32le", "-"],
        input=audio.tobytes(),
        capture_output=True,
    )
    if b"No such filter" in done.stderr:
        pytest.skip("this ffmpeg was built without LADSPA")
    assert done.returncode == 0, done.stderr
    theirs = np.frombuffer(done.stdout, np.float32).reshape(-1, found.outputs)
    np.testing.assert_array_equal(ours, theirs)


# ---- finding


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where libraries are remembered; none of the user's."""
    monkeypatch.setattr(ladspa.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "realtime-sep" / "ladspa.json"


def test_libraries_are_opened_once(
    plugins: Path,
    crashing: Path,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Again only when they have changed, whatever has become of what is remembered."""
    opened: list[str] = []

    def looked_into(helper: Helper, path: Path) -> list[ladspa.Found]:
        opened.append(path.name)
        return look(helper, path)

    look = ladspa._looked_into
    monkeypatch.setattr(ladspa, "_looked_into", looked_into)
    monkeypatch.setenv("LADSPA_PATH", str(tmp_path))
    shutil.copy(plugins, tmp_path / "a.so")
    shutil.copy(crashing, tmp_path / "b.so")
    (tmp_path / "c.so").symlink_to("nowhere")
    first = host.available()
    assert [info.name for info in first] == ["fault", "hints", "join", "split"]
    assert opened == ["a.so", "b.so"]
    assert host.available() == first
    assert len(opened) == 2

    (tmp_path / "b.so").write_text("no library any more")
    assert host.available() == first
    assert opened[2:] == ["b.so"]
    (tmp_path / "a.so").unlink()
    assert host.available() == []
    assert "a.so" not in cache.read_text()

    shutil.copy(plugins, tmp_path / "a.so")
    for damage in ("{", "[]", '{"format": 0}', '{"format": 1, "libraries": {"x": 1}}'):
        cache.write_text(damage)
        assert host.available() == first
    assert len(opened) == 3 + 2 * 4
    cache.unlink()
    cache.mkdir()  # it cannot be written
    assert host.available() == first


def test_names(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADSPA_PATH", str(plugins.parent))
    with Helper() as helper:
        for name in ("fault", str(0xF0001), "ours/fault", f"{plugins}/fault"):
            assert ladspa._find(helper, name).label == "fault", name
        for name, words in [
            ("fualt", "unknown LADSPA plugin 'fualt'; did you mean 'fault'"),
            ("ours/spilt", "in ours.so: 'spilt'; did you mean 'split'"),
            ("ours", "ours.so holds several plugins: fault, hints, join, split, wide"),
            (__file__, "test_ladspa.py"),
        ]:
            with pytest.raises(UsageError, match=words) as error:
                ladspa._find(helper, name)
            assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="has 3 audio inputs"):
        host.load("wide")
    with pytest.raises(UsageError, match="no presets"):
        host.load("fault", preset="loud")


def test_a_library_that_crashes_is_passed_over(
    plugins: Path, crashing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LADSPA_PATH", f"{crashing.parent}:{plugins.parent}:/nowhere")
    infos = host.available()
    assert [info.name for info in infos] == ["fault", "hints", "join", "split"]
    assert {info.latency for info in infos} == {None, 0}
    assert {info.origin for info in infos} == {str(plugins)}
    with pytest.raises(UsageError, match=r"it died \(SIGABRT\)"):
        host.load(str(crashing))
    assert isinstance(host, Host)
