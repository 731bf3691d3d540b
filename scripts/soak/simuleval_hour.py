"""SimulEval on one long recording: is it as long as it should be, and what time and memory does it take?

python scripts/soak/simuleval_hour.py --output runs/simuleval_hour          # an hour, the shipped model
python scripts/soak/simuleval_hour.py --output runs/short --minutes 10 --model MODEL --speech RECORDINGS

The recording is what `soak.py` plays. A tenth of it is evaluated first, so that the memory of a minute is a difference
and not a guess. The exit status is 1 if a minute takes more than --max-mb-per-minute, if the log is not of the whole
source, or if its words are not those of the steps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import soundfile

from echostream.evaluation.record import load_records
from scripts.benchmarks.figures import markdown_table
from scripts.soak.soak_audio import SAMPLE_RATE, Programme, read_speech

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = REPOSITORY / "models" / "fr-en"
AGENT = REPOSITORY / "agent" / "speech_to_speech.echostream.agent.py"


@dataclass(frozen=True)
class Run:
    """What an evaluation took: wall time, peak of resident memory; and what it said."""

    minutes: float
    wall_s: float
    peak_mb: float
    words: int
    speech_s: float


def evaluate(programme: Programme, output: Path, model: Path, segment_ms: int) -> Run:
    """Evaluate a programme as the one source of a list, in a process of its own.

    Raises:
        SystemExit: SimulEval stopped, or its log is not that of the whole source.
    """
    output.mkdir(parents=True, exist_ok=True)
    wav = output / "source.wav"
    with soundfile.SoundFile(wav, "w", SAMPLE_RATE, 1, subtype="PCM_16") as file:
        for stretch in programme.stretches:
            file.write(programme.render(stretch))
    (output / "sources.txt").write_text(f"{wav.resolve()}\n", encoding="utf-8")
    (output / "targets.txt").write_text("nothing\n", encoding="utf-8")
    command = [sys.executable, "-m", "echostream.evaluation", "--agent", AGENT, "--model-path", model]
    command += ["--source", output / "sources.txt", "--target", output / "targets.txt", "--output", output / "out"]
    command += ["--source-segment-size", segment_ms, "--quality-metrics", "ECHO_BLEU", "--latency-metrics", "ECHO_RTF"]
    began = time.monotonic()
    with (output / "simuleval.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen([*map(str, [*command, "--no-progress-bar"])], stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"error: SimulEval stopped; see the end of {output / 'simuleval.log'}")
    (line,) = (output / "out/instances.log").read_text(encoding="utf-8").splitlines()
    logged, record = json.loads(line), load_records(output / "out")[0]
    if abs(logged["source_length"] - 1000 * programme.length_s) > 1 or logged["prediction"] != record.text:
        raise SystemExit(f"error: {output / 'out/instances.log'} is not that of the whole source, or of other words")
    return Run(
        programme.length_s / 60, wall_s, used.ru_maxrss / 1e3, len(record.words), sum(logged["durations"]) / 1000
    )


def main() -> int:
    summary = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        description=summary[0], epilog="\n\n".join(summary[1:]), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for recordings and logs")
    parser.add_argument("--minutes", type=float, default=60, help="of audio (60)")
    parser.add_argument("--model", type=Path, default=SHIPPED, help="model to evaluate (the shipped one)")
    parser.add_argument("--speech", type=Path, nargs="+", default=[SHIPPED / "samples"], help="recordings and folders")
    parser.add_argument("--segment-ms", type=int, default=320, help="pushed at a time (320)")
    parser.add_argument("--max-mb-per-minute", type=float, default=40, metavar="N", help="memory of a minute (40)")
    args = parser.parse_args()
    if not 1 <= args.minutes <= 600:
        parser.error("--minutes must be from 1 to 600")
    speech = read_speech(args.speech)
    runs = [
        evaluate(Programme(speech, minutes), args.output / f"{minutes:g}", args.model, args.segment_ms)
        for minutes in (args.minutes / 10, args.minutes)
    ]
    per_minute = (runs[1].peak_mb - runs[0].peak_mb) / (runs[1].minutes - runs[0].minutes)
    rows = [
        [f"{run.minutes:g}", f"{run.wall_s:.0f}", f"{run.peak_mb:.0f}", run.words, f"{run.speech_s:.0f}"]
        for run in runs
    ]
    print(markdown_table(["minutes", "wall time (s)", "peak memory (MB)", "words", "speech (s)"], rows))
    print(f"\n{per_minute:.1f} MB for a minute of audio")
    if per_minute > args.max_mb_per_minute:
        print(f"FAILED: a minute takes more than {args.max_mb_per_minute:g} MB")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
