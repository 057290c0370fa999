"""LV2: the amplifier of LV2's own examples, presets, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from realtime_sep.effects import lv2
from realtime_sep.effects.hosts import Host
from realtime_sep.effects.isolated import Helper
from realtime_sep.errors import UsageError
from tests.hosting.conftest import BLOCK, RATE, noise, run

AMP = "http://lv2plug.in/plugins/eg-amp"
BUNDLES = Path("/usr/lib/lv2")

pytestmark = pytest.mark.skipif(
    lv2._library() is None or not (BUNDLES / "eg-amp.lv2").exists(),
    reason="liblilv-0-0 or lv2-examples is not installed",
)

PREFIXES = """
@prefix lv2: <http://lv2plug.in/ns/lv2core#> .
@prefix pset: <http://lv2plug.in/ns/ext/presets#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
"""


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples; a preset for one of them; and a plugin that wants too much."""
    extra = tmp_path / "extra.lv2"
    extra.mkdir()
    (extra / "manifest.ttl").write_text(
        PREFIXES + f"<{AMP}#soft> a pset:Preset ; lv2:appliesTo <{AMP}> ;"
        "  rdfs:seeAlso <preset.ttl> .\n"
        "<urn:test:greedy> a lv2:Plugin ; lv2:binary <none.so> ; rdfs:seeAlso <greedy.ttl> .\n"
    )
    (extra / "preset.ttl").write_text(
        PREFIXES + f'<{AMP}#soft> a pset:Preset ; lv2:appliesTo <{AMP}> ; rdfs:label "Soft" ;'
        '  lv2:port [ lv2:symbol "gain" ; pset:value -12.0 ] .\n'
    )
    port = '[ a lv2:AudioPort, lv2:{kind} ; lv2:index {i} ; lv2:symbol "{s}" ; lv2:name "{s}" ]'
    ports = [port.format(kind="InputPort", i=0, s="in"), port.format(kind="OutputPort", i=1, s="o")]
    (extra / "greedy.ttl").write_text(
        PREFIXES + "@prefix doap: <http://usefulinc.com/ns/doap#> .\n"
        '<urn:test:greedy> a lv2:Plugin ; doap:name "Greedy" ;'
        "  lv2:requiredFeature <http://lv2plug.in/ns/ext/worker#schedule> ;"
        f"  lv2:port {', '.join(ports)} .\n"
    )
    monkeypatch.setenv("LV2_PATH", f"{BUNDLES}:{tmp_path}")
    return tmp_path


def test_the_example_amplifies(bundles: Path) -> None:
    infos = {info.name: info for info in lv2.host.available()}
    assert "urn:test:greedy" not in infos
    amp = infos[AMP]
    (gain,) = amp.parameters
    assert (gain.name, gain.minimum, gain.maximum, gain.unit) == ("gain", -90, 24, "dB")
    assert ("-5", -5.0) in gain.choices
    assert (amp.channels, amp.latency, amp.presets) == (1, 0, ("Soft",))
    assert amp.origin == f"{BUNDLES}/eg-amp.lv2/"
    assert isinstance(lv2.host, Host)

    audio = noise(5000)
    for name, preset, db in ((AMP, None, -6.0), ("eg-amp", "Soft", -12.0)):
        effect = lv2.host.load(name, preset=preset)
        if preset is None:
            effect.set("gain", db)
        effect.prepare(RATE, 2, BLOCK)
        assert effect.latency == BLOCK
        out = run(effect, audio, (BLOCK, 1, 77))
        expected = audio * np.float32(10 ** (db / 20))
        np.testing.assert_allclose(out[BLOCK:], expected[:-BLOCK], rtol=1e-6)
        effect.close()  # type: ignore[attr-defined]


def test_what_cannot_be_is_said_in_one_line(bundles: Path) -> None:
    helper = Helper()
    for name, preset, words in [
        ("eg-amb", None, "unknown LV2 plugin 'eg-amb'; did you mean 'eg-amp'"),
        ("eg-metro", None, "has 0 audio inputs and 1 outputs"),
        ("urn:test:greedy", None, "needs http://lv2plug.in/ns/ext/worker#schedule: not supported"),
        (AMP, "Sotf", "unknown preset 'Sotf'; did you mean 'Soft'"),
    ]:
        with pytest.raises(UsageError, match=words) as error:
            helper.ask("make", "realtime_sep.effects.lv2:Lv2", name, preset)
        assert "\n" not in str(error.value)
    helper.close()


def test_events_are_silence(bundles: Path) -> None:
    """A plugin with a port for notes, of which none come: its gate stays closed."""
    effect = lv2.Lv2("eg-midigate")
    effect.prepare(RATE, 2, BLOCK)
    assert not run(effect, noise(1000)).any()
    effect.close()


PLUGIN = """
#include <lv2/core/lv2.h>
#include <stdlib.h>
#include <string.h>
typedef struct { float *p[4]; float line[64]; unsigned at; } S;
static LV2_Handle make(const LV2_Descriptor *d, double rate, const char *b,
                       const LV2_Feature *const *f) { return calloc(1, sizeof(S)); }
static void connect(LV2_Handle h, uint32_t i, void *data) { ((S *)h)->p[i] = data; }
static void activate(LV2_Handle h) { memset(((S *)h)->line, 0, sizeof ((S *)h)->line); }
static void run(LV2_Handle h, uint32_t n) {
    S *s = h;
    for (uint32_t i = 0; i < n; i++, s->at = (s->at + 1) % 64) {
        float x = s->p[0][i];
        s->p[1][i] = s->line[s->at];
        s->line[s->at] = x * *s->p[2];
    }
    *s->p[3] = 64;
}
static const LV2_Descriptor it = {"urn:test:delay", make, connect, activate, run, NULL, free, NULL};
const LV2_Descriptor *lv2_descriptor(uint32_t i) { return i == 0 ? &it : NULL; }
"""


def test_latency_and_whole_numbers(bundles: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    source = bundles / "delay.c"
    source.write_text(PLUGIN)
    words = ["cc", "-shared", "-fPIC", str(source), "-o", str(bundles / "extra.lv2/delay.so")]
    done = subprocess.run(words, capture_output=True, text=True)
    if "lv2.h" in done.stderr:
        pytest.skip("lv2.h is not installed (lv2-dev)")
    assert done.returncode == 0, done.stderr
    ports = [("Audio", "Input", "in", ""), ("Audio", "Output", "out", "")]
    ports += [("Control", "Input", "times", "; lv2:portProperty lv2:integer ; lv2:default 2 ;"
               " lv2:minimum 0 ; lv2:maximum 9")]  # fmt: skip
    ports += [("Control", "Output", "late", "; lv2:designation lv2:latency")]
    described = ", ".join(
        f'[ a lv2:{kind}Port, lv2:{way}Port ; lv2:index {i} ; lv2:symbol "{symbol}" ; '
        f'lv2:name "{symbol}" {more} ]'
        for i, (kind, way, symbol, more) in enumerate(ports)
    )
    manifest = bundles / "extra.lv2/manifest.ttl"
    manifest.write_text(
        manifest.read_text() + "@prefix doap: <http://usefulinc.com/ns/doap#> .\n"
        '<urn:test:delay> a lv2:Plugin ; lv2:binary <delay.so> ; doap:name "Delay" ; '
        f"lv2:port {described} .\n"
    )
    effect = lv2.host.load("urn:test:delay")
    effect.set("times", 2.6)
    effect.prepare(RATE, 1, BLOCK)
    assert effect.latency == 64 + BLOCK
    audio = noise(3000, 1)
    late = effect.latency
    np.testing.assert_array_equal(run(effect, audio)[late:], 3 * audio[:-late])
    effect.close()  # type: ignore[attr-defined]
