"""Errors that a person reads: one line that says what was found and what would be right."""

import logging
import re
from typing import Any
from urllib.parse import quote


class AblationError(Exception):
    """Something failed that the user can understand and fix. Printed as one line, without a traceback.

    The message names the file or the key, what was found there, and what would be right.
    """

    exit_code = 1


class UsageError(AblationError):
    """The command line or a configuration file asks for something that cannot be: exit code 2."""

    exit_code = 2


class DataError(AblationError):
    """A file of the data set is missing, damaged or inconsistent."""


class StoreError(AblationError):
    """The tracking store or a run's folder cannot be read or written."""


class NoRoom(StoreError):
    """The disk is full. What was there before still is, and the run can go on once there is room."""


class OutOfMemory(AblationError):
    """A run's helper or command failed for want of memory, as it says itself."""


class Diverged(AblationError):
    """The loss or a gradient became non-finite. A result of the study, not a fault of the program."""


def require(valid: bool, key: str, value: object, must_be: str) -> None:
    """Raise ValueError "key: found ..., must be ..." unless `valid`; the caller adds the key's group.

    Compare so that NaN fails: `0 <= x <= 1`, never `not x < 0`.
    """
    if not valid:
        raise ValueError(f"{key}: found {value!r}, must be {must_be}")


_secrets: set[str] = set()
_USERINFO = re.compile(r"(?<=://)[^\s/@'\"]+@")
_create_record = logging.getLogRecordFactory()


def hide(secret: str) -> None:
    """Let `redact`, and with it every message of this process, show this text as ***."""
    if len(secret) >= 4:  # shorter ones would make holes in ordinary words
        _secrets.update({secret, quote(secret, safe="")})
        logging.setLogRecordFactory(_redacted_record)


def redact(text: str) -> str:
    """The text without passwords: those that `hide` was told, and what stands before the @ of an address."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return without_userinfo(text)


def without_userinfo(text: str) -> str:
    """The text without what stands before the @ of an address."""
    return _USERINFO.sub("", text)


def _redacted_record(*values: Any, **settings: Any) -> logging.LogRecord:
    record = _create_record(*values, **settings)
    message = record.getMessage()
    if redact(message) != message:
        record.msg, record.args = redact(message), None
    return record


def one_line(text: object, limit: int = 600) -> str:
    """Collapse any message to a single line of at most `limit` characters, without passwords."""
    line = redact(" ".join(str(text).split()))
    return line if len(line) <= limit else line[: limit - 3] + "..."


def counted(count: int, noun: str, *more: str) -> str:
    """A number of things in words: counted(1, "run is", "runs are") -> "1 run is".

    Args:
        noun: for one of them.
        more: for several; `noun` with an s where it is not given.
    """
    return f"{count:,} {noun if count == 1 else more[0] if more else noun + 's'}"
