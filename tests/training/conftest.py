"""What every causal network has to pass, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def streams() -> Callable[[Any, Any], None]:
    """Checks that spectra give the same frame by frame as all at once, and the same states."""
    torch = pytest.importorskip("torch")

    @torch.no_grad()
    def check(network: Any, spec: Any) -> None:
        whole, last = network(spec, network.initial_state(1))
        state = network.initial_state(1)
        pieces = []
        for t in range(spec.shape[2]):
            piece, state = network(spec[:, :, t : t + 1], state)
            pieces.append(piece)
        torch.testing.assert_close(torch.cat(pieces, 2), whole, atol=1e-5, rtol=1e-4)
        for a, b in zip(state, last, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)

    return check


@pytest.fixture
def keeps_to_the_past() -> Callable[[Any, Any, Any], None]:
    """Checks that other spectra at the end change nothing before them, but something after."""
    torch = pytest.importorskip("torch")

    @torch.no_grad()
    def check(network: Any, spec: Any, end: Any) -> None:
        begin = spec.shape[2] - end.shape[2]
        other = torch.cat([spec[:, :, :begin], end], 2)
        a, _ = network(spec, network.initial_state(1))
        b, _ = network(other, network.initial_state(1))
        assert torch.equal(a[:, :, :begin], b[:, :, :begin])
        assert not torch.equal(a[:, :, begin:], b[:, :, begin:])

    return check
