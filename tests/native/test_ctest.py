"""The C tests, as they ship and under the sanitizers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "native" / "include" / "realtime_sep.h"


def run(*words: str | Path, timeout: float = 600) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def require(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def require_sanitizer(name: str, tmp_path: Path) -> None:
    source = tmp_path / "try.c"
    source.write_text("int main(void) { return 0; }\n")
    program = tmp_path / "try"
    done = subprocess.run(
        ["cc", f"-fsanitize={name}", str(source), "-o", str(program)], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip(f"this compiler has no -fsanitize={name}")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("preset", ["release", "tsan", "asan"])
def test_preset(preset: str, tmp_path: Path) -> None:
    require("cmake", "ctest", "cc")
    sanitizers = {"tsan": "thread", "asan": "address,undefined"}
    if preset in sanitizers:
        require_sanitizer(sanitizers[preset], tmp_path)
    build = tmp_path / "build"
    run("cmake", "--preset", preset, "-B", build)
    run("cmake", "--build", build, "--parallel", "2")
    report = run("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error")
    assert "100% tests passed" in report
    if preset == "tsan":
        assert len(set(re.findall(r"stress_mutant_\d", report))) == 4
    if preset == "release":
        require("nm")
        symbols = run("nm", "-D", "--defined-only", build / "librealtime_sep.so")
        exported = set(re.findall(r" T (\w+)", symbols))
        declared = set(re.findall(r"\b(rs_\w+)\(", HEADER.read_text()))
        assert exported == declared
        run("cmake", "--install", build, "--prefix", tmp_path / "usr")
        plugins_are_found(tmp_path / "usr" / "lib")


def plugins_are_found(installed: Path) -> None:
    """By what looks for plugins of either kind, if their headers were there to build them."""
    for header, tool, variable, place, name in [
        ("ladspa.h", "listplugins", "LADSPA_PATH", "ladspa", "karaoke"),
        ("lv2.h", "lv2ls", "LV2_PATH", "lv2", "urn:realtime-sep:stems"),
    ]:
        built = (installed / place).exists()
        assert built == Path("/usr/include", header).exists()
        if built and shutil.which(tool):
            assert name in run("env", f"{variable}={installed / place}", tool)


def test_header_is_without_preprocessor() -> None:
    assert not re.search(r"^\s*#", HEADER.read_text(), re.MULTILINE)
