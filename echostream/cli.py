"""The ``echostream`` command: translate recordings as if they were live, and look into a model."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from echostream.live import news

EXAMPLES = """examples:
  echostream translate talk.wav --model runs/model/checkpoint_best.pt -o talk.en.wav
  echostream translate talk.wav --model checkpoint_best.pt --task s2tt --segment-ms 40
  echostream asr talk.wav --model checkpoint_best.pt
  echostream info runs/model/checkpoint_best.pt
"""
PUSH_MS = 40


class UserError(Exception):
    """Something the user can put right; the message says what and how."""


def read_audio(path: Path, sample_rate: int) -> np.ndarray:
    """Samples of a recording, float32 ``(n,)``.

    Raises:
        UserError: a file that is missing, unreadable or empty, or has another rate or more than one channel.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if rate != sample_rate:
        raise UserError(f"{path} is sampled at {rate} Hz: resample it to {sample_rate} Hz (sox IN -r 16000 OUT)")
    if samples.shape[1] != 1:
        raise UserError(f"{path} has {samples.shape[1]} channels: mix it down to one (sox IN -c 1 OUT)")
    if not len(samples):
        raise UserError(f"{path} is empty")
    if not np.isfinite(samples).all():
        raise UserError(f"{path} holds NaN or infinity: repair the recording")
    return samples[:, 0]


def pushes(samples: np.ndarray, sample_rate: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Cut a recording into pushes of 40 ms, the last one marked."""
    size = sample_rate * PUSH_MS // 1000
    for start in range(0, len(samples), size):
        yield samples[start : start + size], start + size >= len(samples)


def translate(args: argparse.Namespace) -> None:
    """Stream recordings through the translator, printing words as they are committed."""
    translator = load(args)
    for path in args.audio:
        samples = read_audio(path, translator.sample_rate)
        state, spoken, compute_s = translator.init_state(), [], 0.0
        heard = 0
        print(f"{path} ({len(samples) / translator.sample_rate:.1f} s)")
        for piece, is_last in pushes(samples, translator.sample_rate):
            start = time.perf_counter()
            out = translator.step(piece, state, is_last)
            compute_s += time.perf_counter() - start
            heard += len(piece)
            print(news(heard / translator.sample_rate, out), end="", flush=True)
            spoken.append(out.samples)
        duration_s = len(samples) / translator.sample_rate
        print(f"  computed in {compute_s:.2f} s, real-time factor {compute_s / duration_s:.3f}")
        if translator.task == "s2st":
            write_audio(output_path(args, path), np.concatenate(spoken), translator.output_sample_rate)


def output_path(args: argparse.Namespace, source: Path) -> Path:
    """Where the speech of ``source`` goes: ``-o`` is a file for one recording and a folder for several."""
    if args.output is None:
        return source.with_suffix(".translated.wav")
    if len(args.audio) > 1 or args.output.is_dir():
        return args.output / f"{source.stem}.translated.wav"
    return args.output


def write_audio(path: Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write 16-bit audio.

    Raises:
        UserError: a place that can't be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, sample_rate, subtype="PCM_16")
    except (OSError, soundfile.LibsndfileError, RuntimeError) as error:
        raise UserError(f"cannot write {path}: {error}") from error
    print(f"  speech in {path} ({len(samples) / sample_rate:.1f} s)")


def info(args: argparse.Namespace) -> None:
    """Print what a checkpoint holds."""
    from echostream.models.checkpoint import load_model

    loaded = load_model(args.model)
    model, cfg = loaded.model, loaded.model.cfg
    rows = {
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "encoder": f"{cfg.encoder_layers} layers of {cfg.encoder_dim}, left context {40 * cfg.left_context_frames} ms, "
        f"memory {cfg.memory_slots} x {40 * cfg.memory_block_frames} ms, look-ahead {40 * cfg.right_context_frames} ms",
        "source pieces": len(loaded.source_symbols),
        "target pieces": len(loaded.target_symbols),
        "units": model.unit_decoder.num_units,
    }
    for name, value in rows.items():
        print(f"{name:14} {value}")


def load(args: argparse.Namespace):
    """The translator that the options ask for."""
    from echostream.models import StreamingTranslator

    return StreamingTranslator.from_checkpoint(
        args.model,
        vocoder=args.vocoder,
        device=args.device,
        segment_ms=args.segment_ms,
        policy=args.policy,
        task=args.task,
        stride_n=args.stride_n,
        lag_k=args.lag_k,
        beam=args.beam,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="echostream",
        description="Simultaneous speech-to-speech translation.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("translate", "translate recordings as they play"), ("asr", "transcribe them as they play")):
        command = commands.add_parser(name, help=text)
        command.add_argument("audio", type=Path, nargs="+", help="recordings, 16 kHz mono")
        command.add_argument("--model", type=Path, required=True, help="checkpoint of scripts/train.sh")
        command.add_argument("--vocoder", type=Path, help="unit vocoder (default: the folder vocoder beside the model)")
        command.add_argument("--segment-ms", type=int, default=320, help="multiple of 40; 0: whole recording (320)")
        command.add_argument("--device", default="cpu", help="cpu, cuda ... (cpu)")
        command.add_argument("--threads", type=int, default=0, help="processor threads (0: torch's choice)")
        command.add_argument("--policy", default="alignment", help="alignment, stride, wait-k or fixed-rate")
        command.add_argument("--stride-n", type=int, default=1, help="target tokens a WRITE needs (1)")
        command.add_argument("--beam", type=int, default=1, help="hypotheses of the MT decoder (1: greedy)")
        command.add_argument("--lag-k", type=int, help="how far to stay behind (the policy's own)")
        if name == "translate":
            command.add_argument("--task", default="s2st", choices=("s2st", "s2tt"), help="speech or text only (s2st)")
            command.add_argument("-o", "--output", type=Path, help="wav file, or a folder for several recordings")
        else:
            command.set_defaults(task="asr", output=None)
        command.set_defaults(run=translate)
    command = commands.add_parser("info", help="say what a checkpoint holds")
    command.add_argument("model", type=Path)
    command.set_defaults(run=info, threads=0)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the console command; returns the exit status."""
    args = build_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        args.run(args)
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
