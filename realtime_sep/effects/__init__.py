"""Effects: change the mix block by block, in place."""

from realtime_sep.effects.base import BaseEffect
from realtime_sep.effects.protocol import API_VERSION, Effect
from realtime_sep.parameters import Parameter

__all__ = ["API_VERSION", "BaseEffect", "Effect", "Parameter"]
