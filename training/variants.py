"""Smaller weights for an exported model: what they cost in quality, and whether they are quicker.

    python -m training.variants onnx_models/lstm.onnx --out VARIANTS --eval DATA/eval

`fp16` halves the weights in the file and computes as before; `int8` quantises the matrices (weights
once, activations as they come).  The time of a hop is taken in turns with the original's, so that a
busy machine is unfair to none.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from training.export import halve
from training.score import evaluate, medians
from training.stream import OnnxStream

ROUNDS = 400


def quantise(source: Path, target: Path) -> None:
    """Matrices as int8, a scale for every column."""
    options = onnxruntime.SessionOptions()
    # What is made of weights alone is only a matrix once it has been made.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    quantize_dynamic(
        str(target),
        str(target),
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    # The quantiser drops nothing of the metadata but may not keep it either.
    original, made = onnx.load(str(source)), onnx.load(str(target))
    del made.metadata_props[:]
    made.metadata_props.extend(original.metadata_props)
    onnx.save(made, str(target))


def hop_times(paths: list[Path]) -> list[float]:
    """Median thread time of a hop of each model in ms, in turns."""
    streams = [OnnxStream(path) for path in paths]
    rng = np.random.default_rng(0)
    for _ in range(ROUNDS):
        for stream in streams:
            for hop in rng.standard_normal((3, stream.hop, 2)).astype(np.float32) * 0.1:
                stream.process(hop)
    # The first of three finds the caches full of another's weights.
    return [1000 * float(np.median(np.reshape(s.seconds, (-1, 3))[:, 1:])) for s in streams]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--eval", type=Path, help="songs to score them on, as training.score")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    paths = [args.model]
    for name, make in (("fp16", halve), ("int8", quantise)):
        paths.append(args.out / f"{args.model.stem}-{name}.onnx")
        make(args.model, paths[-1])
    for path, millis in zip(paths, hop_times(paths), strict=True):
        line = f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {millis:.2f} ms a hop"
        if args.eval is not None:
            began = time.perf_counter()
            scores = medians(evaluate(OnnxStream(path), args.eval))
            line += f", warm {scores['warm']}, cold {scores['cold']}"
            line += f" ({time.perf_counter() - began:.0f} s)"
        print(line, flush=True)


if __name__ == "__main__":
    main()
