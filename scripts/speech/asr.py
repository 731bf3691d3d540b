"""Read speech with a local Whisper model: `python scripts/speech/asr.py --language en a.wav b.wav`.

One line of text for each file, in order. Models are found as by the evaluation, see
`echostream.evaluation.asr`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from echostream.evaluation.asr import Transcriber, find_model, model_name
from echostream.text import text_lines


def main(arguments: list[str] | None = None) -> None:
    """The command line.

    Raises:
        SystemExit: the recogniser or a file is missing, or a file isn't 16 kHz mono.
    """
    parser = argparse.ArgumentParser(description="Read speech with a local Whisper model.")
    parser.add_argument("wavs", type=Path, nargs="*", help="16 kHz mono sound files")
    parser.add_argument("--list", type=Path, help="file that names them instead, one a line")
    parser.add_argument("--model", help="base, tiny.en or a CTranslate2 Whisper directory")
    parser.add_argument("--language", default="en", help="two-letter code (default: en)")
    parser.add_argument("--cache", type=Path, help="JSON-lines file that remembers transcripts")
    parser.add_argument("--output", type=Path, help="text file (default: standard output)")
    parser.add_argument("--which", action="store_true", help="only say which model would be used")
    args = parser.parse_args(arguments)
    try:
        model = find_model(args.model, args.language)
        if args.which:
            print(model_name(model))
            return
        wavs = args.wavs or [Path(line) for line in text_lines(args.list)]
        missing = [wav for wav in wavs if not wav.is_file()]
        if missing:
            raise ValueError(f"no such sound file: {missing[0]} ({len(missing)} of {len(wavs)} are missing)")
        texts = Transcriber(model, args.language, args.cache).files(wavs)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    lines = "".join(f"{text}\n" for text in texts)
    if args.output is None:
        sys.stdout.write(lines)
    else:
        args.output.write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
