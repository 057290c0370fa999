"""What `nmf`, `repet-sim` and `hpss` have in common, and where each is checked against a peer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_sep.blocks import BlockSeparator
from realtime_sep.dsp.stft import Analysis, Synthesis
from realtime_sep.errors import UsageError
from realtime_sep.offline import separate
from realtime_sep.plugins import load_separator
from realtime_sep.separators import Separator
from realtime_sep.separators.hpss import Hpss
from realtime_sep.separators.nmf import Nmf, factorised
from realtime_sep.separators.repet import RepetSim, median_of, nearest
from realtime_sep.types import PROFILES, Float32, Geometry

RATE = 44100
NAMES = ["nmf", "repet-sim", "hpss"]
#: Small enough for a peer to be asked about every spectrum.
SMALL = Geometry(256, 128, 64)


def run(separator: Separator, audio: Float32) -> Float32:
    """Stems `(2, n, channels)` of as many whole hops as `audio` has, not aligned."""
    hop = separator.info.hop
    whole = len(audio) // hop * hop
    stems = np.full((2, whole, audio.shape[1]), np.nan, np.float32)
    part = np.empty((2, hop, audio.shape[1]), np.float32)
    for start in range(0, whole, hop):
        separator.process(audio[start : start + hop], part)
        stems[:, start : start + hop] = part
    return stems


def music(seconds: float = 1.5, channels: int = 2, rate: int = RATE, seed: int = 0) -> Float32:
    """Chords, beats, and a gliding voice of harmonics over them."""
    rng = np.random.default_rng(seed)
    now = np.arange(int(seconds * rate)) / rate
    beat = np.exp(-30 * (now % 0.25))
    out = 0.05 * beat * rng.standard_normal(len(now))
    for hertz in (220.0, 277.2, 329.6):
        out += 0.04 * np.sin(2 * np.pi * hertz * now)
    phase = 2 * np.pi * np.cumsum(300 + 40 * np.sin(2 * np.pi * 1.3 * now)) / rate
    out += sum(0.06 / n * np.sin(n * phase) for n in range(1, 12))
    gains = np.linspace(1, 0.6, channels)
    return (out[:, np.newaxis] * gains).astype(np.float32)


def decibels(audio: Float32) -> float:
    return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64)) + 1e-30))


def late(audio: Float32, frames: int) -> Float32:
    """`audio` delayed by `frames`, as long as before."""
    return np.concatenate([np.zeros((frames, audio.shape[1]), np.float32), audio])[: len(audio)]


# --- what holds for all --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("profile", "rate", "channels"), [("studio", 44100, 2), ("live", 48000, 1), ("stage", 44100, 1)]
)
def test_stems_add_up_to_the_delayed_mix(name: str, profile: str, rate: int, channels: int) -> None:
    separator = load_separator(name, samplerate=rate, channels=channels, profile=profile)
    audio = music(1.5, channels, rate)
    stems = run(separator, audio)
    wanted = late(audio, separator.info.latency)[: stems.shape[1]]
    assert decibels(stems.sum(axis=0) - wanted) <= -120
    assert decibels(stems[0]) > decibels(audio) - 40, "and something was separated"


@pytest.mark.parametrize(
    ("name", "options"),
    [("nmf", {}), ("repet-sim", {}), ("hpss", {}), ("hpss", {"lookahead": 4})],
)
@pytest.mark.parametrize("profile", PROFILES)
def test_latency_to_the_sample(name: str, options: dict[str, int], profile: str) -> None:
    """The first stem's noise follows the input's by `info.latency`, found by correlation."""
    separator = load_separator(name, samplerate=RATE, channels=1, profile=profile, **options)
    geometry = PROFILES[profile]
    lookahead = options.get("lookahead", 0)
    assert separator.info.latency == geometry.synthesis + (lookahead - 1) * geometry.hop
    audio = music(1.5, 1)
    first = run(separator, audio)[0, :, 0]
    spectrum = np.fft.rfft(first, 2 * len(audio)) * np.fft.rfft(audio[:, 0], 2 * len(audio)).conj()
    spectrum /= np.abs(spectrum) + 1e-6  # a sharp peak
    assert int(np.argmax(np.fft.irfft(spectrum))) == separator.info.latency


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None)
@given(blocks=st.lists(st.integers(1, 2000), min_size=1, max_size=6))
def test_any_blocks_give_the_same_samples(name: str, blocks: list[int]) -> None:
    audio = music(0.4)
    expected = _blocks(name, audio, [len(audio)])
    np.testing.assert_array_equal(_blocks(name, audio, blocks), expected)


def _blocks(name: str, audio: Float32, blocks: list[int]) -> Float32:
    """The vocals (or the beats) as they come out of blocks of these lengths, aligned."""
    with BlockSeparator(name, RATE, channels=2) as separator:
        parts, start, n = [], 0, 0
        while start < len(audio):
            stop = min(start + blocks[n % len(blocks)], len(audio))
            parts.append(next(iter(separator.process(audio[start:stop]).values())))
            start, n = stop, n + 1
        parts.append(next(iter(separator.flush().values())))
    return np.concatenate(parts)


@pytest.mark.parametrize("name", NAMES)
def test_silence_gives_silence_and_leaves_no_trace(name: str) -> None:
    separator = load_separator(name, samplerate=RATE)
    silence = np.zeros((RATE, 2), np.float32)
    assert not run(separator, silence).any()
    audio = music(0.5)
    run(separator, audio)
    separator.reset()
    fresh = run(load_separator(name, samplerate=RATE), audio)
    np.testing.assert_array_equal(run(separator, audio), fresh)
    assert not run(separator, silence)[:, 4096:].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gain", [2.0**-10, 0.013, 2.0**5])
def test_the_level_does_not_matter(name: str, gain: float) -> None:
    """-60 dB to +30 dB: the stems follow it."""
    audio = music()
    usual = run(load_separator(name, samplerate=RATE), audio)
    other = run(load_separator(name, samplerate=RATE), (gain * audio).astype(np.float32)) / gain
    assert decibels(other - usual) < decibels(usual) - 60


@pytest.mark.parametrize("name", NAMES)
def test_one_channel_is_two_equal_ones(name: str) -> None:
    mono = music(1.0, 1)
    single = run(load_separator(name, samplerate=RATE, channels=1), mono)
    double = run(load_separator(name, samplerate=RATE), np.repeat(mono, 2, axis=1))
    assert decibels(double - single) < decibels(single) - 80


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e25])
def test_recovers_from_impossible_samples(name: str, poison: float) -> None:
    audio = music(1.0)
    clean = run(load_separator(name, samplerate=RATE), audio)
    bad = audio.copy()
    bad[5000] = poison
    stems = run(load_separator(name, samplerate=RATE), bad)[:, RATE // 2 :]
    assert np.isfinite(stems).all()
    assert decibels(stems - clean[:, RATE // 2 :]) < decibels(clean) - 20


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UsageError, match="did you mean 'stage'"):
        Nmf(samplerate=RATE, profile="stagee")
    with pytest.raises(UsageError, match="not 6"):
        RepetSim(samplerate=RATE, channels=6)
    with pytest.raises(UsageError, match="did you mean 'kl'"):
        Nmf(samplerate=RATE, divergence="kll")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="seconds, not -1"):
        Nmf(samplerate=RATE, memory=-1)
    with pytest.raises(UsageError, match="updates is 1 to 100"):
        Nmf(samplerate=RATE, updates=0)
    with pytest.raises(UsageError, match="gap is 0 to 2 seconds"):
        RepetSim(samplerate=RATE, memory=2, gap=3)
    with pytest.raises(UsageError, match="lookahead"):
        Hpss(samplerate=RATE, time=0.05, lookahead=50)


# --- nmf -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", ["kl", "is"])
def test_a_sung_tone_is_voice_and_a_beat_is_not(divergence: str) -> None:
    now = np.arange(2 * RATE) / RATE
    phase = 2 * np.pi * np.cumsum(260 + 12 * np.sin(2 * np.pi * 5.5 * now)) / RATE
    formants = [np.exp(-(((260 * n - 700) / 400) ** 2)) + 0.05 for n in range(1, 16)]
    voice = sum(0.1 * g * np.sin((n + 1) * phase) for n, g in enumerate(formants))
    beat = 0.3 * np.exp(-25 * (now % 0.5)) * np.sin(2 * np.pi * 55 * now)
    audio = np.stack([voice + beat] * 2, axis=1).astype(np.float32)
    stems = separate(audio, RATE, "nmf", divergence=divergence)
    sung = np.stack([voice] * 2, axis=1)
    drums = np.stack([beat] * 2, axis=1)
    assert decibels(stems["vocals"] - sung) < decibels(sung) - 3
    assert decibels(stems["accompaniment"] - drums) < decibels(sung) - 3


def test_it_learns_the_music_and_forgets_it() -> None:
    audio = music(3.0)
    separator = Nmf(samplerate=RATE, memory=1.0)
    first = separator._atoms.copy()
    run(separator, audio)
    voices = separator._known.voices
    np.testing.assert_array_equal(separator._atoms[:voices], first[:voices])
    changed = np.abs(separator._atoms - first).sum()
    assert changed > 0.1
    np.testing.assert_allclose(separator._atoms.sum(axis=1), 1, atol=1e-4)
    separator.reset()
    np.testing.assert_array_equal(separator._atoms, first)
    still = Nmf(samplerate=RATE, memory=0)
    run(still, audio)
    np.testing.assert_array_equal(still._atoms, first)


@pytest.mark.parametrize("divergence", ["kl", "is"])
def test_a_whole_recording_at_once(divergence: str) -> None:
    audio = music(1.0)
    stems = factorised(audio, RATE, divergence=divergence)  # type: ignore[arg-type]
    assert decibels(stems["vocals"] + stems["accompaniment"] - audio) <= -120
    # Learned otherwise, but at the same place in time.
    streamed = separate(audio, RATE, "nmf", divergence=divergence)["vocals"][:, 0]
    twice = 2 * len(audio)
    pair = np.fft.rfft(stems["vocals"][:, 0], twice), np.fft.rfft(streamed, twice)
    assert int(np.argmax(np.fft.irfft(pair[0] * pair[1].conj()))) == 0


# --- repet-sim -----------------------------------------------------------------------------------


def spectra(count: int, bins: int = 33, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).gamma(0.5, 1, (count, bins)).astype(np.float32)


def test_the_median_of_neighbours_is_librosas() -> None:
    """Over a whole spectrogram, of which librosa takes both past and future.

    Only with distances does librosa keep the nearest of the neighbours.
    """
    librosa = pytest.importorskip("librosa")
    rows, width, count = spectra(60), 4, 7
    theirs = librosa.decompose.nn_filter(
        rows.T, aggregate=np.median, metric="cosine", mode="distance", k=count, width=width
    ).T
    norms = np.linalg.norm(rows, axis=1).astype(np.float32)
    ours = np.empty_like(rows)
    chosen, closeness = np.zeros(count, np.int64), np.zeros(count, np.float32)
    for t, row in enumerate(rows):
        allowed = np.where(np.abs(np.arange(len(rows)) - t) >= width, norms, np.float32(-1))
        found = nearest(row, rows, allowed, count, chosen, closeness)
        median_of(rows, chosen, found, np.zeros(count, np.float32), ours[t])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_repet_is_the_filter_of_the_past() -> None:
    """Through a memory that wraps around: against the definition, spectrum by spectrum."""
    separator = RepetSim(
        samplerate=8000, channels=1, geometry=SMALL, memory=0.4, gap=0.05, similar=5
    )
    rate = 8000 / SMALL.hop
    memory, gap = round(0.4 * rate), round(0.05 * rate)
    first = int(np.ceil(100 * SMALL.n_fft / 8000))
    audio = music(1.5, 1, 8000)
    stems = run(separator, audio)
    analysis, synthesis = Analysis(SMALL, 1), Synthesis(SMALL, 1)
    heard: list[Float32] = []
    wanted = np.zeros((stems.shape[1], 1), np.float32)
    for start in range(0, stems.shape[1], SMALL.hop):
        spectrum = analysis.process(audio[start : start + SMALL.hop])
        now = np.abs(spectrum[0])
        past = heard[max(0, len(heard) - memory) : max(0, len(heard) - gap + 1)]
        mask = np.zeros_like(now)
        if past:
            close = [row @ now / np.linalg.norm(row) for row in past]
            rows = [past[i] for i in np.argsort(close)[::-1][:5]]
            repeating = np.minimum(np.median(rows, axis=0), now)
            mask = (now - repeating) ** 2 / ((now - repeating) ** 2 + repeating**2)
            mask[:first] = 0
        heard.append(now)
        synthesis.process((mask * spectrum).astype(np.complex64), wanted[start:][: SMALL.hop])
    # Two neighbours that are equally near may be told apart by rounding.
    assert decibels(stems[0] - wanted) < decibels(wanted) - 30


def test_what_repeats_is_music() -> None:
    """A loop heard several times, then a tone over it that was never there."""
    loop = np.tile(music(0.5, 1), (8, 1))
    tone = np.zeros_like(loop)
    here = slice(3 * RATE, None)
    now = np.arange(len(loop) - 3 * RATE) / RATE
    tone[here, 0] = 0.1 * np.sin(2 * np.pi * 1234 * now)
    stems = separate(loop + tone, RATE, "repet-sim", memory=4.0, gap=1.0)
    assert decibels(stems["vocals"][here] - tone[here]) < decibels(tone[here]) - 6
    settled = slice(2 * RATE, 3 * RATE)
    assert decibels(stems["vocals"][settled]) < decibels(loop[settled]) - 15


# --- hpss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
def test_centred_medians_are_librosas(channels: int) -> None:
    librosa = pytest.importorskip("librosa")
    rate, hops, bins = 8000, 9, 11
    separator = Hpss(
        samplerate=rate,
        channels=channels,
        geometry=SMALL,
        time=hops * SMALL.hop / rate,
        width=bins * rate / SMALL.n_fft,
        lookahead=hops // 2,
    )
    audio = music(1.0, channels, rate)
    stems = run(separator, audio)
    analysis, synthesis = Analysis(SMALL, channels), Synthesis(SMALL, channels)
    count = stems.shape[1] // SMALL.hop
    frames = np.stack(
        [analysis.process(audio[t * SMALL.hop :][: SMALL.hop]).copy() for t in range(count)], -1
    )
    masks = [
        librosa.decompose.hpss(np.abs(f), kernel_size=(hops, bins), mask=True)[1] for f in frames
    ]
    wanted = np.zeros((stems.shape[1], channels), np.float32)
    for t in range(count):
        synthesis.process(
            np.ascontiguousarray((frames * np.stack(masks))[..., t], dtype=np.complex64),
            wanted[t * SMALL.hop :][: SMALL.hop],
        )
    # Before the beginning there is silence here, and a mirrored spectrogram there.
    ahead = hops // 2 * SMALL.hop
    inside = slice(2 * hops * SMALL.hop, -2 * hops * SMALL.hop)
    np.testing.assert_allclose(stems[0, ahead:][inside], wanted[:-ahead][inside], atol=1e-5)


@pytest.mark.parametrize("lookahead", [0, 8])
def test_beats_and_tones_part(lookahead: int) -> None:
    now = np.arange(2 * RATE) / RATE
    tone = 0.1 * np.sin(2 * np.pi * 440 * now)[:, np.newaxis].astype(np.float32)
    beats = np.zeros_like(tone)
    beats[RATE // 4 :: RATE // 4] = 1.0
    stems = separate(tone + beats, RATE, "hpss", lookahead=lookahead)
    settled = slice(RATE // 2, 3 * RATE // 2)
    for name, wanted in (("harmonic", tone), ("percussive", beats)):
        assert decibels((stems[name] - wanted)[settled]) < decibels(wanted[settled]) - 10
