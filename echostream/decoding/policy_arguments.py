"""Options of a command line that name a policy and its options; nothing heavy is imported for them."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable
from typing import Any

from echostream.constants import POLICY_NAMES
from echostream.plugins import names_code

POLICY_HELP = f"when to write: {', '.join(POLICY_NAMES)}, or module:Class, a policy of your own"
POLICY_OPTION_HELP = "another option of the policy, by its name; may be repeated"


def policy_argument(text: str) -> str:
    """Type of ``--policy``; a policy of one's own is loaded later, with the model."""
    if text not in POLICY_NAMES and not names_code(text):
        raise argparse.ArgumentTypeError(
            f"unknown policy '{text}': choose one of {', '.join(POLICY_NAMES)}, or name your own as module:Class"
        )
    return text


def option_argument(text: str) -> tuple[str, Any]:
    """Type of ``--policy-option``: ``NAME=VALUE``, where what is a number, True, False or None is not text."""
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form NAME=VALUE, such as token_frames=12")
    try:
        return name, ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return name, value.strip()


def options_of(pairs: Iterable[tuple[str, Any]] | None) -> dict[str, Any] | None:
    """The values of all ``--policy-option``, the last one of a name; None if there is none."""
    return dict(pairs) if pairs else None
