"""Files and values that somebody else wrote, read with care: what every format's reader needs.

Whatever is in a file, its reader ends with the values or with one line that names the file.
"""

from __future__ import annotations

import difflib
import json
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard
from unicodedata import category

from ablation.errors import DataError, UsageError, one_line

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_LARGEST = 1e9
"""No coordinate in pixels and no id of a data set is larger; what is, is a slip or an attack."""


def user_path(key: str, text: str) -> Path:
    """A path that the user typed, with `~` expanded. Raises UsageError naming `key`."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{key}: found {shorten(text)}, but there is no such user's home folder") from None


def read_file(path: Path) -> bytes:
    """The bytes of an ordinary file.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is a folder, a pipe or a device, or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a device might never end
            raise DataError(f"{path}: is not a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{_named(path)}: cannot be read: {error.strerror}") from None
    except ValueError:  # a zero byte, or half of a character
        raise DataError(f"{_named(path)}: cannot be read: its name is not valid text") from None


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file in UTF-8. Raises as read_file; `what` says what the file should be."""
    try:
        return read_file(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}: cannot be read as {what}: line {line} is not UTF-8") from None


def load_json(path: Path) -> Any:
    """The values of a JSON file. A key that stands twice in one mapping is refused. Raises as read_file."""
    content = read_file(path)
    try:
        return json.loads(content, object_pairs_hook=_mapping)
    except RecursionError:
        raise DataError(f"{path}: is not JSON that can be read: nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{path}: is not JSON: {one_line(error, 150)}") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shorten(twice)!r} stands twice in one mapping")
    return mapping


def number(text: str | None) -> float | None:
    """A decimal number in ASCII, which may be infinite by its exponent; None where the text is none."""
    return float(text) if text is not None and _NUMBER.fullmatch(text.strip()) else None


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a JSON value is a whole number of a possible size."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def is_coordinate(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a finite number of a possible size in pixels."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def is_name(value: object) -> TypeGuard[str]:
    """Whether a value is a text that can be printed, stored and read again."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and len(value) <= 1000
        and not any(category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in value)
    )


MUST_BE_NAME = "a text of 1 to 1000 characters without control characters"


def shorten(value: object, most: int = 80) -> str:
    """A value for a message: a text as it is, anything else as Python writes it, on one line."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        text = f"a {type(value).__name__}"
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def literal(value: object) -> str:
    """As Python writes it, so that a message tells a text from a number."""
    return repr(shorten(value)) if isinstance(value, str) else shorten(value)


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The one of `names` that is spelled most like `name`, if one is."""
    same = [other for other in names if spelling(other) == spelling(name) and other != name]
    close = difflib.get_close_matches(name, [other for other in names if other != name], 1)
    return next(iter(same or close), None)


def spelling(name: str) -> str:
    """The letters and digits of a name, without case: two that agree are most likely one, mistyped."""
    return "".join(letter for letter in name.casefold() if letter.isalnum()) or name


def _named(path: Path) -> str:
    return shorten(str(path), 200)
