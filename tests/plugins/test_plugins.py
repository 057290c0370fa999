"""Plugins by name; whatever is wrong with one is said in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from realtime_sep.effects import Effect
from realtime_sep.effects.gain import Gain
from realtime_sep.effects.syntax import parse_slot
from realtime_sep.errors import RealtimeSepError, UsageError
from realtime_sep.parameters import meant
from realtime_sep.plugins import (
    EFFECTS,
    SEPARATORS,
    available_effects,
    available_hosts,
    available_separators,
    load_chain,
    load_effect,
    load_host,
    load_separator,
    load_slot,
    with_options,
)
from realtime_sep.separators import Separator

Install = Callable[..., None]

GOOD = """
from realtime_sep.separators.identity import Identity
from realtime_sep.effects.gain import Gain

class Old(Identity):
    api_version = 0

class Newer(Gain):
    api_version = 2

class Right(Identity):
    api_version = 1

def anything(**options):
    Right.options = options
    return Right(samplerate=options["samplerate"], channels=options["channels"])

def stubborn(*, samplerate, channels):
    return Right(samplerate=44100, channels=2)

class Half:
    info = None
    def __init__(self, **options): ...
    def process(self, hop, stems): ...

class Lying(Half):
    def reset(self): ...

def broken(*, samplerate, channels):
    raise RuntimeError("first line\\n  second line")

def needs_more(*, samplerate, channels, model): ...

class Touchy(Gain):
    def set(self, name, value):
        raise KeyError(name)

number = 3
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution as pip would leave it: a module, and entry points for it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    count = 0

    def install(group: str, name: str, target: str, source: str = GOOD) -> None:
        nonlocal count
        count += 1
        # Modules are remembered by name for as long as the tests run.
        module = f"plugin_{abs(hash(tmp_path))}_{count}"
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        value = target if ":" in target else f"{module}:{target}"
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")

    return install


def refusal(call: Callable[[], object]) -> str:
    """The one line that a person gets to see."""
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert isinstance(caught.value, RealtimeSepError)
    assert "\n" not in message
    assert message
    return message


# ---- what ships ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["identity", "center", "center-plain"])
@pytest.mark.parametrize("channels", [1, 2])
def test_own_separators_load_by_name(name: str, channels: int) -> None:
    assert name in available_separators()
    separator = load_separator(name, samplerate=48000, channels=channels)
    assert isinstance(separator, Separator)
    assert separator.info.name == name
    assert (separator.info.samplerate, separator.info.channels) == (48000, channels)


def test_own_effects_load_by_name_and_take_parameters() -> None:
    assert "gain" in available_effects()
    effect = load_effect("gain", db=-20.0)
    assert isinstance(effect, Effect)
    effect.prepare(48000, 2, 64)
    block = np.ones((64, 2), np.float32)
    effect.process(block)
    np.testing.assert_allclose(block, 0.1, rtol=1e-6)


def test_names_are_sorted_and_there_is_one_of_each() -> None:
    for names in (available_separators(), available_effects()):
        assert names == sorted(set(names))


def test_options_reach_the_separator() -> None:
    assert load_separator("center", profile="stage").info.hop == 128
    assert load_separator("identity", hop=7).info.hop == 7


def test_gain_keeps_to_its_block_and_moves_smoothly() -> None:
    effect = load_effect("gain")
    effect.prepare(48000, 1, 256)
    block = np.ones((100, 1), np.float32)
    effect.process(block)
    assert np.all(block == 1)
    effect.set("db", -60)
    heard = [block]
    for _ in range(12):
        heard.append(np.ones((100, 1), np.float32))
        effect.process(heard[-1])
    curve = np.concatenate(heard)
    assert np.abs(np.diff(curve, axis=0)).max() < 1 / 900
    assert curve[-1] == pytest.approx(0.001)


# ---- names and options that are wrong ------------------------------------------------------------


def test_a_misspelt_name_gets_the_nearest() -> None:
    assert "did you mean 'center-plain'?" in refusal(lambda: load_separator("center-plian"))
    assert "did you mean 'gain'?" in refusal(lambda: load_effect("gian"))


def test_a_name_far_from_all_gets_the_list() -> None:
    message = refusal(lambda: load_separator("qqqq"))
    assert "identity" in message
    assert "center" in message
    assert "gain" in refusal(lambda: load_effect("zzzz"))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("center", {"profil": "live"}, "did you mean 'profile'?"),
        ("center", {"profile": "sudio"}, "did you mean 'studio'?"),
        ("center", {"xyzzy": 1}, "known: geometry, profile"),
        ("center", {"channels": 6}, "not 6"),
        ("identity", {"hop": 0}, "at least 1"),
        ("identity", {"hop": "many"}, "'identity' cannot be made"),
    ],
)
def test_a_wrong_option_is_named(name: str, options: dict[str, object], expected: str) -> None:
    assert expected in refusal(lambda: load_separator(name, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"bd": 3}, "did you mean 'db'?"),
        ({"db": 25}, "from -60 to +24 dB"),
        ({"db": float("nan")}, "from -60 to +24 dB"),
        ({"db": "loud"}, "db is a number, not 'loud'"),
    ],
)
def test_a_wrong_parameter_is_named(parameters: dict[str, float], expected: str) -> None:
    assert expected in refusal(lambda: load_effect("gain", **parameters))


def test_an_effect_knows_its_parameters_itself() -> None:
    effect = load_effect("gain")
    assert "did you mean 'db'?" in refusal(lambda: effect.set("dbs", 1))


# ---- other people's plugins ----------------------------------------------------------------------


def test_a_plugin_is_found_as_soon_as_it_is_installed(install: Install) -> None:
    install(SEPARATORS, "theirs", "Right")
    assert "theirs" in available_separators()
    assert load_separator("theirs", samplerate=8000).info.samplerate == 8000
    assert "did you mean 'theirs'?" in refusal(lambda: load_separator("their"))


def test_a_factory_may_take_any_option(install: Install) -> None:
    install(SEPARATORS, "any", "anything")
    separator = load_separator("any", samplerate=8000, channels=1, whatever=3)
    assert separator.options == {"samplerate": 8000, "channels": 1, "whatever": 3}  # type: ignore[attr-defined]


def test_another_version_of_the_interface_is_refused(install: Install) -> None:
    install(SEPARATORS, "old", "Old")
    install(EFFECTS, "newer", "Newer")
    message = refusal(lambda: load_separator("old"))
    assert "'old'" in message
    assert "version 0" in message
    assert "this is version 1" in message
    assert "version 2" in refusal(lambda: load_effect("newer"))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("import no_such_module_at_all", "X", "no_such_module_at_all"),
        ("def broken(:", "X", "SyntaxError"),
        ("raise OSError('one\\n\\n   two')", "X", "OSError: one two"),
        ("raise RuntimeError", "X", "RuntimeError"),
        ("", "Missing", "Missing"),
        ("", "no_such_module_at_all:X", "no_such_module_at_all"),
    ],
)
@pytest.mark.parametrize("group", [SEPARATORS, EFFECTS])
def test_a_plugin_that_cannot_be_imported(
    install: Install, group: str, source: str, target: str, expected: str
) -> None:
    install(group, "sick", target, source)
    load = load_separator if group == SEPARATORS else load_effect
    message = refusal(lambda: load("sick"))
    assert "plugin 'sick'" in message
    assert "cannot be loaded" in message
    assert expected in message


def test_a_sick_plugin_does_not_hide_the_healthy(install: Install) -> None:
    install(SEPARATORS, "sick", "X", "import no_such_module_at_all")
    assert {"sick", "center"} <= set(available_separators())
    load_separator("center")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("Half", "lacks part of the protocol"),
        ("Lying", "lacks part of the protocol"),
        ("number", "3"),
        ("builtins:dict", "makes no separator"),
        ("broken", "RuntimeError: first line second line"),
        ("needs_more", "model"),
        ("stubborn", "runs at 44100 Hz with 2 channels, not at 22050 Hz with 2"),
    ],
)
def test_what_is_no_separator_is_refused(install: Install, target: str, expected: str) -> None:
    install(SEPARATORS, "odd", target)
    assert expected in refusal(lambda: load_separator("odd", samplerate=22050))


@pytest.mark.parametrize(
    ("target", "expected"),
    [("number", "3"), ("builtins:dict", "makes no effect"), ("Half", "makes no effect")],
)
def test_what_is_no_effect_is_refused(install: Install, target: str, expected: str) -> None:
    install(EFFECTS, "odd", target)
    assert expected in refusal(lambda: load_effect("odd"))


def test_an_effect_that_chokes_on_a_value(install: Install) -> None:
    install(EFFECTS, "touchy", "Touchy")
    assert "'touchy' does not take db=1" in refusal(lambda: load_effect("touchy", db=1))


def test_options_may_follow_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_options("center") == ("center", {})
    assert with_options("a:profile=fast,step=4,gain=0.5,on=true") == (
        "a",
        {"profile": "fast", "step": 4, "gain": 0.5, "on": True},
    )
    assert load_separator("center:profile=stage").info.hop == 128
    assert load_separator("center:profile=stage", profile="live").info.hop == 256
    with pytest.raises(UsageError, match="'fast' is not one"):
        load_separator("center:fast")
    monkeypatch.chdir(tmp_path)
    Path("a:b=c.onnx").touch()
    assert with_options("a:b=c.onnx") == ("a:b=c.onnx", {})


# ---- hosts of foreign plugins --------------------------------------------------------------------

HOST = """
from realtime_sep.effects.gain import Gain
from realtime_sep.errors import unknown

class Host:
    scheme = "fake"
    def available(self):
        return []
    def load(self, name, *, isolate=True, preset=None):
        if name not in ("amp", "http://x.org/amp"):
            raise unknown("plugin of fake", name, ["amp"])
        effect = Gain()
        effect.loaded = name, isolate, preset
        return effect

host = Host()
nothing = object()
"""


@pytest.fixture
def fake(install: Install) -> None:
    install("realtime_sep.hosts", "fake", "host", HOST)
    install("realtime_sep.hosts", "fakes", "Host", HOST)
    install("realtime_sep.hosts", "broken", "nothing", HOST)


@pytest.mark.usefixtures("fake")
def test_a_scheme_finds_its_host_and_hands_options_over() -> None:
    assert {"fake", "fakes"} <= set(available_hosts())
    assert load_host("fake").scheme == load_host("fakes").scheme == "fake"
    first = load_effect("fake:amp:db=-6,isolate=off,preset=Large Hall")
    assert isinstance(first, Gain)
    assert first.loaded == ("amp", False, "Large Hall")  # type: ignore[attr-defined]
    assert load_effect("fake:http://x.org/amp", db=3).loaded[1:] == (True, None)  # type: ignore[attr-defined]
    chain = load_chain("gain|fake:amp:db=-6|!fake:http://x.org/amp")
    assert [slot.name for slot in chain.slots] == ["gain", "amp", "amp2"]
    assert chain.slots[1].info.values == {"db": -6}


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fake:amb", "unknown plugin of fake 'amb'; did you mean 'amp'"),
        ("fake:amp:dd=1", "did you mean 'db'"),
        ("fkae:amp", "unknown host of plugins 'fkae'; did you mean 'fake'"),
        ("broken:amp", "is no host"),
    ],
)
def test_what_is_wrong_with_a_host_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_chain(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("attack_time", "attack_time"),
        ("mix", "mix"),  # and not the other one
        ("attack", "attack_time"),
        ("at", "attack_time"),
        ("threshold", "threshold_level"),
        ("lev", "threshold_level"),
        ("decay", "reverb_time"),
        ("frequency", "cutoff"),
    ],
)
def test_part_of_a_parameters_name_is_enough(asked: str, name: str) -> None:
    assert meant("parameter", asked, KNOWN) == name


KNOWN = ("attack_time", "reverb_time", "threshold_level", "mix", "mix_bass", "cutoff")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("time", "parameter 'time' may be any of attack_time, reverb_time"),
        ("cuttof", "did you mean 'cutoff'"),
        ("ttack", "did you mean 'attack_time'"),
    ],
)
def test_but_only_where_it_is_no_other_ones(asked: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        meant("parameter", asked, KNOWN)


def test_a_slot_knows_its_parameters_by_their_whole_names() -> None:
    slot = load_slot(parse_slot("compressor:thresh=-30"))
    assert slot.info.values == {"threshold": -30}
    assert slot.info.effect == "compressor:threshold=-30"
    with pytest.raises(UsageError, match="told threshold twice"):
        load_effect("compressor:threshold=-30,thresh=-20")
