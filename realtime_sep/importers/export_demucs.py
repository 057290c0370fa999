"""A program for another Python, one with torch and demucs: a network of Demucs as an ONNX file.

    python export_demucs.py NAME_OR_FILE FOLDER [--index N] [--segment SECONDS]

Writes `net.onnx`, `info.json`, and `sample.npz`: noise, and what the network itself makes of it, to
compare with.  The Fourier transforms stay outside: in `mix` and `spec`, out `stems` and `spectra`.
It imports nothing of realtime_sep; nothing of realtime_sep imports it.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

#: Seconds of a segment, where the network has learned from longer ones than is of use live.
LONGEST = 10.0


class Core(torch.nn.Module):
    """The network between its transforms, giving the stems `kept`."""

    def __init__(self, net: Any, kept: list[int]) -> None:
        super().__init__()
        self.net = net
        self.kept = kept

    def forward(self, mix: Any, spec: Any) -> Any:
        """`mix` (1, channels, L), `spec` (1, 2 channels, bins, T)."""
        net, spectra = self.net, []

        def take(z: Any, x: Any) -> Any:
            spectra.append(x)
            return x

        net._spec = lambda x: spec
        net._magnitude = lambda z: z
        net._mask = take
        net._ispec = lambda z, length=None: torch.zeros((), dtype=mix.dtype)
        waves = net(mix)
        return waves[:, self.kept], spectra[0][:, self.kept]


def load(name: str, index: int) -> Any:
    """A network from a file, or known to demucs by name."""
    path = Path(name)
    if path.suffix == ".safetensors":
        from demucs.hf import load_safetensors_model

        return load_safetensors_model(path)
    if path.exists():
        from demucs.states import load_model

        return load_model(path)
    from demucs.pretrained import get_model

    found = get_model(name)
    models = getattr(found, "models", None)
    if models is None:
        return found
    if len(models) > 1 and index < 0:
        raise SystemExit(
            f"{name} is a bag of {len(models)} networks; choose one with --set index=0 to "
            f"{len(models) - 1}"
        )
    return models[max(index, 0)]


def export(net: Any, folder: Path, seconds: float | None) -> None:
    """Write the three files."""
    kind = type(net).__name__
    if kind not in ("HDemucs", "HTDemucs") or not net.cac or getattr(net, "hybrid_old", False):
        raise SystemExit(f"networks of the kind {kind} with these options are not supported")
    if not getattr(net, "hybrid", True):
        raise SystemExit("networks without a branch in time are not supported")
    net.eval()
    rate, hop = net.samplerate, net.hop_length
    own = float(net.segment)
    length = int(own * rate)
    if seconds is not None or (kind == "HDemucs" and own > LONGEST):
        length = round(min(seconds or LONGEST, own) * rate / hop) * hop
        net.use_train_segment = False
    sources = list(net.sources)
    residual = "other" if "other" in sources else sources[-1]
    stems = sorted((s for s in sources if s != residual), key=lambda s: s != "vocals")

    torch.manual_seed(0)
    mix = 0.1 * torch.randn(1, net.audio_channels, length)
    with torch.no_grad():
        whole = net(mix)
        spec = net._magnitude(net._spec(mix))
        core = Core(net, [sources.index(s) for s in stems]).eval()
        program = torch.onnx.export(
            core,
            (mix, spec),
            input_names=["mix", "spec"],
            output_names=["stems", "spectra"],
            dynamo=True,
            verbose=False,
        )
    program.save(str(folder / "net.onnx"), external_data=False)
    kept = [sources.index(s) for s in stems]
    np.savez(folder / "sample.npz", mix=mix[0].numpy(), stems=whole[0, kept].numpy())
    info = {
        "kind": kind,
        "stems": stems,
        "residual": residual,
        "samplerate": rate,
        "channels": net.audio_channels,
        "n_fft": net.nfft,
        "hop": hop,
        "segment": length,
        "bins": spec.shape[2],
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    (folder / "info.json").write_text(json.dumps(info), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=int, default=-1)
    parser.add_argument("--segment", type=float, default=None)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    export(load(args.name, args.index), args.folder, args.segment)


if __name__ == "__main__":
    main()
