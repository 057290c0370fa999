"""Separators: a hop of the mix enters, the same hop of every stem leaves, some latency later."""

from realtime_sep.separators.protocol import API_VERSION, Separator, SeparatorFactory

__all__ = ["API_VERSION", "Separator", "SeparatorFactory"]
