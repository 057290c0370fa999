"""Open-Unmix: its files, its graph, against plain numpy and against the package's own networks."""

from __future__ import annotations

import collections
import io
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from separators_onnx.test_spectral import noise, run

from importers import torch_python
from realtime_sep.dsp.wiener import wiener_gains
from realtime_sep.errors import ModelError, UsageError
from realtime_sep.importers import Request, checkpoints
from realtime_sep.importers.openunmix import build, import_model
from realtime_sep.models import registry
from realtime_sep.models.plan import SlidingPlan
from realtime_sep.plugins import load_separator
from realtime_sep.separators.onnx import OnnxWindow

Array = npt.NDArray[Any]
Weights = dict[str, Array]
BINS, HEARD, HIDDEN = 129, 100, 16
GEOMETRY = {"n_fft": "256", "hop": "64", "licence": "MIT", "training_data": "none"}


def weights(seed: int, *, both: bool = True, layers: int = 2) -> Weights:
    """Random ones, as PyTorch names them."""
    rng = np.random.default_rng(seed)
    cells = HIDDEN // 2 if both else HIDDEN
    made: Weights = {
        "fc1.weight": rng.normal(0, 0.1, (HIDDEN, 2 * HEARD)),
        "fc2.weight": rng.normal(0, 0.3, (HIDDEN, 2 * HIDDEN)),
        "fc3.weight": rng.normal(0, 0.3, (2 * BINS, HIDDEN)),
    }
    for layer, size in (("bn1", HIDDEN), ("bn2", HIDDEN), ("bn3", 2 * BINS)):
        made[f"{layer}.weight"] = rng.uniform(0.5, 1.5, size)
        made[f"{layer}.bias"] = rng.normal(0, 0.2, size)
        made[f"{layer}.running_mean"] = rng.normal(0, 0.2, size)
        made[f"{layer}.running_var"] = rng.uniform(0.5, 1.5, size)
    for layer in range(layers):
        for end in ("", "_reverse")[: 1 + both]:
            made[f"lstm.weight_ih_l{layer}{end}"] = rng.normal(0, 0.4, (4 * cells, HIDDEN))
            made[f"lstm.weight_hh_l{layer}{end}"] = rng.normal(0, 0.4, (4 * cells, cells))
            made[f"lstm.bias_ih_l{layer}{end}"] = rng.normal(0, 0.1, 4 * cells)
            made[f"lstm.bias_hh_l{layer}{end}"] = rng.normal(0, 0.1, 4 * cells)
    for name, size in (("input", HEARD), ("output", BINS)):
        made[f"{name}_mean"] = rng.normal(0, 0.3, size)
        made[f"{name}_scale"] = rng.uniform(0.5, 1.5, size)
    return {name: value.astype(np.float32) for name, value in made.items()}


def plain(w: Weights, magnitude: Array, *, both: bool = True, layers: int = 2) -> Array:
    """The masks (T, channels, bins) of magnitudes (channels, T, bins), as the paper says."""

    def normal(x: Array, layer: str) -> Array:
        y = (x - w[f"{layer}.running_mean"]) / np.sqrt(w[f"{layer}.running_var"] + 1e-5)
        return y * w[f"{layer}.weight"] + w[f"{layer}.bias"]

    def lstm(x: Array, end: str) -> Array:
        h = np.zeros(w[f"lstm.weight_hh{end}"].shape[1])
        c = h.copy()
        out = []
        for frame in x:
            z = w[f"lstm.weight_ih{end}"] @ frame + w[f"lstm.bias_ih{end}"]
            z = z + w[f"lstm.weight_hh{end}"] @ h + w[f"lstm.bias_hh{end}"]
            i, f, g, o = np.split(z, 4)
            i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
            out.append(h)
        return np.array(out)

    x = magnitude.swapaxes(0, 1)[..., :HEARD]
    x = ((x + w["input_mean"]) * w["input_scale"]).reshape(len(x), -1)
    first = y = np.tanh(normal(x @ w["fc1.weight"].T, "bn1"))
    for layer in range(layers):
        parts = [lstm(y, f"_l{layer}")]
        if both:
            parts.append(lstm(y[::-1], f"_l{layer}_reverse")[::-1])
        y = np.concatenate(parts, axis=1)
    y = np.concatenate([first, y], axis=1)
    y = np.maximum(normal(y @ w["fc2.weight"].T, "bn2"), 0)
    y = normal(y @ w["fc3.weight"].T, "bn3").reshape(len(y), 2, BINS)
    masks: Array = np.maximum(y * w["output_scale"] + w["output_mean"], 0)
    return masks


def install(networks: dict[str, Weights], **settings: str) -> registry.ModelEntry:
    data, _ = build(networks, {**GEOMETRY, **settings})
    return registry.install(data, origin="a test")


def test_both_directions_equal_the_plain_computation() -> None:
    networks = {name: weights(i) for i, name in enumerate(("vocals", "drums", "bass", "other"))}
    entry = install(networks)
    assert entry.metadata.all_stems == ("vocals", "drums", "bass", "other")
    plan = SlidingPlan(context=12, step=3, lookahead=2, deadline=4, shift=2)
    net = OnnxWindow(entry, plan)
    rng = np.random.default_rng(9)
    net.window[:] = np.abs(rng.normal(0, 1, net.window.shape))
    masks = np.zeros((3, 3, 2, BINS), np.float32)
    net.run(masks)
    for i, name in enumerate(entry.metadata.stems):
        expected = plain(networks[name], net.window)[-5:-2]
        np.testing.assert_allclose(masks[:, i], expected, atol=1e-4)


def test_the_past_alone_keeps_its_state() -> None:
    network = weights(3, both=False)
    entry = install({"vocals": network})
    assert entry.metadata.all_stems == ("vocals", "accompaniment")
    assert len(entry.metadata.states) == 4
    rng = np.random.default_rng(9)
    frames = np.abs(rng.normal(0, 1, (2, 12, BINS))).astype(np.float32)
    expected = plain(network, frames, both=False)
    for step in (1, 3):
        net = OnnxWindow(entry, SlidingPlan(step, step, 0, 4, 6))
        masks = np.zeros((step, 1, 2, BINS), np.float32)
        for _ in range(2):
            net.reset()
            for start in range(0, 12, step):
                net.window[:] = frames[:, start : start + step]
                net.run(masks)
                np.testing.assert_allclose(masks[:, 0], expected[start : start + step], atol=1e-4)


def test_stateful_streams_are_whole_and_repeat() -> None:
    install({"vocals": weights(3, both=False)}, name="past")
    signal = noise(64 * 60)
    first = None
    for profile in ("fast", "light", "fast"):
        separator = load_separator("past", samplerate=44100, profile=profile)
        stems = run(separator, signal)
        late = separator.info.latency
        error = stems.sum(axis=0)[late:] - signal[:-late]
        assert np.abs(error).max() < 2e-6
        assert np.abs(stems[0]).max() > 0.01
        separator.reset()
        np.testing.assert_array_equal(run(separator, signal), stems)
        if profile == "fast":
            first = stems if first is None else first
            np.testing.assert_array_equal(first, stems)
    with pytest.raises(UsageError, match="context = step, lookahead 0"):
        load_separator("past", samplerate=44100, context=2, lookahead=1)


# --- files


class _Tensor:
    """Pickles as PyTorch's tensors do."""

    def __init__(self, key: str, array: Array) -> None:
        self.key, self.array = key, array


def pickled(content: Any, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A pickle as `torch.save` makes it, by the names of PyTorch's classes alone."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    class FloatStorage:
        __module__ = "torch"
        __qualname__ = "FloatStorage"

    def _rebuild_tensor_v2(*_: Any) -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    torch.FloatStorage = FloatStorage  # type: ignore[attr-defined]
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]

    class Place:
        def __init__(self, tensor: _Tensor) -> None:
            self.tensor = tensor

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, Place):
                count = value.tensor.array.size
                return ("storage", FloatStorage, value.tensor.key, "cpu", count)
            return None

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, _Tensor):
                shape = value.array.shape
                strides = tuple(s // 4 for s in value.array.strides)
                order: Any = collections.OrderedDict()
                return _rebuild_tensor_v2, (Place(value), 0, shape, strides, False, order)
            return NotImplemented

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        file = io.BytesIO()
        Pickler(file, 2).dump(content)
    return file.getvalue()


def zipped(networks: Weights, monkeypatch: pytest.MonkeyPatch) -> bytes:
    tensors = collections.OrderedDict(
        (name, _Tensor(str(i), value)) for i, (name, value) in enumerate(networks.items())
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(tensors, monkeypatch))
        for tensor in tensors.values():
            archive.writestr(f"archive/data/{tensor.key}", tensor.array.tobytes())
    return file.getvalue()


def test_files_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    made = weights(0)
    data = zipped(made, monkeypatch)
    found = checkpoints.read(data, "w.pth")
    assert found.keys() == made.keys()
    for name, value in made.items():
        np.testing.assert_array_equal(found[name], value)
    # The old way: pickles one after the other, then the numbers.
    tensors = {name: _Tensor(str(i), value) for i, (name, value) in enumerate(made.items())}
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little": True})]
    parts += [pickled(tensors, monkeypatch), pickle.dumps([t.key for t in tensors.values()], 2)]
    for tensor in tensors.values():
        parts += [np.int64(tensor.array.size).tobytes(), tensor.array.tobytes()]
    found = checkpoints.read(b"".join(parts), "w.pth")
    for name, value in made.items():
        np.testing.assert_array_equal(found[name], value)


def test_files_that_would_run_something_are_refused() -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return print, ("run",)

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(Evil()))
    for data in (file.getvalue(), pickle.dumps(Evil()), b"", b"PK", b"no"):
        with pytest.raises(ModelError, match="is no file of PyTorch weights") as caught:
            checkpoints.read(data, "w.pth")
        assert "\n" not in str(caught.value)


def test_a_folder_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, target in enumerate(("bass", "vocals", "drums")):
        (tmp_path / f"{target}-0123abcd.pth").write_bytes(zipped(weights(i), monkeypatch))
    entry = import_model(Request(str(tmp_path), settings={**GEOMETRY, "name": "three"}))
    assert entry.metadata.all_stems == ("vocals", "drums", "bass")
    separator = load_separator("three", samplerate=44100, profile="fast")
    signal = noise(64 * 40)
    stems = run(separator, signal)
    late = separator.info.latency
    assert np.abs(stems.sum(axis=0)[late:] - signal[:-late]).max() < 2e-6
    settings = {**GEOMETRY, "targets": "vocals"}
    entry = import_model(Request(str(tmp_path), settings=settings))
    assert entry.metadata.all_stems == ("vocals", "accompaniment")
    file = tmp_path / "vocals-0123abcd.pth"
    assert import_model(Request(str(file), settings=GEOMETRY)).metadata.stems == ("vocals",)
    for source, settings, message in (
        (str(tmp_path), {"targets": "voice"}, "unknown target 'voice'"),
        (str(tmp_path / "no"), {}, "known weights are umx, umxhq, umxl"),
        (str(tmp_path), {"target": "vocals"}, "did you mean 'targets'"),
    ):
        with pytest.raises(UsageError, match=message):
            import_model(Request(source, settings=settings))
    (tmp_path / "vocals-0123abcd.pth").write_bytes(
        zipped({"x": weights(0)["bn1.bias"]}, monkeypatch)
    )
    with pytest.raises(ModelError, match="lack 'output_scale'"):
        import_model(Request(str(tmp_path), settings=GEOMETRY))


def test_licences_are_shown_before_anything_is_downloaded() -> None:
    shown: list[str] = []

    def refuse(text: str) -> bool:
        shown.append(text)
        return False

    with pytest.raises(ModelError, match=r"CC-BY-NC-SA-4\.0; agree with --accept-licence"):
        import_model(Request("umxl", agreed=refuse))
    assert "non-commercial use only" in shown[0]


# --- against the package

_MAKE = """
import sys, types, json
import numpy as np, torch
sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))  # needed for files only
from openunmix.model import OpenUnmix, Separator
from openunmix.filtering import wiener
torch.manual_seed(1)
for both in (True, False):
    models = {}
    for target in ("vocals", "drums"):
        mean, scale = np.random.rand(2, 1025)
        m = OpenUnmix(nb_bins=1025, hidden_size=64, nb_layers=3, unidirectional=not both,
                      max_bin=700, input_mean=mean, input_scale=1 + scale)
        for name, buffer in m.named_buffers():
            if name.endswith("running_mean"): buffer.normal_(0, 0.2)
            if name.endswith("running_var"): buffer.uniform_(0.5, 1.5)
        m.eval()
        models[target] = m
        folder = "both" if both else "past"
        import os
        os.makedirs(folder, exist_ok=True)
        torch.save(m.state_dict(), f"{folder}/{target}-00000000.pth",
                   _use_new_zipfile_serialization=both)
    x = torch.rand(1, 2, 1025, 40)
    with torch.no_grad():
        out = torch.stack([m(x.clone())[0] for m in models.values()])
    np.savez(f"{folder}.npz", x=x[0].numpy(), out=out.numpy())
mix = torch.randn(30, 40, 2, 2)
parts = torch.rand(30, 40, 2, 3)
size = mix.norm(dim=-1)
made = {f"r{r}i{i}": wiener(parts * size[..., None], mix.clone(), i, residual=bool(r)).numpy()
        for r in (0, 1) for i in (1, 2)}
np.savez("wiener.npz", mix=mix.numpy(), parts=parts.numpy(), **made)
"""


@pytest.mark.train
def test_equal_to_the_packages_own_networks(tmp_path: Path) -> None:
    python = torch_python.find("torch", "openunmix")
    torch_python.run(python, _MAKE, tmp_path)
    for folder in ("both", "past"):
        with np.load(tmp_path / f"{folder}.npz") as sample:
            x, out = sample["x"], sample["out"]  # (channels, bins, T), (targets, ...)
        settings = {"n_fft": "2048", "hop": "512", "name": folder}
        entry = import_model(Request(str(tmp_path / folder), settings=settings))
        past = folder == "past"
        plan = SlidingPlan(1, 1, 0, 4, 6) if past else SlidingPlan(40, 40, 0, 160, 0)
        net = OnnxWindow(entry, plan)
        masks = np.zeros((plan.step, 1, 2, 1025), np.float32)
        frames = x.transpose(0, 2, 1)
        for start in range(0, 40, plan.step):
            net.window[:] = frames[:, start : start + plan.step]
            net.run(masks)
            made = masks[:, 0].transpose(1, 2, 0) * x[..., start : start + plan.step]
            expected = out[0, ..., start : start + plan.step]
            np.testing.assert_allclose(made, expected, atol=1e-4)
    with np.load(tmp_path / "wiener.npz") as sample:
        mix = sample["mix"].transpose(0, 2, 1, 3)  # (frames, channels, bins, 2)
        spectrum = np.ascontiguousarray(mix[..., 0] + 1j * mix[..., 1])
        parts = np.ascontiguousarray(sample["parts"].transpose(0, 3, 2, 1))
        for residual in (0, 1):
            for iterations in (1, 2):
                gains = wiener_gains(parts, spectrum, iterations, residual=bool(residual))
                stems = np.einsum("tjcdk,tdk->tkcj", gains, spectrum)
                expected = sample[f"r{residual}i{iterations}"]
                expected = expected[..., 0, :] + 1j * expected[..., 1, :]
                np.testing.assert_allclose(stems, expected, atol=1e-4)
