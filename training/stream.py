"""The exported graph, streamed hop by hop as the runtime does; small, for tests and scores."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from realtime_sep.dsp.windows import window_pair
from realtime_sep.models.metadata import ModelMetadata
from training.shards import SAMPLE_RATE

Audio = npt.NDArray[np.float32]


class OnnxStream:
    """A model file as a stream at a rate in Hz; states go on from call to call until `reset`."""

    def __init__(self, path: Path, rate: int = SAMPLE_RATE) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        meta = ModelMetadata.from_props(self.session.get_modelmeta().custom_metadata_map)
        geometry, self.bins = meta.geometry_at(rate), meta.geometry.bins
        self.n_fft, self.hop, self.length = geometry.n_fft, geometry.hop, geometry.synthesis
        self.lookahead = meta.lookahead
        self.shapes = {f"state_{state.name}": state.shape for state in meta.states}
        self.waves = any(node.name == "samples" for node in self.session.get_inputs())
        self.analysis, self.synthesis = window_pair(self.n_fft, self.length, self.hop)
        self.lag = self.length - self.hop + self.lookahead * self.hop
        self.seconds: list[float] = []
        self.reset()

    def reset(self) -> None:
        self.past = np.zeros((2, self.n_fft), np.float32)
        self.tail = np.zeros((2, self.length), np.float32)
        self.states = [np.zeros((1, *shape), np.float32) for shape in self.shapes.values()]

    def process(self, hop: Audio) -> Audio:
        """One hop `[hop, 2]` of the mixture in, one of the vocals out, `lag` samples late."""
        self.past = np.concatenate([self.past[:, self.hop :], hop.T], 1)
        spec = np.fft.rfft(self.past * self.analysis)[:, : self.bins].astype(np.complex64)
        spec = np.stack([spec.real, spec.imag], -1)[None]
        given = {"spec": spec, **dict(zip(self.shapes, self.states, strict=True))}
        if self.waves:
            given["samples"] = np.ascontiguousarray(hop.T[None])
        began = time.thread_time()
        voice, *self.states = self.session.run(None, given)
        self.seconds.append(time.thread_time() - began)
        complex_spec = voice[0, 0, ..., 0] + 1j * voice[0, 0, ..., 1]
        # Above the network's bins there is no voice.
        frame = np.fft.irfft(complex_spec, self.n_fft)[:, -self.length :]
        self.tail += (frame * self.synthesis).astype(np.float32)
        out = self.tail[:, : self.hop].T.copy()
        if self.waves:
            waves, *self.states = self.states
            out += waves[0, 0].T
        self.tail = np.pad(self.tail[:, self.hop :], ((0, 0), (0, self.hop)))
        return out

    def separate(self, mix: Audio) -> Audio:
        """Vocals of `mix` `[samples, 2]`, aligned with it and of its length."""
        padded = np.pad(mix, ((0, self.lag + -(len(mix) + self.lag) % self.hop), (0, 0)))
        hops = padded.astype(np.float32).reshape(-1, self.hop, 2)
        out = np.concatenate([self.process(hop) for hop in hops])
        return out[self.lag : self.lag + len(mix)]
