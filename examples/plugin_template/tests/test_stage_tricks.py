"""Run them:  pip install . pytest && pytest"""

import numpy as np
from stage_tricks import BandCenter, Tremolo

from realtime_sep.testing import EffectConformance, SeparatorConformance


class TestBandCenter(SeparatorConformance):
    plugin = BandCenter


class TestTremolo(EffectConformance):
    plugin = Tremolo


def test_a_voice_in_the_middle_is_heard_and_the_bass_is_not() -> None:
    """What every plugin promises, others have tested; what only yours does, you test."""
    time = np.arange(25600) / 48000
    levels = []
    for hertz in (1000, 40):
        separator = BandCenter(samplerate=48000, channels=1)
        hops = np.sin(2 * np.pi * hertz * time).astype(np.float32).reshape(-1, 256, 1)
        stems = np.empty((2, 256, 1), np.float32)
        for hop in hops:
            separator.process(hop, stems)
        levels.append(float(np.abs(stems[0]).max()))
    assert levels[0] > 4 * levels[1]
