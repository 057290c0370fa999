"""Spectral models: geometry, latency to the sample, states, channels, providers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from realtime_sep.engine import Engine
from realtime_sep.errors import ModelError, UsageError
from realtime_sep.separators import Separator
from realtime_sep.separators.batch import load_batch
from realtime_sep.separators.onnx import load
from realtime_sep.types import Float32
from separators_onnx import tiny


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Any]:
    def run(model: onnx.ModelProto, *, rate: int = 44100, channels: int = 2, **options: Any) -> Any:
        return load(tiny.entry(model, tmp_path), samplerate=rate, channels=channels, **options)

    return run


def run(separator: Separator, signal: Float32) -> Float32:
    """All stems `(stems, frames, channels)` of a signal, cut to whole hops."""
    info = separator.info
    hops = len(signal) // info.hop
    out = np.zeros((len(info.stems), hops * info.hop, info.channels), np.float32)
    stems = np.zeros((len(info.stems), info.hop, info.channels), np.float32)
    for start in range(0, hops * info.hop, info.hop):
        separator.process(signal[start : start + info.hop], stems)
        out[:, start : start + info.hop] = stems
    return out


def noise(frames: int, channels: int = 2) -> Float32:
    rng = np.random.default_rng(1)
    return rng.uniform(-0.5, 0.5, (frames, channels)).astype(np.float32)


@pytest.mark.parametrize("lookahead", [0, 1, 2, 5])
def test_an_impulse_arrives_at_the_announced_sample(make: Any, lookahead: int) -> None:
    separator = make(tiny.delayed(lookahead) if lookahead else tiny.gain(1.0))
    assert separator.info.latency == 256 - 128 + lookahead * 128
    signal = np.zeros((4096, 2), np.float32)
    signal[777] = [1.0, -0.5]
    vocals, rest = run(separator, signal)
    expected = np.roll(signal, separator.info.latency, axis=0)
    np.testing.assert_allclose(vocals, expected, atol=2e-6)
    np.testing.assert_allclose(rest, 0, atol=2e-6)


def test_stems_add_up(make: Any) -> None:
    separator = make(tiny.gain(0.3))
    signal = noise(8192)
    stems = run(separator, signal)
    late = separator.info.latency
    error = stems.sum(axis=0)[late:] - signal[: len(signal) - late]
    assert np.abs(error).max() < 1e-6
    np.testing.assert_allclose(stems[0][late:], 0.3 * signal[:-late], atol=2e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_two_branches_are_added_aligned(make: Any, channels: int) -> None:
    separator = make(tiny.branches(0.25, 0.5), channels=channels)
    signal = noise(128 * 40, channels)
    for _ in range(2):
        vocals, rest = run(separator, signal)
        late = separator.info.latency
        np.testing.assert_allclose(vocals[late:], 0.75 * signal[:-late], atol=2e-6)
        np.testing.assert_allclose(rest[late:], 0.25 * signal[:-late], atol=2e-6)
        separator.reset()


def test_two_branches_in_a_batch(tmp_path: Path) -> None:
    batch = load_batch(tiny.entry(tiny.branches(0.25, 0.5), tmp_path), 3)
    assert batch is not None
    lanes = [batch.lane(samplerate=44100, channels=channels) for channels in (2, 1)]
    stems = [np.zeros((2, 128, channels), np.float32) for channels in (2, 1)]
    signals = [noise(128 * 12), noise(128 * 12, 1)]
    for start in range(0, 128 * 12, 128):
        hops = [signal[start : start + 128] for signal in signals]
        for lane, hop in zip(lanes, hops, strict=True):
            lane.prepare(hop)
        batch.run()
        for lane, hop, out, signal in zip(lanes, hops, stems, signals, strict=True):
            lane.process(hop, out)
            if start:
                expected = 0.75 * signal[start - 128 : start]
                np.testing.assert_allclose(out[0], expected, atol=2e-6)


@pytest.mark.parametrize("missing", ["samples", "waves"])
def test_half_a_branch_is_refused(make: Any, missing: str) -> None:
    with pytest.raises(ModelError, match="its metadata means"):
        make(tiny.branches(0.25, 0.5, missing))


def test_several_stems_and_their_rest(make: Any) -> None:
    metadata = replace(tiny.SPECTRAL, stems=("vocals", "drums"), residual="rest")
    separator = make(tiny.gain(0.25, metadata))
    assert separator.info.stems == ("vocals", "drums", "rest")
    signal = noise(4096)
    stems = run(separator, signal)
    late = separator.info.latency
    np.testing.assert_allclose(stems[2][late:], 0.5 * signal[:-late], atol=2e-6)


def test_the_state_counts_every_hop_once(make: Any) -> None:
    separator = make(tiny.counting())
    hops = 40
    signal = np.full((128 * hops, 2), 0.5, np.float32)
    vocals = run(separator, signal)[0]
    # Overlap-add of two hops: in the middle of hop n the stem lies between n - 1 and n thousandths.
    for n in range(4, hops):
        middle = vocals[128 * n + 64, 0] / 0.5 * 1e3
        assert n - 1 - 1e-2 <= middle <= n + 1e-2


def test_states_keep_apart(make: Any) -> None:
    separator = make(tiny.counting(("b", "a", "c")))
    run(separator, noise(128 * 7))
    step = separator._step
    for states in step._states:
        assert len({id(array) for array in states.values()}) == 3
    newest = step._states[step._turn]
    assert all(array == pytest.approx(7e-3) for array in newest.values())


def test_reset_forgets(make: Any) -> None:
    separator = make(tiny.counting())
    signal = noise(2048)
    first = run(separator, signal)
    assert not np.array_equal(run(separator, signal), first)
    separator.reset()
    np.testing.assert_array_equal(run(separator, signal), first)


def test_mono_is_the_same_as_twice_the_same(make: Any) -> None:
    signal = noise(4096, 1)
    mono = run(make(tiny.delayed(1), channels=1), signal)
    stereo = run(make(tiny.delayed(1)), np.repeat(signal, 2, axis=1))
    np.testing.assert_allclose(mono[..., 0], stereo[..., 0], atol=2e-6)


@pytest.mark.parametrize("rate", [44100, 46000, 48000])
def test_native_rates(make: Any, rate: int) -> None:
    assert make(tiny.gain(1.0), rate=rate).info.samplerate == rate


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("home", [44100, 48000])
@pytest.mark.parametrize("batched", [False, True])
def test_a_bin_stays_as_many_hertz_wide(
    tmp_path: Path, rate: int, home: int, batched: bool
) -> None:
    """A network that keeps what is below 200 bins of its own keeps it at every rate, no more."""
    rates = (home, 92100 - home)
    metadata = replace(tiny.SPECTRAL, n_fft=2048, synthesis=1024, hop=512, sample_rates=rates)
    below = (np.arange(metadata.geometry.bins) < 200).astype(np.float32)[:, None]
    graph = tiny.gain(below, metadata)
    if batched:
        for value in (*graph.graph.input, *graph.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    entry = tiny.entry(graph, tmp_path)
    if batched:
        batch = load_batch(entry, 2)
        assert batch is not None
        separator: Separator = batch.lane(samplerate=rate)
    else:
        separator = load(entry, samplerate=rate)
    assert (separator.info.hop, separator.info.latency) == (512, 512)
    time = np.arange(100 * 512)[:, None] / rate
    edge = 200 * home / 2048
    for frequency, share in ((0.96 * edge, 1.0), (1.04 * edge, 0.0), (21000, 0.0)):
        separator.reset()
        tone = np.repeat(0.5 * np.sin(2 * np.pi * frequency * time), 2, 1).astype(np.float32)
        vocals = run(separator, tone)[0][4096:]
        assert np.sqrt(np.mean(vocals**2)) == pytest.approx(share * 0.5 / np.sqrt(2), abs=0.005)


@pytest.mark.parametrize("rate", [44099, 48001, 32000, 96000])
def test_other_rates_are_refused(make: Any, rate: int) -> None:
    with pytest.raises(UsageError, match="44100 to 48000 Hz"):
        make(tiny.gain(1.0), rate=rate)


def test_in_the_engine(make: Any) -> None:
    separator = make(tiny.gain(0.5))
    engine = Engine(separator, outputs=("vocals", "accompaniment"), limiter=False)
    signal = noise(128 * 20)
    out = np.zeros((128, 4), np.float32)
    total = []
    for start in range(0, len(signal), 128):
        engine.process(signal[start : start + 128], out)
        total.append(out[:, :2] + out[:, 2:])
    late = separator.info.latency
    np.testing.assert_allclose(np.concatenate(total)[late:], signal[:-late], atol=1e-6)


def test_the_provider_is_named_and_a_missing_one_is_an_error(make: Any) -> None:
    assert make(tiny.gain(1.0)).info.provider.endswith("ExecutionProvider")
    assert make(tiny.gain(1.0), provider="cpu").info.provider == "CPUExecutionProvider"
    with pytest.raises(UsageError, match="did you mean 'cuda'"):
        make(tiny.gain(1.0), provider="cud")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ModelError, match="provider 'cuda' is not in this ONNX Runtime"):
            make(tiny.gain(1.0), provider="cuda")


def test_a_provider_that_falls_back_is_an_error(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    real = onnxruntime.InferenceSession

    def session(data: bytes, options: Any, providers: list[str]) -> Any:
        return real(data, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(ModelError, match="runs on CPUExecutionProvider"):
        make(tiny.gain(1.0), provider="cuda")
    assert make(tiny.gain(1.0), provider="auto").info.provider == "CPUExecutionProvider"


def test_an_old_runtime_is_refused(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "__version__", "1.23.2")
    with pytest.raises(ModelError, match=r"1\.23\.2 is too old"):
        make(tiny.gain(1.0))


def test_unknown_options_are_the_users_mistake(make: Any) -> None:
    with pytest.raises(UsageError, match="did you mean 'provider'"):
        make(tiny.gain(1.0), provder="cpu")
    with pytest.raises(UsageError, match="channels, not 3"):
        make(tiny.gain(1.0), channels=3)


def test_a_graph_that_is_not_what_its_metadata_says(make: Any) -> None:
    with pytest.raises(ModelError, match="its metadata means"):
        make(_claiming(replace(tiny.SPECTRAL, n_fft=1024)))
    with pytest.raises(ModelError, match="has the inputs"):
        make(_claiming(replace(tiny.SPECTRAL, states=(tiny.StateSpec("h", (4,)),))))


def _claiming(metadata: Any) -> onnx.ModelProto:
    """A good graph under another model's metadata."""
    made = tiny.gain(1.0)
    del made.metadata_props[:]
    onnx.helper.set_model_props(made, metadata.to_props())
    return made


def test_other_providers_give_the_same(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where arrays cannot be bound for good they are given anew: the same samples."""
    import onnxruntime

    signal = noise(128 * 20)
    models = [tiny.delayed(2), tiny.counting()]
    expected = [run(make(model), signal) for model in models]
    real = onnxruntime.InferenceSession.get_providers
    monkeypatch.setattr(
        onnxruntime.InferenceSession,
        "get_providers",
        lambda session: ["FakeExecutionProvider", *real(session)],
    )
    for model, wanted in zip(models, expected, strict=True):
        separator = make(model)
        assert separator.info.provider == "FakeExecutionProvider"
        np.testing.assert_array_equal(run(separator, signal), wanted)


def test_the_calling_thread_keeps_its_denormals(make: Any) -> None:
    """The runtime would leave them flushed in every thread that makes or runs a session."""
    run(make(tiny.gain(1.0)), noise(2048))
    assert (np.full(8, 1e-38, np.float32) * np.float32(0.1)).max() > 0
