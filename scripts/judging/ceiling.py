"""The best that a judge could say: what it reads in the human or synthetic reference recordings themselves.

    python ceiling.py --recordings simuleval/target_audio.txt --target simuleval/target.txt --asr-model base tiny.en \\
        --output ceiling.json

A translation that is right word for word, spoken by the very reference voice, would score this. Interrupted, it goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from echostream.evaluation.asr import Transcriber, find_model
from echostream.evaluation.quality import bleu, chrf, wer
from echostream.evaluation.spoken_form import spoken_form
from echostream.text import text_lines
from scripts.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description="Score reference recordings as translations are scored.")
    parser.add_argument("--recordings", type=Path, required=True, help="16 kHz mono sound files, one a line")
    parser.add_argument("--target", type=Path, required=True, help="what they say, one a line")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    parser.add_argument("--limit", type=int, default=0, help="only the first N (default 0: all)")
    parser.add_argument("--language", default="en", help="of the recordings (default: %(default)s)")
    parser.add_argument("--asr-model", nargs="+", default=["base"], help="base, tiny.en or a directory")
    parser.add_argument("--asr-compute", choices=("float32", "int8"), default="float32")
    parser.add_argument("--asr-cache", type=Path, help="remembers what was read")
    args = parser.parse_args()
    scores = {}
    try:
        files, texts = (text_lines(path) for path in (args.recordings, args.target))
        if len(files) != len(texts):
            raise ValueError(f"{args.recordings} has {len(files)} lines, {args.target} {len(texts)}")
        files, texts = files[: args.limit or None], texts[: args.limit or None]
        if missing := [file for file in files if not Path(file).is_file()]:
            raise ValueError(f"no recording {missing[0]}")
        write = spoken_form(args.language)
        texts = list(map(write, texts))
        for name in args.asr_model:
            model = find_model(name, args.language)
            reader = Transcriber(model, args.language, args.asr_cache, args.asr_compute)
            heard = list(map(write, reader.files(map(Path, files))))
            scores[name] = {"BLEU": bleu(heard, texts), "chrF": chrf(heard, texts), "WER": wer(heard, texts)}
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    write_text(args.output, json.dumps({"sentences": len(texts), "scores": scores}, indent=1) + "\n")


if __name__ == "__main__":
    main()
