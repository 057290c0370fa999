"""What there is to choose from: models with their latency and quality, devices, plugins."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any

from realtime_sep.errors import RealtimeSepError

_TIMEOUT = 15.0
#: Seconds after which whoever asks for plugins may find new ones.
_FRESH = 30.0

_lock = threading.Lock()
_models: dict[str, dict[str, Any]] | None = None
_devices: list[dict[str, Any]] | None = None
_hosted: list[dict[str, str]] | None = None
_hosted_at = 0.0


def models() -> dict[str, dict[str, Any]]:
    """By name: `latency_ms` of the separator alone in its usual profile, `quality` (median SDR of
    the vocals in dB), each None where it is not known, and `stems`.  Slow the first time."""
    global _models
    with _lock:
        if _models is None:
            try:
                _models = _describe()
            except RealtimeSepError:  # a damaged manifest; `realtime-sep models` tells
                _models = {}
        return _models


def quick() -> tuple[str, ...]:
    """Models that load in a moment: worth having ready for a switch."""
    from realtime_sep.models import registry

    try:
        entries = registry.entries()
    except RealtimeSepError:
        entries = {}
    return ("center", *(n for n, e in entries.items() if e.metadata.kind == "spectral"))


def _describe() -> dict[str, dict[str, Any]]:
    from realtime_sep.models import cli, registry
    from realtime_sep.plugins import available_separators, load_separator

    entries = registry.entries()
    found: dict[str, dict[str, Any]] = {}
    for name in available_separators():
        if name in entries:
            info = cli.describe(entries[name])
            found[name] = {
                "latency_ms": info.latency[info.default_profile]["ms"],
                "quality": _score(info.quality),
                "stems": list(info.stems),
            }
            continue
        try:
            own = load_separator(name).info
        except RealtimeSepError:
            continue  # a plugin that does not load is told by whoever asks for it
        found[name] = {
            "latency_ms": round(1e3 * own.latency / own.samplerate, 1),
            "quality": None,
            "stems": list(own.stems),
        }
    return found


def _score(scores: Any) -> float | None:
    for key in ("median", "vocals", "sdr"):
        scores = scores.get(key) if hasattr(scores, "get") else None
    return round(float(scores), 1) if isinstance(scores, int | float) else None


def devices(anew: bool = False) -> list[dict[str, Any]]:
    """Devices, each with `use` (what to choose it by), `name` and the `kinds` it serves.

    They are looked up in a process of its own: importing the audio library opens host APIs.
    """
    global _devices
    with _lock:
        if _devices is None or anew:
            _devices = _look()
        return _devices


def hosted(anew: bool = False) -> list[dict[str, str]]:
    """Effects of foreign plugins, each with `use` (as in a chain) and `name`; slow the first time.

    Args:
        anew: look again, unless that was a moment ago.

    They too are looked up in a process of its own: to ask a plugin is to run its code.
    """
    global _hosted, _hosted_at
    with _lock:
        if _hosted is None or (anew and time.monotonic() - _hosted_at > _FRESH):
            listed = _ask("plugins", "list", "--kind", "hosted", "--json") or []
            _hosted = [
                {"use": one["name"], "name": one["summary"]} for one in listed if not one["problem"]
            ]
            _hosted_at = time.monotonic()
        return _hosted


def _ask(*command: str) -> Any:
    """What a command of ours says in JSON; None if it fails."""
    whole = [sys.executable, "-m", "realtime_sep", *command]
    try:
        done = subprocess.run(whole, capture_output=True, timeout=_TIMEOUT, check=True)
        return json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _look() -> list[dict[str, Any]]:
    listed = _ask("devices", "--json") or {}
    found: dict[str, dict[str, Any]] = {}
    for endpoint in listed.get("server", []):
        name = str(endpoint["description"])
        found.setdefault(name, {"use": name, "name": name, "kinds": []})
        found[name]["kinds"].append(endpoint["kind"])
    for device in listed.get("devices", []):
        kinds = [kind for kind in ("input", "output") if device[f"{kind}s"]]
        use = str(device["index"])
        found[use] = {"use": use, "name": f"{device['name']} ({device['api']})", "kinds": kinds}
    return list(found.values())
