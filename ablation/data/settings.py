"""Range checks of a group's settings, in one wording."""

from __future__ import annotations


def require(fine: bool, key: str, found: object, must_be: str) -> None:
    """Raise ValueError "key: found ..., must be ..." unless `fine`.

    Compare so that NaN fails (`0 <= x <= 1`, never `not x < 0`).
    """
    if not fine:
        raise ValueError(f"{key}: found {found!r}, must be {must_be}")
