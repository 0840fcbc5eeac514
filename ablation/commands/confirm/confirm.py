"""`ablation confirm`: a study's finalists, chosen on val, trained on fresh seeds, measured on test once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.verdict.headline import Headline
from ablation.analyse.verdict.verdict import judge
from ablation.analyse.view import study_view
from ablation.commands.confirm.choice import Choice, arguments, choice_file, fix_choice, read_test
from ablation.commands.confirm.verdict import Confirmation, Kept, confirm_verdict
from ablation.errors import AblationError, UsageError
from ablation.files import write_json
from ablation.records import StudyRecord, declaration_that_counts, metric_and_level
from ablation.rng import generator
from ablation.study import app
from ablation.study.execute import shared_data
from ablation.study.plan_file import require_same_data
from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study

TEST = ("detections/test_ground_truth.json", "detections/test.json")
VAL = ("detections/ground_truth.json", "detections/val.json")


@dataclass(frozen=True)
class Confirmed:
    """Everything a confirmation found.

    Attributes:
        val, test: the same comparison on fresh seeds, on the images that the choice was made with and
            on images that had no say in it.
        lines: for people.
    """

    choice: Choice
    val: Confirmation
    test: Confirmation
    lines: list[str]


def confirm(study: str, seeds: Sequence[int], out: Path, store: Store, extra: Sequence[str]) -> Confirmed:
    """Choose, write the choice down, train, read the test split, compare.

    Args:
        seeds: that had no part in the choice.
        extra: further overrides of `ablation train`, such as train.device or hydra/launcher.

    Raises:
        UsageError: the study has no two finalists, or the seeds are not fresh.
        AblationError: a run failed.
    """
    record = load_study(store, study, out)
    declared = declaration_that_counts(record.declared)
    metric, level = metric_and_level(record.declared)
    if not metric.startswith("val/"):
        raise UsageError(f"study={study}: it compares {metric}; only a choice by val/... can be confirmed")
    main = _finalists(record, metric, level)
    used = {run.seed for run in record.runs} | {run.seed for run in record.planned}
    choice = fix_choice(out, study, (main.focal, main.bce), seeds, metric, used)
    launch = arguments(choice, record.planned, out, extra)
    require_same_data(out, study, shared_data(app.study_runs(launch)[0]))
    app.main(launch)
    read_test(choice, out, store)
    fresh = load_study(store, choice.name, out)
    margin = declared.margin if declared is not None else None
    names = (main.comparison.setting, main.bce_setting)
    common = (choice, fresh, names, margin, level)
    val = _compare(*common, metric, VAL, main.comparison.difference)
    test = _compare(*common, metric.replace("val/", "test/"), TEST, math.nan)
    confirmed = Confirmed(choice, val, test, _lines(choice, main, metric, val, test))
    folder = choice_file(out, choice.name).parent
    write_json(folder / "confirmation.json", {
        "study": study, "finalists": list(choice.finalists), "seeds": list(choice.seeds),
        "chosen": {"metric": metric, "difference": main.comparison.difference},
        "val": _row(val), "test": _row(test), "sentence": test.sentence,
    })  # fmt: skip
    return confirmed


def _finalists(record: StudyRecord, metric: str, level: float) -> Headline:
    view = study_view(record, metric, level)
    # Missing or pruned arms do not matter here: however the choice was made, it is confirmed afresh.
    main = judge(view, partial=True, generator=generator(0, "report"), artifacts=None).headline
    if main is None:
        raise UsageError(
            f"study={record.name}: needs a finished arm of BCE and one of another loss to choose finalists"
        )
    return main


def _compare(
    choice: Choice,
    fresh: StudyRecord,
    settings: tuple[str, str],
    margin: float | None,
    level: float,
    metric: str,
    files: tuple[str, str],
    before: float,
) -> Confirmation:
    artifacts = RunArtifacts(fresh)
    runs = [run for run in fresh.runs if run.seed in choice.seeds]
    values: list[pd.Series] = []
    kept: list[dict[int, Kept]] = []
    diverged: list[int] = []
    for arm in choice.finalists:
        own = [run for run in runs if run.arm == arm]
        done = [run for run in own if run.state == "FINISHED" and metric in run.metrics]
        values.append(pd.Series({run.seed: run.metrics[metric] for run in done}, dtype=float))
        diverged.append(sum(run.state == "DIVERGED" for run in own))
        found: dict[int, Kept] = {}
        for run in done:
            truth: Any = artifacts.json(files[0], run.run_id)
            results: Any = artifacts.json(files[1], run.run_id)
            if truth is not None and results is not None:
                found[run.seed] = (truth, results)
        kept.append(found)
    if values[0].empty and values[1].empty:
        raise AblationError(f"study {fresh.name}: no run has finished with {metric}")
    both = {seed: (kept[0][seed], kept[1][seed]) for seed in kept[0] if seed in kept[1]}
    random: np.random.Generator = generator(0, "report")
    return confirm_verdict(
        values[0], values[1], names=choice.finalists, settings=settings, metric=metric, margin=margin,
        level=level, before=before, diverged=(diverged[0], diverged[1]), planned=len(choice.seeds),
        kept=both, generator=random,
    )  # fmt: skip


def _lines(choice: Choice, main: Headline, metric: str, val: Confirmation, test: Confirmation) -> list[str]:
    seeds = main.comparison.n_pairs
    chosen = (
        f"chosen on {seeds} {'seed' if seeds == 1 else 'seeds'}: {main.comparison.difference:+.3f} {metric}"
    )
    if math.isfinite(main.corrected):
        chosen += f"; less the expected optimism of the choice: {main.corrected:+.3f}"
    return [
        f"{main.comparison.setting} against {main.bce_setting}",
        f"  {chosen}",
        f"  fresh seeds, {metric}: {_number(val)}",
        f"  fresh seeds, {metric.replace('val/', 'test/')}: {_number(test)}",
        f"{test.sentence}",
    ]


def _number(one: Confirmation) -> str:
    numbers = one.comparison
    text = f"{numbers.difference:+.3f}"
    if math.isfinite(numbers.low):
        text += f" [{numbers.low:+.3f}, {numbers.high:+.3f}]"
    return f"{text} on {numbers.n_pairs} pairs"


def _row(one: Confirmation) -> dict[str, Any]:
    numbers = one.comparison
    values = {name: getattr(numbers, name) for name in ("difference", "low", "high", "p_t", "tost_p")}
    # NaN is no JSON
    plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return {**plain, "pairs": numbers.n_pairs, "verdict": numbers.verdict, "note": numbers.note}
