"""What PortAudio sees, found out in a process of its own.

Loading PortAudio opens every host API of the machine: drivers print to the terminal, may take
seconds, and may crash.  So a child does it and this module reads its answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

_TIMEOUT = 30.0

#: Parts of names of devices without hardware, for host APIs that do not tell.
_VIRTUAL_NAMES = (
    "blackhole", "vb-audio", "cable", "voicemeeter", "soundflower", "loopback", "virtual",
    "aggregate", "multi-output", "stereo mix", "null", "monitor",
)  # fmt: skip


@dataclass(frozen=True)
class PortAudio:
    """PortAudio's view of the machine.

    Attributes:
        error: why there is none, in one line with the fix; else "".
        version: PortAudio's own words.
        apis: names of the host APIs.
        devices: `index, name, api, inputs, outputs, samplerate, input_latency, output_latency (s),
            virtual, default_input, default_output` each.
    """

    error: str = ""
    version: str = ""
    apis: list[str] = field(default_factory=list)
    devices: list[dict[str, Any]] = field(default_factory=list)


def probe() -> PortAudio:
    """Ask a child process; never raises."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", "realtime_sep.cli.portaudio"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            text=True,
            errors="replace",
        )
        return PortAudio(**json.loads(child.stdout.strip().splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return PortAudio(
            error=f"PortAudio did not answer within {_TIMEOUT:.0f} s; restart the audio server"
        )
    except (OSError, ValueError, IndexError, TypeError) as error:
        return PortAudio(error=f"PortAudio could not be asked ({error}); it may have crashed")


def _answer() -> PortAudio:
    from realtime_sep.errors import DeviceError
    from realtime_sep.io import portaudio

    try:
        sd = portaudio.load(jack=True)
    except DeviceError as error:
        return PortAudio(error=str(error))
    apis = [api["name"] for api in sd.query_hostapis()]
    defaults = tuple(sd.default.device)
    return PortAudio(
        version=sd.get_portaudio_version()[1],
        apis=apis,
        devices=[
            {
                "index": device["index"],
                "name": device["name"],
                "api": apis[device["hostapi"]],
                "inputs": device["max_input_channels"],
                "outputs": device["max_output_channels"],
                "samplerate": device["default_samplerate"],
                "input_latency": device["default_low_input_latency"],
                "output_latency": device["default_low_output_latency"],
                "virtual": _is_virtual(device["name"], apis[device["hostapi"]]),
                "default_input": device["index"] == defaults[0],
                "default_output": device["index"] == defaults[1],
            }
            for device in sd.query_devices()
        ],
    )


def _is_virtual(name: str, api: str) -> bool:
    lower = name.lower()
    if api == "ALSA":
        return "(hw:" not in lower  # everything else is a plugin in front of something
    return any(part in lower for part in _VIRTUAL_NAMES)


if __name__ == "__main__":
    from dataclasses import asdict

    print(json.dumps(asdict(_answer())))
