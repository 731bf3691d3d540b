"""What training the speech encoder costs: seconds of audio a second, forward and backward, by segment size.

    python scripts/benchmarks/benchmark_train.py --threads 2 --json train.json
    python scripts/benchmarks/benchmark_train.py --arch echostream_whisper_base --segments-ms 40 320 0 --device cuda
    python scripts/benchmarks/benchmark_train.py --data runs/everyday --config config_whisper.yaml

Batches of noise, with random weights; all segment sizes take turns, and the median of the rounds counts. Shown beside
the speed are what attention takes of the time (from a profile of its own), how many positions are computed for each
frame of speech (copies of right context, and the band's padding), and the memory above the model. With ``--data`` also
what loading a second of that data set takes, and how much of its batches is padding.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from echostream.models.config import ARCHITECTURES, architecture_config
from echostream.models.front_ends import find_front_end
from echostream.models.speech_encoder import EchoStreamSpeechEncoder
from echostream.modules.band import Band
from echostream.percentiles import percentile
from scripts.benchmarks.benchmarking import (
    FRAMES_PER_S,
    Record,
    count_parameters,
    emit,
    peak_bytes,
    run_benchmark,
    settle_memory,
)
from scripts.benchmarks.figures import markdown_table
from scripts.benchmarks.step_profile import kind_of

READ_ROWS = 200  # recordings whose loading is timed


def main() -> None:
    args = parse_arguments()
    run_benchmark(Path(__file__).resolve(), args, measure, summarise, report, lambda _path, _rows: None)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="echostream", help="(default: %(default)s)")
    parser.add_argument(
        "--segments-ms", type=int, nargs="+", default=[40, 160, 320, 640, 0], help="0: whole utterances (default: all)"
    )
    parser.add_argument("--utterances-s", type=float, nargs="+", default=[5, 30], help="lengths (default: 5 30)")
    parser.add_argument("--batch-s", type=float, default=30, help="audio in a batch, at least one utterance (30)")
    parser.add_argument("--right-context-ms", type=int, help="of each segment (default: the architecture's)")
    parser.add_argument("--threads", type=int, nargs="+", default=[2], help="each in a process of its own (2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="under autocast, as fairseq-train --amp does it")
    parser.add_argument("--repetitions", type=int, default=3, help="rounds after the first (default: %(default)s)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data set whose loading is measured as well")
    parser.add_argument("--config", default="config_gcmvn.yaml", help="its config (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=2400, help="features in its batches (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.plot = None
    frame_ms = find_front_end(architecture_config(args.arch).front_end).frame_ms
    for name, values in (("segments", args.segments_ms), ("right context", [args.right_context_ms or 0])):
        if wrong := [value for value in values if value < 0 or value % frame_ms]:
            parser.error(f"{name} of {wrong[0]} ms: {args.arch} has frames of {frame_ms} ms")
    if min(*args.utterances_s, args.batch_s, *args.threads, args.repetitions) <= 0:
        parser.error("lengths, threads and repetitions must be positive")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    return args


# --- measurements, in a process of their own ---------------------------------------------------------------------


def measure(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    encoder = EchoStreamSpeechEncoder(architecture_config(args.arch)).to(args.device).train()
    emit({"kind": "size", "arch": args.arch, "parameters": count_parameters(encoder)})
    for utterance_s in args.utterances_s:
        times: dict[int, list[tuple[float, float]]] = {segment_ms: [] for segment_ms in args.segments_ms}
        memory = dict.fromkeys(args.segments_ms, 0)
        for _ in range(1 + args.repetitions):
            for segment_ms in args.segments_ms:
                base = settle_memory()
                times[segment_ms].append(one_pass(encoder, utterance_s, segment_ms, args))
                memory[segment_ms] = max(memory[segment_ms], peak_bytes() - base)
        for segment_ms, rounds in times.items():
            forward, backward = (
                percentile([pair[part] for pair in rounds[1:]], 50, interpolated=True) for part in (0, 1)
            )
            emit(
                {
                    "kind": "pass",
                    "utterance_s": utterance_s,
                    "segment_ms": segment_ms,
                    "audio_s": batch_size(utterance_s, args) * utterance_s,
                    "forward_s": forward,
                    "backward_s": backward,
                    "attention": attention_share(encoder, utterance_s, segment_ms, args),
                    "positions": positions_per_frame(encoder, utterance_s, segment_ms, args),
                    "peak_bytes": memory[segment_ms],
                }
            )
    if args.data is not None:
        emit({"kind": "loading", **loading(args)})


def batch_size(utterance_s: float, args: argparse.Namespace) -> int:
    return max(1, round(args.batch_s / utterance_s))


def frames_of(duration_ms: int | None, encoder: EchoStreamSpeechEncoder) -> int | None:
    """Frames that come out, as the encoder's options count them."""
    return None if duration_ms is None else duration_ms // encoder.frame_ms


def one_pass(
    encoder: EchoStreamSpeechEncoder, utterance_s: float, segment_ms: int, args: argparse.Namespace
) -> tuple[float, float]:
    """Seconds of a forward and of a backward pass over one batch."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size(utterance_s, args), round(utterance_s * FRAMES_PER_S), 80)
    features = torch.randn(shape, generator=generator).to(args.device)
    lengths = torch.full((shape[0],), shape[1], device=args.device)
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    wait()
    begun = time.perf_counter()
    with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
        frames, _, _ = encoder(
            features,
            lengths,
            segment=frames_of(segment_ms, encoder),
            right_context=frames_of(args.right_context_ms, encoder),
        )
    loss = frames.float().square().mean()
    wait()
    middle = time.perf_counter()
    loss.backward()
    wait()
    ended = time.perf_counter()
    encoder.zero_grad(set_to_none=True)
    return middle - begun, ended - middle


def attention_share(
    encoder: EchoStreamSpeechEncoder, utterance_s: float, segment_ms: int, args: argparse.Namespace
) -> float:
    """Share of the operators' own time that attention takes, forward and backward."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if args.device == "cuda" else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        one_pass(encoder, utterance_s, segment_ms, args)
    name = "self_device_time_total" if args.device == "cuda" else "self_cpu_time_total"
    events = profiler.key_averages()
    total = sum(getattr(event, name) for event in events)
    return sum(getattr(event, name) for event in events if kind_of(event.key) == "attention") / max(total, 1e-9)


def positions_per_frame(
    encoder: EchoStreamSpeechEncoder, utterance_s: float, segment_ms: int, args: argparse.Namespace
) -> float:
    """Positions that the layers compute for a frame of speech: 1 over whole utterances."""
    frames = round(utterance_s * 1000) // encoder.layer_frame_ms
    segment = segment_ms // encoder.layer_frame_ms
    if not 0 < segment < frames:
        return 1.0
    right_ms = args.right_context_ms
    right = encoder.stack * encoder.right_context if right_ms is None else right_ms // encoder.layer_frame_ms
    band = Band.build(frames, segment, right, encoder.emformer.left_context, torch.device("cpu"))
    return band.num_groups * (band.group + band.num_copies) / frames


def loading(args: argparse.Namespace) -> Record:
    """What loading takes in one process, and the padding of batches of utterances of about one length."""
    from echostream.tasks.data_config import load_speech_config
    from echostream.tasks.features import FeatureReader
    from echostream.tasks.manifests import AudioFiles, read_rows

    manifest = args.data / "train.tsv"
    front_end = architecture_config(args.arch).front_end
    reader = FeatureReader(load_speech_config(args.data / args.config), "train", True, front_end=front_end)
    files = AudioFiles(args.data)
    rows = [row for _, row in read_rows(manifest, ("id", "src_audio", "src_n_frames"))]
    chosen = rows[:: max(1, len(rows) // READ_ROWS)]
    begun = time.perf_counter()
    frames = sum(reader.read(files.name(manifest, 1, row["src_audio"])).size(0) for row in chosen)
    seconds = time.perf_counter() - begun
    sizes = sorted(int(row["src_n_frames"]) for row in rows)
    padded, batch = 0, 0
    for place, size in enumerate(sizes):  # of one batch all are as long as its longest, which comes last
        batch += 1
        is_full = place + 1 == len(sizes) or sizes[place + 1] * (batch + 1) > args.max_tokens
        if is_full:
            padded, batch = padded + size * batch, 0
    return {
        "recordings": len(chosen),
        "load_s_per_audio_s": seconds / (frames / FRAMES_PER_S),
        "padding": 1 - sum(sizes) / padded,
    }


# --- tables ------------------------------------------------------------------------------------------------------


def summarise(records: list[Record], args: argparse.Namespace) -> list[Record]:
    """A row for each number of threads, length and segment, with its speed beside that of whole utterances."""
    rows = []
    for record in (record for record in records if record["kind"] == "pass"):
        seconds = record["forward_s"] + record["backward_s"]
        whole = [
            other["forward_s"] + other["backward_s"]
            for other in records
            if other["kind"] == "pass"
            and not other["segment_ms"]
            and (other["threads"], other["utterance_s"]) == (record["threads"], record["utterance_s"])
        ]
        speed = record["audio_s"] / seconds
        rows.append({**record, "audio_s_per_s": speed, "cost": seconds / whole[0] if whole else None})
    return rows


def report(records: list[Record], rows: list[Record]) -> str:
    """The tables, in Markdown."""
    parts = []
    sizes = {record["arch"]: record["parameters"] for record in records if record["kind"] == "size"}
    parts += [f"{arch}: an encoder of {parameters / 1e6:.2f} M parameters" for arch, parameters in sizes.items()]
    header = ["threads", "utterance s", "segment ms", "s of audio a second", "cost, whole = 1", "forward ms"]
    header += ["backward ms", "attention %", "positions a frame", "memory MB"]
    lines = [
        [
            row["threads"],
            row["utterance_s"],
            row["segment_ms"] or "whole",
            row["audio_s_per_s"],
            row["cost"],
            1000 * row["forward_s"] / row["audio_s"],
            1000 * row["backward_s"] / row["audio_s"],
            100 * row["attention"],
            row["positions"],
            row["peak_bytes"] / 1e6,
        ]
        for row in rows
    ]
    if lines:
        parts.append(f"Milliseconds for a second of audio.\n\n{markdown_table(header, lines)}")
    parts += [
        f"Loading with {record['threads']} threads, from {record['recordings']} recordings: "
        f"{1000 * record['load_s_per_audio_s']:.2f} ms for a second of audio; padding: {100 * record['padding']:.1f} % "
        "of the batches"
        for record in records
        if record["kind"] == "loading"
    ]
    return "\n\n".join(parts) or "nothing was measured"


if __name__ == "__main__":
    main()
