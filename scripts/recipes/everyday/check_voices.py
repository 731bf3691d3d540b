"""Stage 1: which voices can be understood. Whisper base reads sentences that each voice has spoken.

    python check_voices.py --voices voices.tsv --tatoeba fra-eng.zip --voices-dir VOICES --out DIR/voices.tsv

writes the rows of the voices with a word error rate of at most `--max-wer`, and beside it, in `DIR/voices_report.tsv`,
`id wer seconds use` of every voice. All voices speak the same sentences. A voice that was checked before with the same
sentences is not checked again.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import astuple, dataclass
from pathlib import Path

from echostream.evaluation.asr import Transcriber, find_model
from echostream.evaluation.quality import wer
from scripts.files import digest, write_text
from scripts.recipes.everyday.numbers_in_text import spoken_french
from scripts.recipes.everyday.places import lay_out
from scripts.recipes.everyday.texts import read_tatoeba, table, tidy
from scripts.recipes.everyday.voices import Speakers, Voice, read_voices
from scripts.speech.audio import SAMPLE_RATE
from scripts.speech.speech_synthesis import read_table
from scripts.work import Work, add_share_arguments, make_files

KIND = "voices v2"
WORDS = (5, 14)  # of a sentence
# Sentences read at once: Whisper takes as long for one as for all that fits into its 30 s.
TOGETHER, GAP_S = 6, 0.5
REPORT_COLUMNS = ["id", "wer", "seconds", "use"]


@dataclass(frozen=True)
class Check(Work):
    """A voice, and the report of it."""

    voice: Voice | None = None
    texts: tuple[str, ...] = ()


_start_arguments: tuple = ()


def _start(voices_dir: Path | None, engine: str) -> None:
    global _start_arguments
    _start_arguments = (voices_dir, engine)


def written_as_spoken(text: str) -> str:
    """What Whisper wrote, with numbers in words as the sentences have them."""
    try:
        return spoken_french(tidy(text))
    except (ValueError, OverflowError):
        return text


def _check(work: Check) -> None:
    assert work.voice is not None
    speakers = Speakers(*_start_arguments)
    reader = Transcriber(find_model("base", "fr"), "fr", compute="int8")
    hypotheses, references, seconds = [], [], 0.0
    for start in range(0, len(work.texts), TOGETHER):
        texts = work.texts[start : start + TOGETHER]
        spoken = [speakers(work.voice, text) for text in texts]
        samples, _ = lay_out(spoken, [GAP_S] * (len(spoken) + 1))
        seconds += sum(map(len, spoken)) / SAMPLE_RATE
        hypotheses.append(written_as_spoken(reader(samples)))
        references.append(" ".join(texts))
    row = (work.voice.name, f"{wer(hypotheses, references):.1f}", f"{seconds:.1f}", work.voice.use)
    write_text(work.out, table(REPORT_COLUMNS, [row]))


def sentences(tatoeba: Path, count: int, seed: int) -> tuple[str, ...]:
    """French sentences of ordinary length, drawn from the seed."""
    fit = sorted({tidy(fr) for fr, _ in read_tatoeba(tatoeba) if WORDS[0] <= len(fr.split()) <= WORDS[1]})
    drawn = random.Random(digest(seed, "voices")).sample(fit, min(len(fit), 2 * count))
    plain = [text for text in drawn if not any(character.isdigit() for character in text)]
    return tuple(plain[:count])


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep the voices that can be understood.")
    parser.add_argument("--voices", type=Path, required=True, help="table of voices")
    parser.add_argument("--tatoeba", type=Path, required=True, help="fra-eng.zip, for sentences to say")
    parser.add_argument("--voices-dir", type=Path, help="folder with Kokoro's voice tables")
    parser.add_argument("--voice-engine", default="onnxruntime", help="what computes Kokoro (default: %(default)s)")
    parser.add_argument("--sentences", type=int, default=50, help="for each voice (default: %(default)s)")
    parser.add_argument("--max-wer", type=float, default=30.0, help="in per cent (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    add_share_arguments(parser)
    args = parser.parse_args()

    voices = read_voices(args.voices)
    texts = sentences(args.tatoeba, args.sentences, args.seed)
    folder = args.out.parent / "voices"
    works = [Check(voice.name, folder / f"{voice.name}.tsv", None, voice, texts) for voice in voices]
    out, args.out = args.out, folder
    make_files(
        args,
        works,
        lambda work: digest(KIND, astuple(work.voice)[1:], work.texts),
        _check,
        "checked",
        "voices",
        initializer=_start,
        initargs=(args.voices_dir, args.voice_engine),
    )
    if args.dry_run:
        return
    reports = []
    for work in works:
        reports += [tuple(row.values()) for row in read_table(work.out)]
    write_text(out.with_name("voices_report.tsv"), table(REPORT_COLUMNS, reports))
    passed = {name for name, error, *_ in reports if float(error) <= args.max_wer}
    lines = args.voices.read_text(encoding="utf-8").split("\n")
    write_text(out, "\n".join([lines[0], *(line for line in lines[1:] if line.split("\t")[0] in passed)]) + "\n")
    mean = sum(float(error) for name, error, *_ in reports if name in passed) / max(1, len(passed))
    dropped = sorted({voice.name for voice in voices} - passed)
    print(f"voices: {len(passed)} with a mean WER of {mean:.1f} %; dropped: {', '.join(dropped) or 'none'}", flush=True)
    if not any(voice.use == "train" and voice.name in passed for voice in voices):
        raise SystemExit(f"error: no voice for training has at most {args.max_wer} % word errors (--max-wer)")


if __name__ == "__main__":
    main()
