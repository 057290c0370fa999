"""Demucs: small networks of its own kinds, with seeded random weights, exported and compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from separators_onnx.test_spectral import noise, run

from importers import torch_python
from importers.foreign import node, write
from realtime_sep.errors import ModelError, UsageError
from realtime_sep.importers import Request
from realtime_sep.importers.demucs import build, import_model, verify
from realtime_sep.models import registry
from realtime_sep.plugins import load_separator
from realtime_sep.separators.onnx import OnnxSegment

N_FFT, HOP, LENGTH = 256, 64, 64 * 30

_MAKE = """
import torch
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
torch.manual_seed(3)
sources = ["drums", "bass", "other", "vocals"]
kinds = {
    "ht": (HTDemucs, dict(channels=8, t_layers=3, bottom_channels=16)),
    "h": (HDemucs, dict(channels=8, depth=5)),
    "six": (HTDemucs, dict(channels=8, t_layers=1, bottom_channels=8)),
}
for name, (klass, kwargs) in kinds.items():
    args = (sources if name != "six" else [*sources, "guitar", "piano"],)
    kwargs |= dict(nfft=1024, segment=1)
    if klass is HTDemucs:
        kwargs["t_heads"] = 2
    net = klass(*args, **kwargs)
    package = {"klass": klass, "args": args, "kwargs": kwargs, "state": net.state_dict()}
    torch.save(package, name + ".th")
    net.eval()
    x = 0.1 * torch.randn(1, 2, 44100)
    import numpy as np
    with torch.no_grad():
        np.savez(name + ".npz", x=x[0].numpy(), y=net(x)[0].numpy())
"""


@pytest.mark.train
@pytest.mark.slow
def test_equal_to_the_packages_own_networks(tmp_path: Path) -> None:
    python = torch_python.find("torch", "demucs", "onnxscript")
    torch_python.run(python, _MAKE, tmp_path)
    for name in ("ht", "h", "six"):
        source = str(tmp_path / f"{name}.th")
        entry = import_model(Request(source, settings={"python": python}))
        assert entry.name == name
        assert entry.metadata.stems[:3] == ("vocals", "drums", "bass")
        assert entry.metadata.residual == "other"
        with np.load(tmp_path / f"{name}.npz") as sample:
            x, y = sample["x"], sample["y"]
        net = OnnxSegment(entry, provider="cpu")
        length = entry.metadata.segment
        if length == x.shape[1]:
            net.segment[:] = x
            net.run()
            order = ["drums", "bass", "other", "vocals", "guitar", "piano"]
            expected = y[[order.index(stem) for stem in entry.metadata.stems]]
            np.testing.assert_allclose(net.stems, expected, atol=1e-4)
        separator = load_separator(name, samplerate=44100, step=40, deadline=10, lookahead=10)
        signal = noise(256 * 300)
        stems = run(separator, signal)
        late = separator.info.latency
        error = stems.sum(axis=0)[late:] - signal[:-late]
        assert np.abs(error).max() < 2e-6


def exported(folder: Path, gain: float = 0.5) -> Path:
    """What the export writes for a network that gives `gain` of the samples and of the spectra."""
    frames, bins = LENGTH // HOP, N_FFT // 2
    nodes = [
        node("Mul", ["mix", "gain"], ["wave"]),
        node("Mul", ["spec", "gain"], ["part"]),
        node("Unsqueeze", ["wave", "one"], ["stems"]),
        node("Unsqueeze", ["part", "one"], ["spectra"]),
    ]
    write(
        folder / "net.onnx",
        nodes,
        [("mix", [1, 2, LENGTH]), ("spec", [1, 4, bins, frames])],
        [("stems", [1, 1, 2, LENGTH]), ("spectra", [1, 1, 4, bins, frames])],
        {"gain": np.array(gain, np.float32), "one": np.array([1])},
        opset=18,
    )
    info = {
        "kind": "HTDemucs", "stems": ["vocals"], "residual": "other", "samplerate": 44100,
        "channels": 2, "n_fft": N_FFT, "hop": HOP, "segment": LENGTH, "bins": bins,
        "parameters": 0,
    }  # fmt: skip
    (folder / "info.json").write_text(json.dumps(info))
    # Twice half of it: through the samples and through the spectrogram, but for its highest bin.
    t = np.arange(LENGTH)
    mix = np.stack([np.sin(0.1 * t), np.cos(0.3 * t)]).astype(np.float32)
    np.savez(folder / "sample.npz", mix=mix, stems=mix[None])
    return folder


def test_samples_and_spectra_are_added_up(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    data, metadata = build(folder, {"name": "small"})
    registry.install(data, origin="a test")
    separator = load_separator("small", samplerate=48000, step=4, deadline=2, lookahead=6, fade=1)
    late = separator.info.latency
    assert late == (4 + 2 - 1 + 6 + 1) * HOP
    t = np.arange(HOP * 90)
    signal = np.stack([np.sin(0.1 * t), np.cos(0.3 * t)], axis=1).astype(np.float32)
    stems = run(separator, signal)
    np.testing.assert_allclose(stems[0][late + LENGTH :], signal[LENGTH:-late], atol=2e-3)
    assert metadata.all_stems == ("vocals", "other")


def test_an_export_that_differs_is_refused(tmp_path: Path) -> None:
    folder = exported(tmp_path, 0.6)
    data, _ = build(folder, {})
    with pytest.raises(ModelError, match=r"differs from the original by 0\.2"):
        verify(data, folder)


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.th").write_bytes(b"")
    for source, settings, kind, message in (
        ("htdemucs", {}, ModelError, "licensed under MIT; agree with"),
        (str(tmp_path / "no.th"), {}, UsageError, "no such file"),
        ("htdemucs", {"segment": "long"}, UsageError, "segment is a number"),
        ("htdemucs", {"pyhton": "x"}, UsageError, "did you mean 'python'"),
        (str(tmp_path / "net.th"), {"python": "/no/python"}, ModelError, "cannot be run"),
        (str(tmp_path / "net.th"), {"python": "/bin/false"}, ModelError, "no reason given"),
    ):
        with pytest.raises(kind, match=message) as caught:
            import_model(Request(source, settings=settings))
        assert "\n" not in str(caught.value)
