"""Models in ONNX files, run by ONNX Runtime.  The only module that imports it.

A file is checked before the runtime sees it (`realtime_sep.models.registry.read`); its metadata
says how it is to be run, and everything in the graph must fit what the metadata says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from realtime_sep.dsp.delay import Delay
from realtime_sep.dsp.stft import Analysis, Synthesis
from realtime_sep.errors import ModelError, UsageError, unknown
from realtime_sep.latency import overlap_add_lag
from realtime_sep.models import registry
from realtime_sep.models.metadata import ModelMetadata
from realtime_sep.models.plan import DEFAULT_PROFILE, GPU_PROFILE, SlidingPlan, plan
from realtime_sep.models.registry import ModelEntry
from realtime_sep.native import denormals_flushed
from realtime_sep.separators.protocol import Separator
from realtime_sep.separators.sliding import Sliding
from realtime_sep.types import Complex64, Float32, SeparatorInfo

AnyArray = npt.NDArray[Any]
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
#: Older versions read arbitrary files through external data.
_MINIMUM = (1, 24)


def load(entry: ModelEntry, *, samplerate: int, channels: int = 2, **options: Any) -> Separator:
    """Make the separator that an installed model's metadata asks for.

    Args:
        options: `provider` ("auto", "cpu", "cuda"); of window models also `profile` (left out:
            what suits the provider), `realtime` and the fields of `SlidingPlan` (`step`, ...).

    Raises:
        ModelError: the file is refused, does not fit its metadata, or cannot run here.
        UsageError: a rate, channel count or option that the model does not take.
    """
    make = _spectral if entry.metadata.kind == "spectral" else _window
    takes = [
        name
        for function in (make, SlidingPlan)
        if make is _window or function is make
        for name in inspect.signature(function).parameters
        if name not in ("entry", "samplerate", "channels", "changes")
    ]
    for option in options:
        if option not in takes:
            raise unknown(f"option of {entry.name!r}", option, takes)
    return make(entry, samplerate=samplerate, channels=channels, **options)


def _spectral(
    entry: ModelEntry, *, samplerate: int, channels: int, provider: str = "auto"
) -> Separator:
    return OnnxSpectral(entry, samplerate=samplerate, channels=channels, provider=provider)


def _window(
    entry: ModelEntry,
    *,
    samplerate: int,
    channels: int,
    provider: str = "auto",
    profile: str | None = None,
    realtime: bool = False,
    **changes: int,
) -> Separator:
    chosen = plan(entry.metadata, profile or DEFAULT_PROFILE, **changes)
    net = OnnxWindow(entry, chosen, provider=provider)
    if profile is None and net.provider == _PROVIDERS["cuda"]:  # computing costs it next to nothing
        chosen = plan(entry.metadata, GPU_PROFILE, **changes)
        net = OnnxWindow(entry, chosen, provider=provider)
    return Sliding(net, chosen, samplerate=samplerate, channels=channels, realtime=realtime)


class OnnxSpectral:
    """A model that takes one spectrum and its state, hop by hop, and gives the stems' spectra.

    Graph: `spec` `[1, channels, bins, 2]` (real, imaginary part) and `state_*` in; `stems`
    `[1, stems, channels, bins, 2]` and `next_state_*` out.  Mono input goes to all channels of the
    network, and its first one comes out.

    Args:
        entry: of kind "spectral".
        samplerate: Hz; any rate between the model's lowest and highest.
        provider: who computes; what is asked for and cannot be is an error.

    Raises:
        ModelError, UsageError: as `load`.
    """

    def __init__(
        self, entry: ModelEntry, *, samplerate: int, channels: int = 2, provider: str = "auto"
    ) -> None:
        meta = entry.metadata
        low, high = min(meta.sample_rates), max(meta.sample_rates)
        if not low <= samplerate <= high:
            span = f"{low} Hz" if low == high else f"{low} to {high} Hz"
            raise UsageError(f"model {entry.name!r} runs at {span}, not at {samplerate} Hz")
        if channels not in (1, meta.channels):
            raise UsageError(
                f"model {entry.name!r} separates 1 or {meta.channels} channels, not {channels}"
            )
        geometry = meta.geometry
        self._session = _session(entry, provider)
        self._spec: Float32 = np.zeros((1, meta.channels, geometry.bins, 2), np.float32)
        self._stems: Float32 = np.zeros(
            (1, len(meta.stems), meta.channels, geometry.bins, 2), np.float32
        )
        # State is read from one half and written to the other; then the halves change places.
        shapes = {s.name: (1, *s.shape) for s in meta.states}
        states = [{n: np.zeros(s, np.float32) for n, s in shapes.items()} for _ in range(2)]
        self._states = states
        _check_graph(
            entry,
            self._session,
            {"spec": self._spec.shape, **{f"state_{n}": s for n, s in shapes.items()}},
            {"stems": self._stems.shape, **{f"next_state_{n}": s for n, s in shapes.items()}},
        )
        self._steps: list[Callable[[], None]] = []
        for now, after in ((0, 1), (1, 0)):
            inputs = {"spec": self._spec, **{f"state_{n}": a for n, a in states[now].items()}}
            outputs = {
                "stems": self._stems,
                **{f"next_state_{n}": a for n, a in states[after].items()},
            }
            self._steps.append(_runner(self._session, inputs, outputs))
        self._turn = 0

        latency = overlap_add_lag(geometry, meta.lookahead)
        self._analysis = Analysis(geometry, channels)
        self._syntheses = [Synthesis(geometry, channels) for _ in meta.stems]
        self._delay = Delay(latency, channels)
        # Complex views of the network's arrays: nothing is converted per hop.
        self._input: Complex64 = self._spec[0].view(np.complex64)[..., 0]
        self._output: Complex64 = self._stems[0].view(np.complex64)[:, :channels, :, 0]
        for _ in range(2):
            self._run(entry)
        self.info = SeparatorInfo(
            name=entry.name,
            stems=meta.all_stems,
            samplerate=samplerate,
            channels=channels,
            hop=geometry.hop,
            latency=latency,
            family=meta.family,
            provider=_active(entry, self._session, provider),
        )
        self.reset()

    def reset(self) -> None:
        """Return to the state just after construction."""
        for states in self._states:
            for array in states.values():
                array[:] = 0
        self._turn = 0
        self._analysis.reset()
        self._delay.reset()
        for synthesis in self._syntheses:
            synthesis.reset()

    def process(self, hop: Float32, stems: Float32) -> None:
        """Separate `(H, channels)` into `stems` `(stems, H, channels)`, `info.latency` later."""
        self._input[:] = self._analysis.process(hop)
        self._steps[self._turn]()
        self._turn ^= 1
        residual = stems[-1]
        self._delay.process(hop, residual)
        for i, synthesis in enumerate(self._syntheses):
            synthesis.process(self._output[i], stems[i])
            residual -= stems[i]

    def _run(self, entry: ModelEntry) -> None:
        """Once, to compile and to find out whether it runs at all."""
        try:
            self._steps[self._turn]()
        except Exception as error:  # the runtime's errors have no common type
            raise ModelError(f"model {entry.name!r} does not run: {_reason(error)}") from error
        self._turn ^= 1


class OnnxWindow:
    """A fixed-window mask network in an ONNX file, for `Sliding`.

    Graph: `magnitude` `[1, channels, T, bins]` and `newest` (int64 `[1]`, R) in; `masks`
    `[R, stems, channels, bins]` of the newest R frames out, oldest first.

    Args:
        entry: of kind "window".
        plan: says T, K and A.

    Raises:
        ModelError: as `load`.
    """

    def __init__(self, entry: ModelEntry, plan: SlidingPlan, *, provider: str = "auto") -> None:
        self.metadata: ModelMetadata = entry.metadata
        meta = entry.metadata
        self._step = plan.step
        newest = plan.step + plan.lookahead
        magnitude: Float32 = np.zeros((1, meta.channels, plan.context, meta.bins), np.float32)
        self.window: Float32 = magnitude[0]
        self._masks: Float32 = np.zeros(
            (newest, len(meta.stems), meta.channels, meta.bins), np.float32
        )
        self._session = _session(entry, provider, frames=plan.context)
        _check_graph(
            entry,
            self._session,
            {"magnitude": magnitude.shape, "newest": (1,)},
            {"masks": self._masks.shape},
        )
        self._compute = _runner(
            self._session,
            {"magnitude": magnitude, "newest": np.array([newest], np.int64)},
            {"masks": self._masks},
        )
        try:
            self._compute()
        except Exception as error:  # the runtime's errors have no common type
            raise ModelError(f"model {entry.name!r} does not run: {_reason(error)}") from error
        self.provider = _active(entry, self._session, provider)

    def run(self, masks: Float32) -> None:
        """Compute the masks of the window `self.window` into `masks` (K, stems, channels, bins)."""
        self._compute()
        masks[:] = self._masks[: self._step]


def _session(entry: ModelEntry, provider: str, **dimensions: int) -> Any:
    """A session of one thread that runs where it is told to.

    Args:
        dimensions: values of the graph's named free dimensions.
    """
    runtime = _runtime()
    if provider not in ("auto", *_PROVIDERS):
        raise unknown("provider", provider, ("auto", *_PROVIDERS))
    available = runtime.get_available_providers()
    if provider == "auto":
        wanted = [p for p in (_PROVIDERS["cuda"], _PROVIDERS["cpu"]) if p in available]
    elif _PROVIDERS[provider] in available:
        wanted = list(dict.fromkeys([_PROVIDERS[provider], _PROVIDERS["cpu"]]))
    else:
        raise ModelError(
            f"provider {provider!r} is not in this ONNX Runtime; install realtime-sep[gpu] instead "
            f"of [cpu], or use provider 'cpu'"
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.log_severity_level = 4  # what goes wrong is raised; nothing writes to the terminal
    for name, value in dimensions.items():
        options.add_free_dimension_override_by_name(name, value)
    data = registry.read(entry)
    try:
        # The runtime leaves the thread that makes a session without denormals; it is not its own.
        with denormals_flushed():
            return runtime.InferenceSession(data, options, providers=wanted)
    except Exception as error:  # the runtime's errors have no common type
        raise ModelError(f"model {entry.name!r} cannot be loaded: {_reason(error)}") from error


def _runtime() -> Any:
    """ONNX Runtime, if it is there and new enough."""
    try:
        runtime: Any = import_module("onnxruntime")
    except ImportError as error:
        raise ModelError(
            "models need ONNX Runtime: pip install 'realtime-sep[cpu]' (or [gpu])"
        ) from error
    version = tuple(int(part) for part in runtime.__version__.split(".")[:2])
    if version < _MINIMUM:
        raise ModelError(
            f"ONNX Runtime {runtime.__version__} is too old to be given foreign files; "
            f"upgrade to {_MINIMUM[0]}.{_MINIMUM[1]} or newer"
        )
    return runtime


def _active(entry: ModelEntry, session: Any, provider: str) -> str:
    """Who computes, now that it has run; an error if it is not who was asked for.

    The runtime falls back to the processor without a word when a graphics card's libraries are
    missing.
    """
    active = str(session.get_providers()[0])
    if provider != "auto" and active != _PROVIDERS[provider]:
        raise ModelError(
            f"model {entry.name!r} was to run on {provider!r} but runs on {active}; "
            f"check the graphics driver and its CUDA and cuDNN libraries, or use provider 'cpu'"
        )
    return active


def _check_graph(
    entry: ModelEntry,
    session: Any,
    inputs: dict[str, tuple[int, ...]],
    outputs: dict[str, tuple[int, ...]],
) -> None:
    """Refuse a graph whose inputs and outputs are not what the metadata says.

    Names must be the same; shapes too, where the graph fixes them (a name stands for any size)."""
    for what, wanted, found in (
        ("input", inputs, session.get_inputs()),
        ("output", outputs, session.get_outputs()),
    ):
        if (names := {value.name for value in found}) != set(wanted):
            raise ModelError(
                f"model {entry.name!r} has the {what}s {sorted(names)}, its metadata means "
                f"{sorted(wanted)}"
            )
        for value in found:
            shape = wanted[value.name]
            fits = len(value.shape) == len(shape) and all(
                not isinstance(size, int) or size == want
                for size, want in zip(value.shape, shape, strict=True)
            )
            kind = "tensor(int64)" if value.name == "newest" else "tensor(float)"
            if not fits or value.type != kind:
                raise ModelError(
                    f"model {entry.name!r}: {what} {value.name!r} is {value.type} "
                    f"{list(value.shape)}, its metadata means {kind} {list(shape)}"
                )


def _runner(
    session: Any, inputs: dict[str, AnyArray], outputs: dict[str, AnyArray]
) -> Callable[[], None]:
    """What runs the session from arrays to arrays, which stay where they are.

    On a processor the arrays themselves are bound, and nothing is copied or allocated per run.
    Elsewhere an input is copied to the device when it is bound and not again, so it is given anew.
    """
    names = list(outputs)
    if session.get_providers()[0] != _PROVIDERS["cpu"]:

        def run() -> None:
            for name, value in zip(names, session.run(names, inputs), strict=True):
                outputs[name][...] = value

        return run

    wrap = _runtime().OrtValue.ortvalue_from_numpy
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, wrap(array))
    for name, array in outputs.items():
        binding.bind_ortvalue_output(name, wrap(array))
    return partial(session.run_with_iobinding, binding)


def _reason(error: Exception) -> str:
    """The first line of a runtime's error, shortened."""
    return str(error).strip().split("\n")[0][:160]
