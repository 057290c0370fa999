"""What is used when nobody says: the best that this machine can run, and never a failure."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from realtime_sep.cli import choice
from realtime_sep.cli.common import offer_another
from realtime_sep.errors import ModelError
from realtime_sep.models import registry
from realtime_sep.types import SeparatorInfo


def installed(monkeypatch: pytest.MonkeyPatch, **scores: float | None) -> None:
    entries = {
        name: SimpleNamespace(
            quality={} if sdr is None else {"median": {"vocals": {"sdr": sdr}}}, name=name
        )
        for name, sdr in scores.items()
    }
    monkeypatch.setattr(registry, "entries", lambda: entries)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ({"fine": 0.2, "great": 0.5, "mute": 0.0, "poor": 0.0}, "great"),
        ({"fine": 0.2, "great": 0.9, "mute": 0.0, "poor": 0.0}, "fine"),
        ({"fine": 0.7, "great": 0.9, "mute": 0.0, "poor": 0.0}, "center"),
        ({"fine": 0.2, "great": None, "mute": 0.0, "poor": 0.0}, "fine"),
    ],
)
def test_the_best_that_keeps_up(
    monkeypatch: pytest.MonkeyPatch, costs: dict[str, float | None], expected: str
) -> None:
    installed(monkeypatch, fine=6.0, great=7.0, mute=None, poor=4.0)

    def cost(name: str) -> Any:
        if costs[name] is None:
            raise ModelError("damaged")
        return costs[name]

    monkeypatch.setattr(choice, "cost", cost)
    assert choice.best_model() == expected


def test_a_damaged_registry_is_no_reason_not_to_play(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ModelError("manifest")

    monkeypatch.setattr(registry, "entries", broken)
    assert choice.best_model() == "center"


def test_cost_is_measured() -> None:
    assert 0 < choice.cost("identity") < choice.AFFORDABLE


def test_another_one_than_the_one_that_is_too_slow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(monkeypatch, fine=6.0, great=7.0)
    monkeypatch.setattr(choice, "cost", lambda name: 0.1)
    assert choice.best_model(without="great") == "fine"
    info = SeparatorInfo("great", ("vocals", "music"), 44100, 2, 256, 256, provider="CPU", rtf=2.5)
    offer_another(info)
    told = capsys.readouterr().err
    assert "takes 2.5 s per second of audio on this machine (CPU)" in told
    assert "--model fine keeps up" in told
    offer_another(replace(info, rtf=0.9))
    assert not capsys.readouterr().err
