"""Single keys from the terminal while something else is shown there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def pressed() -> Iterator[Callable[[], str]]:
    """Gives a function that returns the keys pressed since its last call, without waiting.

    Where the input is no terminal there are none.
    """
    if not sys.stdin.isatty():
        yield lambda: ""
    elif sys.platform == "win32":
        yield _windows_keys
    else:
        with _cbreak() as read:
            yield read


def _windows_keys() -> str:
    keys = ""
    if sys.platform == "win32":
        import msvcrt

        while msvcrt.kbhit():
            keys += msvcrt.getwch()
    return keys


@contextmanager
def _cbreak() -> Iterator[Callable[[], str]]:
    """No echo, no waiting for a line; Ctrl-C stays a signal."""
    import os
    import select
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def read() -> str:
        if not select.select([terminal], [], [], 0)[0]:
            return ""
        return os.read(terminal, 64).decode(errors="ignore")

    tty.setcbreak(terminal, termios.TCSADRAIN)  # keeps what is typed already
    try:
        yield read
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
