"""The engine: one hop in, one hop out, always clean, always in time with itself."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.dsp.guard import FADE, INPUT_LIMIT
from realtime_sep.dsp.meters import decibels, linear
from realtime_sep.effects import Parameter
from realtime_sep.effects.gain import Gain
from realtime_sep.engine import Engine
from realtime_sep.errors import UsageError
from realtime_sep.offline import separate
from realtime_sep.separators import Separator
from realtime_sep.separators.center import Center, PlainCenter
from realtime_sep.separators.identity import Identity
from realtime_sep.types import PROFILES, Float32, Geometry, SeparatorInfo

RATE = 44100
CEILING = np.float32(10 ** (-1 / 20))
STEMS = ("vocals", "accompaniment")
Make = Callable[..., Separator]
EVERY: dict[str, Make] = {"identity": Identity, "center": Center, "center-plain": PlainCenter}


def _slow(samplerate: int) -> Separator:
    """Several hops of latency."""
    return Center(samplerate=samplerate, geometry=Geometry(1024, 768, 128))


#: -120 dBFS.
INAUDIBLE = 1e-6


class Late:
    """Gives the mix `latency` frames late: 3/4 of it as vocals, 1/4 as accompaniment."""

    def __init__(
        self, *, samplerate: int = RATE, channels: int = 2, hop: int, latency: int
    ) -> None:
        self.info = SeparatorInfo("late", STEMS, samplerate, channels, hop, latency)
        self.reset()

    def reset(self) -> None:
        self._past = np.zeros((self.info.latency, self.info.channels), np.float32)

    def process(self, hop: Float32, stems: Float32) -> None:
        line = np.concatenate([self._past, hop])
        stems[0] = 0.75 * line[: len(hop)]
        stems[1] = 0.25 * line[: len(hop)]
        self._past = line[len(hop) :]


class AddLatency:
    """An effect that does nothing, late."""

    parameters: tuple[Parameter, ...] = ()

    def __init__(self, frames: int) -> None:
        self.latency = frames

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None:
        self._line = np.zeros((self.latency, channels), np.float32)

    def set(self, name: str, value: float) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        self._line[:] = 0

    def process(self, block: Float32) -> None:
        line = np.concatenate([self._line, block])
        block[:] = line[: len(block)]
        self._line = line[len(block) :]


class Poisoned:
    """An effect with a memory that, like a recursive filter, keeps a NaN for ever."""

    parameters: tuple[Parameter, ...] = ()
    latency = 0

    def __init__(self) -> None:
        self.memory = np.float32(0)
        self.resets = 0

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None: ...

    def set(self, name: str, value: float) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        self.memory = np.float32(0)
        self.resets += 1

    def process(self, block: Float32) -> None:
        block += self.memory


class Flaky:
    """Another separator, that fails as `failures` says by hop."""

    def __init__(self, inner: Separator, failures: dict[int, str]) -> None:
        self.inner, self.info = inner, inner.info
        self.failures = failures
        self.hops = self.resets = 0
        self.sent: Float32 = np.zeros(0, np.float32)

    def reset(self) -> None:
        self.inner.reset()
        self.resets += 1

    def process(self, hop: Float32, stems: Float32) -> None:
        self.inner.process(hop, stems)
        kind = self.failures.get(self.hops)
        if kind == "nan":
            stems[0, len(hop) // 2, 0] = np.nan
        elif kind == "inf":
            stems[1, 0, :] = np.inf
        elif kind == "loud":
            stems[:] = 1000 * hop + 100
        self.hops += 1
        self.sent = stems.copy()


def run(engine: Engine, audio: Float32) -> Float32:
    """As many whole hops as `audio` has."""
    whole = len(audio) // engine.hop * engine.hop
    out = np.full((whole, engine.out_channels), np.nan, np.float32)
    for start in range(0, whole, engine.hop):
        engine.process(audio[start : start + engine.hop], out[start : start + engine.hop])
    return out


def stems_engine(separator: Separator) -> Engine:
    return Engine(separator, outputs=separator.info.stems, limiter=False)


def late(audio: Float32, frames: int) -> Float32:
    return np.concatenate([np.zeros((frames, audio.shape[1]), np.float32), audio])[: len(audio)]


def noise(frames: int, channels: int = 2, seed: int = 0, level: float = 0.5) -> Float32:
    generator = np.random.default_rng(seed)
    return generator.uniform(-level, level, (frames, channels)).astype(np.float32)


@cache
def song() -> Float32:
    """Seconds of music, `(frames, 2)`."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    try:
        from song import render_song
    finally:
        sys.path.pop(0)
    return np.ascontiguousarray(render_song(5.0).mix, np.float32)


# ---- streaming is offline ------------------------------------------------------------------------


class Reblocker:
    """Blocks of any size in, blocks of the same sizes out, `hop - 1` frames later at the most.  It
    uses its buffers again and again, as a ring does: whoever keeps a view of one gets rubbish."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._hop = np.empty((engine.hop, engine.channels), np.float32)
        self._out = np.empty((engine.hop, engine.out_channels), np.float32)
        self._filled = 0

    def process(self, block: Float32) -> list[Float32]:
        finished = []
        while len(block):
            part = block[: self._engine.hop - self._filled]
            self._hop[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            block = block[len(part) :]
            if self._filled == self._engine.hop:
                self._engine.process(self._hop, self._out)
                finished.append(self._out.copy())
                self._hop[:], self._out[:] = 9, 9
                self._filled = 0
        return finished


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["identity", "center"]),
    blocks=st.lists(
        st.one_of(st.integers(1, 4096), st.sampled_from([1, 127, 255, 256, 257, 4096])),
        min_size=1,
        max_size=30,
    ),
    seed=st.integers(0, 100),
)
def test_streaming_is_offline_bit_for_bit(name: str, blocks: list[int], seed: int) -> None:
    audio = noise(sum(blocks), seed=seed)
    engine = stems_engine(EVERY[name](samplerate=RATE))
    reblocker = Reblocker(engine)
    finished = [np.empty((0, 4), np.float32)]
    for block in np.split(audio, np.cumsum(blocks)[:-1]):
        finished += reblocker.process(block)
    streamed = np.concatenate(finished)[engine.latency :]
    offline = separate(audio, RATE, EVERY[name](samplerate=RATE))
    for i, stem in enumerate(STEMS):
        expected = offline[stem][: len(streamed)]
        np.testing.assert_array_equal(streamed[:, 2 * i : 2 * i + 2], expected)


@pytest.mark.parametrize("name", EVERY)
def test_the_input_is_not_written(name: str) -> None:
    engine = Engine(EVERY[name](samplerate=RATE), outputs=("mix", *STEMS), effects=[Gain()])
    audio = noise(20 * engine.hop)
    before = audio.copy()
    run(engine, audio)
    np.testing.assert_array_equal(audio, before)


# ---- the stems add up ----------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("material", ["noise", "song", "full scale"])
@pytest.mark.parametrize("name", EVERY)
def test_stems_add_up_to_the_delayed_mix(name: str, material: str, channels: int) -> None:
    audio = {
        "noise": noise(20000),
        "song": song()[: 4 * RATE],
        "full scale": np.sign(noise(20000)),
    }[material][:, :channels]
    engine = stems_engine(EVERY[name](samplerate=RATE, channels=channels))
    out = run(engine, np.ascontiguousarray(audio))
    total = out[:, :channels] + out[:, channels:]
    assert np.abs(total - late(audio[: len(out)], engine.latency)).max() <= INAUDIBLE
    assert engine.bad_hops == 0
    if material == "song" and channels == 2 and name != "identity":
        assert np.abs(out[:, :2]).max() > 0.1, "and something was separated"


# ---- latency -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    hop=st.sampled_from([1, 5, 64, 100, 256]),
    separator=st.integers(0, 600),
    effects=st.lists(st.integers(0, 300), max_size=3),
    limiter=st.booleans(),
    channels=st.sampled_from([1, 2]),
    place=st.integers(0, 500),
)
def test_an_impulse_leaves_every_bus_after_exactly_the_latency(
    hop: int, separator: int, effects: list[int], limiter: bool, channels: int, place: int
) -> None:
    engine = Engine(
        Late(hop=hop, latency=separator, channels=channels),
        outputs=("vocals", "mix", "accompaniment", "mix"),
        effects=[AddLatency(frames) for frames in effects],
        limiter=limiter,
    )
    assert engine.latency == separator + sum(effects) + (32 if limiter else 0)
    audio = np.zeros((place + engine.latency + 2 * hop + 10, channels), np.float32)
    audio[place] = 0.5
    out = run(engine, audio)
    expected = np.zeros_like(out)
    expected[place + engine.latency] = np.repeat([0.375, 0.5, 0.125, 0.5], channels)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("samplerate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_centre_separator_at_any_rate_keeps_time(
    samplerate: int, channels: int, profile: str
) -> None:
    """All buses are aligned to the sample, whatever the separator made of the impulse."""
    separator = Center(samplerate=samplerate, channels=channels, profile=profile)
    engine = Engine(separator, outputs=("mix", *STEMS), effects=[AddLatency(17)])
    audio = noise(40 * engine.hop, channels, level=0.1)
    audio[1000] = 0.8
    out = run(engine, audio)
    mix, vocals, rest = np.split(out, 3, axis=1)
    expected = late(audio, engine.latency)
    assert np.abs(mix - expected).max() <= INAUDIBLE
    assert np.abs(vocals + rest - expected).max() <= INAUDIBLE


@pytest.mark.parametrize("geometry", [Geometry(512, 256, 100), Geometry(256, 64, 7)])
def test_odd_hops_keep_time_as_well(geometry: Geometry) -> None:
    engine = stems_engine(Center(samplerate=RATE, geometry=geometry))
    assert engine.latency == geometry.synthesis - geometry.hop
    audio = noise(60 * engine.hop)
    out = run(engine, audio)
    assert np.abs(out[:, :2] + out[:, 2:] - late(audio, engine.latency)).max() <= INAUDIBLE


# ---- faders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("db", [6.0, -3.0, -12.0, -60.0])
@pytest.mark.parametrize("stem", [0, 1])
def test_a_fader_changes_its_stem_by_that_many_decibels(stem: int, db: float) -> None:
    engine = Engine(Late(hop=128, latency=100), outputs=("mix", *STEMS), limiter=False)
    engine.faders.targets[1 - stem] = 0
    engine.faders.targets[stem] = linear(db)
    run(engine, noise(2 * RATE, level=0.01))  # on its way
    mix, *stems = np.split(run(engine, noise(128 * 40)), 3, axis=1)
    ratio = np.sqrt(np.mean(mix**2) / np.mean(stems[stem] ** 2))
    assert decibels(float(ratio)) == pytest.approx(db, abs=0.001)


def test_faders_do_not_touch_the_stem_buses() -> None:
    engine = Engine(Late(hop=128, latency=0), outputs=("mix", *STEMS), limiter=False)
    engine.faders.targets[:] = 0
    audio = noise(128 * 40)
    out = run(engine, audio)
    assert not out[-128:, :2].any()
    np.testing.assert_array_equal(out[:, 2:4], 0.75 * audio)


# ---- hostile input -------------------------------------------------------------------------------

HOSTILE = [np.nan, np.inf, -np.inf, 1e38, -3.4e38, 1001.0, 1000.0, -1000.0, 1e-45, 1e-39, 1.5]


@pytest.mark.parametrize("name", EVERY)
def test_hostile_input_is_worth_silence(name: str) -> None:
    """Samples that are not audio count as zero, and nothing of them is left anywhere: from then on
    the output is, bit for bit, that of a stream that had silence there."""
    rng = np.random.default_rng(0)
    audio = noise(64 * 256)
    places = rng.integers(0, 32 * 256, 2000), rng.integers(0, 2, 2000)
    audio[places] = rng.choice(np.array(HOSTILE, np.float32), 2000)
    audio[10 * 256 : 12 * 256] = np.nan
    audio[20 * 256 : 22 * 256] = np.inf
    outputs = ("mix", *STEMS)
    engine = Engine(EVERY[name](samplerate=RATE), outputs=outputs, effects=[Gain()])
    out = run(engine, audio)
    good = np.abs(audio) <= INPUT_LIMIT
    reference = Engine(EVERY[name](samplerate=RATE), outputs=outputs, effects=[Gain()])
    np.testing.assert_array_equal(out, run(reference, np.where(good, audio, np.float32(0))))
    assert np.all(np.isfinite(out))
    assert np.abs(out[:, :2]).max() <= CEILING
    assert engine.bad_input == np.count_nonzero(~good)
    assert engine.bad_hops == 0
    assert engine.limited_hops > 0
    assert np.all(np.isfinite(engine.peaks))
    assert np.isfinite(engine.loudness.value)


def test_levels_that_were_absurd_leave_a_healthy_separator() -> None:
    """After a second of +60 dBFS the centre is found again, as well as by a fresh separator."""
    loud = noise(RATE, level=1000)
    engine = stems_engine(Center(samplerate=RATE))
    run(engine, loud)
    music = song()
    healthy = run(stems_engine(Center(samplerate=RATE)), music)
    after = run(engine, music)
    assert np.abs(after[2 * RATE :] - healthy[2 * RATE :]).max() <= 1e-3


# ---- failing separators --------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    make=st.sampled_from([*EVERY.values(), _slow]),
    failures=st.dictionaries(
        st.integers(0, 60), st.sampled_from(["nan", "inf", "loud"]), max_size=12
    ),
    limiter=st.booleans(),
)
def test_a_failing_separator_is_not_heard(
    make: Make, failures: dict[int, str], limiter: bool
) -> None:
    """What leaves is finite, adds up to the mix without a gap, and has no step that the music does
    not have; the separator is reset each time, and heard again, unchanged, soon after the last."""
    separator = Flaky(make(samplerate=RATE), failures)
    engine = Engine(separator, outputs=("mix", *STEMS), limiter=limiter)
    time = np.arange(80 * 256)[:, np.newaxis] / RATE
    audio = (0.4 * np.sin(2 * np.pi * time * [220, 331])).astype(np.float32)
    out = run(engine, audio)
    assert np.all(np.isfinite(out))
    mix, vocals, rest = np.split(out, 3, axis=1)
    dry = late(audio, engine.latency)
    assert np.abs(vocals + rest - dry).max() <= INAUDIBLE
    assert np.abs(mix - dry).max() <= INAUDIBLE
    assert engine.bad_hops == separator.resets == len(failures)

    clean = run(stems_engine(make(samplerate=RATE)), audio)
    step = np.abs(np.diff(clean, axis=0)).max()
    jumps = np.abs(np.diff(np.hstack([vocals, rest]), axis=0)).max()
    assert jumps <= 2 * step + 2 * 0.5 / FADE
    if max(failures, default=0) < len(out) // engine.hop - 8:
        np.testing.assert_array_equal(engine.stems, separator.sent)


def test_a_separator_that_only_fails_passes_the_mix() -> None:
    separator = Flaky(Center(samplerate=RATE), dict.fromkeys(range(100), "nan"))
    engine = Engine(separator)
    audio = noise(100 * 256)
    np.testing.assert_array_equal(run(engine, audio), late(audio, engine.latency))
    assert engine.bad_hops == 100


@pytest.mark.parametrize("name", EVERY)
def test_music_is_never_taken_for_a_failure(name: str) -> None:
    """Sudden beginnings and ends at any level: not one hop is mended, not one bit changed."""
    separator = Flaky(EVERY[name](samplerate=RATE), {})
    engine = Engine(separator, limiter=False)
    levels = (1e-5, 1, 0, 1e-3, 30, 0, 1e-7, 0.1)
    audio = np.concatenate([noise(40 * 256, seed=i, level=v) for i, v in enumerate(levels)])
    audio = np.concatenate([audio, song()[: 2 * RATE] * 2])
    out = np.empty((256, 2), np.float32)
    for start in range(0, len(audio) - 255, 256):
        engine.process(audio[start : start + 256], out)
        np.testing.assert_array_equal(engine.stems, separator.sent)
    assert engine.bad_hops == 0


# ---- failing effects -----------------------------------------------------------------------------


@pytest.mark.parametrize("limiter", [True, False])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -1e30])
def test_a_poisoned_effect_is_taken_out(poison: float, limiter: bool) -> None:
    effect = Poisoned()
    engine = Engine(Identity(samplerate=RATE), effects=[effect], limiter=limiter)
    audio = noise(40 * 256)
    before = run(engine, audio[: 20 * 256])
    effect.memory = np.float32(poison)
    after = run(engine, audio[20 * 256 :])
    out = np.concatenate([before, after])
    assert np.all(np.isfinite(out))
    assert np.abs(out).max() <= (CEILING if limiter else 1)
    assert engine.failed_effects == 1
    assert engine.chains["mix"].slots[0].failed
    assert engine.bad_hops == 0
    tail = 15 * 256
    dry = late(audio, engine.latency)[-tail:]
    np.testing.assert_array_equal(out[-tail:], np.clip(dry, -CEILING, CEILING) if limiter else dry)
    assert np.isfinite(engine.loudness.value)


# ---- the rest ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_reset_is_a_fresh_engine(name: str) -> None:
    def make() -> Engine:
        return Engine(
            EVERY[name](samplerate=RATE),
            outputs=("mix", *STEMS),
            effects=[AddLatency(50), Gain()],
        )

    engine, audio = make(), np.concatenate([song()[:RATE] * 2, noise(64 * 256)])
    first = run(engine, audio)
    run(engine, noise(10 * 256, seed=3, level=900))
    loud = engine.loudness.value
    engine.reset()
    assert engine.loudness.value < loud
    np.testing.assert_array_equal(run(engine, audio), first)
    np.testing.assert_array_equal(run(make(), audio), first)


def test_reset_forgets_loud_music_and_failures() -> None:
    """What counts as absurd, and what is put in its place, begins anew: the first hop fails again,
    as in a fresh engine."""

    def make(failures: dict[int, str]) -> tuple[Flaky, Engine]:
        separator = Flaky(Late(hop=128, latency=500), failures)
        return separator, Engine(separator, outputs=("mix", *STEMS))

    used, engine = make({9: "nan"})
    run(engine, noise(10 * 128, level=900))
    used.failures = {used.hops: "loud", used.hops + 7: "loud"}
    engine.reset()
    _, fresh = make({0: "loud", 7: "loud"})
    audio = noise(40 * 128, seed=1)
    np.testing.assert_array_equal(run(engine, audio), run(fresh, audio))
    np.testing.assert_array_equal(engine.dry, fresh.dry)
    assert engine.bad_hops == 1 + fresh.bad_hops == 3


def test_reset_keeps_what_people_turned() -> None:
    engine = Engine(Identity(samplerate=RATE), limiter=False)
    engine.faders.targets[1] = 0.25
    run(engine, noise(256))
    engine.reset()
    audio = noise(256)
    np.testing.assert_array_equal(run(engine, audio), audio * np.float32(0.25))


@pytest.mark.parametrize("name", EVERY)
def test_memory_does_not_grow(name: str) -> None:
    engine = Engine(EVERY[name](samplerate=RATE), outputs=("mix", *STEMS), effects=[Gain()])
    hops = noise(16 * 256, level=1.2).reshape(16, 256, 2)
    out = np.empty((256, engine.out_channels), np.float32)

    def hop_on(count: int) -> None:
        for i in range(count):
            engine.process(hops[i % 16], out)

    hop_on(100)
    tracemalloc.start()
    try:
        hop_on(100)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        hop_on(2000)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= 512, "nothing is kept"
    assert peak - before <= 8192, "and no hop takes more than small objects"


def test_peaks_are_of_input_stems_and_mix() -> None:
    engine = Engine(Late(hop=64, latency=0), limiter=False)
    engine.faders.targets[:2] = 0.5
    engine.faders.settle()
    run(engine, np.full((64, 2), -0.8, np.float32))
    np.testing.assert_allclose(engine.peaks, [0.8, 0.6, 0.2, 0.4], rtol=1e-6)
    run(engine, np.zeros((64, 2), np.float32))
    assert not engine.peaks.any(), "of the last hop alone"


@pytest.mark.parametrize(
    ("hop", "out"), [((255, 2), (256, 2)), ((256, 1), (256, 2)), ((256, 2), (256, 1)), ((0,), (0,))]
)
def test_arrays_of_another_shape_are_refused(hop: Sequence[int], out: Sequence[int]) -> None:
    """The kernels do not check bounds: what does not fit would be read from somewhere."""
    engine = Engine(Identity(samplerate=RATE))
    with pytest.raises(UsageError, match=r"\(256, 2\)"):
        engine.process(np.zeros(hop, np.float32), np.zeros(out, np.float32))


def test_unknown_and_missing_outputs() -> None:
    with pytest.raises(UsageError, match="did you mean 'vocals'"):
        Engine(Identity(samplerate=RATE), outputs=("vocal",))
    with pytest.raises(UsageError, match="at least one output"):
        Engine(Identity(samplerate=RATE), outputs=())


def test_a_separator_that_cannot_be_is_refused() -> None:
    separator = Identity(samplerate=RATE)
    separator.info = SeparatorInfo("odd", (), RATE, 2, 256, 0)
    with pytest.raises(UsageError, match="'odd'"):
        Engine(separator)
