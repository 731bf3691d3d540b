"""Text of others on its way to a terminal."""

from __future__ import annotations

import re

# Control characters but for tabs and ends of lines, what turns the direction of text or ends lines elsewhere, and
# halves of surrogate pairs, which file names that are not UTF-8 are read with.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """``text`` with what could steer a terminal written out, such as ``\\x1b`` for an escape."""
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def one_printable_line(text: object) -> str:
    """The same on one line, for messages; other spaces stay, as they may belong to a name."""
    return " ".join(printable(part.strip()) for part in str(text).split("\n") if part.strip())
