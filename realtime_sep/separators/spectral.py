"""What surrounds a network that takes one spectrum and its state, hop by hop: samples both ways."""

from __future__ import annotations

import numpy as np

from realtime_sep.dsp.delay import Delay
from realtime_sep.dsp.stft import Analysis, Synthesis
from realtime_sep.latency import overlap_add_lag
from realtime_sep.models.metadata import ModelMetadata
from realtime_sep.types import Complex64, Float32


class SpectralStream:
    """Hops to spectra, the stems' spectra to hops, and what the stems leave of the mix.

    Args:
        metadata: of a model of kind "spectral".
        samplerate: Hz; its transform is `ModelMetadata.geometry_at`.

    Attributes:
        latency: frames by which the stems lag the hops.

    Raises:
        UsageError: a rate or number of channels that the model does not take.
    """

    def __init__(self, metadata: ModelMetadata, samplerate: int, channels: int) -> None:
        metadata.check_stream(samplerate, channels)
        geometry = metadata.geometry_at(samplerate)
        self.latency = overlap_add_lag(geometry, metadata.lookahead)
        self._heard = min(geometry.bins, metadata.geometry.bins)
        self._analysis = Analysis(geometry, channels)
        self._syntheses = [Synthesis(geometry, channels) for _ in metadata.stems]
        self._delay = Delay(self.latency, channels)
        # Bins that the network does not know belong to nobody, so to the residual.
        self._spectra: Complex64 = np.zeros(
            (len(metadata.stems), channels, geometry.bins), np.complex64
        )

    def reset(self) -> None:
        """Forget the past."""
        self._analysis.reset()
        self._delay.reset()
        for synthesis in self._syntheses:
            synthesis.reset()

    def analyse(self, hop: Float32, spectrum: Complex64) -> None:
        """Take `(H, channels)`; write what the network sees, `(its channels, bins)`.

        One channel goes to all of the network's.
        """
        spectrum[:, : self._heard] = self._analysis.process(hop)[:, : self._heard]
        spectrum[:, self._heard :] = 0  # what is above half the rate; another stream's, in a batch

    def synthesise(
        self, hop: Float32, spectra: Complex64, waves: Float32 | None, stems: Float32
    ) -> None:
        """Write the stems `(stems, H, channels)` of what the network gave for this hop.

        Args:
            spectra: `(stems, its channels, bins)`; of more channels than there are, the first.
            waves: hops to be added `(stems, its channels, H)`, of a waveform branch.
        """
        channels = self._spectra.shape[1]
        self._spectra[..., : self._heard] = spectra[:, :channels, : self._heard]
        residual = stems[-1]
        self._delay.process(hop, residual)
        for i, synthesis in enumerate(self._syntheses):
            synthesis.process(self._spectra[i], stems[i])
            if waves is not None:
                stems[i] += waves[i, :channels].T
            residual -= stems[i]
