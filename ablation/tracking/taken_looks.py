"""The reports that drew verdicts on a study: a file in its folder, and a tag of its run in MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ablation.errors import StoreError, one_line
from ablation.files import write_json
from ablation.records import TakenLook

FILE, TAG = "looks.json", "looks"
LONGEST_TAG = 7000
"""Characters; MLflow takes 8,000."""


def looks_of_text(text: str, place: str) -> list[TakenLook]:
    """The looks that a text of JSON holds.

    Raises:
        StoreError: it is damaged.
    """
    try:
        return [TakenLook.read(row) for row in json.loads(text)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{place}: not a list of reports ({one_line(error, 100)}); restore or delete it"
        ) from None


def looks_of_folder(folder: Path) -> list[TakenLook]:
    """The looks that a study's folder records; none where it has no such file.

    Raises:
        StoreError: the file is damaged.
    """
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({one_line(error, 100)})") from None
    return looks_of_text(text, str(path))


def merged(looks: Iterable[TakenLook]) -> tuple[TakenLook, ...]:
    """Each look once, oldest first: folder and MLflow may each know some that the other does not."""
    return tuple(sorted(set(looks), key=lambda look: (look.time_ms, look.metric, look.seeds)))


def as_text(looks: Iterable[TakenLook]) -> str:
    """JSON for MLflow's tag: the first report of each metric, which decides, and as many others as fit.

    MLflow cuts longer values off, and half a list cannot be read.
    """
    ordered = list(merged(looks))
    first = {look.metric: look for look in reversed(ordered)}
    chosen = list(first.values())
    for look in reversed(ordered):
        if look not in chosen and len(_json([*chosen, look])) <= LONGEST_TAG:
            chosen.append(look)
    return _json(merged(chosen))


def _json(looks: Iterable[TakenLook]) -> str:
    return json.dumps([vars(look) for look in looks])


def write_looks(folder: Path, looks: Iterable[TakenLook]) -> None:
    """Keep them in the study's folder."""
    write_json(folder / FILE, [vars(look) for look in looks])
