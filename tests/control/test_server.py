"""The desk's page and protocol: who may talk, what is answered, and that the audio never cares."""

from __future__ import annotations

import dataclasses
import http.client
import json
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

from realtime_sep.cli.desk import _tls
from realtime_sep.control import guard, server
from realtime_sep.control.desk import Choice, Desk
from realtime_sep.errors import UsageError
from realtime_sep.native import Watch

from .conftest import RATE, Running, level, start_desk, stop_desk

websockets = pytest.importorskip("websockets.sync.client")

pytestmark = pytest.mark.slow


@contextmanager
def client(running: Running, **options: Any) -> Iterator[Any]:
    address = running.address.replace("http", "ws", 1) + "ws"
    with websockets.connect(address, **options) as socket:
        yield socket


def receive(socket: Any, kind: str, seconds: float = 20) -> dict[str, Any]:
    """The next message of this kind."""
    deadline = time.monotonic() + seconds
    while True:
        text = socket.recv(timeout=deadline - time.monotonic())
        if isinstance(text, str) and (message := json.loads(text))["type"] == kind:
            return message  # type: ignore[no-any-return]


def ask(socket: Any, message: Any) -> dict[str, Any]:
    socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
    while True:
        text = socket.recv(timeout=20)
        if isinstance(text, str) and (answer := json.loads(text))["type"] in ("ok", "error"):
            return answer  # type: ignore[no-any-return]


def get(running: Running, path: str = "/", method: str = "GET", **headers: str) -> Any:
    place = urlsplit(running.address).netloc
    connection = http.client.HTTPConnection(place, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.text = answer.read().decode()  # type: ignore[attr-defined]
    return answer


def test_the_page_needs_nothing_from_elsewhere(running: Running) -> None:
    for path in ("/", "/desk.css", "/desk.js", "/icon.svg"):
        answer = get(running, path)
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "").replace(
            "}://$", ""
        )


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:80"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
    ],
)
def test_hosts_and_origins(running: Running, headers: dict[str, str], status: int) -> None:
    assert get(running, **headers).status == status
    # The same for the WebSocket.
    upgrade = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    assert get(running, "/ws", **upgrade, **headers).status == (101 if status == 200 else 403)


def test_nothing_changes_by_get(running: Running) -> None:
    assert get(running, "/api/command").status == 405
    assert get(running, "/nothing").status == 404


def test_loopback_is_known() -> None:
    assert guard.is_loopback("127.0.0.1")
    assert guard.is_loopback("::1")
    assert guard.is_loopback("localhost")
    assert not guard.is_loopback("0.0.0.0")
    assert not guard.is_loopback("192.168.1.5")


def test_hello_state_meters_and_picture(running: Running) -> None:
    with client(running) as socket:
        hello = receive(socket, "hello")
        assert hello["protocol"] == server.PROTOCOL
        assert {"karaoke", "practice"} <= {p["name"] for p in hello["presets"]}
        assert {"center", "identity"} <= {m["name"] for m in hello["models"]}
        state = receive(socket, "state")
        assert state["model"] == "center"
        assert state["latency"]["frames"] > 500
        assert {p["name"] for p in state["parameters"]} == set(state["values"])
        meters = receive(socket, "meters")
        assert -15 < meters["levels"]["input"] < 0
        bands, columns, updates = hello["spectrum"]["bands"], 0, 0
        end = time.monotonic() + 2
        while time.monotonic() < end:
            message = socket.recv(timeout=5)
            if isinstance(message, bytes):
                assert len(message) % (2 * bands) == 0
                columns += len(message) // (2 * bands)
            else:
                updates += json.loads(message)["type"] == "meters"
        assert updates >= 40, "meters at 20 Hz at least"
        assert columns >= 30


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("", "JSON object"),
        ("{", "JSON object"),
        ("[" * 2000, "JSON object"),
        ("[]", "object with a type"),
        ("3", "object with a type"),
        ({}, "object with a type"),
        ({"type": 3}, "object with a type"),
        ({"type": "sett"}, "did you mean 'set'"),
        ({"type": "set"}, "a name and a value"),
        ({"type": "set", "name": "vocal", "value": 0}, "did you mean 'vocals'"),
        ({"type": "set", "name": "vocals", "value": "loud"}, "is a number"),
        ({"type": "set", "name": "vocals", "value": 1e99}, "goes from off"),
        ({"type": "set", "name": "wet", "value": None}, "goes from"),
        ('{"type": "set", "name": "vocals", "value": NaN}', "goes from off"),
        ({"type": "set", "values": {"vocals": -3, "music": 99}}, "goes from off"),
        ({"type": "set", "values": [1]}, "values"),
        ({"type": "set", "name": "vocals", "value": 0, "loud": 1}, "not understood: loud"),
        ({"type": "preset", "name": "karoke"}, "did you mean 'karaoke'"),
        ({"type": "preset", "name": ["karaoke"]}, "name is missing"),
        ({"type": "model", "name": "../../etc/passwd"}, "unknown model"),
        ({"type": "device", "input": "/etc/passwd"}, "unknown device"),
        ({"type": "device", "input": 3}, "is a text"),
        ({"type": "device", "microphone": "/etc/passwd"}, "unknown device"),
        ({"type": "device", "monitor": "song.wav"}, "unknown device"),
        ({"type": "record"}, "on is missing"),
        ({"type": "record", "on": True, "buses": ["everything"]}, "unknown bus"),
        ({"type": "record", "on": True, "buses": [1]}, "buses are names"),
        ({"type": "record", "on": True, "format": "exe"}, "unknown format"),
        (b"\x00\xff", "messages are text"),
    ],
)
def test_a_malformed_message_is_an_error_and_changes_nothing(
    running: Running, message: Any, complaint: str
) -> None:
    before = running.state()["values"]
    with client(running) as socket:
        answer = ask(socket, message)
        assert answer["type"] == "error"
        assert complaint in answer["message"]
        assert "\n" not in answer["message"]
    after = running.state()
    assert after["values"] == before
    assert after["recording"] is None
    assert after["running"]


def test_answers_carry_the_id(running: Running) -> None:
    with client(running) as socket:
        good = ask(socket, {"type": "set", "name": "wet", "value": 1, "id": "a7"})
        assert good == {"type": "ok", "id": "a7"}
        assert ask(socket, {"type": "sett", "id": 9})["id"] == 9


def test_a_message_that_is_too_long_ends_the_connection(running: Running) -> None:
    from websockets.exceptions import ConnectionClosed

    with client(running) as socket:
        socket.send(json.dumps({"type": "set", "name": "x" * server.MAX_MESSAGE}))
        with pytest.raises(ConnectionClosed) as closed:
            list(iter(lambda: socket.recv(timeout=20), None))
        assert closed.value.rcvd.code == 1009
    answer = running.command(type="set", name="x" * server.MAX_MESSAGE)
    assert "too long" in answer["message"]


def test_faders_presets_and_recordings_by_script(running: Running) -> None:
    """The output changes by as many decibels as the fader says."""
    assert running.command(type="preset", name="acapella")["type"] == "ok"
    for db in (0.0, -12.0, 6.0):
        assert running.command(type="set", name="vocals", value=db)["type"] == "ok"
        time.sleep(0.3)
        done = running.command(type="record", on=True, buses=["output", "vocals"], format="wav")
        assert done["type"] == "ok", done
        files = running.state()["recording"]["files"]
        time.sleep(1.2)
        assert running.command(type="record", on=False)["type"] == "ok"
        output, vocals = (soundfile.read(files[bus])[0] for bus in ("output", "vocals"))
        assert level(vocals) > -20
        assert level(output) - level(vocals) == pytest.approx(db, abs=0.1)
    assert running.command(type="set", name="vocals", value=None)["type"] == "ok"
    assert running.state()["values"]["vocals"] is None
    assert running.command(type="preset", name="karaoke")["type"] == "ok"
    assert running.command(type="set", values={"vocals": 0, "bypass": True})["type"] == "ok"
    time.sleep(0.5)
    running.command(type="record", on=True, buses=["output", "input"], format="wav")
    files = running.state()["recording"]["files"]
    time.sleep(0.8)
    running.command(type="record", on=False)
    output, original = (soundfile.read(files[bus])[0] for bus in ("output", "input"))
    np.testing.assert_allclose(output, original, atol=1e-6)
    running.command(type="set", name="bypass", value=0)


def test_models_by_script(running: Running) -> None:
    before = running.state()["latency"]["frames"]
    assert running.command(type="model", name="identity")["type"] == "ok"
    state = running.until(lambda state: state["model"] == "identity" and not state["switching"])
    assert state["latency"]["frames"] < before
    assert state["restarts"] == 0
    running.command(type="model", name="center")
    running.until(lambda state: state["model"] == "center" and not state["switching"])


def late_blocks(running: Running, seconds: float) -> int:
    """Late blocks that no stall of the machine explains."""
    before = running.state()["late"]
    with Watch() as watch:
        time.sleep(seconds)
        stalls = watch.count
    return max(0, int(running.state()["late"]) - before - stalls)


def test_chains_by_script(running: Running) -> None:
    def chain(**fields: Any) -> dict[str, Any]:
        return ask(socket, {"type": "chain", **fields})

    def until(wanted: list[str], place: str = "mix") -> dict[str, Any]:
        while True:
            state = receive(socket, "state")
            if [slot["name"] for slot in state["chains"][place]] == wanted:
                return state

    with client(running) as socket:
        receive(socket, "state")
        assert chain(do="add", text="gain:db=-3|compressor")["type"] == "ok"
        state = until(["gain", "compressor"])
        assert state["values"]["gain.db"] == -3
        assert state["effects"] == ["gain", "compressor"]
        assert state["chains"]["mix"][0]["parameters"] == ["gain.db"]
        chain(place="vocals", do="set", text="!gate")
        state = until(["gate"], "vocals")
        assert state["chains"]["vocals"][0]["bypassed"]
        assert "vocals.gate.threshold" in state["values"]
        ask(socket, {"type": "set", "name": "gain.db", "value": -9})
        chain(do="move", name="gain", at=1)
        assert until(["compressor", "gain"])["values"]["gain.db"] == -9
        chain(do="bypass", name="gain", on=True)
        while not receive(socket, "state")["chains"]["mix"][1]["bypassed"]:
            pass
        for wrong, message in (
            ({"do": "ad", "text": "gain"}, "did you mean 'add'"),
            ({"do": "add", "text": "gain|"}, "is no effect"),
            ({"do": "add", "place": "mux", "text": "gain"}, "did you mean 'mix'"),
            ({"do": "move", "name": "gain"}, "at is missing"),
            ({"do": "add", "text": "ladspa:/tmp/evil.so:"}, "unknown effect"),
            ({"do": "set", "text": "compressor|vst3:/tmp/evil.vst3"}, "unknown effect"),
            ({"do": "add", "text": "gain:preset=/tmp/evil"}, "are numbers"),
            ({"do": "add", "text": "gain:isolate=off"}, "are numbers"),
        ):
            assert message in chain(**wrong)["message"]
        chain(do="remove", name="gain")
        until(["compressor"])
        chain(do="set", place="vocals", text="")
        own = running.recordings.parent / "realtime-sep" / "presets.toml"
        own.parent.mkdir(exist_ok=True)
        own.write_text('[duo]\nmic = -3\nchains = { mix = "gate", mic = "reverb" }')
        assert ask(socket, {"type": "preset", "name": "duo"})["type"] == "ok", "but for the mic"
        own.unlink()
        until(["gate"])
        chain(do="set", text="")
        until([], "vocals")


def test_a_flood_is_shed_and_the_audio_does_not_care(running: Running) -> None:
    """A thousand messages a second, good and bad, for five seconds."""
    calm = late_blocks(running, 2)
    answers = {"ok": 0, "error": 0}
    over = threading.Event()
    sent = 0
    with client(running) as flooding, client(running) as another:
        receive(another, "state")

        def drain() -> None:
            while not over.is_set():
                try:
                    text = flooding.recv(timeout=0.2)
                except TimeoutError:
                    continue
                if isinstance(text, str) and (kind := json.loads(text)["type"]) in answers:
                    answers[kind] += 1

        reader = threading.Thread(target=drain)
        reader.start()
        begin = time.monotonic()
        flooded: list[int] = []
        counting = threading.Thread(target=lambda: flooded.append(late_blocks(running, 5)))
        counting.start()
        while (now := time.monotonic()) - begin < 5:
            while sent < 1000 * (now - begin):
                flooding.send(
                    json.dumps({"type": "set", "name": "vocals", "value": -(sent % 20)})
                    if sent % 3
                    else "nonsense"
                )
                sent += 1
            time.sleep(0.002)
        counting.join()
        asked = time.monotonic()
        assert ask(another, {"type": "set", "name": "vocals", "value": 0})["type"] == "ok"
        assert time.monotonic() - asked < 2, "others are still served"
        over.set()
        reader.join()
    assert sent >= 4000
    most = server.MESSAGE_BURST + server.MESSAGE_RATE * 8
    assert 100 < answers["ok"] + answers["error"] < most, "the rest was shed"
    assert flooded[0] <= calm + 2
    assert running.state()["running"]


def test_beyond_loopback_a_token_is_wanted(tmp_path: Any) -> None:
    made = start_desk(tmp_path, "--model", "identity", "--listen", "0.0.0.0")
    try:
        secret = made.address.split("?token=")[1]
        port = urlsplit(made.address).port
        made.address = f"http://127.0.0.1:{port}/"
        assert get(made).status == 401
        assert get(made, "/?token=wrong").status == 401
        assert get(made, "/api/state", Authorization=f"Bearer {secret}").status == 200
        with pytest.raises(Exception, match="403"), client(made):
            pass
        welcome = get(made, f"/?token={secret}")
        assert welcome.status == 303
        cookie = welcome.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        cookie = cookie.split(";")[0]
        assert get(made, Cookie=cookie).status == 200
        assert get(made, Cookie=cookie, Host="evil.example").status == 403
        with client(made, additional_headers={"Cookie": cookie}) as socket:
            receive(socket, "hello")
        stored = list(tmp_path.rglob("token"))
        assert [path.read_text().strip() for path in stored] == [secret]
    finally:
        stop_desk(made)


def test_https(tmp_path: Any) -> None:
    openssl = shutil.which("openssl") or pytest.skip("needs openssl")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=desk",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    for wrong, why in (
        ((cert, None), "go together"),
        ((cert, tmp_path / "none.pem"), "none.pem: no such file"),
        ((cert, cert), "no PEM certificate with the key"),
    ):
        with pytest.raises(UsageError, match=why):
            _tls(*wrong)
    listen = ["--listen", "0.0.0.0", "--tls-cert", str(cert), "--tls-key", str(key)]
    made = start_desk(tmp_path, "--model", "identity", *listen)
    try:
        assert made.address.startswith("https://")
        port, secret = urlsplit(made.address).port, made.address.split("?token=")[1]
        trust = ssl.create_default_context(cafile=str(cert))
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=trust)
        connection.request("GET", f"/?token={secret}")
        cookie = connection.getresponse().headers["Set-Cookie"]
        assert "; Secure" in cookie
        cookie = cookie.split(";")[0]
        socket = f"wss://127.0.0.1:{port}/ws"
        page = {"Cookie": cookie, "Origin": f"https://127.0.0.1:{port}"}
        with websockets.connect(socket, ssl=trust, additional_headers=page) as wire:
            receive(wire, "hello")
        with pytest.raises((OSError, http.client.HTTPException)):
            get(dataclasses.replace(made, address=f"http://127.0.0.1:{port}/"))
    finally:
        stop_desk(made)


def test_an_engine_that_is_killed_comes_back_as_it_was(tmp_path: Any) -> None:
    import os
    import signal

    made = start_desk(tmp_path, "--model", "identity")
    try:
        made.until(lambda state: state["running"])
        made.command(type="set", values={"music": -7, "wet": 0.5})
        made.command(type="chain", do="add", place="vocals", text="gain:db=-6|!echo")
        made.until(lambda state: len(state["chains"]["vocals"]) == 2)
        made.command(type="set", name="vocals.gain.db", value=-4)
        made.command(type="record", on=True, buses=["output"])
        (engine,) = made.engines()
        os.kill(engine, signal.SIGKILL)
        broken = made.until(lambda state: not state["running"], 20)
        assert "died" in broken["trouble"]
        state = made.until(lambda state: state["running"])
        assert state["values"]["music"] == -7
        assert state["values"]["wet"] == 0.5
        assert state["recording"] is not None, "it records on"
        time.sleep(1)
        made.command(type="record", on=False)
        (file,) = made.recordings.iterdir()
        assert soundfile.info(file).samplerate == RATE
    finally:
        stop_desk(made)
    # The next evening, by a preset for another model.
    (tmp_path / "realtime-sep").mkdir(exist_ok=True)
    preset = '[band]\nmusic = -3\n[band.chains]\ndrums = "gate"\nmix = "compressor"\nmic = "gate"\n'
    (tmp_path / "realtime-sep" / "presets.toml").write_text(preset)
    again = start_desk(tmp_path, "--model", "identity", "--preset", "band")
    try:
        state = again.until(lambda state: state["running"])
        assert (state["values"]["music"], state["values"]["wet"]) == (-3, 0.5)
        assert [slot["effect"] for slot in state["chains"]["mix"]] == ["compressor"]
        assert [slot["bypassed"] for slot in state["chains"]["vocals"]] == [False, True]
        assert state["values"]["vocals.gain.db"] == -4
        told = [line["text"] for line in state["notices"]]
        assert "identity has no drums: the effects for it wait" in told
    finally:
        stop_desk(again)


def test_effects_that_cannot_be_had_do_not_stop_the_show(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    def open_stream(*_: Any, chains: Any, **__: Any) -> str:
        opened.append(chains)
        if chains:
            raise UsageError("unknown effect 'ladspa:gone'")
        return "a stream"

    monkeypatch.setattr("realtime_sep.control.desk.open_stream", open_stream)
    choice = Choice("null", "null", model="identity", chains={"mix": "ladspa:gone"})
    made = Desk(choice)
    assert made._opened(choice) == "a stream"  # type: ignore[comparison-overlap]
    assert opened == [{"mix": "ladspa:gone"}, {}]
    assert "it plays without effects" in made.state()["notices"][-1]["text"]
