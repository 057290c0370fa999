"""A user's own network: any order of axes, states of any shape, and what is wrong, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from separators_onnx.test_spectral import noise, run
from typer.testing import CliRunner

from importers.foreign import node, write
from realtime_sep.errors import ModelError, UsageError
from realtime_sep.importers import Request
from realtime_sep.importers.own import import_model
from realtime_sep.importers.trial import trial
from realtime_sep.models import registry
from realtime_sep.models.cli import app
from realtime_sep.plugins import load_separator

TOP = """
name = "mine"
licence = "CC0-1.0"
training_data = "none"
sample_rates = [44100, 48000]
channels = 2
stems = ["vocals"]
residual = "accompaniment"
"""
SPECTRAL = TOP + "n_fft = 512\nsynthesis = 256\nhop = 128\n"
BINS = 257


def bring(path: Path, description: str) -> registry.ModelEntry:
    file = path.with_suffix(".toml")
    file.write_text(description)
    return import_model(Request(str(path), describe=file))


def smoother(path: Path) -> Path:
    """A mask `[time, bin, batch]` that is the running mean of the magnitudes over one: the state,
    of shape `[1, 1, 200]`, forgets half of itself in every frame.  It sees the lowest 200 bins of
    the left channel's and the right one's magnitudes in one axis."""
    nodes = [
        node("Reshape", ["mag", "apart"], ["both"]),
        node("ReduceMean", ["both"], ["mean"], axes=[1], keepdims=0),  # (1, 200)
        node("Unsqueeze", ["mean", "zero"], ["now"]),
        node("Mul", ["h", "half"], ["old"]),
        node("Mul", ["now", "half"], ["new"]),
        node("Add", ["old", "new"], ["h_next"]),
        node("Sigmoid", ["h_next"], ["squashed"]),
        node("Transpose", ["squashed"], ["mask"], perm=[0, 2, 1]),
    ]
    constants = {
        "apart": np.array([1, 2, 200]),
        "zero": np.array([0]),
        "half": np.array(0.5, np.float32),
    }
    return write(
        path,
        nodes,
        [("mag", ["batch", 400]), ("h", [1, 1, 200])],
        [("mask", [1, 200, 1]), ("h_next", [1, 1, 200])],
        constants,
    )


SMOOTHER = (
    SPECTRAL
    + """
[input]
name = "mag"
holds = "magnitude"
axes = ["batch", "channel*bin"]
bins = 200
[output]
name = "mask"
holds = "mask"
axes = ["time", "bin", "batch"]
bins = 200
[states]
h = "h_next"
"""
)


@pytest.mark.parametrize(("rate", "n_fft"), [(44100, 512), (48000, 576)])
def test_a_mask_of_magnitudes_with_a_state(tmp_path: Path, rate: int, n_fft: int) -> None:
    entry = bring(smoother(tmp_path / "net.onnx"), SMOOTHER)
    assert entry.name == "mine"
    separator = load_separator("mine", samplerate=rate)
    assert separator.info.latency == 128
    signal = noise(128 * 60)
    stems = run(separator, signal)
    # The same in plain arrays: analysis, running mean, sigmoid, mask; up to the overlap-add.
    from realtime_sep.dsp.stft import Analysis, Synthesis
    from realtime_sep.types import Geometry

    geometry = Geometry(n_fft, 256, 128)
    analysis, synthesis = Analysis(geometry, 2), Synthesis(geometry, 2)
    state = np.zeros(200)
    expected = np.zeros_like(signal)
    for start in range(0, len(signal), 128):
        spectrum = analysis.process(signal[start : start + 128])
        state = 0.5 * state + 0.5 * np.abs(spectrum[:, :200]).mean(axis=0)
        mask = np.zeros(geometry.bins, np.float32)
        mask[:200] = 1 / (1 + np.exp(-state))
        synthesis.process(spectrum * mask, expected[start : start + 128])
    np.testing.assert_allclose(stems[0], expected, atol=1e-5)
    error = stems.sum(axis=0)[128:] - signal[:-128]
    assert np.abs(error).max() < 1e-6


@pytest.mark.parametrize("holds", ["spectrum", "magnitude"])
def test_two_stems_and_every_order_of_axes(tmp_path: Path, holds: str) -> None:
    """The network gives half and a quarter of what it gets, for all axes the other way round."""
    wide = holds == "spectrum"
    shape = [2, BINS, 2, 1] if wide else [BINS, 2, 1]
    nodes = [
        node("Mul", ["x", "half"], ["a"]),
        node("Mul", ["a", "half"], ["b"]),
        node("Unsqueeze", ["a", "last"], ["a1"]),
        node("Unsqueeze", ["b", "last"], ["b1"]),
        node("Concat", ["a1", "b1"], ["y"], axis=len(shape)),
    ]
    path = write(
        tmp_path / "net.onnx",
        nodes,
        [("x", shape), ("sr", [1])],
        [("y", [*shape, 2])],
        {"half": np.array(0.5, np.float32), "last": np.array([len(shape)])},
    )
    axes = ["part", "bin", "channel", "batch"] if wide else ["bin", "channel", "batch"]
    entry = bring(
        path,
        SPECTRAL.replace('["vocals"]', '["vocals", "drums"]')
        + f"""
[input]
name = "x"
holds = "{holds}"
axes = {axes}
[output]
name = "y"
holds = "{holds}"
axes = {[*axes, "stem"]}
[constants]
sr = 44100
""".replace("'", '"'),
    )
    separator = load_separator(entry.name, samplerate=44100)
    assert separator.info.stems == ("vocals", "drums", "accompaniment")
    signal = noise(4096)
    stems = run(separator, signal)
    for stem, part in zip(stems, (0.5, 0.25, 0.25), strict=True):
        np.testing.assert_allclose(stem[128:], part * signal[:-128], atol=3e-6)


def delayed_samples(path: Path, delay: int = 37, hop: int = 64) -> Path:
    """A stem that is 0.8 of the mix `delay` samples ago, which the state holds."""
    nodes = [
        node("Concat", ["past", "x"], ["long"], axis=2),
        node("Slice", ["long", "first", "end", "axis"], ["then"]),
        node("Mul", ["then", "gain"], ["y"]),
        node("Slice", ["long", "start", "infinite", "axis"], ["past_next"]),
    ]
    return write(
        path,
        nodes,
        [("x", [1, 2, hop]), ("past", [1, 2, delay])],
        [("y", [1, 2, hop]), ("past_next", [1, 2, delay])],
        {
            "first": np.array([0]),
            "end": np.array([hop]),
            "axis": np.array([2]),
            "start": np.array([-delay]),
            "infinite": np.array([2**31]),
            "gain": np.array(0.8, np.float32),
        },
    )


SAMPLES = (
    TOP
    + """
hop = 64
delay = 37
[input]
name = "x"
holds = "samples"
axes = ["batch", "channel", "sample"]
[output]
name = "y"
holds = "samples"
axes = ["batch", "channel", "sample"]
[states]
past = "past_next"
"""
)


@pytest.mark.parametrize("channels", [1, 2])
def test_samples_arrive_at_the_announced_sample(tmp_path: Path, channels: int) -> None:
    bring(delayed_samples(tmp_path / "net.onnx"), SAMPLES)
    separator = load_separator("mine", samplerate=44100, channels=channels)
    assert (separator.info.hop, separator.info.latency) == (64, 37)
    signal = noise(64 * 30, channels)
    stems = run(separator, signal)
    np.testing.assert_allclose(stems[0][37:], 0.8 * signal[:-37], atol=1e-6)
    np.testing.assert_allclose(stems[1][37:], 0.2 * signal[:-37], atol=1e-6)
    separator.reset()
    np.testing.assert_array_equal(run(separator, signal), stems)


def test_older_operator_sets_are_converted(tmp_path: Path) -> None:
    nodes = [node("Unsqueeze", ["x"], ["y"], axes=[1])]  # the way of set 11
    path = write(
        tmp_path / "net.onnx", nodes, [("x", [1, 2, 64])], [("y", [1, 1, 2, 64])], opset=11
    )
    text = SAMPLES.replace(
        'axes = ["batch", "channel", "sample"]\n[states]\npast = "past_next"', ""
    )
    text = text.replace("delay = 37", "") + 'axes = ["batch", "stem", "channel", "sample"]\n'
    bring(path, text)
    signal = noise(640)
    np.testing.assert_array_equal(run(load_separator("mine"), signal)[0], signal)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("channel*bin", "chanel*bin"), "unknown axis of [input] 'chanel': did you mean 'channel'"),
        (('"batch", "channel*bin"', '"batch", "bin"'), "axes of [input] lack 'channel', of which"),
        (('"batch", "channel*bin"', '"channel*bin"'), "names 1 axes, but 'mag' has 2"),
        (("bins = 200\n[output]", "bins = 201\n[output]"), "has 400 in the network, and 402 by"),
        (('name = "mag"', 'name = "mga"'), "did you mean 'mag'"),
        (('h = "h_next"', 'h = "next"'), "unknown state among the network's outputs 'next'"),
        (('h = "h_next"', ""), "nothing is said of the network's input h"),
        (('holds = "mask"', 'holds = "samples"'), "unknown axis of [output] 'bin'"),
        (("hop = 128", "hop = 129.5"), "hop is a whole number"),
        (("hop = 128", "hop = 1024"), "hop 1024 is not between 1 and n_fft"),
        (("licence", "license"), "unknown entry 'license': did you mean 'licence'"),
        (('stems = ["vocals"]', 'stems = "vocals"'), "stems is a list"),
        (("n_fft = 512\n", ""), "lacks n_fft"),
        (("n_fft = 512", "n_fft = "), "Invalid value"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in SMOOTHER
    with pytest.raises(UsageError) as caught:
        bring(smoother(tmp_path / "net.onnx"), SMOOTHER.replace(*change))
    assert message in str(caught.value).replace("; did", ": did")
    assert "\n" not in str(caught.value)
    assert not registry.entries().keys() & {"mine"}


def test_the_template_fits_the_network(tmp_path: Path) -> None:
    path, file = smoother(tmp_path / "My Net!.onnx"), tmp_path / "model.toml"
    with pytest.raises(UsageError, match="fill it in, and give the same command again"):
        import_model(Request(str(path), describe=file))
    text = file.read_text()
    for part in ('name = "my-net"', 'name = "mag"', 'name = "mask"', '"h" = "h_next"'):
        assert part in text
    # Filled in as its comments say, it imports.
    text = text.replace("n_fft = 2048", "n_fft = 512").replace("synthesis = 512", "synthesis = 256")
    text = text.replace("hop = 256 ", "hop = 128").replace("hop = 256\nlook", "hop = 128\nlook")
    text = text.replace('["?", "?"]', '["batch", "channel*bin"]\nbins = 200')
    text = text.replace('["?", "?", "?"]', '["time", "bin", "batch"]\nbins = 200')
    file.write_text(text)
    assert import_model(Request(str(path), describe=file)).name == "my-net"


def test_a_trial_of_a_good_network(tmp_path: Path) -> None:
    done = trial(bring(delayed_samples(tmp_path / "net.onnx"), SAMPLES), 8)
    assert (done.latency, done.bad_hops, done.offset) == (37, 0, 0)
    assert done.drift < 0.1
    assert done.silence <= -120
    assert done.sum_error < -119
    assert 0 < done.rtf < 5
    assert not [r for r in done.remarks if "too slow" not in r]


def test_a_trial_finds_what_is_wrong(tmp_path: Path) -> None:
    late = trial(bring(delayed_samples(tmp_path / "net.onnx"), SAMPLES.replace("= 37", "= 7")), 4)
    assert late.offset == 30
    assert any("30 samples more than described" in r for r in late.remarks)

    # Divided by its own level: not a number in silence.  And a state that only grows.
    nodes = [
        node("ReduceSumSquare", ["x"], ["power"], keepdims=1),
        node("Sqrt", ["power"], ["level"]),
        node("Div", ["x", "level"], ["unit"]),
        node("Add", ["n", "level"], ["n_next"]),
        node("Mul", ["unit", "n_next"], ["y"]),
    ]
    path = write(
        tmp_path / "bad.onnx",
        nodes,
        [("x", [1, 2, 64]), ("n", [1, 1, 1])],
        [("y", [1, 2, 64]), ("n_next", [1, 1, 1])],
    )
    text = SAMPLES.replace('past = "past_next"', 'n = "n_next"').replace("delay = 37", "delay = 0")
    bad = trial(bring(path, text), 4)
    assert bad.bad_hops > 100
    assert any("not finite" in r for r in bad.remarks)


def test_the_command(tmp_path: Path) -> None:
    path = delayed_samples(tmp_path / "net.onnx")
    (tmp_path / "net.toml").write_text(SAMPLES)
    arguments = ["import", "onnx", str(path), "--describe", str(tmp_path / "net.toml")]

    def cli(*arguments: str) -> Any:
        return CliRunner().invoke(app, arguments)

    result = cli(*arguments)
    assert "mine is installed" in result.output
    assert "latency  37 samples, 0.8 ms" in result.output
    assert "alignment  +0 samples" in result.output
    shown = cli("show", "mine").output
    assert "rtf" in shown
    assert "model 37 frames (0.8 ms)" in shown
    result = cli("import", "onnx", str(path))
    assert (result.exit_code, len(result.output.strip().splitlines())) == (2, 1)
    assert "--describe net.toml" in result.output
    result = cli("import", "onnx", str(tmp_path / "none.onnx"), "--describe", "x.toml")
    assert (result.exit_code, len(result.output.strip().splitlines())) == (1, 1)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="not an ONNX file"):
        bring(tmp_path / "net.onnx", SAMPLES)
