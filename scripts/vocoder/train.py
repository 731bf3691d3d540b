"""Train a unit vocoder: from audio and its units to a directory that the translator loads.

    python scripts/vocoder/train.py --units units.tsv --audio-root DIR --config configs/vocoder/istft_small.json \
        --out DIR --minutes 5

The learning rate runs one cycle over ``--minutes`` (or ``--max-steps``). Interrupt it when you like: the same command
goes on where it stopped. The finished vocoder, ``config.json`` and its weights, lies in ``--out``. With ``--held-out``
it is evaluated now and then: ``evaluations.tsv``.
"""

from __future__ import annotations

import argparse
import csv
import signal
import sys
import time
from pathlib import Path

import torch

from echostream.checkpoints.errors import UnsafeFileError
from echostream.checkpoints.safe_loading import load_safely
from echostream.checkpoints.vocoder_files import CONFIG_NAME, read_config, save_vocoder
from echostream.checkpoints.writing import write_checkpoint
from echostream.vocoders.interface import VocoderError
from scripts.vocoder.evaluate_vocoder import TRANSCRIPTS, Evaluation, find_transcriber, read_held_out, write_text
from scripts.vocoder.vocoder_trainer import Trainer

CHECKPOINT_NAME = "training.pt"
LOG_NAME = "evaluations.tsv"
SAVE_EVERY_S = 60.0
SAVE_SHARE = 0.05  # of the time at most: discriminators make large checkpoints
REPORT_EVERY_S = 5.0


class Clock:
    """Training time in seconds: on a CPU that of the processor, which other work on the machine does not lengthen.

    Several threads count as one: a minute of training is a minute of an otherwise idle machine.
    """

    def __init__(self, device: str, threads: int) -> None:
        self.on_cpu, self.threads = torch.device(device).type == "cpu", threads

    def __call__(self) -> float:
        return time.process_time() / self.threads if self.on_cpu else time.monotonic()


class EvaluationLog:
    """The table of evaluations, one row each.

    Rows of steps after ``steps`` are dropped: a run that was killed goes on from there, and makes them again.
    """

    def __init__(self, path: Path, steps: int) -> None:
        self.path = path
        self.rows = [row for row in self._read() if int(row["step"]) <= steps]
        self._write()

    def _read(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t"))

    def _write(self) -> None:
        if self.rows:
            lines = ["\t".join(self.rows[0]), *("\t".join(row.values()) for row in self.rows)]
            write_text(self.path, "\n".join(lines) + "\n")

    @property
    def step(self) -> int:
        """Of the last row."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def seconds(self) -> float:
        """Training time up to the last row."""
        return 60 * float(self.rows[-1]["minutes"]) if self.rows else 0.0

    def add(self, step: int, seconds: float, scores: dict[str, float | None]) -> None:
        """Write a row, and say what is in it."""
        values = {name: "" if value is None else f"{value:.3f}" for name, value in scores.items()}
        self.rows.append({"step": str(step), "minutes": f"{seconds / 60:.4f}"} | values)
        self._write()
        known = (f"{name} {value}" for name, value in values.items() if value)
        print(f"evaluation after step {step}  {'  '.join(known)}", flush=True)


def progress(trainer: Trainer, args: argparse.Namespace) -> float:
    """Share of the training that is done."""
    return max(trainer.seconds / 60 / args.minutes, trainer.steps / args.max_steps if args.max_steps else 0.0)


def train(trainer: Trainer, args: argparse.Namespace, evaluation: Evaluation | None = None) -> bool:
    """Train until time or steps are up; False if a signal came first. Saves and evaluates as it goes."""
    stopped: list[int] = []
    handlers = {
        number: signal.signal(number, lambda received, _: stopped.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    clock, every_s = Clock(args.device, args.threads), 60 * args.evaluate_minutes
    log = EvaluationLog(args.out / LOG_NAME, trainer.steps)

    def save() -> float:
        """Seconds from now after which to save again."""
        begun = time.monotonic()
        write_checkpoint(args.out / CHECKPOINT_NAME, trainer.state_dict())
        return max(SAVE_EVERY_S, (time.monotonic() - begun) / SAVE_SHARE)

    def evaluate() -> None:
        if evaluation is not None and log.step < trainer.steps:
            log.add(trainer.steps, trainer.seconds, evaluation.quick(trainer.averaged()))

    saved = reported = time.monotonic()
    report_s, save_s = 0.0, SAVE_EVERY_S  # the first step reports at once, so that one sees that it runs
    done = progress(trainer, args)
    steps_reported, done_reported = trainer.steps, done
    while done < 1 and not stopped:
        begun = clock()
        losses = trainer.step(done)
        trainer.seconds += clock() - begun
        done = progress(trainer, args)
        now = time.monotonic()
        if now - reported >= report_s or done >= 1:
            rate = (trainer.steps - steps_reported) / (now - reported)
            left_s = max(1 - done, 0.0) * (now - reported) / (done - done_reported)
            parts = "  ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            print(
                f"step {trainer.steps}  {rate:.2f} steps/s  loss {sum(losses.values()):.3f}  {parts}  "
                f"ETA {int(left_s) // 60}:{int(left_s) % 60:02d}",
                flush=True,
            )
            reported, steps_reported, done_reported, report_s = now, trainer.steps, done, REPORT_EVERY_S
        is_due = evaluation is not None and trainer.seconds // every_s > log.seconds // every_s
        if is_due or now - saved >= save_s:
            saved, save_s = now, save()
        if is_due and done < 1 and not stopped:
            evaluate()
    save()
    if not stopped:
        evaluate()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return not stopped


def read_checkpoint(path: Path) -> dict:
    """The :meth:`Trainer.state_dict` that an earlier run left.

    Raises:
        VocoderError: if the file is damaged.
    """
    try:
        return load_safely(path)
    except (OSError, UnsafeFileError) as error:
        raise VocoderError(f"cannot go on from {path}, which is damaged; remove it to start again") from error


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--units", type=Path, required=True, help="TSV: id, audio, units (one a frame, with repeats)")
    parser.add_argument("--audio-root", type=Path, required=True, help="folder that the audio paths start from")
    parser.add_argument("--config", type=Path, required=True, help="vocoder configuration, JSON")
    parser.add_argument("--num-units", type=int, help="number of units, where it is not the config's num_embeddings")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and finished vocoder")
    parser.add_argument(
        "--minutes",
        type=float,
        default=20.0,
        help="training time, earlier runs included; on a CPU its own, whatever else the machine does (default: 20)",
    )
    parser.add_argument("--max-steps", type=int, help="stop after this many steps at the latest")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="torch device, such as cuda")
    parser.add_argument("--gan", action="store_true", help="adversarial training as well: slower, less buzzy")
    group = parser.add_argument_group("evaluation")
    group.add_argument("--held-out", type=Path, help="TSV as --units of other recordings, best with a column text")
    group.add_argument("--evaluate-minutes", type=float, default=5.0, help="of training between two (default: 5)")
    group.add_argument("--evaluate-recordings", type=int, default=20, help="the first ones of the table (default: 20)")
    group.add_argument("--language", default="en", help="two-letter code of the speech (default: en)")
    group.add_argument("--asr-model", help="base, tiny.en or a CTranslate2 Whisper folder (default: best installed)")
    args = parser.parse_args(argv)
    for name in ("minutes", "max_steps", "threads", "num_units", "evaluate_minutes", "evaluate_recordings"):
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above zero")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        config = read_config(args.config)
        if args.num_units is not None:
            config["num_embeddings"] = args.num_units
        trainer = Trainer(config, (args.units, args.audio_root), args.seed, args.device, args.gan)
        checkpoint = args.out / CHECKPOINT_NAME
        if checkpoint.exists():
            trainer.load_state_dict(read_checkpoint(checkpoint))
            print(f"going on from step {trainer.steps}", flush=True)
        evaluation = None
        if args.held_out is not None:
            held_out = read_held_out(args.held_out, args.audio_root, trainer.vocoder, args.evaluate_recordings)
            transcriber = find_transcriber(args.asr_model, args.language, args.out / TRANSCRIPTS)
            evaluation = Evaluation(held_out, trainer.vocoder.sample_rate, transcriber)
    except VocoderError as error:
        raise SystemExit(f"error: {error}") from error
    args.out.mkdir(parents=True, exist_ok=True)
    if progress(trainer, args) >= 1 and (args.out / CONFIG_NAME).exists():
        print(f"already trained for {trainer.steps} steps", flush=True)
        return 0
    size = sum(p.numel() for p in trainer.vocoder.parameters()) / 1e6
    print(f"{trainer.corpus.seconds / 60:.1f} min of speech, {size:.2f} M parameters", flush=True)
    if not train(trainer, args, evaluation):
        print(f"stopped at step {trainer.steps}; the same command goes on from there", flush=True)
        return 130
    path = save_vocoder(trainer.averaged(), args.out, trainer.steps)
    print(f"wrote {path} after {trainer.steps} steps", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
