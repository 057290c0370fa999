"""Signal processing kernels: windows, STFT, fades, meters, limiter, resampling."""
