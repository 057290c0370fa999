"""The LADSPA plugin in this process, with a real engine beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hosts import RATE, Engine, built, engine, song, until
from ladspa_host import Plugin

from realtime_sep import separate
from realtime_sep.bridge import install
from realtime_sep.errors import EngineError

BLOCK = 256


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    with engine(tmp_path) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("REALTIME_SEP_MODEL", raising=False)
        yield made


@pytest.fixture
def plugin(serving: Engine) -> Iterator[Plugin]:
    made = Plugin(built("LADSPA"), RATE)
    made.controls["Vocals (dB)"][0] = -60
    made.controls["Model"][0] = 1
    yield made
    made.close()


def play(plugin: Plugin, audio: np.ndarray) -> np.ndarray:
    return np.concatenate([plugin.run(audio[i : i + BLOCK]) for i in range(0, len(audio), BLOCK)])


def test_without_an_engine_the_input_comes_out_late(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALTIME_SEP_COMMAND", "/bin/false")
    other = Plugin(built("LADSPA"), RATE)
    audio = song(40 * BLOCK)
    out = play(other, audio)
    other.close()
    assert other.latency == 256 + BLOCK + 64
    assert np.array_equal(out[other.latency :], audio[: -other.latency])
    assert not out[: other.latency].any()


def test_waiting_gives_what_separate_gives(serving: Engine, plugin: Plugin) -> None:
    serving.start()
    plugin.controls["Wait for the engine (offline)"][0] = 1
    audio = song(RATE + 123)
    expected = separate(audio, RATE, "center")["accompaniment"]
    out = play(plugin, audio)
    late = plugin.latency
    assert np.array_equal(out[late:], expected[:-late])
    # The faders, at both ends of the bus.
    plugin.controls["Vocals (dB)"][0] = 0
    plugin.controls["Bypass"][0] = 1
    again = play(plugin, audio)
    settled = 8 * BLOCK + late
    assert np.array_equal(again[settled:], audio[settled - late : -late])


def separated(plugin: Plugin) -> bool:
    """Whether a voice in the middle is gone, in blocks at the clock's pace."""
    rng = np.random.default_rng(0)
    middle = sides = 0.0
    begin = time.monotonic()
    while time.monotonic() - begin < 0.3:
        block = (rng.standard_normal((BLOCK, 2)) * 0.02).astype(np.float32)
        block += rng.standard_normal((BLOCK, 1)).astype(np.float32) * 0.3
        out = plugin.run(block)
        middle += float(np.square(out.sum(1)).sum())
        sides += float(np.square(out[:, 0] - out[:, 1]).sum())
        time.sleep(BLOCK / RATE)
    return middle < 60 * sides


@pytest.mark.slow
def test_an_engine_that_is_killed_comes_back(serving: Engine, plugin: Plugin) -> None:
    """Live: dry at the same latency, and then what the next engine makes."""
    serving.start()
    assert not separated(plugin)
    latency = plugin.latency
    until(lambda: separated(plugin), 60, "the first engine is heard")
    assert plugin.latency == latency
    (instance,) = serving.instances()
    os.kill(instance, signal.SIGKILL)
    until(lambda: not separated(plugin), 10, "dry")
    assert plugin.latency == latency
    until(lambda: separated(plugin), 60, "another engine is heard")
    assert plugin.latency == latency
    serving.kill()  # also the one that listens: the plugin starts another
    until(lambda: not separated(plugin), 10, "dry")
    until(lambda: separated(plugin), 60, "the engine that the plugin has started is heard")


@pytest.mark.slow
def test_an_engine_that_hangs_is_not_waited_for(serving: Engine, plugin: Plugin) -> None:
    """Dry as fast as the host asks, at the same latency; and then what another engine makes."""
    serving.start()
    until(lambda: separated(plugin), 60, "the engine is heard")
    late = plugin.latency
    (instance,) = serving.instances()
    os.kill(instance, signal.SIGSTOP)
    audio = song(400 * BLOCK)
    begin = time.monotonic()
    out = play(plugin, audio)
    assert time.monotonic() - begin < 0.5 * len(audio) / RATE
    faded = 100 * BLOCK
    assert np.array_equal(out[faded + late :], audio[faded:-late])
    until(lambda: separated(plugin), 60, "another engine is heard")
    assert plugin.latency == late
    os.kill(instance, signal.SIGCONT)
    until(lambda: instance not in serving.instances(), 20, "the one that hung has ended")


def test_a_place_is_free_when_the_host_has_died(serving: Engine, tmp_path: Path) -> None:
    serving.start()
    library = built("LADSPA")
    host = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time, numpy as np\n"
            "from ladspa_host import Plugin\n"
            f"p = Plugin({str(library)!r}, {RATE})\n"
            "p.controls['Model'][0] = 1\n"
            "while True:\n    p.run(np.zeros((256, 2), np.float32)); time.sleep(0.005)\n",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    try:
        until(lambda: len(serving.instances()) == 1, 60, "it is served")
    finally:
        host.kill()
        host.wait()
    until(lambda: not serving.instances(), 20, "its engine has ended")


def test_one_engine_at_a_time(serving: Engine) -> None:
    serving.start()
    second = subprocess.run(
        [sys.executable, "-m", "realtime_sep", "bridge"], capture_output=True, text=True, timeout=60
    )
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "another bridge is serving" in second.stderr


def test_an_unknown_model_is_told_and_the_input_comes_out(
    serving: Engine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    serving.start()
    monkeypatch.setenv("REALTIME_SEP_MODEL", "centre")
    plugin = Plugin(built("LADSPA"), RATE)
    plugin.controls["Wait for the engine (offline)"][0] = 1
    audio = song(8 * BLOCK)
    out = play(plugin, audio)
    plugin.close()
    assert np.array_equal(out[plugin.latency :], audio[: -plugin.latency])
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert "'center'" in told


def test_install_and_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built("LADSPA")
    built("LV2")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    try:
        program = install.program()
    except EngineError as error:
        pytest.skip(str(error))
    written = install.install(pipewire=True)
    assert {p.name for p in written} == {
        *("realtime_sep.so", "manifest.ttl", "realtime_sep.ttl", "command"),
        "realtime-sep-karaoke.conf",
    }
    command = tmp_path / ".config" / "realtime-sep" / "command"
    assert command.read_text() == f"{program}\n"
    install.install(pipewire=True)
    assert sorted(install.remove()) == sorted(written)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
