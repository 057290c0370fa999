"""Factorisation against scikit-learn, one hop of `nmf` and its kin, and `nmf`'s score over time.

    python benchmarks/nmf.py [--songs DIR] [--seconds 60]

Both factorisations get the same spectra, the same beginning and as many updates, on one thread,
and take turns in one run.  With songs (as `realtime-sep evaluate` takes them), each is played in a
loop; the table shows the median SDR of the voice and of the music in every ten seconds, without
memory and with it.  Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from realtime_sep.dsp.nmf import DIVERGENCES, factorise
from realtime_sep.offline import separate
from realtime_sep.plugins import load_separator

RATE = 44100
FULL_NAMES = {"kl": "kullback-leibler", "is": "itakura-saito"}
STRETCH = 10.0


def against_scikit_learn(frames: int, bands: int, atoms: int, updates: int) -> dict[str, Any]:
    from sklearn.decomposition import NMF
    from sklearn.decomposition._nmf import _beta_divergence
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    model = rng.gamma(0.3, 1, (frames, atoms)) @ rng.gamma(0.3, 1, (atoms, bands))
    spectra = (model * rng.gamma(8, 1 / 8, (frames, bands)) + 1e-3).astype(np.float32)
    scale = np.sqrt(spectra.mean() / atoms)
    h = (scale * rng.uniform(0.1, 1.9, (frames, atoms))).astype(np.float32)
    w = (scale * rng.uniform(0.1, 1.9, (atoms, bands))).astype(np.float32)
    out: dict[str, Any] = {}
    for divergence in DIVERGENCES:
        factorise(spectra[:32], atoms, divergence=divergence, updates=1)  # compiled
        theirs, ours = [], []
        for _ in range(3):
            method = NMF(
                atoms,
                solver="mu",
                beta_loss=FULL_NAMES[divergence],
                init="custom",
                max_iter=updates,
                tol=0,
            )
            with threadpool_limits(1), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it would go on
                started = time.process_time()
                found = method.fit_transform(spectra, W=h.copy(), H=w.copy())
                theirs.append(time.process_time() - started)
            started = time.process_time()
            with threadpool_limits(1):
                mine = factorise(
                    spectra,
                    atoms,
                    divergence=divergence,
                    updates=updates,
                    tolerance=0,
                    activations=h,
                    dictionary=w,
                )
            ours.append(time.process_time() - started)
        reached = _beta_divergence(spectra, found, method.components_, FULL_NAMES[divergence])
        out[divergence] = {
            "scikit-learn_s": round(min(theirs), 3),
            "realtime_sep_s": round(min(ours), 3),
            "times_as_fast": round(min(theirs) / min(ours), 2),
            "divergence_ratio": round(mine.divergence / float(reached), 5),
        }
    return out


def one_hop(name: str, **options: Any) -> dict[str, float]:
    """Milliseconds of one hop in stereo, and the part of a core that it takes."""
    separator = load_separator(name, samplerate=RATE, **options)
    hop = separator.info.hop
    rng = np.random.default_rng(0)
    audio = (0.1 * rng.standard_normal((64, hop, 2))).astype(np.float32)
    stems = np.empty((2, hop, 2), np.float32)
    count = round(12 * RATE / hop)  # until every memory is full
    for i in range(count):
        separator.process(audio[i % 64], stems)
    times = np.empty(count)
    for i in range(count):
        started = time.perf_counter()
        separator.process(audio[i % 64], stems)
        times[i] = time.perf_counter() - started
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "p50_ms": round(1e3 * float(p50), 3),
        "p99_ms": round(1e3 * float(p99), 3),
        "core": round(float(p50) * RATE / hop, 4),
    }


def over_time(songs: Path, seconds: float) -> dict[str, list[list[float]]]:
    """Median SDR in dB (voice, music) over the songs, in every stretch."""
    from realtime_sep.evaluate.songs import find_songs, read_song, song_name

    loaded = [read_song(path, song_name(path, songs), None) for path in find_songs(songs)]
    table = {}
    for memory in (0.0, 30.0):
        rows = []
        for song in loaded:
            rate, frames = song.samplerate, round(seconds * song.samplerate)
            mix, voice = (
                np.take(x, np.arange(frames), axis=0, mode="wrap")
                for x in (song.mixture, song.vocals)
            )
            wrong = separate(mix, rate, "nmf", memory=memory)["vocals"] - voice
            stretch = round(STRETCH * rate)
            row = []
            for start in range(0, frames - stretch + 1, stretch):
                part = slice(start, start + stretch)
                error = np.sum(np.square(wrong[part], dtype=np.float64))
                stems = voice[part], mix[part] - voice[part]
                powers = [np.sum(np.square(stem, dtype=np.float64)) for stem in stems]
                row.append([10 * np.log10(power / error) for power in powers])
            rows.append(row)
        table[f"memory={memory:g}"] = np.round(np.median(rows, axis=0), 2).tolist()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--songs", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    # Three minutes of music at a hop of 512, in all bins.
    result: dict[str, Any] = {
        f"{atoms} atoms": against_scikit_learn(15500, 1025, atoms, 4) for atoms in (16, 32)
    }
    result["hop"] = {
        "nmf": one_hop("nmf"),
        "nmf divergence=is": one_hop("nmf", divergence="is"),
        "repet-sim": one_hop("repet-sim"),
        "hpss": one_hop("hpss"),
    }
    if args.songs is not None:
        result["sdr_in_10_s_stretches"] = over_time(args.songs, args.seconds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
