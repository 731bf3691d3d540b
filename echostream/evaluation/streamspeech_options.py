"""StreamSpeech's agent options, so that its command lines go on working with EchoStream's agents.

An option that means something here is taken as such; one that asks for nothing that isn't so anyway is noted in one
line; one that asks for something else ends in a line that names what there is instead.
"""

from __future__ import annotations

import logging
from argparse import SUPPRESS, ArgumentParser, Namespace

logger = logging.getLogger(__name__)

IN_CHECKPOINT = "the checkpoint holds dictionaries, subwords and normalisation"
NOT_NEEDED = {
    "--data-bin": IN_CHECKPOINT,
    "--config-yaml": IN_CHECKPOINT,
    "--multitask-config-yaml": IN_CHECKPOINT,
    "--global-stats": IN_CHECKPOINT,
    "--tgt-splitter-type": IN_CHECKPOINT,
    "--tgt-splitter-path": IN_CHECKPOINT,
    "--sample-rate": "recordings say theirs, and are converted",
    "--agent-dir": "agents are imported from the package",
    "--max-len": "the length of the source limits that of the translation",
    "--unit-per-subword": "the checkpoint says how many units a subword has",
}
FLAGS = {
    "--dur-prediction": "durations are always predicted",
    "--force-finish": "what is due when the source ends is always written",
}
# Options with the one value that they have here.
FIXED = {
    "--shift-size": (10, "features have a shift of 10 ms"),
    "--window-size": (25, "features have a window of 25 ms"),
    "--feature-dim": (80, "features have 80 mel bins"),
    "--lagging-k1": (0, "to stay behind the source, use --policy wait-k --lag-k K"),
    "--lagging-k2": (0, "units are spoken with their word; to stay behind, use --lag-k K"),
    "--stride-n2": (1, "units are spoken with their word; to write more at a time, use --policy stride --stride-n N"),
}
INSTEAD = {
    "--extra-output-dir": "--output DIR has words and their times in steps.jsonl, and --live FILE shows them at once",
}


def add_args(parser: ArgumentParser) -> None:
    """Add StreamSpeech's options, which EchoStream's own help leaves to the guide."""
    for option in (*NOT_NEEDED, *INSTEAD):
        parser.add_argument(option, help=SUPPRESS)
    for option in FLAGS:
        parser.add_argument(option, action="store_true", help=SUPPRESS)
    for option in FIXED:
        parser.add_argument(option, type=int, help=SUPPRESS)
    parser.add_argument("--segment-size", type=int, help=SUPPRESS)
    parser.add_argument("--vocoder-cfg", help=SUPPRESS)
    parser.add_argument("--output-asr-translation", nargs="?", const="True", default="False", help=SUPPRESS)


def apply(args: Namespace) -> None:
    """Turn StreamSpeech's options into EchoStream's, in place.

    Raises:
        SystemExit: an option asks for something that EchoStream has in another way; the message says which.
    """

    def value(option: str) -> object:
        return getattr(args, option[2:].replace("-", "_"), None)

    for option, instead in INSTEAD.items():
        if value(option) is not None:
            raise SystemExit(f"error: {option} is StreamSpeech's: {instead}")
    for option, (only, reason) in FIXED.items():
        if value(option) not in (None, only):
            raise SystemExit(f"error: {option} is StreamSpeech's, and {value(option)} has no equivalent: {reason}")
    notes: dict[str, list[str]] = {}
    for option, reason in (NOT_NEEDED | FLAGS).items():
        if value(option):
            notes.setdefault(reason, []).append(option)
    for reason, options in notes.items():
        logger.info(f"{', '.join(options)}: not needed, {reason}")
    if args.device == "gpu":
        args.device = "cuda"
    if value("--segment-size") is not None and args.segment_ms is None:
        args.segment_ms = args.segment_size
    # As Python's bool() reads the text, any value but an empty one is true there; here False means no.
    if str(value("--output-asr-translation")).lower() in ("true", "1", "yes") and not args.live:
        args.live = "/dev/stderr"
