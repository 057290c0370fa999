"""MDX-Net: geometry, latency and sums, by networks of its shape made on the spot."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from separators_onnx.test_segments import plain_frames
from separators_onnx.test_spectral import noise, run

from importers.foreign import node, write
from realtime_sep.errors import ModelError, UsageError
from realtime_sep.importers import Request
from realtime_sep.importers.mdx import import_model
from realtime_sep.models import registry
from realtime_sep.plugins import load_separator

N_FFT, HOP, BINS, FRAMES = 512, 128, 200, 33
LENGTH = HOP * (FRAMES - 1)
SETTINGS = {"n_fft": str(N_FFT), "hop": str(HOP), "stem": "vocals"}
PLAN = {"step": 6, "deadline": 3, "lookahead": 4, "fade": 2}


def identity(path: Path, shape: tuple[Any, ...] = ("batch", 4, BINS, FRAMES)) -> Path:
    return write(path, [node("Identity", ["input"], ["output"])], [("input", shape)],
                 [("output", shape)])  # fmt: skip


def random_net(path: Path) -> Path:
    """Two convolutions with a gate between: of random weights."""
    rng = np.random.default_rng(2)
    weights = {
        "w1": rng.normal(0, 0.2, (6, 4, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.2, (4, 6, 3, 3)).astype(np.float32),
    }
    nodes = [
        node("Conv", ["input", "w1"], ["a"], pads=[1, 1, 1, 1]),
        node("Tanh", ["a"], ["b"]),
        node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1]),
        node("Mul", ["c", "input"], ["output"]),
    ]
    shape = ("batch", 4, BINS, FRAMES)
    return write(path, nodes, [("input", shape)], [("output", shape)], weights)


def bring(path: Path, **settings: str) -> registry.ModelEntry:
    return import_model(Request(str(path), settings={**SETTINGS, **settings}))


def low(signal: Any) -> Any:
    """What of a signal lies well below the network's highest bin."""
    spectrum = np.fft.rfft(signal, axis=0)
    spectrum[len(spectrum) * (BINS - 20) * 2 // N_FFT :] = 0
    return np.fft.irfft(spectrum, len(signal), axis=0).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2])
def test_identity_arrives_at_the_announced_sample(tmp_path: Path, channels: int) -> None:
    entry = bring(identity(tmp_path / "net.onnx"), compensate="0.5", name="half")
    assert (entry.metadata.kind, entry.metadata.segment) == ("segment", LENGTH)
    separator = load_separator("half", samplerate=44100, channels=channels, **PLAN)
    late = separator.info.latency
    assert late == (6 + 3 - 1 + 4 + 2) * HOP
    signal = low(noise(HOP * 120, channels))
    stems = run(separator, signal)
    # The frames at the segment's right edge see only what there is: they are looked past.
    np.testing.assert_allclose(stems[0][late + LENGTH :], 0.5 * signal[LENGTH:-late], atol=2e-3)
    error = stems.sum(axis=0)[late:] - signal[:-late]
    assert np.abs(error).max() < 1e-6  # -120 dBFS


def test_random_weights_equal_the_plain_computation(tmp_path: Path) -> None:
    import onnxruntime

    path = random_net(tmp_path / "net.onnx")
    bring(path, compensate="1.25")
    separator = load_separator("net", samplerate=44100, **PLAN)
    signal = noise(HOP * 150)
    stems = run(separator, signal)
    late = separator.info.latency
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    # One segment by definition, and the K hops that only it gives.
    w = 15
    end = (w + 1) * 6 * HOP
    segment = signal[end - LENGTH : end].T.astype(np.float64)
    frames = plain_frames(segment, N_FFT, HOP, N_FFT // 2, FRAMES)[:, :BINS]
    spec = np.stack([frames[0].real, frames[0].imag, frames[1].real, frames[1].imag])
    (out,) = session.run(None, {"input": spec[None].astype(np.float32)})
    made = 1.25 * (out[0, 0::2] + 1j * out[0, 1::2])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    sums = np.zeros((2, LENGTH + N_FFT))
    squares = np.zeros(LENGTH + N_FFT)
    for t in range(FRAMES):
        whole = np.zeros((2, N_FFT // 2 + 1), complex)
        whole[:, :BINS] = made[..., t]
        sums[:, t * HOP : t * HOP + N_FFT] += np.fft.irfft(whole, N_FFT) * window
        squares[t * HOP : t * HOP + N_FFT] += window**2
    expected = (sums / np.maximum(squares, 1e-9))[:, N_FFT // 2 : N_FFT // 2 + LENGTH]

    alone = slice(end - (4 + 6) * HOP, end - (4 + 2) * HOP)  # without the fades
    part = expected[:, alone.start - end + LENGTH : alone.stop - end + LENGTH].T
    np.testing.assert_allclose(stems[0][alone.start + late : alone.stop + late], part, atol=1e-4)


def test_instrumental_networks_give_the_accompaniment(tmp_path: Path) -> None:
    entry = bring(identity(tmp_path / "UVR_Inst 1.onnx"), stem="Instrumental")
    assert entry.name == "uvr-inst-1"
    assert entry.metadata.all_stems == ("accompaniment", "vocals")
    assert bring(identity(tmp_path / "d.onnx"), stem="Drums").metadata.all_stems == (
        "drums", "rest",
    )  # fmt: skip


def test_parameters_come_from_the_file_beside_it(tmp_path: Path) -> None:
    path = identity(tmp_path / "net.onnx", ("batch", 4, "f", "t"))
    own = {
        "mdx_n_fft_scale_set": N_FFT, "mdx_dim_f_set": BINS, "mdx_dim_t_set": 6,
        "primary_stem": "Vocals", "compensate": 1.035, "hop_length": HOP,
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(own))
    entry = import_model(Request(str(path)))
    assert (entry.metadata.bins, entry.metadata.segment) == (BINS, HOP * 63)
    # One file for many, by checksum.
    many = tmp_path / "model_data.json"
    digest = hashlib.md5(path.read_bytes()[-10_240_000:]).hexdigest()
    many.write_text(json.dumps({"other": {}, digest: {**own, "mdx_dim_t_set": 5}}))
    entry = import_model(Request(str(path), describe=many))
    assert entry.metadata.segment == HOP * 31
    # Settings win.
    entry = import_model(Request(str(path), describe=many, settings={"dim_t": "17"}))
    assert entry.metadata.segment == HOP * 16


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    path = identity(tmp_path / "net.onnx")
    for settings, message in (
        ({"n_fft": "none"}, "n_fft is a whole number"),
        ({"n_fft": "256"}, "dim_f 200 does not fit n_fft 256"),
        ({"dim_f": "100"}, "dim_f is 100, but the network takes 200"),
        ({"compensate": "much"}, "compensate is a factor"),
        ({"compensate": "1000"}, "not between"),
        ({"stem": ""}, "add --set stem=vocals"),
        ({"nfft": "512"}, "did you mean 'n_fft'"),
    ):
        with pytest.raises(UsageError, match=message):
            bring(path, **settings)
    with pytest.raises(UsageError, match="n_fft of the network is not known"):
        import_model(Request(str(path), settings={"stem": "vocals"}))
    with pytest.raises(UsageError, match="say which MDX-Net file"):
        import_model(Request())
    with pytest.raises(ModelError, match="is missing"):
        bring(tmp_path / "none.onnx")
    other = write(
        tmp_path / "o.onnx", [node("Relu", ["x"], ["y"])], [("x", [1, 2])], [("y", [1, 2])]
    )
    with pytest.raises(ModelError, match="is no MDX-Net"):
        bring(other)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(UsageError, match="is not JSON"):
        bring(path)
    assert registry.entries().keys() <= {"unet"} | registry.entries().keys() - {"net"}
