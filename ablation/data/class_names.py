"""Class names of a data set: those that are none, those that are mistyped, those that cannot be learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ablation.data.dataset import Fault
from ablation.data.file_split import RawExample
from ablation.data.reading import MUST_BE_NAME, is_name, nearest, shorten, spelling
from ablation.errors import DataError


def check_classes(
    classes: Sequence[str], train: Sequence[RawExample], val: Sequence[RawExample], *, derived: bool
) -> list[Fault]:
    """Refuse names that are none, and classes that a slip made; report those that cannot be learnt.

    A class of val that no box of train has is most likely mistyped. Where the names are `derived` from the
    annotations it is refused; where a list names it, it is refused only if a class of train is spelled
    alike, and else reported.
    """
    for name in classes:
        if not is_name(name):
            raise DataError(f"class {shorten(name)!r}: must be {MUST_BE_NAME}")
    train_counts, val_counts = _boxes_of(train), _boxes_of(val)
    trained = [name for name in classes if name in train_counts]
    faults = []
    for name in classes:
        if name in train_counts or name not in val_counts:
            continue
        boxes, file, where = val_counts[name]
        close = nearest(name, trained)
        what = f"class {name!r} is in val ({boxes} boxes, first {where}) and never in train"
        if derived or (close is not None and spelling(close) == spelling(name)):
            meant = "" if close is None else f"did you mean {close!r}? "
            listed = "; if it is meant, name all classes in data.classes" if derived else ""
            raise DataError(f"{file}: {what}: {meant}Correct the annotation{listed}")
        faults.append(Fault(str(file), what, "kept, but it cannot be learnt"))
    for index, name in enumerate(trained):
        twin = next((other for other in trained[:index] if spelling(other) == spelling(name)), None)
        if twin is not None:
            _, file, where = train_counts[name]
            what = f"classes {twin!r} and {name!r} are spelled alike ({where})"
            faults.append(Fault(str(file), what, "kept as two classes"))
    return faults


def _boxes_of(raws: Sequence[RawExample]) -> dict[str, tuple[int, Path, str]]:
    """Class -> number of its boxes that are not ignored, file and place of the first."""
    counts: dict[str, tuple[int, Path, str]] = {}
    for raw in raws:
        for box in raw.boxes:
            if box.label and not box.ignored and box.wrong is None:
                number, file, where = counts.get(box.label, (0, raw.annotation, box.where))
                counts[box.label] = number + 1, file, where
    return counts
