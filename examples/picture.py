"""The idea of the project in one picture: what comes in above; below, voice in red, music in blue.

    python examples/picture.py [SONG] [--model NAME] [--out FILE.png]

Without a song it draws the demo's own.  Time runs to the right, pitch upwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from realtime_sep import separate
from realtime_sep.evaluate.pictures import Image, Magnitudes, magnitudes, png
from realtime_sep.io.file import read_audio

NIGHT, VOICE, MUSIC, BOTH = (
    np.array(colour) for colour in ((11, 13, 23), (255, 86, 78), (64, 138, 255), (250, 240, 225))
)
#: Colours: `STEPS` shares of voice for each of `STEPS` levels.
STEPS = 15
#: Level of the darkest colour below the brightest, in dB.
RANGE = 66.0


def palette() -> Image:
    """`STEPS` times `STEPS` colours from night to that of each share, then `STEPS` to paper."""
    levels = np.linspace(0, 1, STEPS)[:, None, None]
    shares = np.linspace(0, 1, STEPS)[None, :, None]
    parts = NIGHT + levels * (MUSIC + shares * (VOICE - MUSIC) - NIGHT)
    whole = NIGHT + levels[:, 0] * (BOTH - NIGHT)
    return np.concatenate([parts.reshape(-1, 3), whole]).round().astype(np.uint8)


def level(spectrum: Magnitudes, loudest: float) -> Magnitudes:
    """0..STEPS-1."""
    with np.errstate(divide="ignore"):
        decibels = 20 * np.log10(spectrum / loudest)
    scaled: Magnitudes = np.clip(1 + decibels / RANGE, 0, 1) * (STEPS - 1)
    return scaled.round()


def draw(voice: Magnitudes, music: Magnitudes, mix: Magnitudes) -> bytes:
    """The picture as PNG, from three spectrograms of one size, lowest frequency first."""
    loudest = float(mix.max())
    share = voice**2 / np.maximum(voice**2 + music**2, 1e-20)
    parts = level(np.maximum(voice, music), loudest) * STEPS + np.round(share * (STEPS - 1))
    whole = level(mix, loudest) + STEPS * STEPS
    gap = np.zeros((6, mix.shape[1]))
    pixels = np.concatenate([whole[::-1], gap, parts[::-1]])
    return png(np.repeat(pixels, 2, axis=0).astype(np.uint8), palette())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("song", nargs="?")
    parser.add_argument("--model", default="center")
    parser.add_argument("--out", type=Path, default=Path("out/picture.png"))
    args = parser.parse_args()
    if args.song:
        mix, samplerate = read_audio(args.song)
    else:
        from song import render_song

        own = render_song()
        mix, samplerate = own.mix, own.samplerate
    stems = separate(mix, samplerate, args.model)
    voice = stems.pop("vocals")
    music = np.sum(list(stems.values()), axis=0)
    spectra = (magnitudes(audio, samplerate) for audio in (voice, music, mix))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(draw(*spectra))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
