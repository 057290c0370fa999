"""What is understood, what is refused with which words, and who may connect."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from realtime_sep.serve import guard
from realtime_sep.serve.protocol import (
    ClientError,
    Hello,
    choose_outputs,
    layout,
    read_faders,
    read_hello,
    read_json,
)

HELLO = {"type": "hello", "version": 1, "samplerate": 48000}


def test_a_hello_with_everything_and_with_little() -> None:
    assert read_hello(HELLO) == Hello(48000)
    full = {
        **HELLO,
        "channels": 1,
        "format": "s16le",
        "outputs": ["vocals", "mix"],
        "model": "center",
        "packet": 960,
        "faders": {"vocals": None, "accompaniment": -3},
        "token": "secret",
    }
    hello = read_hello(full)
    assert hello.faders == {"vocals": -math.inf, "accompaniment": -3.0}
    assert (hello.outputs, hello.packet, hello.frame_bytes) == (("vocals", "mix"), 960, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "audio"}, "first message is a hello"),
        ({"version": 2}, "speaks version 1"),
        ({"samplerate": None}, "needs a samplerate"),
        ({"samplerate": 44}, "not 44"),
        ({"samplerate": 10**400}, "sample rate"),
        ({"samplerate": "48000"}, "whole number"),
        ({"samplerate": True}, "whole number"),
        ({"channels": 3}, "1 or 2"),
        ({"format": "f64"}, "f32le or s16le"),
        ({"outputs": "vocals"}, "list of stems"),
        ({"outputs": [1]}, "list of stems"),
        ({"packet": 0}, "at least 1"),
        ({"packet": 10**9}, "fits into"),
        ({"model": 7}, "a text"),
        ({"faders": [1]}, "object of stems"),
        ({"faders": {"vocals": 7}}, "up to 6"),
        ({"faders": {"vocals": math.nan}}, "up to 6"),
        ({"sample_rate": 1}, "did you mean 'samplerate'"),
    ],
)
def test_a_bad_hello_is_explained_in_one_line(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words) as error:
        read_hello({**HELLO, **change})
    assert error.value.code == "bad_hello"
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "text", ["", "hello", "7", "[]", "{}", '{"type": 1}', "[" * 3000, '{"type": "a"', "1" * 4000]
)
def test_text_that_is_no_message(text: str) -> None:
    with pytest.raises(ClientError, match="JSON objects with a type"):
        read_json(text)
    with pytest.raises(ClientError, match="4096 bytes"):
        read_json(json.dumps({"type": "x" * 5000}))


def test_outputs_and_their_layout() -> None:
    stems = ("vocals", "accompaniment")
    assert choose_outputs((), stems) == stems
    assert choose_outputs(("mix", "vocals"), stems) == ("mix", "vocals")
    for wrong, words in ((("vocal",), "did you mean 'vocals'"), (("mix", "mix"), "twice")):
        with pytest.raises(ClientError, match=words):
            choose_outputs(wrong, stems)
    assert layout(("vocals", "mix"), 2) == ["vocals.0", "vocals.1", "mix.0", "mix.1"]
    assert read_faders({}) == {}


def test_names_that_a_server_answers_to() -> None:
    here, everywhere = "127.0.0.1", "0.0.0.0"
    for host in ("localhost:8765", "127.0.0.1", "[::1]:8765", "LOCALHOST"):
        assert guard.allowed_host(host, here)
        assert guard.allowed_host(host, everywhere)
    for host in (None, "", "evil.example:8765", "192.168.1.5", "localhost.evil.example", "[::"):
        assert not guard.allowed_host(host, here)
    assert guard.allowed_host("192.168.1.5:8765", everywhere)  # an address cannot be rebound
    assert not guard.allowed_host("evil.example", everywhere)
    assert guard.allowed_host("studio.lan:8765", "studio.lan")


def test_web_pages_need_to_be_allowed_and_programs_do_not() -> None:
    assert guard.allowed_origin(None, ())
    assert not guard.allowed_origin("http://localhost:8765", ())
    assert not guard.allowed_origin("", ())
    assert not guard.allowed_origin("null", ())
    assert guard.allowed_origin("https://Studio.example", ("https://studio.example/",))


def test_loopback_and_tokens() -> None:
    assert all(map(guard.is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(guard.is_loopback, ("0.0.0.0", "::", "192.168.0.1", "studio.lan", "")))
    assert guard.allowed_token("", None)
    assert guard.allowed_token("sécret", "sécret")
    assert not guard.allowed_token("", "secret")
