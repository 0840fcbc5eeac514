"""What `ablation confirm` found about a study, as it lies in the study's folder and in its report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablation.errors import StoreError, one_line

FILE = "confirmation.json"
"""Name of the file in the folder of the study that was confirmed."""


@dataclass(frozen=True)
class StudyConfirmation:
    """Two finalists, compared once on fresh seeds and on the test split.

    Attributes:
        study: the study whose runs these are; its own report has the same numbers.
        finalists: names of the arms: the best focal arm, the best BCE arm.
        seeds: fresh ones.
        time_ms: when the comparison was first made, since 1970.
        metric: of the test split, such as test/AP.
        chosen, val, test: difference, low, high, pairs, verdict, ... of the finalists when they were
            chosen, and on fresh seeds by the metric on val and on test; null where there is no number.
        sentence: the verdict with its numbers.
    """

    study: str
    finalists: tuple[str, str]
    seeds: tuple[int, ...]
    time_ms: int
    metric: str
    chosen: dict[str, Any]
    val: dict[str, Any]
    test: dict[str, Any]
    sentence: str

    @property
    def line(self) -> str:
        """For the study's report: what was confirmed, on which seeds, when."""
        day = datetime.fromtimestamp(self.time_ms / 1000, UTC).strftime("%Y-%m-%d")
        return (
            f"Confirmed on {day} by {self.metric} on seeds {', '.join(map(str, self.seeds))} "
            f"(study {self.study}): {self.sentence}."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return vars(self) | {"finalists": list(self.finalists), "seeds": list(self.seeds)}


def read_confirmation(folder: Path) -> StudyConfirmation | None:
    """The confirmation of the study in this folder; None where there was none.

    Raises:
        StoreError: the file is damaged.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "sentence" in content and "time_ms" not in content:
            return None  # the form of version 0.1, in the folder of a confirmation's own runs
        fields = content | {"finalists": tuple(content["finalists"]), "seeds": tuple(content["seeds"])}
        confirmation = StudyConfirmation(**fields)
        _ = confirmation.line
        return confirmation
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError, OverflowError) as error:
        raise StoreError(
            f"{path}: not a confirmation ({one_line(error, 100)}); delete it and run `ablation confirm` "
            "again with the same seeds, which trains nothing"
        ) from None
