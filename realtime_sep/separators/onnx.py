"""Models in ONNX files, run by ONNX Runtime.  The only module that imports it.

A file is checked before the runtime sees it (`realtime_sep.models.registry.read`); its metadata
says how it is to be run, and everything in the graph must fit what the metadata says.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from realtime_sep.dsp.delay import Delay
from realtime_sep.dsp.frames import SegmentTransform
from realtime_sep.errors import ModelError, UsageError, unknown
from realtime_sep.models import registry
from realtime_sep.models.metadata import ModelMetadata
from realtime_sep.models.plan import (
    DEFAULT_PROFILE,
    GPU_PROFILE,
    SegmentPlan,
    SlidingPlan,
    plan,
    segment_plan,
)
from realtime_sep.models.registry import ModelEntry
from realtime_sep.native import denormals_flushed
from realtime_sep.separators.protocol import Separator
from realtime_sep.separators.segments import Segments
from realtime_sep.separators.sliding import Sliding
from realtime_sep.separators.spectral import SpectralStream
from realtime_sep.types import Complex64, Float32, SeparatorInfo

AnyArray = npt.NDArray[Any]
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
#: Older versions read arbitrary files through external data.
_MINIMUM = (1, 24)


def load(entry: ModelEntry, *, samplerate: int, channels: int = 2, **options: Any) -> Separator:
    """Make the separator that an installed model's metadata asks for.

    Args:
        options: `provider` ("auto", "cpu", "cuda"); of all but waveform models `profile` (of
            spectral ones: another file of the same name, see `registry.profiles`; else left out:
            what suits the provider); of window and segment models `realtime` and the fields of
            `SlidingPlan` or `SegmentPlan` (`step`, ...); of window models `wiener` (see `Sliding`),
            of segment models `threads`.

    Raises:
        ModelError: the file is refused, does not fit its metadata, or cannot run here.
        UsageError: a rate, channel count or option that the model does not take.
    """
    make, planned = {
        "spectral": (_spectral, None),
        "waveform": (_waveform, None),
        "window": (_window, SlidingPlan),
        "segment": (_segment, SegmentPlan),
    }[entry.metadata.kind]
    takes = [
        name
        for function in (make, planned)
        if function is not None
        for name in inspect.signature(function).parameters
        if name not in ("entry", "samplerate", "channels", "changes")
    ]
    for option in options:
        if option not in takes:
            raise unknown(f"option of {entry.name!r}", option, takes)
    return make(entry, samplerate=samplerate, channels=channels, **options)


def _spectral(
    entry: ModelEntry,
    *,
    samplerate: int,
    channels: int,
    provider: str = "auto",
    profile: str | None = None,
) -> Separator:
    entry = registry.in_profile(entry, profile)
    return OnnxSpectral(entry, samplerate=samplerate, channels=channels, provider=provider)


def _waveform(
    entry: ModelEntry, *, samplerate: int, channels: int, provider: str = "auto"
) -> Separator:
    return OnnxWaveform(entry, samplerate=samplerate, channels=channels, provider=provider)


def _segment(
    entry: ModelEntry,
    *,
    samplerate: int,
    channels: int,
    provider: str = "auto",
    profile: str | None = None,
    realtime: bool = False,
    threads: int = 1,
    **changes: int,
) -> Separator:
    net = OnnxSegment(entry, provider=provider, threads=threads)
    fitting = GPU_PROFILE if net.provider == _PROVIDERS["cuda"] else DEFAULT_PROFILE
    chosen = segment_plan(entry.metadata, profile or fitting, **changes)
    return Segments(net, chosen, samplerate=samplerate, channels=channels, realtime=realtime)


def _window(
    entry: ModelEntry,
    *,
    samplerate: int,
    channels: int,
    provider: str = "auto",
    profile: str | None = None,
    realtime: bool = False,
    wiener: int = 0,
    **changes: int,
) -> Separator:
    chosen = plan(entry.metadata, profile or DEFAULT_PROFILE, **changes)
    net = OnnxWindow(entry, chosen, provider=provider, whole=wiener > 0)
    if profile is None and net.provider == _PROVIDERS["cuda"]:  # computing costs it next to nothing
        chosen = plan(entry.metadata, GPU_PROFILE, **changes)
        net = OnnxWindow(entry, chosen, provider=provider, whole=wiener > 0)
    return Sliding(
        net, chosen, samplerate=samplerate, channels=channels, realtime=realtime, wiener=wiener
    )


class OnnxSpectral:
    """A model that takes one spectrum and its state, hop by hop, and gives the stems' spectra.

    Graph: `spec` `[1, channels, bins, 2]` (real, imaginary part) and `state_*` in; `stems`
    `[1, stems, channels, bins, 2]` and `next_state_*` out.  Mono input goes to all channels of the
    network, and its first one comes out.  At another rate than the first of the metadata's the
    transform is longer (`ModelMetadata.geometry_at`), the graph the same.  One with a waveform
    branch takes `samples` `[1, channels, hop]`, the hop itself, too, and gives `waves`
    `[1, stems, channels, hop]`: what is added to the hops that its spectra become.

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
        self._stream = SpectralStream(meta, samplerate, channels)
        bins = meta.geometry.bins
        spec: Float32 = np.zeros((1, meta.channels, bins, 2), np.float32)
        stems: Float32 = np.zeros((1, len(meta.stems), meta.channels, bins, 2), np.float32)
        session = _session(entry, provider)
        inputs, outputs = {"spec": spec}, {"stems": stems}
        self._samples: Float32 | None = None
        self._waves: Float32 | None = None
        if has_waves(session):
            inputs["samples"] = np.zeros((1, meta.channels, meta.hop), np.float32)
            outputs["waves"] = np.zeros((1, *stems.shape[1:3], meta.hop), np.float32)
            self._samples, self._waves = inputs["samples"][0], outputs["waves"][0]
        self._step = _Step(entry, session, inputs, outputs)
        # Complex views of the network's arrays: nothing is converted per hop.
        self._input: Complex64 = spec[0].view(np.complex64)[..., 0]
        self._output: Complex64 = stems[0].view(np.complex64)[..., 0]
        self.info = SeparatorInfo(
            name=entry.name,
            stems=meta.all_stems,
            samplerate=samplerate,
            channels=channels,
            hop=meta.hop,
            latency=self._stream.latency,
            family=meta.family,
            provider=_active(entry, session, provider),
            rtf=self._step.seconds * samplerate / meta.hop,
        )
        self.realtime = False
        self.reset()

    @property
    def notice(self) -> str | None:
        """Live, what to tell people whose machine does not keep up."""
        return _too_slow(self.info) if self.realtime else None

    def reset(self) -> None:
        """Return to the state just after construction."""
        self._step.reset()
        self._stream.reset()

    def process(self, hop: Float32, stems: Float32) -> None:
        """Separate `(H, channels)` into `stems` `(stems, H, channels)`, `info.latency` later."""
        self._stream.analyse(hop, self._input)
        if self._samples is not None:
            self._samples[:] = hop.T
        self._step()
        self._stream.synthesise(hop, self._output, self._waves, stems)


def has_waves(session: Any) -> bool:
    """Whether a spectral model's graph has a waveform branch: half a one is refused later."""
    values = (*session.get_inputs(), *session.get_outputs())
    return bool({"samples", "waves"} & {value.name for value in values})


class OnnxWaveform:
    """A model that takes one hop of samples and its state, and gives one hop of the stems.

    Graph: `samples` `[1, channels, hop]` and `state_*` in; `stems` `[1, stems, channels, hop]`, as
    many samples late as the metadata's `delay` says, and `next_state_*` out.  Mono as above.

    Args:
        entry: of kind "waveform".

    Raises:
        ModelError, UsageError: as `load`.
    """

    def __init__(
        self, entry: ModelEntry, *, samplerate: int, channels: int = 2, provider: str = "auto"
    ) -> None:
        meta = entry.metadata
        meta.check_stream(samplerate, channels)
        self._samples: Float32 = np.zeros((1, meta.channels, meta.hop), np.float32)
        self._stems: Float32 = np.zeros((1, len(meta.stems), meta.channels, meta.hop), np.float32)
        session = _session(entry, provider)
        self._step = _Step(entry, session, {"samples": self._samples}, {"stems": self._stems})
        self._delay = Delay(meta.delay, channels)
        self.info = SeparatorInfo(
            name=entry.name,
            stems=meta.all_stems,
            samplerate=samplerate,
            channels=channels,
            hop=meta.hop,
            latency=meta.delay,
            family=meta.family,
            provider=_active(entry, session, provider),
            rtf=self._step.seconds * samplerate / meta.hop,
        )
        self.realtime = False
        self.reset()

    @property
    def notice(self) -> str | None:
        """Live, what to tell people whose machine does not keep up."""
        return _too_slow(self.info) if self.realtime else None

    def reset(self) -> None:
        """Return to the state just after construction."""
        self._step.reset()
        self._delay.reset()

    def process(self, hop: Float32, stems: Float32) -> None:
        """Separate `(H, channels)` into `stems` `(stems, H, channels)`, `info.latency` later."""
        self._samples[0] = hop.T
        self._step()
        residual = stems[-1]
        self._delay.process(hop, residual)
        channels = hop.shape[1]
        for i in range(len(stems) - 1):
            stems[i] = self._stems[0, i, :channels].T
            residual -= stems[i]


class OnnxWindow:
    """A fixed-window mask network in an ONNX file, for `Sliding`.

    Graph: `magnitude` `[1, channels, T, bins]` and `newest` (int64 `[1]`, R) in; `masks`
    `[R, stems, channels, bins]` of the newest R frames out, oldest first.  One with states
    (`state_*` in, `next_state_*` out) sees every frame once.

    Args:
        entry: of kind "window".
        plan: says T, K and A.
        whole: give the masks of all T frames.

    Raises:
        ModelError: as `load`.
    """

    def __init__(
        self,
        entry: ModelEntry,
        plan: SlidingPlan,
        *,
        provider: str = "auto",
        whole: bool = False,
    ) -> None:
        self.metadata: ModelMetadata = entry.metadata
        meta = entry.metadata
        self._taken = plan.context if whole else plan.step
        newest = plan.context if whole else plan.step + plan.lookahead
        magnitude: Float32 = np.zeros((1, meta.channels, plan.context, meta.bins), np.float32)
        self.window: Float32 = magnitude[0]
        self._masks: Float32 = np.zeros(
            (newest, len(meta.stems), meta.channels, meta.bins), np.float32
        )
        session = _session(entry, provider, frames=plan.context)
        self._step = _Step(
            entry,
            session,
            {"magnitude": magnitude, "newest": np.array([newest], np.int64)},
            {"masks": self._masks},
        )
        self.provider = _active(entry, session, provider)

    def reset(self) -> None:
        """Forget the past, where there are states."""
        self._step.reset()

    def run(self, masks: Float32) -> None:
        """Compute the masks of the window `self.window` into `masks` (K, stems, channels, bins)."""
        self._step()
        masks[:] = self._masks[: self._taken]


class OnnxSegment:
    """A network on segments of samples in an ONNX file, for `Segments`.

    Graph, in: `mix` `[1, channels, L]`, or `spec` `[1, 2 channels, bins, T]` (real and imaginary
    part of each channel), or both; out: `stems` `[1, stems, channels, L]`, or `spectra`
    `[1, stems, 2 channels, bins, T]`, or both, which are then added up.

    Args:
        entry: of kind "segment".
        threads: that compute.

    Raises:
        ModelError: as `load`.
    """

    def __init__(self, entry: ModelEntry, *, provider: str = "auto", threads: int = 1) -> None:
        self.metadata: ModelMetadata = entry.metadata
        meta = entry.metadata
        if not 1 <= threads <= 256:
            raise UsageError(f"threads must be 1 to 256, not {threads}")
        session = _session(entry, provider, threads=threads)
        length, channels, stems = meta.segment, meta.channels, len(meta.stems)
        mix: Float32 = np.zeros((1, channels, length), np.float32)
        waves: Float32 = np.zeros((1, stems, channels, length), np.float32)
        inputs, outputs = {"mix": mix}, {"stems": waves}
        self.segment: Float32 = mix[0]
        self.stems: Float32 = waves[0]
        self._transform: SegmentTransform | None = None
        if meta.transform:
            transform = SegmentTransform(meta.n_fft, meta.hop, length, meta.bins, meta.transform)
            shape = (2 * channels, meta.bins, transform.frames)
            inputs["spec"] = np.zeros((1, *shape), np.float32)
            outputs["spectra"] = np.zeros((1, stems, *shape), np.float32)
            # The same arrays as the transform sees them.
            apart = (channels, 2, *shape[1:])
            self._spec: Float32 = inputs["spec"].reshape(apart)
            self._spectra: Float32 = outputs["spectra"].reshape(stems, *apart)
            self._transform = transform
            names = {value.name for value in (*session.get_inputs(), *session.get_outputs())}
            inputs = {name: inputs[name] for name in inputs if name in names} or inputs
            outputs = {name: outputs[name] for name in outputs if name in names} or outputs
        self._waves = "stems" in outputs
        self._has_spectra = "spectra" in outputs
        self._step = _Step(entry, session, inputs, outputs, tries=1)
        self.provider = _active(entry, session, provider)

    def run(self) -> None:
        """Compute `self.stems` from `self.segment`."""
        if self._transform is not None:
            self._transform.forward(self.segment, self._spec)
        self._step()
        if not self._waves:
            self.stems[:] = 0
        if self._transform is not None and self._has_spectra:
            for spectra, stem in zip(self._spectra, self.stems, strict=True):
                self._transform.inverse(spectra, stem)


class _Step:
    """Runs a session from arrays to arrays and from state to state.

    State is read from one half and written to the other; then the halves change places.

    Args:
        inputs, outputs: the graph's, by name, without the states.
        tries: runs to warm it up.

    Attributes:
        seconds: that the quickest of these runs took.

    Raises:
        ModelError: the graph is not what the metadata says, or does not run.
    """

    def __init__(
        self,
        entry: ModelEntry,
        session: Any,
        inputs: dict[str, AnyArray],
        outputs: dict[str, AnyArray],
        tries: int = 2,
    ) -> None:
        shapes = {s.name: (1, *s.shape) for s in entry.metadata.states}
        self._states: list[dict[str, Float32]] = [
            {n: np.zeros(s, np.float32) for n, s in shapes.items()} for _ in range(2)
        ]
        _check_graph(
            entry,
            session,
            {**_shapes(inputs), **{f"state_{n}": s for n, s in shapes.items()}},
            {**_shapes(outputs), **{f"next_state_{n}": s for n, s in shapes.items()}},
        )
        self._runs = [
            _runner(
                session,
                {**inputs, **{f"state_{n}": a for n, a in self._states[now].items()}},
                {**outputs, **{f"next_state_{n}": a for n, a in self._states[after].items()}},
            )
            for now, after in (((0, 1), (1, 0)) if shapes else ((0, 1),))
        ]
        self._turn = 0
        self.seconds = np.inf
        for _ in range(tries):
            begin = time.perf_counter()
            try:
                self()
            except Exception as error:  # the runtime's errors have no common type
                raise ModelError(f"model {entry.name!r} does not run: {_reason(error)}") from error
            self.seconds = min(self.seconds, time.perf_counter() - begin)
        self.reset()

    def reset(self) -> None:
        """All states are zero."""
        for states in self._states:
            for array in states.values():
                array[:] = 0
        self._turn = 0

    def __call__(self) -> None:
        self._runs[self._turn]()
        self._turn = (self._turn + 1) % len(self._runs)


def _shapes(arrays: dict[str, AnyArray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def _too_slow(info: SeparatorInfo) -> str | None:
    """What to tell people whose machine does not keep up with a model that runs hop by hop."""
    if info.rtf <= 1:
        return None
    help = "" if info.provider == _PROVIDERS["cuda"] else "a graphics card (--provider cuda), "
    return (
        f"{info.name!r} is too slow here: {info.rtf:.2g} times real time on {info.provider}; "
        f"what helps: {help}a longer hop, a smaller or quantised network"
    )


def _session(entry: ModelEntry, provider: str, *, threads: int = 1, **dimensions: int) -> Any:
    """A session that runs where it is told to.

    Args:
        threads: that compute; more than one make a single run quicker, and its time less certain.
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
    options.intra_op_num_threads = threads
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
