"""Whether what is played may be heard by what listens: then it can howl."""

from __future__ import annotations

#: Where faders start at most when the output may come back as input.
SAFE_START_DB = -20.0

_NO_MICROPHONE = (
    "line", "loopback", "stereo mix", "what u hear", "spdif", "digital", "virtual",
    "blackhole", "cable", "soundflower", "null",
)  # fmt: skip
_NO_LOUDSPEAKER = (
    "headphone", "headset", "earphone", "airpods", "buds", "virtual", "blackhole", "cable",
    "soundflower", "null",
)  # fmt: skip


def feedback(description: str) -> str:
    """Why sound may go round from output to input, by the names in "input ▶ output (...)"; or "".

    Names are all there is to go by; where they tell nothing, a warning is the smaller harm.
    """
    source, arrow, sink = (part.strip() for part in description.lower().partition("▶"))
    sink = sink.rpartition(" (")[0] or sink
    if not arrow or "(jack" in description.lower() or source == "jack":
        return ""  # the null device; or JACK, where people see what they connect
    if "monitor" in source:
        if sink in ("pulse", "default"):
            sink = _default_sink()
        return "it listens to what it plays" if sink and source.endswith(f" {sink}") else ""
    if any(word in source for word in _NO_MICROPHONE):
        return ""
    if any(word in sink for word in _NO_LOUDSPEAKER):
        return ""
    return "a microphone may hear the loudspeakers"


def singing(microphone: str, device: str) -> str:
    """The same for a microphone of its own, and what the first device plays on."""
    source = microphone.rpartition(" (")[0] or microphone
    _, arrow, sink = device.partition("▶")
    return feedback(f"{source} ▶{sink}") if arrow and "null device" not in source else ""


def _default_sink() -> str:
    """Description of what PulseAudio or PipeWire plays on by default, in lower case."""
    from realtime_sep.io import pulse

    sinks = (e for e in pulse.endpoints() if e.kind == "output" and e.default)
    return next((sink.description.lower() for sink in sinks), "")
