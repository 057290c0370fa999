"""The resampler between two clocks: exact in pitch and time, clean, and free to change its mind."""

from __future__ import annotations

import numpy as np
import pytest

from realtime_sep.dsp.varispeed import Varispeed, half_taps, shift
from realtime_sep.types import Float32


def tone(hz: float, rate: float, frames: int = 12000) -> Float32:
    phase = 2 * np.pi * hz / rate * np.arange(frames)
    sound: Float32 = np.sin(phase).astype(np.float32)[:, None]
    return sound


def resampled(hz: float, source: float, target: float, ppm: float) -> tuple[float, float]:
    """Gain of a tone, and what else is there, in dB of the tone."""
    speed = Varispeed(source, target)
    speed.step = step = source / target * (1 + ppm * 1e-6)
    out = np.zeros((round(11000 / step), 1), np.float32)
    end = speed.render(tone(hz, source), 300.0, step, out)
    assert end == pytest.approx(300 + len(out) * step, abs=1e-6)
    t = 2 * np.pi * hz / source * (300 + step * np.arange(len(out)))
    basis = np.stack([np.sin(t), np.cos(t)], axis=1)
    (sine, cosine), *_ = np.linalg.lstsq(basis, out[:, 0].astype(float), rcond=None)
    assert cosine == pytest.approx(0, abs=1e-4), "not in its time"
    rest = out[:, 0] - basis @ (sine, cosine)
    return 20 * np.log10(sine), 10 * np.log10(2 * np.mean(np.square(rest)))


@pytest.mark.parametrize(
    ("source", "target"),
    [(48000, 48000), (44100, 48000), (48000, 44100), (96000, 48000), (16000, 48000)],
)
@pytest.mark.parametrize("part", [0.01, 0.2, 0.41])
def test_a_tone_stays_a_tone(source: int, target: int, part: float) -> None:
    for ppm in (-1000, 0, 300):
        gain, rest = resampled(part * min(source, target), source, target, ppm)
        assert gain == pytest.approx(0, abs=0.001)
        assert rest < -100


def test_what_the_lower_rate_cannot_hold_is_gone() -> None:
    speed = Varispeed(96000, 44100)
    speed.step = step = 96000 / 44100
    out = np.zeros((4000, 1), np.float32)
    speed.render(tone(27000, 96000), 300.0, step, out)
    assert np.max(np.abs(out)) < 1e-5


def test_blocks_and_a_moving_step_leave_no_seam() -> None:
    """A step that wanders: the phase of the tone is where the places say."""
    speed = Varispeed(48000, 48000)
    rng = np.random.default_rng(0)
    source, place = tone(1000, 48000), 300.0
    while place < 10000:
        out = np.zeros((int(rng.integers(1, 400)), 1), np.float32)
        step = 1 + rng.uniform(-1e-3, 1e-3)
        before, begin = speed.step, place
        reach = speed.reach(len(out), step)
        place = speed.render(source, place, step, out)
        assert place - begin == pytest.approx(reach, abs=1e-9)
        steps = before + (step - before) * np.arange(1, len(out) + 1) / len(out)
        places = begin + np.concatenate([[0], np.cumsum(steps)[:-1]])
        np.testing.assert_allclose(
            out[:, 0], np.sin(2 * np.pi * places / 48), atol=1e-5, rtol=0, strict=False
        )


def test_it_reads_no_further_than_it_says() -> None:
    half = half_taps(48000, 44100)
    speed = Varispeed(48000, 44100)
    source = np.full((1000, 1), np.nan, np.float32)
    out = np.zeros((100, 1), np.float32)
    last = int(500 + speed.reach(100, speed.step))
    source[500 - half + 1 : last + half + 1] = 1
    speed.render(source, 500.0, speed.step, out)
    np.testing.assert_allclose(out, 1, atol=1e-6)


def test_a_line_moves_up() -> None:
    line = np.arange(14, dtype=np.float32).reshape(7, 2)
    block = np.full((2, 2), -1, np.float32)
    expected = np.concatenate([line[2:], block])
    shift(line, block)
    np.testing.assert_array_equal(line, expected)
