"""Prints every option of fairseq-train for EchoStream, those of the task, the criterion and the model included.

``fairseq-train --help`` answers before it knows task, criterion and model, and leaves theirs out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fairseq import options

import echostream  # noqa: F401  (registers the task, the criterion and the architectures)


def full_help(arch: str) -> str:
    """Help text of fairseq-train with the task ``echostream``, its criterion and ``arch``."""
    parser = options.get_training_parser()
    texts: list[str] = []

    def capture(parser: argparse.ArgumentParser) -> None:
        # called before and after fairseq has added the specific options
        texts.append(parser.format_help())

    argv = ["DATA", "--task", "echostream", "--criterion", "echostream_multitask", "--arch", arch]
    options.parse_args_and_arch(parser, [*argv, "--optimizer", "adam"], modify_parser=capture)
    return texts[-1]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="echostream", help="architecture whose defaults apply")
    print(full_help(parser.parse_args(argv).arch))


if __name__ == "__main__":
    main()
