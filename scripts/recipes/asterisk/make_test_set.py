"""Stage 2: prompts that both languages have, cut to sentences worth translating, as 16 kHz wav files and a table.

    python make_test_set.py --prompts DIR --source-lang fr --out OUT

writes OUT/pairs.tsv (id, both texts, seconds of both recordings) and OUT/audio/<language>/<id>.wav.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import soundfile

from echostream.constants import SAMPLE_RATE
from echostream.text import text_lines
from scripts.command_line import require
from scripts.files import atomic_path, write_text
from scripts.speech.text_normalization import normalize_text

TARGET = "en"
# "[ascending tones]", "(ahooga)", "<beep>": what is heard is no speech.
NOT_SPEECH = ("[", "(", "<")


def read_transcript(path: Path) -> dict[str, str]:
    """Text of each prompt by its name ("digits/0"); comments begin with a semicolon, the first of two lines counts.

    Raises:
        SystemExit: the file isn't UTF-8.
    """
    try:
        lines = text_lines(path)
    except UnicodeDecodeError as error:
        raise SystemExit(f"error: {path} is not UTF-8: {error}") from error
    texts: dict[str, str] = {}
    for line in lines:
        name, colon, text = line.partition(":")
        if colon and not line.startswith(";"):
            texts.setdefault(name.strip(), text.strip())
    return texts


def decode_g722(path: Path) -> np.ndarray:
    """Samples of a raw G.722 file: int16 `(n,)` at 16 kHz.

    Raises:
        SystemExit: PyAV is missing, or can't read the file.
    """
    av = require("av")
    try:
        with av.open(str(path), format="g722") as container:
            frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    except (av.error.FFmpegError, OSError) as error:
        raise SystemExit(f"error: cannot decode {path}: {error}; unpack the packages again") from error
    return np.concatenate(frames).astype(np.int16) if frames else np.zeros(0, np.int16)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a test set of Asterisk's prompts.")
    parser.add_argument("--prompts", type=Path, required=True, help="folder that packages.py has filled")
    parser.add_argument("--source-lang", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--min-source-words", type=int, default=5)
    parser.add_argument("--min-target-words", type=int, default=6)
    parser.add_argument("--max-seconds", type=float, default=28.0, help="of the source recording (default 28)")
    args = parser.parse_args()

    languages = (args.source_lang, TARGET)
    texts = {language: read_transcript(args.prompts / language / "transcript.txt") for language in languages}
    sounds = {language: args.prompts / language / "sounds" for language in languages}
    parallel = [
        name
        for name in sorted(texts[args.source_lang])
        if all(
            texts[language].get(name)
            and not texts[language][name].startswith(NOT_SPEECH)
            and (sounds[language] / f"{name}.g722").is_file()
            for language in languages
        )
    ]
    minimum = {args.source_lang: args.min_source_words, TARGET: args.min_target_words}
    long_enough = [
        name
        for name in parallel
        if all(len(normalize_text(texts[language][name]).split()) >= minimum[language] for language in languages)
    ]
    rows = ["\t".join(("id", *languages, *(f"{language}_seconds" for language in languages)))]
    total_s = dict.fromkeys(languages, 0.0)
    # What an earlier run with another cut has left would not be listed, but would be there.
    shutil.rmtree(args.out / "audio", ignore_errors=True)
    for name in require("tqdm").tqdm(long_enough, desc="decode", unit="prompt"):
        samples = {language: decode_g722(sounds[language] / f"{name}.g722") for language in languages}
        seconds = {language: len(samples[language]) / SAMPLE_RATE for language in languages}
        if not 0 < seconds[args.source_lang] < args.max_seconds or not seconds[TARGET]:
            continue
        identifier = name.replace("/", "__")
        for language in languages:
            total_s[language] += seconds[language]
            with atomic_path(args.out / "audio" / language / f"{identifier}.wav") as temporary:
                soundfile.write(temporary, samples[language], SAMPLE_RATE, subtype="PCM_16")
        columns = [" ".join(texts[language][name].split()) for language in languages]
        rows.append("\t".join((identifier, *columns, *(f"{seconds[language]:.2f}" for language in languages))))
    if len(rows) == 1:
        raise SystemExit(f"error: none of the {len(parallel)} parallel prompts passes the cut; lower --min-*-words")
    for language in languages:
        note = args.prompts / language / "copyright"
        if note.is_file():
            shutil.copy(note, args.out / f"copyright.{language}")
    write_text(args.out / "pairs.tsv", "\n".join(rows) + "\n")
    counts = ", ".join(f"{len(texts[language])} {language} transcripts" for language in languages)
    minutes = ", ".join(f"{total_s[language] / 60:.1f} min {language}" for language in languages)
    print(f"asterisk: {counts}; {len(parallel)} parallel prompts; {len(rows) - 1} kept: {minutes}", flush=True)


if __name__ == "__main__":
    main()
