"""Separation by position: lead voices are usually mixed to the centre, equal in both channels.

`Center` looks at each frequency of a short-time spectrum: with the mid M = (L + R) / 2 and the
side S = (L - R) / 2, what is in the centre has no side at all, and every other instrument has.  The
voice is taken to be M wherever the side is clearly weaker, in proportion to how much weaker.  The
idea is that of Avendano and Jot, "Ambience extraction and synthesis from stereo signals for
multi-channel audio up-mix", ICASSP 2002; the mask is ours.  `PlainCenter` is the textbook trick,
for comparison.

Both cannot tell the voice from a bass drum or a solo that is also in the centre, and hear nothing
in a recording whose two channels are the same.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from realtime_sep.dsp.delay import Delay
from realtime_sep.dsp.stft import Analysis, Synthesis
from realtime_sep.errors import UsageError, unknown
from realtime_sep.types import PROFILES, Float32, Geometry, SeparatorInfo

MONO_NOTICE = (
    "this input is mono: nothing can be told apart by position, so the mix passes unchanged; "
    "choose another separator: nmf needs no model"
)

#: Side level, relative to the mid, at which nothing is voice any more; the mask falls linearly with
#: the side's amplitude.  -9 dB was the best of 1, 5, 10 and 16 times in power on the development
#: set, and flat around it.
_SIDE_LIMIT = np.float32(8.0)
#: Time constant in seconds over which the powers are averaged, against musical noise.  The scores
#: do not change between 20 and 100 ms.
_SMOOTHING = 0.05
#: Below the first of these frequencies in Hz nothing is voice (bass, bass drum), above the second
#: the mask rules.
_BASS = (110.0, 180.0)

#: Narrower than -50 dB is mono: a good analogue line's noise, and more than lossy coding adds.
_MONO_WIDTH = 1e-5
#: Power (-60 dBFS) below which nothing is sounding and nothing is learnt about the width.
_AUDIBLE = 1e-6
#: Seconds over which the width is averaged.
_WIDTH_SECONDS = 1.0
#: Seconds of sounding mono after which a stream that was stereo counts as mono: longer than a
#: singer without a band usually stands alone in the centre.
_PATIENCE = 10.0
#: Seconds of sounding mono, from the beginning, after which the user is told.
_NOTICE_AFTER = 3.0
#: Seconds to fade the separation in when stereo is found, and out when it is lost.
_FADE_IN = 0.05
_FADE_OUT = 1.0

_TINY = np.float32(1e-25)
_HUGE = np.float32(1e30)
_HALF = np.float32(0.5)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _moments(hop, sums, keep):  # type: ignore[no-untyped-def]
    """Average the powers of mid and side and their product over time, in `sums` (3,)."""
    mid_power = side_power = product = 0.0
    for i in range(hop.shape[0]):
        mid = 0.5 * (hop[i, 0] + hop[i, 1])
        side = 0.5 * (hop[i, 0] - hop[i, 1])
        mid_power += mid * mid
        side_power += side * side
        product += mid * side
    scale = (1.0 - keep) / hop.shape[0]
    sums[0] = keep * sums[0] + scale * mid_power
    sums[1] = keep * sums[1] + scale * side_power
    sums[2] = keep * sums[2] + scale * product
    # A not-a-number would stay for ever, and a dying tail would become denormal.
    total = sums[0] + sums[1]
    if not 1e-20 < total < 1e30:
        sums[:] = 0.0


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _mask(spectrum, mid_power, side_power, weight, keep, gain, voice):  # type: ignore[no-untyped-def]
    """Fill `voice` (1, bins) with what is in the centre of `spectrum` (2, bins)."""
    new = np.float32(1) - keep
    for k in range(voice.shape[1]):
        mid = _HALF * (spectrum[0, k] + spectrum[1, k])
        side = _HALF * (spectrum[0, k] - spectrum[1, k])
        pm = keep * mid_power[k] + new * (mid.real * mid.real + mid.imag * mid.imag)
        ps = keep * side_power[k] + new * (side.real * side.real + side.imag * side.imag)
        if not pm + ps < _HUGE:  # overflow or not a number: forget
            mid_power[k] = 0
            side_power[k] = 0
            voice[0, k] = 0
            continue
        pm = pm if pm > _TINY else np.float32(0)
        ps = ps if ps > _TINY else np.float32(0)
        mid_power[k] = pm
        side_power[k] = ps
        limited = _SIDE_LIMIT * ps
        mask = np.float32(1) - np.sqrt(limited / pm) if limited < pm else np.float32(0)
        voice[0, k] = (gain * weight[k] * mask) * mid


@njit(cache=True, nogil=True)
def _both_sides(voice, stems):  # type: ignore[no-untyped-def]
    """`stems[1]` holds the mix: give `voice` (H, 1) to both channels of stems[0], the rest to 1."""
    for i in range(voice.shape[0]):
        for c in range(stems.shape[2]):
            stems[0, i, c] = voice[i, 0]
            stems[1, i, c] -= voice[i, 0]


class _Width:
    """Tells whether a stereo stream has any width, and fades the separation in and out by that.

    The width is the part of the side that is no copy of the mid, so one channel a little louder
    than the other (a line input), or a single instrument panned aside, is still mono.

    A voice alone in the centre is mono as well.  So a stream starts as mono, and the very first hop
    with any width makes it stereo: mono music is never muted, not even for seconds, at the price
    that a dry voice before the first other sound is heard.  A stream that was stereo stays so
    through `_PATIENCE` seconds of a voice alone.
    """

    def __init__(self, samplerate: int, hop: int) -> None:
        self._seconds = hop / samplerate
        self._keep = float(np.exp(-self._seconds / _WIDTH_SECONDS))
        self._sums = np.zeros(3)
        self.reset()

    def reset(self) -> None:
        self._sums[:] = 0
        self.gain = 0.0
        self._mono_seconds = _PATIENCE

    def process(self, hop: Float32) -> float:
        """Take `(H, 2)`; return the gain of the separated voice, 0..1."""
        _moments(hop, self._sums, self._keep)
        mid, side, product = self._sums
        if mid + side > _AUDIBLE:
            alone = side - product * product / mid if mid > 0 else 0.0
            self._mono_seconds += self._seconds
            if alone > _MONO_WIDTH * mid and mid > 0:
                self._mono_seconds = 0.0
        if self._mono_seconds < _PATIENCE:
            self.gain = min(1.0, self.gain + self._seconds / _FADE_IN)
        else:
            self.gain = max(0.0, self.gain - self._seconds / _FADE_OUT)
        return self.gain

    @property
    def is_mono(self) -> bool:
        """Mono for long enough to tell the user."""
        return self._mono_seconds >= _PATIENCE + _NOTICE_AFTER


class Center:
    """Voice in the centre, everything else around it.  Stereo only; mono passes as accompaniment.

    Args:
        samplerate: Hz.
        channels: 1 or 2; of one channel there is no centre, and the mix passes.
        profile: a name of `PROFILES`; shorter delay costs some smoothness.
        geometry: instead of a profile.

    Attributes:
        notice: set once the input has turned out to be mono.

    Raises:
        UsageError: unknown profile, impossible geometry, more than two channels.
    """

    def __init__(
        self,
        *,
        samplerate: int,
        channels: int = 2,
        profile: str = "live",
        geometry: Geometry | None = None,
    ) -> None:
        _check_channels("center", channels)
        if geometry is None:
            if profile not in PROFILES:
                raise unknown("profile", profile, PROFILES)
            geometry = PROFILES[profile]
        try:
            self._analysis = Analysis(geometry, channels)
            self._synthesis = Synthesis(geometry, 1)
        except ValueError as error:
            raise UsageError(str(error)) from error
        latency = geometry.synthesis - geometry.hop
        self.info = SeparatorInfo(
            name="center",
            stems=("vocals", "accompaniment"),
            samplerate=samplerate,
            channels=channels,
            hop=geometry.hop,
            latency=latency,
        )
        self.notice: str | None = None
        self._delay = Delay(latency, channels)
        self._width = _Width(samplerate, geometry.hop)
        self._weight = _bass_kept(geometry, samplerate)
        self._keep = np.float32(np.exp(-geometry.hop / (samplerate * _SMOOTHING)))
        self._mid_power: Float32 = np.zeros(geometry.bins, np.float32)
        self._side_power: Float32 = np.zeros(geometry.bins, np.float32)
        self._spectrum = np.zeros((1, geometry.bins), np.complex64)
        self._voice: Float32 = np.zeros((geometry.hop, 1), np.float32)
        self.reset()

    def reset(self) -> None:
        """Return to the state just after construction."""
        self._analysis.reset()
        self._synthesis.reset()
        self._delay.reset()
        self._width.reset()
        self._mid_power[:] = 0
        self._side_power[:] = 0
        self.notice = MONO_NOTICE if self.info.channels == 1 else None

    def process(self, hop: Float32, stems: Float32) -> None:
        """Separate `(H, channels)` into `stems` `(2, H, channels)`, `info.latency` frames late."""
        self._delay.process(hop, stems[1])
        if self.info.channels == 1:
            stems[0] = 0
            return
        gain = self._width.process(hop)
        if self.notice is None and self._width.is_mono:
            self.notice = MONO_NOTICE
        _mask(
            self._analysis.process(hop),
            self._mid_power,
            self._side_power,
            self._weight,
            self._keep,
            np.float32(gain),
            self._spectrum,
        )
        self._synthesis.process(self._spectrum, self._voice)
        _both_sides(self._voice, stems)


class PlainCenter:
    """`vocals` is (L + R) / 2 on both sides, `accompaniment` the rest; no delay, any hop.

    What karaoke machines did: the accompaniment is (L - R) / 2, without bass, and of a mono input
    silence.  Here as the yardstick of everything better.
    """

    def __init__(self, *, samplerate: int, channels: int = 2, hop: int = 256) -> None:
        _check_channels("center-plain", channels)
        if hop < 1:
            raise UsageError(f"hop must be at least 1, not {hop}")
        self.info = SeparatorInfo(
            name="center-plain",
            stems=("vocals", "accompaniment"),
            samplerate=samplerate,
            channels=channels,
            hop=hop,
            latency=0,
            provider="numpy",
        )
        self.notice = MONO_NOTICE if channels == 1 else None
        self._voice: Float32 = np.zeros((hop, 1), np.float32)

    def reset(self) -> None:
        """There is no state."""

    def process(self, hop: Float32, stems: Float32) -> None:
        """Separate `(H, channels)` into `stems` `(2, H, channels)`."""
        stems[1] = hop
        if self.info.channels == 1:
            stems[0] = 0
            return
        np.add(hop[:, :1], hop[:, 1:], out=self._voice)
        self._voice *= _HALF
        _both_sides(self._voice, stems)


def _check_channels(name: str, channels: int) -> None:
    if channels not in (1, 2):
        raise UsageError(f"{name!r} separates one or two channels, not {channels}")


def _bass_kept(geometry: Geometry, samplerate: int) -> Float32:
    """`(bins,)` weights of the mask that leave the bass in the accompaniment."""
    frequencies = np.arange(geometry.bins) * (samplerate / geometry.n_fft)
    low, high = _BASS
    rise = np.clip((frequencies - low) / (high - low), 0, 1)
    weight: Float32 = (0.5 - 0.5 * np.cos(np.pi * rise)).astype(np.float32)
    return weight
