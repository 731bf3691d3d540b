"""What the commands share: options of the model, how much to say, and errors a user can put right."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from echostream.constants import (
    DEFAULT_POLICY,
    DEFAULT_SEGMENT_MS,
    FRAME_MS,
    FULL_PRECISION,
    LM_BONUS,
    LM_WEIGHT,
    MAX_BEAM,
    MAX_LM_SCALE,
    MAX_SEGMENT_MS,
    MAX_THREADS,
    MOST_TEMPO,
    POLICY_NAMES,
    PRECISIONS,
)
from echostream.decoding.policy_arguments import (
    POLICY_HELP,
    POLICY_OPTION_HELP,
    option_argument,
    options_of,
    policy_argument,
)
from echostream.plugins import import_user_dir

if TYPE_CHECKING:
    from echostream.checkpoints.model_folder import ModelSettings
    from echostream.streaming import StreamingTranslator

MODEL_HELP = (
    "name of a model (echostream models list), folder with model.yaml, which may say other defaults than those below, "
    "or checkpoint of scripts/train.sh (the only model there is)"
)
RAW_HELP = argparse.RawDescriptionHelpFormatter


class UserError(Exception):
    """Something the user can put right; the message says what and how."""


class UsageError(UserError):
    """Options that are wrong whatever the files hold that they name: out of range, or not going together."""


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Add the options ``--quiet`` and ``--verbose``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors (and the text of --text)")
    group.add_argument("-v", "--verbose", action="store_true", help="say more")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model is used, by which policy, and on which machine."""
    group = parser.add_argument_group("model")
    add_voice_options(group)
    group.add_argument(
        "--segment-ms",
        type=segment_ms,
        metavar="MS",
        help=f"how much is heard at a time, a multiple of {FRAME_MS} ms; 0: the whole recording ({DEFAULT_SEGMENT_MS})",
    )
    group.add_argument("--policy", type=policy_argument, metavar="NAME", help=f"{POLICY_HELP} ({DEFAULT_POLICY})")
    group.add_argument("--stride-n", type=at_least(1), metavar="N", help="new target tokens that a write needs (1)")
    group.add_argument("--lag-k", type=at_least(0), metavar="K", help="target tokens to stay behind (the policy's own)")
    group.add_argument(
        "--policy-option", type=option_argument, action="append", metavar="NAME=VALUE", help=POLICY_OPTION_HELP
    )
    group.add_argument(
        "--beam", type=at_least(1, MAX_BEAM), metavar="N", help="hypotheses of the MT decoder (1: greedy)"
    )
    group.add_argument("--source-lm", type=Path, metavar="ARPA", help="language model of the source's subwords (none)")
    scale = number(-MAX_LM_SCALE, MAX_LM_SCALE)
    group.add_argument("--lm-weight", type=scale, metavar="W", help=f"of its log-probabilities ({LM_WEIGHT:g})")
    group.add_argument("--lm-bonus", type=scale, metavar="B", help=f"for each of its subwords, in nats ({LM_BONUS:g})")
    group.add_argument(
        "--least-language",
        type=number(0, 1, is_below=True),
        metavar="P",
        help="say nothing of a sentence that is less likely than this in the source language, 0 to 1 (0: don't ask)",
    )
    group.add_argument(
        "--least-confidence",
        type=number(0, 1, is_below=True),
        metavar="P",
        help="leave out words of less than this, 0 to 1 (0: none)",
    )
    group.add_argument(
        "--max-tempo",
        type=number(1, MOST_TEMPO),
        metavar="X",
        help=f"to which a voice that has fallen behind hurries, 1 to {MOST_TEMPO} (1: never)",
    )
    group.add_argument(
        "--vad", action="store_true", default=None, help="hear only what may be speech (no; needs the extra vad)"
    )


def add_voice_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that a command needs to speak a text: model, vocoder and machine."""
    group.add_argument("--model", type=Path, help=MODEL_HELP)
    group.add_argument("--vocoder", type=Path, help="unit vocoder (default: the folder vocoder beside the model)")
    group.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (cpu)")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=FULL_PRECISION,
        help=f"of products of matrices: {', '.join(PRECISIONS)} ({FULL_PRECISION})",
    )
    group.add_argument(
        "--threads",
        type=at_least(0, MAX_THREADS),
        default=0,
        metavar="N",
        help="processor threads (0: measured at the start)",
    )
    add_user_dir(group)


def add_user_dir(group: argparse._ActionsContainer) -> None:
    """Add the option ``--user-dir``."""
    group.add_argument(
        "--user-dir",
        type=Path,
        metavar="DIR",
        help="folder with code of your own, which registers the model's class or the vocoder's (as fairseq's)",
    )


def load_user_dir(args: argparse.Namespace) -> None:
    """Import the folder of ``--user-dir``, if there is one.

    Raises:
        UserError: it can't be imported.
    """
    if args.user_dir is None:
        return
    try:
        import_user_dir(args.user_dir)
    except ValueError as error:
        raise UserError(str(error)) from error


def at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    """Type of an option that is an integer from ``least`` up, to ``most`` if there is an upper end."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from error
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, got {value}")
        return value

    return whole_number


def number(least: float, most: float, is_below: bool = False) -> Callable[[str], float]:
    """Type of an option that is a number from ``least`` to ``most``; ``is_below``: ``most`` itself is too much."""

    def real_number(text: str) -> float:
        try:
            value = float(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number") from error
        if not least <= value <= most or (is_below and value == most):  # NaN is in no range
            until = "below" if is_below else "to"
            raise argparse.ArgumentTypeError(f"must be from {least:g} {until} {most:g}, got {value:g}")
        return value

    return real_number


def segment_ms(text: str) -> int:
    """Type of ``--segment-ms``."""
    value = at_least(0, MAX_SEGMENT_MS)(text)
    if value % FRAME_MS:
        raise argparse.ArgumentTypeError(f"must be a multiple of {FRAME_MS} ms (0: the whole recording), got {value}")
    return value


def model_settings(args: argparse.Namespace) -> ModelSettings:
    """Read the settings from the options of :func:`add_model_options`; the model's folder says what they leave open.

    Raises:
        UserError: a folder that holds no model.
    """
    from echostream.checkpoints.model_folder import ModelSettings
    from echostream.checkpoints.model_store import resolve_model

    names = ("vocoder", "segment_ms", "policy", "stride_n", "lag_k", "beam", "source_lm", "lm_weight", "lm_bonus")
    given = {name: getattr(args, name) for name in (*names, "least_language", "least_confidence", "max_tempo", "vad")}
    given |= {"policy_options": options_of(args.policy_option)}
    try:
        args.model = resolve_model(args.model)
        return ModelSettings.of(args.model).with_options(**given)
    except ValueError as error:
        raise UserError(str(error)) from error


def load_translator(args: argparse.Namespace, task: str) -> StreamingTranslator:
    """Load the translator that the options of :func:`add_model_options` ask for.

    Raises:
        UserError: a model or vocoder that is missing, damaged or doesn't fit, or a device that isn't there.
        UsageError: options that the policy doesn't have.
    """
    import torch

    from echostream.streaming import StreamingTranslator

    settings = model_settings(args)
    check_policy_options(args, settings)
    load_user_dir(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        if torch.device(args.device).type == "meta":
            raise UserError(f"cannot use --device {args.device}: it computes nothing, choose cpu or cuda")
        torch.zeros(1, device=args.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise UserError(f"cannot use --device {args.device}: {reason}") from error
    try:
        return StreamingTranslator.from_checkpoint(
            settings.checkpoint,
            settings.vocoder,
            args.device,
            precision=args.precision,
            task=task,
            **settings.options,
        )
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def check_policy_options(args: argparse.Namespace, settings: ModelSettings) -> None:
    """Refuse what one of EchoStream's own policies doesn't take; a policy of the user's own says so when it is loaded.

    Raises:
        UsageError: it has no such option, or none of this value.
    """
    from echostream.decoding.policy import choose_policy

    given = (args.policy, args.stride_n, args.lag_k, args.policy_option)
    if settings.policy not in POLICY_NAMES or all(value is None for value in given):
        return
    options = {**(settings.policy_options or {}), "stride_n": settings.stride_n, "lag_k": settings.lag_k}
    try:
        choose_policy(settings.policy, **options)
    except ValueError as error:
        raise UsageError(str(error)) from error


def settle_threads(args: argparse.Namespace, translator: StreamingTranslator) -> str:
    """Measure how many threads serve the translator best, unless ``--threads`` does; returns the number as text."""
    import torch

    from echostream.cli.threads import choose_threads

    if args.threads or not args.device.startswith("cpu"):
        return str(torch.get_num_threads())
    return str(choose_threads(translator))
