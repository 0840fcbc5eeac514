"""Tables as people publish them: one value, written as Markdown, LaTeX or CSV.

A table holds text that is ready to be read, so that the page, the terminal and the paper show the
same digits. What a program reads is in arms.csv and runs.csv, whose columns are typed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Table:
    """Cells ready to be read.

    Attributes:
        head: the names of the columns.
        rows: one text per column; '' where there is nothing to say.
        numbers: the positions of the columns of numbers, which stand to the right.
        marked: the positions of the rows that stand out, such as the arm that is recommended.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.head)} columns: {row}")

    @classmethod
    def of(cls, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        """A table; a column is one of numbers where every cell that is not empty looks like a number."""
        columns = [[row[i] for row in rows if row[i]] for i in range(len(head))]
        numbers = frozenset(
            i for i, cells in enumerate(columns) if cells and all(map(_NUMBER.fullmatch, cells))
        )
        return cls(tuple(head), tuple(tuple(row) for row in rows), numbers)

    def used(self) -> Table:
        """The same without the columns that are empty in every row; the first always stays."""
        used = [i for i in range(len(self.head)) if i == 0 or any(row[i] for row in self.rows)]
        numbers = frozenset(new for new, old in enumerate(used) if old in self.numbers)
        rows = tuple(tuple(row[i] for i in used) for row in self.rows)
        return Table(tuple(self.head[i] for i in used), rows, numbers, self.marked)

    def first(self, *names: str) -> Table:
        """The same with these columns, where the table has them, before all others."""
        first = [self.head.index(name) for name in names if name in self.head]
        order = first + [i for i in range(len(self.head)) if i not in first]
        numbers = frozenset(new for new, old in enumerate(order) if old in self.numbers)
        rows = tuple(tuple(row[i] for i in order) for row in self.rows)
        return Table(tuple(self.head[i] for i in order), rows, numbers, self.marked)


# A number, an interval of two, a count of something, or a word of the baseline's row.
_NUMBER = re.compile(
    r"[+\-\u2212]?[\d.,]+(e[+\-]?\d+)?%?|\[[+\-\u2212]?[\d.]+, [+\-\u2212]?[\d.]+\]|baseline|<[\d.]+"
)


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown; no text from data can end a cell or become markup."""
    rule = ["---:" if i in table.numbers else "---" for i in range(len(table.head))]
    lines = [[escape_markdown(cell) for cell in row] for row in (table.head, *table.rows)]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_markdown(text: str) -> str:
    """A text from data as plain Markdown: no markup, no HTML, no end of a table's cell."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def latex(table: Table, comment: str = "") -> str:
    r"""A `tabular` with the rules of booktabs, to be \input into a table environment.

    Args:
        comment: the first line, such as the study's name.
    """
    columns = "".join("r" if i in table.numbers else "l" for i in range(len(table.head)))
    lines = [f"% {' '.join(comment.split())}"] if comment else []
    lines += ["% needs \\usepackage{booktabs}", rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule"]
    for index, row in enumerate((table.head, *table.rows)):
        lines.append(" & ".join(escape_latex(cell) for cell in row) + r" \\")
        if index == 0:
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\u00b1": r"$\pm$",
    "\u2212": "$-$",
    "\u00d7": r"$\times$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    r"""A text from data as LaTeX that typesets it: specials escaped, a leading sign as minus or plus.

    A cell that begins with [ would be taken for the option of \\ before it, so it is put in a group.
    """
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    escaped = "".join(_LATEX.get(sign, sign) for sign in " ".join(plain.split()))
    escaped = re.sub(r"(?<![\w.])-(?=\d)", "$-$", escaped)
    return f"{{{escaped}}}" if escaped[:1] in ("[", "*") else escaped


def csv(rows: pd.DataFrame) -> str:
    """Typed rows as CSV; names from data never become a spreadsheet's formula (=, +, -, @ is quoted)."""
    safe = rows.copy()
    for name in safe.columns:
        if pd.api.types.is_object_dtype(safe[name]) or pd.api.types.is_string_dtype(safe[name]):
            safe[name] = [
                f"'{v}" if isinstance(v, str) and v[:1] in "=+-@\t\r" and v else v for v in safe[name]
            ]
    buffer = io.StringIO()
    safe.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()
