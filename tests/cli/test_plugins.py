"""`realtime-sep plugins`: what there is, where it came from, what it takes; and what is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from .conftest import Cli

OWN = f"realtime-sep {version('realtime-sep')}"

SOURCE = """
from realtime_sep.effects import BaseEffect, Parameter
from realtime_sep.effects.hosts import HostedInfo
from realtime_sep.errors import unknown
from realtime_sep.separators.identity import Identity

class Theirs(BaseEffect):
    '''Somebody's effect.

    More of it.
    '''
    parameters = (
        Parameter("mode", 1, 0, 2, step=1, choices=(("soft", 0.0), ("hard", 2.0)), label="Mode"),
        Parameter("f", 100.0, 20.0, 2000.0, "Hz", log=True),
        Parameter("on", 1, 0, 1, kind="switch"),
    )
    latency = 441
    def run(self, block): ...

class Future(Theirs):
    api_version = 2

class Twin(Identity):
    '''Both.'''
    def __init__(self, *, samplerate, channels, depth=3, **more):
        super().__init__(samplerate=samplerate, channels=channels)

class Host:
    scheme = "fake"
    def available(self):
        return [HostedInfo("amp [1]", "An amplifier", "/usr/lib/fake/amp.so", 2,
                           Theirs.parameters, None, ("quiet", "loud"))]
    def load(self, name, *, isolate=True, preset=None):
        if name != "amp [1]":
            raise unknown("fake plugin", name, ["amp [1]"])
        return Theirs()

class Sick(Host):
    def available(self):
        raise OSError("no\\nlibrary")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A distribution as pip would leave it, of these entry points: (group, name, target)."""
    monkeypatch.syspath_prepend(str(tmp_path))
    module = f"plugins_of_{abs(hash(tmp_path))}"
    (tmp_path / f"{module}.py").write_text(SOURCE)

    def install(*points: tuple[str, str, str]) -> None:
        info = tmp_path / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.5\n")
        lines = [
            f"[realtime_sep.{group}]\n{name} = {module}:{target}" for group, name, target in points
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))

    return install


def listed(cli: Cli, *arguments: str) -> dict[str, dict[str, Any]]:
    done = cli("plugins", "list", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return {one["name"]: one for one in json.loads(done.stdout)}


def test_everything_is_listed_with_where_it_came_from(cli: Cli) -> None:
    found = {**listed(cli, "--kind", "separator"), **listed(cli, "--kind", "effect")}
    assert found["center"]["kind"] == "separator"
    assert found["reverb"] == {
        "name": "reverb",
        "kind": "effect",
        "origin": OWN,
        "summary": found["reverb"]["summary"],
        "problem": "",
    }
    assert found["reverb"]["summary"].startswith("A room")
    assert not [one for one in found.values() if one["origin"] == OWN and one["problem"]]
    text = cli("plugins", "list", "--kind", "effect").stdout
    assert "reverb" in text
    assert "center" not in text


def test_what_is_broken_is_told_and_hides_nobody(cli: Cli, install: Callable[..., None]) -> None:
    install(
        ("effects", "theirs", "Theirs"),
        ("effects", "future", "Future"),
        ("effects", "gone", "NoSuchClass"),
        ("hosts", "fake", "Host"),
        ("hosts", "sick", "Sick"),
    )
    found = listed(cli)
    assert found["theirs"]["origin"] == "theirs 1.5"
    assert found["theirs"]["summary"] == "Somebody's effect."
    assert "version 2 of the plugin interface, this is version 1" in found["future"]["problem"]
    assert "NoSuchClass" in found["gone"]["problem"]
    assert found["sick:"]["problem"] == "OSError: no library"
    assert found["fake:amp [1]"]["kind"] == "hosted"
    assert found["fake:amp [1]"]["origin"] == "/usr/lib/fake/amp.so"
    assert "reverb" in found
    text = cli("plugins", "list", "--kind", "effect").stdout
    assert "cannot be used: plugin 'gone'" in text


def test_an_effect_shows_latency_and_parameters(cli: Cli, install: Callable[..., None]) -> None:
    install(("effects", "theirs", "Theirs"))
    told = json.loads(cli("plugins", "show", "theirs", "--json").stdout)
    assert (told["latency"], told["latency_ms"], told["samplerate"]) == (441, 10.0, 44100)
    assert told["origin"] == "theirs 1.5"
    assert Path(told["file"]).is_file()
    by_name = {p["name"]: p for p in told["parameters"]}
    assert (by_name["f"]["minimum"], by_name["f"]["maximum"]) == (20, 2000)
    assert (by_name["f"]["default"], by_name["f"]["unit"]) == (100, "Hz")
    text = cli("plugins", "show", "theirs").stdout
    for line in (
        "441 frames (10 ms at 44100 Hz)",
        "mode: 0 to 2, 1 by default (soft = 0, hard = 2, whole) · Mode",
        "f: 20 to 2000 Hz, 100 by default (logarithmic)",
        "on: on or off, on by default",
    ):
        assert line in text


def test_a_separator_shows_stems_latency_and_options(cli: Cli) -> None:
    told = json.loads(cli("plugins", "show", "center:profile=stage", "--json").stdout)
    assert told["stems"] == ["vocals", "accompaniment"]
    assert (told["hop"], told["latency"]) == (128, 128)
    assert told["options"]["profile"] == "stage"
    text = cli("plugins", "show", "center").stdout
    assert "256 frames (5.8 ms at 44100 Hz)" in text
    assert "profile=live" in text
    assert OWN in text


def test_a_hosted_effect_is_shown_by_its_host(cli: Cli, install: Callable[..., None]) -> None:
    install(("hosts", "fake", "Host"))
    told = json.loads(cli("plugins", "show", "fake:amp [1]", "--json").stdout)
    assert (told["name"], told["kind"]) == ("fake:amp [1]", "hosted")
    assert (told["origin"], told["summary"]) == ("/usr/lib/fake/amp.so", "An amplifier")
    assert told["presets"] == ["quiet", "loud"]
    done = cli("plugins", "show", "fake:amq [1]")
    assert done.returncode == 2
    assert "did you mean 'amp [1]'?" in done.stderr


def test_one_name_of_two_kinds(cli: Cli, install: Callable[..., None]) -> None:
    install(("effects", "twin", "Theirs"), ("separators", "twin", "Twin"))
    done = cli("plugins", "show", "twin")
    assert done.returncode == 2
    assert "'twin' names several (separator, effect); choose by --kind" in done.stderr
    told = json.loads(cli("plugins", "show", "twin", "--kind", "separator", "--json").stdout)
    assert told["options"] == {"depth": 3}
    told = json.loads(cli("plugins", "show", "twin", "--kind", "effect", "--json").stdout)
    assert told["latency"] == 441


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["revreb"], "did you mean 'reverb'?"),
        (["centre"], "did you mean 'center'?"),
        (["reverb", "--kind", "separator"], "unknown separator 'reverb'"),
        (["ladpsa:amp"], "did you mean 'ladspa'?"),
        (["center:profil=live"], "did you mean 'profile'?"),
        (["gain:db=70"], "db goes from -60 to +24 dB"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, arguments: list[str], words: str) -> None:
    done = cli("plugins", "show", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_plugin_for_another_version_is_refused(cli: Cli, install: Callable[..., None]) -> None:
    install(("effects", "future", "Future"), ("hosts", "later", "Future"))
    for name in ("future", "later:amp"):
        done = cli("plugins", "show", name)
        assert done.returncode == 2
        assert "version 2 of the plugin interface, this is version 1" in done.stderr
        assert len(done.stderr.splitlines()) == 1
