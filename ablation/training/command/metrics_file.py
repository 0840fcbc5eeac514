"""The files of metrics that a trainer writes: one grows by a line an epoch, one has the final values."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.data.reading import MUST_BE_NAME, is_name, shorten
from ablation.errors import DataError, one_line

log = logging.getLogger(__name__)

EPOCH = "epoch"


def metric_of(column: str, names: Mapping[str, str]) -> str:
    """The metric that a column is: as `names` says, else a name without a slash is one of val."""
    return names.get(column, column if "/" in column else f"val/{column}")


def metrics_in(where: str, row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float]:
    """The numbers of a row by metric; texts, empty cells and the epoch are passed over.

    Raises:
        DataError: two columns are one metric, or an AP is not in [0, 1].
    """
    metrics: dict[str, float] = {}
    for column, value in row.items():
        number = _number(value)
        if number is None or column in (EPOCH, ""):  # "": the index that pandas writes
            continue
        if not is_name(column):
            raise DataError(f"{where}: column {shorten(column)!r} must be {MUST_BE_NAME}")
        name = metric_of(column, names)
        if name in metrics:
            raise DataError(f"{where}: two columns are {name}; see trainer.names")
        last = name.rpartition("/")[2]
        if last.startswith(("AP", "AR")) and math.isfinite(number) and not 0 <= number <= 1:
            raise DataError(f"{where}: {column}: found {number:g}, must lie in [0, 1]; divide it by 100")
        metrics[name] = number
    return metrics


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


class EpochFile:
    """Reads a .jsonl or .csv file while it grows, whole lines only; one that was replaced from its start.

    Args:
        names: see metric_of.
    """

    def __init__(self, path: Path, names: Mapping[str, str]) -> None:
        self.path, self._names = path, names
        self._is_csv, self._warned = path.suffix == ".csv", False
        self._start_anew(0)

    def _start_anew(self, file: int) -> None:
        self._file, self._offset, self._number = file, 0, 0
        self._head: list[str] | None = None
        self._first: int | None = None
        self._rows = 0

    def lines(self, ended: bool = False) -> Iterator[tuple[int, dict[str, float]]]:
        """(epoch from 1, metrics) of every line that was not read yet.

        Without a column `epoch` lines are counted; where the first one's is 0, epochs are counted from 0.

        Args:
            ended: nothing more will be written, so a last line without its end is whole too.

        Raises:
            DataError: a line cannot be used; the next call goes on behind it.
        """
        *texts, rest = self._unread().split(b"\n")
        whole = [(text, 1) for text in texts] + ([(rest, 0)] if ended else [])
        for text, end in whole:
            self._offset += len(text) + end
            self._number += 1
            if not text.strip():
                continue
            line = self._line(f"{self.path}:{self._number}", text)
            if line is not None:
                yield line

    def _unread(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._file or status.st_size < self._offset:
                    self._start_anew(status.st_ino)
                file.seek(self._offset)
                return file.read()
        except FileNotFoundError:
            self._start_anew(0)
            return b""
        except OSError as error:  # perhaps it can be read the next time
            if not self._warned:
                log.warning("%s: cannot be read: %s", self.path, error.strerror)
            self._warned = True
            return b""

    def _line(self, where: str, text: bytes) -> tuple[int, dict[str, float]] | None:
        row = self._row(where, text)
        if row is None:
            return None
        self._rows += 1
        epoch = _number(row.get(EPOCH, self._rows))
        if epoch is None or not 0 <= epoch < 2**31 or epoch != int(epoch):
            raise DataError(
                f"{where}: epoch: found {shorten(row[EPOCH])}, must be a whole number, at least 0"
            )
        if self._first is None:
            self._first = int(epoch)
        number = int(epoch) + (self._first == 0)
        if number < 1:
            raise DataError(f"{where}: epoch: found 0 after lines that count from 1")
        metrics = metrics_in(where, row, self._names)
        return (number, metrics) if metrics else None

    def _row(self, where: str, text: bytes) -> Mapping[str, Any] | None:
        decoded = _decoded(where, text)
        if not self._is_csv:
            return _json_row(where, decoded)
        cells = next(iter(_table(where, decoded)), [])
        if self._head is None or cells == self._head:  # a trainer that goes on may write it again
            self._head = cells
            return None
        return _csv_row(where, self._head, cells)


def final_metrics(path: Path, names: Mapping[str, str]) -> dict[str, float]:
    """The metrics of a .json file, or of the last line of a .jsonl or .csv file.

    Raises:
        DataError: it is missing, empty, or has no numbers.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {_why(error)}") from None
    if not content.strip():
        raise DataError(f"{path}: empty; the command must write its final metrics there")
    if path.suffix == ".json":
        rows: Sequence[Mapping[str, Any]] = [_json_row(str(path), _decoded(str(path), content))]
    elif path.suffix == ".csv":
        head, *lines = _table(str(path), _decoded(str(path), content)) or [[]]
        rows = [_csv_row(str(path), head, cells) for cells in lines[-1:]]
    else:
        rows = [_json_row(str(path), _decoded(str(path), content.rstrip().rpartition(b"\n")[2]))]
    metrics = metrics_in(str(path), rows[-1], names) if rows else {}
    if not metrics:
        raise DataError(f"{path}: has no number; the command must write its final metrics there")
    return metrics


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "not written: the command ended well, but this file is not there"
    return f"cannot be read: {error.strerror}"


def _decoded(where: str, text: bytes) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{where}: not UTF-8 text") from None


def _json_row(where: str, text: str) -> Mapping[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {one_line(error, 100)}") from None
    if not isinstance(row, dict):
        raise DataError(
            f'{where}: found {shorten(row)}, must be an object such as {{"epoch": 1, "AP": 0.31}}'
        )
    return row


def _table(where: str, text: str) -> list[list[str]]:
    """The rows that have cells, without the space around them."""
    try:
        return [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
    except csv.Error as error:
        raise DataError(f"{where}: not readable as a table: {one_line(error, 100)}") from None


def _csv_row(where: str, head: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) != len(head):
        raise DataError(f"{where}: {len(cells)} cells under {len(head)} columns")
    return dict(zip(head, cells, strict=True))
