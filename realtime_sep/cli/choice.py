"""Which separator to use when nobody says."""

from __future__ import annotations

import time

#: What every machine can run, and what needs no model.
FALLBACK = "center"
#: Score (median SDR of the vocals, dB) from which a model is taken unasked: on stereo songs
#: `center` reaches 6 dB, so a network must be clearly better on all kinds of songs together.
GOOD = 5.5
#: Processor time per time of audio up to which a model is trusted to keep up live.
AFFORDABLE = 0.6
#: Seconds of audio to try a model with.
_TRIAL = 1.0


def best_model(without: str = "") -> str:
    """The installed model of the highest score that this machine computes in time, else "center".

    The score is the median SDR of the vocals in the model's own quality block; a model without one
    is never chosen unasked, nor is one below `GOOD`.

    Args:
        without: a model that is not meant.
    """
    from realtime_sep.errors import RealtimeSepError
    from realtime_sep.models import registry

    try:
        entries = registry.entries()
    except RealtimeSepError:  # a damaged manifest is told by `models`, and is no reason not to play
        return FALLBACK
    scored = {name: _score(entry.quality) for name, entry in entries.items() if name != without}
    ranked = sorted((name for name in scored if scored[name] >= GOOD), key=lambda n: -scored[n])
    for name in ranked:
        try:
            if cost(name) <= AFFORDABLE:
                return name
        except RealtimeSepError:  # cannot be loaded here: no runtime, a damaged file
            continue
    return FALLBACK


def _score(scores: object) -> float:
    """Median SDR of the vocals in a quality block; 0 where it says nothing."""
    for key in ("median", "vocals", "sdr"):
        scores = scores.get(key) if hasattr(scores, "get") else None
    return float(scores) if isinstance(scores, int | float) else 0.0


def cost(name: str) -> float:
    """Processor time that a model takes per time of audio, tried on noise, all threads together.

    Raises:
        RealtimeSepError: it cannot be loaded.
    """
    import numpy as np

    from realtime_sep.plugins import load_separator

    separator = load_separator(name)
    info = separator.info
    if info.rtf > 1:  # it takes longer than it would be tried for
        return info.rtf
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (info.hop, info.channels))
    hop = noise.astype(np.float32)
    stems = np.zeros((len(info.stems), info.hop, info.channels), np.float32)
    hops = round(_TRIAL * info.samplerate / info.hop)
    try:
        for _ in range(hops // 4):  # compile, prime, fill the pipeline
            separator.process(hop, stems)
        begin = time.process_time()
        for _ in range(hops):
            separator.process(hop, stems)
        return (time.process_time() - begin) / (hops * info.hop / info.samplerate)
    finally:
        if (close := getattr(separator, "close", None)) is not None:
            close()
