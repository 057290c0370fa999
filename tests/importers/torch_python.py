"""A Python that has torch: this one, or the one that an environment variable names."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

VARIABLE = "REALTIME_SEP_TORCH_PYTHON"


@cache
def find(*modules: str) -> str:
    """Its path; skips the test where there is none that has these modules."""
    python = os.environ.get(VARIABLE, sys.executable)
    code = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {modules!r})))"
    if subprocess.run([python, "-c", code], capture_output=True).returncode:
        pytest.skip(f"no {' and '.join(modules)}; {VARIABLE} may name a Python that has them")
    return python


def run(python: str, script: str, folder: Path) -> None:
    """Run a script there, in a folder."""
    done = subprocess.run([python, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
