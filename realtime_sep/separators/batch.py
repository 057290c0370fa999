"""Many streams through one spectral model, computed together: one call for all hops that are ready.

    batch = SpectralBatch(entry, lanes=8)
    lanes = [batch.lane(samplerate=48000, channels=2) for _ in range(8)]
    ...
    for lane, hop in waiting:
        lane.prepare(hop)
    batch.run()
    for lane, hop in waiting:
        lane.process(hop, stems)        # the result is there already

A lane is a separator like any other, and without `prepare` computes alone.  Its state is its own,
so lanes may come, go, pause and be reset without the others noticing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from realtime_sep.errors import ModelError, UsageError
from realtime_sep.models import registry
from realtime_sep.models.registry import ModelEntry
from realtime_sep.separators.onnx import (
    _active,
    _check_graph,
    _reason,
    _runner,
    _session,
    has_waves,
)
from realtime_sep.separators.spectral import SpectralStream
from realtime_sep.types import Complex64, Float32, SeparatorInfo


def load_batch(
    entry: ModelEntry, lanes: int, provider: str = "auto", profile: str | None = None
) -> SpectralBatch | None:
    """A batch of up to `lanes` streams, or None where the model takes only one at a time.

    Raises:
        ModelError: the file is refused, does not fit its metadata, or cannot run here.
    """
    if entry.metadata.kind != "spectral":
        return None
    entry = registry.in_profile(entry, profile)
    session = _session(entry, provider)
    values = (*session.get_inputs(), *session.get_outputs())
    if any(isinstance(value.shape[0], int) for value in values if value.shape):
        return None
    return SpectralBatch(entry, session, lanes, provider)


class SpectralBatch:
    """One session of a spectral model whose graph has a free batch axis (see `load_batch`).

    Attributes:
        lanes: streams that one call can compute.

    Raises:
        ModelError: the graph is not what the metadata says, or does not run.
    """

    def __init__(self, entry: ModelEntry, session: object, lanes: int, provider: str) -> None:
        meta = entry.metadata
        bins = meta.geometry.bins
        self.lanes = lanes
        self.entry = entry
        self._session = session
        self._spec: Float32 = np.zeros((lanes, meta.channels, bins, 2), np.float32)
        self._stems: Float32 = np.zeros(
            (lanes, len(meta.stems), meta.channels, bins, 2), np.float32
        )
        self.state_shapes = {s.name: s.shape for s in meta.states}
        self._before, self._after = (
            {n: np.zeros((lanes, *s), np.float32) for n, s in self.state_shapes.items()}
            for _ in range(2)
        )
        # Complex views of the network's arrays: nothing is converted per hop.
        self.inputs: Complex64 = self._spec.view(np.complex64)[..., 0]
        self.outputs: Complex64 = self._stems.view(np.complex64)[..., 0]
        self.samples: Float32 | None = None
        self.waves: Float32 | None = None
        if has_waves(session):
            self.samples = np.zeros((lanes, meta.channels, meta.hop), np.float32)
            self.waves = np.zeros((*self._stems.shape[:3], meta.hop), np.float32)
        inputs, outputs = self._arrays(lanes)
        _check_graph(
            entry,
            session,
            {name: array.shape for name, array in inputs.items()},
            {name: array.shape for name, array in outputs.items()},
        )
        self._entered: list[Lane] = []
        # One binding for every number of streams, made and run once now: later it would be late.
        self._runs: list[Callable[[], None]] = [
            _runner(session, *self._arrays(n)) for n in range(1, lanes + 1)
        ]
        try:
            for run in self._runs:
                run()
        except Exception as error:  # the runtime's errors have no common type
            raise ModelError(f"model {entry.name!r} does not run: {_reason(error)}") from error
        self.provider = _active(entry, session, provider)

    def _arrays(self, lanes: int) -> tuple[dict[str, Float32], dict[str, Float32]]:
        """What the graph reads and writes for so many streams: the first rows."""
        inputs, outputs = {"spec": self._spec}, {"stems": self._stems}
        if self.samples is not None and self.waves is not None:
            inputs["samples"], outputs["waves"] = self.samples, self.waves
        inputs |= {f"state_{name}": array for name, array in self._before.items()}
        outputs |= {f"next_state_{name}": array for name, array in self._after.items()}
        return (
            {name: array[:lanes] for name, array in inputs.items()},
            {name: array[:lanes] for name, array in outputs.items()},
        )

    def lane(self, *, samplerate: int, channels: int = 2) -> Lane:
        """A separator for one more stream.  More than `lanes` may exist, but not enter one call.

        Raises:
            UsageError: a rate or channel count that the model does not take.
        """
        return Lane(self, samplerate, channels)

    def enter(self, lane: Lane) -> int:
        """The row of a lane in the next call."""
        if len(self._entered) == self.lanes:
            raise UsageError(f"a batch of {self.lanes} lanes cannot take one more")
        self._entered.append(lane)
        return len(self._entered) - 1

    def run(self) -> None:
        """Compute all lanes that have entered.  Results last until lanes enter again."""
        lanes, self._entered = self._entered, []
        if not lanes:
            return
        for name, rows in self._before.items():
            for row, lane in enumerate(lanes):
                rows[row] = lane.states[name]
        self._runs[len(lanes) - 1]()
        for name, rows in self._after.items():
            for row, lane in enumerate(lanes):
                lane.states[name][:] = rows[row]
        for lane in lanes:
            lane.computed = True


class Lane:
    """One stream of a batch; a `Separator`.

    Attributes:
        states: of the network, by name.
        computed: the hop that was prepared has been run.
    """

    def __init__(self, batch: SpectralBatch, samplerate: int, channels: int) -> None:
        meta = batch.entry.metadata
        self._batch = batch
        self._row: int | None = None
        self.computed = False
        self.states = {n: np.zeros(s, np.float32) for n, s in batch.state_shapes.items()}
        self._stream = SpectralStream(meta, samplerate, channels)
        self.info = SeparatorInfo(
            name=batch.entry.name,
            stems=meta.all_stems,
            samplerate=samplerate,
            channels=channels,
            hop=meta.hop,
            latency=self._stream.latency,
            family=meta.family,
            provider=batch.provider,
        )

    def reset(self) -> None:
        """Return to the state just after construction."""
        for array in self.states.values():
            array[:] = 0
        self._stream.reset()

    def prepare(self, hop: Float32) -> None:
        """Enter the next call of the batch with a hop, which `process` is then given as well."""
        self._row = self._batch.enter(self)
        self.computed = False
        self._stream.analyse(hop, self._batch.inputs[self._row])
        if self._batch.samples is not None:
            self._batch.samples[self._row] = hop.T

    def process(self, hop: Float32, stems: Float32) -> None:
        """Separate `(H, channels)` into `stems` `(stems, H, channels)`, `info.latency` later."""
        if self._row is None:
            self.prepare(hop)
        if not self.computed:
            self._batch.run()
        row, self._row, self.computed = self._row, None, False
        waves = None if self._batch.waves is None else self._batch.waves[row]
        self._stream.synthesise(hop, self._batch.outputs[row], waves, stems)
