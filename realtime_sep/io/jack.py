"""The period of a JACK server, which PortAudio does not tell.

The server alone decides how many frames there are in a callback.  PortAudio would cut and gather
them into blocks of the size that it is asked for; that adds a block of latency, and where the block
is shorter than the period, callbacks come in bursts for which no worker is quick enough.  So the
stream takes the period as it is.
"""

from __future__ import annotations

import ctypes
from ctypes.util import find_library

_NO_START_SERVER = 0x01


def period() -> int | None:
    """Frames per callback of the server that `JACK_DEFAULT_SERVER` names; None if there is none."""
    library = find_library("jack")
    if library is None:
        return None
    try:
        jack = ctypes.CDLL(library)
        jack.jack_client_open.restype = ctypes.c_void_p
        client = jack.jack_client_open(b"realtime_sep period", _NO_START_SERVER, None)
    except (OSError, AttributeError):
        return None
    if not client:
        return None
    frames = int(jack.jack_get_buffer_size(ctypes.c_void_p(client)))
    jack.jack_client_close(ctypes.c_void_p(client))
    return frames
