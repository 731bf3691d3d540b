"""How many real-time sessions one server holds: batched against one by one, over real WebSockets.

    python scripts/benchmarks/benchmark_serve.py --threads 2 --json serve.json
    python scripts/benchmarks/benchmark_serve.py --threads 2 --model models/fr-en --audio models/fr-en/samples

The server runs in a process of its own, with --servers in several that get the sessions in turns; this one speaks for
all clients, in real time, from places of their own in the recordings, with starts spread over a segment. The reaction
is what a client sees: from sending the audio that a segment lacked to getting its output. A number of sessions holds
if none is lost and the 95th percentile of all reactions stays under --limit-ms. Numbers are doubled until one doesn't
hold, then narrowed down. Without --model: the published size with random weights, biased to write a subword each 320
ms. Ctrl-C keeps what was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import numpy as np

from echostream.constants import DEFAULT_POLICY, DEFAULT_SEGMENT_MS, FULL_PRECISION, PRECISIONS
from echostream.models.config import ARCHITECTURES
from echostream.percentiles import percentile
from scripts.benchmarks.benchmarking import describe_machine, machine_facts, read_recordings
from scripts.benchmarks.figures import write_json
from scripts.benchmarks.serve_clients import WARM_UP_S, metrics, speak, what_is_said
from scripts.benchmarks.translation_systems import FRAME_MS, build_translator

MODES = ("batched", "one by one")


@dataclass
class Trial:
    """So many sessions at a time."""

    mode: str
    sessions: int
    holds: bool
    lost: int
    p50_ms: float
    p95_ms: float
    mean_batch: float
    server_cores: float  # busy, of those that there are


def main() -> None:
    args = parse_arguments()
    logging.getLogger().setLevel(logging.WARNING)
    if args.serve:
        serve(args)
        return
    tape = np.concatenate(read_recordings(args.audio)) if args.audio else None
    facts = machine_facts()
    print(describe_machine(facts), file=sys.stderr)
    trials: list[Trial] = []
    stopped = None
    try:
        for mode in args.modes:
            with contextlib.ExitStack() as stack:
                ports = [stack.enter_context(server(args, mode)) for _ in range(args.servers)]
                search(
                    lambda sessions, mode=mode, ports=ports: attempt(mode, sessions, ports, tape, args), args, trials
                )
    except KeyboardInterrupt:
        stopped = "interrupted: the figures are those measured so far"
    print(f"{describe_machine(facts)}\n\n{report(trials, args)}")
    if args.json:
        options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        write_json(args.json, {"machine": facts, "options": options, "trials": [asdict(trial) for trial in trials]})
    if stopped:
        raise SystemExit(f"error: {stopped}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="echostream", help="size, random weights")
    parser.add_argument("--model", type=Path, help="checkpoint to measure instead of random weights")
    parser.add_argument("--vocoder", type=Path, help="its vocoder (the folder vocoder beside it)")
    parser.add_argument("--audio", type=Path, help="folder of 16 kHz recordings to speak, wav or flac (noise)")
    parser.add_argument(
        "--segment-ms", type=int, default=DEFAULT_SEGMENT_MS, help=f"encoder segment, a multiple of {FRAME_MS} ms"
    )
    parser.add_argument("--lag-k", type=int, help="of the policy, with --model")
    parser.add_argument("--threads", type=int, default=2, help="threads of the server (2)")
    parser.add_argument("--servers", type=int, default=1, help="processes that share the sessions (1)")
    parser.add_argument("--device", default="cpu", help="where the server computes: cpu, cuda (cpu)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=FULL_PRECISION, help=f"of its products ({FULL_PRECISION})"
    )
    parser.add_argument("--seconds", type=float, default=20, help="how long each number of sessions is tried (s)")
    parser.add_argument("--limit-ms", type=float, default=500, help="95th percentile of reactions that holds (ms)")
    parser.add_argument("--max-sessions", type=int, default=128, help="most sessions tried")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="what to measure")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.segment_ms < FRAME_MS or args.segment_ms % FRAME_MS:
        parser.error(f"the segment must be a positive multiple of {FRAME_MS} ms, not {args.segment_ms}")
    if args.seconds < WARM_UP_S + 2:
        parser.error(f"--seconds must be at least {WARM_UP_S + 2}")
    if min(args.threads, args.servers, args.max_sessions, args.limit_ms) < 1:
        parser.error("--threads, --servers, --max-sessions and --limit-ms must be positive")
    return args


# --- the server, in a process of its own -------------------------------------------------------------------------


@contextlib.contextmanager
def server(args: argparse.Namespace, mode: str) -> Iterator[int]:
    """Run a server for one mode; gives its port. It ends with this process, however that ends."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(args.threads))}
    batch = args.max_sessions if mode == "batched" else 1
    command = [sys.executable, __file__, *sys.argv[1:], "--serve", str(batch)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # In a session of its own, Ctrl-C reaches it only through this process.
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:
        port = next((line.split()[1] for line in process.stdout if line.startswith("port ")), None)
        if port is None:
            raise SystemExit(f"error: the server ended early (exit status {process.wait()})")
        try:
            yield int(port)
        finally:
            process.stdin.close()
            process.wait()


def serve(args: argparse.Namespace) -> None:
    """Serve the model on a free port, said on the standard output, until the standard input ends."""
    import torch
    from aiohttp import web

    from echostream.serve.app import Server
    from echostream.serve.limits import Limits
    from echostream.serve.protocol import Settings
    from echostream.streaming import StreamingTranslator

    torch.set_num_threads(args.threads)
    if args.model:
        try:
            translator = StreamingTranslator.from_checkpoint(
                args.model, args.vocoder, args.device, precision=args.precision
            )
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
    else:
        translator = build_translator(args.arch, args.segment_ms, args.device, args.precision)
    policy = DEFAULT_POLICY if args.model else "fixed-rate"
    settings = Settings(args.segment_ms, policy, "s2st", lag_k=args.lag_k)
    # A session that falls behind is to be measured, not ended.
    limits = Limits(max_sessions=args.max_sessions + 1, max_buffer_s=60, max_speed=60, max_unsent_kb=100_000)
    made = Server(translator, settings, limits, max_batch=args.serve)

    async def run() -> None:
        runner = web.AppRunner(made.application(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"port {runner.addresses[0][1]}", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()

    asyncio.run(run())


# --- the measurement ---------------------------------------------------------------------------------------------


def attempt(mode: str, sessions: int, ports: list[int], tape: np.ndarray | None, args: argparse.Namespace) -> Trial:
    """So many sessions at a time, for real; the servers at ``ports`` get them in turns."""
    said = what_is_said(tape, args.seconds, sessions)

    async def run() -> tuple[list, dict[str, float], dict[str, float]]:
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as client:
            before = await total(client, urls)
            spread_s = args.segment_ms / 1000 / sessions
            results = await asyncio.gather(
                *(speak(f"{urls[i % len(urls)]}/ws", samples, i * spread_s, client) for i, samples in enumerate(said)),
                return_exceptions=True,
            )
            return results, before, await total(client, urls)

    async def total(client: aiohttp.ClientSession, urls: list[str]) -> dict[str, float]:
        each = [await metrics(client, url) for url in urls]
        return {name: sum(one[name] for one in each) for name in each[0]}

    began = time.perf_counter()
    results, before, after = asyncio.run(run())
    wall_s = time.perf_counter() - began
    gone = {name: after[name] - before[name] for name in after}
    reactions = [value for result in results if isinstance(result, list) for value in result]
    lost = sum(not isinstance(result, list) for result in results)
    p50, p95 = (percentile(reactions or [float("nan")], p, interpolated=True) for p in (50, 95))
    trial = Trial(
        mode,
        sessions,
        not lost and bool(reactions) and p95 < args.limit_ms,
        lost,
        round(p50, 1),
        round(p95, 1),
        round(gone["echostream_batch_size_sum"] / max(1, gone["echostream_batch_size_count"]), 2),
        round(gone["process_cpu_seconds_total"] / wall_s, 2),
    )
    print(json.dumps(asdict(trial)), file=sys.stderr, flush=True)
    return trial


def search(attempt_sessions: Callable[[int], Trial], args: argparse.Namespace, trials: list[Trial]) -> None:
    """Double the number of sessions until it doesn't hold, then halve the gap; all trials go to ``trials``."""
    attempt_sessions(1)  # what libraries prepare on first use is not measured
    best, worst, sessions = 0, args.max_sessions + 1, 1
    while best + 1 < worst:
        trial = attempt_sessions(sessions)
        trials.append(trial)
        if trial.holds:
            best = sessions
        else:
            worst = sessions
        sessions = min(2 * sessions, args.max_sessions) if worst > args.max_sessions else (best + worst) // 2


def report(trials: list[Trial], args: argparse.Namespace) -> str:
    """Tables in Markdown: how many sessions hold, and all trials."""
    lines = [f"| {args.segment_ms} ms segments | sessions with p95 under {args.limit_ms:g} ms |", "|---|---|"]
    for mode in dict.fromkeys(trial.mode for trial in trials):
        lines.append(f"| {mode} | {max((t.sessions for t in trials if t.mode == mode and t.holds), default=0)} |")
    lines += ["", "| | sessions | reaction p50 / p95 (ms) | mean batch | busy cores | lost |", "|---" * 6 + "|"]
    for t in sorted(trials, key=lambda trial: (MODES.index(trial.mode), trial.sessions)):
        reaction = f"{t.p50_ms:.0f} / {t.p95_ms:.0f}"
        lines.append(f"| {t.mode} | {t.sessions} | {reaction} | {t.mean_batch:.1f} | {t.server_cores:.2f} | {t.lost} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
