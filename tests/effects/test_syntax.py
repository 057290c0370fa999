"""The text of chains: what is written is read again, and what is none is refused in one line."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.effects.syntax import (
    SlotSpec,
    chain_text,
    parse_chain,
    parse_slot,
    slot_name,
)
from realtime_sep.errors import UsageError

WORD = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
#: Also paths and URIs, with colons, and ends that look like options.
NAME = st.one_of(
    WORD,
    st.text(string.ascii_letters + string.digits + "/:.#?=&,-~ ", min_size=1, max_size=30).map(
        str.strip
    ),
    st.sampled_from(
        ["http://x.org/p#a", "urn:a:b", r"C:\Plug Ins\x.vst3", "/a/b:c=1", "a:b=1,c=2"]
    ),
)
VALUE = st.one_of(
    st.integers(-1000, 1000).map(float),
    st.sampled_from([0.5, -12.25, 1e-3]),
    st.sampled_from(["Large Hall", "a=b", "", "on", "7", 'say "so"', "C:/a|b, c.vstpreset", '=""']),
)


@st.composite
def specs(draw: st.DrawFn) -> SlotSpec:
    scheme = draw(st.one_of(st.just(""), WORD))
    name = draw(NAME if scheme else WORD).lstrip("!") or "x"
    options = draw(st.dictionaries(WORD, VALUE, max_size=3))
    return SlotSpec(name, scheme, options, draw(st.booleans()))


@settings(max_examples=100, deadline=None)
@given(st.lists(specs(), max_size=4))
def test_what_is_written_is_read(slots: list[SlotSpec]) -> None:
    assert parse_chain(chain_text(slots)) == tuple(slots)


def test_the_examples() -> None:
    text = "highpass:f=90|compressor | ladspa:plate_1423:decay=2,mix=0.5|!gain:db=-3"
    first, second, third, fourth = parse_chain(text)
    assert first == SlotSpec("highpass", options={"f": 90})
    assert second == SlotSpec("compressor")
    assert third == SlotSpec("plate_1423", "ladspa", {"decay": 2, "mix": 0.5})
    assert fourth == SlotSpec("gain", options={"db": -3}, bypassed=True)
    assert parse_slot("lv2:http://calf.org/plugins/Reverb:preset=Hall").name == (
        "http://calf.org/plugins/Reverb"
    )
    assert parse_slot("x:y:isolate=off").options == {"isolate": 0}
    quoted = 'vst3:/a"b.vst3:preset="C:/my|own, ""new"".vstpreset",mix=2|gain'
    first, second = parse_chain(quoted)
    assert first.name == '/a"b.vst3'
    assert first.options == {"preset": 'C:/my|own, "new".vstpreset', "mix": 2}
    assert second == SlotSpec("gain")
    assert parse_chain("  ") == ()


@pytest.mark.parametrize(
    "text", ["|", "gain|", "!", ":", "gain:db=1,db=2", "://x", "!:a=1", "a b:c:d", 'x:y:a="|b']
)
def test_what_is_no_chain_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_chain(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        ("gain", "gain"),
        ("http://calf.org/plugins/Reverb", "Reverb"),
        ("http://x.org/amp#stereo", "stereo"),
        ("/usr/lib/vst3/My Plug.vst3", "My_Plug"),
        (r"C:\x.vst3", "x"),
        ("///", "effect"),
    ],
)
def test_slots_are_known_by_the_end_of_a_name(name: str, known_as: str) -> None:
    assert slot_name(SlotSpec(name)) == known_as
