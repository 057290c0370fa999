"""Voice and music as non-negative sums of known spectra, the music's adapting while it plays.

Every spectrum is explained by atoms of voice and atoms of music (`dsp.nmf`): some multiplicative
updates from a flat start find how much of each is in it, and the mask is the voice's share, a
Wiener ratio whose exponent and balance were learned for every band.  The atoms come with the
package (`dictionaries/`): they were trained through the very updates that are made here, after
"Deep NMF for speech separation", Le Roux, Hershey and Weninger, ICASSP 2015.

The music's atoms then become those of the song: each is the average, over a memory that fades
exponentially, of what the Wiener ratio gave it (online expectation maximisation after Cappé and
Moulines, J. R. Stat. Soc. B 71, 2009), held to its first shape by a prior.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from numba import njit

from realtime_sep.dsp.bands import band_centres, band_edges, to_bands
from realtime_sep.dsp.nmf import DIVERGENCES, Divergence, activate, expand, factorise
from realtime_sep.dsp.stft import Analysis, Synthesis
from realtime_sep.errors import ModelError, unknown
from realtime_sep.latency import overlap_add_lag
from realtime_sep.separators.masking import LOUDEST, Masking, in_range
from realtime_sep.types import PROFILES, Complex64, Float32, Geometry

#: Spectra are powers to this, between an amplitude and a loudness.  Of 0.2 to 1 it was the best on
#: the validation songs, before the dictionaries were trained for it.
_EXPONENT = np.float32(0.3)
#: Weight of an atom's first shape, in parts of all that was heard within the memory.
_PRIOR = np.float32(0.05)
_FAST = {"contract", "nsz", "reassoc", "arcp"}
#: Smallest power of a band, for the logarithms' sake.
_TINY = np.float32(1e-20)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _compress(spectrum, edges, v):  # type: ignore[no-untyped-def]
    """Compressed mean power of every band over the channels, in `v (bands,)`; returns its sum."""
    total = np.float32(0)
    for b in range(v.shape[0]):
        power = np.float32(0)
        for c in range(spectrum.shape[0]):
            for k in range(edges[b], edges[b + 1]):
                x = spectrum[c, k]
                power += x.real * x.real + x.imag * x.imag
        power /= np.float32(spectrum.shape[0] * (edges[b + 1] - edges[b]))
        v[b] = max(power, _TINY) ** _EXPONENT
        total += v[b]
    return total


@njit(cache=True, nogil=True, fastmath=_FAST)
def _shares(voice, music, exponent, offset, mask):  # type: ignore[no-untyped-def]
    """The voice's share of every band, from the models of both: `(bands,)` each."""
    for b in range(mask.shape[0]):
        odds = exponent[b] * np.log(voice[b] / music[b]) + offset[b]
        mask[b] = np.float32(1) / (np.float32(1) + np.exp(-odds))


@njit(cache=True, nogil=True)
def _apply(spectrum, edges, mask, out):  # type: ignore[no-untyped-def]
    """`spectrum` times its band's `mask`; the last band goes on to the end, bin 0 is nought."""
    for c in range(spectrum.shape[0]):
        out[c, 0] = 0
        for b in range(mask.shape[0]):
            for k in range(edges[b], edges[b + 1]):
                out[c, k] = mask[b] * spectrum[c, k]
        for k in range(edges[-1], spectrum.shape[1]):
            out[c, k] = mask[-1] * spectrum[c, k]


@njit(cache=True, nogil=True, fastmath=_FAST)
def _learn(v, h, voice, music, saito, atoms, generic, heard, weight, keep, prior):  # type: ignore[no-untyped-def]
    """Let every atom of music become the average of what was its own; returns the new `weight`.

    A band counts as far as it is the music's (squared, as a voice would otherwise be learned).
    `heard (K, F)` and `weight` are the fading sums of spectra and of their levels.
    """
    one = np.float32(1)
    if saito:
        weight = keep * weight + one
    else:
        total = np.float32(0)
        for b in range(v.shape[0]):
            total += v[b]
        weight = keep * weight + total
    held = prior * weight
    for k in range(atoms.shape[0]):
        atom, sums, first = atoms[k], heard[k], generic[k]
        gain = h[k]
        level = np.float32(0)
        for b in range(v.shape[0]):
            model = voice[b] + music[b]
            own = music[b] / model
            surplus = own * own * (v[b] / model - one)
            if saito:
                sums[b] = keep * sums[b] + atom[b] * (one + gain * atom[b] / model * surplus)
            else:
                sums[b] = keep * sums[b] + gain * atom[b] * (one + surplus)
            level += sums[b]
        scale = one / (level + held)
        for b in range(v.shape[0]):
            atom[b] = scale * (sums[b] + held * first[b])
    return weight


class Dictionary:
    """The atoms that come with the package, for one geometry and rate.

    Attributes:
        edges: first bin of every band, and the end of the last.
        atoms: `(atoms, bands)`, each with the sum one, those of the voice first.
        voices: how many are the voice's.
        updates: multiplicative updates that they were trained for.
        exponent, offset: `(bands,)`, see `_shares`.

    Raises:
        UsageError: unknown divergence.
        ModelError: the package is damaged.
    """

    def __init__(self, divergence: str, n_fft: int, samplerate: int) -> None:
        if divergence not in DIVERGENCES:
            raise unknown("divergence", divergence, DIVERGENCES)
        self.edges = band_edges(n_fft, samplerate)
        to = band_centres(n_fft, samplerate)
        path = files("realtime_sep.separators") / "dictionaries" / f"{divergence}.npz"
        try:
            with path.open("rb") as file, np.load(file) as stored:
                at = stored["hertz"].astype(np.float64)
                self.updates = int(stored["updates"])
                parts = {
                    name: to_bands(stored[name], at, to)
                    for name in ("voice", "music", "exponent", "offset")
                }
        except (OSError, KeyError, ValueError) as error:
            raise ModelError(f"{path}: cannot be read: {error}; install anew") from error
        atoms = np.concatenate([parts["voice"], parts["music"]])
        self.atoms: Float32 = atoms / atoms.sum(axis=1, keepdims=True)
        self.voices = len(parts["voice"])
        self.exponent, self.offset = parts["exponent"], parts["offset"]


class Nmf(Masking):
    """Voice by non-negative matrix factorisation, hop by hop; mono or stereo alike.

    Args:
        samplerate: Hz.
        channels: 1 or 2; both get the same mask.
        profile: a name of `PROFILES`.
        geometry: instead of a profile.
        divergence: "kl" or "is", each with its own dictionary.
        memory: seconds in which what was learned of the song fades to 1/e; 0: learn nothing.
        updates: multiplicative updates per hop; None: as many as the dictionary was trained for.

    Raises:
        UsageError: an option that is none.
        ModelError: the package is damaged.
    """

    def __init__(
        self,
        *,
        samplerate: int,
        channels: int = 2,
        profile: str = "studio",
        geometry: Geometry | None = None,
        divergence: Divergence = "kl",
        memory: float = 30.0,
        updates: int | None = None,
    ) -> None:
        super().__init__(
            "nmf",
            ("vocals", "accompaniment"),
            samplerate=samplerate,
            channels=channels,
            profile=profile,
            geometry=geometry,
            family="nmf",
        )
        memory = in_range("memory", memory, 0, 3600, "seconds")
        hop = self.geometry.hop / samplerate
        self._keep = np.float32(np.exp(-hop / memory)) if memory > 0 else None
        self._saito = divergence == "is"
        self._known = known = Dictionary(divergence, self.geometry.n_fft, samplerate)
        updates = known.updates if updates is None else updates
        self._updates = int(in_range("updates", updates, 1, 100))
        atoms, bands = known.atoms.shape
        self._atoms = known.atoms.copy()
        self._heard: Float32 = np.zeros((atoms - known.voices, bands), np.float32)
        self._weight = np.float32(0)
        self._sums: Float32 = np.ones(atoms, np.float32)
        self._v, self._voice, self._music, self._model, self._above = (
            np.zeros((1, bands), np.float32) for _ in range(5)
        )
        self._h, self._up, self._down = (np.zeros((1, atoms), np.float32) for _ in range(3))
        self._shares: Float32 = np.zeros(bands, np.float32)

    def reset(self) -> None:
        """Return to the state just after construction: what was learned is forgotten."""
        super().reset()
        self._atoms[:] = self._known.atoms
        self._heard[:] = 0
        self._weight = np.float32(0)

    def _mask(self, spectrum: Complex64, out: Complex64) -> None:
        known, voices = self._known, self._known.voices
        v, h = self._v, self._h
        total = _compress(spectrum, known.edges, v[0])
        if not total < LOUDEST:
            out[:] = 0
            return
        h[:] = total / h.shape[1]
        for _ in range(self._updates):
            activate(
                v, h, self._atoms, self._sums, self._saito,
                self._model, self._above, self._up, self._down,
            )  # fmt: skip
        expand(h[:, :voices], self._atoms[:voices], self._voice)
        expand(h[:, voices:], self._atoms[voices:], self._music)
        _shares(self._voice[0], self._music[0], known.exponent, known.offset, self._shares)
        _apply(spectrum, known.edges, self._shares, out)
        if self._keep is not None and total > v.shape[1] * 2 * float(_TINY) ** float(_EXPONENT):
            self._weight = _learn(
                v[0], h[0, voices:], self._voice[0], self._music[0], self._saito,
                self._atoms[voices:], known.atoms[voices:], self._heard,
                np.float32(self._weight), self._keep, _PRIOR,
            )  # fmt: skip


def factorised(
    audio: Float32,
    samplerate: int,
    *,
    profile: str = "studio",
    divergence: Divergence = "kl",
    updates: int | None = None,
) -> dict[str, Float32]:
    """Separate a whole recording by one factorisation: all of it teaches the music's atoms.

    Args:
        audio: `(frames, channels)`, one or two channels.
        samplerate: Hz.
        updates: of all activations and of the music's atoms; None: the dictionary's own.

    Returns:
        "vocals" and "accompaniment", aligned with the audio; they add up to it.

    Raises:
        UsageError: unknown profile or divergence.
    """
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    geometry = PROFILES[profile]
    known = Dictionary(divergence, geometry.n_fft, samplerate)
    frames, channels = audio.shape
    hop, lag = geometry.hop, overlap_add_lag(geometry)
    hops = -(-(frames + lag) // hop)
    padded = np.zeros((hops * hop, channels), np.float32)
    padded[:frames] = audio
    analysis, synthesis = Analysis(geometry, channels), Synthesis(geometry, channels)
    spectra = np.empty((hops, channels, geometry.bins), np.complex64)
    v: Float32 = np.empty((hops, len(known.edges) - 1), np.float32)
    for t in range(hops):
        spectra[t] = analysis.process(padded[t * hop : (t + 1) * hop])
        _compress(spectra[t], known.edges, v[t])
    flat = np.repeat(v.sum(axis=1, keepdims=True) / len(known.atoms), len(known.atoms), axis=1)
    found = factorise(
        v,
        len(known.atoms),
        divergence=divergence,
        updates=known.updates if updates is None else updates,
        tolerance=0,
        activations=flat,
        dictionary=known.atoms,
        fixed=known.voices,
    )
    voice, music = np.empty_like(v), np.empty_like(v)
    expand(found.activations[:, : known.voices], found.dictionary[: known.voices], voice)
    expand(found.activations[:, known.voices :], found.dictionary[known.voices :], music)
    out: Float32 = np.empty_like(padded)
    mask: Float32 = np.empty(v.shape[1], np.float32)
    for t in range(hops):
        _shares(voice[t], music[t], known.exponent, known.offset, mask)
        _apply(spectra[t], known.edges, mask, spectra[t])
        synthesis.process(spectra[t], out[t * hop : (t + 1) * hop])
    vocals = out[lag : lag + frames].copy()
    return {"vocals": vocals, "accompaniment": audio - vocals}
