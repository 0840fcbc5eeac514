"""The outcome of `ablation check` for people: tables in the terminal, figures and JSON in a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from ablation.commands.check.audit import Audit, SplitAudit, SplitCells
from ablation.commands.check.figures import draw
from ablation.data.anchors import AnchorFit
from ablation.errors import counted
from ablation.files import write_atomic, write_json

_FAULTS_SHOWN = 20


def show(audit: Audit, file: TextIO | None = None) -> None:
    """Print the tables; plain text of any width where `file` (default: stdout) is no terminal."""
    file = file or sys.stdout
    plain = not file.isatty()
    # Names come from the user's files: no markup of rich's is read from them.
    console = Console(file=file, markup=False, emoji=False, highlight=False, width=10_000 if plain else None)
    for title, note, head, rows in _tables(audit):
        console.print(f"\n{title}")
        table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for index, name in enumerate(head):
            numbers = index > 0 and all(row[index][:1] in _NUMERIC or not row[index] for row in rows)
            table.add_column(name, justify="right" if numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(printable, row))
        if rows:
            console.print(table)
        for line in note:
            console.print(printable(line))
    console.print()


def write_files(audit: Audit, folder: Path) -> list[Path]:
    """check.json and the figures, as PNG and PDF."""
    written = [folder / "check.json"]
    write_json(written[0], audit.to_json())
    for name, content in draw(audit).items():
        path = folder / name
        write_atomic(path, lambda file, content=content: file.write(content))  # type: ignore[misc]
        written.append(path)
    return written


def printable(text: str) -> str:
    """The text without control characters, which a class or file name could bring."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


_NUMERIC = tuple("0123456789")
_Table = tuple[str, Sequence[str], Sequence[str], Sequence[Sequence[str]]]


def _tables(audit: Audit) -> Iterable[_Table]:
    """Title, notes, header and rows of each table."""
    yield _splits(audit)
    yield _classes(audit)
    yield _faults(audit)
    if audit.cells:
        yield _heads(audit)
        yield _totals(audit)
    yield _anchors(audit)


def _splits(audit: Audit) -> _Table:
    head = ["split", "images", "without boxes", "boxes", "ignored", "faults", "boxes left out"]
    counts = {name: _split_counts(split) for name, split in audit.splits.items()}
    rows = _with_sum(counts)
    notes = [f"fingerprint of train and val: {audit.fingerprint}"]
    if not audit.has_test:
        notes.append(
            "WARNING: there is no test split, or it is empty, and `ablation confirm` needs one; where the "
            "data set names none, data.test_share=0.2 makes one (set it before training)"
        )
    elif "test" not in audit.splits:
        notes.append("the test split was not opened; test=true looks at its annotations too")
    classes = counted(len(audit.classes), "class", "classes")
    return f"Data set {printable(audit.name)}, {classes}", notes, head, rows


def _classes(audit: Audit) -> _Table:
    splits = list(audit.splits.values())
    head = ["class", *(f"{name} boxes" for name in audit.splits), "share of train", "train images with it"]
    train = splits[0]
    total = max(1, sum(train.boxes_per_class.values()))
    rows = []
    for name in audit.classes:
        boxes = [str(split.boxes_per_class[name]) for split in splits]
        share = f"{100 * train.boxes_per_class[name] / total:.1f}%"
        rows.append([name, *boxes, share, str(train.images_per_class[name])])
    absent = [name for name in audit.classes if not train.boxes_per_class[name]]
    notes = [f"never in train, so it cannot be learnt: {', '.join(absent)}"] if absent else []
    return "Classes", notes, head, rows


def _faults(audit: Audit) -> _Table:
    rows = [[fault.file, fault.what, fault.action] for fault in audit.all_faults]
    notes = [] if rows else ["none"]
    if len(rows) > _FAULTS_SHOWN:
        notes.append(f"and {len(rows) - _FAULTS_SHOWN} more, in check.json")
    return f"Faults: {len(rows)}", notes, ["file", "what", "action"], rows[:_FAULTS_SHOWN]


def _split_counts(split: SplitAudit) -> list[int]:
    left_out = sum(fault.action == "box left out" for fault in split.faults)
    return [
        split.images,
        split.images_without_boxes,
        split.boxes,
        split.ignored,
        len(split.faults),
        left_out,
    ]


def _cell_counts(part: SplitCells) -> list[int]:
    return [part.images, part.boxes, part.positives, part.matches_lost, part.boxes_lost]


def _with_sum(counts: Mapping[str, Sequence[int]]) -> list[list[str]]:
    """One row for each split, and last a row of the sums."""
    rows = [[name, *map(str, numbers)] for name, numbers in counts.items()]
    return [*rows, ["together", *(str(sum(column)) for column in zip(*counts.values(), strict=True))]]


def _heads(audit: Audit) -> _Table:
    cells = audit.cells["train"]
    head = ["stride", "positives", "ignored", "negatives", "positives : others"]
    rows = []
    for part in cells.heads:
        counts = [part.stride, part.positives, part.ignored, part.negatives]
        rows.append([*map(str, counts), ratio(part.positives, part.negatives + part.ignored)])
    notes = [
        "images letterboxed, not augmented; ignored: of an untrained network whose boxes are the anchors "
        "at the cells' centres, so the number changes while it trains"
    ]
    if cells.images < audit.splits["train"].images:
        notes.append(f"counted on {cells.images} of {audit.splits['train'].images} images, drawn at random")
    return f"Cells of the train split at {audit.size_px} px", notes, head, rows


def _totals(audit: Audit) -> _Table:
    head = ["split", "images", "boxes", "positives", "positives : others", "matches lost", "boxes lost"]
    counts = {name: _cell_counts(part) for name, part in audit.cells.items()}
    rows = _with_sum(counts)
    # The ratio of the sums, which is not the sum of the ratios.
    others = [part.others for part in audit.cells.values()]
    for row, number in zip(rows, [*others, sum(others)], strict=True):
        row.insert(4, ratio(int(row[3]), number))
    notes = ["lost: a later box took the same cell and anchor; a lost box has no cell left that learns it"]
    return "All heads", notes, head, rows


def _anchors(audit: Audit) -> _Table:
    head = ["anchors", "mean best IoU", f"width x height at {audit.size_px} px (train boxes each fits best)"]
    rows = [
        [name, f"{fit.mean_best_iou:.3f}", _anchor_list(fit)]
        for name, fit in (("of the model", audit.model_fit), ("k-means", audit.kmeans_fit))
    ]
    notes = []
    if audit.anchors_px:
        sides = ",".join(f"{side:.1f}" for side in audit.anchors_px)
        notes.append(
            "to use the k-means anchors: model.anchors=auto, which stands for "
            f"'model.anchors_px=[{sides}]' model.anchors_at_px={audit.size_px}"
        )
    if audit.unserved_px:
        names = ", ".join(f"{width:.0f}x{height:.0f}" for width, height in audit.unserved_px)
        notes.append(f"served by no head: {names} of the model's; boxes it fits best go to the next best")
    return "Anchors against the train boxes", notes, head, rows


def _anchor_list(fit: AnchorFit) -> str:
    return "  ".join(
        f"{width:.0f}x{height:.0f} ({count})"
        for (width, height), count in zip(fit.anchors_px, fit.boxes_per_anchor, strict=True)
    )


def ratio(positives: int, others: int) -> str:
    """1 : n, with n to the nearest whole number."""
    return f"1 : {others / positives:.0f}" if positives else f"0 : {others}"
