"""One hop's STFT and ISTFT (window, rfft, irfft, overlap-add; stereo float32, one thread).

The same algorithm four times: ours, written with numpy, with scipy.fft and with torch (if it is
installed).  The contenders take turns in one run, so a noisy machine is noisy for all of them.
Prints JSON: microseconds per hop.

    python benchmarks/stft.py [--hops 4000] [--n-fft 2048 --synthesis 512 --hop 256]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from realtime_sep.dsp.stft import Analysis, Synthesis
from realtime_sep.dsp.windows import window_pair
from realtime_sep.types import Float32, Geometry

Step = Callable[[Float32], Float32]
CHANNELS = 2


def ours(g: Geometry) -> Step:
    analysis, synthesis = Analysis(g, CHANNELS), Synthesis(g, CHANNELS)
    out = np.empty((g.hop, CHANNELS), np.float32)

    def step(hop: Float32) -> Float32:
        synthesis.process(analysis.process(hop), out)
        return out

    return step


def with_numpy_like(g: Geometry, rfft, irfft) -> Step:  # type: ignore[no-untyped-def]
    """In-place wherever the interface allows it: a fair opponent, not a straw man."""
    window, synth = window_pair(g.n_fft, g.synthesis, g.hop)
    history = np.zeros((CHANNELS, g.n_fft), np.float32)
    frame = np.zeros_like(history)
    sums = np.zeros((CHANNELS, g.synthesis), np.float32)

    def step(hop: Float32) -> Float32:
        history[:, : -g.hop] = history[:, g.hop :]
        history[:, -g.hop :] = hop.T
        np.multiply(history, window, out=frame)
        back = irfft(rfft(frame))
        tail = back[:, -g.synthesis :]
        tail *= synth
        np.add(sums, tail, out=sums)
        out = sums[:, : g.hop].T.copy()
        sums[:, : -g.hop] = sums[:, g.hop :]
        sums[:, -g.hop :] = 0
        return out

    return step


def with_torch(g: Geometry) -> Step:
    import torch

    torch.set_num_threads(1)
    window, synth = (torch.from_numpy(w) for w in window_pair(g.n_fft, g.synthesis, g.hop))
    history = torch.zeros(CHANNELS, g.n_fft)
    sums = torch.zeros(CHANNELS, g.synthesis)

    def step(hop: Float32) -> Float32:
        with torch.inference_mode():
            history[:, : -g.hop] = history[:, g.hop :].clone()
            history[:, -g.hop :] = torch.from_numpy(hop).T
            back = torch.fft.irfft(torch.fft.rfft(history * window))
            sums.add_(back[:, -g.synthesis :] * synth)
            out = sums[:, : g.hop].T.contiguous().numpy()
            sums[:, : -g.hop] = sums[:, g.hop :].clone()
            sums[:, -g.hop :] = 0
            return out

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hops", type=int, default=4000)
    parser.add_argument("--n-fft", type=int, default=2048)
    parser.add_argument("--synthesis", type=int, default=512)
    parser.add_argument("--hop", type=int, default=256)
    args = parser.parse_args()
    g = Geometry(args.n_fft, args.synthesis, args.hop)

    contenders: dict[str, Step] = {
        "realtime_sep": ours(g),
        "numpy.fft": with_numpy_like(g, np.fft.rfft, np.fft.irfft),
    }
    with suppress(ImportError):
        import scipy.fft

        contenders["scipy.fft"] = with_numpy_like(g, scipy.fft.rfft, scipy.fft.irfft)
    with suppress(ImportError):
        contenders["torch.fft"] = with_torch(g)

    rng = np.random.default_rng(0)
    hops = rng.standard_normal((64, g.hop, CHANNELS)).astype(np.float32)
    reference = [contenders["realtime_sep"](h).copy() for h in hops]
    for name, step in contenders.items():
        if name != "realtime_sep":
            for h, expected in zip(hops, reference, strict=True):
                np.testing.assert_allclose(step(h), expected, atol=1e-4)

    times = {name: np.empty(args.hops) for name in contenders}
    for i in range(args.hops):
        hop = hops[i % len(hops)]
        for name, step in contenders.items():
            start = time.perf_counter_ns()
            step(hop)
            times[name][i] = (time.perf_counter_ns() - start) / 1e3

    own = float(np.median(times["realtime_sep"]))
    print(
        json.dumps(
            {
                "geometry": [g.n_fft, g.synthesis, g.hop],
                "hops": args.hops,
                "us": {
                    name: {
                        "p50": round(float(np.percentile(t, 50)), 2),
                        "p99": round(float(np.percentile(t, 99)), 2),
                        "ratio_p50": round(float(np.median(t)) / own, 2),
                    }
                    for name, t in times.items()
                },
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
