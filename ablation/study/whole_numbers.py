"""Lists and ranges of whole numbers, as seeds are given on a command line."""

from __future__ import annotations

from ablation.errors import UsageError

MOST_NUMBERS = 10_000


def whole_numbers(key: str, text: str) -> list[int]:
    """'3,4,7' or '[3,4,7]' or '3-7' or '0-2,5' as numbers.

    Raises:
        UsageError: something else, a range that falls, or more than 10,000 numbers.
    """
    numbers: list[int] = []
    for part in text.strip("[] ").split(","):
        first, sign, last = (word.strip() for word in part.partition("-"))
        ends = (first, last if sign else first)
        if not all(end.isdecimal() and len(end) <= 18 for end in ends) or int(ends[0]) > int(ends[1]):
            raise UsageError(f"{key}={text}: must be whole numbers such as 10,11,12 or 10-15")
        if int(ends[1]) - int(ends[0]) + len(numbers) >= MOST_NUMBERS:
            raise UsageError(f"{key}={text}: more than {MOST_NUMBERS:,} numbers")
        numbers += range(int(ends[0]), int(ends[1]) + 1)
    return numbers
