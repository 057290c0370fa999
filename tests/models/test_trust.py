"""Foreign files: every one is refused, with one line that says why."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from separators_onnx import tiny

from realtime_sep.errors import ModelError
from realtime_sep.models import registry, trust
from realtime_sep.models.metadata import ModelMetadata, StateSpec


def refused(model: onnx.ModelProto, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        ModelMetadata.from_props(trust.inspect(model.SerializeToString(), "model.onnx"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_good_file() -> None:
    data = tiny.counting().SerializeToString()
    metadata = ModelMetadata.from_props(trust.inspect(data, "x"))
    assert metadata.states == (StateSpec("count", (1,)),)


def test_a_file_is_inspected_elsewhere_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is foreseen of these bytes holds for them alone; what is refused is refused again."""
    monkeypatch.setattr(trust, "_foreseen", {})
    good, other = (tiny.gain(volume).SerializeToString() for volume in (1.0, 2.0))
    bad = tmp_path / "bad.onnx"
    for path, data in ((tmp_path / "good.onnx", good), (bad, good[: len(good) // 2])):
        path.write_bytes(data)
        trust.foresee(path)
    with pytest.raises(ModelError, match="not an ONNX file"):
        trust.inspect(bad.read_bytes(), "bad.onnx")
    known = trust.inspect(other, "x")

    def parsed(*_: Any) -> None:
        raise AssertionError("it is inspected here, too")

    monkeypatch.setattr(onnx.checker, "check_model", parsed)
    assert trust.inspect(good, "x") == known
    with pytest.raises(ModelError, match="inspected here"):
        trust.inspect(other, "x")


@pytest.mark.parametrize(
    "data", [b"", b"RIFF\x00\x00\x00\x00WAVE", b"<html></html>", bytes(range(256)), b"\x00" * 999]
)
def test_something_else(data: bytes) -> None:
    with pytest.raises(ModelError, match="not an ONNX file"):
        trust.inspect(data, "x.onnx")


def test_truncated_anywhere() -> None:
    data = tiny.gain(1.0).SerializeToString()
    whole = ModelMetadata.from_props(trust.inspect(data, "x"))
    for size in range(len(data)):
        try:
            metadata = ModelMetadata.from_props(trust.inspect(data[:size], "x.onnx"))
        except ModelError:
            continue
        assert metadata == whole  # cut between two records that do not matter


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_anywhere_is_an_error_of_ours_or_harmless(draw: Any) -> None:
    data = bytearray(tiny.counting().SerializeToString())
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(ModelError):
        ModelMetadata.from_props(trust.inspect(bytes(data), "x.onnx"))


def test_external_data() -> None:
    model = tiny.gain(1.0)
    _make_external(model.graph.initializer[0])
    refused(model, "external data")


def test_external_data_in_hiding() -> None:
    value = numpy_helper.from_array(np.ones(3, np.float32), "w")
    _make_external(value)
    constant = helper.make_node("Constant", [], ["w"], value=value)
    model = tiny.gain(1.0)
    model.graph.node.append(constant)
    refused(model, "external data")

    inner = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "inner",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
        [value],
    )
    innermost = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
        "middle",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
    )
    model = tiny.gain(1.0)
    model.graph.node.append(
        helper.make_node("If", ["c"], ["z"], then_branch=innermost, else_branch=innermost)
    )
    refused(model, "external data")

    model = tiny.gain(1.0)
    indices = numpy_helper.from_array(np.array([0, 1, 2], np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(value, indices, [9]))
    refused(model, "external data")


def _make_external(tensor: Any) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    record = tensor.external_data.add()
    record.key, record.value = "location", "../../etc/passwd"


def test_custom_operators() -> None:
    model = tiny.gain(1.0)
    model.graph.node.append(helper.make_node("Evil", ["spec"], ["z"], domain="com.evil"))
    refused(model, r"custom operators \(com.evil\)")
    model = tiny.gain(1.0)
    model.opset_import.append(helper.make_opsetid("com.evil", 1))
    refused(model, "custom operators")


def test_operators_of_its_own() -> None:
    for domain in ("com.evil", "", "com.microsoft"):
        model = tiny.gain(1.0)
        body = [helper.make_node("Identity", ["x"], ["y"])]
        opset = [helper.make_opsetid("", 17)]
        model.functions.append(helper.make_function(domain, "Mul", ["x"], ["y"], body, opset))
        refused(model, "local functions")


def test_an_invalid_graph() -> None:
    model = tiny.gain(1.0)
    model.graph.node[0].input[0] = "nothing"
    refused(model, "not a valid ONNX model")


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        os.truncate(file.fileno(), trust.MAX_BYTES + 1)  # sparse: takes no room on the disk
    with pytest.raises(ModelError, match="larger than 512 MiB"):
        trust.read(path)


def test_a_device_or_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a file"):
        trust.read(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        outcome: list[object] = []

        def attempt() -> None:
            with pytest.raises(ModelError, match="is not a file"):
                trust.read(tmp_path / "fifo")
            outcome.append("refused")

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(5)
        assert outcome == ["refused"]


@pytest.mark.parametrize(
    ("props", "match"),
    [
        ({"format": "2"}, "has format '2', this program reads '1'"),
        ({"format": None}, "carries no realtime_sep metadata"),
        ({"hop": None, "licence": None}, "lacks hop, licence"),
        ({"hop": "many"}, "'hop' is 'many', which makes no sense"),
        ({"scores": "{"}, "'scores' is '{'"),
        ({"scores": "[1]"}, "'scores'"),
        ({"states": '[{"name": "h"}]'}, "'states'"),
        ({"states": "[" * 5000}, "'states'"),
        ({"kind": "magic"}, "kind is 'magic'"),
        ({"hop": "0"}, "hop 0"),
        ({"hop": "9999"}, "hop 9999"),
        ({"n_fft": "1000000"}, "n_fft 1000000"),
        ({"synthesis": "64"}, "synthesis 64"),
        ({"lookahead": "-1"}, "lookahead -1"),
        ({"channels": "7"}, "channels is 7"),
        ({"stems": ""}, "need names"),
        ({"residual": "vocals"}, "not distinct"),
        ({"sample_rates": "1"}, "no audio rates"),
        ({"name": "../../evil"}, "not made of letters"),
        ({"name": ""}, "not made of letters"),
    ],
)
def test_metadata_that_is_foreign_or_contradictory(
    props: dict[str, str | None], match: str
) -> None:
    good = tiny.gain(1.0)
    own = {p.key.removeprefix("realtime_sep."): p.value for p in good.metadata_props}
    merged = {k: v for k, v in {**own, **props}.items() if v is not None}
    del good.metadata_props[:]
    helper.set_model_props(good, {f"realtime_sep.{k}": v for k, v in merged.items()})
    refused(good, match)


def test_metadata_goes_there_and_back() -> None:
    full = replace(tiny.SPECTRAL, states=(StateSpec("h", (2, 3)),), scores={"median": {"sdr": 5.0}})
    for metadata in (full, tiny.WINDOW):
        assert ModelMetadata.from_props(metadata.to_props()) == metadata
        assert ModelMetadata.from_json(metadata.to_json()) == metadata


def test_what_an_exporter_writes_by_hand() -> None:
    """The contract with the training code: these properties and no others are needed."""
    props = {
        "format": "1",
        "name": "unet-live",
        "family": "unet",
        "sample_rates": "44100,48000",
        "n_fft": "2048",
        "synthesis": "512",
        "hop": "256",
        "lookahead": "0",
        "channels": "2",
        "stems": "vocals",
        "residual": "accompaniment",
        "licence": "CC-BY-SA-4.0",
        "training_data": "this, that",
        "scores": "{}",
        "states": '[{"name": "gru", "shape": [1, 2, 64]}]',
    }
    metadata = ModelMetadata.from_props({f"realtime_sep.{k}": v for k, v in props.items()})
    assert metadata.kind == "spectral"
    assert metadata.states[0].shape == (1, 2, 64)


def test_a_swapped_file(tmp_path: Path) -> None:
    """Two good models exchanged behind the manifest's back."""
    first = registry.install(tiny.gain(1.0).SerializeToString(), origin="test")
    other = replace(tiny.SPECTRAL, name="other")
    second = registry.install(tiny.gain(0.5, other).SerializeToString(), origin="test")
    a, b = first.path.read_bytes(), second.path.read_bytes()
    first.path.write_bytes(b)
    second.path.write_bytes(a)
    for entry in (first, second):
        with pytest.raises(ModelError, match="damaged or was replaced"):
            registry.read(entry)
