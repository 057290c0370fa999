"""Does a plugin keep its promises?  Checks for the tests of anybody's separator or effect.

With pytest, every promise is a test of its own:

    from realtime_sep.testing import EffectConformance
    from my_plugins import Tremolo

    class TestTremolo(EffectConformance):
        plugin = Tremolo

or in one line, anywhere: `check_effect(Tremolo)`, `check_separator("center")`.
"""

from realtime_sep.testing.base import Conformance
from realtime_sep.testing.effect import EffectConformance, check_effect
from realtime_sep.testing.separator import SeparatorConformance, check_separator

__all__ = [
    "Conformance",
    "EffectConformance",
    "SeparatorConformance",
    "check_effect",
    "check_separator",
]
