"""`ablation confirm`: a study's finalists, chosen on val, trained on fresh seeds, measured on test once."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.statistics.paired import Comparison
from ablation.analyse.verdict.confirmation import FILE, StudyConfirmation, read_confirmation
from ablation.analyse.verdict.headline import Headline
from ablation.analyse.verdict.sentence import difference_text, of_comparison
from ablation.analyse.verdict.verdict import judge, planned_comparison
from ablation.analyse.view import StudyView, study_view
from ablation.commands.confirm.choice import Choice, arguments, choose, keep_choice
from ablation.commands.confirm.held_out import read_test, require_same_trainer, require_test_split
from ablation.errors import AblationError, UsageError
from ablation.files import write_json
from ablation.records import StudyRecord, declaration_that_counts, metric_and_level
from ablation.rng import generator
from ablation.study import app
from ablation.study.execute import shared_data
from ablation.study.plan_file import refuse_renamed, require_same_data
from ablation.tracking.store import Store
from ablation.tracking.study_folder import study_folder
from ablation.tracking.study_record import fetch_artifact, load_study


@dataclass(frozen=True)
class Confirmed:
    """The result of a confirmation.

    Attributes:
        choice: what was confirmed.
        confirmation: as it lies in the study's folder.
        path: of that file.
        lines: for people.
    """

    choice: Choice
    confirmation: StudyConfirmation
    path: Path
    lines: list[str]


def confirm(study: str, seeds: Sequence[int], out: Path, store: Store, extra: Sequence[str]) -> Confirmed:
    """Choose, check, write the choice down, train, read the test split, compare.

    Whatever can be refused is refused before anything is written or trained.

    Args:
        seeds: at least 3, that had no part in the choice.
        extra: further overrides of `ablation train`, such as train.device or hydra/launcher.

    Raises:
        UsageError: the study has no two finalists or no test split, or the seeds cannot confirm.
        AblationError: a run failed.
    """
    refuse_renamed(out, study)
    record = load_study(store, study, out)
    metric, level = metric_and_level(record.declared)
    if not metric.startswith("val/"):
        raise UsageError(f"study={study}: it compares {metric}; only a choice by val/... can be confirmed")
    finalists = _finalists(record, metric, level)
    used = {run.seed for run in record.runs} | {run.seed for run in record.planned}
    choice = choose(out, study, (finalists.focal, finalists.bce), seeds, metric, used)
    launch = arguments(choice, record.planned, out, extra, declaration_that_counts(record.declared))
    runs, _ = app.study_runs(launch)
    require_test_split(study, runs)
    require_same_data(out, study, shared_data(runs))
    require_same_trainer(study, record.planned, runs)
    keep_choice(choice, out)
    app.main(launch)
    read_test(choice, out, store)
    return _compared(choice, finalists, out, store)


def _finalists(record: StudyRecord, metric: str, level: float) -> Headline:
    view = study_view(record, metric, level)
    if view.held.refusal:
        raise UsageError(f"study={record.name}: its finalists cannot be chosen: {view.held.refusal}")
    # Missing or pruned arms do not matter here: however the choice was made, it is confirmed afresh.
    finalists = judge(view, partial=True, generator=generator(0, "report")).headline
    if finalists is None:
        raise UsageError(
            f"study={record.name}: needs a finished arm of BCE and one of another loss to choose finalists"
        )
    return finalists


def _compared(choice: Choice, finalists: Headline, out: Path, store: Store) -> Confirmed:
    """Compare the finalists on the fresh seeds, and write the result into the study's folder.

    The report of the fresh seeds' own study makes the same comparison with the same numbers.
    """
    fresh = load_study(store, choice.name, out)
    artifacts = RunArtifacts(fresh, lambda run_id, path: fetch_artifact(store, run_id, path))
    test_metric, level = metric_and_level(fresh.declared)
    declared = declaration_that_counts(fresh.declared)
    views = {metric: study_view(fresh, metric, level, artifacts) for metric in (choice.metric, test_metric)}
    val, test = (_comparison(choice, view) for view in views.values())
    margin = None if declared is None else declared.margin
    before = finalists.comparison
    sentence = of_comparison(test, finalists.bce_setting, test_metric, margin)
    folder = study_folder(out, choice.study)
    confirmation = StudyConfirmation(
        study=choice.name,
        finalists=choice.finalists,
        seeds=choice.seeds,
        time_ms=round(time.time() * 1000),
        metric=test_metric,
        chosen={"metric": choice.metric} | _row(before),
        val={"metric": choice.metric} | _row(val),
        test={"metric": test_metric} | _row(test),
        sentence=f"on fresh seeds {sentence}; it was {before.difference:+.3f} {choice.metric} when chosen",
    )
    former = read_confirmation(folder)
    if former is not None and dataclasses.replace(former, time_ms=confirmation.time_ms) == confirmation:
        confirmation = former  # made before, and the same
    write_json(folder / FILE, confirmation.to_json())
    lines = _lines(confirmation, finalists, val, test)
    return Confirmed(choice, confirmation, folder / FILE, lines)


def _comparison(choice: Choice, view: StudyView) -> Comparison:
    missing = [arm for arm in choice.finalists if arm not in set(view.arms["arm"])]
    if missing or not view.runs["valid"].any() or view.metric not in view.runs.columns:
        raise AblationError(f"study {choice.name}: no run has finished with {view.metric}")
    return planned_comparison(view, *choice.finalists, generator(0, "report"))


def _lines(
    confirmation: StudyConfirmation, finalists: Headline, val: Comparison, test: Comparison
) -> list[str]:
    before = finalists.comparison
    seeds = "1 seed" if before.n_pairs == 1 else f"{before.n_pairs} seeds"
    chosen = f"chosen on {seeds}: {before.difference:+.3f} {confirmation.chosen['metric']}"
    fresh = [
        f"  fresh seeds, {row['metric']}: {difference_text(comparison)} on {comparison.n_pairs} pairs"
        for row, comparison in ((confirmation.val, val), (confirmation.test, test))
    ]
    return [f"{before.setting} against {finalists.bce_setting}", f"  {chosen}", *fresh, confirmation.sentence]


def _row(comparison: Comparison) -> dict[str, Any]:
    """The numbers of a comparison as JSON, which has no NaN."""
    values = {name: getattr(comparison, name) for name in ("difference", "low", "high", "p_t", "tost_p")}
    plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return {**plain, "pairs": comparison.n_pairs, "verdict": comparison.verdict, "note": comparison.note}
