"""A user's model folder of its own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def user_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "user" / "models"
    monkeypatch.setenv("REALTIME_SEP_MODELS", str(folder))
    return folder
