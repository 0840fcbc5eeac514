"""Damage to files: bytes, text, trees of plain values and tables, each a function of a seeded generator.

A mutation is named by its reader and number, and the same number is the same damage as long as this file
stays as it is: numbers that once found a fault are kept beside the reader.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**400, 1e308, -1e-320, float("nan"), float("inf"), 0.5, "", " ", "0", "-0", "nan",
    "1e999", "1_000", "\uff11\uff12", "x" * 5000, "a\nb", "\x00", "\x1b[31m", "../../etc/passwd",
    "${oc.env:HOME}", "${x}", "2020-01-01", "<b>&", "key=val", "grüße", "\u202e",
    "!!python/object:os.system", [], {}, [1, 2], {"a": {"b": None}}, [[[[]]]],
)  # fmt: skip
"""What a field may hold that nobody expected."""

ODD_TEXTS: tuple[bytes, ...] = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xe9", "\u202e".encode(), b"\r", b"\t", b"\n", b'"', b"'", b"{",
    b"[", b"}", b"]", b":", b",", b"#", b"&", b"*", b"!", b"%", b"|", b"-", b"NaN", b"Infinity", b"-1",
    b"1e400", b"null", b"9" * 400, b"[" * 3000, b"{a: " * 500, b"2020-01-01", b"x" * 5000, b"\\u0000", b"=",
    b"<", b">",
)  # fmt: skip
"""What may stand in a text where it should not."""

ODD_NUMBERS = (0, 1, -1, 2, 255, 256, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, 2**40)


class Damage:
    """One mutation's random choices, and the operations that use them."""

    def __init__(self, reader: str, number: int) -> None:
        self.random = random.Random(f"{reader} {number}")

    def choose(self, items: Sequence[T]) -> T:
        """One of them."""
        return items[self.random.randrange(len(items))]

    # bytes

    def bytes(self, content: bytes) -> bytes:
        """Bits flipped, parts cut off, left out, repeated, exchanged, overwritten or put in."""
        operations: list[Callable[[bytes], bytes]] = [
            self._flip, self._cut, self._drop, self._repeat, self._overwrite, self._insert, self._number,
            self._zero, self._swap,
        ]  # fmt: skip
        return self.choose(operations)(content) if content else self.random.randbytes(16)

    def _place(self, content: bytes) -> tuple[int, int]:
        """Start and end of a part; short ones are likely, and so are places near the start."""
        start = int(len(content) * self.random.random() ** self.choose((1, 1, 4, 8)))
        length = self.choose((1, 2, 4, 8, 64, max(1, len(content) // 7)))
        return start, min(len(content), start + length)

    def _flip(self, content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(self.choose((1, 1, 1, 2, 16))):
            start, _ = self._place(content)
            changed[start] ^= 1 << self.random.randrange(8)
        return bytes(changed)

    def _cut(self, content: bytes) -> bytes:
        return content[: self._place(content)[0]]

    def _drop(self, content: bytes) -> bytes:
        start, end = self._place(content)
        return content[:start] + content[end:]

    def _repeat(self, content: bytes) -> bytes:
        start, end = self._place(content)
        return content[:end] + content[start:end] * self.choose((1, 2, 50)) + content[end:]

    def _overwrite(self, content: bytes) -> bytes:
        start, end = self._place(content)
        return content[:start] + self.random.randbytes(end - start) + content[end:]

    def _insert(self, content: bytes) -> bytes:
        start, end = self._place(content)
        return content[:start] + self.random.randbytes(end - start) + content[start:]

    def _number(self, content: bytes) -> bytes:
        width = self.choose((1, 2, 4, 8))
        value = self.choose(ODD_NUMBERS) % (1 << 8 * width)
        start, _ = self._place(content)
        packed = value.to_bytes(width, self.choose(("little", "big")))
        return content[:start] + packed + content[start + width :]

    def _zero(self, content: bytes) -> bytes:
        start, end = self._place(content)
        return content[:start] + b"\0" * (end - start) + content[end:]

    def _swap(self, content: bytes) -> bytes:
        start, end = self._place(content)
        length = end - start
        return content[:start] + content[end : end + length] + content[start:end] + content[end + length :]

    # text

    def text(self, content: bytes) -> bytes:
        """Words, numbers and lines exchanged for odd ones, left out or repeated."""
        operations = [
            self._odd_word,
            self._odd_word,
            self._odd_insert,
            self._line,
            self._encoding,
            self.bytes,
        ]
        return self.choose(operations)(content) if content else self.choose(ODD_TEXTS)

    def _odd_word(self, content: bytes) -> bytes:
        words = content.split(b" ")
        words[self.random.randrange(len(words))] = self.choose(ODD_TEXTS)
        return b" ".join(words)

    def _odd_insert(self, content: bytes) -> bytes:
        start, _ = self._place(content)
        return content[:start] + self.choose(ODD_TEXTS) + content[start:]

    def _line(self, content: bytes) -> bytes:
        lines = content.split(b"\n")
        index, other = self.random.randrange(len(lines)), self.random.randrange(len(lines))
        what = self.choose(("drop", "repeat", "exchange", "indent", "odd"))
        if what == "drop":
            del lines[index]
        elif what == "repeat":
            lines.insert(other, lines[index])
        elif what == "exchange":
            lines[index], lines[other] = lines[other], lines[index]
        elif what == "indent":
            lines[index] = b"  " + lines[index]
        else:
            lines[index] = self.choose(ODD_TEXTS)
        return b"\n".join(lines)

    def _encoding(self, content: bytes) -> bytes:
        text = content.decode("utf-8", "replace")
        name = self.choose(("utf-16", "latin-1", "utf-8-sig", "utf-32", "cp1252"))
        return text.replace("a", self.choose(("ä", "a", "é"))).encode(name, "replace")

    # trees of plain values

    def tree(self, value: Any) -> Any:
        """A copy in which one node is another, missing, renamed or repeated."""
        value = copy.deepcopy(value)
        places = list(_places(value))
        if not places:
            return self.choose(ODD_VALUES)
        parent, key = self.choose(places)
        what = self.choose(("odd", "odd", "odd", "drop", "rename", "repeat", "wrap", "exchange"))
        if what == "drop":
            del parent[key]
        elif what == "rename" and isinstance(parent, dict):
            parent[str(self.choose(ODD_VALUES))[:50]] = parent.pop(key)
        elif what == "repeat" and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif what == "wrap":
            parent[key] = self.choose(([parent[key]], {"a": parent[key]}, str(parent[key])))
        elif what == "exchange":
            other, place = self.choose(places)
            parent[key] = copy.deepcopy(other[place]) if place in _keys(other) else None
        else:
            parent[key] = copy.deepcopy(self.choose(ODD_VALUES))
        return value

    def table(self, rows: list[list[str]]) -> list[list[str]]:
        """A copy of a table of texts in which a cell, a row or a column is another or missing."""
        rows = [list(row) for row in rows]
        row = self.random.randrange(len(rows))
        column = self.random.randrange(len(rows[row]))
        what = self.choose(("cell", "cell", "cell", "drop", "repeat", "column", "short", "head"))
        if what == "drop":
            del rows[row]
        elif what == "repeat":
            rows.insert(row, list(rows[self.random.randrange(len(rows))]))
        elif what == "column":
            rows = [[cell for index, cell in enumerate(cells) if index != column] for cells in rows]
        elif what == "short":
            rows[row] = rows[row][:column]
        else:
            rows[0 if what == "head" else row][column] = str(self.choose(ODD_VALUES))
        return rows

    # files

    def json_file(self, path: Path) -> None:
        """The tree in a JSON file, or its text."""
        content = path.read_bytes()
        if self.random.random() < 0.6:
            path.write_text(json.dumps(self.tree(json.loads(content))), encoding="utf-8")
        else:
            path.write_bytes(self.text(content))

    def text_file(self, path: Path) -> None:
        """A text file."""
        path.write_bytes(self.text(path.read_bytes()))

    def binary_file(self, path: Path) -> None:
        """A file of bytes."""
        path.write_bytes(self.bytes(path.read_bytes()))


def _keys(node: Any) -> Any:
    return node if isinstance(node, dict) else range(len(node))


def _places(value: Any) -> Any:
    """(container, key) of every node of a tree."""
    if isinstance(value, dict | list):
        for key in list(_keys(value)):
            yield value, key
            yield from _places(value[key])
