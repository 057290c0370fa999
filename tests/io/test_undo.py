"""What a route has moved goes back, also where the server forgets what it was told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from realtime_sep.io.undo import Record, move_back

pytest.importorskip("pulsectl")

SINKS = {"speakers": 0, "headphones": 1, "realtime_sep.7.in": 2}
STREAM = 5


class Forgetful:
    """A server with one stream, on a route's sink, that carries out only the last of some moves.

    So does PipeWire's session manager where it still moves streams after the default sink.
    """

    def __init__(self, deaf_to: int) -> None:
        self.default, self.sink, self.told, self._deaf_to = "realtime_sep.7.in", 2, 0, deaf_to

    def sink_list(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, index=index) for name, index in SINKS.items()]

    def sink_input_list(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(index=STREAM, client=1, sink=self.sink, proplist={}, name="song")]

    def server_info(self) -> SimpleNamespace:
        return SimpleNamespace(default_sink_name=self.default)

    def sink_default_set(self, name: str) -> None:
        self.default = name
        self.sink = SINKS[name]  # the stream goes along

    def sink_input_move(self, index: int, sink: int) -> None:
        assert index == STREAM
        self.told += 1
        if self.told > self._deaf_to:
            self.sink = sink


@pytest.mark.parametrize("deaf_to", [0, 1, 3])
def test_a_move_that_is_overruled_is_told_again(deaf_to: int) -> None:
    server = Forgetful(deaf_to)
    move_back(server, Record(7, "", 0, default="speakers", moved={STREAM: "headphones"}))
    assert (server.default, server.sink) == ("speakers", SINKS["headphones"])
    assert server.told == deaf_to + 1


def test_a_server_that_never_moves_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime_sep.io.undo._SETTLING", 0.1)
    server = Forgetful(10**9)
    move_back(server, Record(7, "", 0, default="speakers", moved={STREAM: "headphones"}))
    assert server.default == "speakers"
    assert server.told > 1
