"""Translate recordings live through the SimulEval agent, and make a page of it: the work of scripts/demo/demo.sh."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import soundfile

from echostream.audio.errors import AudioError
from echostream.audio.input import open_audio
from echostream.audio.output import WavWriter
from echostream.checkpoints.model_folder import ModelSettings
from echostream.cli.options import UserError
from echostream.cli.recordings import find_recordings
from echostream.constants import DEFAULT_SEGMENT_MS, FRAME_MS
from echostream.evaluation.asr import find_model, model_name
from echostream.text import text_lines
from scripts.benchmarks.figures import write_json
from scripts.demo.demo_report import Report, page, text_table
from scripts.demo.demo_takes import SAMPLE_RATE, Recording, Take, load_takes, make_listener, scores
from scripts.files import write_text
from scripts.judging.evaluation import RUN, begin, check_lists, describe
from scripts.speech.speech_synthesis import read_table

REPOSITORY = Path(__file__).resolve().parents[2]
AGENT = REPOSITORY / "agent" / "speech_to_speech.echostream.agent.py"
REPORT = "report.html"


def sample_recordings(table: Path, settings: ModelSettings) -> list[Recording]:
    """The recordings that come with a model, with their texts.

    Raises:
        UserError: no such table, or none for these languages.
        ValueError: sound that is missing or not 16 kHz mono.
    """
    if not table.is_file():
        raise UserError(f"the model has no samples ({table} is missing): give a recording with INPUT=FILE")
    languages = (settings.source_lang, settings.target_lang)
    if not all(languages):
        raise UserError(f"the model's model.yaml must say source_lang and target_lang, the columns of {table}")
    return [
        Recording(
            row["id"].replace("/", "_"),
            table.parent / row["source_audio"],
            row[languages[0]],
            row[languages[1]],
            row.get("set") or "",
        )
        for row in read_table(table, "source_audio", *languages)
    ]


def own_recordings(given: Path, folder: Path) -> tuple[list[Recording], bool]:
    """Recordings in any format as 16 kHz mono files in ``folder``; and whether all could be read to their ends.

    Raises:
        UserError: there is nothing that can be read.
    """
    if not given.exists():
        raise UserError(f"no such file or folder: {given}")
    found = find_recordings([given])
    paths = found.paths
    if not paths:
        raise UserError("; ".join([f"nothing to translate in {given}", *found.notes]))
    for note in found.notes:
        print(note, file=sys.stderr)
    stems = [path.stem for path in paths]
    recordings, is_whole = [], True
    for index, path in enumerate(paths, 1):
        copy = folder / f"{index:04}.wav"
        heard = 0
        try:
            with open_audio(path) as audio, WavWriter(copy, SAMPLE_RATE) as writer:
                for block in audio:
                    writer.write(block)
                    heard += block.size
        except AudioError as error:
            is_whole = False
            print(f"error: {error}", file=sys.stderr)
        if heard:
            recordings.append(Recording(path.stem if stems.count(path.stem) == 1 else path.name, copy))
    if not recordings:
        raise UserError(f"nothing to translate in {given}")
    return recordings, is_whole


class Show:
    """What the agent tells live, under a headline for each recording; or the headlines alone."""

    def __init__(self, recordings: Sequence[Recording], words: bool) -> None:
        self.recordings, self.words = recordings, words
        self.begun = 0

    def line(self, text: str) -> None:
        """A line of the agent's; it puts an empty one before each recording."""
        if text.strip():
            if self.words:
                print(text, end="", flush=True)
            return
        self.end()
        recording = self.recordings[self.begun]
        self.begun += 1
        seconds = soundfile.info(recording.path).frames / SAMPLE_RATE
        gap = "\n" if self.words else "  "
        print(f"{gap}{self.begun}/{len(self.recordings)}  {recording.name}, {seconds:.1f} s", flush=True)

    def end(self) -> None:
        """The recording is over."""
        if self.begun and self.words and (reference := self.recordings[self.begun - 1].reference):
            print(f"  reference         {reference}", flush=True)


def stream(recordings: Sequence[Recording], args: argparse.Namespace, segment_ms: int, words: bool) -> str | None:
    """Run SimulEval over the recordings with one segment size; returns why it ended early, if it did."""
    run = args.output / RUN.format(segment_ms)
    begin(run, describe([f"model={args.model}", f"segment_ms={segment_ms}"]), force=True)
    source, target = run / "source.txt", run / "target.txt"
    write_text(source, "".join(f"{recording.path.resolve()}\n" for recording in recordings))
    write_text(target, "".join(f"{' '.join((recording.reference or '').split())}\n" for recording in recordings))
    check_lists(source, target)
    ours, theirs = os.pipe()
    command = [sys.executable, "-m", "echostream.evaluation", "--agent", AGENT, "--model-path", args.model]
    command += ["--device", args.device, "--source", source, "--target", target, "--source-segment-size", segment_ms]
    command += ["--output", run, "--quality-metrics", "ECHO_BLEU", "--latency-metrics", "ECHO_ATD", "--no-scoring"]
    command += ["--live", f"/dev/fd/{theirs}"]
    log = run / "simuleval.log"
    show = Show(recordings, words)
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=output, stdin=subprocess.DEVNULL, pass_fds=[theirs]
        )
        os.close(theirs)
        try:
            with os.fdopen(ours, encoding="utf-8") as lines:
                for line in lines:
                    show.line(line)
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if status == 0:
        show.end()
        return None
    errors = [line for line in text_lines(log) if line.startswith("error: ")]
    reason = errors[-1].removeprefix("error: ") if errors else f"SimulEval ended with status {status}"
    return f"{reason} (the whole log: {log})"


def write_takes(takes: Sequence[Take], folder: Path) -> None:
    """Sound and subtitles of each recording."""
    for take in takes:
        base = folder / take.recording.name
        soundfile.write(f"{base}.stereo.wav", take.both, SAMPLE_RATE)
        if take.chunks:
            start = round(take.chunks[0].start * SAMPLE_RATE / 1000)
            soundfile.write(f"{base}.translation.wav", take.played[start:], SAMPLE_RATE)
        write_text(Path(f"{base}.vtt"), take.subtitles())


def demo(args: argparse.Namespace) -> int:
    """The whole demo; returns the exit status.

    Raises:
        UserError, ValueError: what the user can put right.
    """
    settings = ModelSettings.of(args.model)
    is_whole = True
    listen = reader = None
    if args.input is not None:
        args.output = args.output / "input" / args.input.resolve().name
        recordings, is_whole = own_recordings(args.input, args.output / "sources")
    else:
        recordings = sample_recordings(args.model / "samples" / "samples.tsv", settings)
        args.output.mkdir(parents=True, exist_ok=True)
        language = settings.target_lang or "en"
        try:
            found = find_model(language=language)
            listen, reader = make_listener(found, language, args.output / "transcripts.jsonl"), model_name(found)
        except ValueError as error:
            print(f"The speech will not be scored: {error}")
    seconds = sum(soundfile.info(recording.path).frames for recording in recordings) / SAMPLE_RATE
    count = "1 recording" if len(recordings) == 1 else f"{len(recordings)} recordings"
    print(f"{count}, {seconds:.0f} s, through the SimulEval agent; the model is being loaded ...", flush=True)
    results: dict[int, dict[str, float | None]] = {}
    takes: list[Take] = []
    failure = None
    for segment_ms in args.segments:
        is_first = not results
        if not is_first:
            print(f"\nThe same in segments of {segment_ms} ms", flush=True)
        failure = stream(recordings, args, segment_ms, words=is_first)
        if listen is not None and failure is None:
            print(f"\n{reader} reads what was spoken ...", flush=True)
        run = args.output / RUN.format(segment_ms)
        made = load_takes(run, recordings, None if failure else listen) if (run / "steps.jsonl").is_file() else []
        if made:
            results[segment_ms] = scores(made)
            takes = takes or made
        if failure:
            break
    if not takes:
        raise UserError(failure or "nothing was translated")
    write_takes(takes, args.output)
    languages = (settings.source_lang, settings.target_lang)
    report = Report(args.model.resolve().name, languages, takes, results, None if failure else reader)
    write_text(args.output / REPORT, page(report))
    write_json(args.output / "results.json", {"asr_model": reader, "segments_ms": results})
    print(f"\n{text_table(results)}\n\nspeech, subtitles (.vtt) and figures: {args.output}")
    print(f"the page to look at and listen to: {args.output / REPORT}")
    if failure:
        print(f"error: {failure}", file=sys.stderr)
    return 0 if is_whole and not failure else 1


def segment_sizes(text: str) -> list[int]:
    """Type of ``--segments``."""
    sizes = [int(word) if word.isdecimal() else 0 for word in text.split()]
    if not sizes or any(size <= 0 or size % FRAME_MS for size in sizes):
        raise argparse.ArgumentTypeError(f"takes multiples of {FRAME_MS} ms, got '{text}'")
    return list(dict.fromkeys(sizes))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with model.yaml")
    parser.add_argument("--input", type=Path, help="recording or folder of recordings (default: the model's samples)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--segments",
        type=segment_sizes,
        default=[DEFAULT_SEGMENT_MS],
        help="segment sizes in ms, the page shows the first",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    try:
        return demo(parser.parse_args(arguments))
    except (UserError, ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
