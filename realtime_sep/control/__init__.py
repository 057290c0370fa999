"""Hands on a running stream: recorder, presets, the desk and its web page."""
