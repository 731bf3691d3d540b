"""What the contracts of front ends and of vocoders share: how a check says what is broken."""

from __future__ import annotations


def require(is_kept: object, broken: str) -> None:
    """End a check unless what it looks at is kept.

    Args:
        is_kept: true, or a tensor of one value that is true, if all is well.
        broken: what was found otherwise.

    Raises:
        AssertionError: it is not kept.
    """
    if not is_kept:
        raise AssertionError(broken)
