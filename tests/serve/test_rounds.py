"""Many streams by turns: each gets what it would get alone, to the sample."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from separators_onnx import tiny

from realtime_sep import separate
from realtime_sep.errors import UsageError
from realtime_sep.models import registry
from realtime_sep.separators.batch import load_batch
from realtime_sep.separators.identity import Identity
from realtime_sep.separators.onnx import load
from realtime_sep.serve import rounds
from realtime_sep.serve.rounds import Busy, Model, Opened, Rounds, Stream
from realtime_sep.serve.slot import Slot
from realtime_sep.types import Float32

PLACES = 4
FRAMES = 9000


def noise(frames: int, channels: int = 2, seed: int = 0) -> Float32:
    rng = np.random.default_rng(seed)
    middle, sides = rng.uniform(-0.3, 0.3, (frames, 1)), rng.uniform(-0.2, 0.2, (frames, channels))
    return (middle + sides).astype(np.float32)


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: Model(name, PLACES) for name in ("center", "identity")}


@pytest.fixture(scope="module")
def slots() -> list[Slot]:
    return [Slot() for _ in range(PLACES)]


class Clients:
    """Streams in the slots of one `Rounds`."""

    def __init__(self, models: Sequence[Model], slots: list[Slot]) -> None:
        self.rounds = Rounds(models, slots)
        self.slots = slots
        self.got: dict[int, list[Float32]] = {}
        self.opened: dict[int, Opened] = {}

    def open(self, place: int, stream: Stream) -> int:
        self.slots[place].lay_out(stream.channels, len(stream.outputs))
        self.opened[place] = self.rounds.open(place, stream)
        self.got[place] = []
        return self.opened[place].latency

    def send(self, place: int, audio: Float32) -> None:
        assert self.slots[place].audio.write(audio) == len(audio)

    def settle(self) -> None:
        """Run until there is nothing to do; read."""
        while self.rounds.run():
            self.read()

    def read(self) -> None:
        for place, got in self.got.items():
            got.append(self.slots[place].stems.read(1 << 20))

    def end(self, place: int) -> Float32:
        """All that came, with the tail."""
        self.rounds.end(place, self.slots[place].audio.written)
        self.settle()
        whole = np.concatenate(self.got[place])
        self.got[place] = []
        return whole


def stereo(model: str, rate: int = 48000, packet: int = 1) -> Stream:
    outputs = ("accompaniment",) if model == "identity" else ("vocals", "accompaniment")
    return Stream(model, rate, 2, outputs, packet)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_each_gets_what_it_would_get_alone(
    models: dict[str, Model], slots: list[Slot], data: st.DataObject
) -> None:
    """Whatever the packets, the others, and who is served when."""
    clients = Clients(list(models.values()), slots)
    kinds = data.draw(
        st.lists(
            st.sampled_from([("center", 48000), ("center", 44100), ("identity", 22050)]),
            min_size=1,
            max_size=PLACES,
        )
    )
    latencies = [clients.open(i, stereo(name, rate)) for i, (name, rate) in enumerate(kinds)]
    songs = [noise(FRAMES, seed=i) for i in range(len(kinds))]
    some = st.lists(st.sampled_from([1, 7, 255, 256, 257, 3000]), max_size=4)
    sizes = [cycle([*data.draw(some), 960]) for _ in kinds]
    sent = [0] * len(kinds)
    while min(sent) < FRAMES:
        for i, song in enumerate(songs):
            piece = song[sent[i] : sent[i] + next(sizes[i])]
            clients.send(i, piece)
            sent[i] += len(piece)
            clients.rounds.run()
            clients.read()
        clients.settle()
        for i, n in enumerate(sent):  # as much came out as went in
            assert sum(map(len, clients.got[i])) == n
    for i, (name, rate) in enumerate(kinds):
        got = clients.end(i)
        assert len(got) == FRAMES + latencies[i]
        assert not got[: latencies[i]].any()
        whole = separate(songs[i], rate, name)
        expected = np.concatenate(list(whole.values()), axis=1)[:, -got.shape[1] :]
        np.testing.assert_array_equal(got[latencies[i] :], expected)
    assert not clients.rounds.failures


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
def test_after_a_flush_it_is_as_new(models: dict[str, Model], slots: list[Slot], rate: int) -> None:
    clients = Clients([models["center"]], slots)
    late = clients.open(0, stereo("center", rate))
    song = noise(4000)
    both = []
    for _ in range(2):
        clients.send(0, song)
        clients.settle()
        both.append(clients.end(0))
        assert len(both[-1]) == len(song) + late
    np.testing.assert_array_equal(both[0], both[1])


def test_packets_that_are_announced_save_latency(
    models: dict[str, Model], slots: list[Slot]
) -> None:
    clients = Clients([models["center"]], slots)
    latencies = [clients.open(i, stereo("center", packet=p)) for i, p in enumerate((1, 64, 256))]
    assert latencies == [256 + 255, 256 + 192, 256]


def test_the_mix_follows_the_faders(models: dict[str, Model], slots: list[Slot]) -> None:
    clients = Clients([models["center"]], slots)
    late = clients.open(0, Stream("center", 48000, 2, ("mix", "accompaniment"), 1))
    song = 0.5 * noise(6000)  # far below the limiter
    clients.slots[0].gains[0] = 0
    clients.send(0, song)
    clients.settle()
    got = clients.end(0)[late:]
    np.testing.assert_allclose(got[2000:, :2], got[2000:, 2:], atol=1e-6)  # without the voice
    assert late == 256 + 32 + 255  # the limiter looks ahead


def test_who_does_not_read_is_waited_for_and_nobody_else(
    models: dict[str, Model], slots: list[Slot]
) -> None:
    clients = Clients([models["identity"]], slots)
    late = [clients.open(i, stereo("identity")) for i in range(2)]
    song = noise(4096)
    sent = 0
    room = clients.slots[0].stems.capacity
    for _ in range(room // len(song) + 4):
        for place in range(2):
            if clients.slots[place].audio.write_space >= len(song):
                clients.send(place, song)
                sent += place * len(song)
        while clients.rounds.run():
            clients.got[1].append(clients.slots[1].stems.read(1 << 20))
    assert clients.slots[0].stems.read_space == room
    assert sum(map(len, clients.got[1])) == sent
    # Once it reads, it goes on where it was.
    kept = [clients.slots[0].stems.read(1 << 20)]
    while clients.rounds.run():
        kept.append(clients.slots[0].stems.read(1 << 20))
    whole = np.concatenate(kept)
    times = len(whole) // len(song) + 1
    np.testing.assert_array_equal(
        whole[late[0] :], np.tile(song, (times, 1))[: len(whole) - late[0]]
    )


class Failing(Identity):
    """Raises at its fifth hop."""

    hops = 0

    def process(self, hop: Float32, stems: Float32) -> None:
        self.hops += 1
        if self.hops == 5:
            raise RuntimeError("no more")
        super().process(hop, stems)


def test_a_separator_that_raises_ends_alone(
    models: dict[str, Model], slots: list[Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["identity"]
    clients = Clients([model], slots)
    monkeypatch.setattr(model, "make", lambda samplerate, channels: Failing(samplerate=samplerate))
    clients.open(0, stereo("identity"))
    monkeypatch.undo()
    late = clients.open(1, stereo("identity"))
    song = noise(5000)
    for place in range(2):
        clients.send(place, song)
    clients.settle()
    assert list(clients.rounds.failures) == [0]
    assert "no more" in clients.rounds.failures[0]
    np.testing.assert_array_equal(clients.end(1)[late:], song)


def test_who_would_make_the_others_late_is_refused(
    models: dict[str, Model], slots: list[Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["identity"]
    part = rounds.BUDGET * model.period
    monkeypatch.setattr(model, "costs", {1: 0.4 * part, 2: 0.8 * part, 4: 1.2 * part})
    clients = Clients([model], slots)
    for place in range(3):  # three would take exactly all of it
        clients.open(place, stereo("identity"))
    with pytest.raises(Busy, match=r"3 clients|4 clients"):
        clients.open(3, stereo("identity"))
    clients.rounds.close(1)
    clients.open(1, stereo("identity"))
    monkeypatch.setattr(model, "resampling", part)
    clients.rounds.close(1)
    with pytest.raises(Busy):
        clients.open(1, stereo("identity", 96000))
    assert model.cost(8) == pytest.approx(2.4 * part)  # beyond what was measured: in proportion


def test_costs_are_measured(models: dict[str, Model]) -> None:
    costs = models["center"].costs
    assert list(costs) == [1, 2, 4]
    assert 0 < costs[1] < costs[4] < 1


# --- batches -------------------------------------------------------------------------------------


def batched(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with a free batch axis."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def test_lanes_are_alone_with_their_states(tmp_path: Path) -> None:
    """Lanes that come, pause and are reset at different times, against one at a time."""
    entry = tiny.entry(batched(tiny.delayed(2)), tmp_path)
    batch = load_batch(entry, 3)
    assert batch is not None
    rng = np.random.default_rng(2)
    lanes = [batch.lane(samplerate=48000, channels=c) for c in (2, 2, 1)]
    alone = [load(entry, samplerate=48000, channels=c) for c in (2, 2, 1)]
    for turn in range(40):
        here = [i for i in range(3) if rng.uniform() < 0.6]
        hops = {i: noise(128, lanes[i].info.channels, seed=10 * turn + i) for i in here}
        for i in here:
            if rng.uniform() < 0.8:  # one that was not prepared computes by itself
                lanes[i].prepare(hops[i])
        batch.run()
        results = {}
        prepared_first = sorted(here, key=lambda i: not lanes[i].computed)
        for i in prepared_first:
            stems = np.empty((2, 128, lanes[i].info.channels), np.float32)
            lanes[i].process(hops[i], stems)
            results[i] = stems
        for i in here:
            expected = np.empty_like(results[i])
            alone[i].process(hops[i], expected)
            np.testing.assert_allclose(results[i], expected, atol=1e-6)
        if turn == 20:
            lanes[1].reset()
            alone[1].reset()


def test_a_graph_for_one_stream_is_not_batched(tmp_path: Path) -> None:
    assert load_batch(tiny.entry(tiny.gain(0.5), tmp_path), 4) is None


def test_a_lane_takes_what_its_model_takes(tmp_path: Path) -> None:
    batch = load_batch(tiny.entry(batched(tiny.gain(0.5)), tmp_path), 2)
    assert batch is not None
    with pytest.raises(UsageError, match="44100 to 48000 Hz"):
        batch.lane(samplerate=96000)
    with pytest.raises(UsageError, match="1 or 2 channels, not 3"):
        batch.lane(samplerate=48000, channels=3)


@pytest.mark.skipif(registry.find("unet") is None, reason="the model is not there")
def test_a_shipped_network_in_a_batch_is_the_same_as_alone(
    slots: list[Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "BUDGET", 100.0)  # a busy machine may be slow, but not wrong
    model = Model("unet", PLACES)
    assert model.batched
    clients = Clients([model], slots)
    rates = (48000, 44100, 48000)
    latencies = [clients.open(i, stereo("unet", rate)) for i, rate in enumerate(rates)]
    songs = [noise(24000, seed=i) for i in range(3)]
    for start in range(0, 24000, 1000):
        for i, song in enumerate(songs):
            clients.send(i, song[start : start + 1000])
        clients.settle()
    for i, song in enumerate(songs):
        got = clients.end(i)[latencies[i] :]
        alone = separate(song, rates[i], "unet")
        assert np.abs(got - np.concatenate(list(alone.values()), axis=1)).max() < 1e-5
