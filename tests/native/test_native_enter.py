"""A bridge that enters anew: silent until what came in comes out, then faded in."""

from __future__ import annotations

import time

import numpy as np
from test_native_bridge import BLOCK, GUARD, PREFILL, Scene, noise

RISING = np.arange(1, GUARD + 1, dtype=np.float32)[:, None] / np.float32(GUARD)


def test_it_fades_in_where_the_input_comes_out() -> None:
    scene = Scene()
    scene.bridge.enter(now=True)
    source = noise(30 * BLOCK)
    played = scene.play(source)
    assert not played[:PREFILL].any()
    first = slice(PREFILL, PREFILL + GUARD)
    np.testing.assert_array_equal(played[first], -source[:GUARD] * RISING)
    np.testing.assert_array_equal(played[PREFILL + GUARD :], -source[GUARD:-PREFILL])


def test_after_a_pause_it_enters_anew() -> None:
    scene = Scene()
    scene.bridge.enter(pause=0.2)
    source = noise(30 * BLOCK)
    whole = scene.play(source)
    np.testing.assert_array_equal(whole[PREFILL:], -source[:-PREFILL])
    assert scene.bridge.stats().pauses == 0
    time.sleep(0.25)
    played = scene.play(source)
    assert scene.bridge.stats().pauses == 1
    assert not played[:PREFILL].any(), "what was before the pause is not heard after it"
    np.testing.assert_array_equal(played[PREFILL + GUARD :], -source[GUARD:-PREFILL])


def test_it_may_finish_before_it_is_heard() -> None:
    scene = Scene()
    scene.bridge.enter(now=True)
    scene.play(noise(BLOCK))
    scene.bridge.finish()
    out = np.ones((BLOCK, 2), np.float32)
    assert scene.bridge.callback(noise(BLOCK), out, BLOCK) == 1
    assert not out.any()
    assert scene.bridge.finished
