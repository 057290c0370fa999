"""The desk in a real browser: what is done on the page happens to the sound."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from .conftest import RATE, Running, level, start_desk, stop_desk

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt install chromium)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        opened = tool.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield opened
        with suppress(Exception):
            opened.close()


@pytest.fixture
def desk(running: Running) -> Running:
    """The desk with everything as at first."""
    state = running.state()
    first = {p["name"]: p["default"] for p in state["parameters"]}
    assert running.command(type="set", values=first)["type"] == "ok"
    if state["model"] != "center":
        running.command(type="model", name="center")
        running.until(lambda state: state["model"] == "center" and not state["switching"])
    return running


@pytest.fixture
def page(browser: Any, desk: Running) -> Iterator[Any]:
    made = open_page(browser, desk)
    yield made
    assert made.mistakes == []
    made.context.close()


def open_page(browser: Any, desk: Running, **size: int) -> Any:
    # The page's policy forbids what the tools of the tests do, too.
    context = browser.new_context(viewport={"width": 1360, "height": 800, **size}, bypass_csp=True)
    page = context.new_page()
    page.mistakes = []
    page.on("pageerror", lambda error: page.mistakes.append(str(error)))
    page.goto(desk.address)
    page.wait_for_selector("#fader-vocals")
    return page


def fader(page: Any, name: str, db: float | None) -> None:
    """Drag it there."""
    page.evaluate(
        "([id, value]) => { const f = document.getElementById(id); f.value = value;"
        " f.dispatchEvent(new Event('input')); }",
        [f"fader-{name}", -42.5 if db is None else db],
    )


def recorded(page: Any, desk: Running, seconds: float, *buses: str) -> dict[str, Any]:
    """Press record, wait, press it again; what is in the files."""
    page.evaluate("document.getElementById('more').open = true")
    for box in page.query_selector_all("#buses input"):
        box.set_checked(box.get_attribute("value") in buses)
    page.click("#record")
    files = desk.until(lambda state: state["recording"] is not None)["recording"]["files"]
    assert set(files) == set(buses)
    page.wait_for_selector("#record[aria-pressed=true]")
    time.sleep(seconds)
    page.click("#record")
    desk.until(lambda state: state["recording"] is None)
    page.wait_for_selector("#notices li:has-text('recorded')")
    return {bus: soundfile.read(path)[0] for bus, path in files.items()}


def test_the_vocals_fader_changes_the_output_by_what_it_says(page: Any, desk: Running) -> None:
    fader(page, "music", None)
    for db in (-12.0, 3.0):
        fader(page, "vocals", db)
        desk.until(lambda state, db=db: state["values"]["vocals"] == db)  # type: ignore[misc]
        time.sleep(0.3)
        files = recorded(page, desk, 1.2, "output", "vocals")
        assert level(files["vocals"]) > -20, "there is a voice"
        assert level(files["output"]) - level(files["vocals"]) == pytest.approx(db, abs=0.1)
    assert page.inner_text("#strip-vocals .level").startswith("+3.0")
    assert page.get_attribute("#fader-music", "aria-valuetext") == "off"


def test_bypass_is_the_original(page: Any, desk: Running) -> None:
    fader(page, "vocals", None)
    page.click("#bypass")
    page.wait_for_selector("#bypass[aria-pressed=true]")
    time.sleep(0.5)
    files = recorded(page, desk, 0.8, "output", "input")
    np.testing.assert_allclose(files["output"], files["input"], atol=1e-6)


def test_the_model_is_switched_while_it_plays(page: Any, desk: Running) -> None:
    before = desk.state()
    page.select_option("#model", "identity")
    desk.until(lambda state: state["model"] == "identity" and not state["switching"])
    page.wait_for_function("document.getElementById('model-now').textContent === 'identity'")
    after = desk.state()
    assert after["latency"]["ms"] < before["latency"]["ms"]
    shown = f"{after['latency']['ms']:.1f} ms"
    page.wait_for_function(f"document.getElementById('latency').textContent === '{shown}'")
    assert after["restarts"] == before["restarts"]
    assert after["elapsed"] > before["elapsed"]


def test_keys_and_presets(page: Any, desk: Running) -> None:
    page.keyboard.press("v")
    page.keyboard.press("v")
    desk.until(lambda state: state["values"]["vocals"] == -4)
    page.keyboard.press("Shift+M")
    desk.until(lambda state: state["values"]["music"] == 2)
    page.keyboard.press("b")
    desk.until(lambda state: state["values"]["bypass"] == 1)
    page.keyboard.press("2")
    state = desk.until(lambda state: state["preset"] == "practice")
    assert (state["values"]["vocals"], state["values"]["bypass"]) == (-12, 0)
    page.wait_for_selector("#presets [data-preset=practice][aria-pressed=true]")
    page.focus("#fader-vocals")
    page.keyboard.press("ArrowUp")
    desk.until(lambda state: state["values"]["vocals"] == -11.5)


def unnamed(page: Any) -> Any:
    """What can be pressed or moved, and is not called anything."""
    return page.evaluate("""() => [...document.querySelectorAll('button, input, select')]
        .filter((e) => !e.disabled && !(e.getAttribute('aria-label') || e.textContent.trim()
            || [...(e.labels || [])].some((l) => l.textContent.trim())))
        .map((e) => e.outerHTML)""")


def test_everything_has_a_name_and_can_be_reached(page: Any) -> None:
    assert unnamed(page) == []
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"fader-vocals", "fader-music", "bypass", "record", "model", "mute", "solo"} <= seen


def test_two_pages_agree_within_a_tenth_of_a_second(page: Any, browser: Any, desk: Running) -> None:
    other = open_page(browser, desk)
    watch = """() => new Promise((done) => { const fader = document.getElementById('fader-vocals');
        const look = () => fader.value === '-20' ? done(Date.now()) : setTimeout(look, 2);
        look(); })"""
    delays = []
    for _ in range(8):  # one moment in which the machine has nothing else to do is enough
        desk.command(type="set", name="vocals", value=0)
        for each in (page, other):
            each.wait_for_function("document.getElementById('fader-vocals').value === '0'")
        time.sleep(0.5)  # our own move is over
        moved = page.evaluate(
            "() => { const f = document.getElementById('fader-vocals'); f.value = -20;"
            " f.dispatchEvent(new Event('input')); return Date.now(); }"
        )
        delays.append(other.evaluate(watch) - moved)
        if min(delays) <= 100:
            break
    assert min(delays) <= 100, delays
    other.context.close()


def test_a_reload_shows_what_is(page: Any, desk: Running) -> None:
    fader(page, "vocals", -9)
    desk.until(lambda state: state["values"]["vocals"] == -9)
    page.reload()
    page.wait_for_function("document.getElementById('fader-vocals')?.value === '-9'")
    assert desk.state()["running"]


def test_meters_move_and_the_picture_is_red_and_blue(page: Any) -> None:
    time.sleep(2)
    red, blue = page.evaluate("""() => { const c = document.getElementById('spectrum');
        const d = c.getContext('2d').getImageData(c.width * 0.9, 0, c.width * 0.1, c.height).data;
        let red = 0, blue = 0;
        for (let i = 0; i < d.length; i += 4) {
            red += d[i] > 90 && d[i] > 2 * d[i + 2];
            blue += d[i + 2] > 90 && d[i + 2] > 2 * d[i];
        }
        return [red, blue]; }""")
    assert red > 100, "a voice"
    assert blue > 100, "music"
    value = page.get_attribute("#strip-output .meter", "aria-valuenow")
    assert -20 < float(value) <= 0


def test_the_page_tells_that_the_engine_died_and_goes_on(browser: Any, tmp_path: Path) -> None:
    made = start_desk(tmp_path, "--model", "identity")
    try:
        made.until(lambda state: state["running"])
        page = open_page(browser, made)
        page.wait_for_selector("#trouble", state="hidden")
        fader(page, "music", -5)
        made.until(lambda state: state["values"]["music"] == -5)
        (engine,) = made.engines()
        os.kill(engine, signal.SIGKILL)
        page.wait_for_selector("#trouble:not([hidden])")
        page.wait_for_function("document.getElementById('trouble').textContent.includes('died')")
        page.wait_for_selector("#trouble", state="hidden", timeout=60_000)
        assert made.state()["values"]["music"] == -5
        # And the whole desk.
        made.process.kill()
        made.process.wait()
        page.wait_for_function(
            "document.getElementById('trouble').textContent.includes('No connection')"
        )
        assert page.mistakes == []
        page.context.close()
    finally:
        if made.process.poll() is None:
            stop_desk(made)


@pytest.mark.parametrize(("width", "height"), [(1360, 800), (390, 844), (820, 1180)])
def test_nothing_is_wider_than_the_screen(
    browser: Any, desk: Running, width: int, height: int
) -> None:
    page = open_page(browser, desk, width=width, height=height)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    covered = page.evaluate("""() => [...document.querySelectorAll('main button')]
        .filter((e) => e.checkVisibility({visibilityProperty: true}))
        .filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.textContent)""")
    assert covered == []
    page.context.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A desk with a singer, whose voice is a tone, and a monitor."""
    folder = tmp_path_factory.mktemp("stage")
    tone = 0.2 * np.sin(2 * np.pi * 700 * np.arange(2 * RATE) / RATE)
    soundfile.write(folder / "singer.wav", tone.astype(np.float32), RATE)
    singer = ["--mic", str(folder / "singer.wav"), "--chain", "mic=gain", "--monitor", "null"]
    made = start_desk(folder, "--model", "identity", "--effect", "gain", *singer)
    try:
        made.until(lambda state: state["running"])
        yield made
    finally:
        stop_desk(made)


def heard(page: Any, desk: Running) -> float:
    """How loud it is, after a while, in dB."""
    time.sleep(0.3)
    return steady(recorded(page, desk, 0.5, "output")["output"])


def steady(audio: Any) -> float:
    """Level in dB, most of the time: on a busy machine a microphone of its own may have a gap."""
    pieces = [audio[at : at + RATE // 20] for at in range(0, len(audio), RATE // 20)]
    return float(np.median([level(piece) for piece in pieces]))


def turn(page: Any, name: str, value: float) -> None:
    """Move the slider of a parameter there."""
    page.evaluate(
        "([id, value]) => { const s = document.getElementById(id); s.value = value;"
        " s.dispatchEvent(new Event('input')); }",
        [f"turn-{name}", value],
    )


def test_the_singer_is_as_loud_as_her_fader_and_effects_say(browser: Any, stage: Running) -> None:
    page = open_page(browser, stage)
    page.wait_for_selector("#strip-monitor .meter")
    for name in ("vocals", "music"):
        fader(page, name, None)
    stage.until(lambda state: state["values"]["music"] is None)
    whole = heard(page, stage)
    assert whole == pytest.approx(20 * np.log10(0.2 / np.sqrt(2)), abs=1.5), "nobody else"
    fader(page, "mic", -12)
    stage.until(lambda state: state["values"]["mic"] == -12)
    assert heard(page, stage) - whole == pytest.approx(-12, abs=0.15)
    fader(page, "mic", 0)
    turn(page, "mic.gain.db", -9)
    stage.until(lambda state: (state["values"]["mic"], state["values"]["mic.gain.db"]) == (0, -9))
    time.sleep(0.2)
    files = recorded(page, stage, 0.5, "output", "mic", "monitor")
    assert steady(files["output"]) - whole == pytest.approx(-9, abs=0.15)
    np.testing.assert_allclose(files["mic"], files["output"], atol=1e-5)
    assert steady(files["monitor"]) > -40
    page.click("#slot-mic-gain-on")
    stage.until(lambda state: state["chains"]["mic"][0]["bypassed"])
    page.wait_for_selector("#slot-mic-gain-on[aria-pressed=false]")
    assert heard(page, stage) - whole == pytest.approx(0, abs=0.15)
    page.keyboard.press("i")
    page.wait_for_selector("#strip-mic .mute[aria-pressed=true]")
    assert stage.state()["values"]["mic.mute"] == 1
    assert heard(page, stage) < -90
    turn(page, "monitor.dry", -3)
    state = stage.until(lambda state: state["values"]["monitor.dry"] == -3)
    assert page.inner_text("#mic-latency") == f"{state['microphone']['ms']:.1f} ms"
    away = """() => { onMeters({beside: {mic: {there: false}}});
        return document.querySelector('#strip-mic.away h2').textContent; }"""
    assert page.evaluate(away) == "Mic: away"
    assert page.mistakes == []
    page.context.close()


def test_a_chain_is_made_on_the_page(browser: Any, stage: Running) -> None:
    """Added to, moved, and taken from; two pages agree; the key changes."""
    page, other = open_page(browser, stage), open_page(browser, stage, width=390, height=844)
    stage.command(type="set", values={"vocals": 0, "music": 0, "mic": None})
    before = stage.state()["latency"]["frames"]
    page.click("[data-place=mix]")
    other.click("[data-place=mix]")
    page.wait_for_selector("#slot-mix-gain-on")
    page.fill("#effect", "pitc")
    page.click("#add button")
    page.wait_for_selector("#slot-mix-pitch-on")
    assert stage.state()["latency"]["frames"] == before + 4096
    page.focus("[id='turn-pitch.semitones']")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    stage.until(lambda state: state["values"]["pitch.semitones"] == 2)
    other.wait_for_function("document.getElementById('turn-pitch.semitones')?.value === '2'")
    time.sleep(0.5)
    audio = recorded(page, stage, 1.5, "output")["output"][:, 0]
    found = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))).argmax() * RATE / len(audio)
    assert found == pytest.approx(440 * 2 ** (2 / 12), rel=0.005)
    page.focus("#slot-mix-pitch-earlier")
    page.keyboard.press("Enter")
    stage.until(lambda state: state["effects"] == ["pitch", "gain"])
    other.wait_for_selector("li[aria-label='pitch, 1 of 2']")
    assert other.evaluate("document.documentElement.scrollWidth") <= 390
    assert unnamed(other) == []
    page.click("#slot-mix-pitch-remove")
    page.click("#slot-mix-gain-remove")
    stage.until(lambda state: state["effects"] == [])
    other.wait_for_function("!document.querySelector('#chain li')")
    page.wait_for_function("plugins !== null")  # those that the hosts list
    if page.evaluate("plugins.some((p) => p.use === 'ladspa:amp_mono')"):
        page.fill("#effect", "mono amp")  # by what it is called
        page.click("#add button")
        page.wait_for_selector("#slot-mix-amp_mono-on")
        page.click("#slot-mix-amp_mono-remove")
        stage.until(lambda state: state["effects"] == [])
    assert (page.mistakes, other.mistakes) == ([], [])
    page.context.close()
    other.context.close()


def test_the_microphone_is_chosen_on_the_page(browser: Any, stage: Running) -> None:
    """Another device for her while the song plays on; then none at all."""
    page = open_page(browser, stage)
    song = stage.state()
    assert song["second"]["monitor"] == "null"
    stage.command(type="set", values={"vocals": None, "music": None, "mic": 0, "mic.mute": 0})
    assert heard(page, stage) > -30
    before = stage.state()
    page.select_option("#microphone", "null")
    stage.until(lambda state: any("chosen" in line["text"] for line in state["notices"]))
    after = stage.state()
    assert after["second"] == {"microphone": "null", "monitor": "null"}
    assert heard(page, stage) < -90
    assert after["restarts"] == before["restarts"]
    assert after["elapsed"] > before["elapsed"], "the same stream goes on"
    page.select_option("#microphone", "")
    stage.until(lambda state: state["running"] and state["microphone"] is None)
    page.wait_for_selector("#strip-mic", state="detached")
    assert page.input_value("#monitor") == "null"
    assert page.mistakes == []
    page.context.close()
