"""Trainings side by side, from their logs: a table of what validation said last, and the curves of the losses.

    python scripts/training/compare_runs.py conv=runs/conv/train.log none=runs/none/train.log --plot curves.png

Any figure that a log of ``scripts/train.sh`` or of ``fairseq-train`` with ``--log-format simple`` names can be asked
for: ``--losses asr st mt unit`` for the curves, ``--scores asr_wer_40ms mt_accuracy_full ...`` for the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from echostream.text import text_lines
from scripts.benchmarks.figures import Curve, markdown_table, plot, require_plotting
from scripts.training.train_progress import VALUE

Log = list[dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=LOG", help="what to call a training, and its log")
    parser.add_argument("--losses", nargs="+", default=["asr", "st"], help="losses to compare")
    parser.add_argument(
        "--scores", nargs="+", default=["asr_wer_40ms", "asr_wer_320ms", "asr_wer_full"], help="columns of validation"
    )
    parser.add_argument("--plot", type=Path, help="draw the training losses as a PNG there (needs matplotlib)")
    args = parser.parse_args()
    if args.plot:
        require_plotting()
    runs = {}
    for run in args.runs:
        name, _, path = run.partition("=")
        if not path or not Path(path).is_file():
            parser.error(f"{run}: expected NAME=LOG with a log that exists")
        runs[name] = text_lines(path)
    training = {name: read(lines, "| train_inner |") for name, lines in runs.items()}
    validation = {name: read(lines, " subset | loss ") for name, lines in runs.items()}
    print(table(validation, args.losses, args.scores))
    if args.plot:
        draw(args.plot, training, args.losses)


def read(lines: list[str], mark: str) -> Log:
    """Figures of every line that holds ``mark``; of updates that a resumed run repeated, the later ones."""
    reports = {}
    for line in lines:
        if mark in line:
            values = {key: float(value) for key, value in VALUE.findall(line.split(mark, 1)[1])}
            reports[values.get("num_updates", 0.0)] = values
    return [reports[update] for update in sorted(reports)]


def table(validation: dict[str, Log], losses: list[str], scores: list[str]) -> str:
    """The last validation of each training, in Markdown."""
    rows = []
    for name, log in validation.items():
        last = log[-1] if log else {}
        rows.append([name, int(last.get("num_updates", 0)), *(last.get(column) for column in [*losses, *scores])])
    return markdown_table(["training", "updates", *losses, *scores], rows)


def draw(path: Path, training: dict[str, Log], losses: list[str]) -> None:
    """A panel for each loss, a curve for each training."""
    panels = []
    for loss in losses:
        curves = []
        for group, (name, log) in enumerate(training.items()):
            points = [(report["num_updates"], report[loss]) for report in log if loss in report]
            if points:
                curves.append(Curve(name, *map(list, zip(*points, strict=True)), group=group))
        panels.append(("updates", f"{loss} loss (nats a token)", curves, None))
    plot(path, "Training losses", panels, logarithmic=False)


if __name__ == "__main__":
    main()
