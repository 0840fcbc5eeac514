"""What a stage reads from the folders of its runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablation.commands.settle.runs import Stage
from ablation.errors import AblationError
from ablation.files import write_json
from ablation.records import Plan, PlannedRun
from ablation.study.plan_file import plan_file
from ablation.tracking.folder_record import folder_of


def stage(out: Path, runs: dict[tuple[str, int], tuple[str, list[dict[str, float]]]]) -> Stage:
    """A stage whose runs have these states and metrics by epoch."""
    planned = [PlannedRun(arm, seed, f"{arm}-{seed}-key", "ablation train") for arm, seed in runs]
    write_json(plan_file(out, "q_explore"), Plan(planned).to_json())
    for run, (state, epochs) in zip(planned, runs.values(), strict=True):
        folder = folder_of(out, "q_explore", run)
        folder.path.mkdir(parents=True)
        folder.set_state("RUNNING")
        for epoch, metrics in enumerate(epochs, 1):
            folder.append_metrics(epoch, metrics)
        if state != "RUNNING":
            folder.set_state(state)
    return Stage("q_explore", "", out, {}, [])


def test_results_are_the_last_values_of_what_has_ended(tmp_path: Path) -> None:
    finished = [{"val/AP": 0.2, "time/train_s": 1800.0}, {"val/AP": 0.3, "time/train_s": 1800.0}]
    made = stage(
        tmp_path,
        {
            ("bce", 0): ("FINISHED", finished),
            ("bce", 1): ("DIVERGED", [{"val/AP": 0.1}]),
            ("focal", 0): ("KILLED", [{"val/AP": 0.9, "time/eval_s": 3600.0}]),
            ("focal", 1): ("RUNNING", [{"val/AP": 0.9}]),
        },
    )
    assert made.results("val/AP") == {("bce", 0): 0.3, ("bce", 1): None}
    assert made.hours() == pytest.approx(2.0)


@pytest.mark.parametrize("value", [{}, {"val/APx": float("nan")}])
def test_a_finished_run_without_the_metric_is_named_and_not_launched_for_ever(
    tmp_path: Path, value: dict[str, float]
) -> None:
    made = stage(tmp_path, {("bce", 0): ("FINISHED", [{"val/AP": 0.3} | value])})
    with pytest.raises(AblationError, match=r"bce.*val/APx.*such as val/AP"):
        made.results("val/APx")
