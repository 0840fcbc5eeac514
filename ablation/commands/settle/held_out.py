"""The finalists on the test split: read once, when the verdict on val has been reached.

Val decides. The test split takes part in nothing; it shows by how much the finalists differ on images that
neither chose nor stopped anything. The result lies in the study's folder and is never made again.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.verdict.look_outcome import Look
from ablation.analyse.verdict.verdict import planned_comparison
from ablation.analyse.view import study_view
from ablation.commands.confirm.held_out import evaluate_on_test
from ablation.commands.settle.design import SettleDesign, design_file
from ablation.errors import StoreError
from ablation.files import write_json
from ablation.records import StudyRecord
from ablation.rng import generator
from ablation.study.execute import Prepared
from ablation.tracking.folder_record import folder_of, study_of_folders
from ablation.tracking.store import Store

FILE = "test.json"


@dataclass(frozen=True)
class HeldOut:
    """The finalists' paired difference on the test split.

    Attributes:
        metric: such as test/AP.
        difference, low, high: other loss - BCE and its interval, at the level of the look that ended the
            decision: how many pairs there are was decided on val, and the two splits' differences correlate.
        pairs: of finished runs.
        time_ms: when it was read, since 1970.
    """

    metric: str
    difference: float
    low: float
    high: float
    pairs: int
    time_ms: int


def has_test_split(run: Prepared) -> bool:
    """Whether there is a test split with images.

    Raises:
        DataError: it cannot be read, which is better known before anything is trained.
    """
    if run.command is not None:
        return run.command.has_test
    return run.config.data.has_test() and len(run.config.data.open_test()) > 0


def held_out(
    out: Path, design: SettleDesign, finalists: tuple[str, str], look: Look, store: Store | None
) -> HeldOut | None:
    """What the test split says of the pairs of the deciding look; read at the first call and at no other.

    Returns:
        None where no pair finished.

    Raises:
        DataError: the split is damaged.
    """
    path = design_file(out, design.study).with_name(FILE)
    former = read_held_out(path)
    if former is not None or not look.pairs:
        return former
    seeds = design.decide_seeds[: look.planned]
    record = study_of_folders(out, design.decision_study)
    planned = [run for run in record.planned if run.seed in seeds and run.arm in finalists]
    folders = [folder_of(out, design.decision_study, run) for run in planned]
    evaluate_on_test(design.decision_study, folders, store)
    result = _compared(study_of_folders(out, design.decision_study), design, finalists, look)
    numbers = asdict(result).items()
    write_json(path, {name: None if value != value else value for name, value in numbers})  # NaN
    return result


def read_held_out(path: Path) -> HeldOut | None:
    """The result in this file; None where there is none."""
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        numbers: dict[str, Any] = {
            name: math.nan if value is None else value for name, value in fields.items()
        }
        return HeldOut(**numbers)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: not the reading of a test split ({error}); delete it and launch settle again, which "
            "evaluates nothing anew"
        ) from None


def _compared(record: StudyRecord, design: SettleDesign, finalists: tuple[str, str], look: Look) -> HeldOut:
    """The comparison that a study of these pairs would make, with the spread that the exploration knew."""
    seeds = design.decide_seeds[: look.planned]
    metric = design.metric.replace("val/", "test/", 1)
    level = 1 - look.p_limit
    declared = tuple(
        dataclasses.replace(entry, metric=metric, level=level, looks=None) for entry in record.declared[:1]
    )
    pairs = dataclasses.replace(
        record,
        runs=[run for run in record.runs if run.seed in seeds],
        planned=[run for run in record.planned if run.seed in seeds],
        declared=declared,
    )
    view = study_view(pairs, metric, level, RunArtifacts(pairs))
    comparison = planned_comparison(view, *finalists, generator(0, "report"))
    return HeldOut(
        metric=metric,
        difference=comparison.difference,
        low=comparison.low,
        high=comparison.high,
        pairs=comparison.n_pairs,
        time_ms=round(time.time() * 1000),
    )
