"""Test sets of long speech: the sentences of a test set on end, with pauses between them, as streams of some minutes.

    python long_set.py --source simuleval/source.txt --target simuleval/target.txt --minutes 10 --output runs/long

makes a folder for each pause, ``pause_300ms`` and the like, with the lists that scripts/evaluate.sh takes
(``source.txt``, ``target.txt``, ``source_text.txt``; a line a stream), and what says where each sentence lies:
``segments.json`` (the recording, ``offset`` and ``duration`` in seconds, as OmniSTEval reads them, and ``line``, the
number of the sentence in the lists it was taken from) and ``sentences.txt``, the references. ``alone`` has the same
sentences one by one. The same lists, pauses and lengths give the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from echostream.constants import SAMPLE_RATE
from echostream.text import text_lines
from scripts.command_line import positive
from scripts.files import atomic_path, write_text
from scripts.judging.evaluation import check_lists

ALONE = "alone"
SOURCE, TARGET, SOURCE_TEXT = "source.txt", "target.txt", "source_text.txt"
SEGMENTS, SENTENCES = "segments.json", "sentences.txt"
PAUSES_S = (0.0, 0.3, 0.6, 1.2)
MAX_MINUTES = 600.0


@dataclass(frozen=True)
class Sentence:
    """A recording of a test set, what it means and, if known, what is said in it; ``line``: in its lists, from 0."""

    line: int
    path: Path
    target: str
    source_text: str | None

    @property
    def samples(self) -> int:
        return soundfile.info(self.path).frames


def read_sentences(source: Path, target: Path, source_text: Path | None = None, limit: int = 0) -> list[Sentence]:
    """The sentences of a test set.

    Raises:
        ValueError: a list that is missing, lists that don't match, or a recording that can't be used.
    """
    check_lists(source, target, limit)
    paths, targets = text_lines(source), text_lines(target)
    heard: Sequence[str | None] = [None] * len(paths)
    if source_text is not None:
        heard = text_lines(source_text)
        if len(heard) != len(paths):
            raise ValueError(f"{source} has {len(paths)} lines, {source_text} {len(heard)}: they must match")
    rows = zip(range(len(paths)), map(str.strip, paths), targets, heard, strict=True)
    return [Sentence(line, Path(path), target.strip(), text) for line, path, target, text in rows][: limit or None]


def plan(sentences: Sequence[Sentence], pause_s: float, minutes: float, streams: int) -> list[list[Sentence]]:
    """What is said in each stream: the sentences in their order, then again in others, as long as there is room.

    Args:
        sentences: of the test set.
        pause_s: between two of them.
        minutes: most of a stream; a sentence that is longer is a stream alone.
        streams: how many.
    """
    in_turn = _in_turn(sentences)
    pause, most = round(pause_s * SAMPLE_RATE), round(60 * minutes * SAMPLE_RATE)
    lengths = {sentence.line: sentence.samples for sentence in sentences}
    planned: list[list[Sentence]] = []
    following = next(in_turn)
    for _ in range(streams):
        stream, samples = [following], lengths[following.line]
        following = next(in_turn)
        while samples + pause + lengths[following.line] <= most:
            samples += pause + lengths[following.line]
            stream.append(following)
            following = next(in_turn)
        planned.append(stream)
    return planned


def _in_turn(sentences: Sequence[Sentence]) -> Iterator[Sentence]:
    yield from sentences
    order = np.random.default_rng(0)
    while True:
        yield from (sentences[index] for index in order.permutation(len(sentences)))


def write_streams(folder: Path, planned: Sequence[Sequence[Sentence]], pause_s: float) -> None:
    """Recordings and lists of the streams of one pause."""
    folder.mkdir(parents=True, exist_ok=True)
    segments, paths = [], []
    for number, stream in enumerate(planned, 1):
        path = folder.resolve() / f"stream_{number:03}.wav"
        at = 0
        with atomic_path(path) as temporary, soundfile.SoundFile(temporary, "w", SAMPLE_RATE, 1, "PCM_16") as file:
            for sentence in stream:
                if at:
                    pause = _quiet(round(pause_s * SAMPLE_RATE), at)
                    file.write(pause)
                    at += len(pause)
                samples, _ = soundfile.read(sentence.path, dtype="int16")
                file.write(samples)
                place = {"offset": at / SAMPLE_RATE, "duration": len(samples) / SAMPLE_RATE}
                segments.append({"wav": path.name, **place, "line": sentence.line})
                at += len(samples)
        paths.append(str(path))
    write_text(folder / SOURCE, _lines(paths))
    write_text(folder / TARGET, _lines(" ".join(sentence.target for sentence in stream) for stream in planned))
    if all(sentence.source_text is not None for stream in planned for sentence in stream):
        texts = (" ".join(sentence.source_text or "" for sentence in stream) for stream in planned)
        write_text(folder / SOURCE_TEXT, _lines(texts))
    write_text(folder / SENTENCES, _lines(sentence.target for stream in planned for sentence in stream))
    write_text(folder / SEGMENTS, json.dumps(segments, indent=1) + "\n")


def _quiet(samples: int, seed: int) -> np.ndarray:
    """Dither of one step, int16 ``(n,)``: no microphone gives the logarithm of digital silence."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (2, samples)).sum(0).round().astype(np.int16)


def _lines(texts: Iterator[str] | Sequence[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def write_alone(folder: Path, sentences: Sequence[Sentence]) -> None:
    """Lists of the sentences one by one."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SOURCE, _lines(str(sentence.path.resolve()) for sentence in sentences))
    write_text(folder / TARGET, _lines(sentence.target for sentence in sentences))
    if all(sentence.source_text is not None for sentence in sentences):
        write_text(folder / SOURCE_TEXT, _lines(sentence.source_text or "" for sentence in sentences))
    write_text(folder / SEGMENTS, json.dumps([{"line": sentence.line} for sentence in sentences]) + "\n")


def pause_folder(pause_s: float) -> str:
    """Name of the folder of one pause."""
    return f"pause_{round(1000 * pause_s)}ms"


def main() -> None:
    parser = argparse.ArgumentParser(description="Join the sentences of a test set to long streams.")
    parser.add_argument("--source", type=Path, required=True, help="16 kHz mono sound files, one a line")
    parser.add_argument("--target", type=Path, required=True, help="reference translations, one a line")
    parser.add_argument("--source-text", type=Path, help="transcripts, one a line")
    parser.add_argument(
        "--pauses", type=float, nargs="+", default=list(PAUSES_S), metavar="S", help="s (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="most of a stream (default: %(default)s)")
    parser.add_argument("--streams", type=positive, default=1, help="for each pause (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=0, help="only the first N sentences (default 0: all)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the sets")
    args = parser.parse_args()
    if not 0 < args.minutes <= MAX_MINUTES:
        parser.error(f"--minutes must be above 0 and at most {MAX_MINUTES:g}, got {args.minutes:g}")
    if not all(0 <= pause <= 60 for pause in args.pauses):
        parser.error(f"--pauses must be from 0 to 60 s, got {' '.join(map(str, args.pauses))}")
    try:
        sentences = read_sentences(args.source, args.target, args.source_text, args.limit)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    used: set[int] = set()
    for pause_s in args.pauses:
        planned = plan(sentences, pause_s, args.minutes, args.streams)
        write_streams(args.output / pause_folder(pause_s), planned, pause_s)
        used |= {sentence.line for stream in planned for sentence in stream}
        seconds = sum(sentence.samples for stream in planned for sentence in stream) / SAMPLE_RATE
        print(f"{pause_s:g} s between: {sum(map(len, planned))} sentences, {seconds / 60:.1f} minutes of speech")
    write_alone(args.output / ALONE, [sentence for sentence in sentences if sentence.line in used])


if __name__ == "__main__":
    main()
