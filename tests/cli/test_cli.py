"""The command line as a whole: help, mistakes, quick start."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.metadata import version

import pytest

from .conftest import Cli

COMMANDS = ["live", "separate", "devices", "doctor"]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], *([c, "--help"] for c in COMMANDS)])
def test_help_names_everything(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.returncode == 0
    assert "Usage" in done.stdout
    if len(arguments) == 1:
        assert all(command in done.stdout for command in COMMANDS)


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout.strip() == f"realtime-sep {version('realtime-sep')}"


def test_help_imports_nothing_heavy() -> None:
    """Numba takes a second and PortAudio opens every host API: neither is needed to read help."""
    code = (
        "import sys\n"
        "sys.argv = ['realtime-sep', 'live', '--help']\n"
        "from realtime_sep.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numba', 'numpy', 'sounddevice', 'av', 'onnxruntime', 'soundfile', 'pulsectl'}\n"
        "print('HEAVY', sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_help_is_quick(process: Cli) -> None:
    process("--help")
    start = time.perf_counter()
    process("--help")
    assert time.perf_counter() - start < 10  # 0.3 s on an idle machine


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lvie"], ["lvie", "live"]),
        (["live", "--vocal", "3"], ["--vocal"]),
        (["live", "--vocals", "loud"], ["loud", "dB"]),
        (["live", "--vocals", "20"], ["too loud"]),
        (["live", "--seconds", "-1"], ["--seconds"]),
        (["live", "--blocksize", "0"], ["--blocksize"]),
        (["live", "--latency", "soon", "--input", "null"], ["soon", "low"]),
        (["live", "--model", "centre", "--input", "null"], ["centre", "'center'"]),
        (["live", "--model", "centre"], ["centre", "'center'"]),
        (["live", "--profile", "stge", "--input", "null"], ["stge", "'stage'"]),
        (["live", "--input", "null", "--output", "2"], ["null"]),
        (["separate"], ["FILE"]),
        (["separate", "a.wav", "--format", "mp3"], ["mp3", "flac"]),
    ],
)
def test_mistakes_are_explained(cli: Cli, arguments: list[str], words: list[str]) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr


def test_devices_work_without_any(process: Cli) -> None:
    """No server, perhaps no PortAudio: a line that says so, and no noise beside it."""
    done = process("devices", env={"PULSE_SERVER": "unix:/nowhere", "JACK_NO_START_SERVER": "1"})
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.strip()


def test_devices_as_json(cli: Cli) -> None:
    found = json.loads(cli("devices", "--json").stdout)
    assert set(found) == {"portaudio", "host_apis", "devices", "server"}
    assert (found["portaudio"]["error"] is None) == bool(found["portaudio"]["version"])


def test_doctor_has_a_fix_for_what_it_finds(cli: Cli) -> None:
    done = cli("doctor", "--json")
    findings = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert {"compiled extension", "PortAudio", "real-time priority"} <= set(findings)
    assert findings["compiled extension"]["verdict"] == "ok"
    for finding in findings.values():
        assert finding["verdict"] in ("ok", "warn", "fail")
        assert finding["verdict"] == "ok" or finding["fix"]
        assert "\n" not in finding["detail"] + finding["fix"]
    broken = [f for f in findings.values() if f["verdict"] == "fail" and f["essential"]]
    assert done.returncode == (1 if broken else 0)


def test_doctor_reads_well(cli: Cli) -> None:
    lines = cli("doctor").stdout.splitlines()
    assert all(line.split()[0] in ("ok", "warn", "fail", "→") for line in lines)
