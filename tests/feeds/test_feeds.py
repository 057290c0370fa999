"""Two devices, two clocks, simulated: blocks come when their clock says so, or a little late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from realtime_sep.dsp.clocks import ClockLoop
from realtime_sep.feeds import Link, MicrophoneFeed, Moment, MonitorFeed
from realtime_sep.native import Ring
from realtime_sep.types import Float32

RATE, GUARD, HZ = 48000, 64, 997.0


class Device:
    """One whose clock is `ppm` fast, and whose callbacks are up to `jitter` seconds late.

    It stands for a bridge: `mark` is all that a feed asks.
    """

    def __init__(
        self, rate: int, blocks: tuple[int, ...], ppm: float, jitter: float, seed: int
    ) -> None:
        self.rate, self.blocks, self.jitter = rate, blocks, jitter
        self.true = rate * (1 + ppm * 1e-6)
        self.ring = Ring(rate, 1)
        self.begin = 0.0031
        self.frames = self.calls = 0
        self.last: tuple[int, int] | None = None
        self.stands: tuple[float, float] = (1e9, 1e9)  # from when to when nothing comes
        self._turns: dict[int, npt.NDArray[np.complex128]] = {}  # of a tone, by block size
        self._rng = np.random.default_rng(seed)
        self.next = self._when()

    @property
    def link(self) -> Link:
        return Link(self, self.ring, self.rate, self.blocks)  # type: ignore[arg-type]

    def mark(self) -> tuple[int, int] | None:
        return self.last

    def _when(self) -> float:
        self.block = self.blocks[self.calls % len(self.blocks)]
        due = self.begin + (self.frames + self.block) / self.true
        return due + self._rng.uniform(0, self.jitter)

    def run(self, until: float) -> None:
        while self.next <= until:
            now = self.next
            if self.stands[0] <= now < self.stands[1]:
                self.next = self.stands[1]
                self.begin += self.stands[1] - now  # its clock begins anew
                continue
            self.frames += self.block
            self.last = self.callback(self.block), int(now * 1e9)
            self.calls += 1
            self.next = max(self._when(), now)

    def callback(self, block: int) -> int:
        raise NotImplementedError


class Microphone(Device):
    """Hears a tone."""

    def callback(self, block: int) -> int:
        begin = 2j * np.pi * HZ * (self.frames - block) / self.true
        if block not in self._turns:
            self._turns[block] = np.exp(2j * np.pi * HZ * np.arange(block) / self.true)
        sound = 0.5 * (np.exp(begin) * self._turns[block]).imag
        self.ring.write(sound.astype(np.float32)[:, None])
        return self.ring.written


class Loudspeaker(Device):
    """Plays as the bridge does: what comes after its time is dropped."""

    lacking = late = 0

    def callback(self, block: int) -> int:
        gone = min(self.lacking, self.ring.read_space)
        self.ring.read(gone)
        self.lacking -= gone
        taken = self.ring.read(block) if self.lacking == 0 else np.zeros((0, 1), np.float32)
        self.lacking += block - len(taken)
        self.late += self.played and len(taken) < block
        self.sound.append(taken if len(taken) == block else np.zeros((block, 1), np.float32))
        return self.ring.consumed + self.lacking

    @property
    def sound(self) -> list[Float32]:
        self.__dict__.setdefault("_sound", [])
        sound: list[Float32] = self.__dict__["_sound"]
        return sound

    @property
    def played(self) -> bool:
        return self.ring.consumed > 0


def run(
    device: Device,
    work: Callable[[Moment], Any],
    seconds: float,
    hop: int,
    block: int,
    jitter: float,
) -> None:
    """The main device, whose clock is right, and its worker."""
    rng = np.random.default_rng(1)
    done, now = 0, 0.0
    for call in range(1, int(seconds * RATE / block)):
        now = max(now, call * block / RATE + rng.uniform(0, jitter))
        while call * block - done >= hop:
            device.run(now + 1e-4)
            work(Moment(call * block, int(now * 1e9), done))
            done += hop


def cents(sound: Float32, hz: float = HZ, rate: float = RATE) -> Float32:
    """How far the pitch is off, from window to window, by phase."""
    window = 2400
    pieces = sound[: len(sound) // window * window, 0].reshape(-1, window)
    look = np.hanning(window) * np.exp(-2j * np.pi * hz * np.arange(window) / rate)
    begin = np.exp(-2j * np.pi * hz * window * np.arange(len(pieces)) / rate)
    turns = np.angle(pieces @ look * begin)
    off = np.diff(np.unwrap(turns)) / (2 * np.pi) * rate / window
    return np.asarray(1200 * np.log2(1 + off / hz), np.float32)


CASES = [
    # rate, blocks, ppm, jitter, hop, block of the main device
    (48000, (256,), 500, 0.0, 512, 256),
    (44100, (441,), -500, 0.001, 512, 256),
    (48000, (128,), 500, 0.002, 256, 128),
    (48000, (1024, 960), -500, 0.002, 128, 480),
    (96000, (64,), 120, 0.0005, 256, 100),
]


def microphone(
    case: tuple[int, tuple[int, ...], float, float, int, int], seconds: float
) -> tuple[MicrophoneFeed, Microphone, list[Float32], list[float]]:
    rate, blocks, ppm, jitter, hop, block = case
    device = Microphone(rate, blocks, ppm, jitter, 2)
    feed = MicrophoneFeed(RATE, hop, GUARD)
    feed.link = device.link
    sound: list[Float32] = []
    errors: list[float] = []

    def work(moment: Moment) -> None:
        out = np.empty((hop, 1), np.float32)
        feed.take(moment, out)
        sound.append(out)
        errors.append(feed.error)

    run(device, work, seconds, hop, block, jitter)
    return feed, device, sound, errors


@pytest.mark.parametrize("case", CASES)
def test_a_microphone_is_in_time_and_in_tune(
    case: tuple[int, tuple[int, ...], float, float, int, int],
) -> None:
    feed, device, sound, errors = microphone(case, 8)
    rate, blocks, _, jitter, _, _ = case
    assert feed.gaps == 0
    assert max(map(abs, errors)) < max(blocks)
    heard = np.concatenate(sound)
    begin = int(np.flatnonzero(heard)[0]) + GUARD
    assert begin < 0.5 * RATE
    assert np.max(np.abs(cents(heard[begin:]))) < 5
    # In its time: frame n of the engine is what the device heard `latency` frames before.
    late = feed.latency(device.link) / RATE
    place = len(heard) - 4800 + np.arange(4800)
    t = 2 * np.pi * HZ * (place / RATE - late - device.begin)
    turn = np.angle(np.sum(heard[-4800:, 0] * np.hanning(4800) * np.exp(-1j * t)))
    lag = ((turn + np.pi / 2 + np.pi) % (2 * np.pi) - np.pi) / (2 * np.pi * HZ) * RATE
    assert abs(lag) < 2 + 2 * jitter * RATE + max(map(abs, errors)) * RATE / rate


@pytest.mark.parametrize("case", CASES)
def test_a_monitor_is_in_time_and_in_tune(
    case: tuple[int, tuple[int, ...], float, float, int, int],
) -> None:
    rate, blocks, ppm, jitter, hop, block = case
    device = Loudspeaker(rate, blocks, ppm, jitter, 3)
    lead = hop - np.gcd(hop, block) + block
    feed = MonitorFeed(RATE, hop, GUARD, int(lead))
    feed.link = device.link
    errors: list[float] = []

    def work(moment: Moment) -> None:
        t = (moment.hop + np.arange(hop)) / RATE
        feed.give(moment, (0.5 * np.sin(2 * np.pi * HZ * t)).astype(np.float32)[:, None])
        errors.append(feed.error)

    run(device, work, 8, hop, block, jitter)
    assert feed.gaps == 0
    assert device.late == 0
    assert max(map(abs, errors)) < max(*blocks, 0.004 * rate)
    heard = np.concatenate(device.sound)
    begin = int(np.flatnonzero(heard)[0]) + 2 * GUARD
    # Its own clock plays it, so the pitch is off by the drift for those who measure by its name.
    assert np.max(np.abs(cents(heard[begin:], rate=device.true))) < 5
    late = feed.latency(device.link) / RATE
    place = len(heard) - 4800 + np.arange(4800)
    t = 2 * np.pi * HZ * (place / device.true + device.begin - late)
    turn = np.angle(np.sum(heard[-4800:, 0] * np.hanning(4800) * np.exp(-1j * t)))
    lag = ((turn + np.pi / 2 + np.pi) % (2 * np.pi) - np.pi) / (2 * np.pi * HZ) * RATE
    assert abs(lag) < 2 + 2 * jitter * RATE + max(map(abs, errors)) * RATE / rate


def largest_step(sound: Float32) -> float:
    return float(np.max(np.abs(np.diff(sound[:, 0]))))


def test_a_microphone_that_stands_still_fades_and_comes_back() -> None:
    case = CASES[0]
    rate, blocks, ppm, jitter, hop, block = case
    device = Microphone(rate, blocks, ppm, jitter, 2)
    device.stands = 1.0, 1.5
    feed = MicrophoneFeed(RATE, hop, GUARD)
    feed.link = device.link
    sound: list[Float32] = []

    def work(moment: Moment) -> None:
        out = np.empty((hop, 1), np.float32)
        feed.take(moment, out)
        sound.append(out)

    run(device, work, 3, hop, block, jitter)
    heard = np.concatenate(sound)
    assert feed.gaps == 1
    assert not heard[round(1.1 * RATE) : round(1.5 * RATE)].any()
    assert np.max(np.abs(heard[round(1.7 * RATE) :])) == pytest.approx(0.5, abs=0.01)
    tone = 2 * np.pi * HZ / RATE * 0.5
    assert largest_step(heard) < tone + 0.5 / GUARD + 0.001, "it clicks"


def test_callbacks_that_come_late_are_waited_for() -> None:
    """10 ms late instead of the 4 that are allowed for: a gap or two, then none, and as many times
    4 ms of latency; when the machine is calm again that shrinks, unheard."""
    hop, block = 512, 256
    device = Microphone(48000, (256,), 100, 0.010, 2)
    feed = MicrophoneFeed(RATE, hop, GUARD)
    feed.link = link = device.link
    least = feed.latency(link)
    gaps: list[int] = []
    late: list[int] = []
    sound: list[Float32] = []

    def work(moment: Moment) -> None:
        if moment.hop > 20 * RATE:
            device.jitter = 0.0
        out = np.empty((hop, 1), np.float32)
        feed.take(moment, out)
        gaps.append(feed.gaps)
        late.append(feed.latency(link))
        sound.append(out)

    run(device, work, 130, hop, block, 0.0)
    per_second = RATE / hop
    assert 1 <= gaps[-1] <= 2
    assert gaps[-1] == gaps[round(10 * per_second)], "none after ten seconds"
    widest = max(late) - least
    assert widest == gaps[-1] * 0.004 * RATE
    assert late[-1] <= least + widest - 0.004 * RATE
    heard = np.concatenate(sound)[round(20 * RATE) :]
    assert np.max(np.abs(cents(heard))) < 5


def test_a_server_that_takes_much_and_then_sleeps_costs_no_gap() -> None:
    """PulseAudio, when an idle sink is opened: nothing sounds until it runs evenly."""
    device = Loudspeaker(48000, (256,), 0, 0.0, 3)
    feed = MonitorFeed(RATE, 512, GUARD, 512)
    feed.link = device.link
    device.begin -= 0.2  # all that comes at once
    device.next = device._when()
    device.stands = 0.01, 2.0
    device.run(0.005)

    def work(moment: Moment) -> None:
        feed.give(moment, np.full((512, 1), 0.5, np.float32))

    run(device, work, 4, 512, 256, 0.0)
    assert feed.gaps == 0
    assert device.late == 0
    assert np.concatenate(device.sound)[-RATE // 2 :].min() > 0.49


def test_another_microphone_is_faded_to() -> None:
    hop, block = 512, 256
    devices = [Microphone(48000, (256,), 300, 0.0, 2), Microphone(44100, (441,), -300, 0.0, 4)]
    links = [device.link for device in devices]
    feed = MicrophoneFeed(RATE, hop, GUARD)
    feed.link = links[0]
    sound: list[Float32] = []

    def work(moment: Moment) -> None:
        devices[1].run(moment.time * 1e-9)
        if moment.hop > RATE:
            feed.link = links[1]
        out = np.empty((hop, 1), np.float32)
        feed.take(moment, out)
        sound.append(out)

    run(devices[0], work, 2, hop, block, 0.0)
    heard = np.concatenate(sound)
    assert feed.gaps == 1
    assert np.max(np.abs(heard[-RATE // 2 :])) == pytest.approx(0.5, abs=0.01)
    assert largest_step(heard) < 2 * np.pi * HZ / RATE * 0.5 + 0.5 / GUARD + 0.001, "it clicks"


def test_a_worker_that_was_away_finds_the_monitor_again() -> None:
    """Half a second without hops: silence that is owed is paid, and the latency is as before."""
    hop, block = 512, 256
    device = Loudspeaker(48000, (256,), 200, 0.0, 3)
    feed = MonitorFeed(RATE, hop, GUARD, hop - 256 + block)
    feed.link = link = device.link
    distances: list[float] = []

    def work(moment: Moment) -> None:
        if RATE <= moment.hop < 1.5 * RATE:
            return
        feed.give(moment, np.full((hop, 1), 0.5, np.float32))
        if device.last is not None:
            distances.append(feed._missing(link, moment) or 0.0)

    run(device, work, 3, hop, block, 0.0)
    assert feed.gaps == 1
    assert device.lacking == 0
    assert abs(distances[-1]) < 10
    assert np.concatenate(device.sound)[-RATE // 2 :].min() > 0.49


def test_the_loop_forgives_one_late_callback() -> None:
    loop = ClockLoop(RATE, 200)
    for look in range(2000):
        loop.update(3000.0 if look == 1000 else 0.0, 256 / RATE)
        assert not loop.lost
        assert abs(loop.correction) < 2e-4
    for _ in range(200):
        loop.update(300.0, 256 / RATE)
    assert loop.lost


@pytest.mark.slow
def test_half_an_hour() -> None:
    feed, _, sound, errors = microphone((48000, (512,), 500, 0.002, 2048, 512), 1800)
    assert feed.gaps == 0
    assert max(map(abs, errors)) < 512
    heard = np.concatenate(sound)
    begin = int(np.flatnonzero(heard)[0]) + GUARD
    assert np.max(np.abs(cents(heard[begin:]))) < 5
    assert feed.correction == pytest.approx(500e-6, abs=150e-6)
