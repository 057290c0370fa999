"""The engine for plugins in other programs: the other end of `native/plugin/`."""
