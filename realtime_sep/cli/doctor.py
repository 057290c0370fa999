"""`realtime-sep doctor`: is this machine ready, and if not, what to do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Verdict = Literal["ok", "warn", "fail"]

#: Locked memory below this (bytes) will not hold the process.
_MEMLOCK_ENOUGH = 512 << 20


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        essential: without it the program cannot do its work: decides the exit status.
        fix: what to do, in one line; empty if nothing needs to be done.
    """

    subject: str
    verdict: Verdict
    detail: str
    fix: str = ""
    essential: bool = False


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check this machine: each finding with its fix in one line.

    The exit status is 0 unless something essential fails.
    """
    from realtime_sep.cli import common

    if as_json:
        findings = list(_examine())
        typer.echo(common.to_json(findings))
    else:
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False)
        styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
        findings = []
        for finding in _examine():
            findings.append(finding)
            line = Text.assemble(
                (f"{finding.verdict:<5}", styles[finding.verdict]),
                (f"{finding.subject}: ", "bold"),
                finding.detail,
            )
            console.print(line, soft_wrap=True)
            if finding.fix:
                console.print(Text(f"     → {finding.fix}"), soft_wrap=True)
    if any(f.verdict == "fail" and f.essential for f in findings):
        raise typer.Exit(1)


def _examine() -> Iterator[Finding]:
    examinations: tuple[Callable[[], Iterator[Finding]], ...] = (
        _extension,
        _kernels,
        _portaudio,
        _server,
        _separator,
        _onnxruntime,
        _realtime,
        _governor,
    )
    for examine in examinations:
        yield from examine()


def _extension() -> Iterator[Finding]:
    try:
        from realtime_sep import native

        with native.Ring(1024, 2) as ring:
            detail = "mirrored rings" if ring.mirrored else "plain rings"
        yield Finding("compiled extension", "ok", detail)
    except (ImportError, OSError) as error:
        yield Finding(
            "compiled extension", "fail", str(error), "install again with a C compiler: "
            "apt install gcc python3-dev; pip install --force-reinstall realtime-sep", True,
        )  # fmt: skip


def _kernels() -> Iterator[Finding]:
    start = time.perf_counter()
    try:
        from realtime_sep.dsp import stft
    except Exception as error:
        yield Finding(
            "numba", "fail", str(error).splitlines()[0],
            "set NUMBA_CACHE_DIR to a directory that you may write", True,
        )  # fmt: skip
        return
    seconds = time.perf_counter() - start
    cache = Path(stft._analyse.stats.cache_path or ".")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        probe = cache / ".probe"
        probe.touch()
        probe.unlink()
    except OSError:
        yield Finding(
            "numba cache", "warn", f"{cache} may not be written: every start compiles again",
            "set NUMBA_CACHE_DIR to a directory that you may write",
        )  # fmt: skip
    else:
        yield Finding("numba cache", "ok", f"{cache}, loaded in {seconds:.1f} s")


def _portaudio() -> Iterator[Finding]:
    from realtime_sep.cli import portaudio

    found = portaudio.probe()
    if found.error:
        text, _, fix = found.error.partition("; ")
        yield Finding("PortAudio", "fail", text, fix, True)
        return
    yield Finding("PortAudio", "ok", found.version)
    apis = ", ".join(found.apis) or "none"
    if found.devices:
        yield Finding("host APIs", "ok", f"{apis}; {len(found.devices)} devices")
    else:
        yield Finding(
            "host APIs", "warn", f"{apis}; no devices",
            "plug in a sound card or start an audio server (PipeWire, PulseAudio, JACK)",
        )  # fmt: skip


def _server() -> Iterator[Finding]:
    if not sys.platform.startswith("linux"):
        return
    from realtime_sep.io import pulse

    endpoints = pulse.endpoints()
    if endpoints:
        monitors = sum(endpoint.monitor for endpoint in endpoints)
        yield Finding("audio server", "ok", f"PulseAudio or PipeWire, {monitors} monitors")
    else:
        yield Finding(
            "audio server", "warn", "no PulseAudio or PipeWire: other programs cannot be captured",
            "start one, for example: systemctl --user start pipewire pipewire-pulse",
        )  # fmt: skip


def _separator() -> Iterator[Finding]:
    """Run a second of noise through the default separator and time its hops."""
    from realtime_sep.cli.choice import best_model

    name = best_model()
    try:
        detail, share = _in_thread(lambda: _timed(name))
    except Exception as error:
        yield Finding(f"separator {name}", "fail", str(error), "reinstall realtime-sep", True)
        return
    if share < 0.5:
        yield Finding(f"separator {name}", "ok", detail)
    else:
        yield Finding(
            f"separator {name}", "warn", f"{detail}: too slow to be safe",
            "close other programs, or choose a lighter model with --model center",
        )  # fmt: skip


def _timed(name: str) -> tuple[str, float]:
    """Description of what ran, and the part of the hop that it took on average."""
    import threading

    import numpy as np

    from realtime_sep.plugins import load_separator

    before = set(threading.enumerate())
    separator = load_separator(name)
    info = separator.info
    generator = np.random.default_rng(0)
    hop = generator.uniform(-0.1, 0.1, (info.hop, info.channels)).astype(np.float32)
    stems = np.zeros((len(info.stems), info.hop, info.channels), np.float32)
    times = []
    for _ in range(max(20, info.samplerate // info.hop)):
        start = time.perf_counter()
        separator.process(hop, stems)
        times.append(time.perf_counter() - start)
    if hasattr(separator, "close"):
        separator.close()
        for helper in set(threading.enumerate()) - before:
            helper.join(5)  # the interpreter must not end while one is inside of a library
    mean = float(np.mean(times))
    length = info.hop / info.samplerate
    detail = (
        f"computed by {info.provider}, {1e3 * mean:.2f} ms per hop of {1e3 * length:.1f} ms "
        f"({100 * mean / length:.0f} %)"
    )
    return detail, mean / length


def _onnxruntime() -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    wheels: dict[str, str] = {}
    for wheel in ("onnxruntime", "onnxruntime-gpu"):
        try:
            wheels[wheel] = version(wheel)
        except PackageNotFoundError:
            continue
    if not wheels:
        yield Finding(
            "onnxruntime", "warn", "not installed: only separators without a model run",
            'pip install "realtime-sep[cpu]"',
        )  # fmt: skip
        return
    if len(wheels) > 1:
        yield Finding(
            "onnxruntime", "warn", "two wheels are installed and overwrite each other",
            "pip uninstall onnxruntime onnxruntime-gpu, then install the one you want",
        )  # fmt: skip
        return
    ((wheel, number),) = wheels.items()
    if tuple(int(part) for part in number.split(".")[:2]) < (1, 24):
        yield Finding(
            "onnxruntime", "warn", f"{wheel} {number} is too old to read models safely",
            f'pip install --upgrade "{wheel}>=1.24"',
        )  # fmt: skip
        return
    yield _active_provider(wheel, number)


def _active_provider(wheel: str, number: str) -> Finding:
    """What really computes, after running a network; the wheel's name promises nothing."""
    from importlib import import_module

    model = _first_model()
    if model is not None:
        try:
            detail, _ = _in_thread(lambda: _timed(model))
        except Exception as error:
            return Finding("onnxruntime", "warn", f"{wheel} {number}: {error}", "reinstall it")
        return Finding("onnxruntime", "ok", f"{wheel} {number}; {model}: {detail}")
    try:
        onnxruntime = import_module("onnxruntime")
        providers = ", ".join(onnxruntime.get_available_providers())
    except Exception as error:
        return Finding("onnxruntime", "warn", f"{wheel} {number}: {error}", "reinstall it")
    return Finding("onnxruntime", "ok", f"{wheel} {number}, offers {providers}; no model to run")


def _first_model() -> str | None:
    """The name of an installed network."""
    try:
        from realtime_sep.models import registry
    except ImportError:
        return None
    names: list[str] = sorted(registry.names())
    return names[0] if names else None


def _realtime() -> Iterator[Finding]:
    from realtime_sep import native

    refused = _in_thread(lambda: native.set_realtime(8))
    if refused is None:
        yield Finding("real-time priority", "ok", "granted")
    else:
        fix = ""
        if sys.platform.startswith("linux"):
            fix = (
                "echo '@audio - rtprio 95' | sudo tee /etc/security/limits.d/audio.conf; "
                "sudo usermod -aG audio $USER; log in again"
            )
        yield Finding("real-time priority", "warn", f"refused ({refused}): late under load", fix)
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if soft in (-1, resource.RLIM_INFINITY) or soft >= _MEMLOCK_ENOUGH or _is_root():
            yield Finding("memory locking", "ok", "permitted")
        else:
            yield Finding(
                "memory locking", "warn", f"limited to {soft >> 10} KiB, late when memory is short",
                "echo '@audio - memlock unlimited' | "
                "sudo tee -a /etc/security/limits.d/audio.conf; log in again",
            )  # fmt: skip


def _in_thread(work: Callable[[], Any]) -> Any:
    """Run in a thread of its own, which takes its priority and its floating-point mode with it."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def _is_root() -> bool:
    import os

    return os.geteuid() == 0 if hasattr(os, "geteuid") else False


def _governor() -> Iterator[Finding]:
    paths = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    try:
        governors = {path.read_text().strip() for path in paths}
    except OSError:
        return
    if not governors:
        return  # no such thing here: another system, or a virtual machine
    if governors <= {"performance", "schedutil"}:
        yield Finding("CPU governor", "ok", ", ".join(sorted(governors)))
    else:
        yield Finding(
            "CPU governor", "warn", f"{', '.join(sorted(governors))}: slow to wake up",
            "sudo cpupower frequency-set -g performance",
        )  # fmt: skip
