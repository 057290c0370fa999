"""What we ask of others, we keep: the kit over everything that is built in, bit for bit."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import pytest

from realtime_sep.plugins import EFFECTS, load_chain
from realtime_sep.testing import check_effect, check_separator

OWN = sorted(
    point.name
    for point in entry_points(group=EFFECTS)
    if point.value.startswith("realtime_sep.")  # not what else is installed here
)
#: At 12 kHz most of a sample comes out one frame later.
TRANSPARENT = {"lowpass": {"f": 20000.0}}


@pytest.mark.parametrize("name", OWN)
def test_effects(name: str) -> None:
    check_effect(name, tolerance=0.0, transparent=TRANSPARENT.get(name, {}))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("identity", {}),
        ("identity", {"options": {"hop": 7}}),
        ("center", {}),
        ("center", {"options": {"profile": "studio"}}),
        ("center-plain", {}),
        ("hpss", {}),
        ("hpss", {"options": {"lookahead": 4}}),
        ("nmf", {"options": {"profile": "studio"}}),
        ("repet-sim", {}),
        ("center+nmf", {}),
    ],
    ids=str,
)
def test_separators(name: str, settings: dict[str, Any]) -> None:
    check_separator(name, tolerance=0.0, **settings)


@pytest.mark.slow
def test_a_chain_is_an_effect_like_any_other() -> None:
    """But for NaN, which the engine keeps from it: what sends that has left the chain for good."""
    check_effect(
        lambda: load_chain("highpass|compressor:ratio=4|limiter"),
        skip=["test_loud_and_broken_input_does_no_harm"],
        seconds=0.1,
        tail=1.0,
        rates=(44100,),
        tolerance=0.0,
    )


@pytest.mark.slow
def test_the_shipped_network() -> None:
    pytest.importorskip("onnxruntime", reason="runs the network")
    check_separator("unet", layouts=(2,), realtime=1.0)
