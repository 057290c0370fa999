"""Builds ``realtime_sep._native``: the header, word for word, is the interface."""

import os
import sys
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [f"native/src/{name}.c" for name in (ROOT / "native/sources.txt").read_text().split()]

ffi = FFI()
ffi.cdef((ROOT / "native/include/realtime_sep.h").read_text(encoding="utf-8"))
ffi.set_source(
    "realtime_sep._native",
    '#include "internal.h"',
    sources=SOURCES,
    include_dirs=["native/src", "native/include"],
    extra_compile_args=["-std=c11", "-O3", "-g0", "-fvisibility=hidden"],
    libraries=["pthread", "m", *([] if sys.platform == "win32" else ["dl"])],
    # Also what a source distribution must carry.
    depends=[
        "native/build_cffi.py",
        "native/include/realtime_sep.h",
        "native/sources.txt",
        "native/src/internal.h",
    ],
    py_limited_api=True,
)

if __name__ == "__main__":
    os.chdir(ROOT)
    ffi.compile(verbose=True)
