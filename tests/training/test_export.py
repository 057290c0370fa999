"""The exported graph keeps its contract and equals the network it came from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("soxr")

from training import export as exporting  # noqa: E402
from training.hybrid import Hybrid  # noqa: E402
from training.lstm import Recurrent, RecurrentConfig  # noqa: E402
from training.networks import Geometry, UNet, UNetConfig  # noqa: E402
from training.step import step  # noqa: E402
from training.stream import OnnxStream  # noqa: E402

pytestmark = pytest.mark.train


def small(family: str) -> torch.nn.Module:
    config = UNetConfig(channels=(8, 8, 8, 16), blocks=1)
    if family == "unet":
        return UNet(config)
    if family in ("whole", "late"):
        pace = {"pace": 2, "late": 1} if family == "late" else {}
        config = replace(config, upper=(2,), prior=True, elder=True, accord=0.5, **pace)
        return UNet(config, Geometry())
    if family in ("lstm", "paced"):
        elder = family == "paced"
        return Recurrent(RecurrentConfig(width=16, layers=1, local=4, elder=elder))
    hybrid = Hybrid(config, Geometry())
    torch.nn.init.normal_(hybrid.waveform.masks.weight, 0, 0.3)
    return hybrid


@pytest.fixture(scope="module", params=["unet", "whole", "late", "lstm", "paced", "hybrid"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[torch.nn.Module, Path]:
    torch.manual_seed(0)
    network = small(request.param).eval()
    path = tmp_path_factory.mktemp("model") / f"{request.param}.onnx"
    exporting.export(network, Geometry(), path)
    entries = exporting.metadata(request.param, network, Geometry(), 0, ["noise"], {})
    exporting.annotate(path, entries)
    return network, path


def test_streaming_equals_the_network(exported: tuple[torch.nn.Module, Path]) -> None:
    network, path = exported
    # More than one piece of the offline run, but where that would take too long.
    hops = 100 if path.stem in ("whole", "late", "paced") else 1100
    audio = np.random.default_rng(0).standard_normal((hops * 512, 2)).astype(np.float32) * 0.1
    error, seconds = exporting.parity(network, Geometry(), path, audio)
    assert error < 1e-5
    assert len(seconds) == hops


def test_names_shapes_and_metadata(exported: tuple[torch.nn.Module, Path]) -> None:
    network, path = exported
    stream = OnnxStream(path)
    inputs = [node.name for node in stream.session.get_inputs()]
    outputs = [node.name for node in stream.session.get_outputs()]
    states = list(step(network).state_shapes())
    hybrid = path.stem == "hybrid"
    assert inputs == ["spec", *["samples"][:hybrid], *states]
    assert outputs == ["stems", *["waves"][:hybrid], *(f"next_{name}" for name in states)]
    entry = stream.session.get_modelmeta().custom_metadata_map
    stored = json.loads(entry["realtime_sep.states"])
    assert [f"state_{item['name']}" for item in stored] == states
    assert all(isinstance(value, str) for value in entry.values())
    assert entry["realtime_sep.format"] == "1"


def test_batches_are_independent(exported: tuple[torch.nn.Module, Path]) -> None:
    _, path = exported
    stream = OnnxStream(path)
    session = stream.session
    rng = np.random.default_rng(1)
    spec = rng.standard_normal((2, 2, 1025, 2)).astype(np.float32)
    shapes = stream.shapes

    def run(part: np.ndarray) -> np.ndarray:
        states = {name: np.zeros((len(part), *shape), np.float32) for name, shape in shapes.items()}
        if stream.waves:
            states["samples"] = np.ones((len(part), 2, 512), np.float32)
        return session.run(["stems"], {"spec": part, **states})[0]

    both = run(spec)
    assert both.shape == (2, 1, 2, 1025, 2)
    np.testing.assert_allclose(both[1:], run(spec[1:]), atol=1e-5)


@pytest.mark.parametrize("exported", ["late", "paced"], indirect=True)
def test_streams_of_a_batch_need_not_be_in_step(exported: tuple[torch.nn.Module, Path]) -> None:
    _, path = exported
    stream = OnnxStream(path)
    rng = np.random.default_rng(1)
    hops = rng.standard_normal((9, 2, 1025, 2)).astype(np.float32)
    outputs = [node.name for node in stream.session.get_outputs()]

    def run(spec: np.ndarray, states: dict[str, np.ndarray]) -> tuple[np.ndarray, dict]:
        stems, *after = stream.session.run(outputs, {"spec": spec, **states})
        return stems, dict(zip(states, after, strict=True))

    def fresh() -> dict[str, np.ndarray]:
        return {name: np.zeros((1, *shape), np.float32) for name, shape in stream.shapes.items()}

    states, alone = fresh(), []
    for hop in hops:
        stems, states = run(hop[None], states)
        alone.append(stems[0])
    _, early = run(hops[:1], fresh())
    both = {name: np.concatenate([early[name], start]) for name, start in fresh().items()}
    for now in range(8):  # the second stream begins a hop later
        stems, both = run(hops[[now + 1, now]], both)
        np.testing.assert_allclose(stems[0], alone[now + 1], atol=1e-5)
        np.testing.assert_allclose(stems[1], alone[now], atol=1e-5)


def test_stream_passes_its_delay(exported: tuple[torch.nn.Module, Path]) -> None:
    stream = OnnxStream(exported[1])
    assert stream.lag == 512
    mix = np.zeros((5000, 2), np.float32)
    assert not stream.separate(mix).any()


def test_variants_are_smaller_and_sound_alike(
    exported: tuple[torch.nn.Module, Path], tmp_path: Path
) -> None:
    from training import variants

    rng = np.random.default_rng(2)
    mix = rng.standard_normal((30 * 512, 2)).astype(np.float32) * 0.1
    expected = OnnxStream(exported[1]).separate(mix)
    for make, bound in ((variants.halve, 0.01), (variants.quantise, 0.3)):
        path = tmp_path / "variant.onnx"
        make(exported[1], path)
        assert path.stat().st_size < exported[1].stat().st_size
        found = OnnxStream(path).separate(mix)
        assert np.abs(found - expected).max() < bound * np.abs(expected).max()


def test_weights_of_half_precision_are_stored_as_such(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = UNet(UNetConfig(channels=(16, 16, 16, 32), blocks=1)).half().float().eval()
    whole, short = tmp_path / "whole.onnx", tmp_path / "short.onnx"
    exporting.export(network, Geometry(), whole)
    exporting.halve(whole, short, lossless=True)
    assert short.stat().st_size < 0.7 * whole.stat().st_size
    for path in (whole, short):
        exporting.annotate(path, exporting.metadata("unet", network, Geometry(), 0, [], {}))
    hops = np.random.default_rng(0).standard_normal((20, 512, 2)).astype(np.float32)
    one, other = OnnxStream(whole), OnnxStream(short)
    for hop in hops:
        assert np.array_equal(one.process(hop), other.process(hop))
