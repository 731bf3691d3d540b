"""Give a released model recordings to be tried on: the first ones of some test sets, as flac.

    python scripts/release/export_samples.py --model models/fr-en \\
        --take tatoeba=3:runs/everyday/simuleval_tatoeba --take asterisk=3:runs/asterisk/fr-en/simuleval

Each set is a folder that simuleval_lists.py has written. SAMPLES/samples.tsv has what was said and what it means, in
the columns that model.yaml's languages name; `make demo` plays them. The page of `echostream serve` offers the first
three: what the model knows best comes first.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import soundfile

from echostream.checkpoints.model_folder import ModelSettings
from echostream.text import text_lines

LISTS = ("source.txt", "source_text.txt", "target.txt")


def take(text: str) -> tuple[str, int, Path]:
    """Type of ``NAME=N:FOLDER``."""
    name, _, rest = text.partition("=")
    number, _, folder = rest.partition(":")
    if not (name and number.isdecimal() and int(number) and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=N:FOLDER")
    return name, int(number), Path(folder)


def first_recordings(folder: Path, number: int) -> list[tuple[Path, str, str]]:
    """Recording, its text and its translation.

    Raises:
        SystemExit: a list is missing, or has fewer lines.
    """
    for name in LISTS:
        if not (folder / name).is_file():
            raise SystemExit(f"error: {folder} has no {name}; scripts/data/simuleval_lists.py writes such folders")
    sources, texts, targets = (text_lines(folder / name) for name in LISTS)
    if min(len(sources), len(texts), len(targets)) < number:
        raise SystemExit(f"error: {folder} has {len(sources)} recordings, not {number}")
    return [(Path(source), *rest) for source, *rest in list(zip(sources, texts, targets, strict=True))[:number]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Give a released model recordings to be tried on.")
    parser.add_argument("--model", type=Path, required=True, help="folder that export_model.py has written")
    parser.add_argument("--take", type=take, action="append", required=True, metavar="NAME=N:FOLDER")
    args = parser.parse_args()
    if not (args.model / "model.yaml").is_file():
        raise SystemExit(f"error: {args.model} has no model.yaml; scripts/release/export_model.py makes one")
    settings = ModelSettings.of(args.model)
    samples = args.model / "samples"
    shutil.rmtree(samples, ignore_errors=True)
    samples.mkdir()
    lines = ["\t".join(("id", "source_audio", settings.source_lang, settings.target_lang, "set"))]
    for name, number, folder in args.take:
        for index, (recording, text, meaning) in enumerate(first_recordings(folder, number), 1):
            speech, sample_rate = soundfile.read(recording, dtype="int16")
            sample = f"{name}_{index}"  # two sets may have one sentence, under one name
            soundfile.write(samples / f"{sample}.flac", speech, sample_rate, subtype="PCM_16")
            lines.append("\t".join((sample, f"{sample}.flac", text, meaning, name)))
    (samples / "samples.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{samples}: {len(lines) - 1} recordings")


if __name__ == "__main__":
    main()
