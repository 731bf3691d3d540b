"""Stage 3 with --transcribe: what is said in recordings that came without a text, by a local Whisper model.

    python transcribe.py --texts ROOT/texts/checked.tsv --side source --language fr --audio ROOT/audio/source \
      --out ROOT/texts/transcripts/source

writes one <id>.txt for each row whose text is empty.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scripts.files import digest, write_text
from scripts.recipes.custom.table import read_checked
from scripts.speech.audio import read_speech
from scripts.work import Work, add_share_arguments, is_too_early, make_files, share

_transcriber: Callable[[np.ndarray], str] | None = None


def _start(model: Path, language: str) -> None:
    from echostream.evaluation.asr import Transcriber

    global _transcriber
    _transcriber = Transcriber(model, language)


def _transcribe(work: Work) -> None:
    assert _transcriber is not None and work.recording is not None
    write_text(work.out, " ".join(_transcriber(read_speech(work.recording)).split()) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write down what is said.")
    parser.add_argument("--texts", type=Path, required=True, help="checked.tsv")
    parser.add_argument("--side", choices=("source", "target"), required=True)
    parser.add_argument("--language", required=True, help="two-letter code")
    parser.add_argument("--audio", type=Path, required=True, help="folder of <id>.wav")
    parser.add_argument("--model", help="base, tiny.en or a CTranslate2 Whisper directory (default: the best)")
    parser.add_argument("--out", type=Path, required=True, help="folder for <id>.txt")
    add_share_arguments(parser)
    args = parser.parse_args()

    name = f"{args.side} transcripts"
    if is_too_early(args, name, "written", args.texts):
        return
    needed = [r for r in read_checked(args.texts) if r[f"{args.side}_wav"] and not r[f"{args.side}_text"]]
    rows = share(needed, args)
    works = [Work(row["id"], args.out / f"{row['id']}.txt", args.audio / f"{row['id']}.wav") for row in rows]
    if not works:
        print(f"{name}: all are there", flush=True)
        return
    # Imported only where there is work: it brings fairseq and torch.
    from echostream.evaluation.asr import find_model, model_name

    try:
        model = find_model(args.model, args.language)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    key = model_name(model), args.language
    make_files(
        args,
        works,
        lambda work: digest(*key, work.recording),
        _transcribe,
        "written",
        name,
        initializer=_start,
        initargs=(model, args.language),
    )


if __name__ == "__main__":
    main()
