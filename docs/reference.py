"""Builds the reference of the public API from its docstrings; `make docs` calls it.

    python docs/reference.py [FOLDER]       # default: build/reference

Needs pdoc: pip install '.[docs]'.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc

import realtime_sep

#: What users and plugins are written against; everything else may change.
MODULES = [
    "realtime_sep",
    *(
        f"realtime_sep.{name}"
        for name in ("separators", "effects", "plugins", "testing", "types", "errors")
    ),
]


def main(target: Path) -> None:
    for name in realtime_sep.__all__:  # imported when first used; pdoc only sees what is there
        setattr(realtime_sep, name, getattr(realtime_sep, name))
    pdoc.render.configure(docformat="google", footer_text=realtime_sep.__name__)
    pdoc.pdoc(*MODULES, output_directory=target)
    print(f"open {target / 'index.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/reference"))
