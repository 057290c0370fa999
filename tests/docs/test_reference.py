"""The reference of the API builds without a warning, and leaves nobody out."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import realtime_sep

pytest.importorskip("pdoc", reason="builds the reference")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds them, with every warning that there is."""
    target = tmp_path_factory.mktemp("reference")
    done = subprocess.run(
        [sys.executable, "-W", "always", str(ROOT / "docs" / "reference.py"), str(target)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""
    return target


def test_every_public_name_is_there_and_explained(pages: Path) -> None:
    page = html.unescape((pages / "realtime_sep.html").read_text())
    for name in realtime_sep.__all__:
        assert f'id="{name}"' in page, name
        value = getattr(realtime_sep, name)
        if callable(value):
            assert (value.__doc__ or "").strip(), name
            first = value.__doc__.strip().split("\n")[0].split("`")[0][:30]
            assert first in re.sub(r"<[^>]+>", "", page), name


def test_what_plugins_are_written_against_is_there(pages: Path) -> None:
    for module, name in (
        ("separators", "Separator"),
        ("effects", "Effect"),
        ("plugins", "load_separator"),
        ("testing", "check_effect"),
        ("testing", "SeparatorConformance.test_latency_is_true"),
    ):
        assert f'id="{name}"' in (pages / "realtime_sep" / f"{module}.html").read_text()
