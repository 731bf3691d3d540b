"""An hour of speech, music, noise and silence through translator, agent and server; then clients that vanish.

python scripts/soak/soak.py --json runs/soak.json  # the shipped model on its own samples
python scripts/soak/soak.py --minutes 5 --model MODEL --speech RECORDINGS

What must hold is checked, and the exit status is 1 where it does not: memory and state stay flat, no time stamp drifts,
goes back or lies beyond the audio, nothing loops, nothing is said in a silence, all three ways say the same, and 200
sessions leave a server as they found it. Parts that the --json file holds already are not run again.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path

import aiohttp
import numpy as np
from simuleval.data.segments import SpeechSegment

from echostream.audio.output import to_s16le
from echostream.cli.options import UserError, add_model_options, load_translator, model_settings
from echostream.evaluation import EchoStreamWordLevelAgent
from echostream.evaluation.record import CONFIG_KEY, StepRecord
from echostream.streaming import EchoStreamState, OutputWord, StreamingTranslator
from scripts.benchmarks.benchmarking import Progress, describe_machine, machine_facts, settle_memory
from scripts.benchmarks.figures import write_json
from scripts.soak.soak_audio import SAMPLE_RATE, Programme, read_speech
from scripts.soak.soak_report import finished_parts, print_report
from scripts.soak.soak_server import ServerProcess, long_session
from scripts.soak.soak_visitors import Visits, visit
from scripts.soak.soak_watch import Report, Tolerances, Watch

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = REPOSITORY / "models" / "fr-en"
AGENT = REPOSITORY / "agent" / "speech_to_speech.echostream.agent.py"
PARTS = ("translator", "agent", "server", "sessions")
LONGEST_PUSH_S = 5.0


def main() -> int:
    args = parse_arguments()
    logging.getLogger("asyncio").setLevel(logging.WARNING)  # fairseq and SimulEval make the root logger talk
    facts = machine_facts()
    print(describe_machine(facts), file=sys.stderr)
    options = {name: str(value) for name, value in vars(args).items() if name not in ("json", "parts")}
    done: dict[str, dict] = finished_parts(args.json, options, PARTS)
    ways: dict[str, Callable[[argparse.Namespace, Programme], Report | Visits]] = {
        "translator": through_translator,
        "agent": through_agent,
        "server": through_server,
        "sessions": visit_server,
    }
    status = 0
    try:
        programme = Programme(read_speech(args.speech), args.minutes, args.seed)
        for part in args.parts:
            if part not in done:
                done[part] = asdict(ways[part](args, programme))
                if args.json:
                    write_json(args.json, {"machine": facts, "options": options, "parts": done})
    except KeyboardInterrupt:
        print("interrupted: the figures are those measured so far", file=sys.stderr)
        status = 130
    except (UserError, ConnectionError, TimeoutError, aiohttp.ClientError) as error:
        print(f"error: {str(error) or type(error).__name__}", file=sys.stderr)
        status = 1
    print(describe_machine(facts))
    return max(status, print_report(done))


def parse_arguments() -> argparse.Namespace:
    summary = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        description=summary[0],
        epilog="\n\n".join(summary[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60, help="of audio (60); below 7.5 with shorter stretches")
    parser.add_argument("--speech", type=Path, nargs="+", default=[SHIPPED / "samples"], help="recordings and folders")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to try (all)")
    parser.add_argument("--sessions", type=int, default=200, help="sessions in turn (200)")
    parser.add_argument("--seed", type=int, default=0, help="another order of everything (0)")
    parser.add_argument("--json", type=Path, help="write all figures there, and go on from there")
    group = parser.add_argument_group("what may be")
    for limit in fields(Tolerances):
        option, default = f"--max-{limit.name.replace('_', '-')}", limit.default
        text = f"{limit.metadata['help']} ({default})"
        group.add_argument(option, type=type(default), default=default, metavar="N", help=text)
    add_model_options(parser)
    parser.set_defaults(model=SHIPPED, threads=1)
    args = parser.parse_args()
    if not 0.5 <= args.minutes <= 24 * 60:
        parser.error("--minutes must be from 0.5 to 1440")
    if args.sessions < 1:
        parser.error("--sessions must be at least 1")
    for path in (args.model, *args.speech):
        if not path.exists():
            parser.error(f"no such file or folder: {path}")
    return args


def tolerances(args: argparse.Namespace) -> Tolerances:
    """What the options allow."""
    return Tolerances(**{limit.name: getattr(args, f"max_{limit.name}") for limit in fields(Tolerances)})


def push_sizes(seed: int) -> Iterator[int]:
    """Sizes of pushes without end, from one sample to 5 s, as many short as long ones."""
    random = np.random.default_rng(seed)
    while True:
        yield round(np.exp(random.uniform(0, np.log(LONGEST_PUSH_S * SAMPLE_RATE))))


# --- three ways through the system -------------------------------------------------------------------------------


def through_translator(args: argparse.Namespace, programme: Programme) -> Report:
    """`StreamingTranslator.step`, in pushes of random sizes."""
    translator = load_translator(args, "s2st")
    watch, progress = Watch("translator", programme, tolerances(args)), Progress("translator")
    for recording in programme.recordings:
        watch.report.words_alone.append(len(translator.translate(recording).words))
    state = translator.init_state()
    fed = 0

    def step(samples: np.ndarray, is_last: bool = False) -> None:
        nonlocal fed
        began = time.perf_counter()
        output = translator.step(samples, state, is_last)
        watch.computed(time.perf_counter() - began)
        fed += len(samples)
        audio_s = fed / SAMPLE_RATE
        watch.step(audio_s, output.words, output.source_words, output.text, output.source_text)
        watch.hear(to_s16le(output.samples))
        note(watch, state, audio_s, progress)

    for piece in programme.pieces(push_sizes(args.seed)):
        step(piece)
    step(np.zeros(0, np.float32), is_last=True)
    return watch.finish(output_clock_s(translator, state))


def through_agent(args: argparse.Namespace, programme: Programme) -> Report:
    """The SimulEval agent's `pushpop`, a source segment after the other."""
    agent = build_agent(args)
    states = agent.build_states()
    watch, progress = Watch("agent", programme, tolerances(args)), Progress("agent")
    size = model_settings(args).segment_ms * SAMPLE_RATE // 1000
    fed, state = 0, None
    for piece in programme.pieces(iter(lambda: size, None)):
        fed += len(piece)
        segment = SpeechSegment(
            content=piece.tolist(), sample_rate=SAMPLE_RATE, finished=fed == programme.size, tgt_lang=None
        )
        began = time.perf_counter()
        output = agent.pushpop(segment, states)
        watch.computed(time.perf_counter() - began)
        record = StepRecord.from_dict(output.config[CONFIG_KEY])
        words = [OutputWord(w.text, w.source_ms / 1000, w.start_ms / 1000, w.end_ms / 1000) for w in record.words]
        watch.step(record.arrived_ms / 1000, words, [], record.text, record.source_text)
        if not output.is_empty:
            watch.hear(to_s16le(np.asarray(output.content, np.float32)))
        state = states.stream or state  # at the end the agent lets go of it
        note(watch, state, fed / SAMPLE_RATE, progress)
    return watch.finish(output_clock_s(agent.translator, state))


def build_agent(args: argparse.Namespace) -> EchoStreamWordLevelAgent:
    """The agent of the file that SimulEval is given, with the options of the model."""
    spec = importlib.util.spec_from_file_location("agents", AGENT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = model_settings(args)
    parser = argparse.ArgumentParser()
    module.EchoStreamWordLevelAgent.add_args(parser)
    agent_args = parser.parse_args([f"--model-path={args.model}"])
    for name in vars(agent_args).keys() & vars(args).keys():  # an option of both means the same
        setattr(agent_args, name, getattr(args, name))
    agent_args.segment_ms = settings.segment_ms
    agent_args.device = args.device
    return module.EchoStreamWordLevelAgent.from_args(agent_args)


def note(watch: Watch, state: EchoStreamState, audio_s: float, progress: Progress) -> None:
    """Clock, size and memory of a stream after a step."""
    if not state.finished:
        watch.clock(audio_s - state.waiting_samples / SAMPLE_RATE - state.frames * state.frame_ms / 1000)
        watch.state(state.nbytes)
        progress.update(int(audio_s), int(watch.report.audio_s), "s of audio")
    while watch.is_due(audio_s):
        watch.mark(audio_s, settle_memory())


def output_clock_s(translator: StreamingTranslator, state: EchoStreamState) -> float:
    """Where the stream believes its speech to end."""
    assert state.translation is not None  # the soak speaks
    clock = state.translation.output
    return (clock.frames * translator.recomposer.hop_samples + clock.pause_samples) / translator.output_sample_rate


def server_options(args: argparse.Namespace) -> list[str]:
    """Options of `echostream serve`: the model's, and limits that a client faster than real time needs."""
    names = (
        "model",
        "vocoder",
        "segment_ms",
        "policy",
        "stride_n",
        "lag_k",
        "beam",
        "source_lm",
        "lm_weight",
        "lm_bonus",
        "least_language",
        "least_confidence",
        "max_tempo",
        "device",
        "threads",
    )
    values = {name: getattr(args, name) for name in names}
    limits = {"max_length_s": 60 * args.minutes + 60, "max_speed": 1e6, "max_buffer_s": 60, "max_messages_per_s": 1e6}
    limits |= {"max_message_kb": 4000, "max_unsent_kb": 100_000, "max_stall_s": 5}
    values |= limits
    given = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]
    return [*given, *(["--vad"] if args.vad else [])]


def through_server(args: argparse.Namespace, programme: Programme) -> Report:
    """`echostream serve` and a client faster than real time."""
    watch, progress = Watch("server", programme, tolerances(args)), Progress("server")
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(server_options(args), Path(folder) / "log")
        with server.running() as url:
            said_s = asyncio.run(long_session(url, programme, push_sizes(args.seed + 1), watch, progress))
        report = watch.finish(said_s)
        if server.tracebacks():
            report.broken.append(f"{server.tracebacks()} errors in the server's log")
    return report


# --- sessions that vanish ----------------------------------------------------------------------------------------


def visit_server(args: argparse.Namespace, programme: Programme) -> Visits:
    """Sessions in turn on one server, most of which are lost in one way or another."""
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(server_options(args), Path(folder) / "log")
        with server.running() as url:
            visits = asyncio.run(visit(url, programme.recordings, args.sessions, args.seed, args.max_growth_mb))
        if server.tracebacks():
            visits.broken.append(f"{server.tracebacks()} errors in the server's log")
    return visits


if __name__ == "__main__":
    sys.exit(main())
